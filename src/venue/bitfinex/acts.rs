//! What each operation of Bitfinex does: one table for REST and sockets. Whatever is not in it is refused.
//!
//! Source: docs.bitfinex.com, reference of REST and WS inputs. The path's `/r/` and `/w/` are not believed:
//! some writes only ask, and some reads are sensitive.

use crate::scope::Act;
use Act::{Admin, Cancel, Order, Public, Read, Transfer};

/// Inputs on channel 0. `n` (a broadcast to the account's other sessions) is left out: refused.
pub(super) const INPUTS: &[(&str, Act)] = &[
    ("on", Order),
    ("ou", Order),
    ("oc", Cancel),
    ("oc_multi", Cancel),
    ("fon", Order),
    ("foc", Cancel),
    ("calc", Read),
];

/// Operations inside `ox_multi` and `auth/w/order/multi`.
pub(super) const BATCHED: &[(&str, Act)] = &[("on", Order), ("ou", Order), ("oc", Cancel), ("oc_multi", Cancel)];

/// Public channels.
pub(super) const CHANNELS: &[(&str, Act)] =
    &[("ticker", Public), ("trades", Public), ("book", Public), ("candles", Public), ("status", Public)];

/// First segments of public paths. Whatever else is public there, we do not know what it does.
const PUBLIC: &[&str] = &[
    "book",
    "candles",
    "conf",
    "ext",
    "funding",
    "liquidations",
    "platform",
    "pulse",
    "rankings",
    "stats1",
    "status",
    "ticker",
    "tickers",
    "trades",
];

/// Public paths that take a POST: they calculate.
const PUBLIC_POSTS: &[&str] = &["calc/fx", "calc/trade/avg"];

/// Private paths; `*` stands for one segment, a symbol, a currency or an id.
///
/// `auth/w/token` and `auth/w/token/del` are left out: a token is a bearer credential, which no client may see.
const REST: &[(&str, Act)] = &[
    ("auth/r/wallets", Read),
    ("auth/r/wallets/hist", Read),
    ("auth/r/orders", Read),
    ("auth/r/orders/hist", Read),
    ("auth/r/orders/*", Read),
    ("auth/r/orders/*/hist", Read),
    ("auth/r/orders/otc/*/hist", Read),
    ("auth/r/order/*/trades", Read),
    ("auth/r/trades/hist", Read),
    ("auth/r/trades/calc", Read),
    ("auth/r/trades/*/hist", Read),
    ("auth/r/ledgers/hist", Read),
    ("auth/r/ledgers/*/hist", Read),
    ("auth/r/positions", Read),
    ("auth/r/positions/hist", Read),
    ("auth/r/positions/audit", Read),
    ("auth/r/positions/snap", Read),
    ("auth/r/position/increase/info", Read),
    ("auth/r/info/margin/*", Read),
    ("auth/r/info/funding/*", Read),
    ("auth/r/funding/offers", Read),
    ("auth/r/funding/offers/hist", Read),
    ("auth/r/funding/offers/*", Read),
    ("auth/r/funding/offers/*/hist", Read),
    ("auth/r/funding/loans", Read),
    ("auth/r/funding/loans/hist", Read),
    ("auth/r/funding/loans/*", Read),
    ("auth/r/funding/loans/*/hist", Read),
    ("auth/r/funding/credits", Read),
    ("auth/r/funding/credits/hist", Read),
    ("auth/r/funding/credits/*", Read),
    ("auth/r/funding/credits/*/hist", Read),
    ("auth/r/funding/trades/hist", Read),
    ("auth/r/funding/trades/*/hist", Read),
    ("auth/r/summary", Read),
    ("auth/r/stats/perf:1D/hist", Read),
    ("auth/r/alerts", Read),
    ("auth/r/pulse/hist", Read),
    ("auth/r/settings", Read),
    ("auth/r/settings/core", Read),
    ("auth/r/movements/hist", Read),
    ("auth/r/movements/info", Read),
    ("auth/r/movements/*/hist", Read),
    ("auth/r/info/user", Read),
    ("auth/r/logins/hist", Read),
    ("auth/r/audit/hist", Read),
    ("auth/r/deposit/address/all", Read),
    ("auth/r/ext/invoice/payments", Read),
    ("auth/r/ext/wallets/transfers/free/count", Read),
    ("auth/r/ext/recurring-ao/list", Read),
    ("auth/r/ext/recurring-ao/detail/*", Read),
    ("auth/r/ext/recurring-ao/order/list", Read),
    ("auth/calc/order/avail", Read),
    ("auth/calc/deriv/collateral/limit", Read),
    ("auth/calc/deriv/collateral/limits", Read),
    // A query, in spite of its path.
    ("auth/w/deriv/collateral/limits", Read),
    ("auth/w/deriv/collateral/limit", Read),
    ("auth/w/order/submit", Order),
    ("auth/w/order/update", Order),
    ("auth/w/order/cancel", Cancel),
    ("auth/w/order/cancel/multi", Cancel),
    // Its operations are judged one by one, with `BATCHED`.
    ("auth/w/order/multi", Order),
    ("auth/w/position/claim", Order),
    ("auth/w/position/increase", Order),
    ("auth/w/position/update/funding/type", Order),
    ("auth/w/deriv/collateral/set", Order),
    ("auth/w/funding/offer/submit", Order),
    ("auth/w/funding/offer/cancel", Cancel),
    ("auth/w/funding/offer/cancel/all", Cancel),
    ("auth/w/funding/close", Order),
    ("auth/w/funding/auto", Order),
    ("auth/w/funding/keep", Order),
    ("auth/w/ext/recurring-ao/create", Order),
    ("auth/w/ext/recurring-ao/update/*", Order),
    ("auth/w/ext/recurring-ao/cancel/*", Cancel),
    ("auth/w/transfer", Transfer),
    ("auth/w/withdraw", Transfer),
    ("auth/w/deposit/address", Transfer),
    ("auth/w/deposit/invoice", Transfer),
    ("auth/w/ext/wallets/deposits/request", Transfer),
    ("auth/w/ext/wallets/withdrawals/request", Transfer),
    ("auth/r/permissions", Admin),
    ("auth/w/alert/set", Admin),
    ("auth/w/alert/del", Admin),
    ("auth/w/alert/*/del", Admin),
    ("auth/w/pulse/add", Admin),
    ("auth/w/pulse/del", Admin),
    ("auth/w/settings/set", Admin),
    ("auth/w/settings/del", Admin),
];

/// What a REST request does, by its whole path. `None`: unknown, to be refused. Version 1 is unknown.
pub fn rest_act(path: &str) -> Option<Act> {
    match rest_row(path)? {
        RestRow::Get | RestRow::Post(_, Public) => Some(Public),
        RestRow::Post(_, act) => Some(act),
    }
}

/// What the tables say of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RestRow {
    /// Public data.
    Get,
    /// A row, with the path as the table spells it: public if its act is, else private.
    Post(&'static str, Act),
}

/// The row of a whole path.
pub(super) fn rest_row(path: &str) -> Option<RestRow> {
    let path = path.strip_prefix("/v2/")?;
    if let Some((row, act)) = REST.iter().find(|(pattern, _)| matches(pattern, path)) {
        return Some(RestRow::Post(row, *act));
    }
    if let Some(row) = PUBLIC_POSTS.iter().find(|known| **known == path) {
        return Some(RestRow::Post(row, Public));
    }
    let is_plain = path.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    let is_known = PUBLIC.contains(&path.split('/').next().unwrap_or_default());
    (is_plain && is_known).then_some(RestRow::Get)
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut wanted = pattern.split('/');
    let mut segments = path.split('/');
    loop {
        match (wanted.next(), segments.next()) {
            (None, None) => return true,
            (Some("*"), Some(segment)) if !matches!(segment, "" | "." | "..") => {}
            (Some(wanted), Some(segment)) if wanted == segment => {}
            _ => return false,
        }
    }
}

/// The paths of the table: a test holds it to the sheet's.
#[cfg(test)]
pub(super) fn rest_paths() -> impl Iterator<Item = &'static str> {
    REST.iter().map(|(path, _)| *path)
}

/// The row of that name, with the name as the table spells it.
pub(super) fn look_up(table: &'static [(&'static str, Act)], name: &str) -> Option<(&'static str, Act)> {
    table.iter().find(|(known, _)| *known == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_asks_is_a_read_and_an_address_call_is_a_transfer() {
        assert_eq!(rest_act("/v2/auth/w/deriv/collateral/limits"), Some(Read));
        assert_eq!(rest_act("/v2/auth/w/deposit/address"), Some(Transfer));
        assert_eq!(rest_act("/v2/auth/r/permissions"), Some(Admin));
    }

    #[test]
    fn a_symbol_stands_for_one_segment() {
        assert_eq!(rest_act("/v2/auth/r/orders/tBTCUSD/hist"), Some(Read));
        assert_eq!(rest_act("/v2/auth/r/order/tTESTBTC:TESTUSD:123/trades"), Some(Read));
        assert_eq!(rest_act("/v2/auth/r/orders/../w/withdraw"), None);
        assert_eq!(rest_act("/v2/auth/r/orders//hist"), None);
    }

    #[test]
    fn a_path_that_the_table_does_not_hold_is_unknown() {
        for path in [
            "/v1/balances",
            "/v2/auth",
            "/v2/auth/w/order",
            "/v2/auth/w/token",
            "/v2/auth/w/token/del",
            "/v2/authx",
            "/v2/AUTH/w/withdraw",
            "/v2/",
            "/v2/calc/order/avail",
            "/v2/book/../auth/w/withdraw",
            "/v2/book//tBTCUSD",
        ] {
            assert_eq!(rest_act(path), None, "{path}");
        }
        assert_eq!(rest_act("/v2/ticker/tBTCUSD"), Some(Public));
    }
}
