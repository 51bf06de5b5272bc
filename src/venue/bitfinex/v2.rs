//! One conversation in Bitfinex's WebSocket v2.
//!
//! Source: docs.bitfinex.com: control events are objects with `event`, data are arrays that begin with a
//! channel number, and channel 0 is the account.

use super::acts::{BATCHED, CHANNELS, INPUTS, look_up};
use super::login::{self, Wish};
use super::rest::subjects::cancelled;
use crate::fresh::UnixMillis;
use crate::message::{Kind, Message};
use crate::scope::{Act, Acts, Right, Scope};
use crate::venue::wire::json::{self, Array, Object, Value};
use crate::venue::{Dialect, Edit, Event, Login, LoginOutcome, Reading, Refusal, Step, Steps, Watch};
use memchr::memmem::Finder;
use std::time::Duration;

/// Operations in one `ox_multi` at most, as documented.
const BATCH_MAX: usize = 75;

/// How often a socket logs in anew because its client wishes something else. Each costs the account a nonce.
const RELOGIN_PAUSE: Duration = Duration::from_secs(5);

/// Names that carry a credential; outside `auth` no event has one.
const CREDENTIAL_NAMES: &[&str] = &["apikey", "apisecret", "authsig", "authpayload", "authnonce", "token"];

pub(super) struct Conversation {
    is_private: bool,
    login: LoginState,
    wish: Wish,
    scope: Scope,
    /// The success event that clients are told, once there was one.
    success: Option<Message>,
    /// We logged out to log in anew: the client does not hear of it.
    awaits_logout: bool,
    /// When we last did.
    relogged_in_at: Option<UnixMillis>,
    /// The login was asked for by the client's own `auth`, which waits for an answer.
    is_asked_for: bool,
    unanswered: usize,
    needles: [Finder<'static>; 1],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoginState {
    Out,
    /// A nonce is asked for. `again`: the login before this one was refused for its nonce.
    Asked {
        again: bool,
    },
    Sent {
        again: bool,
    },
    In,
}

impl Conversation {
    pub(super) fn new(is_private: bool) -> Self {
        Self {
            is_private,
            login: LoginState::Out,
            wish: Wish::default(),
            scope: Scope::NONE,
            success: None,
            awaits_logout: false,
            relogged_in_at: None,
            is_asked_for: false,
            unanswered: 0,
            needles: [Finder::new("-req\"")],
        }
    }

    fn ask_for_login(&mut self, is_asked_for: bool, out: &mut Steps) {
        self.login = LoginState::Asked { again: false };
        self.is_asked_for = is_asked_for;
        out.push(Step::NeedNonce);
    }

    /// A client's own `auth` or `unauth`.
    fn on_client_login(&mut self, message: &Message, scope: Scope, now: UnixMillis, out: &mut Steps) {
        let Ok(document) = json::read(message.payload()) else { return };
        let Some(event) = document.root().as_object() else { return };
        if event.get("event").and_then(Value::plain_str) == Some("unauth") {
            self.login = LoginState::Out;
            out.push(Step::ToUpstream(Message::text(r#"{"event":"unauth"}"#)));
            return;
        }
        let wish = Wish::read(event).within(scope);
        let is_too_soon = || self.relogged_in_at.is_some_and(|at| now.since(at) < RELOGIN_PAUSE);
        match (&self.success, self.login) {
            (Some(success), LoginState::In) if !wish.is_special() || wish == self.wish || is_too_soon() => {
                out.push(Step::ToClient(success.clone()));
            }
            (_, LoginState::In) => {
                // A socket logs in once; what the client wishes can only be had by a login of its own.
                out.push(Step::ToUpstream(Message::text(r#"{"event":"unauth"}"#)));
                self.awaits_logout = true;
                self.relogged_in_at = Some(now);
                self.wish = wish;
                self.ask_for_login(true, out);
            }
            _ => {
                self.wish = wish;
                self.ask_for_login(true, out);
            }
        }
    }

    /// The exchange's answer to our login. True: it was one, and the client does not see it.
    fn on_login_answer(&mut self, event: Object<'_>, out: &mut Steps) -> bool {
        let name = event.get("event").and_then(Value::plain_str);
        if name == Some("unauth") {
            return std::mem::take(&mut self.awaits_logout);
        }
        let LoginState::Sent { again } = self.login else { return false };
        match name {
            Some("auth") => {}
            // An event of ours that was not understood at all.
            Some("error") if event.get("code").and_then(Value::as_u64).is_some_and(is_login_error) => {}
            _ => return false,
        }
        let code = event.get("code").and_then(Value::as_u64);
        if event.get("status").and_then(Value::plain_str) == Some("OK") {
            self.login = LoginState::In;
            let success = self.wish.success(event, self.scope);
            self.success = Some(success.clone());
            out.extend([Step::LoginSettled(LoginOutcome::Accepted), Step::Ready, Step::ToClient(success)]);
        } else if code == Some(NONCE_SMALL) && !again {
            out.extend([Step::LoginSettled(LoginOutcome::NonceTooSmall), Step::NeedNonce]);
            self.login = LoginState::Asked { again: true };
        } else {
            let outcome = match code {
                Some(NONCE_SMALL) => LoginOutcome::NonceTooSmall,
                Some(code) if is_login_error(code) => LoginOutcome::Refused,
                // A filter that it does not take, a limit, its own trouble: nothing that speaks against the key.
                _ => LoginOutcome::Undecided,
            };
            out.push(Step::LoginSettled(outcome));
            if outcome == LoginOutcome::Undecided && self.is_asked_for {
                self.login = LoginState::Out;
                // What was refused is not asked for again by a message that needs any login at all.
                self.wish = Wish::default().within(self.scope);
                out.extend([Step::Ready, Step::ToClient(login::failure(event))]);
            } else {
                out.push(Step::LoginRefused);
            }
        }
        true
    }

    fn read_event(&self, event: Object<'_>) -> Reading {
        let mut reading = Reading::refused(Refusal::Unknown);
        let Some(name) = event.get("event").and_then(Value::plain_str) else {
            return reading;
        };
        if event.in_other_case(&["event", "channel", "filter", "dms", "calc", "subId"]) {
            return Reading::refused(Refusal::Malformed);
        }
        let has_credential =
            || event.members().any(|(name, _)| CREDENTIAL_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)));
        let act = match name {
            "auth" | "unauth" => {
                reading.operation = if name == "auth" { "auth" } else { "unauth" };
                if self.is_private {
                    reading.edit = Edit::Login;
                    // Either right needs the login; what it may carry is narrowed to them.
                    let act = if self.scope.holds(Right::Read) { Act::Read } else { Act::Cancel };
                    reading.acts = Ok(Acts::one(act));
                    if name == "auth" {
                        reading.shown = login::shown(event);
                    }
                }
                return reading;
            }
            "ping" => {
                reading.operation = "ping";
                reading.reply_to = event.get("cid").filter(|cid| cid.as_u64().is_some()).map(Value::span);
                Act::Public
            }
            "conf" => {
                reading.operation = "conf";
                Act::Public
            }
            "unsubscribe" => {
                reading.operation = "unsubscribe";
                Act::Public
            }
            "subscribe" => {
                reading.operation = "subscribe";
                let channel = event.get("channel").and_then(Value::plain_str);
                match channel.and_then(|channel| look_up(CHANNELS, channel)) {
                    Some((_, act)) => act,
                    None => return reading,
                }
            }
            _ => return reading,
        };
        reading.acts = if has_credential() { Err(Refusal::CredentialField) } else { Ok(Acts::one(act)) };
        reading
    }

    /// `[0,"<type>",null,<payload>]`.
    fn read_input(&self, input: Array<'_>) -> Reading {
        let mut reading = Reading::refused(Refusal::Unknown);
        let (Some(channel), Some(name), Some(payload)) = (input.get(0), input.get(1), input.get(3)) else {
            return Reading::refused(Refusal::Malformed);
        };
        if input.len() != 4 || channel.as_u64() != Some(0) {
            return Reading::refused(Refusal::Malformed);
        }
        let Some(name) = name.plain_str() else { return Reading::refused(Refusal::Malformed) };
        if !self.is_private {
            return reading;
        }
        if name == "ox_multi" {
            reading.operation = "ox_multi";
            reading.acts = batched(payload);
            reading.cancels = cancelled(name, payload);
            return reading;
        }
        let Some((operation, act)) = look_up(INPUTS, name) else { return reading };
        reading.operation = operation;
        reading.reply_to = payload
            .as_object()
            .and_then(|order| order.get("cid"))
            .filter(|cid| cid.as_u64().is_some())
            .map(Value::span);
        if act == Act::Cancel {
            reading.cancels = cancelled(operation, payload);
        }
        reading.acts = Ok(Acts::one(act));
        reading
    }
}

const NONCE_SMALL: u64 = 10_114;

/// 10100 and 10111 to 10114: every way in which a login is wrong.
fn is_login_error(code: u64) -> bool {
    code == 10_100 || (10_111..=NONCE_SMALL).contains(&code)
}

/// Everything that a batch does, operation by operation.
pub(super) fn batched(payload: Value<'_>) -> Result<Acts, Refusal> {
    let operations = payload.as_array().ok_or(Refusal::Malformed)?;
    if operations.len() > BATCH_MAX {
        return Err(Refusal::Malformed);
    }
    let mut acts = Acts::default();
    for operation in operations.iter() {
        let pair = operation.as_array().filter(|pair| pair.len() == 2).ok_or(Refusal::Malformed)?;
        let name = pair.get(0).and_then(Value::plain_str).ok_or(Refusal::Malformed)?;
        let (_, act) = look_up(BATCHED, name).ok_or(Refusal::Unknown)?;
        acts.add(act);
    }
    Ok(acts)
}

impl Dialect for Conversation {
    fn on_event(&mut self, event: Event, out: &mut Steps) {
        match event {
            Event::Opened { login, scope, .. } => {
                self.scope = scope;
                self.wish = Wish::default().within(scope);
                if login == Login::AtOnce && self.is_private {
                    self.ask_for_login(false, out);
                } else {
                    out.push(Step::Ready);
                }
            }
            Event::Risen { scope } => {
                self.scope = scope;
                self.wish = Wish::default().within(scope);
            }
            Event::Fresh { signer, fresh } => {
                let (Some(nonce), LoginState::Asked { again }) = (fresh.nonce, self.login) else { return };
                let (login, signature) = self.wish.sign(&signer, nonce);
                // The exchange's error events echo the fields of what they are about.
                out.push(Step::Guard(signer.expose_api_key().to_owned().into()));
                out.push(Step::Guard(signature));
                out.push(Step::ToUpstream(login));
                self.login = LoginState::Sent { again };
            }
            Event::NotFresh => self.login = LoginState::Out,
            Event::Wake(_) => {}
        }
    }

    /// By an `auth` event.
    fn takes_login(&self) -> bool {
        self.is_private
    }

    fn greet(&self, _now: UnixMillis, out: &mut Steps) {
        out.push(Step::ToClient(Message::text(
            r#"{"event":"info","version":2,"serverId":"countersign","platform":{"status":1}}"#,
        )));
    }

    fn pong(&self, message: &Message, reading: &Reading, now: UnixMillis, out: &mut Steps) {
        let cid = reading.id(message).map(|cid| format!(",\"cid\":{cid}")).unwrap_or_default();
        out.push(Step::ToClient(Message::text(format!(r#"{{"event":"pong","ts":{}{cid}}}"#, now.0))));
    }

    fn read(&self, message: &Message) -> Reading {
        if message.kind() == Kind::Binary {
            return Reading::refused(Refusal::Malformed);
        }
        let Ok(document) = json::read(message.payload()) else { return Reading::refused(Refusal::Malformed) };
        let root = document.root();
        match (root.as_object(), root.as_array()) {
            (Some(event), _) => self.read_event(event),
            (None, Some(input)) => self.read_input(input),
            (None, None) => Reading::refused(Refusal::Malformed),
        }
    }

    fn forward(&mut self, message: Message, reading: &Reading, scope: Scope, now: UnixMillis, out: &mut Steps) {
        self.scope = scope;
        if reading.edit == Edit::Login {
            return self.on_client_login(&message, scope, now, out);
        }
        let needs_login = reading.acts.is_ok_and(|acts| acts.iter().any(|act| act != Act::Public));
        if needs_login && self.login == LoginState::Out {
            self.ask_for_login(false, out);
            out.push(Step::Hold(message));
            return;
        }
        if reading.acts.is_ok_and(|acts| acts.iter().any(|act| act.right() == Right::Trade)) {
            self.unanswered += if reading.operation == "ox_multi" { operations(&message) } else { 1 };
        }
        out.push(Step::ToUpstream(message));
    }

    fn refuse(&self, message: &Message, reading: &Reading, why: Refusal, now: UnixMillis, out: &mut Steps) {
        let text = match why {
            Refusal::NotPermitted(right) => format!("not allowed: this client lacks the right {right}"),
            Refusal::Malformed => "invalid: not one unambiguous JSON message".to_owned(),
            Refusal::Unknown => "invalid: unknown to the proxy, and so not sent".to_owned(),
            Refusal::CredentialField => "invalid: a credential stands where none belongs".to_owned(),
            Refusal::NotAuthenticated => "apikey: invalid".to_owned(),
            Refusal::Replayed => "nonce: small".to_owned(),
        };
        match reading.operation {
            "auth" => {
                let code = if why == Refusal::Replayed { NONCE_SMALL } else { 10_100 };
                out.push(Step::ToClient(Message::text(format!(
                    r#"{{"event":"auth","status":"FAILED","chanId":0,"code":{code},"msg":"{text}","countersign":"{}"}}"#,
                    why.slug()
                ))));
            }
            "ox_multi" => refuse_batch(message, &text, now, out),
            operation if look_up(INPUTS, operation).is_some() && operation != "calc" => {
                let cid = reading.id(message).unwrap_or("null");
                out.push(Step::ToClient(notification(operation, cid, &text, now)));
            }
            operation => {
                let code = if operation == "subscribe" { 10_300 } else { 10_000 };
                out.push(Step::ToClient(Message::text(format!(
                    r#"{{"event":"error","msg":"{text}","code":{code},"countersign":"{}"}}"#,
                    why.slug()
                ))));
            }
        }
    }

    fn on_upstream(&mut self, message: Message, out: &mut Steps) {
        let Ok(document) = json::read(message.payload()) else { return out.push(Step::ToClient(message)) };
        let root = document.root();
        if let Some(event) = root.as_object() {
            if self.on_login_answer(event, out) {
                return;
            }
        } else if is_answer(root) {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        out.push(Step::ToClient(message));
    }

    fn watch(&self) -> Watch<'_> {
        match self.login {
            LoginState::Out | LoginState::In if self.unanswered == 0 => Watch::Nothing,
            LoginState::Out | LoginState::In => Watch::Needles(&self.needles),
            LoginState::Asked { .. } | LoginState::Sent { .. } => Watch::Everything,
        }
    }

    fn unanswered(&self) -> usize {
        self.unanswered
    }
}

/// How many operations a batch has: each is answered by itself.
fn operations(batch: &Message) -> usize {
    let count = |document: &json::Document<'_>| Some(document.root().as_array()?.get(3)?.as_array()?.len());
    json::read(batch.payload()).ok().as_ref().and_then(count).unwrap_or(1)
}

/// `[0,"n",[MTS,"on-req",…]]`: the exchange has taken an input or refused it.
fn is_answer(frame: Value<'_>) -> bool {
    let is_notification = |frame: Array<'_>| {
        let kind = frame.get(2)?.as_array()?.get(1)?.plain_str()?;
        let is_of_account = frame.get(0)?.as_u64() == Some(0) && frame.get(1)?.plain_str() == Some("n");
        Some(is_of_account && kind.ends_with("-req"))
    };
    frame.as_array().and_then(is_notification).unwrap_or(false)
}

/// A refusal as the exchange's own: a notification whose order carries the client's id.
fn notification(operation: &str, cid: &str, text: &str, now: UnixMillis) -> Message {
    Message::text(format!(
        r#"[0,"n",[{},"{operation}-req",null,null,[null,null,{cid}],null,"ERROR","countersign: {text}"]]"#,
        now.0
    ))
}

/// A batch is refused whole; whoever waits for one of its operations hears of it.
fn refuse_batch(message: &Message, text: &str, now: UnixMillis, out: &mut Steps) {
    let Ok(document) = json::read(message.payload()) else { return };
    let operations = document.root().as_array().and_then(|input| input.get(3)).and_then(Value::as_array);
    let known = operations.into_iter().flat_map(Array::iter).take(BATCH_MAX).filter_map(|pair| {
        let pair = pair.as_array()?;
        let (operation, _) = look_up(BATCHED, pair.get(0)?.plain_str()?)?;
        let cid = pair.get(1).and_then(Value::as_object).and_then(|order| order.get("cid"));
        Some((operation, cid.filter(|cid| cid.as_u64().is_some())))
    });
    let before = out.len();
    for (operation, cid) in known {
        let cid = cid.and_then(|cid| std::str::from_utf8(cid.raw()).ok()).unwrap_or("null");
        out.push(Step::ToClient(notification(operation, cid, text, now)));
    }
    if out.len() == before {
        out.push(Step::ToClient(notification("ox_multi", "null", text, now)));
    }
}
