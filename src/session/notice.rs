//! The few messages of our own, for clients that log in by message.

use crate::fresh::UnixMillis;
use crate::identity::Method;
use crate::message::Message;
use crate::names::{AccountName, SessionId};
use crate::policy::Permit;
use crate::scope::Right;
use serde::Serialize;
use serde_json::json;

/// The client may talk. Times are milliseconds since 1970; `expires_at` is null for a session without an end.
pub(super) fn connected(id: SessionId, permit: &Permit, now: UnixMillis) -> Message {
    #[derive(Serialize)]
    struct Connected<'a> {
        r#type: &'static str,
        session_id: String,
        client_id: &'a str,
        account: Option<&'a str>,
        venue: &'static str,
        permissions: Vec<&'static str>,
        expires_at: Option<u64>,
        server_time: u64,
    }
    text(&Connected {
        // Whoever is let in without any proof is greeted with another word, so that nobody takes it for a login.
        r#type: if permit.method() == Method::NoAuth { "welcome" } else { "connected" },
        session_id: id.to_string(),
        client_id: permit.client().as_str(),
        account: permit.account().map(AccountName::as_str),
        venue: permit.venue(),
        permissions: permit.scope().iter().map(Right::word).collect(),
        expires_at: permit.ends_at().map(|at| at.0),
        server_time: now.0,
    })
}

/// The proof ends soon; a new login message extends the session.
pub(super) fn expiring(permit: &Permit, ends_at: UnixMillis) -> Message {
    text(&json!({ "type": "expiring", "client_id": permit.client().as_str(), "expires_at": ends_at.0 }))
}

/// Several accounts fit: the client has to name one of them.
pub(super) fn which_account(accounts: &[AccountName]) -> Message {
    let names: Vec<&str> = accounts.iter().map(AccountName::as_str).collect();
    text(&json!({
        "type": "error",
        "reason": "account_required",
        "message": "several accounts fit; name one in the `account` member of the login message",
        "accounts": names,
    }))
}

/// The answer to a ping before login.
pub(super) fn pong(now: UnixMillis) -> Message {
    text(&json!({ "type": "pong", "server_time": now.0 }))
}

fn text(value: &impl Serialize) -> Message {
    Message::text(serde_json::to_string(value).expect("names and numbers can be written as JSON"))
}
