//! Configurations as people write them, and as they get them wrong.

mod checked_in;
mod layered;
mod mistaken;

use super::{Config, ConfigErrors, Known, VenueRow, load};
use crate::credential::SecretFormat;
use crate::venue::{Endpoint, EndpointKind};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Stands where a secret may be written by mistake.
const CANARY: &str = "hunter2-canary";

/// One of everything that needs little else.
const SMALL: &str = r#"
[listen]
address = "127.0.0.1:8443"
[clients.jwt]
secret = { file = "client.key" }
[clients.mtls]
authority = { file = "ca.pem" }
[accounts.kraken_main]
venue = "kraken"
key = { env = "KEY" }
secret = { file = "secret" }
[accounts.feed]
venue = "plain"
upstream = { ws = "wss://feed.example/v1" }
[[grants]]
client = "jwt:bot-a"
account = "kraken_main"
scope = ["read", "trade"]
[[grants]]
client = "anonymous"
venues = ["kraken"]
scope = ["public"]
"#;

const VENUES: [VenueRow; 4] = [
    VenueRow {
        name: "kraken",
        secret: Some(SecretFormat::Base64),
        endpoints: DOORS,
        has_nonces: true,
        has_sub_accounts: false,
    },
    VenueRow {
        name: "bitfinex",
        secret: Some(SecretFormat::Text),
        endpoints: DOORS,
        has_nonces: true,
        has_sub_accounts: true,
    },
    VenueRow {
        name: "projectx",
        secret: Some(SecretFormat::Text),
        endpoints: DOORS,
        has_nonces: false,
        has_sub_accounts: true,
    },
    VenueRow { name: "plain", secret: None, endpoints: &[], has_nonces: false, has_sub_accounts: false },
];

const DOORS: &[Endpoint] = &[door("private"), door("public")];

const fn door(name: &'static str) -> Endpoint {
    Endpoint { name, kind: EndpointKind::Socket, host: "", path: "", local_path: None }
}

/// What the program knows; its reader of clients repeats what it read, which ours has to keep to itself.
fn known() -> Known<'static> {
    let client = |text: &str| if text.contains(' ') { Err(format!("bad client {text}")) } else { Ok(()) };
    Known { venues: &VENUES, client, has_simulator: true }
}

/// A file `proxy.toml` of that text, in a folder of its own.
fn file(text: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("countersign-config-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written to");
    std::fs::write(folder.join("proxy.toml"), text).expect("the temporary folder can be written to");
    folder.join("proxy.toml")
}

fn read(text: &str) -> Result<Config, ConfigErrors> {
    read_with(text, &[], &[])
}

fn read_with(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let path = file(text);
    let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let flags: Vec<_> = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let outcome = load(Some(&path), &flags, env, &known());
    std::fs::remove_dir_all(path.parent().expect("it is in a folder")).expect("it was made a moment ago");
    outcome
}

/// The keys of all mistakes, in order; fails if one of them shows the canary.
fn keys(outcome: Result<Config, ConfigErrors>) -> Vec<String> {
    let errors = outcome.expect_err("there are mistakes");
    for shown in [errors.to_string(), format!("{errors:?}")] {
        assert!(!shown.contains("hunter2"), "a value is shown: {shown}");
    }
    assert_eq!(errors.to_string().lines().count(), errors.0.len(), "one line for each: {errors}");
    errors.0.into_iter().map(|mistake| mistake.key).collect()
}
