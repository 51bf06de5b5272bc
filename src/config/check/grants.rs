//! `[[grants]]`: who may use what. An empty list lets nobody in, so it is a mistake and no policy.

use super::{Checker, accounts};
use crate::config::mistakes::Key;
use crate::config::raw::{Raw, RawGrant};
use crate::config::{ClientText, Grant, Reach};
use crate::names::AccountName;
use crate::scope::{Right, Scope};

/// Sessions of one client unless its grant says otherwise.
const SESSIONS_DEFAULT: u64 = 8;

/// Sessions that one client may be granted.
const SESSIONS_MAX: u64 = 100_000;

/// Trading accounts that one grant may name.
const TRADING_ACCOUNTS_MAX: usize = 256;

/// How a client is written.
const HOW: &str = "write \"jwt:bot-a\", \"cert:bot-a\", \"key:bot-a\" or \"anonymous\"";

/// The client that shows no proof.
const ANONYMOUS: &str = "anonymous";

pub(super) fn grants(raw: &Raw, checker: &mut Checker<'_>) -> Vec<Grant> {
    let table = Key::top("grants");
    if raw.grants.is_empty() {
        checker.missing(&table, "no grants: nobody could connect", "write [[grants]] with client, account and scope");
    }
    let is_open = raw.clients.jwt.is_some()
        || raw.clients.mtls.is_some()
        || raw.clients.local_keys.is_some()
        || raw.listen.unsafe_no_auth
        || raw.grants.iter().any(|grant| grant.client.as_deref() == Some(ANONYMOUS));
    if !is_open {
        let what = "no client can prove who it is: nobody could connect";
        checker.missing(&Key::top("clients"), what, "write [clients.jwt], [clients.mtls] or [clients.local_keys]");
    }
    let mut seen = Vec::new();
    let mut grants = Vec::new();
    for (index, raw_grant) in raw.grants.iter().enumerate() {
        let key = table.at(index);
        let identity = (&raw_grant.client, &raw_grant.account, &raw_grant.venues);
        if raw_grant.client.is_some() && seen.contains(&identity) {
            checker.wrong(
                &key,
                "is for the same client and account as an earlier grant",
                "write one grant with both scopes",
            );
        }
        seen.push(identity);
        grants.extend(grant(raw, raw_grant, &key, checker));
    }
    grants
}

fn grant(raw: &Raw, grant: &RawGrant, table: &Key, checker: &mut Checker<'_>) -> Option<Grant> {
    let client_key = table.then("client");
    match &grant.client {
        Some(text) => client(raw, text, &client_key, checker),
        None => checker.missing(&client_key, "is missing", HOW),
    }
    let reach = reach(raw, grant, table, checker);
    let scope = scope(grant, table, checker);
    let trading_accounts = trading_accounts(raw, grant, &table.then("trading_accounts"), checker);
    let sessions_key = table.then("max_sessions");
    let max_sessions = checker.number(grant.max_sessions, SESSIONS_DEFAULT, &sessions_key, SESSIONS_MAX);
    Some(Grant {
        client: ClientText(grant.client.clone()?),
        reach: reach?,
        scope,
        trading_accounts,
        max_sessions: u32::try_from(max_sessions).expect("`number` keeps it within 100,000"),
    })
}

fn client(raw: &Raw, text: &str, key: &Key, checker: &mut Checker<'_>) {
    const SAY_HOW: &str = "say how it proves its name: \"jwt:…\", \"cert:…\" or \"key:…\"";
    // `*` is never the anonymous client, and looks as if it were.
    if text == "*" || (text.starts_with(ANONYMOUS) && text.contains('*')) {
        checker.wrong(key, "is no client: a wildcard never stands for the anonymous one", SAY_HOW);
        return;
    }
    if let Err(what) = (checker.known.client)(text) {
        let what = if text.is_empty() || what.contains(text) { "is not a client" } else { &what };
        checker.wrong(key, what, HOW);
        return;
    }
    if text == ANONYMOUS || raw.listen.unsafe_no_auth {
        return;
    }
    let clients = &raw.clients;
    let ways = [
        ("jwt", "jwt", clients.jwt.is_some()),
        ("cert", "mtls", clients.mtls.is_some()),
        ("key", "local_keys", clients.local_keys.is_some()),
    ];
    let configured = ways.iter().filter(|(.., is_there)| *is_there).count();
    let prefix = text.split_once(':').map(|(prefix, _)| prefix);
    match ways.iter().find(|(word, ..)| prefix == Some(*word)) {
        // With none at all, that is what is wrong, and it is said once.
        Some((_, table, false)) if configured > 0 => {
            checker.wrong(key, &format!("could never connect, because there is no [clients.{table}]"), "");
        }
        Some(_) => {}
        None if configured > 1 => checker.wrong(key, "could prove its name in more than one way", SAY_HOW),
        None => {}
    }
}

fn reach(raw: &Raw, grant: &RawGrant, table: &Key, checker: &mut Checker<'_>) -> Option<Reach> {
    let account_key = table.then("account");
    let venues_key = table.then("venues");
    match (&grant.account, &grant.venues) {
        (Some(name), None) => {
            if !raw.accounts.contains_key(name) && !checker.mistakes.is_spoiled(&Key::top("accounts")) {
                let is_name = |name: &&str| AccountName::parse(name).is_ok();
                let known: Vec<_> = raw.accounts.keys().map(String::as_str).filter(is_name).collect();
                let help = if known.is_empty() { "there are none".to_owned() } else { known_are(&known) };
                checker.wrong(&account_key, "unknown account", &help);
            }
            let venue = raw.accounts.get(name).and_then(|account| account.venue.as_deref());
            let row = checker.known.venues.iter().find(|row| Some(row.name) == venue);
            let is_by_key = grant.client.as_deref().is_some_and(|client| client.starts_with("key:"));
            if is_by_key && row.is_some_and(|row| row.secret.is_none()) {
                let what = "has no local keys: bots of its venue do not sign";
                checker.wrong(&account_key, what, "write \"jwt:…\" or \"cert:…\" for its client");
            }
            if grant.client.as_deref() == Some(ANONYMOUS) {
                let what = "would be open to everybody who can connect, because the client is anonymous";
                checker.wrong(&account_key, what, "name a client, or write venues = […] with scope = [\"public\"]");
            }
            AccountName::parse(name).ok().map(Reach::Account)
        }
        (None, Some(names)) => {
            if names.is_empty() {
                checker.wrong(&venues_key, "is empty", "name a venue, or an account");
            }
            let mut venues = Vec::new();
            for (index, name) in names.iter().enumerate() {
                let key = venues_key.at(index);
                let Some(row) = accounts::venue(name, &key, checker) else { continue };
                if row.secret.is_none() {
                    checker.wrong(&key, "has no public data: it has no hosts of its own", "name an account of it");
                }
                venues.push(row.name);
            }
            Some(Reach::Venues(venues))
        }
        (Some(_), Some(_)) => {
            checker.wrong(table, "names both an account and venues", "write a grant for each");
            None
        }
        (None, None) => {
            if !checker.mistakes.is_spoiled(&account_key) && !checker.mistakes.is_spoiled(&venues_key) {
                checker.missing(table, "names neither an account nor venues", "write account = …");
            }
            None
        }
    }
}

/// The trading accounts to which the grant is narrowed. Where the venue tells none apart, naming some would narrow
/// nothing, and look as if it did.
fn trading_accounts(raw: &Raw, grant: &RawGrant, key: &Key, checker: &mut Checker<'_>) -> Option<Vec<u64>> {
    let ids = grant.trading_accounts.as_ref()?;
    let venue = grant.account.as_ref().and_then(|name| raw.accounts.get(name)?.venue.as_deref());
    let row = checker.known.venues.iter().find(|row| Some(row.name) == venue);
    if grant.account.is_none() {
        checker.wrong(key, "has no meaning without an account", "name an account, or remove it");
    } else if row.is_some_and(|row| !row.has_sub_accounts) {
        let help = "remove it; keys of their own are what keeps accounts apart there";
        checker.wrong(key, "is not known at this venue: its keys lead to one account each", help);
    }
    if ids.is_empty() {
        checker.wrong(key, "is empty: the client could touch nothing", "name one, or remove it to allow all");
    }
    if ids.len() > TRADING_ACCOUNTS_MAX {
        checker.wrong(key, "holds more than 256", "remove it to allow all");
    }
    Some(ids.clone())
}

fn scope(grant: &RawGrant, table: &Key, checker: &mut Checker<'_>) -> Scope {
    let key = table.then("scope");
    let Some(words) = grant.scope.as_ref().filter(|words| !words.is_empty()) else {
        // `transfer` and `admin` have to be granted by name, so nothing is granted without one.
        checker.missing(&key, "is missing", "say what the client may do: public, read, trade, transfer, admin");
        return Scope::NONE;
    };
    let mut scope = Scope::NONE;
    for (index, word) in words.iter().enumerate() {
        match Right::parse(word) {
            Some(right) => scope = scope.with(right),
            None => checker.wrong(&key.at(index), "unknown scope", &known_are(&Right::ALL.map(Right::word))),
        }
    }
    if grant.venues.is_some() && grant.account.is_none() && scope.intersect(Scope::PUBLIC) != scope {
        let help = "write scope = [\"public\"], or name an account";
        checker.wrong(&key, "must be public alone where venues are named", help);
    }
    scope
}

fn known_are(names: &[&str]) -> String {
    format!("known are {}", names.join(", "))
}
