//! One connection to a hub of the simulated ProjectX: SignalR's JSON protocol over a WebSocket.
//!
//! Written from ASP.NET Core's "Hub Protocol" and its server: methods are found in any case, unknown members are
//! skipped, of a member that stands twice the last counts. What a proxy should have mended is a verdict.

use super::feed::{self, Channel, RECORD_END, Socket};
use super::{Hub, ProjectX, market};
use crate::simulator::frame::Incoming;
use crate::simulator::json::{self, Unreadable};
use crate::simulator::socket::{Conversation, Outbox};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a client may take for its handshake (learn.microsoft.com, "ASP.NET Core SignalR configuration").
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);
/// The longest message (the same page, `MaximumReceiveMessageSize`).
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// What the framework tells a client whose record it cannot read, without the details that it keeps to itself.
const BROKEN: &str = "Connection closed with an error.";

/// The members that a record of a proxy has.
const MEMBERS: [&str; 4] = ["type", "target", "arguments", "invocationId"];

/// One peer.
pub(super) struct HubConversation {
    projectx: Arc<ProjectX>,
    connection: u64,
    hub: Hub,
    user: String,
    token: String,
    outbox: Outbox,
    opened_at: Instant,
    is_greeted: bool,
    is_over: bool,
    /// The start of a record whose end has not come yet.
    rest: String,
}

impl HubConversation {
    pub(super) fn new(
        projectx: Arc<ProjectX>,
        connection: u64,
        hub: Hub,
        (user, token): (String, String),
        outbox: Outbox,
    ) -> Self {
        let (opened_at, rest) = (Instant::now(), String::new());
        Self { projectx, connection, hub, user, token, outbox, opened_at, is_greeted: false, is_over: false, rest }
    }

    fn verdict(&self, text: impl Into<String>) {
        self.projectx.record.verdict(self.connection, text);
    }

    fn with_socket<T>(&self, act: impl FnOnce(&mut Socket) -> T) -> Option<T> {
        self.projectx.state().sockets.get_mut(&self.connection).map(act)
    }

    fn end(&mut self, error: Option<&str>) {
        self.is_over = true;
        self.with_socket(|socket| socket.end(error, false));
    }

    fn refuse_handshake(&mut self, error: &str) {
        self.is_over = true;
        self.verdict(format!("handshake: {error}"));
        self.outbox.text(feed::record(&json!({"error": error})));
        self.outbox.close(1000, "");
    }

    fn handshake(&mut self, text: &str) {
        let Ok(Value::Object(request)) = json::read(text.as_bytes()) else {
            return self.refuse_handshake("An unexpected error occurred during connection handshake.");
        };
        let protocol = request.get("protocol").and_then(Value::as_str).unwrap_or_default();
        if protocol != "json" {
            return self.refuse_handshake(&format!("Requested protocol '{protocol}' is not available."));
        }
        let switches = self.projectx.faults.switches();
        let is_strict = switches.strict_handshake || self.projectx.expects_a_proxy;
        let is_supported = match request.get("version").and_then(Value::as_i64) {
            Some(1) => true,
            // Newer servers take any version up to their own.
            Some(version) => !is_strict && version <= 2,
            None => false,
        };
        if !is_supported {
            return self.refuse_handshake("The server does not support this version of the 'json' protocol.");
        }
        if self.projectx.expects_a_proxy && request.len() > 2 {
            self.verdict("handshake: members beside protocol and version");
        }
        self.is_greeted = true;
        let mut state = self.projectx.state();
        let Some(socket) = state.sockets.get_mut(&self.connection) else { return };
        socket.is_greeted = true;
        let mut told = feed::record(&json!({}));
        if switches.coalesced_handshake
            && let Some(socket) = state.sockets.get(&self.connection)
        {
            told.push_str(&state.first_event(socket, switches.unwrapped_events));
        }
        self.outbox.text(told);
    }

    fn record(&mut self, text: &str) {
        let record = match (json::read(text.as_bytes()), serde_json::from_str(text)) {
            (Ok(Value::Object(record)), _) => record,
            (Err(Unreadable::Duplicate), Ok(Value::Object(last_wins))) => {
                self.verdict("hub: duplicate member");
                last_wins
            }
            _ => {
                self.verdict("hub: malformed record");
                return self.end(Some(BROKEN));
            }
        };
        self.judge(&record);
        match record.get("type").and_then(Value::as_i64) {
            Some(1) => self.invocation(&record),
            Some(4) => {
                self.verdict("hub: a stream was invoked");
                let target = record.get("target").and_then(Value::as_str).unwrap_or_default();
                let error = match self.channel(target) {
                    Some(_) => format!(
                        "The client attempted to invoke the non-streaming '{target}' method with a streaming invocation."
                    ),
                    None => format!("Unknown hub method '{target}'"),
                };
                self.complete(&record, Some(&error));
            }
            Some(6) => {}
            Some(7) => {
                self.is_over = true;
                self.outbox.close(1000, "");
            }
            Some(kind @ (2 | 3 | 5 | 8 | 9)) => self.verdict(format!("hub: a record of type {kind}")),
            // "Unknown message types are ignored", says the protocol.
            Some(kind) => self.verdict(format!("hub: a record of unknown type {kind}")),
            None => {
                self.verdict("hub: a record without type");
                self.end(Some(BROKEN));
            }
        }
    }

    /// What of a record should not have come from a proxy, or from anybody.
    fn judge(&self, record: &Map<String, Value>) {
        for name in record.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
            if self.projectx.expects_a_proxy || ["headers", "streamIds"].contains(&name.as_str()) {
                self.verdict(format!("hub: member {name}"));
            }
        }
    }

    /// The channel of a method, and whether it is to be subscribed.
    fn channel(&self, target: &str) -> Option<(Channel, bool)> {
        let target = target.to_ascii_lowercase();
        let (name, is_wanted) = match (target.strip_prefix("subscribe"), target.strip_prefix("unsubscribe")) {
            (Some(name), _) => (name, true),
            (None, name) => (name?, false),
        };
        Some((Channel::named(self.hub, name)?, is_wanted))
    }

    fn invocation(&mut self, record: &Map<String, Value>) {
        let (Some(target), Some(arguments)) =
            (record.get("target").and_then(Value::as_str), record.get("arguments").and_then(Value::as_array))
        else {
            self.verdict("hub: an invocation without target or arguments");
            return self.end(Some(BROKEN));
        };
        let Some((channel, is_wanted)) = self.channel(target) else {
            self.verdict(format!("hub: unknown method {target}"));
            return self.complete(record, Some(&format!("Unknown hub method '{target}'")));
        };
        let Some(subject) = self.subject(channel, arguments) else {
            self.verdict("hub: arguments that do not fit");
            let error = format!("Failed to invoke '{target}' due to an error on the server.");
            return self.complete(record, Some(&error));
        };
        self.with_socket(|socket| {
            let subscription = (channel, subject.clone());
            if is_wanted {
                socket.subscriptions.insert(subscription);
            } else {
                socket.subscriptions.remove(&subscription);
            }
        });
        self.complete(record, None);
        // A subscriber to quotes gets all of one first, and then what changes.
        if is_wanted && channel == Channel::Quotes {
            let contract = market::find(&subject);
            let quote = contract.map(|contract| json!([subject, contract.quote(self.projectx.clock.now())]));
            if let Some(quote) = quote {
                self.outbox.text(feed::event("GatewayQuote", &quote));
            }
        }
    }

    /// What a subscription is about, if the arguments fit the method.
    fn subject(&self, channel: Channel, arguments: &[Value]) -> Option<String> {
        match (channel, arguments) {
            // With an argument too: one library passes the account to `UnsubscribeAccounts`.
            (Channel::Accounts, [] | [_]) => Some(String::new()),
            (Channel::Orders | Channel::Positions | Channel::Trades, [account]) => {
                let account = account.as_i64()?;
                let is_owned = self.projectx.state().owns(&self.user, account);
                if !is_owned {
                    self.verdict("hub: an account of somebody else");
                }
                is_owned.then(|| account.to_string())
            }
            (Channel::Quotes | Channel::ContractTrades | Channel::Depth, [contract]) => {
                contract.as_str().map(str::to_owned)
            }
            (_, _) => None,
        }
    }

    /// Answers an invocation, if it asks for an answer.
    fn complete(&self, record: &Map<String, Value>, error: Option<&str>) {
        let Some(id) = record.get("invocationId").and_then(Value::as_str) else { return };
        let mut told = json!({"type": 3, "invocationId": id});
        match error {
            Some(error) => told["error"] = json!(error),
            None => told["result"] = Value::Null,
        }
        self.outbox.text(feed::record(&told));
    }
}

impl Conversation for HubConversation {
    fn opened(&mut self) {
        let socket = Socket {
            outbox: self.outbox.clone(),
            user: self.user.clone(),
            token: self.token.clone(),
            is_greeted: false,
            subscriptions: BTreeSet::new(),
        };
        self.projectx.state().sockets.insert(self.connection, socket);
    }

    fn text(&mut self, text: &str) {
        self.projectx.judge_bytes(self.connection, "a hub's record", text.as_bytes());
        if text.len() > MESSAGE_BYTES_MAX {
            self.verdict("hub: a message too long");
            return self.end(Some(BROKEN));
        }
        let whole = std::mem::take(&mut self.rest) + text;
        let mut records: Vec<&str> = whole.split(RECORD_END).collect();
        self.rest = records.pop().unwrap_or_default().to_owned();
        if !self.rest.is_empty() && self.projectx.expects_a_proxy {
            self.verdict("hub: a message that ends within a record");
        }
        for record in records {
            if self.is_over {
                return;
            }
            if self.is_greeted { self.record(record) } else { self.handshake(record) }
        }
    }

    fn beat(&mut self) {
        if self.is_greeted {
            self.outbox.text(feed::record(&json!({"type": 6})));
        } else if self.opened_at.elapsed() >= HANDSHAKE_LIMIT && !self.is_over {
            self.refuse_handshake("Handshake was canceled.");
        }
    }

    fn is_subscribed(&self) -> bool {
        self.with_socket(|socket| !socket.subscriptions.is_empty()).unwrap_or_default()
    }

    fn may_idle(&self) -> bool {
        false
    }

    /// The framework's timeout does not see what WebSockets do among themselves.
    fn is_traffic(&self, incoming: &Incoming) -> bool {
        matches!(incoming, Incoming::Text(_) | Incoming::Binary(_))
    }

    fn filler(&self, bytes: usize) -> String {
        feed::event("GatewayTrade", &json!(["CON.F.US.EP.Z26", [{"filler": "x".repeat(bytes.saturating_sub(96))}]]))
    }

    /// With the bearer, which the record should not have had.
    fn echo(&self, text: &str) -> String {
        let text = text.trim_end_matches(RECORD_END);
        feed::record(&json!({"type": 3, "invocationId": "0", "error": format!("{text} {}", self.token)}))
    }

    fn closed(&mut self) {
        let mut state = self.projectx.state();
        state.sockets.remove(&self.connection);
        state.negotiated.release(self.connection);
    }
}
