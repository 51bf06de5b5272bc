//! The simulated Kraken's REST API. Checks, in this order: key, signature, nonce, permission, arguments.

use super::book::{Account, Order, OrderName};
use super::{Held, Kraken, classic, form, public, queries, verify};
use crate::fresh::UnixMillis;
use crate::simulator::faults::MintFault;
use crate::simulator::json::{self, Unreadable};
use crate::simulator::server::{Answer, Received};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Which permission a method asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Read,
    Trade,
    WebSocket,
    Transfer,
    Admin,
}

pub(super) fn answer(kraken: &Kraken, request: &Received) -> Answer {
    let path = request.path();
    if let Some(method) = path.strip_prefix("/0/public/") {
        return if matches!(request.method, Method::GET | Method::HEAD) {
            market_data(kraken, method, request)
        } else {
            Answer::html(StatusCode::METHOD_NOT_ALLOWED)
        };
    }
    let Some(method) = path.strip_prefix("/0/private/") else { return Answer::html(StatusCode::NOT_FOUND) };
    if request.method != Method::POST {
        kraken.record.verdict(request.connection, "private method without POST");
        return refusal("EGeneral:Unknown method");
    }
    if method == "GetWebSocketsToken" {
        let switches = kraken.faults.switches();
        let mut answer = match switches.mint {
            MintFault::None => private(kraken, method, request),
            MintFault::Unavailable => Answer::html(StatusCode::SERVICE_UNAVAILABLE),
            MintFault::Error(error) => refusal(&error),
            MintFault::EmptyToken => success(&json!({"token": "", "expires": 900})),
            MintFault::Html => Answer::html(StatusCode::OK),
        };
        // The venue may write `/` so, and what it writes so has to be found again.
        answer.body = answer.body.replace('/', "\\/");
        answer.delay = switches.mint_delay;
        return answer;
    }
    private(kraken, method, request)
}

fn market_data(kraken: &Kraken, method: &str, request: &Received) -> Answer {
    for header in ["api-key", "api-sign"] {
        if request.headers.contains_key(header) {
            kraken.record.verdict(request.connection, format!("public request with {header}"));
        }
    }
    match public::execute(kraken, method, request) {
        Ok(result) => success(&result),
        Err(error) => refusal(error),
    }
}

fn private(kraken: &Kraken, method: &str, request: &Received) -> Answer {
    match checked(kraken, method, request) {
        Ok(Value::String(archive)) if method == "RetrieveExport" => {
            Answer { content_type: "application/octet-stream", ..Answer::json(StatusCode::OK, archive) }
        }
        Ok(result) => success(&result),
        Err(error) => refusal(&error),
    }
}

fn checked(kraken: &Kraken, method: &str, request: &Received) -> Result<Value, String> {
    let (record, connection) = (&kraken.record, request.connection);
    let now = kraken.clock.now();
    let switches = kraken.faults.switches();
    let mut state = kraken.state();

    let api_key = request.header("api-key").unwrap_or_default().to_owned();
    let Some(held) = state.keys.get_mut(&api_key).filter(|_| !switches.refuse_auth) else {
        record.signature_refused(connection, "key: unknown");
        return Err("EAPI:Invalid key".into());
    };

    let fields = match fields(request) {
        Ok(fields) => fields,
        Err(why) => {
            record.verdict(connection, format!("body: {why}"));
            return Err(format!("EGeneral:Invalid arguments:{why}"));
        }
    };
    let nonce = fields.get("nonce").and_then(classic::text).unwrap_or_default();
    let signature = request.header("api-sign").unwrap_or_default();
    if !verify::is_signed(&held.secret, request.path(), &nonce, &request.body, signature) {
        record.signature_refused(connection, format!("signature: wrong for {method}"));
        return Err("EAPI:Invalid signature".into());
    }
    let is_accepted = nonce.parse().is_ok_and(|nonce| held.nonces.accept(nonce, held.key.nonce_window));
    if !is_accepted {
        record.nonce_refused(connection, format!("nonce: {nonce} is not greater than all before"));
        return Err("EAPI:Invalid nonce".into());
    }
    if switches.rate_limited {
        return Err("EAPI:Rate limit exceeded".into());
    }
    let looked = queries::execute(held, method, &fields);
    let Some(need) = need(method).or(looked.is_some().then_some(Need::Read)) else {
        record.verdict(connection, format!("method: {method} is unknown"));
        return Err("EGeneral:Unknown method".into());
    };
    let may = held.key.permissions;
    let is_permitted = match need {
        Need::Read => may.read,
        Need::Trade => may.trade,
        Need::WebSocket => may.websocket,
        Need::Transfer | Need::Admin => may.transfer,
    };
    if !is_permitted {
        record.verdict(connection, format!("permission: {need:?} is missing for {method}"));
        return Err("EGeneral:Permission denied".into());
    }
    if let Some(result) = looked {
        return Ok(result);
    }
    if method == "GetWebSocketsToken" {
        let token = state.mint(&api_key, now);
        record.token_minted();
        return Ok(json!({"token": token, "expires": kraken.token_lifetime.as_secs()}));
    }
    let result = execute(held, method, &fields, now);
    state.publish(&api_key, now);
    result
}

/// The body's members: of JSON or of a form, as the header says; without one, of a form.
fn fields(request: &Received) -> Result<Map<String, Value>, &'static str> {
    let kind = request.header("content-type").unwrap_or_default().to_ascii_lowercase();
    match kind.split(';').next().unwrap_or_default().trim() {
        "application/json" => match json::read(&request.body) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) | Err(Unreadable::Malformed) => Err("malformed JSON"),
            Err(Unreadable::Duplicate) => Err("duplicate member"),
        },
        "" | "application/x-www-form-urlencoded" => {
            let text = std::str::from_utf8(&request.body).map_err(|_| "not UTF-8")?;
            form::read(text).ok_or("malformed form or duplicate member")
        }
        _ => Err("neither a form nor JSON"),
    }
}

/// What a method asks for that does more than look.
fn need(method: &str) -> Option<Need> {
    Some(match method {
        "AddOrder"
        | "AddOrderBatch"
        | "AmendOrder"
        | "EditOrder"
        | "CancelOrder"
        | "CancelAll"
        | "CancelAllOrdersAfter"
        | "CancelOrderBatch" => Need::Trade,
        "GetWebSocketsToken" => Need::WebSocket,
        "Withdraw" | "WithdrawCancel" | "WalletTransfer" | "AccountTransfer" | "DepositAddresses" | "Earn/Allocate"
        | "Earn/Deallocate" => Need::Transfer,
        "CreateSubaccount" | "CreatePrimeApiUser" | "CreatePrimeApiUserKey" => Need::Admin,
        _ => return None,
    })
}

fn execute(held: &mut Held, method: &str, fields: &Map<String, Value>, now: UnixMillis) -> Result<Value, String> {
    let account = &mut held.account;
    match method {
        "Withdraw" | "WalletTransfer" | "AccountTransfer" | "Earn/Allocate" | "Earn/Deallocate" => {
            account.withdrawals.push(Value::Object(fields.clone()));
            Ok(if method.starts_with("Earn/") { json!(true) } else { json!({"refid": super::random_id('F')}) })
        }
        "WithdrawCancel" | "CreateSubaccount" => Ok(json!(true)),
        "CreatePrimeApiUser" => Ok(json!({"user_id": super::random_id('U')})),
        // What a proxy must never let through: a credential in an answer.
        "CreatePrimeApiUserKey" => {
            Ok(json!({"api_key": super::random_id('K'), "api_secret": "simulated secret of a new key"}))
        }
        _ => order(account, method, fields, now),
    }
}

fn order(account: &mut Account, method: &str, fields: &Map<String, Value>, now: UnixMillis) -> Result<Value, String> {
    let name = || classic::order_name(fields).ok_or("EGeneral:Invalid arguments:txid");
    let number = |name: &str| fields.get(name).and_then(classic::number);
    Ok(match method {
        "AddOrder" => {
            let mut told = placed(&account.place(classic::new_order(fields)?, now)?);
            // The order that will close this one's position: `close[ordertype]` and its neighbours.
            if let Some(close) = fields.get("close").and_then(Value::as_object) {
                let part = |name: &str| close.get(name).and_then(classic::text).unwrap_or_default();
                told["descr"]["close"] = json!(format!("close position @ {} {}", part("ordertype"), part("price")));
            }
            told
        }
        "AddOrderBatch" => {
            let pair = fields.get("pair").cloned().unwrap_or_default();
            let batch = fields.get("orders").and_then(Value::as_array).ok_or("EGeneral:Invalid arguments:orders")?;
            let told = batch.iter().map(|order| {
                let mut order = order.as_object().cloned().unwrap_or_default();
                order.insert("pair".into(), pair.clone());
                let placed = classic::new_order(&order).and_then(|asked| Ok(account.place(asked, now)?));
                match placed {
                    Ok(order) => json!({"txid": order.id, "descr": {"order": classic::description(&order.asked)}}),
                    Err(error) => json!({"error": error}),
                }
            });
            json!({"orders": told.collect::<Vec<_>>()})
        }
        "AmendOrder" => {
            account.amend(&name()?, number("order_qty"), number("limit_price"))?;
            json!({"amend_id": super::random_id('T')})
        }
        "EditOrder" => {
            let (old, new) = account.edit(&name()?, number("volume"), number("price"), now)?;
            let mut told = placed(&new);
            told["originaltxid"] = json!(old.id);
            told["txid"] = json!(new.id);
            told["status"] = json!("ok");
            told
        }
        "CancelOrder" => match account.cancel(&name()?, now).len() {
            0 => return Err("EOrder:Unknown order".into()),
            count => json!({"count": count}),
        },
        "CancelOrderBatch" => {
            let listed = |name: &str| fields.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
            let by_id = listed("orders").iter().filter_map(OrderName::from_json).collect::<Vec<_>>();
            let by_client =
                listed("cl_ord_ids").iter().filter_map(classic::text).map(OrderName::ClientId).collect::<Vec<_>>();
            let count: usize = by_id.iter().chain(&by_client).map(|name| account.cancel(name, now).len()).sum();
            json!({"count": count})
        }
        "CancelAll" => json!({"count": account.cancel_all(now)}),
        "CancelAllOrdersAfter" => {
            let timeout = number("timeout").filter(|seconds| (0.0..86_400.0).contains(seconds));
            let timeout = timeout.ok_or("EGeneral:Invalid arguments:timeout")?;
            let trigger = account.arm(Duration::from_secs_f64(timeout), now);
            let trigger = trigger.map_or_else(|| "0".to_owned(), crate::simulator::clock::rfc3339);
            json!({"currentTime": crate::simulator::clock::rfc3339(now), "triggerTime": trigger})
        }
        _ => return Err("EGeneral:Unknown method".into()),
    })
}

fn placed(order: &Order) -> Value {
    let description = json!({"order": classic::description(&order.asked)});
    if order.asked.is_validation {
        return json!({"descr": description});
    }
    let mut told = json!({"descr": description, "txid": [order.id]});
    if let Some(client_id) = &order.asked.client_id {
        told["cl_ord_id"] = json!(client_id);
    }
    told
}

fn success(result: &Value) -> Answer {
    Answer::json(StatusCode::OK, json!({"error": [], "result": result}).to_string())
}

fn refusal(error: &str) -> Answer {
    Answer::json(StatusCode::OK, json!({"error": [error]}).to_string())
}
