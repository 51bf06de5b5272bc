//! What each operation of Kraken does: one table for REST and sockets. Whatever is not in it is refused.
//!
//! Source: the API reference of docs.kraken.com. Where Kraken asks for less than the act deserves
//! (`WalletTransfer` needs only "query funds" there), the act counts.

use crate::scope::Act;
use Act::{Admin, Cancel, Order, Public, Read, Transfer};

/// Requests over the v2 socket other than `subscribe` and `unsubscribe`.
pub(super) const METHODS: &[(&str, Act)] = &[
    ("ping", Public),
    ("add_order", Order),
    ("amend_order", Order),
    ("edit_order", Order),
    ("batch_add", Order),
    ("cancel_order", Cancel),
    ("cancel_all", Cancel),
    // With a timeout of 0 it disarms the timer: an `Order`.
    ("cancel_all_orders_after", Cancel),
    ("batch_cancel", Cancel),
];

/// Channels of the v2 socket. Level 3 has a host of its own, which is not served yet.
pub(super) const CHANNELS: &[(&str, Act)] = &[
    ("ticker", Public),
    ("book", Public),
    ("ohlc", Public),
    ("trade", Public),
    ("instrument", Public),
    ("status", Public),
    ("heartbeat", Public),
    ("executions", Read),
    ("balances", Read),
];

/// Events of the v1 socket other than `subscribe` and `unsubscribe`.
pub(super) const EVENTS: &[(&str, Act)] = &[
    ("ping", Public),
    ("addOrder", Order),
    ("amendOrder", Order),
    ("editOrder", Order),
    ("cancelOrder", Cancel),
    ("cancelAll", Cancel),
    // With a timeout of 0 it disarms the timer: an `Order`.
    ("cancelAllOrdersAfter", Cancel),
];

/// Subscriptions of the v1 socket.
pub(super) const SUBSCRIPTIONS: &[(&str, Act)] = &[
    ("ticker", Public),
    ("ohlc", Public),
    ("trade", Public),
    ("book", Public),
    ("spread", Public),
    ("openOrders", Read),
    ("ownTrades", Read),
    ("*", Read),
];

/// Methods under `/0/private/`.
///
/// `CreatePrimeApiUserKey` is left out: its answer holds an API secret, which no client may see.
const REST: &[(&str, Act)] = &[
    ("Balance", Read),
    ("BalanceEx", Read),
    ("CreditLines", Read),
    ("TradeBalance", Read),
    ("OpenOrders", Read),
    ("ClosedOrders", Read),
    ("QueryOrders", Read),
    ("OrderAmends", Read),
    ("TradesHistory", Read),
    ("QueryTrades", Read),
    ("OpenPositions", Read),
    ("Ledgers", Read),
    ("QueryLedgers", Read),
    ("TradeVolume", Read),
    ("AddExport", Read),
    ("ExportStatus", Read),
    ("RetrieveExport", Read),
    ("RemoveExport", Read),
    ("Level3", Read),
    ("ListWalletAccounts", Read),
    ("GetWebSocketsToken", Read),
    ("DepositMethods", Read),
    ("DepositStatus", Read),
    ("WithdrawMethods", Read),
    ("WithdrawAddresses", Read),
    ("WithdrawInfo", Read),
    ("WithdrawStatus", Read),
    ("Earn/Strategies", Read),
    ("Earn/Allocations", Read),
    ("Earn/AllocateStatus", Read),
    ("Earn/DeallocateStatus", Read),
    ("AddOrder", Order),
    ("AddOrderBatch", Order),
    ("AmendOrder", Order),
    ("EditOrder", Order),
    ("CancelOrder", Cancel),
    ("CancelOrderBatch", Cancel),
    ("CancelAll", Cancel),
    ("CancelAllOrdersAfter", Cancel),
    // May create an address (`new=true`). Without `new` it is a `Read`.
    ("DepositAddresses", Transfer),
    ("Withdraw", Transfer),
    ("WithdrawCancel", Transfer),
    ("WalletTransfer", Transfer),
    ("AccountTransfer", Transfer),
    ("Earn/Allocate", Transfer),
    ("Earn/Deallocate", Transfer),
    ("GetApiKeyInfo", Admin),
    ("CreateSubaccount", Admin),
    ("CreatePrimeApiUser", Admin),
    ("GetPrimeApiUser", Admin),
    ("ListPrimeApiUsers", Admin),
    ("UpdatePrimeApiUser", Admin),
    ("UpdatePrimeApiUserRoles", Admin),
    ("DeletePrimeApiUserKey", Admin),
    ("ListPrimeApiUserKeys", Admin),
    ("UpdatePrimeApiUserKey", Admin),
];

/// What a REST request does, by its whole path. `None`: unknown, to be refused.
///
/// `/funding/…` (Kraken's "Funding (Beta)") is unknown for now.
pub fn rest_act(path: &str) -> Option<Act> {
    if let Some(method) = path.strip_prefix("/0/public/") {
        let is_plain = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphanumeric());
        return is_plain.then_some(Public);
    }
    private(path).map(|(_, act)| act)
}

/// The row of a private path.
pub(super) fn private(path: &str) -> Option<(&'static str, Act)> {
    look_up(REST, path.strip_prefix("/0/private/")?)
}

/// How many rows the table has: a test holds it to the sheet's.
#[cfg(test)]
pub(super) fn rest_rows() -> usize {
    REST.len()
}

/// The row of that name, with the name as the table spells it.
pub(super) fn look_up(table: &'static [(&'static str, Act)], name: &str) -> Option<(&'static str, Act)> {
    table.iter().find(|(known, _)| *known == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_money_and_managing_keys_are_never_mere_reads() {
        for path in ["Withdraw", "WalletTransfer", "AccountTransfer", "DepositAddresses", "Earn/Allocate"] {
            assert_eq!(rest_act(&format!("/0/private/{path}")), Some(Transfer), "{path}");
        }
        for path in ["GetApiKeyInfo", "ListPrimeApiUserKeys", "CreateSubaccount"] {
            assert_eq!(rest_act(&format!("/0/private/{path}")), Some(Admin), "{path}");
        }
    }

    #[test]
    fn a_path_that_the_table_does_not_hold_is_unknown() {
        for path in [
            "/0/private/withdraw",
            "/0/private/",
            "/0/private/../Balance",
            "/0/private/CreatePrimeApiUserKey",
            "/0/public/",
            "/0/public/Time/x",
            "/funding/v1/fees/1",
        ] {
            assert_eq!(rest_act(path), None, "{path}");
        }
        assert_eq!(rest_act("/0/private/Balance"), Some(Read));
        assert_eq!(rest_act("/0/public/Time"), Some(Public));
    }

    #[test]
    fn no_name_stands_in_a_table_twice() {
        for table in [METHODS, CHANNELS, EVENTS, SUBSCRIPTIONS, REST] {
            for (index, (name, _)) in table.iter().enumerate() {
                assert!(table[index + 1..].iter().all(|(other, _)| other != name), "{name} twice");
            }
        }
    }
}
