//! What the admin listener says: the pages, and an account's status as JSON.

use super::{Listed, Port, Status, json};
use crate::supply::account::AccountStatus;
use crate::supply::token::TokenState;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use std::time::Duration;

/// How long an account may take to say how it is. One that is busier says so by that.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// `/readyz`. An exchange that is down does not make us unready: restarting us would not bring it back.
pub(super) fn ready(status: &Status) -> Response<Full<Bytes>> {
    let is_draining = *status.draining.borrow();
    let code = if is_draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let port = |port: &Port| json!({"address": port.address, "venue": port.venue, "endpoint": port.endpoint});
    let body = json!({
        "countersign": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "ready": !is_draining,
        "draining": is_draining,
        "listening_on": status.listening_on,
        "ports": status.ports.iter().map(port).collect::<Vec<_>>(),
        "connect": status.connect,
        "connections": status.arrivals.count(),
        "accounts": status.accounts.iter().map(|listed| &listed.name).collect::<Vec<_>>(),
    });
    json(code, &body)
}

/// `/status`: the process and every account, at this moment. Moments are milliseconds since 1970.
pub(super) async fn status(status: &Status) -> Response<Full<Bytes>> {
    let accounts = join_all(status.accounts.iter().map(told)).await;
    let body = json!({
        "countersign": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_s": status.opened_at.elapsed().as_secs(),
        "draining": *status.draining.borrow(),
        "sessions": status.sessions.len(),
        "connections": status.arrivals.count(),
        "accounts": accounts,
    });
    json(StatusCode::OK, &body)
}

/// One account, as it says itself, if it can.
pub(super) async fn told(listed: &Listed) -> Value {
    let without = |why: &str| json!({"account": listed.name, "venue": listed.venue, "status": why});
    match &listed.account {
        None => without("no_keys"),
        Some(account) => match account.status(STATUS_LIMIT).await {
            Ok(status) => account_json(&status),
            Err(_) => without("busy"),
        },
    }
}

fn account_json(status: &AccountStatus) -> Value {
    let lane =
        status.lane.map(|lane| json!({"unit": lane.unit.word(), "frozen": lane.is_frozen, "reserved": lane.reserved}));
    let queue = status.queue;
    json!({
        "account": status.account.as_str(),
        "venue": status.venue,
        "status": "ok",
        "token": status.token.map(|token| token_json(token, status.token_failures)),
        "breaker": status.token.map(|token| token.breaker()),
        "lane": lane,
        "queue": {
            "cancels": queue.cancels, "logins": queue.logins, "orders": queue.orders, "reads": queue.reads,
        },
        "in_flight": status.in_flight,
        "clock_offset_ms": status.clock_offset_ms,
        "refused_in_a_row": status.refused_in_a_row,
        "left_alone_until": status.left_alone_until.map(|until| until.0),
    })
}

/// What the token is doing. Never the token.
fn token_json(token: TokenState, failures: u32) -> Value {
    let (refresh_at, retry_at, reason) = match token {
        TokenState::Valid { refresh_at, .. } => (Some(refresh_at.0), None, None),
        TokenState::Waiting { until, why, .. } | TokenState::Open { until, why, .. } => {
            (None, Some(until.0), Some(why.to_string()))
        }
        TokenState::Absent | TokenState::Expired { .. } | TokenState::Buying { .. } | TokenState::Probing { .. } => {
            (None, None, None)
        }
    };
    json!({
        "state": token.word(),
        "usable_until": token.usable_until().map(|until| until.0),
        "refresh_at": refresh_at,
        "retry_at": retry_at,
        "failures": failures,
        "reason": reason,
    })
}
