//! WebSocket v2's order methods, and how v2 tells of orders, trades and balances. Not subscriptions, not tokens.

use super::book::{Account, Happening, NewOrder, Order, OrderName, Trade};
use super::{Channel, market, names};
use crate::fresh::UnixMillis;
use crate::simulator::clock::rfc3339;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The order types of `add_order` (docs.kraken.com, "Add order").
const ORDER_TYPES: [&str; 10] = [
    "limit",
    "market",
    "iceberg",
    "stop-loss",
    "stop-loss-limit",
    "take-profit",
    "take-profit-limit",
    "trailing-stop",
    "trailing-stop-limit",
    "settle-position",
];

pub(super) fn is_method(method: &str) -> bool {
    matches!(
        method,
        "add_order"
            | "amend_order"
            | "edit_order"
            | "cancel_order"
            | "cancel_all"
            | "cancel_all_orders_after"
            | "batch_add"
            | "batch_cancel"
    )
}

/// Executes a method. Each outcome is an answer of its own: `cancel_order` gives one for each order.
pub(super) fn execute(
    account: &mut Account,
    method: &str,
    params: &Map<String, Value>,
    now: UnixMillis,
) -> Vec<Result<Value, String>> {
    if method == "cancel_order" {
        return match names_in(params) {
            Some(names) if !names.is_empty() => names.iter().flat_map(|name| cancel(account, name, now)).collect(),
            _ => vec![Err("EGeneral:Invalid arguments:order_id".into())],
        };
    }
    vec![single(account, method, params, now)]
}

fn single(account: &mut Account, method: &str, params: &Map<String, Value>, now: UnixMillis) -> Result<Value, String> {
    let number = |name: &str| params.get(name).and_then(Value::as_f64);
    let one_name =
        || names_in(params).and_then(|names| names.into_iter().next()).ok_or("EGeneral:Invalid arguments:order_id");
    match method {
        "add_order" => Ok(placed(&account.place(new_order(params, None)?, now)?)),
        "amend_order" => {
            let order = account.amend(&one_name()?, number("order_qty"), number("limit_price"))?;
            let mut told = placed(&order);
            told["amend_id"] = json!(super::random_id('T'));
            Ok(told)
        }
        "edit_order" => {
            let (old, new) = account.edit(&one_name()?, number("order_qty"), number("limit_price"), now)?;
            let mut told = placed(&new);
            told["original_order_id"] = json!(old.id);
            Ok(told)
        }
        "cancel_all" => Ok(json!({"count": account.cancel_all(now)})),
        "cancel_all_orders_after" => {
            let timeout = number("timeout").filter(|seconds| (0.0..86_400.0).contains(seconds));
            let timeout = timeout.ok_or("EGeneral:Invalid arguments:timeout")?;
            let trigger = account.arm(Duration::from_secs_f64(timeout), now);
            let trigger = trigger.map_or_else(|| "0".to_owned(), rfc3339);
            Ok(json!({"currentTime": rfc3339(now), "triggerTime": trigger}))
        }
        "batch_add" => {
            let orders =
                params.get("orders").and_then(Value::as_array).filter(|orders| (2..=15).contains(&orders.len()));
            let orders = orders.ok_or("EGeneral:Invalid arguments:orders")?;
            let symbol = params.get("symbol").and_then(Value::as_str);
            let asked = orders.iter().map(|order| match order.as_object() {
                Some(order) => new_order(order, symbol),
                None => Err("EGeneral:Invalid arguments:orders".into()),
            });
            // All are read before any is placed: a batch with a mistake in it is no batch.
            let asked = asked.collect::<Result<Vec<_>, _>>()?;
            let told = asked.into_iter().map(|order| Ok(placed(&account.place(order, now)?)));
            Ok(Value::Array(told.collect::<Result<_, &'static str>>()?))
        }
        "batch_cancel" => {
            let mut asked = Vec::new();
            for (member, client) in [("orders", false), ("cl_ord_id", true)] {
                if let Some(value) = params.get(member) {
                    let read = names(value, |one| name(one, client)).ok_or("EGeneral:Invalid arguments:orders")?;
                    asked.extend(read);
                }
            }
            if !(2..=50).contains(&asked.len()) {
                return Err("EGeneral:Invalid arguments:orders".into());
            }
            Ok(json!({"count": asked.iter().map(|name| account.cancel(name, now).len()).sum::<usize>()}))
        }
        _ => Err("EGeneral:Unknown method".into()),
    }
}

fn cancel(account: &mut Account, name: &OrderName, now: UnixMillis) -> Vec<Result<Value, String>> {
    let canceled = account.cancel(name, now);
    if canceled.is_empty() {
        return vec![Err("EOrder:Unknown order".into())];
    }
    canceled.iter().map(|order| Ok(placed(order))).collect()
}

fn names_in(params: &Map<String, Value>) -> Option<Vec<OrderName>> {
    let by_client = params.get("cl_ord_id").map(|value| names(value, |one| name(one, true)));
    let by_id = params.get("order_id").or_else(|| params.get("order_userref"));
    by_id.map(|value| names(value, |one| name(one, false))).or(by_client)?
}

fn name(value: &Value, is_client: bool) -> Option<OrderName> {
    if is_client { value.as_str().map(|id| OrderName::ClientId(id.to_owned())) } else { OrderName::from_json(value) }
}

/// Reads an order. Numbers must be numbers: v2 does not take them as text.
fn new_order(params: &Map<String, Value>, symbol: Option<&str>) -> Result<NewOrder, String> {
    let invalid = |name: &str| format!("EGeneral:Invalid arguments:{name}");
    let text = |name: &str| params.get(name).and_then(Value::as_str);
    let symbol = text("symbol").or(symbol).ok_or_else(|| invalid("symbol"))?;
    let order_type =
        text("order_type").filter(|kind| ORDER_TYPES.contains(kind)).ok_or_else(|| invalid("order_type"))?;
    Ok(NewOrder {
        pair: market::pair(symbol).ok_or_else(|| format!("Currency pair not supported {symbol}"))?,
        is_buy: match text("side") {
            Some("buy") => true,
            Some("sell") => false,
            _ => return Err(invalid("side")),
        },
        order_type: order_type.to_owned(),
        quantity: params.get("order_qty").and_then(Value::as_f64).ok_or_else(|| invalid("order_qty"))?,
        limit_price: match params.get("limit_price") {
            None => None,
            Some(price) => Some(price.as_f64().ok_or_else(|| invalid("limit_price"))?),
        },
        time_in_force: text("time_in_force").unwrap_or("gtc").to_owned(),
        client_id: text("cl_ord_id").map(str::to_owned),
        user_reference: params.get("order_userref").and_then(Value::as_i64),
        is_validation: params.get("validate") == Some(&Value::Bool(true)),
    })
}

fn placed(order: &Order) -> Value {
    let mut told = json!({"order_id": order.id});
    if let Some(client_id) = &order.asked.client_id {
        told["cl_ord_id"] = json!(client_id);
    }
    if let Some(reference) = order.asked.user_reference {
        told["order_userref"] = json!(reference);
    }
    told
}

/// What a private channel says about what has happened; none if nothing concerns it.
pub(super) fn update(channel: Channel, happened: &[Happening], now: UnixMillis, sequence: u64) -> Option<Value> {
    let told = happened.iter().filter_map(|happening| match (channel, happening) {
        (Channel::Executions, Happening::Order(kind, order)) => Some(execution(kind, order, now)),
        (Channel::Executions, Happening::Trade(fill)) => Some(trade(fill)),
        (Channel::Balances, Happening::Balance { asset, amount }) => Some(balance(asset, *amount)),
        _ => None,
    });
    let data: Vec<_> = told.collect();
    if data.is_empty() {
        return None;
    }
    Some(json!({"channel": channel.name(), "type": "update", "data": data, "sequence": sequence}))
}

/// An order as `executions` tells it.
pub(super) fn execution(kind: &str, order: &Order, at: UnixMillis) -> Value {
    let asked = &order.asked;
    let mut told = placed(order);
    let members = json!({
        "exec_type": kind, "order_status": order.status.name(), "symbol": asked.pair.symbol,
        "side": if asked.is_buy { "buy" } else { "sell" }, "order_type": asked.order_type, "order_qty": asked.quantity,
        "cum_qty": order.filled, "cum_cost": order.cost, "time_in_force": asked.time_in_force.to_ascii_uppercase(),
        "timestamp": rfc3339(at),
    });
    if let (Value::Object(told), Value::Object(members)) = (&mut told, members) {
        told.extend(members);
        if let Some(price) = asked.limit_price {
            told.insert("limit_price".into(), json!(price));
        }
    }
    told
}

/// A trade as `executions` tells it.
pub(super) fn trade(trade: &Trade) -> Value {
    let mut told = execution("trade", &trade.order, trade.at);
    let quote = trade.order.asked.pair.quote.name;
    told["exec_id"] = json!(trade.id);
    told["trade_id"] = json!(trade.at.0);
    told["last_qty"] = json!(trade.quantity);
    told["last_price"] = json!(trade.price);
    told["cost"] = json!(trade.quantity * trade.price);
    told["liquidity_ind"] = json!("t");
    told["fees"] = json!([{"asset": quote, "qty": 0.0}]);
    told
}

/// A balance as `balances` tells it.
pub(super) fn balance(asset: &str, amount: f64) -> Value {
    let wallets = json!([{"type": "spot", "id": "main", "balance": amount}]);
    json!({"asset": asset, "asset_class": "currency", "balance": amount, "wallets": wallets})
}
