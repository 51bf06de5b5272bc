//! `[[ports]]` and `[connect]`: listeners beside the main one, and that none takes what another one needs.

use super::{Checker, accounts, overlap};
use crate::config::mistakes::Key;
use crate::config::raw::{Raw, RawConnect, RawPort};
use crate::config::{Account, Grant, Port, Reach};
use crate::venue::Endpoint;
use std::net::{Ipv4Addr, SocketAddr};

/// Listeners beside the main one; more is a mistake in a generated file.
const PORTS_MAX: usize = 100;

/// Where `[connect]` listens unless it says otherwise.
const CONNECT_DEFAULT: u16 = 8444;

pub(super) fn ports(raw: &Raw, accounts: &[Account], grants: &[Grant], checker: &mut Checker<'_>) -> Vec<Port> {
    let table = Key::top("ports");
    if raw.ports.len() > PORTS_MAX {
        checker.wrong(&table, &format!("must be at most {PORTS_MAX}"), "");
    }
    let is_used = |venue: &str| {
        accounts.iter().any(|account| account.venue == venue)
            || grants.iter().any(|grant| matches!(&grant.reach, Reach::Venues(venues) if venues.contains(&venue)))
    };
    let listed = raw.ports.iter().enumerate();
    listed.filter_map(|(index, port)| self::port(port, &table.at(index), raw, &is_used, checker)).collect()
}

fn port(
    port: &RawPort,
    table: &Key,
    raw: &Raw,
    is_used: &dyn Fn(&str) -> bool,
    checker: &mut Checker<'_>,
) -> Option<Port> {
    let address_key = table.then("address");
    if port.address.is_none() {
        checker.missing(&address_key, "is missing", "write address = \"127.0.0.1:8601\"");
    }
    let address = checker.address(port.address.as_deref(), 8601, &address_key);
    if raw.listen.unsafe_no_auth && !address.ip().is_loopback() {
        let what = "would let everybody on the network trade, because of listen.unsafe_no_auth";
        checker.wrong(&address_key, what, "remove that, or listen on 127.0.0.1");
    }
    let venue_key = table.then("venue");
    let Some(word) = &port.venue else {
        checker.missing(&venue_key, "is missing", "name the venue to which the port leads");
        return None;
    };
    let row = accounts::venue(word, &venue_key, checker)?;
    if !is_used(row.name) && !checker.has_mistakes_in("accounts") && !checker.has_mistakes_in("grants") {
        let help = "add an account there, or a grant of its public data; or remove the port";
        checker.wrong(&venue_key, "leads nowhere: no account is at that venue", help);
    }
    let endpoint = match &port.endpoint {
        Some(name) => Some(endpoint(name, row.endpoints, &table.then("endpoint"), checker)?),
        None => None,
    };
    let is_address = port.address.as_deref().is_some_and(|text| text.parse::<SocketAddr>().is_ok());
    // A stand-in must not be found to overlap with a real one.
    is_address.then_some(Port { address, venue: row.name, endpoint })
}

fn endpoint(name: &str, known: &'static [Endpoint], key: &Key, checker: &mut Checker<'_>) -> Option<&'static str> {
    let found = known.iter().map(|endpoint| endpoint.name).find(|endpoint| *endpoint == name);
    if found.is_none() {
        let known: Vec<&str> = known.iter().map(|endpoint| endpoint.name).collect();
        checker.wrong(key, "unknown endpoint", &format!("known at this venue are {}", known.join(", ")));
    }
    found
}

pub(super) fn connect(raw: Option<&RawConnect>, checker: &mut Checker<'_>) -> Option<SocketAddr> {
    let key = Key::top("connect").then("address");
    let address = checker.address(raw?.address.as_deref(), CONNECT_DEFAULT, &key);
    if !address.ip().is_loopback() {
        let help = format!("write \"{}:{}\"", Ipv4Addr::LOCALHOST, address.port());
        checker.wrong(&key, "must be a loopback address: this listener speaks without TLS", &help);
    }
    Some(address)
}

/// Every listener needs an address of its own; the one that is written later is the one to move.
pub(super) fn each_on_its_own(listeners: &[(Key, SocketAddr)], checker: &mut Checker<'_>) {
    for (index, (key, address)) in listeners.iter().enumerate() {
        if let Some((other, _)) = listeners[..index].iter().find(|(_, other)| overlap(*other, *address)) {
            checker.wrong(key, &format!("is the same as {other}"), "give it a port of its own");
        }
    }
}
