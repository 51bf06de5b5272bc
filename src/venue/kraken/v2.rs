//! One conversation in Kraken's WebSocket v2.
//!
//! Source: docs.kraken.com, "Websocket API v2": requests are `{"method":…,"params":{…},"req_id":…}`, answers
//! `{"method":…,"req_id":…,"success":…}`, data `{"channel":…,"type":…,"data":[…]}`.

use super::acts::{CHANNELS, METHODS, look_up};
use super::requests::{Requests, is_id};
use super::rest::cancelled;
use crate::fresh::UnixMillis;
use crate::message::{Kind, Message};
use crate::scope::{Act, Acts, Scope};
use crate::venue::wire::json::{self, Object, Value};
use crate::venue::{ClientLogin, Dialect, Edit, Event, Reading, Refusal, Step, Steps, Watch};
use memchr::memmem::Finder;
use std::time::Duration;

/// Members at the top of a message in which no request of v2 has anything; a credential there is an error.
const CREDENTIAL_NAMES: &[&str] = &["token", "apikey", "api_key", "signature", "nonce", "authorization", "otp"];

pub(super) struct Conversation {
    requests: Requests,
    needles: [Finder<'static>; 1],
}

impl Conversation {
    pub(super) fn new(is_private: bool) -> Self {
        Self { requests: Requests::new(is_private), needles: [Finder::new("\"method\"")] }
    }

    fn read_object(&self, root: Object<'_>) -> Reading {
        let mut reading = Reading::refused(Refusal::Unknown);
        reading.reply_to = root.get("req_id").filter(|id| is_id(*id)).map(Value::span);
        let Some(method) = root.get("method").and_then(Value::plain_str) else {
            return reading;
        };
        let params = match root.get("params") {
            None => None,
            Some(params) => match params.as_object() {
                Some(params) => Some(params),
                None => {
                    reading.acts = Err(Refusal::Malformed);
                    return reading;
                }
            },
        };
        let is_misspelt = root.in_other_case(&["method", "params", "req_id"])
            || params.is_some_and(|params| params.in_other_case(&["channel", "token", "timeout"]));
        if is_misspelt {
            reading.acts = Err(Refusal::Malformed);
            return reading;
        }
        if root.members().any(|(name, _)| CREDENTIAL_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))) {
            reading.acts = Err(Refusal::CredentialField);
            return reading;
        }

        let found = match method {
            "subscribe" | "unsubscribe" => {
                reading.operation = if method == "subscribe" { "subscribe" } else { "unsubscribe" };
                let channel = params.and_then(|params| params.get("channel")).and_then(Value::plain_str);
                channel.and_then(|channel| look_up(CHANNELS, channel)).map(|(_, act)| act)
            }
            _ => look_up(METHODS, method).map(|(operation, act)| {
                reading.operation = operation;
                act
            }),
        };
        let Some(mut act) = found else { return reading };
        if reading.operation == "cancel_all_orders_after" {
            let timeout = params.and_then(|params| params.get("timeout")).and_then(Value::as_u64);
            if timeout.is_none_or(|seconds| seconds == 0) {
                act = Act::Order;
            }
        }

        let token = params.and_then(|params| params.get("token"));
        if act == Act::Public {
            if let (Some(params), Some(_)) = (params, token) {
                reading.edit = Edit::Remove(params.member_span("token").expect("`get` found it"));
            }
        } else if !self.requests.is_private() {
            // This socket has no token to put in, and the exchange would refuse it all the same.
            return reading;
        } else {
            reading.shown = token.and_then(ClientLogin::token);
            reading.edit = match (params, token) {
                (Some(_), Some(token)) => Edit::Token { range: token.span(), before: "\"", after: "\"" },
                (Some(params), None) => {
                    let at = params.inside_start();
                    let after = if params.is_empty() { "\"" } else { "\"," };
                    Edit::Token { range: at..at, before: "\"token\":\"", after }
                }
                (None, _) => {
                    let at = root.inside_start();
                    Edit::Token { range: at..at, before: "\"params\":{\"token\":\"", after: "\"}," }
                }
            };
        }
        if act == Act::Cancel {
            reading.cancels = cancelled(reading.operation, params);
        }
        reading.acts = Ok(Acts::one(act));
        reading
    }

    /// An answer to a private request. True: the client does not see it, for now.
    fn on_answer(&mut self, message: &Message, root: Object<'_>, out: &mut Steps) -> bool {
        let method = root.get("method").and_then(Value::plain_str).unwrap_or_default();
        let id = root.get("req_id").map_or(&b""[..], |id| id.raw());
        let error = root.get("error").and_then(Value::text);
        self.requests.on_answer(&[method], id, error.as_deref(), message, out)
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
            r#"{"channel":"status","data":[{"api_version":"v2","connection_id":0,"system":"online","version":"2.0.0"}],"type":"update"}"#,
        )));
    }

    fn pong(&self, message: &Message, reading: &Reading, now: UnixMillis, out: &mut Steps) {
        let time = rfc3339(now);
        let id = reading.id(message).map(|id| format!(",\"req_id\":{id}")).unwrap_or_default();
        let pong = format!(r#"{{"method":"pong"{id},"time_in":"{time}","time_out":"{time}"}}"#);
        out.push(Step::ToClient(Message::text(pong)));
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

    fn refuse(&self, message: &Message, reading: &Reading, why: Refusal, now: UnixMillis, out: &mut Steps) {
        let error = match why {
            Refusal::NotPermitted(_) => "EGeneral:Permission denied",
            Refusal::Malformed => "EGeneral:Invalid arguments",
            Refusal::CredentialField => "EGeneral:Invalid arguments:token",
            // What the exchange says of a token that it does not know: libraries then fetch another.
            Refusal::NotAuthenticated | Refusal::Replayed => "ESession:Invalid session",
            Refusal::Unknown if !self.requests.is_private() && !reading.operation.is_empty() => {
                "Private data and trading are unavailable on this endpoint. Try ws-auth.kraken.com"
            }
            Refusal::Unknown => "EGeneral:Unknown method",
        };
        let mut answer = String::with_capacity(256);
        answer.push_str("{\"error\":");
        json::string(&mut answer, error);
        if !reading.operation.is_empty() {
            answer.push_str(",\"method\":");
            json::string(&mut answer, reading.operation);
        }
        if let Some(id) = reading.id(message) {
            answer.push_str(",\"req_id\":");
            answer.push_str(id);
        }
        let time = rfc3339(now);
        answer.push_str(",\"success\":false,\"time_in\":");
        json::string(&mut answer, &time);
        answer.push_str(",\"time_out\":");
        json::string(&mut answer, &time);
        answer.push_str(",\"countersign\":");
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

/// As in Kraken's `time_in`: `2023-10-16T13:18:35.303171Z`.
fn rfc3339(at: UnixMillis) -> String {
    humantime::format_rfc3339_micros(std::time::UNIX_EPOCH + Duration::from_millis(at.0)).to_string()
}
