//! `[clients]`: how clients prove who they are.

use super::Checker;
use crate::config::mistakes::Key;
use crate::config::raw::{Raw, RawGrant, RawJwt, RawJwtKey, RawLocalKeys, RawMtls};
use crate::config::{Clients, Jwt, JwtAlgorithm, JwtKey, LocalKeys, Mtls, PublicRef};
use crate::names::ClientName;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Longest lifetime of a client token that makes sense to allow.
const LIFETIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A clock that is further off is a fault to be repaired, not allowed for.
const LEEWAY_MAX: Duration = Duration::from_secs(60);

/// Keys that one token may have to be tried with.
const KEYS_MAX: usize = 8;

/// Generations that one client may have had: each earlier one is still told from foreign keys.
const GENERATION_MAX: u64 = 1_000_000;

/// A placeholder that lives longer is a key of its own.
const PLACEHOLDER_LIFETIME_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);

pub(super) fn clients(raw: &Raw, checker: &mut Checker<'_>) -> Clients {
    let table = Key::top("clients");
    let (clients, grants) = (&raw.clients, &raw.grants);
    let jwt = clients.jwt.as_ref().map(|raw| jwt(raw, &table.then("jwt"), checker));
    let mtls = clients.mtls.as_ref().map(|raw| mtls(raw, &table.then("mtls"), checker));
    let local_keys = clients.local_keys.as_ref().map(|raw| local_keys(raw, grants, &table.then("local_keys"), checker));
    let shared = |local: &LocalKeys| jwt.as_ref().is_some_and(|jwt: &Jwt| jwt.secret.as_ref() == Some(&local.master));
    if local_keys.as_ref().is_some_and(shared) {
        let key = table.then("local_keys").then("master");
        let what = "is the secret of clients.jwt too: whoever issues tokens could make every local key";
        checker.wrong(&key, what, "give it a file of its own: openssl rand -base64 48");
    }
    Clients { jwt, mtls, local_keys }
}

fn jwt(raw: &RawJwt, table: &Key, checker: &mut Checker<'_>) -> Jwt {
    let secret = raw.secret.as_ref().map(|raw| checker.reference(raw, &table.then("secret")));
    let keys_key = table.then("keys");
    let keys: Vec<_> = raw.keys.iter().enumerate().map(|(index, raw)| key(raw, &keys_key.at(index), checker)).collect();
    let is_unsaid = [table.then("secret"), keys_key.clone()].iter().all(|key| !checker.mistakes.is_spoiled(key));
    if secret.is_none() && keys.is_empty() && is_unsaid {
        checker.missing(table, "has neither secret nor keys", "say who signs client tokens: secret = { file = … }");
    }
    if keys.len() + usize::from(secret.is_some()) > KEYS_MAX {
        checker.wrong(&keys_key, "holds more than 8 keys, the secret counted", "remove those of issuers that are gone");
    }
    for (index, raw_key) in raw.keys.iter().enumerate() {
        if raw.keys[..index].iter().any(|earlier| earlier.kid == raw_key.kid && raw_key.kid.is_some()) {
            checker.wrong(&keys_key.at(index).then("kid"), "is the kid of an earlier key", "");
        }
    }
    for (text, name) in [(&raw.issuer, "issuer"), (&raw.audience, "audience")] {
        if text.as_deref() == Some("") {
            checker.wrong(&table.then(name), "is empty", "remove it, or write what tokens hold");
        }
    }
    let (second, zero) = (Duration::from_secs(1), Duration::ZERO);
    let lifetime = raw.lifetime_max.as_deref();
    Jwt {
        secret,
        keys,
        issuer: raw.issuer.clone(),
        audience: raw.audience.clone().unwrap_or_else(|| "countersign".to_owned()),
        lifetime_max: checker.time(lifetime, "24h", &table.then("lifetime_max"), second, LIFETIME_MAX),
        leeway: checker.time(raw.leeway.as_deref(), "5s", &table.then("leeway"), zero, LEEWAY_MAX),
    }
}

fn key(raw: &RawJwtKey, table: &Key, checker: &mut Checker<'_>) -> JwtKey {
    const KNOWN: &str = "known are RS256, ES256, EdDSA";
    let algorithm_key = table.then("algorithm");
    let algorithm = match raw.algorithm.as_deref() {
        Some("RS256") => JwtAlgorithm::Rs256,
        Some("ES256") => JwtAlgorithm::Es256,
        Some("EdDSA") => JwtAlgorithm::EdDsa,
        Some("HS256") => {
            checker.wrong(&algorithm_key, "has no public key", "write clients.jwt.secret for HS256");
            JwtAlgorithm::EdDsa
        }
        Some(_) => {
            checker.wrong(&algorithm_key, "unknown algorithm", KNOWN);
            JwtAlgorithm::EdDsa
        }
        None => {
            checker.missing(&algorithm_key, "is missing", KNOWN);
            JwtAlgorithm::EdDsa
        }
    };
    if raw.kid.as_deref() == Some("") {
        checker.wrong(&table.then("kid"), "is empty", "remove it, or write what tokens hold");
    }
    let pem = checker.required(raw.pem.as_ref(), &table.then("pem"), "write { file = … } with the issuer's public key");
    JwtKey { algorithm, pem: PublicRef(pem), kid: raw.kid.clone() }
}

fn mtls(raw: &RawMtls, table: &Key, checker: &mut Checker<'_>) -> Mtls {
    let key = table.then("authority");
    const HELP: &str = "write { file = … } with the certificates of the authorities";
    let authority = match &raw.authority {
        Some(raw) if raw.env.is_some() && raw.file.is_none() => {
            // The TLS listener rereads it when it changes, which a variable never does.
            checker.wrong(&key.then("env"), "must be a file", HELP);
            PathBuf::new()
        }
        Some(raw) => {
            checker.reference(raw, &key);
            raw.file.as_ref().map(|file| checker.base.join(file)).unwrap_or_default()
        }
        None => {
            checker.missing(&key, "is missing", HELP);
            PathBuf::new()
        }
    };
    Mtls { authority }
}

fn local_keys(raw: &RawLocalKeys, grants: &[RawGrant], table: &Key, checker: &mut Checker<'_>) -> LocalKeys {
    const HELP: &str = "write { file = … }, and make the file: openssl rand -base64 48";
    let master = checker.required(raw.master.as_ref(), &table.then("master"), HELP);
    let mut generations = BTreeMap::new();
    for (name, number) in &raw.generations {
        let key = table.then("generations").then(name);
        let number = checker.number(Some(*number), 1, &key, GENERATION_MAX);
        match ClientName::parse(name) {
            Ok(client) => {
                generations.insert(client, u32::try_from(number).expect("`number` keeps it within a million"));
            }
            Err(_) => {
                checker.wrong(&key, "is not a client's name", "write it without a prefix, as in { \"bot-a\" = 2 }");
            }
        }
        // A name with a slip of the pen would leave a stolen key good.
        if !grants.iter().filter_map(|grant| grant.client.as_deref()).any(|client| may_be(client, name)) {
            checker.wrong(&key, "is for a client that no grant names", "write the name as the grants have it");
        }
    }
    let mut lifetime = |raw: Option<&str>, default: &str, name: &str| {
        checker.time(raw, default, &table.then(name), Duration::from_secs(1), PLACEHOLDER_LIFETIME_MAX)
    };
    LocalKeys {
        master,
        generations,
        placeholder_lifetime: lifetime(raw.placeholder_lifetime.as_deref(), "24h", "placeholder_lifetime"),
        bearer_lifetime: lifetime(raw.bearer_lifetime.as_deref(), "7days", "bearer_lifetime"),
    }
}

/// True if a grant's client could be the one of that name. Wildcards are taken for it: `policy` knows what they mean.
fn may_be(granted: &str, name: &str) -> bool {
    let bare = ["jwt:", "cert:", "key:"].iter().find_map(|prefix| granted.strip_prefix(prefix)).unwrap_or(granted);
    bare == name || bare.contains('*')
}
