//! The simulated Bitfinex' REST v2. Checks, in this order: key, signature, nonce, permission, arguments.

use super::{Bitfinex, Held, State, inputs, public, queries, verify};
use crate::fresh::UnixMillis;
use crate::simulator::faults::MintFault;
use crate::simulator::json;
use crate::simulator::server::{Answer, Received};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

/// Endpoints that move money, or make what money is sent to.
const MOVES: [&str; 6] = [
    "auth/w/withdraw",
    "auth/w/transfer",
    "auth/w/deposit/address",
    "auth/w/deposit/invoice",
    "auth/w/ext/wallets/deposits/request",
    "auth/w/ext/wallets/withdrawals/request",
];

/// An error as the venue tells it: a code and a text, under HTTP 500.
struct Refusal(u32, String);

impl Refusal {
    fn new(code: u32, text: impl Into<String>) -> Self {
        Self(code, text.into())
    }
}

pub(super) fn answer(bitfinex: &Bitfinex, request: &Received) -> Answer {
    let Some(endpoint) = request.path().strip_prefix("/v2/") else {
        bitfinex.record.verdict(request.connection, "rest: not version 2");
        return Answer::html(StatusCode::NOT_FOUND);
    };
    if !endpoint.starts_with("auth/") {
        return market_data(bitfinex, endpoint, request);
    }
    if request.method != Method::POST {
        bitfinex.record.verdict(request.connection, "private endpoint without POST");
        return Answer::html(StatusCode::NOT_FOUND);
    }
    let switches = bitfinex.faults.switches();
    if switches.rate_limited {
        return Answer::json(StatusCode::TOO_MANY_REQUESTS, json!({"error": "ERR_RATE_LIMIT"}).to_string());
    }
    if endpoint == "auth/w/token" {
        match switches.mint {
            MintFault::None => {}
            MintFault::Unavailable => return Answer::html(StatusCode::SERVICE_UNAVAILABLE),
            MintFault::Error(text) => return refusal(&Refusal::new(10001, text)),
            MintFault::EmptyToken => return success(&json!([""])),
            MintFault::Html => return Answer::html(StatusCode::OK),
        }
    }
    match private(bitfinex, endpoint, request) {
        Ok(value) => success(&value),
        Err(error) => refusal(&error),
    }
}

fn market_data(bitfinex: &Bitfinex, endpoint: &str, request: &Received) -> Answer {
    for header in ["bfx-apikey", "bfx-signature", "bfx-nonce", "bfx-token"] {
        if request.headers.contains_key(header) {
            bitfinex.record.verdict(request.connection, format!("public request with {header}"));
        }
    }
    let query = request.uri.query().unwrap_or_default();
    match public::execute(&request.method, endpoint, query, &request.body, bitfinex.clock.now()) {
        Some(Ok(told)) => success(&told),
        Some(Err(text)) => refusal(&Refusal::new(10020, text)),
        None => Answer::html(StatusCode::NOT_FOUND),
    }
}

fn private(bitfinex: &Bitfinex, endpoint: &str, request: &Received) -> Result<Value, Refusal> {
    let (record, connection) = (&bitfinex.record, request.connection);
    let now = bitfinex.clock.now();
    let mut state = bitfinex.state();
    let api_key = prove(bitfinex, &mut state, request)?;

    let fields = match json::read(if request.body.is_empty() { b"{}" } else { &request.body }) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err(Refusal::new(10020, "body: invalid")),
        Err(why) => {
            record.verdict(connection, why.to_string());
            return Err(Refusal::new(10020, "body: invalid"));
        }
    };
    let Some(held) = state.keys.get_mut(&api_key) else {
        return Err(Refusal::new(10100, "apikey: invalid"));
    };
    let may = held.key.permissions;
    // Not by `r` and `w` alone: some that write only look.
    let looked = queries::execute(held, endpoint, &fields, now);
    let is_permitted = match endpoint {
        _ if looked.is_some() => may.read,
        _ if MOVES.contains(&endpoint) => may.transfer,
        _ => may.trade,
    };
    if !is_permitted {
        record.verdict(connection, format!("permission: missing for {endpoint}"));
        return Err(Refusal::new(10001, "api_key: permission invalid"));
    }
    if let Some(told) = looked {
        return Ok(told);
    }
    if endpoint == "auth/w/token" {
        record.verdict(connection, "token: handed out a bearer credential");
        record.token_minted();
        return Ok(json!([state.mint(&api_key)]));
    }
    if endpoint == "auth/w/token/del" {
        let token = fields.get("token").and_then(Value::as_str).unwrap_or_default();
        state.tokens.retain(|(known, _)| known != token);
        return Ok(json!([1]));
    }
    let result = execute(held, endpoint, &fields, now);
    state.publish(&api_key, now);
    result
}

/// The key that the request proves to hold.
fn prove(bitfinex: &Bitfinex, state: &mut State, request: &Received) -> Result<String, Refusal> {
    let (record, connection) = (&bitfinex.record, request.connection);
    let header = |name: &str| request.header(name).unwrap_or_default();
    let is_refusing = bitfinex.faults.switches().refuse_auth;
    let token = request.header("bfx-token");
    let api_key = match token {
        Some(token) => {
            record.verdict(connection, "token: used as a credential");
            state.token_holder(token).ok_or_else(|| Refusal::new(10100, "token: invalid"))?
        }
        None => header("bfx-apikey").to_owned(),
    };
    let Some(held) = state.keys.get_mut(&api_key).filter(|_| !is_refusing) else {
        record.signature_refused(connection, "key: unknown");
        return Err(Refusal::new(10100, "apikey: invalid"));
    };
    let nonce = header("bfx-nonce");
    // The URL says /v2/, what is signed says /api/v2/; the query is not signed.
    let parts = [b"/api", request.path().as_bytes(), nonce.as_bytes(), &request.body];
    if token.is_none() && !verify::is_signed(&held.key.secret, &parts, header("bfx-signature")) {
        record.signature_refused(connection, "signature: wrong");
        return Err(Refusal::new(10100, "apikey: digest invalid"));
    }
    let window = held.key.nonce_window;
    if !verify::nonce(nonce).is_some_and(|nonce| held.nonces.accept(nonce, window)) {
        record.nonce_refused(connection, format!("nonce: {nonce} is not greater than all before"));
        return Err(Refusal::new(10114, "nonce: small"));
    }
    Ok(api_key)
}

fn execute(held: &mut Held, endpoint: &str, fields: &Map<String, Value>, now: UnixMillis) -> Result<Value, Refusal> {
    let account = &mut held.account;
    let payload = Value::Object(fields.clone());
    Ok(match endpoint {
        "auth/w/order/submit" => notification(inputs::execute(account, "on", &payload, now), now)?,
        "auth/w/order/update" => notification(inputs::execute(account, "ou", &payload, now), now)?,
        "auth/w/order/cancel" => notification(inputs::execute(account, "oc", &payload, now), now)?,
        "auth/w/order/cancel/multi" => notification(inputs::execute(account, "oc_multi", &payload, now), now)?,
        "auth/w/order/multi" => {
            let operations = fields.get("ops").ok_or_else(|| Refusal::new(10020, "ops: invalid"))?;
            let outcomes = inputs::execute(account, "ox_multi", operations, now);
            let told = outcomes.iter().map(|outcome| {
                let (status, text) = outcome.status();
                json!([now.0, outcome.kind, null, null, outcome.info, null, status, text])
            });
            json!([now.0, "ox_multi-req", null, null, told.collect::<Vec<_>>(), null, "SUCCESS", ""])
        }
        "auth/w/funding/offer/submit" => notification(inputs::execute(account, "fon", &payload, now), now)?,
        "auth/w/funding/offer/cancel" => notification(inputs::execute(account, "foc", &payload, now), now)?,
        "auth/w/funding/offer/cancel/all" => {
            account.cancel_offers();
            done("foc_all-req", &json!(null), now)
        }
        "auth/w/deposit/address" => done("acc_dep", &json!([null, "BITCOIN", "BTC", null, "simulated"]), now),
        _ if MOVES.contains(&endpoint) => {
            account.moved_out.push(payload);
            done("acc_wd-req", &json!([1]), now)
        }
        "auth/w/position/claim" | "auth/w/position/increase" | "auth/w/position/update/funding/type" => {
            return Err(Refusal::new(10001, "position: not found"));
        }
        "auth/w/deriv/collateral/set" => json!([[1]]),
        "auth/w/funding/auto" | "auth/w/funding/close" | "auth/w/funding/keep" => done("fa-req", &json!(null), now),
        "auth/w/alert/set" => json!(["price:tBTCUSD:1", "price", "tBTCUSD", 1, 100]),
        "auth/w/alert/del" | "auth/w/settings/set" | "auth/w/settings/del" => json!([1]),
        _ => return Err(Refusal::new(10020, "path: invalid")),
    })
}

/// A notification that all went well.
fn done(kind: &str, info: &Value, now: UnixMillis) -> Value {
    json!([now.0, kind, null, null, info, null, "SUCCESS", ""])
}

/// The one outcome of a write. An order stands in an array of its own here, unlike on the socket.
fn notification(outcomes: Vec<inputs::Outcome>, now: UnixMillis) -> Result<Value, Refusal> {
    let Some(outcome) = outcomes.into_iter().next() else { return Err(Refusal::new(10001, "request: invalid")) };
    let info = if matches!(outcome.kind, "on-req" | "ou-req") { json!([outcome.info]) } else { outcome.info };
    match outcome.result {
        Ok(text) => Ok(json!([now.0, outcome.kind, null, null, info, null, "SUCCESS", text])),
        Err(text) => Err(Refusal::new(10001, text)),
    }
}

fn success(value: &Value) -> Answer {
    Answer::json(StatusCode::OK, value.to_string())
}

fn refusal(Refusal(code, text): &Refusal) -> Answer {
    Answer::json(StatusCode::INTERNAL_SERVER_ERROR, json!(["error", code, text]).to_string())
}
