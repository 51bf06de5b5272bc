//! What a client sends over channel 0 of the simulated Bitfinex: orders, offers, calculations, broadcasts.

use super::book::{Account, Order, wallet};
use super::{Bitfinex, State};
use crate::fresh::UnixMillis;
use serde_json::{Map, Value, json};

/// Operations in one `ox_multi` (docs.bitfinex.com, "Order multi-op").
const OPERATIONS_MAX: usize = 75;
/// Calculations in one `calc` (docs.bitfinex.com, "Calc").
const CALCULATIONS_MAX: usize = 30;

/// What the asking socket is told of its request.
pub(super) struct Outcome {
    pub(super) kind: &'static str,
    pub(super) info: Value,
    pub(super) result: Result<String, String>,
}

impl Outcome {
    /// "SUCCESS" or "ERROR", and the text.
    pub(super) fn status(&self) -> (&'static str, &str) {
        match &self.result {
            Ok(text) => ("SUCCESS", text),
            Err(text) => ("ERROR", text),
        }
    }
}

/// Takes one `[0, type, id, payload]`.
pub(super) fn take(bitfinex: &Bitfinex, connection: u64, parts: &[Value]) {
    let now = bitfinex.clock.now();
    let mut state = bitfinex.state();
    let Some(socket) = state.sockets.get(&connection) else { return };
    let (outbox, login) = (socket.outbox.clone(), socket.login.clone());
    let error = |code: u32, text: &str| outbox.json(&json!({"event": "error", "msg": text, "code": code}));
    let [Value::Number(channel), Value::String(kind), id, payload, ..] = parts else {
        bitfinex.record.verdict(connection, "input: malformed");
        return error(10000, "event: invalid");
    };
    if channel.as_u64() != Some(0) {
        return error(10000, "channel: invalid");
    }
    let Some(login) = login else {
        bitfinex.record.verdict(connection, "input: before login");
        return error(10201, "auth: not authenticated");
    };
    match kind.as_str() {
        "calc" => return calculate(&mut state, connection, payload, now),
        "n" => {
            bitfinex.record.verdict(connection, "input: broadcast");
            return broadcast(&mut state, connection, &login.api_key, id, payload, now);
        }
        _ => {}
    }
    let is_limited = bitfinex.faults.switches().rate_limited;
    let Some(held) = state.keys.get_mut(&login.api_key) else { return };
    let outcomes = if is_limited {
        vec![Outcome { kind: "on-req", info: stub(payload), result: Err("ratelimit: error".into()) }]
    } else if !held.key.permissions.trade {
        bitfinex.record.verdict(connection, "permission: trade is missing");
        vec![Outcome { kind: "on-req", info: stub(payload), result: Err("api_key: permission invalid".into()) }]
    } else {
        execute(&mut held.account, kind, payload, now)
    };
    if outcomes.is_empty() {
        bitfinex.record.verdict(connection, "input: unknown");
        return error(10000, "event: invalid");
    }
    if let Some(socket) = state.sockets.get_mut(&connection) {
        for outcome in &outcomes {
            // Answers to one's own requests come whatever the filter says.
            let (status, text) = outcome.status();
            socket.notify(outcome.kind, &outcome.info, status, text, now);
        }
    }
    state.publish(&login.api_key, now);
}

/// Executes an input; empty if there is no such type. REST's multi-operations come here too.
pub(super) fn execute(account: &mut Account, kind: &str, payload: &Value, now: UnixMillis) -> Vec<Outcome> {
    let empty = Map::new();
    let fields = payload.as_object().unwrap_or(&empty);
    let order = |kind, text: &str, outcome: Result<Order, &'static str>| Outcome {
        kind,
        info: outcome.as_ref().map_or_else(|_| stub(payload), Order::to_json),
        result: outcome.map(|_| text.to_owned()).map_err(str::to_owned),
    };
    match kind {
        "on" => vec![order("on-req", "Submitting order.", account.place(fields, now))],
        "ou" => vec![order("ou-req", "Submitting update to order.", account.update(fields, now))],
        "oc" => vec![order("oc-req", "Submitted for cancellation.", account.cancel(fields, now))],
        "oc_multi" => {
            let canceled = account.cancel_multi(fields, now);
            let info = canceled.iter().map(Order::to_json).collect();
            let text = format!("Submitting {} order cancellations.", canceled.len());
            vec![Outcome { kind: "oc_multi-req", info, result: Ok(text) }]
        }
        "ox_multi" => {
            let Some(operations) = payload.as_array().filter(|operations| operations.len() <= OPERATIONS_MAX) else {
                let result = Err("operations: limit".to_owned());
                return vec![Outcome { kind: "ox_multi-req", info: Value::Null, result }];
            };
            operations.iter().flat_map(|operation| multi(account, operation, now)).collect()
        }
        "fon" | "foc" => {
            let (kind, outcome) = if kind == "fon" {
                ("fon-req", account.offer(fields, now))
            } else {
                ("foc-req", account.cancel_offer(fields))
            };
            let info = outcome.as_ref().map_or(Value::Null, super::book::Offer::to_json);
            vec![Outcome { kind, info, result: outcome.map(|_| "Done.".to_owned()).map_err(str::to_owned) }]
        }
        _ => Vec::new(),
    }
}

fn multi(account: &mut Account, operation: &Value, now: UnixMillis) -> Vec<Outcome> {
    let (kind, payload) = (operation[0].as_str().unwrap_or_default(), &operation[1]);
    if !["on", "ou", "oc", "oc_multi"].contains(&kind) {
        let result = Err("operation: invalid".to_owned());
        return vec![Outcome { kind: "ox_multi-req", info: Value::Null, result }];
    }
    execute(account, kind, payload, now)
}

/// An order of which nothing is known but what the client calls it: the answer to a refused one.
fn stub(payload: &Value) -> Value {
    let mut order = vec![Value::Null; 32];
    order[0] = payload["id"].clone();
    order[1] = payload["gid"].clone();
    order[2] = payload["cid"].clone();
    order[3] = payload["symbol"].clone();
    Value::Array(order)
}

fn calculate(state: &mut State, connection: u64, payload: &Value, now: UnixMillis) {
    let State { keys, sockets, .. } = state;
    let Some(socket) = sockets.get_mut(&connection) else { return };
    let Some(held) = socket.login.as_ref().and_then(|login| keys.get(&login.api_key)) else { return };
    let Some(asked) = payload.as_array().filter(|asked| asked.len() <= CALCULATIONS_MAX) else {
        return socket.outbox.json(&json!({"event": "error", "msg": "calc: limit", "code": 11_010}));
    };
    for name in asked.iter().filter_map(|one| one[0].as_str()) {
        let (kind, payload) = if name.starts_with("margin_") {
            ("miu", json!(["base", [0, 0, 0, 0, 0]]))
        } else if let Some(symbol) = name.strip_prefix("funding_sym_") {
            ("fiu", json!(["sym", symbol, [0, 0, 0, 0]]))
        } else if let Some(currency) = name.strip_prefix("wallet_exchange_") {
            let balance = held.account.wallets.get(&("exchange", currency.to_owned())).copied().unwrap_or_default();
            ("wu", wallet("exchange", currency, balance, now))
        } else if name == "balance" {
            ("bu", json!([1_000_000, 1_000_000]))
        } else {
            continue;
        };
        socket.send(0, vec![json!(kind), payload], now);
    }
}

/// Passes a notification on to the account's other sockets.
fn broadcast(state: &mut State, connection: u64, api_key: &str, id: &Value, payload: &Value, now: UnixMillis) {
    let notification = json!([now.0, payload["type"], id, null, payload["info"], null, "SUCCESS", ""]);
    for (other, socket) in &mut state.sockets {
        if *other != connection && socket.login.as_ref().is_some_and(|login| login.api_key == api_key) {
            socket.send(0, vec![json!("n"), notification.clone()], now);
        }
    }
}
