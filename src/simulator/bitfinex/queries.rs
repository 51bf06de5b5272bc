//! The simulated Bitfinex' private REST endpoints that only look: wallets, orders, trades, positions, margin.
//!
//! What the simulator does not keep (positions, loans, ledgers, movements, alerts) is an empty list, as at the venue
//! (docs.bitfinex.com, "Authenticated endpoints").

use super::Held;
use super::book::{Offer, Order, wallet};
use crate::fresh::UnixMillis;
use serde_json::{Map, Value, json};

/// Rows in an answer without `limit` (docs.bitfinex.com, "Orders history").
const ROWS_DEFAULT: usize = 25;

/// The answer of an endpoint that only looks; none if `endpoint` is no such endpoint.
pub(super) fn execute(held: &Held, endpoint: &str, fields: &Map<String, Value>, now: UnixMillis) -> Option<Value> {
    let account = &held.account;
    let parts: Vec<&str> = endpoint.strip_prefix("auth/")?.split('/').collect();
    Some(match parts[..] {
        ["r", "wallets"] => {
            let wallets = account.wallets.iter();
            wallets.map(|((kind, currency), balance)| wallet(kind, currency, *balance, now)).collect()
        }
        ["r", "orders"] => orders(account.open.iter(), fields, usize::MAX),
        ["r", "orders", "hist"] => orders(account.closed.iter().rev(), fields, limit(fields)),
        ["r", "orders", symbol] => {
            orders(account.open.iter().filter(|order| order.symbol == symbol), fields, usize::MAX)
        }
        ["r", "orders", symbol, "hist"] => {
            orders(account.closed.iter().rev().filter(|order| order.symbol == symbol), fields, limit(fields))
        }
        ["r", "order", name, "trades"] => {
            // The symbol may hold a colon itself.
            let (symbol, id) = name.rsplit_once(':')?;
            let id: u64 = id.parse().ok()?;
            account.trades.iter().filter(|trade| trade[1] == symbol && trade[3] == id).cloned().collect()
        }
        ["r", "trades", "hist"] => account.trades.iter().rev().take(limit(fields)).cloned().collect(),
        ["r", "trades", symbol, "hist"] => {
            account.trades.iter().rev().filter(|trade| trade[1] == symbol).take(limit(fields)).cloned().collect()
        }
        ["r", "funding", "offers"] => account.offers.iter().map(Offer::to_json).collect(),
        ["r", "funding", "offers", symbol] if symbol != "hist" => {
            account.offers.iter().filter(|offer| offer.symbol == symbol).map(Offer::to_json).collect()
        }
        ["r", "funding", "offers" | "loans" | "credits" | "trades", ..] => json!([]),
        ["r", "positions"] | ["r", "positions", "hist" | "audit" | "snap"] => json!([]),
        ["r", "wallets" | "ledgers" | "movements" | "logins" | "audit" | "pulse", "hist"] => json!([]),
        ["r", "ledgers" | "movements", _, "hist"] | ["r", "movements", "info"] => json!([]),
        ["r", "alerts"] | ["r", "settings"] | ["r", "settings", "core"] => json!([]),
        ["r", "ext", "recurring-ao", ..] | ["r", "ext", "invoice", "payments"] => json!([]),
        ["r", "info", "margin", "base"] => json!(["base", [0, 0, 0, 0, 0]]),
        ["r", "info", "margin", "sym_all"] => json!([]),
        ["r", "info", "margin", symbol] => json!(["sym", symbol, [0, 0, 0, 0]]),
        ["r", "info", "funding", symbol] => json!(["sym", symbol, [0, 0, 0, 0]]),
        ["r", "position", "increase", "info"] => json!([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        ["r", "summary"] => json!([null, null, null, null, [[0.001, 0.001, 0.001], [0.002, 0.002, 0.002]], null]),
        ["r", "permissions"] => json!([["orders", 1, 1], ["wallets", 1, 0], ["withdraw", 0, 0]]),
        ["r", "info", "user"] => json!([269_312, "simulated@example.invalid", "simulated"]),
        ["r", "deposit", "address", "all"] => json!([]),
        ["calc", "order", "avail"] => json!([1_000_000]),
        ["calc", "deriv", "collateral", "limit" | "limits"] | ["w", "deriv", "collateral", "limits"] => json!([0, 0]),
        _ => return None,
    })
}

/// Orders, only those that `id` lists where there is one.
fn orders<'a>(orders: impl Iterator<Item = &'a Order>, fields: &Map<String, Value>, most: usize) -> Value {
    let ids = fields.get("id").and_then(Value::as_array);
    let is_asked = |order: &&Order| ids.is_none_or(|ids| ids.iter().any(|id| *id == order.id));
    orders.filter(is_asked).take(most).map(Order::to_json).collect()
}

fn limit(fields: &Map<String, Value>) -> usize {
    let limit = fields.get("limit").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
    limit.unwrap_or(ROWS_DEFAULT)
}
