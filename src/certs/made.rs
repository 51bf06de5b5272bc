//! What a run found and did, for the command line to print.

use std::fmt;
use std::path::PathBuf;

/// What was found, made and renewed. Printed, it is one line for each role.
#[derive(Debug)]
pub struct Made {
    /// One for each role, in the order in which they were made.
    pub items: Vec<Item>,
}

/// What became of one certificate or secret.
#[derive(Debug)]
pub struct Item {
    /// What it is for.
    pub role: Role,
    /// The certificate, or the secret where there is none. Its key lies beside it, ending in `.key`.
    pub path: PathBuf,
    /// What was done.
    pub step: Step,
}

/// What a certificate or secret is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Signs the proxy's own certificate. Bots trust it.
    ServerAuthority,
    /// The proxy's own certificate.
    Server,
    /// Signs client certificates. The proxy trusts it.
    ClientAuthority,
    /// The certificate of one client.
    Client(String),
    /// Signs client tokens (HS256).
    ClientTokens,
    /// What all local keys are made of.
    LocalKeys,
}

/// What was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It was not there.
    Created,
    /// It was there and no longer served.
    Renewed(Reason),
    /// It was there and serves.
    Kept,
    /// It was there and is not from our authority.
    LeftAlone,
}

/// Why something was renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It has to carry other names now.
    Names,
    /// It ends within 30 days.
    Expiry,
    /// It was signed by an authority that is no longer here.
    Authority,
    /// Its key is another one now.
    Key,
    /// It was asked for.
    Forced,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.iter().try_for_each(|item| writeln!(f, "{item}"))
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<32} {}: {}", self.path.display(), self.role, self.step)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerAuthority => f.write_str("authority of the proxy's certificate, for bots to trust"),
            Self::Server => f.write_str("the proxy's certificate"),
            Self::ClientAuthority => f.write_str("authority of client certificates, for the proxy to trust"),
            Self::Client(name) => write!(f, "certificate of the client {name}"),
            Self::ClientTokens => f.write_str("secret that signs client tokens (HS256)"),
            Self::LocalKeys => f.write_str("master key of local keys"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Renewed(Reason::Names) => "renewed, its names changed",
            Self::Renewed(Reason::Expiry) => "renewed, it would have ended within 30 days",
            Self::Renewed(Reason::Authority) => "renewed, its authority changed",
            Self::Renewed(Reason::Key) => "renewed, its key changed",
            Self::Renewed(Reason::Forced) => "made anew",
            Self::Kept => "kept",
            Self::LeftAlone => "left alone, another authority signed it",
        })
    }
}
