//! One conversation in Kraken's WebSocket v1.
//!
//! Source: docs.kraken.com, "Websocket API v1": requests are objects with `event`, data are arrays. The token stands
//! in `subscription.token` of a private subscription, and at the top of a trading request. An exchange may echo it in
//! `subscriptionStatus`; the session overwrites it there.

use super::acts::{EVENTS, SUBSCRIPTIONS, look_up};
use super::requests::{Requests, is_id};
use super::rest::cancelled;
use crate::fresh::UnixMillis;
use crate::message::{Kind, Message};
use crate::scope::{Act, Acts, Scope};
use crate::venue::wire::json::{self, Object, Value};
use crate::venue::{ClientLogin, Dialect, Edit, Event, Reading, Refusal, Step, Steps, Watch};
use memchr::memmem::Finder;

/// Members that no request of v1 has; a credential there is an error.
const CREDENTIAL_NAMES: &[&str] = &["apikey", "api_key", "signature", "nonce", "authorization", "otp"];

pub(super) struct Conversation {
    requests: Requests,
    needles: [Finder<'static>; 1],
}

impl Conversation {
    pub(super) fn new(is_private: bool) -> Self {
        // `addOrderStatus`, `subscriptionStatus` and their like; `systemStatus` comes along.
        Self { requests: Requests::new(is_private), needles: [Finder::new("Status\"")] }
    }

    fn read_object(&self, root: Object<'_>) -> Reading {
        let mut reading = Reading::refused(Refusal::Unknown);
        reading.reply_to = root.get("reqid").filter(|id| is_id(*id)).map(Value::span);
        let Some(event) = root.get("event").and_then(Value::plain_str) else { return reading };
        let subscription = root.get("subscription").map(Value::as_object);
        let is_misspelt = root.in_other_case(&["event", "reqid", "subscription", "token", "timeout"])
            || subscription.flatten().is_some_and(|subscription| subscription.in_other_case(&["name", "token"]));
        if is_misspelt || matches!(subscription, Some(None)) {
            reading.acts = Err(Refusal::Malformed);
            return reading;
        }
        if root.members().any(|(name, _)| CREDENTIAL_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))) {
            reading.acts = Err(Refusal::CredentialField);
            return reading;
        }
        match event {
            "subscribe" | "unsubscribe" => {
                reading.operation = if event == "subscribe" { "subscribe" } else { "unsubscribe" };
                // One may unsubscribe from a public channel by its number alone.
                let Some(Some(subscription)) = subscription else {
                    let is_by_number = event == "unsubscribe" && root.get("channelID").is_some();
                    if is_by_number && root.get("token").is_none() {
                        reading.acts = Ok(Acts::one(Act::Public));
                    }
                    return reading;
                };
                let name = subscription.get("name").and_then(Value::plain_str);
                let Some((_, act)) = name.and_then(|name| look_up(SUBSCRIPTIONS, name)) else { return reading };
                if root.get("token").is_some() {
                    reading.acts = Err(Refusal::CredentialField);
                    return reading;
                }
                self.place_token(&mut reading, subscription, act);
            }
            _ => {
                let Some((operation, mut act)) = look_up(EVENTS, event) else { return reading };
                reading.operation = operation;
                if operation == "cancelAllOrdersAfter" {
                    let timeout = root.get("timeout").and_then(Value::as_u64);
                    if timeout.is_none_or(|seconds| seconds == 0) {
                        act = Act::Order;
                    }
                }
                if act == Act::Cancel {
                    reading.cancels = cancelled(operation, Some(root));
                }
                self.place_token(&mut reading, root, act);
            }
        }
        reading
    }

    /// Says where the token goes, or that a public request has none.
    fn place_token(&self, reading: &mut Reading, holder: Object<'_>, act: Act) {
        let token = holder.get("token");
        if act == Act::Public {
            if token.is_some() {
                reading.edit = Edit::Remove(holder.member_span("token").expect("`get` found it"));
            }
        } else if !self.requests.is_private() {
            // This socket has no token to put in, and the exchange would refuse it all the same.
            return;
        } else {
            reading.shown = token.and_then(ClientLogin::token);
            reading.edit = match token {
                Some(token) => Edit::Token { range: token.span(), before: "\"", after: "\"" },
                None => {
                    let at = holder.inside_start();
                    let after = if holder.is_empty() { "\"" } else { "\"," };
                    Edit::Token { range: at..at, before: "\"token\":\"", after }
                }
            };
        }
        reading.acts = Ok(Acts::one(act));
    }

    /// An answer to a private request. True: the client does not see it, for now.
    fn on_answer(&mut self, message: &Message, root: Object<'_>, out: &mut Steps) -> bool {
        let event = root.get("event").and_then(Value::plain_str).unwrap_or_default();
        let operations: &[&str] = match event.strip_suffix("Status") {
            Some("subscription") => &["subscribe", "unsubscribe"],
            Some(operation) => &[operation],
            None => return false,
        };
        let id = root.get("reqid").map_or(&b""[..], |id| id.raw());
        let error = root.get("errorMessage").and_then(Value::text);
        self.requests.on_answer(operations, id, error.as_deref(), message, out)
    }
}

impl Dialect for Conversation {
    fn on_event(&mut self, event: Event, out: &mut Steps) {
        self.requests.on_event(event, out);
    }

    /// By the token in a private message.
    fn takes_login(&self) -> bool {
        self.requests.is_private()
    }

    fn greet(&self, _now: UnixMillis, out: &mut Steps) {
        out.push(Step::ToClient(Message::text(
            r#"{"connectionID":0,"event":"systemStatus","status":"online","version":"1.9.1"}"#,
        )));
    }

    fn pong(&self, message: &Message, reading: &Reading, _now: UnixMillis, out: &mut Steps) {
        let id = reading.id(message).map(|id| format!(",\"reqid\":{id}")).unwrap_or_default();
        out.push(Step::ToClient(Message::text(format!(r#"{{"event":"pong"{id}}}"#))));
    }

    fn read(&self, message: &Message) -> Reading {
        if message.kind() == Kind::Binary {
            return Reading::refused(Refusal::Malformed);
        }
        match json::read(message.payload()) {
            Ok(document) => match document.root().as_object() {
                Some(root) => self.read_object(root),
                None => Reading::refused(Refusal::Malformed),
            },
            Err(_) => Reading::refused(Refusal::Malformed),
        }
    }

    fn forward(&mut self, message: Message, reading: &Reading, _scope: Scope, _now: UnixMillis, out: &mut Steps) {
        let is_subscription = matches!(reading.operation, "subscribe" | "unsubscribe");
        self.requests.forward(message, reading, is_subscription, out);
    }

    fn refuse(&self, message: &Message, reading: &Reading, why: Refusal, _now: UnixMillis, out: &mut Steps) {
        let error = match why {
            Refusal::NotPermitted(_) => "EGeneral:Permission denied",
            Refusal::Malformed => "Malformed request",
            Refusal::CredentialField => "EGeneral:Invalid arguments:token",
            // What the exchange says of a token that it does not know: libraries then fetch another.
            Refusal::NotAuthenticated | Refusal::Replayed => "ESession:Invalid session",
            Refusal::Unknown if !self.requests.is_private() && !reading.operation.is_empty() => {
                "Private data and trading are unavailable on this endpoint. Try ws-auth.kraken.com"
            }
            Refusal::Unknown => "Unsupported event",
        };
        let mut answer = String::with_capacity(192);
        answer.push_str("{\"errorMessage\":");
        json::string(&mut answer, error);
        answer.push_str(",\"event\":");
        match reading.operation {
            "" | "ping" => answer.push_str("\"error\""),
            "subscribe" | "unsubscribe" => answer.push_str("\"subscriptionStatus\""),
            operation => json::string(&mut answer, &format!("{operation}Status")),
        }
        if let Some(id) = reading.id(message) {
            answer.push_str(",\"reqid\":");
            answer.push_str(id);
        }
        answer.push_str(",\"status\":\"error\",\"countersign\":");
        json::string(&mut answer, why.slug());
        answer.push('}');
        out.push(Step::ToClient(Message::text(answer)));
    }

    fn on_upstream(&mut self, message: Message, out: &mut Steps) {
        let is_kept = json::read(message.payload())
            .ok()
            .and_then(|document| document.root().as_object().map(|root| self.on_answer(&message, root, out)))
            .unwrap_or(false);
        if !is_kept {
            out.push(Step::ToClient(message));
        }
    }

    fn watch(&self) -> Watch<'_> {
        if self.requests.is_empty() { Watch::Nothing } else { Watch::Needles(&self.needles) }
    }

    fn unanswered(&self) -> usize {
        self.requests.unanswered()
    }
}
