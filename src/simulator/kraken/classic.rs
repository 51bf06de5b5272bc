//! What REST and WebSocket v1 share: an order's fields, and how orders, trades and balances are told.

use super::book::{NewOrder, Order, OrderName, Trade};
use super::market;
use crate::fresh::UnixMillis;
use serde_json::{Map, Value, json};

/// A number, or a text of digits.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// A text, or a number's digits.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Reads the fields of an order. The error is the venue's text.
pub(super) fn new_order(fields: &Map<String, Value>) -> Result<NewOrder, String> {
    let field = |name: &str| fields.get(name).and_then(text);
    let invalid = |name: &str| format!("EGeneral:Invalid arguments:{name}");
    let pair = field("pair").and_then(|name| market::pair(&name)).ok_or("EQuery:Unknown asset pair")?;
    let is_buy = match field("type").as_deref() {
        Some("buy") => true,
        Some("sell") => false,
        _ => return Err(invalid("type")),
    };
    let is_truth =
        |name: &str| fields.get(name).is_some_and(|value| *value == true || *value == "true" || *value == "1");
    Ok(NewOrder {
        pair,
        is_buy,
        order_type: field("ordertype").ok_or_else(|| invalid("ordertype"))?,
        quantity: fields.get("volume").and_then(number).ok_or_else(|| invalid("volume"))?,
        limit_price: match fields.get("price") {
            None => None,
            Some(price) => Some(number(price).ok_or_else(|| invalid("price"))?),
        },
        time_in_force: field("timeinforce").unwrap_or_else(|| "GTC".into()).to_ascii_lowercase(),
        client_id: field("cl_ord_id"),
        user_reference: field("userref").and_then(|reference| reference.parse().ok()),
        is_validation: is_truth("validate"),
    })
}

/// The one order that `txid` or `cl_ord_id` names.
pub(super) fn order_name(fields: &Map<String, Value>) -> Option<OrderName> {
    fields.get("txid").or_else(|| fields.get("orderid")).and_then(OrderName::from_json).or_else(|| {
        let client_id = fields.get("cl_ord_id").and_then(text)?;
        Some(OrderName::ClientId(client_id))
    })
}

/// "buy 1.25 XBTUSD @ limit 37500".
pub(super) fn description(asked: &NewOrder) -> String {
    let side = if asked.is_buy { "buy" } else { "sell" };
    let price = asked.limit_price.map(|price| format!(" {price}")).unwrap_or_default();
    format!("{side} {} {} @ {}{price}", asked.quantity, asked.pair.altname, asked.order_type)
}

/// An order as `OpenOrders` and `openOrders` tell it.
pub(super) fn order(order: &Order) -> Value {
    let asked = &order.asked;
    let mut told = json!({
        "refid": null, "userref": asked.user_reference, "status": order.status.classic_name(),
        "opentm": seconds(order.opened_at), "starttm": 0, "expiretm": 0,
        "descr": {
            "pair": asked.pair.altname, "type": if asked.is_buy { "buy" } else { "sell" },
            "ordertype": asked.order_type, "price": asked.limit_price.unwrap_or_default().to_string(), "price2": "0",
            "leverage": "none", "order": description(asked), "close": "",
        },
        "vol": asked.quantity.to_string(), "vol_exec": order.filled.to_string(), "cost": order.cost.to_string(),
        "fee": "0", "price": average(order).to_string(), "stopprice": "0", "limitprice": "0", "misc": "", "oflags": "fciq",
    });
    if let Some(client_id) = &asked.client_id {
        told["cl_ord_id"] = json!(client_id);
    }
    if let Some(closed_at) = order.closed_at {
        told["closetm"] = json!(seconds(closed_at));
    }
    told
}

/// A trade as `TradesHistory` and `ownTrades` tell it.
pub(super) fn trade(trade: &Trade) -> Value {
    let asked = &trade.order.asked;
    json!({
        "ordertxid": trade.order.id, "postxid": "TKH2SE-M7IF5-CFI7LT", "pair": asked.pair.rest_name,
        "time": seconds(trade.at), "type": if asked.is_buy { "buy" } else { "sell" }, "ordertype": asked.order_type,
        "price": trade.price.to_string(), "cost": (trade.price * trade.quantity).to_string(), "fee": "0",
        "vol": trade.quantity.to_string(), "margin": "0", "misc": "",
    })
}

fn average(order: &Order) -> f64 {
    if order.filled > 0.0 { order.cost / order.filled } else { 0.0 }
}

/// Seconds with fractions, as REST writes times.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of this millennium are exact in a double")]
pub(super) fn seconds(at: UnixMillis) -> f64 {
    at.0 as f64 / 1000.0
}
