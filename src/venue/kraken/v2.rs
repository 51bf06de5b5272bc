//! One conversation in Kraken's WebSocket v2.
//!
//! Source: docs.kraken.com, "Websocket API v2": requests are `{"method":…,"params":{…},"req_id":…}`, answers
//! `{"method":…,"req_id":…,"success":…}`, data `{"channel":…,"type":…,"data":[…]}`.

use super::acts::{CHANNELS, METHODS, look_up};
use crate::fresh::{Token, TokenId, UnixMillis};
use crate::message::{Kind, Message};
use crate::scope::{Act, Acts, Scope};
use crate::venue::wire::json::{self, Object};
use crate::venue::{Dialect, Edit, Event, Login, Reading, Refusal, Step, Steps, Watch};
use bytes::Bytes;
use memchr::memmem::Finder;
use std::collections::VecDeque;
use std::time::Duration;

/// Requests whose answers are awaited at most; beyond it the oldest is forgotten, and counts as answered.
const PENDING_MAX: usize = 1024;

/// What Kraken says of a token that it does not take, or no longer takes.
const TOKEN_ERRORS: &[&str] = &["ESession:Invalid session", "EAPI:Invalid token", "Token is expired"];

/// Members at the top of a message in which no request of v2 has anything; a credential there is an error.
const CREDENTIAL_NAMES: &[&str] = &["token", "apikey", "api_key", "signature", "nonce", "authorization", "otp"];

pub(super) struct Conversation {
    is_private: bool,
    token: Option<Token>,
    is_renewing: bool,
    pending: VecDeque<Pending>,
    needles: Vec<Finder<'static>>,
}

/// A private request whose answer has not come.
struct Pending {
    operation: &'static str,
    req_id: Bytes,
    /// The token that it carried.
    token: TokenId,
    /// The request as the client sent it, if it may be sent again with another token: subscriptions alone.
    again: Option<(Message, Edit)>,
    /// What the exchange said of its token, kept from the client while a new one is obtained.
    refusal: Option<Message>,
}

impl Conversation {
    pub(super) fn new(is_private: bool) -> Self {
        Self {
            is_private,
            token: None,
            is_renewing: false,
            pending: VecDeque::new(),
            needles: if is_private { vec![Finder::new("\"method\"")] } else { Vec::new() },
        }
    }

    fn read_object(&self, message: &Message, root: Object<'_>) -> Reading {
        let mut reading = Reading::refused(Refusal::Unknown);
        reading.reply_to =
            root.get("req_id").filter(|id| id.as_u64().is_some()).map(super::super::wire::json::Value::span);
        let Some(method) = root.get("method").and_then(super::super::wire::json::Value::plain_str) else {
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
                let channel = params
                    .and_then(|params| params.get("channel"))
                    .and_then(super::super::wire::json::Value::plain_str);
                channel.and_then(|channel| look_up(CHANNELS, channel)).map(|(_, act)| act)
            }
            _ => look_up(METHODS, method).map(|(operation, act)| {
                reading.operation = operation;
                act
            }),
        };
        let Some(mut act) = found else { return reading };
        if reading.operation == "cancel_all_orders_after" {
            let timeout =
                params.and_then(|params| params.get("timeout")).and_then(super::super::wire::json::Value::as_u64);
            if timeout.is_none_or(|seconds| seconds == 0) {
                act = Act::Order;
            }
        }

        let token = params.and_then(|params| params.get("token"));
        if act == Act::Public {
            if let (Some(params), Some(_)) = (params, token) {
                reading.edit = Edit::Remove(params.member_span("token").expect("`get` found it"));
            }
        } else if !self.is_private {
            // This socket has no token to put in, and the exchange would refuse it all the same.
            return reading;
        } else {
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
        debug_assert!(message.len() >= root.inside_start());
        reading.acts = Ok(Acts::one(act));
        reading
    }

    fn send(&mut self, message: &Message, reading_edit: &Edit, out: &mut Steps) -> Option<TokenId> {
        let token = self.token.as_ref();
        let edited = reading_edit.apply(message, token.map(|token| &token.secret))?;
        out.push(Step::ToUpstream(edited));
        token.map(|token| token.id)
    }

    /// An answer to a private request. True: the client does not see it, for now.
    fn on_answer(&mut self, message: &Message, root: Object<'_>, out: &mut Steps) -> bool {
        let method = root.get("method").and_then(super::super::wire::json::Value::plain_str).unwrap_or_default();
        let req_id = root.get("req_id").map_or(&b""[..], |id| id.raw());
        let Some(index) =
            self.pending.iter().position(|pending| pending.operation == method && pending.req_id == req_id)
        else {
            return false;
        };
        let is_token_refused = root
            .get("error")
            .and_then(super::super::wire::json::Value::text)
            .is_some_and(|error| TOKEN_ERRORS.iter().any(|known| error.starts_with(known)));
        if !is_token_refused {
            self.pending.remove(index);
            return false;
        }

        let is_current = self.token.as_ref().is_some_and(|token| token.id == self.pending[index].token);
        if is_current && !self.is_renewing {
            self.is_renewing = true;
            out.push(Step::NeedToken { refused: Some(self.pending[index].token) });
        }
        if self.pending[index].again.is_none() {
            // An order is never sent twice: the client hears of the refusal and decides.
            self.pending.remove(index);
            return false;
        }
        self.pending[index].refusal = Some(message.clone());
        if !self.is_renewing {
            self.subscribe_again(out);
        }
        true
    }

    /// Sends each subscription whose token was refused once more, with the token of now.
    fn subscribe_again(&mut self, out: &mut Steps) {
        let Some(token) = self.token.clone() else { return };
        for pending in &mut self.pending {
            if pending.refusal.take().is_none() {
                continue;
            }
            let Some((message, edit)) = pending.again.take() else { continue };
            if let Some(edited) = edit.apply(&message, Some(&token.secret)) {
                pending.token = token.id;
                out.push(Step::ToUpstream(edited));
            }
        }
    }
}

impl Dialect for Conversation {
    fn on_event(&mut self, event: Event, out: &mut Steps) {
        match event {
            Event::Opened { login: Login::AtOnce, .. } if self.is_private => {
                out.push(Step::NeedToken { refused: None });
            }
            Event::Opened { .. } => out.push(Step::Ready),
            Event::Fresh { fresh, .. } => {
                if let Some(token) = fresh.token {
                    out.push(Step::Guard(token.secret.clone()));
                    self.token = Some(token);
                }
                self.is_renewing = false;
                self.subscribe_again(out);
                out.push(Step::Ready);
            }
            Event::NotFresh => {
                self.is_renewing = false;
                // Without a new token the client sees what the exchange said of the old one.
                self.pending.retain_mut(|pending| match pending.refusal.take() {
                    Some(refusal) => {
                        out.push(Step::ToClient(refusal));
                        false
                    }
                    None => true,
                });
                if self.token.is_some() {
                    out.push(Step::Ready);
                }
            }
        }
    }

    fn read(&self, message: &Message) -> Reading {
        if message.kind() == Kind::Binary {
            return Reading::refused(Refusal::Malformed);
        }
        match json::read(message.payload()) {
            Ok(document) => match document.root().as_object() {
                Some(root) => self.read_object(message, root),
                None => Reading::refused(Refusal::Malformed),
            },
            Err(_) => Reading::refused(Refusal::Malformed),
        }
    }

    fn forward(&mut self, message: Message, reading: &Reading, _scope: Scope, out: &mut Steps) {
        let Edit::Token { .. } = reading.edit else {
            self.send(&message, &reading.edit, out);
            return;
        };
        if self.token.is_none() {
            out.push(Step::NeedToken { refused: None });
            out.push(Step::Hold(message));
            return;
        }
        let Some(token) = self.send(&message, &reading.edit, out) else { return };
        let req_id = reading.reply_to.clone().map_or_else(Bytes::new, |span| message.payload().slice(span));
        let is_subscription = matches!(reading.operation, "subscribe" | "unsubscribe");
        if self.pending.len() == PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending {
            operation: reading.operation,
            req_id,
            token,
            again: is_subscription.then(|| (message, reading.edit.clone())),
            refusal: None,
        });
    }

    fn refuse(&self, message: &Message, reading: &Reading, why: Refusal, now: UnixMillis, out: &mut Steps) {
        let error = match why {
            Refusal::NotPermitted(_) => "EGeneral:Permission denied",
            Refusal::Malformed => "EGeneral:Invalid arguments",
            Refusal::CredentialField => "EGeneral:Invalid arguments:token",
            Refusal::Unknown if !self.is_private && !reading.operation.is_empty() => {
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
        if let Some(id) = reading.reply_to.clone().and_then(|span| std::str::from_utf8(&message.payload()[span]).ok()) {
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
        if self.pending.is_empty() { Watch::Nothing } else { Watch::Needles(&self.needles) }
    }

    fn unanswered(&self) -> usize {
        self.pending.iter().filter(|pending| !matches!(pending.operation, "subscribe" | "unsubscribe")).count()
    }
}

/// As in Kraken's `time_in`: `2023-10-16T13:18:35.303171Z`.
fn rfc3339(at: UnixMillis) -> String {
    humantime::format_rfc3339_micros(std::time::UNIX_EPOCH + Duration::from_millis(at.0)).to_string()
}
