//! `[accounts.<name>]`: sets of keys, and where their exchanges are.

use super::{Checker, texts};
use crate::config::mistakes::Key;
use crate::config::raw::{RawAccount, RawHosts, RawUpstream};
use crate::config::{Account, HostUrl, Keys, Ordering, SecretRef, Upstream, UpstreamHosts, VenueRow};
use crate::fresh::NonceUnit;
use crate::names::AccountName;
use std::collections::BTreeMap;

/// Requests of one key that may be under way at a time: a nonce window of seconds, at thousands of requests a second.
const WINDOW_MAX: u64 = 256;

/// Addresses that one upstream may be given.
const ADDRESSES_MAX: usize = 16;

pub(super) fn accounts(raw: &BTreeMap<String, RawAccount>, checker: &mut Checker<'_>) -> Vec<Account> {
    let table = Key::top("accounts");
    raw.iter().filter_map(|(name, raw)| account(name, raw, &table.then(name), checker)).collect()
}

/// The venue of that name; notes it if there is none.
pub(super) fn venue(name: &str, key: &Key, checker: &mut Checker<'_>) -> Option<VenueRow> {
    let row = checker.known.venues.iter().find(|row| row.name == name).copied();
    if row.is_none() {
        let known: Vec<_> = checker.known.venues.iter().map(|row| row.name).collect();
        checker.wrong(key, "unknown venue", &format!("known are {}", known.join(", ")));
    }
    row
}

fn account(name: &str, raw: &RawAccount, table: &Key, checker: &mut Checker<'_>) -> Option<Account> {
    let parsed = AccountName::parse(name);
    if parsed.is_err() {
        let help = "write lower-case letters, digits and `_`, a letter first, as in kraken_main";
        checker.wrong(table, "is not an account name", help);
    }
    let upstream = upstream(raw.upstream.as_ref(), &table.then("upstream"), checker);
    let unit_key = table.then("nonce_unit");
    let nonce_unit = raw.nonce_unit.as_deref().and_then(|word| {
        NonceUnit::parse(word).map_err(|_| checker.wrong(&unit_key, "unknown unit", "known are ms, us, ns")).ok()
    });
    let ordering = ordering(raw, table, checker);
    let venue_key = table.then("venue");
    let Some(word) = &raw.venue else {
        let known: Vec<_> = checker.known.venues.iter().map(|row| row.name).collect();
        checker.missing(&venue_key, "is missing", &format!("known are {}", known.join(", ")));
        return None;
    };
    let row = venue(word, &venue_key, checker)?;
    if !row.has_nonces {
        without_nonces(raw, table, checker);
    }
    let keys = match row.secret {
        Some(_) => signing(raw, &upstream, table, checker),
        None => keyless(raw, &upstream, table, checker),
    };
    Some(Account { name: parsed.ok()?, venue: row.name, keys, upstream, nonce_unit, ordering })
}

/// How requests follow each other. A number of its own for the window: one that is as wide as the exchange allows by
/// accident is none.
fn ordering(raw: &RawAccount, table: &Key, checker: &mut Checker<'_>) -> Ordering {
    let (ordering_key, window_key) = (table.then("ordering"), table.then("window"));
    match (raw.ordering.as_deref(), raw.window) {
        (None | Some("strict"), None) => Ordering::Strict,
        (None | Some("strict"), Some(_)) => {
            checker.wrong(
                &window_key,
                "has no meaning where the order is strict",
                "write ordering = \"window\" beside it",
            );
            Ordering::Strict
        }
        (Some("window"), None) => {
            checker.missing(&window_key, "is missing", "write how many requests may be under way at a time, like 8");
            Ordering::Strict
        }
        (Some("window"), Some(window)) => {
            if window < 2 {
                checker.wrong(&window_key, "must be at least 2", "one at a time is ordering = \"strict\"");
            }
            let window = checker.number(Some(window.max(2)), 2, &window_key, WINDOW_MAX);
            Ordering::Window(usize::try_from(window).expect("`number` keeps it within the maximum"))
        }
        (Some(_), _) => {
            checker.wrong(&ordering_key, "unknown ordering", "known are strict, window");
            Ordering::Strict
        }
    }
}

/// What would be ignored where no request has to wait for another.
fn without_nonces(raw: &RawAccount, table: &Key, checker: &mut Checker<'_>) {
    let unused = [
        (raw.nonce_unit.is_some(), "nonce_unit"),
        (raw.ordering.is_some(), "ordering"),
        (raw.window.is_some(), "window"),
    ];
    for (is_there, name) in unused {
        if is_there {
            checker.wrong(&table.then(name), "is not used by this venue", "its requests carry no nonces; remove it");
        }
    }
}

/// The keys of a venue that has keys.
fn signing(raw: &RawAccount, upstream: &Upstream, table: &Key, checker: &mut Checker<'_>) -> Keys {
    const HELP: &str = "write { env = … } or { file = … }, or upstream = \"simulator\" to try it without";
    if raw.token.is_some() {
        checker.wrong(&table.then("token"), "is not used by this venue", "its keys buy their own tokens; remove it");
    }
    if *upstream == Upstream::Simulator {
        // References may stay where they are, to switch to and fro by one line; they are checked, and not used.
        for (raw, name) in [(&raw.key, "key"), (&raw.secret, "secret")] {
            raw.iter().for_each(|raw| drop(checker.reference(raw, &table.then(name))));
        }
        return Keys::Simulated;
    }
    // Whoever got `upstream` wrong may have meant the simulator.
    if checker.mistakes.is_spoiled(&table.then("upstream")) {
        return Keys::Simulated;
    }
    Keys::Signing {
        key: checker.required(raw.key.as_ref(), &table.then("key"), HELP),
        secret: checker.required(raw.secret.as_ref(), &table.then("secret"), HELP),
    }
}

/// The token of a venue that has neither keys nor hosts of its own.
fn keyless(raw: &RawAccount, upstream: &Upstream, table: &Key, checker: &mut Checker<'_>) -> Keys {
    let unused = [(raw.key.is_some(), "key"), (raw.secret.is_some(), "secret")];
    for (is_there, name) in unused {
        if is_there {
            checker.wrong(&table.then(name), "is not used by this venue", "remove it; `token` is what it can send");
        }
    }
    let upstream_key = table.then("upstream");
    let has_socket = matches!(upstream, Upstream::Hosts(hosts) if hosts.ws.is_some());
    if *upstream == Upstream::Simulator {
        checker.wrong(&upstream_key, "has no simulator of this venue", "write { ws = \"wss://…\" }");
    } else if !has_socket {
        checker.missing(&upstream_key.then("ws"), "is missing", "this venue has no hosts of its own");
    }
    let token: Option<SecretRef> = raw.token.as_ref().map(|raw| checker.reference(raw, &table.then("token")));
    Keys::None { token }
}

fn upstream(raw: Option<&RawUpstream>, key: &Key, checker: &mut Checker<'_>) -> Upstream {
    match raw {
        None => Upstream::Venue,
        Some(RawUpstream::Word(word)) if word == "simulator" => {
            if !checker.known.has_simulator {
                checker.wrong(key, "is not in this build", "build with the feature `simulator`");
            }
            Upstream::Simulator
        }
        Some(RawUpstream::Word(_)) => {
            checker.wrong(key, "unknown upstream", "write \"simulator\" or { rest = \"https://…\", ws = \"wss://…\" }");
            Upstream::Simulator
        }
        Some(RawUpstream::Hosts(raw)) => Upstream::Hosts(hosts(raw, key, checker)),
    }
}

fn hosts(raw: &RawHosts, table: &Key, checker: &mut Checker<'_>) -> UpstreamHosts {
    let rest = url(raw.rest.as_deref(), "https", &table.then("rest"), checker);
    if rest.as_ref().is_some_and(|url| url.path != "/") {
        checker.wrong(&table.then("rest"), "must have no path", "clients say which; write \"https://host\"");
    }
    let key = table.then("addresses");
    if raw.addresses.len() > ADDRESSES_MAX {
        checker.wrong(&key, "holds more than 16", "");
    }
    let mut addresses = Vec::new();
    for (index, text) in raw.addresses.iter().enumerate() {
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => checker.wrong(&key.at(index), "must be an address with a port", "write \"127.0.0.1:9001\""),
        }
    }
    UpstreamHosts {
        rest,
        ws: url(raw.ws.as_deref(), "wss", &table.then("ws"), checker),
        roots: raw.roots.as_ref().map(|path| checker.path(path, &table.then("roots"))),
        addresses,
        is_local: raw.local,
    }
}

fn url(raw: Option<&str>, scheme: &str, key: &Key, checker: &mut Checker<'_>) -> Option<HostUrl> {
    match texts::host_url(raw?, scheme) {
        Ok(url) => Some(url),
        Err(what) => {
            checker.wrong(key, what, "");
            // A stand-in, so that it does not count as missing as well.
            Some(HostUrl { host: String::new(), port: 443, path: "/".to_owned() })
        }
    }
}
