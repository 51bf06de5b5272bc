//! The simulated Kraken's private REST methods that only look: balances, orders, trades, ledgers, deposits.
//!
//! What the simulator does not keep (ledgers but those of trades, deposits, positions, earnings) has the shape of the
//! venue's answers (docs.kraken.com, "Spot REST API") and says that there is nothing.

use super::book::{Order, Trade};
use super::{Held, classic, market};
use serde_json::{Map, Value, json};

/// A zip archive with nothing in it.
pub(super) const EMPTY_ARCHIVE: &str = "PK\u{5}\u{6}\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// The result of a method that only looks; none if `method` is no such method.
pub(super) fn execute(held: &Held, method: &str, fields: &Map<String, Value>) -> Option<Value> {
    let account = &held.account;
    Some(match method {
        "Balance" => {
            table(market::ASSETS.iter().map(|asset| (asset.rest_name, json!(account.balances[asset.name].to_string()))))
        }
        "BalanceEx" => table(market::ASSETS.iter().map(|asset| {
            let balance = account.balances[asset.name].to_string();
            (asset.rest_name, json!({"balance": balance, "hold_trade": "0", "credit": "0", "credit_used": "0"}))
        })),
        "TradeBalance" => {
            let all = account.balances["USD"].to_string();
            json!({"eb": all, "tb": all, "m": "0", "n": "0", "c": "0", "v": "0", "e": all, "mf": all, "uv": "0"})
        }
        "CreditLines" => json!({"asset_details": {}, "limits_monitor": {}}),
        "OpenOrders" => json!({"open": orders(account.open.iter())}),
        "ClosedOrders" => json!({"closed": orders(account.closed.iter()), "count": account.closed.len()}),
        "QueryOrders" => {
            let ids = listed(fields, "txid");
            orders(account.open.iter().chain(&account.closed).filter(|order| ids.contains(&order.id)))
        }
        "OrderAmends" => {
            let id = fields.get("order_id").and_then(classic::text).unwrap_or_default();
            let order = account.open.iter().chain(&account.closed).find(|order| order.id == id);
            let amends: Vec<_> = order.into_iter().map(original).collect();
            json!({"count": amends.len(), "amends": amends})
        }
        "TradesHistory" => json!({"trades": trades(account.trades.iter()), "count": account.trades.len()}),
        "QueryTrades" => {
            let ids = listed(fields, "txid");
            trades(account.trades.iter().filter(|trade| ids.contains(&trade.id)))
        }
        "OpenPositions" => json!({}),
        "Ledgers" => {
            let entries: Map<_, _> = account.trades.iter().flat_map(ledger).collect();
            json!({"count": entries.len(), "ledger": entries})
        }
        "QueryLedgers" => {
            let ids = listed(fields, "id");
            Value::Object(account.trades.iter().flat_map(ledger).filter(|(id, _)| ids.contains(id)).collect())
        }
        "TradeVolume" => {
            let fee = |percent: &str| {
                let asked = listed(fields, "pair");
                let pairs = asked.iter().filter_map(|name| market::pair(name));
                let told = json!({"fee": percent, "minfee": percent, "maxfee": percent, "nextfee": null, "nextvolume": null, "tiervolume": "0"});
                table(pairs.map(|pair| (pair.rest_name, told.clone())))
            };
            json!({"currency": "ZUSD", "volume": "0", "fees": fee("0.4000"), "fees_maker": fee("0.2500")})
        }
        // The venue returns the key itself, which a proxy must not pass on.
        "GetApiKeyInfo" => {
            json!({"apiKeyName": "simulated", "apiKey": held.key.api_key, "permissions": ["query-funds"]})
        }
        "ListWalletAccounts" => json!({"accounts": []}),
        "AddExport" => json!({"id": "SIMU"}),
        "ExportStatus" => json!([]),
        // Not JSON at the venue: `rest` sends it as it is.
        "RetrieveExport" => json!(EMPTY_ARCHIVE),
        "RemoveExport" => json!({"delete": true}),
        "DepositMethods" => json!([{
            "method": "Bitcoin", "limit": false, "fee": "0.0000000000", "gen-address": true, "minimum": "0.00010000",
        }]),
        "DepositStatus" | "WithdrawStatus" => json!([]),
        "DepositAddresses" => json!([{"address": "simulated-address", "expiretm": "0"}]),
        "WithdrawMethods" => json!([{
            "asset": "XXBT", "method": "Bitcoin", "network": "Bitcoin", "minimum": "0.00040000",
        }]),
        "WithdrawAddresses" => json!([{
            "address": "simulated-address", "asset": "XBT", "method": "Bitcoin", "key": "simulated", "verified": true,
        }]),
        "WithdrawInfo" => {
            let amount = fields.get("amount").and_then(classic::text).unwrap_or_default();
            json!({"method": "Bitcoin", "limit": "1000000", "amount": amount, "fee": "0.00005000"})
        }
        "Earn/Strategies" => json!({"next_cursor": null, "items": []}),
        "Earn/Allocations" => json!({
            "converted_asset": "USD", "total_allocated": "0", "total_rewarded": "0", "next_cursor": null, "items": [],
        }),
        "Earn/AllocateStatus" | "Earn/DeallocateStatus" => json!({"pending": false}),
        _ => return None,
    })
}

/// The texts of a field: a list, or one text with commas between.
fn listed(fields: &Map<String, Value>, name: &str) -> Vec<String> {
    match fields.get(name) {
        Some(Value::Array(items)) => items.iter().filter_map(classic::text).collect(),
        Some(value) => classic::text(value).unwrap_or_default().split(',').map(str::to_owned).collect(),
        None => Vec::new(),
    }
}

/// An order's first state, as the list of its amendments begins.
fn original(order: &Order) -> Value {
    let asked = &order.asked;
    json!({
        "amend_id": super::random_id('T'), "amend_type": "original", "order_qty": asked.quantity.to_string(),
        "remaining_qty": (asked.quantity - order.filled).to_string(),
        "limit_price": asked.limit_price.unwrap_or_default().to_string(), "timestamp": order.opened_at.0,
    })
}

/// What a trade did to the ledger: one entry for each asset.
fn ledger(trade: &Trade) -> [(String, Value); 2] {
    let asked = &trade.order.asked;
    let sign = if asked.is_buy { 1.0 } else { -1.0 };
    let tail = trade.id.get(2..).unwrap_or_default();
    let entry = |first: &str, asset: &market::Asset, amount: f64| {
        let told = json!({
            "refid": trade.id, "time": classic::seconds(trade.at), "type": "trade", "subtype": "",
            "aclass": "currency", "asset": asset.rest_name, "amount": amount.to_string(), "fee": "0", "balance": "0",
        });
        (format!("{first}{tail}"), told)
    };
    [
        entry("LB", asked.pair.base, sign * trade.quantity),
        entry("LQ", asked.pair.quote, -sign * trade.quantity * trade.price),
    ]
}

fn orders<'a>(orders: impl Iterator<Item = &'a Order>) -> Value {
    table(orders.map(|order| (order.id.as_str(), classic::order(order))))
}

fn trades<'a>(trades: impl Iterator<Item = &'a Trade>) -> Value {
    table(trades.map(|trade| (trade.id.as_str(), classic::trade(trade))))
}

fn table<'a>(members: impl Iterator<Item = (&'a str, Value)>) -> Value {
    Value::Object(members.map(|(name, value)| (name.to_owned(), value)).collect())
}
