//! What each operation of ProjectX does: one table for REST, one for each hub. Whatever is not in them is refused.
//!
//! Source: the API reference of gateway.docs.projectx.com and the venue's Swagger document, which lists 21 operations.
//! No operation moves money or manages keys; that is done on the firm's own pages.

use crate::scope::Act;
use Act::{Admin, Cancel, Order, Public, Read};

/// The login, below `/api/`. A client's own is answered here.
pub(super) const LOGIN: &str = "Auth/loginKey";

/// One REST operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its path below `/api/`, as the venue spells it.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) act: Act,
    /// Where its body names the trading account.
    pub(super) names: Names,
    /// The `errorCode` by which it says that it will not do that. The same number means different things elsewhere.
    pub(super) denied: u64,
    /// The `errorCode` by which it says that something went wrong.
    pub(super) failed: u64,
}

/// Where the body of a request names a trading account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Nowhere.
    Nothing,
    /// In `accountId`.
    Account,
    /// In `accountId` of `filter`.
    Filter,
}

const fn row(name: &'static str, act: Act, names: Names, denied: u64, failed: u64) -> Row {
    Row { name, act, names, denied, failed }
}

/// What is answered here is `Public`: it needs no more than to be known.
const REST: &[Row] = &[
    row("Status/ping", Public, Names::Nothing, 1, 1),
    row(LOGIN, Public, Names::Nothing, 3, 8),
    // Carries a password.
    row("Auth/loginApp", Admin, Names::Nothing, 4, 8),
    row("Auth/validate", Public, Names::Nothing, 1, 4),
    row("Auth/logout", Public, Names::Nothing, 1, 2),
    row("Account/search", Read, Names::Nothing, 1, 1),
    row("Contract/available", Read, Names::Nothing, 1, 1),
    row("Contract/search", Read, Names::Nothing, 1, 1),
    row("Contract/searchById", Read, Names::Nothing, 1, 1),
    row("History/retrieveBars", Read, Names::Nothing, 1, 1),
    row("Order/search", Read, Names::Account, 1, 1),
    row("Order/searchOpen", Read, Names::Account, 1, 1),
    row("Order/searchById", Read, Names::Nothing, 1, 1),
    row("Order/v2/query", Read, Names::Filter, 1, 1),
    row("Order/place", Order, Names::Account, 2, 7),
    row("Order/modify", Order, Names::Account, 3, 5),
    row("Order/cancel", Cancel, Names::Account, 3, 5),
    row("Position/searchOpen", Read, Names::Account, 1, 1),
    row("Position/closeContract", Order, Names::Account, 5, 7),
    row("Position/partialCloseContract", Order, Names::Account, 6, 8),
    row("Trade/search", Read, Names::Account, 1, 1),
];

/// The row of a path. The venue's server takes a path in any case (ASP.NET routing), so any is found here.
pub(super) fn rest_row(path: &str) -> Option<&'static Row> {
    let name = strip_prefix_in_any_case(path, "/api/")?;
    REST.iter().find(|row| row.name.eq_ignore_ascii_case(name))
}

/// True for the path of a hub's negotiation.
pub(super) fn is_negotiate(path: &str) -> bool {
    ["/hubs/user/negotiate", "/hubs/market/negotiate"].iter().any(|known| known.eq_ignore_ascii_case(path))
}

fn strip_prefix_in_any_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Which hub a socket leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hub {
    /// Accounts, orders, positions and trades.
    User,
    /// Market data. It takes an account's token too.
    Market,
}

/// What a hub's method takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing.
    Nothing,
    /// Nothing, or the trading account's id: documented without, and project-x-py sends one.
    AccountOrNothing,
    /// The trading account's id.
    Account,
    /// The contract's id, a text.
    Contract,
}

/// No method of either hub does more than read: it subscribes.
const USER: &[(&str, Takes)] = &[
    ("SubscribeAccounts", Takes::Nothing),
    ("SubscribeOrders", Takes::Account),
    ("SubscribePositions", Takes::Account),
    ("SubscribeTrades", Takes::Account),
    ("UnsubscribeAccounts", Takes::AccountOrNothing),
    ("UnsubscribeOrders", Takes::Account),
    ("UnsubscribePositions", Takes::Account),
    ("UnsubscribeTrades", Takes::Account),
];

const MARKET: &[(&str, Takes)] = &[
    ("SubscribeContractQuotes", Takes::Contract),
    ("SubscribeContractTrades", Takes::Contract),
    ("SubscribeContractMarketDepth", Takes::Contract),
    ("UnsubscribeContractQuotes", Takes::Contract),
    ("UnsubscribeContractTrades", Takes::Contract),
    ("UnsubscribeContractMarketDepth", Takes::Contract),
];

/// The hub's method of that name, with its name as the venue spells it. The server takes any case
/// (`DefaultHubDispatcher` of ASP.NET Core), so any is found here.
pub(super) fn method(hub: Hub, target: &str) -> Option<(&'static str, Takes)> {
    let methods = match hub {
        Hub::User => USER,
        Hub::Market => MARKET,
    };
    methods.iter().find(|(known, _)| known.eq_ignore_ascii_case(target)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_21_operations_of_the_venue_and_each_once() {
        assert_eq!(REST.len(), 21);
        for table in [USER, MARKET] {
            for (index, (name, _)) in table.iter().enumerate() {
                assert!(table[index + 1..].iter().all(|(other, _)| other != name), "{name} twice");
            }
        }
        for (index, row) in REST.iter().enumerate() {
            assert!(REST[index + 1..].iter().all(|other| !other.name.eq_ignore_ascii_case(row.name)), "{}", row.name);
        }
    }

    #[test]
    fn a_path_is_found_in_any_case_and_spelled_as_the_venue_does() {
        for path in ["/api/Order/place", "/API/order/PLACE", "/Api/order/place"] {
            assert_eq!(rest_row(path).map(|row| (row.name, row.act)), Some(("Order/place", Order)), "{path}");
        }
    }

    #[test]
    fn a_path_that_the_table_does_not_hold_is_unknown() {
        for path in [
            "/api/",
            "/api",
            "/Order/place",
            "/api/Order/place/",
            "/api/Order/placed",
            "/api/Order/v2",
            "/api/Account/settings",
            "/api/Position/close",
            "/api/Risk/metrics",
            "/api/api/Order/place",
            "/swagger/index.html",
        ] {
            assert_eq!(rest_row(path), None, "{path}");
        }
        assert!(is_negotiate("/hubs/USER/Negotiate") && !is_negotiate("/hubs/admin/negotiate"));
    }

    #[test]
    fn whatever_changes_an_order_or_a_position_is_no_read() {
        for (path, act) in [
            ("Order/place", Order),
            ("Order/modify", Order),
            ("Order/cancel", Cancel),
            ("Position/closeContract", Order),
            ("Position/partialCloseContract", Order),
            ("Auth/loginApp", Admin),
        ] {
            assert_eq!(rest_row(&format!("/api/{path}")).map(|row| row.act), Some(act), "{path}");
        }
    }

    #[test]
    fn a_method_belongs_to_one_hub() {
        assert_eq!(method(Hub::User, "subscribeorders"), Some(("SubscribeOrders", Takes::Account)));
        assert_eq!(method(Hub::Market, "SubscribeOrders"), None);
        assert_eq!(method(Hub::User, "SubscribeContractQuotes"), None);
        assert_eq!(method(Hub::User, "PlaceOrder"), None);
    }
}
