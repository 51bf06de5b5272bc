//! One conversation with a hub: SignalR's JSON protocol, whose handshakes and pings are each leg's own.
//!
//! The upgrade carried the token, so there is no login here: we shake hands with the exchange, then the client with us.
//! A server never speaks first, so what the exchange says before that waits. A client's records are written anew from
//! what was read of them; the exchange's pass byte for byte, whole.
//!
//! Sources: gateway.docs.projectx.com, "Real time data"; `HubProtocol.md` of ASP.NET Core.

#[cfg(test)]
mod tests;

use super::acts::{self, Hub, Takes};
use super::narrow::{self, Narrowed};
use crate::fresh::UnixMillis;
use crate::message::{Kind, Message};
use crate::scope::{Act, Acts, Scope};
use crate::venue::wire::json::{self, Value};
use crate::venue::wire::signalr::{self, Handshake, Invocation, Record, Unfit};
use crate::venue::{Dialect, Edit, Event, Reading, Refusal, Step, Steps, Watch};
use bytes::Bytes;
use memchr::memmem::Finder;
use std::sync::Arc;
use std::time::Duration;

/// Longest message of a client in bytes: what a hub takes (`MaximumReceiveMessageSize` of ASP.NET Core).
const CLIENT_BYTES_MAX: usize = 32 * 1024;

/// Each leg hears from us that often. Both ends give a connection up after 30 s of silence, by the defaults of ASP.NET
/// Core and of its client.
const PING_EVERY: Duration = Duration::from_secs(15);

/// How long a client may take for its handshake: what ASP.NET Core gives its own (`HandshakeTimeout`). One that has not
/// shaken hands is sent nothing, and would otherwise keep a socket of the account's for as long as it likes.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);

/// What the framework says to a client that took longer.
const CANCELED: &str = "{\"error\":\"Handshake was canceled.\"}\u{1e}";

/// Messages of the exchange that wait for the client's handshake. Before a subscription it has nothing to say.
const EARLY_MAX: usize = 64;

/// Bytes of a record that the exchange has begun and not ended with its message. It does not split records; a client
/// that gets a part of one is lost (signalrcore, pysignalr).
const PART_BYTES_MAX: usize = 1024 * 1024;

/// Documented contracts have some 20 characters.
const CONTRACT_BYTES_MAX: usize = 64;

/// The operation of a message that holds the client's handshake.
const HANDSHAKE: &str = "handshake";

pub(super) struct Conversation {
    hub: Hub,
    /// The exchange has answered our handshake.
    is_open: bool,
    /// The client has shaken hands.
    is_shaken: bool,
    early: Vec<Message>,
    /// The beginning of a record of the exchange.
    part: Vec<u8>,
    pings_at: Option<UnixMillis>,
    /// Until then the client has to have shaken hands, if it has not.
    handshake_by: Option<UnixMillis>,
    /// The trading accounts that the client may see. `None`: all.
    allowed: Option<Arc<[u64]>>,
    needles: [Finder<'static>; 3],
}

impl Conversation {
    pub(super) fn new(hub: Hub) -> Self {
        Self {
            hub,
            is_open: false,
            is_shaken: false,
            early: Vec::new(),
            part: Vec::new(),
            pings_at: None,
            handshake_by: None,
            allowed: None,
            // As the exchange writes them. Depth data have a `type` of 6 as well, and not in the first place.
            needles: ["{\"type\":6}", "{\"type\":7", LOGOUT].map(Finder::new),
        }
    }

    /// The accounts to which this hub's data have to be narrowed. Market data are nobody's.
    fn narrowed_to(&self) -> Option<&[u64]> {
        self.allowed.as_deref().filter(|_| self.hub == Hub::User)
    }

    /// The whole records of the exchange so far; the rest waits for its end. `None`: there is too much of it.
    fn rejoined(&mut self, message: Message) -> Option<Bytes> {
        let mut payload = message.into_payload();
        if !self.part.is_empty() {
            self.part.extend_from_slice(&payload);
            payload = std::mem::take(&mut self.part).into();
        }
        let (_, part) = signalr::split(&payload);
        if part.len() > PART_BYTES_MAX {
            return None;
        }
        self.part = part.to_vec();
        payload.truncate(payload.len() - self.part.len());
        Some(payload)
    }

    /// What becomes of one record of the exchange, or the step that ends the conversation.
    fn judge(&mut self, record: &[u8], out: &mut Steps) -> Result<Narrowed, Step> {
        let document = json::read(record);
        if !self.is_open {
            check_welcome(document.map_err(|_| Step::ProtocolBroken)?.root())?;
            self.is_open = true;
            out.push(Step::Ready);
            return Ok(Narrowed::Dropped);
        }
        let root = match &document {
            Ok(document) => document.root(),
            // To be left out it would have to be understood.
            Err(_) if self.narrowed_to().is_some() => return Err(Step::ProtocolBroken),
            Err(_) => return Ok(Narrowed::Kept),
        };
        let member = |name| root.as_object().and_then(|record| record.get(name));
        match (member("type").and_then(Value::as_u64), member("target").and_then(Value::plain_str)) {
            (Some(PING), _) => return Ok(Narrowed::Dropped),
            // It takes nothing any more.
            (Some(CLOSE), _) => self.pings_at = None,
            (Some(INVOCATION), Some(LOGOUT)) => {
                out.push(Step::TokenEnded);
                return Ok(Narrowed::Kept);
            }
            _ => {}
        }
        Ok(self.narrowed_to().map_or(Narrowed::Kept, |allowed| narrow::record(root, allowed)))
    }

    /// Reads a client's records, each of which has to be one that may be judged.
    fn read_records(&self, payload: &[u8], found: &mut Found) -> Result<(), Refusal> {
        if payload.len() > CLIENT_BYTES_MAX {
            return Err(Refusal::Malformed);
        }
        let (records, part) = signalr::split(payload);
        if !part.is_empty() || records.clone().next().is_none() {
            return Err(Refusal::Malformed);
        }
        for (index, record) in records.enumerate() {
            let document = json::read(record).map_err(|_| Refusal::Malformed)?;
            if index == 0 && !self.is_shaken {
                match Handshake::read(document.root())? {
                    Handshake::Json => found.acts.add(Act::Public),
                    Handshake::Other => return Err(Refusal::Unknown),
                }
            } else {
                found.take(self.hub, Record::read(document.root())?)?;
            }
        }
        Ok(())
    }
}

/// Types of the exchange's records.
const INVOCATION: u64 = 1;
const PING: u64 = 6;
const CLOSE: u64 = 7;

/// The event by which the venue ends a token. Its arguments are not documented.
const LOGOUT: &str = "GatewayLogout";

/// Reads the exchange's answer to our handshake: an empty object, or one that says why not.
fn check_welcome(root: Value<'_>) -> Result<(), Step> {
    let answer = root.as_object().filter(|answer| answer.get("type").is_none()).ok_or(Step::ProtocolBroken)?;
    let is_refused = answer.get("error").is_some_and(|error| !error.is_null());
    if is_refused { Err(Step::LoginRefused) } else { Ok(()) }
}

impl From<Unfit> for Refusal {
    fn from(why: Unfit) -> Self {
        match why {
            Unfit::Malformed => Self::Malformed,
            Unfit::Unknown => Self::Unknown,
        }
    }
}

/// What the records of one message do together.
struct Found {
    operation: &'static str,
    acts: Acts,
    sub_accounts: Vec<u64>,
    rebuilt: Vec<u8>,
}

impl Found {
    fn take(&mut self, hub: Hub, record: Record<'_>) -> Result<(), Refusal> {
        match record {
            Record::Invocation(invocation) => self.take_invocation(hub, invocation),
            // Each leg has its own.
            Record::Ping => {
                self.acts.add(Act::Public);
                self.name("ping");
                Ok(())
            }
            Record::Close => {
                self.acts.add(Act::Public);
                self.name("close");
                self.rebuilt.extend_from_slice(signalr::CLOSE.as_bytes());
                Ok(())
            }
        }
    }

    fn take_invocation(&mut self, hub: Hub, invocation: Invocation<'_>) -> Result<(), Refusal> {
        let (name, takes) = acts::method(hub, invocation.target).ok_or(Refusal::Unknown)?;
        self.name(name);
        self.sub_accounts.extend(judge_arguments(takes, invocation)?);
        self.acts.add(Act::Read);
        invocation.write(name, &mut self.rebuilt);
        Ok(())
    }

    /// The first operation names the message, unless it is only a ping.
    fn name(&mut self, operation: &'static str) {
        if matches!(self.operation, "" | "ping") {
            self.operation = operation;
        }
    }
}

/// Checks what a method is called with. The account's id, where it has one.
fn judge_arguments(takes: Takes, invocation: Invocation<'_>) -> Result<Option<u64>, Refusal> {
    let mut arguments = invocation.arguments.iter();
    let (first, second) = (arguments.next(), arguments.next());
    if second.is_some() {
        return Err(Refusal::Malformed);
    }
    match (takes, first) {
        (Takes::Nothing | Takes::AccountOrNothing, None) => Ok(None),
        (Takes::Account | Takes::AccountOrNothing, Some(id)) => id.as_u64().map(Some).ok_or(Refusal::Malformed),
        // Nothing else that a client writes may reach the exchange by this way.
        (Takes::Contract, Some(id)) if id.plain_str().is_some_and(is_contract) => Ok(None),
        (Takes::Nothing | Takes::Contract, Some(_)) | (Takes::Account | Takes::Contract, None) => {
            Err(Refusal::Malformed)
        }
    }
}

/// The id of a contract, like `CON.F.US.EP.U25`.
fn is_contract(id: &str) -> bool {
    (1..=CONTRACT_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Dialect for Conversation {
    fn on_event(&mut self, event: Event, out: &mut Steps) {
        match event {
            Event::Opened { sub_accounts, now, .. } => {
                self.allowed = sub_accounts;
                self.pings_at = Some(now.plus(PING_EVERY));
                self.handshake_by = Some(now.plus(HANDSHAKE_LIMIT));
                out.push(Step::ToUpstream(Message::text(signalr::HANDSHAKE)));
            }
            Event::Wake(now) if self.handshake_by.is_some_and(|by| by <= now) => {
                if self.is_open {
                    out.push(Step::ToClient(Message::text(CANCELED)));
                    return out.push(Step::ClientIdle);
                }
                // Its handshake may be here, and is read when the exchange has answered ours.
                self.handshake_by = Some(now.plus(HANDSHAKE_LIMIT));
            }
            Event::Wake(now) => {
                self.pings_at = self.pings_at.map(|_| now.plus(PING_EVERY));
                // Nothing may come before a handshake.
                if self.is_open {
                    out.push(Step::ToUpstream(Message::text(signalr::PING)));
                }
                if self.is_shaken {
                    out.push(Step::ToClient(Message::text(signalr::PING)));
                }
            }
            Event::Risen { .. } | Event::Fresh { .. } | Event::NotFresh => {}
        }
    }

    fn read(&self, message: &Message) -> Reading {
        if message.kind() == Kind::Binary {
            return Reading::refused(Refusal::Malformed);
        }
        let operation = if self.is_shaken { "" } else { HANDSHAKE };
        let mut found = Found { operation, acts: Acts::default(), sub_accounts: Vec::new(), rebuilt: Vec::new() };
        let outcome = self.read_records(message.payload(), &mut found);
        if outcome == Err(Refusal::Unknown) && self.is_shaken {
            found.operation = "";
        }
        Reading {
            operation: found.operation,
            acts: outcome.map(|()| found.acts),
            sub_accounts: found.sub_accounts,
            edit: Edit::Rebuilt(Message::from_peer(Kind::Text, found.rebuilt.into())),
            ..Reading::refused(Refusal::Unknown)
        }
    }

    fn forward(&mut self, message: Message, reading: &Reading, _scope: Scope, _now: UnixMillis, out: &mut Steps) {
        if reading.operation == HANDSHAKE {
            self.is_shaken = true;
            self.handshake_by = None;
            out.push(Step::ToClient(Message::text(signalr::SHAKEN)));
            out.extend(self.early.drain(..).map(Step::ToClient));
        }
        out.extend(reading.edit.apply(&message, None).map(Step::ToUpstream));
    }

    /// A message is refused whole; whoever waits for an answer to one of its records hears of it.
    fn refuse(&self, message: &Message, reading: &Reading, why: Refusal, _now: UnixMillis, out: &mut Steps) {
        if reading.operation == HANDSHAKE {
            let text = "{\"error\":\"The proxy takes the protocol 'json' alone, after a login.\"}\u{1e}";
            return out.push(Step::ToClient(Message::text(text)));
        }
        if message.len() > CLIENT_BYTES_MAX {
            return;
        }
        let text = match why {
            Refusal::NotPermitted(right) => format!("denied by local policy: this client lacks the right {right}"),
            Refusal::Malformed => "not a record that the proxy can judge, and so not sent".to_owned(),
            Refusal::Unknown => "unknown to the proxy, and so not sent".to_owned(),
            Refusal::CredentialField | Refusal::NotAuthenticated | Refusal::Replayed => {
                "denied by local policy".to_owned()
            }
        };
        let mut failures = Vec::new();
        for record in signalr::split(message.payload()).0 {
            let Ok(document) = json::read(record) else { continue };
            if let Some(id) = Record::id(document.root()) {
                failures.extend(signalr::failure(id, &text));
            }
        }
        if !failures.is_empty() {
            out.push(Step::ToClient(Message::from_peer(Kind::Text, failures.into())));
        }
    }

    fn on_upstream(&mut self, message: Message, out: &mut Steps) {
        if message.kind() == Kind::Binary {
            return out.push(Step::ProtocolBroken);
        }
        let Some(payload) = self.rejoined(message) else { return out.push(Step::ProtocolBroken) };
        let mut passed = Passed { payload: &payload, at: 0, edited: None };
        for record in signalr::split(&payload).0 {
            match self.judge(record, out) {
                Ok(narrowed) => passed.take(record.len() + 1, narrowed),
                Err(end) => return out.push(end),
            }
        }
        let passed = passed.into_bytes();
        if passed.is_empty() {
            return;
        }
        let message = Message::from_peer(Kind::Text, passed);
        if self.is_shaken {
            out.push(Step::ToClient(message));
        } else if self.early.len() < EARLY_MAX {
            self.early.push(message);
        } else {
            out.push(Step::ProtocolBroken);
        }
    }

    fn watch(&self) -> Watch<'_> {
        let passes = self.is_open && self.is_shaken && self.part.is_empty() && self.narrowed_to().is_none();
        if passes { Watch::Needles(&self.needles) } else { Watch::Everything }
    }

    fn wakes_at(&self) -> Option<UnixMillis> {
        self.pings_at.into_iter().chain(self.handshake_by).min()
    }
}

/// What is left of a message of the exchange. Copied only once something is left out.
struct Passed<'a> {
    payload: &'a Bytes,
    at: usize,
    edited: Option<Vec<u8>>,
}

impl Passed<'_> {
    /// Takes the next record, which has `length` bytes with its separator.
    fn take(&mut self, length: usize, narrowed: Narrowed) {
        let (start, end) = (self.at, self.at + length);
        self.at = end;
        match (narrowed, &mut self.edited) {
            (Narrowed::Kept, None) => {}
            (Narrowed::Kept, Some(edited)) => edited.extend_from_slice(&self.payload[start..end]),
            (Narrowed::Dropped, edited) => {
                edited.get_or_insert_with(|| self.payload[..start].to_vec());
            }
            (Narrowed::Replaced(record), edited) => {
                let edited = edited.get_or_insert_with(|| self.payload[..start].to_vec());
                edited.extend_from_slice(&record);
                edited.push(signalr::SEPARATOR);
            }
        }
    }

    fn into_bytes(self) -> Bytes {
        self.edited.map_or_else(|| self.payload.clone(), Bytes::from)
    }
}
