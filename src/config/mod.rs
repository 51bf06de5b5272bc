//! The configuration: what `proxy.toml`, the environment and the flags say, checked, with every mistake in one report.
//!
//! Not what the modules run on: each owns its settings, and the command line fills them from here. Nothing is bound,
//! dialled or fetched to check a configuration, and no secret is in one: only where the secrets stand.

mod check;
mod layers;
mod limits;
mod mistakes;
mod raw;
mod secret_ref;
mod shape;
#[cfg(test)]
mod tests;

pub(crate) use layers::FILE;
pub use limits::Limits;
pub use mistakes::{ConfigErrors, Mistake};
pub use secret_ref::{PublicRef, SecretError, SecretRef};

use crate::credential::SecretFormat;
use crate::fresh::NonceUnit;
use crate::names::{AccountName, ClientName};
use crate::scope::Scope;
use crate::venue::Endpoint;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reads and checks the configuration: defaults, then the file, then the environment's `COUNTERSIGN__SECTION__KEY`,
/// then the overrides (key path and value), the later over the earlier.
///
/// Without a path, `proxy.toml` of the working directory is read if it is there. The error lists every mistake.
pub fn load(
    path: Option<&Path>,
    overrides: &[(String, String)],
    env: impl Iterator<Item = (OsString, OsString)>,
    known: &Known<'_>,
) -> Result<Config, ConfigErrors> {
    let mut mistakes = mistakes::Mistakes::default();
    let layers = layers::Layers::read(path, overrides, env, &mut mistakes);
    if let Some(file) = &layers.file {
        shape::settle(file, &mut mistakes);
    }
    let (raw, sources) = shape::settle(&layers.all, &mut mistakes);
    if !layers.is_complete {
        // What seems to be missing may stand in the file that could not be read.
        return Err(mistakes.into_errors());
    }
    check::check(&raw, layers, sources, known, mistakes)
}

/// What the rest of the program knows and a configuration may name.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The venues.
    pub venues: &'a [VenueRow],
    /// Reads a grant's client; the error says what is wrong with it, and not what it is.
    pub client: fn(&str) -> Result<(), String>,
    /// True if this build holds the simulator.
    pub has_simulator: bool,
}

/// A venue, as far as a configuration is concerned with it.
#[derive(Debug, Clone, Copy)]
pub struct VenueRow {
    /// Its name.
    pub name: &'static str,
    /// How its API secrets are written. `None`: it has none, nor hosts of its own.
    pub secret: Option<SecretFormat>,
    /// Its doors, which a port may name.
    pub endpoints: &'static [Endpoint],
    /// True if its requests carry nonces, of which an account may say the unit and how they follow each other.
    pub has_nonces: bool,
    /// True if one set of keys leads to several trading accounts, to which a grant may be narrowed.
    pub has_sub_accounts: bool,
}

/// A configuration without mistakes. Paths are complete: relative ones start at [`Config::base`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The folder of the configuration file, at which relative paths start; for [`SecretRef::resolve`].
    pub base: PathBuf,
    /// Where clients connect.
    pub listen: Listen,
    /// `[[ports]]`: further listeners, each for one venue.
    pub ports: Vec<Port>,
    /// `[connect] address`: where clients that read the proxy variables find us. `None`: nowhere.
    pub connect_address: Option<SocketAddr>,
    /// How they prove who they are.
    pub clients: Clients,
    /// The accounts, by name.
    pub accounts: Vec<Account>,
    /// Who may use them, in the order of the file.
    pub grants: Vec<Grant>,
    /// `[admin] address`: health and readiness.
    pub admin_address: SocketAddr,
    /// `[store] path`: the folder of nonce marks and tokens.
    pub store_path: PathBuf,
    /// What is logged, and how.
    pub log: Log,
    /// Every time, size and count.
    pub limits: Limits,
}

/// `[listen]`: where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: SocketAddr,
    /// Our own certificates.
    pub tls: Tls,
    /// The origins of browser pages that may connect, as browsers write them.
    pub origins: Vec<String>,
    /// Host names that clients may use beside the built-in ones, in lower case.
    pub hosts: Vec<String>,
    /// Every client is let in unproved. Development only; the address is loopback.
    pub unsafe_no_auth: bool,
    /// How many connections may be open.
    pub connections_max: usize,
    /// On how many threads they live.
    pub threads: usize,
}

/// One of `[[ports]]`: a listener that leads to one venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The address.
    pub address: SocketAddr,
    /// The venue: one of [`Known::venues`].
    pub venue: &'static str,
    /// The endpoint to whose host it is narrowed: one of the venue's.
    pub endpoint: Option<&'static str>,
}

/// Our own certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// A folder, as `countersign certs` fills it.
    Directory(PathBuf),
    /// One pair of PEM files.
    Pair {
        /// The chain, our own certificate first.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// `[clients]`: how clients prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// By a token.
    pub jwt: Option<Jwt>,
    /// By a certificate.
    pub mtls: Option<Mtls>,
    /// By a key pair that was issued here.
    pub local_keys: Option<LocalKeys>,
}

/// `[clients.jwt]`: whose tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// The HS256 secret that the issuer shares with us. At least this or one key is there.
    pub secret: Option<SecretRef>,
    /// Public keys of issuers.
    pub keys: Vec<JwtKey>,
    /// What `iss` must be; `None` for any.
    pub issuer: Option<String>,
    /// What `aud` must hold.
    pub audience: String,
    /// The longest time from `iat` to `exp`.
    pub lifetime_max: Duration,
    /// How far the issuer's clock may be from ours.
    pub leeway: Duration,
}

/// The public key of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKey {
    /// What it signs with.
    pub algorithm: JwtAlgorithm,
    /// The key.
    pub pem: PublicRef,
    /// The `kid` of its tokens; `None` for tokens without one.
    pub kid: Option<String>,
}

/// What an issuer with a public key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// `[clients.mtls]`: whose certificates are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mtls {
    /// The authorities, as one PEM file.
    pub authority: PathBuf,
}

/// `[clients.local_keys]`: key pairs and placeholders of our own issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalKeys {
    /// What all of them are made of.
    pub master: SecretRef,
    /// The generation of clients whose keys and placeholders were made worthless; 1 for every other client.
    pub generations: BTreeMap<ClientName, u32>,
    /// The longest that a placeholder may live.
    pub placeholder_lifetime: Duration,
    /// The same at venues of bearer tokens, whose bots buy one at their start and show it for as long as they run.
    pub bearer_lifetime: Duration,
}

/// `[accounts.<name>]`: one set of keys at one venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: AccountName,
    /// Its venue: one of [`Known::venues`].
    pub venue: &'static str,
    /// Its keys.
    pub keys: Keys,
    /// Where its exchange is.
    pub upstream: Upstream,
    /// What its nonces count; `None` for what its venue prefers.
    pub nonce_unit: Option<NonceUnit>,
    /// How requests with its nonces follow each other.
    pub ordering: Ordering,
}

/// How requests of one key follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// Each after the answer to the one before.
    Strict,
    /// So many at a time: only for a key with a nonce window at the exchange.
    Window(usize),
}

/// The keys of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// A key and a secret of the exchange.
    Signing {
        /// The API key.
        key: SecretRef,
        /// The API secret.
        secret: SecretRef,
    },
    /// Made at start, for the simulator.
    Simulated,
    /// The venue has none.
    None {
        /// What is sent upstream as `Authorization: Bearer`, if anything.
        token: Option<SecretRef>,
    },
}

/// Where an account's exchange is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// At the venue's own hosts.
    Venue,
    /// In this process.
    Simulator,
    /// Where the configuration says.
    Hosts(UpstreamHosts),
}

/// `[accounts.<name>.upstream]`: hosts in place of the venue's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamHosts {
    /// For requests; the path is `/`. `None`: the venue's own.
    pub rest: Option<HostUrl>,
    /// For sockets. `None`: the venue's own.
    pub ws: Option<HostUrl>,
    /// The authorities that are trusted there, as one PEM file; `None` for the public ones.
    pub roots: Option<PathBuf>,
    /// Addresses to dial in place of what DNS says.
    pub addresses: Vec<SocketAddr>,
    /// `local`: the host may turn out to be this machine.
    pub is_local: bool,
}

/// An `https://` or `wss://` address without user, query and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUrl {
    /// The host, in lower case; IPv6 addresses in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path, `/` at least.
    pub path: String,
}

/// `[[grants]]`: who may use what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// For which clients.
    pub client: ClientText,
    /// What is granted.
    pub reach: Reach,
    /// Which acts.
    pub scope: Scope,
    /// The trading accounts to which it is narrowed. `None`: all behind the account's keys.
    pub trading_accounts: Option<Vec<u64>>,
    /// How many sessions each client may have at a time.
    pub max_sessions: u32,
}

/// What a grant opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// One account.
    Account(AccountName),
    /// The public data of venues, each one of [`Known::venues`].
    Venues(Vec<&'static str>),
}

/// A grant's client, which [`Known::client`] can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientText(String);

impl ClientText {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `[log]`: what is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least important line that is written.
    pub level: tracing::Level,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl fmt::Debug for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("venues", &self.venues).finish_non_exhaustive()
    }
}
