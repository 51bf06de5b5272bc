//! What TOML may say: the shape of `proxy.toml`, key by key.
//!
//! Not what it means: values are texts and numbers here, `check` turns them into types that cannot be wrong. No
//! `Debug`, because a secret may stand where it does not belong.

use super::limits::RawLimits;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// What is said of anything but a reference where a reference belongs.
pub(super) const NOT_A_REFERENCE: &str = "a secret is a reference: { env = … } or { file = … }";

/// What is said of an `upstream` of another shape.
pub(super) const NOT_AN_UPSTREAM: &str = "must be \"simulator\" or a table { rest, ws, roots, addresses, local }";

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub(super) listen: RawListen,
    pub(super) ports: Vec<RawPort>,
    pub(super) connect: Option<RawConnect>,
    pub(super) clients: RawClients,
    pub(super) accounts: BTreeMap<String, RawAccount>,
    pub(super) grants: Vec<RawGrant>,
    pub(super) admin: RawAdmin,
    pub(super) store: RawStore,
    pub(super) log: RawLog,
    pub(super) limits: RawLimits,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawListen {
    pub(super) address: Option<String>,
    pub(super) tls: RawTls,
    pub(super) origins: Vec<String>,
    pub(super) hosts: Vec<String>,
    pub(super) unsafe_no_auth: bool,
    pub(super) connections_max: Option<u64>,
    pub(super) threads: Option<u64>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPort {
    pub(super) address: Option<String>,
    pub(super) venue: Option<String>,
    pub(super) endpoint: Option<String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConnect {
    pub(super) address: Option<String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTls {
    pub(super) directory: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawClients {
    pub(super) jwt: Option<RawJwt>,
    pub(super) mtls: Option<RawMtls>,
    pub(super) local_keys: Option<RawLocalKeys>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawJwt {
    pub(super) secret: Option<RawReference>,
    pub(super) keys: Vec<RawJwtKey>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) lifetime_max: Option<String>,
    pub(super) leeway: Option<String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawJwtKey {
    pub(super) algorithm: Option<String>,
    pub(super) pem: Option<RawReference>,
    pub(super) kid: Option<String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMtls {
    pub(super) authority: Option<RawReference>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLocalKeys {
    pub(super) master: Option<RawReference>,
    pub(super) generations: BTreeMap<String, u64>,
    pub(super) placeholder_lifetime: Option<String>,
    pub(super) bearer_lifetime: Option<String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAccount {
    pub(super) venue: Option<String>,
    pub(super) key: Option<RawReference>,
    pub(super) secret: Option<RawReference>,
    pub(super) upstream: Option<RawUpstream>,
    pub(super) nonce_unit: Option<String>,
    pub(super) ordering: Option<String>,
    pub(super) window: Option<u64>,
    pub(super) token: Option<RawReference>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHosts {
    pub(super) rest: Option<String>,
    pub(super) ws: Option<String>,
    pub(super) roots: Option<String>,
    pub(super) addresses: Vec<String>,
    pub(super) local: bool,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawGrant {
    pub(super) client: Option<String>,
    pub(super) account: Option<String>,
    pub(super) venues: Option<Vec<String>>,
    pub(super) scope: Option<Vec<String>>,
    pub(super) trading_accounts: Option<Vec<u64>>,
    pub(super) max_sessions: Option<u64>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAdmin {
    pub(super) address: Option<String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawStore {
    pub(super) path: Option<String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) format: Option<String>,
    pub(super) level: Option<String>,
}

/// `{ env = "…" }` or `{ file = "…" }`.
#[derive(Default)]
pub(super) struct RawReference {
    pub(super) env: Option<String>,
    pub(super) file: Option<String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawReferenceTable {
    env: Option<String>,
    file: Option<String>,
}

impl<'de> Deserialize<'de> for RawReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = RawReference;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(NOT_A_REFERENCE)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawReference, A::Error> {
                let RawReferenceTable { env, file } = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawReference { env, file })
            }
        }
        deserializer.deserialize_any(Table)
    }
}

/// The word `"simulator"`, or a table.
pub(super) enum RawUpstream {
    Word(String),
    Hosts(RawHosts),
}

impl<'de> Deserialize<'de> for RawUpstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrTable;
        impl<'de> Visitor<'de> for WordOrTable {
            type Value = RawUpstream;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(NOT_AN_UPSTREAM)
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<RawUpstream, E> {
                Ok(RawUpstream::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawUpstream, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(RawUpstream::Hosts)
            }
        }
        deserializer.deserialize_any(WordOrTable)
    }
}
