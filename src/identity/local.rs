//! Local material: key pairs that bots sign with, placeholders that stand for venues' tokens, and the secret of one
//! `countersign run`. All of it is made of one master key, each kind under a label of its own; nothing is stored.
//!
//! Worth nothing at an exchange. Whoever has the master key can make all of it, so it is a secret like the exchange's.

mod derived;
mod keys;
mod logouts;
mod placeholder;
mod replay;
#[cfg(test)]
mod tests;

pub use keys::{LocalKey, LocalKeyFor};
pub use placeholder::PLACEHOLDER_BYTES_MAX;

use super::{Method, NotAuthenticated, Principal, proved_name};
use crate::credential::sha256;
use crate::fresh::UnixMillis;
use crate::names::{AccountName, ClientName};
use crate::secret::Secret;
use crate::venue::{ClientLogin, SignedLogin, Venue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use derived::Derived;
use keys::{KeyMaker, Table};
use logouts::Logouts;
use placeholder::{Claims, Seal};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Shortest master key in bytes: as long as the hash that everything is made with.
pub const MASTER_BYTES_MIN: usize = 32;

/// How long a placeholder for a venue's bearer token lives, unless it is set. Bots buy one at their start and show it
/// for as long as they run, which is longer than the venue's own token lives.
pub const BEARER_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The generation of a client of which nothing is said.
pub const GENERATION_FIRST: u32 = 1;

/// The master key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the master key is shorter than 32 bytes; make one with `openssl rand -base64 48`")]
pub struct MasterTooShort;

/// What the configuration says of local keys, and a reload may change.
#[derive(Default)]
pub struct LocalGrants {
    /// Every client and account that a grant names for local keys.
    pub keys: Vec<LocalKeyFor>,
    /// The generation of clients, where it is not [`GENERATION_FIRST`]. Another one makes every key and placeholder
    /// of that client worthless.
    pub generations: BTreeMap<ClientName, u32>,
}

/// Makes local keys, placeholders and secrets of one run, and knows its own.
pub struct LocalKeys {
    maker: KeyMaker,
    seal: Seal,
    runs: Derived,
    placeholder_lifetime: Duration,
    bearer_lifetime: Duration,
    began_at: UnixMillis,
    current: RwLock<Current>,
    logouts: Mutex<Logouts>,
}

/// What a reload replaces.
struct Current {
    table: Table,
    generations: BTreeMap<ClientName, u32>,
}

/// A text that stands for a venue's token.
#[derive(Debug)]
pub struct Placeholder {
    /// The text: letters, digits, `+` and `/`, at most [`PLACEHOLDER_BYTES_MAX`] bytes.
    pub text: Secret,
    /// The first moment at which it is no longer taken.
    pub ends_at: UnixMillis,
}

/// Why no placeholder was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotIssued {
    /// The client has shown no proof.
    #[error("a client without a proof gets no placeholder")]
    Anonymous,
    /// The client's proof is bound to another account.
    #[error("the client's proof is for another account")]
    OtherAccount,
}

/// Whose a credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The client that it was issued to.
    pub client: ClientName,
    /// The account that it is for.
    pub account: AccountName,
}

impl Owner {
    /// True if the credential was issued to this client for this account. On a connection that is proved otherwise,
    /// nothing else of ours has any business.
    pub fn is(&self, client: &ClientName, account: Option<&AccountName>) -> bool {
        self.client == *client && Some(&self.account) == account
    }
}

/// The start of an API key's hash: enough to find a key by, for whoever has it, and nothing for anybody else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 4]);

impl KeyHash {
    /// The first 32 bits of the key's SHA-256: `printf %s KEY | sha256sum | cut -c-8`.
    pub fn of(api_key: &str) -> Self {
        let [a, b, c, d, ..] = sha256(&[api_key.as_bytes()]);
        Self([a, b, c, d])
    }
}

impl LocalKeys {
    /// Takes a master key. `placeholder_lifetime` is the longest that a placeholder may live; `now` is the start of
    /// the process, before which no signature is remembered.
    pub fn new(
        master: &Secret,
        grants: LocalGrants,
        placeholder_lifetime: Duration,
        now: UnixMillis,
    ) -> Result<Self, MasterTooShort> {
        if master.len() < MASTER_BYTES_MIN {
            return Err(MasterTooShort);
        }
        let local = Self {
            maker: KeyMaker::new(master),
            seal: Seal::new(master),
            runs: Derived::new(master, "run secret"),
            placeholder_lifetime,
            bearer_lifetime: BEARER_LIFETIME,
            began_at: now,
            current: RwLock::new(Current { table: Table::default(), generations: BTreeMap::new() }),
            logouts: Mutex::default(),
        };
        local.retable(grants, now);
        Ok(local)
    }

    /// The same with another lifetime of placeholders at venues of bearer tokens; without it, [`BEARER_LIFETIME`].
    #[must_use]
    pub fn with_bearer_lifetime(self, bearer_lifetime: Duration) -> Self {
        Self { bearer_lifetime, ..self }
    }

    /// Takes other grants and generations. Keys that stay keep their memory of signatures.
    pub fn retable(&self, grants: LocalGrants, now: UnixMillis) {
        let LocalGrants { keys, generations } = grants;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let of = |client: &ClientName| generation(&generations, client);
        let table = Table::new(&self.maker, &keys, of, &current.table, now);
        *current = Current { table, generations };
    }

    /// The key pair of a client for an account, whether or not a grant names them. `None`: bots of this venue do not
    /// sign.
    pub fn issue(&self, whose: &LocalKeyFor) -> Option<LocalKey> {
        self.maker.make(whose, self.generation(&whose.client))
    }

    /// The present generation of a client.
    pub fn generation(&self, client: &ClientName) -> u32 {
        generation(&self.read().generations, client)
    }

    /// Makes the placeholder of one client for one account. `random` tells it from every other one.
    ///
    /// It ends when the configured lifetime is over or when the client's proof ends, whatever comes first.
    pub fn issue_placeholder(
        &self,
        who: &Principal,
        account: &AccountName,
        venue: &'static dyn Venue,
        random: [u8; 16],
        now: UnixMillis,
    ) -> Result<Placeholder, NotIssued> {
        if who.method() == Method::Anonymous {
            return Err(NotIssued::Anonymous);
        }
        if who.account().is_some_and(|bound| bound != account) {
            return Err(NotIssued::OtherAccount);
        }
        let lifetime = if venue.bearer().is_some() { self.bearer_lifetime } else { self.placeholder_lifetime };
        let lifetime_ends_at = now.plus(lifetime);
        let ends_at = who.ends_at().map_or(lifetime_ends_at, |proof_ends_at| proof_ends_at.min(lifetime_ends_at));
        let claims = Claims {
            client: who.name().clone(),
            account: account.clone(),
            venue: venue.name().to_owned(),
            method: who.method(),
            scope: who.scope(),
            proof_ends_at: who.ends_at(),
            generation: self.epoch(who.name(), who.method()),
            issued_at: now,
            ends_at,
            id: random,
        };
        Ok(Placeholder { text: self.seal.close(&claims), ends_at })
    }

    /// A placeholder that this client shows for this account to have another one for it: the same again, which ends when
    /// it would have ended, and is given up with it. Another one could be prolonged for ever, and would outlive a logout.
    pub fn same_placeholder(
        &self,
        shown: &Secret,
        who: &Principal,
        account: &AccountName,
        venue: &str,
        now: UnixMillis,
    ) -> Option<Placeholder> {
        let claims = self.good_claims(venue, shown, now).ok()?;
        let is_own = claims.client == *who.name() && claims.account == *account;
        is_own.then(|| Placeholder { text: shown.clone(), ends_at: claims.ends_at })
    }

    /// Takes a placeholder no more, from now to its end or to the end of this process. It has to be good now.
    pub fn log_out(&self, venue: &str, token: &Secret, now: UnixMillis) -> Result<Owner, NotAuthenticated> {
        let claims = self.good_claims(venue, token, now)?;
        let mut logouts = self.logouts.lock().unwrap_or_else(PoisonError::into_inner);
        logouts.add(claims.ends_at, claims.id, now);
        Ok(Owner { client: claims.client, account: claims.account })
    }

    /// Whose a shown credential is, if it is one of ours that is good at this venue now. Of a login only the API key is
    /// looked at: neither signature nor secret is verified, and nothing is remembered.
    ///
    /// For connections whose client has proved itself otherwise: what is another client's or account's is refused
    /// there, what is nobody's is a dummy.
    pub fn owner(&self, shown: &ClientLogin, venue: &str, now: UnixMillis) -> Option<Owner> {
        match shown {
            ClientLogin::Signed(SignedLogin { api_key, .. }) | ClientLogin::Key { api_key, .. } => {
                let current = self.read();
                let whose = current.table.find(api_key, venue)?;
                Some(Owner { client: whose.client.clone(), account: whose.account.clone() })
            }
            ClientLogin::Token(token) => {
                let claims = self.good_claims(venue, token, now).ok()?;
                Some(Owner { client: claims.client, account: claims.account })
            }
        }
    }

    /// The secret that one `countersign run` puts into its child's proxy address: letters, digits, `-` and `_`.
    pub fn run_secret(&self, random: [u8; 16]) -> Secret {
        let mac = self.runs.mac(&[&random]);
        Secret::from(BASE64URL.encode([&random[..], &mac[..16]].concat()))
    }

    /// True for a secret that [`run_secret`](Self::run_secret) made with this master key, in any process.
    pub fn is_run_secret(&self, shown: &[u8]) -> bool {
        let Ok(bytes) = BASE64URL.decode(shown) else { return false };
        let Some((random, mac)) = bytes.split_first_chunk::<16>() else { return false };
        Secret::new(mac.to_vec()) == Secret::new(self.runs.mac(&[random])[..16].to_vec())
    }

    /// Verifies a signature that was made with a local key. Each counts once.
    pub(super) fn verify(
        &self,
        venue: &str,
        login: &SignedLogin,
        now: UnixMillis,
    ) -> Result<Principal, NotAuthenticated> {
        let current = self.read();
        current.table.verify(venue, login, now).map(|(whose, generation)| by_key(whose, generation))
    }

    /// Verifies a local key that was shown as it is. It counts as often as it is shown: nothing was signed.
    pub(super) fn verify_bare(
        &self,
        venue: &str,
        api_key: &str,
        secret: &Secret,
    ) -> Result<Principal, NotAuthenticated> {
        let current = self.read();
        current.table.verify_bare(venue, api_key, secret).map(|(whose, generation)| by_key(whose, generation))
    }

    /// Verifies a placeholder. The client is who bought it, as it proved itself then, until that proof ends.
    pub(super) fn redeem(&self, venue: &str, token: &Secret, now: UnixMillis) -> Result<Principal, NotAuthenticated> {
        let claims = self.good_claims(venue, token, now)?;
        Ok(Principal {
            name: claims.client,
            method: claims.method,
            ends_at: claims.proof_ends_at,
            scope: claims.scope,
            account: Some(claims.account),
            generation: (claims.method != Method::NoAuth).then_some(claims.generation),
        })
    }

    fn good_claims(&self, venue: &str, token: &Secret, now: UnixMillis) -> Result<Claims, NotAuthenticated> {
        let claims = self.seal.open(token)?;
        if proved_name(claims.client.as_str()).is_none() || claims.method == Method::Anonymous {
            return Err(NotAuthenticated::Placeholder);
        }
        if claims.venue != venue {
            return Err(NotAuthenticated::PlaceholderOfOtherVenue);
        }
        if claims.generation != self.epoch(&claims.client, claims.method) {
            return Err(NotAuthenticated::Generation);
        }
        if now >= claims.ends_at {
            return Err(NotAuthenticated::Expired);
        }
        if self.logouts.lock().unwrap_or_else(PoisonError::into_inner).hold(claims.ends_at, claims.id) {
            return Err(NotAuthenticated::LoggedOut);
        }
        Ok(claims)
    }

    /// What a placeholder's generation has to be. Who came in unproved is believed by this process alone: the next
    /// one may ask for proofs.
    fn epoch(&self, client: &ClientName, method: Method) -> u32 {
        match method {
            Method::NoAuth => u32::try_from(self.began_at.seconds() & u64::from(u32::MAX)).expect("32 bits are left"),
            Method::Anonymous | Method::Jwt | Method::Certificate | Method::LocalKey => self.generation(client),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client whose local key it is.
fn by_key(whose: &LocalKeyFor, generation: u32) -> Principal {
    Principal {
        name: whose.client.clone(),
        method: Method::LocalKey,
        ends_at: None,
        scope: None,
        account: Some(whose.account.clone()),
        generation: Some(generation),
    }
}

fn generation(generations: &BTreeMap<ClientName, u32>, client: &ClientName) -> u32 {
    generations.get(client).copied().unwrap_or(GENERATION_FIRST)
}

impl fmt::Debug for LocalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalKeys({} keys)", self.read().table.len())
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
