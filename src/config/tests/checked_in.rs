//! `proxy.toml` is where people learn what can be configured: it has to load, to be complete, and to be true.

use super::{keys, known, read};
use crate::config::limits::RawLimits;
use crate::config::raw::{
    Raw, RawAccount, RawAdmin, RawClients, RawConnect, RawGrant, RawHosts, RawJwt, RawJwtKey, RawListen, RawLocalKeys,
    RawLog, RawMtls, RawPort, RawReferenceTable, RawStore, RawTls,
};
use crate::config::{Config, Keys, Tls, Upstream, load};
use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

const PROXY_TOML: &str = include_str!("../../../proxy.toml");

#[test]
fn the_checked_in_file_loads_from_the_working_directory_and_needs_no_secrets_of_exchanges() {
    let config = load(None, &[], std::iter::empty(), &known()).expect("no mistakes");
    assert!(config.accounts.iter().all(|account| account.keys == Keys::Simulated));
    assert!(config.accounts.iter().all(|account| account.upstream == Upstream::Simulator));
    assert_eq!(config.grants.len(), 9);
    let addresses = [config.listen.address, config.admin_address].into_iter().chain(config.connect_address);
    let addresses: Vec<_> = addresses.chain(config.ports.iter().map(|port| port.address)).collect();
    assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
    assert_eq!(addresses.len(), 6, "the main listener, the admin's, CONNECT and three ports");
}

#[test]
fn every_commented_line_loads_and_shows_the_default_unless_it_says_that_it_is_an_example() {
    let config = read(PROXY_TOML).map(relocated).expect("no mistakes");
    let lines: Vec<_> = PROXY_TOML.lines().collect();
    let mut tried = 0;
    for (index, line) in lines.iter().enumerate() {
        if commented(line).is_none() {
            continue;
        }
        let start = lines[..index].iter().rposition(|line| line.is_empty()).map_or(0, |blank| blank + 1);
        let end = lines[index..].iter().position(|line| line.is_empty()).map_or(lines.len(), |blank| index + blank);
        let is_example = lines[start..index].iter().any(|line| line.starts_with("# Example"));
        // The lines of an example belong together; a default stands alone.
        let text = if is_example { uncommented(&lines, start..end) } else { uncommented(&lines, index..index + 1) };
        let loaded = read(&text).unwrap_or_else(|errors| panic!("line {}: {errors}", index + 1));
        assert!(is_example || relocated(loaded) == config, "line {} is not the default", index + 1);
        tried += 1;
    }
    assert!(tried > 50, "only {tried} lines look like TOML");
}

/// Told of in words: no venue in the file has such accounts, and where there are none the key is a mistake.
const IN_PROSE: &str = "grants.trading_accounts";

#[test]
fn every_key_that_exists_is_in_the_file() {
    let written = written();
    let tables: [(&str, &[&str]); 17] = [
        ("", fields::<Raw>()),
        ("listen.", fields::<RawListen>()),
        ("listen.tls.", fields::<RawTls>()),
        ("ports.", fields::<RawPort>()),
        ("connect.", fields::<RawConnect>()),
        ("clients.", fields::<RawClients>()),
        ("clients.jwt.", fields::<RawJwt>()),
        ("clients.jwt.keys.", fields::<RawJwtKey>()),
        ("clients.mtls.", fields::<RawMtls>()),
        ("clients.local_keys.", fields::<RawLocalKeys>()),
        ("accounts.*.", fields::<RawAccount>()),
        ("accounts.*.upstream.", fields::<RawHosts>()),
        ("grants.", fields::<RawGrant>()),
        ("admin.", fields::<RawAdmin>()),
        ("store.", fields::<RawStore>()),
        ("log.", fields::<RawLog>()),
        ("limits.", fields::<RawLimits>()),
    ];
    for (table, fields) in tables {
        for field in fields {
            let key = format!("{table}{field}");
            let below = format!("{key}.");
            if key == IN_PROSE {
                assert!(PROXY_TOML.contains(&format!("`{field} = [")), "{key} is not in proxy.toml");
                continue;
            }
            assert!(written.iter().any(|path| *path == key || path.starts_with(&below)), "{key} is not in proxy.toml");
        }
    }
    for field in fields::<RawReferenceTable>() {
        assert!(written.iter().any(|path| path.ends_with(&format!(".{field}"))), "{field} is not in proxy.toml");
    }
    let sources = [include_str!("../raw.rs"), include_str!("../limits.rs")];
    let structs: usize = sources.iter().map(|source| source.matches("#[serde(deny_unknown_fields").count()).sum();
    assert_eq!(structs, tables.len() + 1, "a table is not looked at here");
}

#[test]
fn a_commented_key_that_does_not_exist_would_be_found() {
    let text = PROXY_TOML.replace("# leeway = \"5s\"", "leewya = \"5s\"");
    assert_eq!(keys(read(&text)), ["clients.jwt.leewya"]);
}

/// The TOML in a comment line; `None` for prose.
fn commented(line: &str) -> Option<&str> {
    let text = line.strip_prefix('#')?;
    let text = text.strip_prefix(' ').unwrap_or(text);
    let key = text.split(" = ").next().unwrap_or("");
    let is_key =
        text.contains(" = ") && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'.');
    (is_key || text.starts_with('[')).then_some(text)
}

/// The file with the TOML in some of its comments made real, in place of what their tables say otherwise.
fn uncommented(lines: &[&str], range: Range<usize>) -> String {
    let mut text: Vec<_> = lines.to_vec();
    for index in range {
        let Some(shown) = commented(lines[index]) else { continue };
        text[index] = shown;
        let Some((key, _)) = shown.split_once(" = ") else { continue };
        let is_header = |line: &str| line.starts_with('[');
        let table = text[..index].iter().rposition(|line| is_header(line)).expect("every key is in a table");
        let next = lines[index..].iter().position(|line| is_header(line)).map_or(lines.len(), |after| index + after);
        for other in table..next {
            if lines[other].strip_prefix(key).is_some_and(|rest| rest.starts_with(" = ")) {
                text[other] = "";
            }
        }
    }
    text.join("\n")
}

/// The paths of all keys in the file, commented or not; names of accounts are `*`.
fn written() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let mut table = String::new();
    for line in PROXY_TOML.lines() {
        let line = commented(line).unwrap_or(line);
        if line.starts_with('[') {
            let name = line.trim_matches(['[', ']']);
            table = if name.starts_with("accounts.") { "accounts.*".to_owned() } else { name.to_owned() };
            paths.insert(table.clone());
        } else if !line.is_empty() && !line.starts_with('#') {
            let dict: Dict = Toml::from_str(line).expect("one key on one line");
            flatten(&table, &dict, &mut paths);
        }
    }
    paths
}

fn flatten(above: &str, dict: &Dict, paths: &mut BTreeSet<String>) {
    for (name, value) in dict {
        let path = format!("{above}.{name}");
        match value {
            Value::Dict(_, below) => flatten(&path, below, paths),
            Value::Array(_, list) => {
                list.iter().filter_map(Value::as_dict).for_each(|below| flatten(&path, below, paths));
            }
            _ => {}
        }
        paths.insert(path);
    }
}

/// The names that a table takes, as serde lists them when it meets another.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    let unknown = Value::from(Dict::from([("?".to_owned(), Value::from(0_u8))]));
    match unknown.deserialize::<T>().err().map(|error| error.kind) {
        Some(Kind::UnknownField(_, fields)) => fields,
        _ => panic!("the table takes any key"),
    }
}

/// Each text is loaded from a folder of its own; moves what lies in it to one place.
fn relocated(mut config: Config) -> Config {
    let base = std::mem::take(&mut config.base);
    let strip = |path: &mut PathBuf| {
        if let Ok(relative) = path.strip_prefix(&base) {
            *path = relative.to_owned();
        }
    };
    strip(&mut config.store_path);
    if let Tls::Directory(path) = &mut config.listen.tls {
        strip(path);
    }
    config.clients.mtls.iter_mut().for_each(|mtls| strip(&mut mtls.authority));
    config
}
