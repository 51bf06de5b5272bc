//! Development certificates: an authority and a certificate for the proxy, an authority and certificates for
//! clients, a secret for client tokens, and the master key of local keys.
//!
//! Makes what is missing and renews what no longer serves. It never writes over a private key unless forced,
//! and leaves alone a server certificate that somebody else's authority signed. Not for production: the
//! authority's key lies beside the certificates.

pub mod bundle;
mod files;
mod inspect;
mod issue;
mod made;
#[cfg(test)]
mod tests;

pub use made::{Item, Made, Reason, Role, Step};

use crate::fresh::UnixMillis;
use crate::tls::{NotLoaded, read_private};
use files::{Mode, place};
use inspect::Facts;
use issue::{Authority, Subject};
use rcgen::KeyPair;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A certificate that ends sooner than this is renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The client that gets a certificate where none is named.
pub const DEFAULT_CLIENT: &str = "bot-a";

/// What should be in the folder.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The folder. Made if it is not there.
    pub directory: PathBuf,
    /// DNS names of the server certificate besides `localhost`: names of exchanges that the hosts file points
    /// here, and names such as `kraken.localhost`. No wildcard: `*.localhost` is refused by OpenSSL's clients.
    pub names: Vec<String>,
    /// Clients that get a certificate each.
    pub clients: Vec<String>,
    /// Makes everything anew, keys and authorities too. Whoever trusted the old ones has to be told.
    pub is_forced: bool,
}

/// Why certificates were not made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file that has to be read cannot be.
    #[error(transparent)]
    Read(#[from] NotLoaded),
    /// A file or folder cannot be written.
    #[error("`{path}` cannot be written ({error}); choose a folder that you may write to", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A private key appeared between looking and writing.
    #[error("`{path}` was made by somebody else just now; run the command again", path = path.display())]
    KeyAppeared {
        /// The file.
        path: PathBuf,
    },
    /// A file does not hold what its name says.
    #[error("`{path}` cannot be read as a {what}; remove it, or run `countersign certs --force` to make everything anew", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A certificate has to be issued and the authority's key is not here.
    #[error("`{path}` is missing, and a certificate has to be signed with it; put it back, or run `countersign certs --force` to make a new authority", path = path.display())]
    NoAuthorityKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The authority's key and certificate are not a pair.
    #[error("`{path}` and its key do not belong together; put the right pair back, or run `countersign certs --force`", path = path.display())]
    AuthorityMismatch {
        /// The authority's certificate.
        path: PathBuf,
    },
    /// The authority ends within 30 days.
    #[error("`{path}` ends within 30 days or is over; run `countersign certs --force` and have bots trust the new one", path = path.display())]
    AuthorityExpires {
        /// The authority's certificate.
        path: PathBuf,
    },
    /// The authority may not sign for these names.
    #[error("`{path}` may not sign for {names}; run `countersign certs --force` to make an authority that may, and have bots trust the new one", path = path.display(), names = names.join(", "))]
    NotPermitted {
        /// The authority's certificate.
        path: PathBuf,
        /// The names outside its name constraints.
        names: Vec<String>,
    },
    /// Not a DNS name.
    #[error("`{0}` is not a DNS name without wildcard; write it like `api.kraken.com`")]
    BadName(String),
    /// Not a name for a client's file and certificate.
    #[error(
        "`{0}` cannot be a client's name here; use letters, digits, `-`, `_` and `.`, and none of `ca`, `server`, `client-ca`, `client-jwt`, `local-keys`"
    )]
    BadClient(String),
    /// The library that writes certificates refused.
    #[error("a certificate could not be made ({0})")]
    Issue(#[from] rcgen::Error),
    /// The system gave no randomness.
    #[error("the system gave no random bytes ({0})")]
    Random(getrandom::Error),
}

/// Makes and renews what `wanted` asks for, as of `now`.
///
/// On an error, what was made before it stays: the next call goes on from there.
pub fn ensure(wanted: &Wanted, now: UnixMillis) -> Result<Made, CertsError> {
    let names = server_names(&wanted.names)?;
    for client in &wanted.clients {
        check_client(client)?;
    }
    std::fs::create_dir_all(&wanted.directory)
        .map_err(|error| CertsError::Write { path: wanted.directory.clone(), error })?;

    let folder = Folder { directory: &wanted.directory, is_forced: wanted.is_forced, now };
    let mut items = Vec::new();

    let server = Subject::Server { names: &names };
    if folder.is_foreign("server")? {
        items.push(Item { role: Role::Server, path: folder.certificate("server"), step: Step::LeftAlone });
    } else {
        let (authority, step) = folder.authority("ca", &Subject::ServerAuthority { names: &names })?;
        items.push(Item { role: Role::ServerAuthority, path: folder.certificate("ca"), step });
        let step = folder.leaf("server", &server, &authority)?;
        items.push(Item { role: Role::Server, path: folder.certificate("server"), step });
    }

    let (authority, step) = folder.authority("client-ca", &Subject::ClientAuthority)?;
    items.push(Item { role: Role::ClientAuthority, path: folder.certificate("client-ca"), step });
    for client in &wanted.clients {
        let step = folder.leaf(client, &Subject::Client { name: client }, &authority)?;
        items.push(Item { role: Role::Client(client.clone()), path: folder.certificate(client), step });
    }

    for (stem, role) in [("client-jwt", Role::ClientTokens), ("local-keys", Role::LocalKeys)] {
        let (path, step) = folder.secret(stem)?;
        items.push(Item { role, path, step });
    }
    Ok(Made { items })
}

/// The folder, and the circumstances of this run.
struct Folder<'a> {
    directory: &'a Path,
    is_forced: bool,
    now: UnixMillis,
}

impl Folder<'_> {
    fn certificate(&self, stem: &str) -> PathBuf {
        self.directory.join(format!("{stem}.pem"))
    }

    fn key(&self, stem: &str) -> PathBuf {
        self.directory.join(format!("{stem}.key"))
    }

    /// True if the certificate is there and another authority than ours signed it.
    fn is_foreign(&self, stem: &str) -> Result<bool, CertsError> {
        Ok(!self.is_forced && self.facts(stem)?.is_some_and(|facts| !facts.is_ours()))
    }

    /// What the certificate on disk says. None if there is none, or if it is not to be looked at.
    fn facts(&self, stem: &str) -> Result<Option<Facts>, CertsError> {
        if self.is_forced {
            return Ok(None);
        }
        Facts::read(&self.certificate(stem))
    }

    /// The key on disk, if there is one to be kept.
    fn key_pair(&self, stem: &str) -> Result<Option<KeyPair>, CertsError> {
        let path = self.key(stem);
        if self.is_forced || !path.exists() {
            return Ok(None);
        }
        let text = read_private(&path)?;
        let pair = std::str::from_utf8(text.expose()).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
        pair.map(Some).ok_or(CertsError::Unreadable { path, what: "private key" })
    }

    /// The key on disk, or a new one that is put there first: a certificate is never without its key.
    fn key_pair_or_new(&self, stem: &str) -> Result<KeyPair, CertsError> {
        if let Some(pair) = self.key_pair(stem)? {
            return Ok(pair);
        }
        let pair = issue::new_key()?;
        place(&self.key(stem), pair.serialize_pem().as_bytes(), self.private())?;
        Ok(pair)
    }

    fn private(&self) -> Mode {
        if self.is_forced { Mode::PrivateOver } else { Mode::Private }
    }

    fn authority(&self, stem: &str, subject: &Subject<'_>) -> Result<(Authority, Step), CertsError> {
        let path = self.certificate(stem);
        let Some(facts) = self.facts(stem)? else {
            let step = if path.exists() { Step::Renewed(Reason::Forced) } else { Step::Created };
            let (authority, pem) = Authority::make(self.key_pair_or_new(stem)?, subject, self.now)?;
            place(&path, pem.as_bytes(), Mode::Public)?;
            return Ok((authority.at(path, self.key(stem)), step));
        };
        if self.now.plus(RENEW_BEFORE) > facts.not_after {
            return Err(CertsError::AuthorityExpires { path });
        }
        let key = self.key_pair(stem)?;
        if key.as_ref().is_some_and(|key| !facts.belongs_to(key)) {
            return Err(CertsError::AuthorityMismatch { path });
        }
        Ok((Authority::of(facts, key)?.at(path, self.key(stem)), Step::Kept))
    }

    fn leaf(&self, stem: &str, subject: &Subject<'_>, authority: &Authority) -> Result<Step, CertsError> {
        let path = self.certificate(stem);
        let step = match self.facts(stem)? {
            None if path.exists() => Step::Renewed(Reason::Forced),
            None => Step::Created,
            Some(facts) if !facts.is_ours() => return Ok(Step::LeftAlone),
            Some(facts) => match self.why_renew(stem, subject, authority, &facts)? {
                Some(reason) => Step::Renewed(reason),
                None => return Ok(Step::Kept),
            },
        };
        // Asked before a key is made: what cannot be signed leaves nothing behind.
        authority.may_issue(subject)?;
        let pem = authority.issue(&self.key_pair_or_new(stem)?, subject, self.now)?;
        place(&path, pem.as_bytes(), Mode::Public)?;
        Ok(step)
    }

    fn why_renew(
        &self,
        stem: &str,
        subject: &Subject<'_>,
        authority: &Authority,
        facts: &Facts,
    ) -> Result<Option<Reason>, CertsError> {
        let has_key = self.key_pair(stem)?.is_some_and(|key| facts.belongs_to(&key));
        Ok(if !authority.signed(facts) {
            Some(Reason::Authority)
        } else if !has_key {
            Some(Reason::Key)
        } else if !subject.names().all(|name| facts.names.iter().any(|own| own == name)) {
            Some(Reason::Names)
        } else if self.now.plus(RENEW_BEFORE) > facts.not_after {
            Some(Reason::Expiry)
        } else {
            None
        })
    }

    fn secret(&self, stem: &str) -> Result<(PathBuf, Step), CertsError> {
        let path = self.key(stem);
        let step = match path.exists() {
            true if !self.is_forced => return Ok((path, Step::Kept)),
            true => Step::Renewed(Reason::Forced),
            false => Step::Created,
        };
        place(&path, issue::secret()?.expose(), self.private())?;
        Ok((path, step))
    }
}

/// `localhost` and the given names: checked, in lower case, each once.
fn server_names(names: &[String]) -> Result<Vec<String>, CertsError> {
    let mut checked = vec!["localhost".to_owned()];
    for name in names {
        let is_dns = rustls::pki_types::DnsName::try_from(name.as_str()).is_ok();
        if !is_dns || name.ends_with('.') {
            return Err(CertsError::BadName(name.clone()));
        }
        let name = name.to_ascii_lowercase();
        if !checked.contains(&name) {
            checked.push(name);
        }
    }
    Ok(checked)
}

/// A client's name becomes a file's name and a DNS name in a certificate.
fn check_client(name: &str) -> Result<(), CertsError> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    let is_taken =
        ["ca", "server", "client-ca", "client-jwt", "local-keys"].contains(&name.to_ascii_lowercase().as_str());
    if is_plain && starts_well && !is_taken && name.len() <= 63 {
        return Ok(());
    }
    Err(CertsError::BadClient(name.to_owned()))
}
