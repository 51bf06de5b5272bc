//! The table of local keys: each made of the master key and of whose it is, found by the API key that a bot shows.

use super::derived::Derived;
use super::replay::Memory;
use super::{GENERATION_FIRST, KeyHash};
use crate::credential::{SecretFormat, Signer, TextShape};
use crate::fresh::UnixMillis;
use crate::identity::NotAuthenticated;
use crate::names::{AccountName, ClientName};
use crate::secret::Secret;
use crate::venue::{SignedLogin, Venue};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Generations before the present one whose keys are still told from foreign ones.
const RETIRED_MAX: u32 = 16;

/// A key pair that a bot signs with as if it were the exchange's own.
#[derive(Debug)]
pub struct LocalKey {
    /// The public half, as the venue's API keys look.
    pub api_key: String,
    /// The secret half, as the venue's API secrets look.
    pub secret: Secret,
}

/// A client and an account that it may use with a local key.
#[derive(Clone)]
pub struct LocalKeyFor {
    /// The client.
    pub client: ClientName,
    /// The account. The key is good for no other one.
    pub account: AccountName,
    /// The account's venue.
    pub venue: &'static dyn Venue,
}

/// The two shares of the master key that key pairs are made of.
pub(super) struct KeyMaker {
    api_keys: Derived,
    secrets: Derived,
}

impl KeyMaker {
    pub(super) fn new(master: &Secret) -> Self {
        Self { api_keys: Derived::new(master, "api key"), secrets: Derived::new(master, "api secret") }
    }

    /// The key pair of one client for one account. `None`: bots of this venue do not sign.
    pub(super) fn make(&self, whose: &LocalKeyFor, generation: u32) -> Option<LocalKey> {
        let shape = whose.venue.local_key_shape()?;
        let text = |share: &Derived, shape: TextShape| {
            let (client, account) = (whose.client.as_str().as_bytes(), whose.account.as_str().as_bytes());
            share.text(shape, &[whose.venue.name().as_bytes(), client, account, &generation.to_be_bytes()])
        };
        let api_key = text(&self.api_keys, shape.api_key);
        let api_key = String::from_utf8(api_key.expose().to_vec()).expect("both shapes are ASCII");
        Some(LocalKey { api_key, secret: text(&self.secrets, shape.secret) })
    }
}

/// A key that is good.
struct Entry {
    whose: LocalKeyFor,
    generation: u32,
    signer: Signer,
    memory: Arc<Mutex<Memory>>,
}

/// All keys that are good, and those that no longer are, by API key.
#[derive(Default)]
pub(super) struct Table {
    entries: HashMap<String, Entry>,
    retired: HashSet<String>,
}

impl Table {
    /// The table of these keys. A key that was in the table before keeps its memory of signatures; that of any other
    /// begins now.
    pub(super) fn new(
        maker: &KeyMaker,
        keys: &[LocalKeyFor],
        generation_of: impl Fn(&ClientName) -> u32,
        before: &Self,
        now: UnixMillis,
    ) -> Self {
        let mut table = Self::default();
        for whose in keys {
            let generation = generation_of(&whose.client);
            let Some(pair) = maker.make(whose, generation) else { continue };
            let format = whose.venue.secret_format().unwrap_or(SecretFormat::Text);
            let signer = Signer::new(&Secret::from(pair.api_key.clone()), &pair.secret, format)
                .expect("a venue's shape is one that its format reads");
            let memory = before.entries.get(&pair.api_key).map(|entry| Arc::clone(&entry.memory));
            let memory = memory.unwrap_or_else(|| Arc::new(Mutex::new(Memory::since(now))));
            table.entries.insert(pair.api_key, Entry { whose: whose.clone(), generation, signer, memory });
            let earlier = generation.saturating_sub(RETIRED_MAX).max(GENERATION_FIRST)..generation;
            table.retired.extend(earlier.filter_map(|it| maker.make(whose, it)).map(|pair| pair.api_key));
        }
        table
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whose key it is, if it is one of a venue and good.
    pub(super) fn find(&self, api_key: &str, venue: &str) -> Option<&LocalKeyFor> {
        self.entries.get(api_key).map(|entry| &entry.whose).filter(|whose| whose.venue.name() == venue)
    }

    /// Verifies a signature, and takes note of it: the same one is refused from then on.
    pub(super) fn verify(
        &self,
        venue: &str,
        login: &SignedLogin,
        now: UnixMillis,
    ) -> Result<(&LocalKeyFor, u32), NotAuthenticated> {
        let entry = self.entry(venue, &login.api_key)?;
        if !login.is_by(&entry.signer) {
            return Err(NotAuthenticated::Signature);
        }
        let mut memory = entry.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.admit(&login.signature, login.nonce, now)?;
        Ok((&entry.whose, entry.generation))
    }

    /// Verifies a key that was shown as it is. Compares in constant time.
    pub(super) fn verify_bare(
        &self,
        venue: &str,
        api_key: &str,
        secret: &Secret,
    ) -> Result<(&LocalKeyFor, u32), NotAuthenticated> {
        let entry = self.entry(venue, api_key)?;
        let is_ours = Secret::new(entry.signer.danger_expose_secret().to_vec()) == *secret;
        if is_ours { Ok((&entry.whose, entry.generation)) } else { Err(NotAuthenticated::Signature) }
    }

    /// The good key of that name, at its own venue.
    fn entry(&self, venue: &str, api_key: &str) -> Result<&Entry, NotAuthenticated> {
        let Some(entry) = self.entries.get(api_key) else {
            return Err(match self.retired.contains(api_key) {
                true => NotAuthenticated::Generation,
                false => NotAuthenticated::ForeignKey(KeyHash::of(api_key)),
            });
        };
        if entry.whose.venue.name() != venue {
            return Err(NotAuthenticated::KeyOfOtherVenue(KeyHash::of(api_key)));
        }
        Ok(entry)
    }
}
