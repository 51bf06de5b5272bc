//! The simulated Kraken's WebSocket v2: status, ping, subscriptions, and who may do what. Orders are in `v2_orders`.

use super::{Channel, Door, Kraken, Listener, TokenRefused, market, v2_orders};
use crate::fresh::UnixMillis;
use crate::simulator::clock::rfc3339;
use crate::simulator::json::{self, Unreadable};
use crate::simulator::socket::{Conversation, Outbox};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The engine rate counter's limit that `executions` tells (docs.kraken.com, "Spot trading rate limits", intermediate).
const RATE_COUNT_MAX: u32 = 125;
/// Public subscriptions of one socket.
const SUBSCRIPTIONS_MAX: usize = 1000;

pub(super) struct V2 {
    kraken: Arc<Kraken>,
    connection: u64,
    door: Door,
    outbox: Outbox,
    public: BTreeSet<(String, String)>,
}

/// Why a request is refused.
pub(super) struct Failure {
    error: String,
    is_session: bool,
}

impl<T: Into<String>> From<T> for Failure {
    fn from(error: T) -> Self {
        Self { error: error.into(), is_session: false }
    }
}

impl V2 {
    pub(super) fn new(kraken: Arc<Kraken>, connection: u64, door: Door, outbox: Outbox) -> Self {
        Self { kraken, connection, door, outbox, public: BTreeSet::new() }
    }

    fn request(&mut self, method: &str, request: &Map<String, Value>, time_in: UnixMillis) {
        let empty = Map::new();
        let params = match request.get("params") {
            None => &empty,
            Some(Value::Object(params)) => params,
            Some(_) => return self.failure(method, request, time_in, "EGeneral:Invalid arguments:params"),
        };
        match method {
            "ping" => self.pong(request, time_in),
            "subscribe" | "unsubscribe" => self.channel(method, params, request, time_in),
            _ if v2_orders::is_method(method) => self.order(method, params, request, time_in),
            _ => {
                self.verdict("method: unknown");
                self.failure(method, request, time_in, "EGeneral:Unknown method");
            }
        }
    }

    fn pong(&self, request: &Map<String, Value>, time_in: UnixMillis) {
        let mut pong = json!({"method": "pong", "time_in": rfc3339(time_in), "time_out": self.now()});
        copy_req_id(request, &mut pong);
        self.outbox.json(&pong);
    }

    fn channel(
        &mut self,
        method: &str,
        params: &Map<String, Value>,
        request: &Map<String, Value>,
        time_in: UnixMillis,
    ) {
        let channel = params.get("channel").and_then(Value::as_str).unwrap_or_default().to_owned();
        let private = match channel.as_str() {
            "executions" => Channel::Executions,
            "balances" => Channel::Balances,
            _ => return self.public_channel(method, &channel, params, request, time_in),
        };
        let listening = match self.token(params) {
            Ok(api_key) if method == "subscribe" => self.listen(private, &api_key, params),
            Ok(_) => {
                if self.kraken.state().unlisten(self.connection, private) {
                    Ok(json!({"channel": channel}))
                } else {
                    Err("Subscription Not Found".into())
                }
            }
            Err(failure) => Err(failure),
        };
        match listening {
            Err(failure) => self.failure(method, request, time_in, failure),
            Ok(result) => {
                self.success(method, request, time_in, &result);
                if method == "subscribe" {
                    self.snapshot(private, params);
                }
            }
        }
    }

    fn listen(&self, channel: Channel, api_key: &str, params: &Map<String, Value>) -> Result<Value, Failure> {
        let mut state = self.kraken.state();
        if !state.keys.get(api_key).is_some_and(|held| held.key.permissions.read) {
            return Err("EGeneral:Permission denied".into());
        }
        if state.is_listening(self.connection, channel) {
            return Err("Already subscribed".into());
        }
        let (api_key, outbox) = (api_key.to_owned(), self.outbox.clone());
        // The snapshot is number one.
        state.listeners.push(Listener { connection: self.connection, api_key, channel, sequence: 2, outbox });
        let is_asked = |name: &str, default: bool| params.get(name).and_then(Value::as_bool).unwrap_or(default);
        Ok(match channel {
            Channel::Executions => json!({
                "channel": "executions", "maxratecount": RATE_COUNT_MAX, "snap_orders": is_asked("snap_orders", true),
                "snap_trades": is_asked("snap_trades", false),
            }),
            _ => json!({"channel": channel.name(), "snapshot": is_asked("snapshot", true)}),
        })
    }

    fn snapshot(&self, channel: Channel, params: &Map<String, Value>) {
        let state = self.kraken.state();
        let mine = state.listeners.iter().find(|l| l.connection == self.connection && l.channel == channel);
        let Some(held) = mine.and_then(|listener| state.keys.get(&listener.api_key)) else { return };
        let is_asked = |name: &str, default: bool| params.get(name).and_then(Value::as_bool).unwrap_or(default);
        let data = match channel {
            Channel::Executions => {
                let orders = held.account.open.iter().filter(|_| is_asked("snap_orders", true));
                let orders = orders.map(|order| v2_orders::execution(order.status.name(), order, order.opened_at));
                let trades = held.account.trades.iter().rev().take(50).filter(|_| is_asked("snap_trades", false));
                orders.chain(trades.map(v2_orders::trade)).collect::<Vec<_>>()
            }
            _ if !is_asked("snapshot", true) => return,
            _ => held.account.balances.iter().map(|(asset, amount)| v2_orders::balance(asset, *amount)).collect(),
        };
        self.outbox.json(&json!({"channel": channel.name(), "type": "snapshot", "data": data, "sequence": 1}));
    }

    fn public_channel(
        &mut self,
        method: &str,
        channel: &str,
        params: &Map<String, Value>,
        request: &Map<String, Value>,
        time_in: UnixMillis,
    ) {
        if params.contains_key("token") {
            self.verdict("token: in a public message");
        }
        if self.door == Door::Private {
            let error = "Public market data subscriptions are unavailable on this endpoint. Try ws.kraken.com";
            return self.failure(method, request, time_in, error);
        }
        if channel == "instrument" {
            self.success(method, request, time_in, &json!({"channel": channel}));
            if method == "subscribe" {
                self.public.insert((channel.to_owned(), String::new()));
                self.outbox.json(&market::instruments());
            }
            return;
        }
        let symbols = params.get("symbol").and_then(Value::as_array).cloned().unwrap_or_default();
        if symbols.is_empty() {
            return self.failure(method, request, time_in, "EGeneral:Invalid arguments:symbol");
        }
        for symbol in symbols.iter().filter_map(Value::as_str) {
            let key = (channel.to_owned(), symbol.to_owned());
            let now = self.kraken.clock.now();
            let message = market::pair(symbol).map(|pair| market::v2(channel, pair, "snapshot", now));
            match message {
                None => {
                    let error = format!("Currency pair not supported {symbol}");
                    self.failure(method, request, time_in, error);
                }
                Some(None) => {
                    self.failure(method, request, time_in, format!("Channel not supported {channel}"));
                }
                Some(Some(message)) => {
                    let is_changed = if method == "subscribe" {
                        self.public.len() < SUBSCRIPTIONS_MAX && self.public.insert(key)
                    } else {
                        self.public.remove(&key)
                    };
                    if !is_changed {
                        let error = if method == "subscribe" { "Already subscribed" } else { "Subscription Not Found" };
                        self.failure(method, request, time_in, error);
                        continue;
                    }
                    self.success(method, request, time_in, &json!({"channel": channel, "symbol": symbol}));
                    if method == "subscribe" && params.get("snapshot") != Some(&Value::Bool(false)) {
                        self.outbox.text(message);
                    }
                }
            }
        }
    }

    fn order(&self, method: &str, params: &Map<String, Value>, request: &Map<String, Value>, time_in: UnixMillis) {
        let api_key = match self.token(params) {
            Ok(api_key) => api_key,
            Err(failure) => return self.failure(method, request, time_in, failure),
        };
        let switches = self.kraken.faults.switches();
        let mut state = self.kraken.state();
        let Some(held) = state.keys.get_mut(&api_key) else { return };
        if switches.rate_limited {
            return self.failure(method, request, time_in, "EOrder:Rate limit exceeded");
        }
        if !held.key.permissions.trade {
            self.verdict("permission: trade is missing");
            return self.failure(method, request, time_in, "EGeneral:Permission denied");
        }
        let now = self.kraken.clock.now();
        for outcome in v2_orders::execute(&mut held.account, method, params, now) {
            match outcome {
                Ok(result) => self.success(method, request, time_in, &result),
                Err(error) => self.failure(method, request, time_in, error),
            }
        }
        state.publish(&api_key, now);
    }

    /// The key behind the request's token.
    fn token(&self, params: &Map<String, Value>) -> Result<String, Failure> {
        if self.door == Door::Public {
            self.verdict("private request on the public host");
            return Err("Private data and trading are unavailable on this endpoint. Try ws-auth.kraken.com".into());
        }
        let token = params.get("token").and_then(Value::as_str);
        self.kraken.holder(token, self.connection).map_err(|refused| match refused {
            TokenRefused::Missing => "EGeneral:Invalid arguments:token".into(),
            TokenRefused::Unknown | TokenRefused::Expired => {
                Failure { error: "ESession:Invalid session".into(), is_session: true }
            }
        })
    }

    fn success(&self, method: &str, request: &Map<String, Value>, time_in: UnixMillis, result: &Value) {
        let mut answer = json!({"method": method, "result": result, "success": true});
        if method == "batch_cancel" {
            answer["orders_cancelled"] = result["count"].clone();
        }
        self.answer(answer, request, time_in);
    }

    fn failure(&self, method: &str, request: &Map<String, Value>, time_in: UnixMillis, failure: impl Into<Failure>) {
        let failure = failure.into();
        let mut answer = json!({"method": method, "error": failure.error, "success": false});
        if failure.is_session {
            answer["status"] = json!("error");
        }
        self.answer(answer, request, time_in);
    }

    fn answer(&self, mut answer: Value, request: &Map<String, Value>, time_in: UnixMillis) {
        copy_req_id(request, &mut answer);
        answer["time_in"] = json!(rfc3339(time_in));
        answer["time_out"] = json!(self.now());
        self.outbox.json(&answer);
    }

    fn now(&self) -> String {
        rfc3339(self.kraken.clock.now())
    }

    fn verdict(&self, text: &str) {
        self.kraken.record.verdict(self.connection, text);
    }
}

impl Conversation for V2 {
    fn opened(&mut self) {
        // Above 2^63, as the venue's are.
        let connection_id = 13_834_774_380_200_032_777_u64 + self.connection;
        self.outbox.json(&json!({
            "channel": "status", "type": "update",
            "data": [{"api_version": "v2", "connection_id": connection_id, "system": "online", "version": "2.0.0"}],
        }));
    }

    fn text(&mut self, text: &str) {
        let time_in = self.kraken.clock.now();
        let request = match json::read(text.as_bytes()) {
            Ok(Value::Object(request)) => request,
            Ok(_) | Err(Unreadable::Malformed) => {
                self.verdict("malformed JSON");
                return self.failure("", &Map::new(), time_in, "Malformed request");
            }
            Err(Unreadable::Duplicate) => {
                self.verdict("duplicate member");
                return self.failure("", &Map::new(), time_in, "Malformed request");
            }
        };
        if request.get("req_id").is_some_and(|id| !id.is_u64()) {
            return self.failure("", &Map::new(), time_in, "EGeneral:Invalid arguments:req_id");
        }
        match request.get("method").and_then(Value::as_str) {
            Some(method) => self.request(method, &request, time_in),
            None => {
                self.verdict("no method");
                self.failure("", &request, time_in, "Malformed request");
            }
        }
    }

    fn beat(&mut self) {
        if self.is_subscribed() {
            self.outbox.text(r#"{"channel":"heartbeat"}"#);
        }
        let now = self.kraken.clock.now();
        for (channel, symbol) in &self.public {
            let message = market::pair(symbol).and_then(|pair| market::v2(channel, pair, "update", now));
            // A book that does not move has no updates.
            if let Some(message) = message.filter(|_| channel != "book") {
                self.outbox.text(message);
            }
        }
    }

    fn is_subscribed(&self) -> bool {
        if !self.public.is_empty() {
            return true;
        }
        self.kraken.state().listeners.iter().any(|listener| listener.connection == self.connection)
    }

    fn filler(&self, bytes: usize) -> String {
        let head = r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","filler":""#;
        format!("{head}{}\"}}]}}", "x".repeat(bytes.saturating_sub(head.len() + 4)))
    }

    fn echo(&self, text: &str) -> String {
        json!({"error": text, "method": "echo", "success": false, "time_in": self.now(), "time_out": self.now()})
            .to_string()
    }

    fn closed(&mut self) {
        self.kraken.state().hang_up(self.connection);
    }
}

fn copy_req_id(request: &Map<String, Value>, answer: &mut Value) {
    if let Some(id) = request.get("req_id") {
        answer["req_id"] = id.clone();
    }
}
