//! The simulated Bitfinex' WebSocket v2: events, that is login, ping, conf and public channels.
//!
//! What goes over channel 0 is in `inputs`.

use super::book::wallet;
use super::{Bitfinex, Login, Socket, inputs, market, verify};
use crate::simulator::json::{self, Unreadable};
use crate::simulator::socket::{Conversation, Outbox};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Public channels of one socket (docs.bitfinex.com, "WS public channels").
const CHANNELS_MAX: usize = 25;
/// Members that a login may have. `apiSecret` is not one, though a known client library sends it.
const AUTH_MEMBERS: [&str; 10] =
    ["event", "apiKey", "authSig", "authNonce", "authPayload", "dms", "calc", "filter", "subId", "token"];
/// Every flag of `conf` (docs.bitfinex.com, "Configuration").
const FLAGS_KNOWN: u64 = 8 | 32 | super::FLAG_TIMESTAMP | super::FLAG_SEQUENCE | 131_072 | 536_870_912;

pub(super) struct Control {
    bitfinex: Arc<Bitfinex>,
    connection: u64,
    is_public_host: bool,
}

/// A login that is refused: the venue's code and text.
struct Refused(u32, &'static str);

impl Control {
    pub(super) fn new(bitfinex: Arc<Bitfinex>, connection: u64, is_public_host: bool, outbox: Outbox) -> Self {
        bitfinex.state().sockets.insert(connection, Socket::new(outbox));
        Self { bitfinex, connection, is_public_host }
    }

    fn event(&self, event: &str, request: &Map<String, Value>) {
        match event {
            "ping" => {
                let mut pong = json!({"event": "pong", "ts": self.bitfinex.clock.now().0});
                if let Some(cid) = request.get("cid") {
                    pong["cid"] = cid.clone();
                }
                self.reply(&pong);
            }
            "conf" => self.conf(request),
            "subscribe" => self.subscribe(request),
            "unsubscribe" => self.unsubscribe(request),
            "auth" => self.auth(request),
            "unauth" => {
                self.with_socket(|socket| socket.login = None);
                self.reply(&json!({"event": "unauth", "status": "OK", "chanId": 0}));
            }
            _ => {
                self.verdict("event: unknown");
                self.error(10000, "event: invalid", request);
            }
        }
    }

    fn conf(&self, request: &Map<String, Value>) {
        match request.get("flags").and_then(Value::as_u64).filter(|flags| flags & !FLAGS_KNOWN == 0) {
            Some(flags) => {
                self.reply(&json!({"event": "conf", "status": "OK", "flags": flags}));
                self.with_socket(|socket| socket.flags = flags);
            }
            None => self.error(10050, "configuration: failed", request),
        }
    }

    fn subscribe(&self, request: &Map<String, Value>) {
        let now = self.bitfinex.clock.now();
        let text = |name: &str| request.get(name).and_then(Value::as_str);
        let channel = text("channel").unwrap_or_default().to_owned();
        let symbol = text("symbol").or(text("key")).unwrap_or_default().to_owned();
        if !["ticker", "trades", "book", "candles", "status"].contains(&channel.as_str()) {
            return self.error(10302, "channel: unknown", request);
        }
        let Some(snapshot) = market::snapshot(&channel, &symbol, text("prec").unwrap_or("P0"), now) else {
            return self.error(10300, "symbol: invalid", request);
        };
        let mut state = self.bitfinex.state();
        let Some(socket) = state.sockets.get_mut(&self.connection) else { return };
        let wanted = (channel.clone(), symbol.clone());
        if socket.channels.values().any(|subscribed| *subscribed == wanted) {
            drop(state);
            return self.error(10301, "subscribe: dup", request);
        }
        if socket.channels.len() >= CHANNELS_MAX {
            drop(state);
            return self.error(10305, "channels: limit", request);
        }
        // Channel numbers are larger than those of other venues' connections, and not consecutive with anything.
        let number = socket.channels.last_key_value().map_or(self.connection * 1000, |(last, _)| *last) + 1;
        socket.channels.insert(number, wanted);
        let mut answer = json!({"event": "subscribed", "channel": channel, "chanId": number});
        for name in ["symbol", "key", "prec", "freq", "len", "subId"] {
            if let Some(value) = request.get(name) {
                answer[name] = value.clone();
            }
        }
        if let Some(pair) = symbol.strip_prefix('t') {
            answer["pair"] = json!(pair);
        }
        socket.outbox.json(&answer);
        socket.send(number, vec![snapshot], now);
    }

    fn unsubscribe(&self, request: &Map<String, Value>) {
        let number = request.get("chanId").and_then(Value::as_u64);
        let removed = number.and_then(|number| self.with_socket(|socket| socket.channels.remove(&number))?);
        match removed {
            Some(_) => self.reply(&json!({"event": "unsubscribed", "status": "OK", "chanId": number})),
            None => self.error(10401, "subscription: not found", request),
        }
    }

    fn auth(&self, request: &Map<String, Value>) {
        let record = &self.bitfinex.record;
        if self.is_public_host {
            self.verdict("login on the public host");
            return self.error(10100, "auth: unavailable", request);
        }
        for name in request.keys().filter(|name| !AUTH_MEMBERS.contains(&name.as_str())) {
            // Only the name: what it holds may be a secret.
            record.leak(self.connection, &format!("login: member {name} is not of the protocol"));
        }
        match self.login(request) {
            Err(Refused(code, text)) => {
                if code == 10114 {
                    record.nonce_refused(self.connection, format!("login: {text}"));
                } else {
                    record.signature_refused(self.connection, format!("login: {text}"));
                }
                self.reply(&json!({"event": "auth", "status": "FAILED", "chanId": 0, "code": code, "msg": text}));
            }
            Ok(login) => self.welcome(login, request),
        }
    }

    fn login(&self, request: &Map<String, Value>) -> Result<Login, Refused> {
        let text = |name: &str| request.get(name).and_then(Value::as_str);
        let mut state = self.bitfinex.state();
        if state.sockets.get(&self.connection).is_some_and(|socket| socket.login.is_some()) {
            return Err(Refused(10101, "auth: already authenticated"));
        }
        let api_key = match text("token") {
            Some(token) => state.token_holder(token).ok_or(Refused(10100, "token: invalid"))?,
            None => text("apiKey").unwrap_or_default().to_owned(),
        };
        let is_refusing = self.bitfinex.faults.switches().refuse_auth;
        let held = state.keys.get_mut(&api_key).filter(|_| !is_refusing).ok_or(Refused(10100, "apikey: invalid"))?;
        if text("token").is_none() {
            // A number or a text of digits: clients differ.
            let nonce = match request.get("authNonce") {
                Some(Value::String(digits)) => digits.clone(),
                Some(Value::Number(number)) => number.to_string(),
                _ => return Err(Refused(10111, "authNonce: invalid")),
            };
            let payload = text("authPayload").unwrap_or_default();
            // Some clients write the nonce twice: the signature is over the payload as it is.
            if payload != format!("AUTH{nonce}") && payload != format!("AUTH{nonce}{nonce}") {
                return Err(Refused(10111, "authPayload: invalid"));
            }
            let signature = text("authSig").unwrap_or_default();
            if !verify::is_signed(&held.key.secret, &[payload.as_bytes()], signature) {
                return Err(Refused(10100, "apikey: digest invalid"));
            }
            let nonce = verify::nonce(&nonce).ok_or(Refused(10114, "nonce: invalid"))?;
            if !held.nonces.accept(nonce, held.key.nonce_window) {
                return Err(Refused(10114, "nonce: small"));
            }
        }
        let words = request.get("filter").and_then(Value::as_array);
        let filter = words.map(|words| words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect());
        let is_dead_man = request.get("dms").is_some_and(|dms| *dms == 4);
        Ok(Login { api_key, filter, is_dead_man })
    }

    fn welcome(&self, login: Login, request: &Map<String, Value>) {
        let now = self.bitfinex.clock.now();
        let mut state = self.bitfinex.state();
        let super::State { keys, sockets, .. } = &mut *state;
        let (Some(held), Some(socket)) = (keys.get(&login.api_key), sockets.get_mut(&self.connection)) else { return };
        let may = held.key.permissions;
        let cap = |write: bool| json!({"read": u8::from(may.read), "write": u8::from(write)});
        let mut answer = json!({
            "event": "auth", "status": "OK", "chanId": 0, "userId": 269_312,
            "auth_id": format!("00000000-0000-4000-8000-{:012x}", self.connection),
            "caps": {
                "orders": cap(may.trade), "account": cap(false), "funding": cap(may.trade), "history": cap(false),
                "wallets": cap(may.transfer), "withdraw": cap(may.transfer), "positions": cap(may.trade),
                "ui_withdraw": cap(false),
            },
        });
        for name in ["dms", "calc", "subId"] {
            if let Some(value) = request.get(name) {
                answer[name] = value.clone();
            }
        }
        socket.outbox.json(&answer);
        let account = &held.account;
        let wallets = account.wallets.iter().map(|((kind, currency), balance)| wallet(kind, currency, *balance, now));
        let orders = account.open.iter().map(super::book::Order::to_json);
        let offers = account.offers.iter().map(super::book::Offer::to_json);
        let snapshots = [
            ("trading", "ps", Vec::new()),
            ("wallet", "ws", wallets.collect()),
            ("trading", "os", orders.collect()),
            ("funding", "fos", offers.collect()),
            ("funding", "fcs", Vec::new()),
            ("funding", "fls", Vec::new()),
        ];
        for (group, kind, items) in snapshots {
            if login.wants_any(group) {
                socket.send(0, vec![json!(kind), Value::Array(items)], now);
            }
        }
        socket.login = Some(login);
    }

    fn error(&self, code: u32, text: &str, request: &Map<String, Value>) {
        let mut error = json!({"event": "error", "msg": text, "code": code});
        // The venue returns the request's members with the error.
        for (name, value) in request {
            if error.get(name).is_none() {
                error[name] = value.clone();
            }
        }
        self.reply(&error);
    }

    fn reply(&self, value: &Value) {
        self.with_socket(|socket| socket.outbox.json(value));
    }

    fn with_socket<T>(&self, act: impl FnOnce(&mut Socket) -> T) -> Option<T> {
        self.bitfinex.state().sockets.get_mut(&self.connection).map(act)
    }

    fn verdict(&self, text: &str) {
        self.bitfinex.record.verdict(self.connection, text);
    }
}

impl Conversation for Control {
    fn opened(&mut self) {
        self.reply(&json!({
            "event": "info", "version": 2, "serverId": "9a1b3c4d-0000-4000-8000-5a6b7c8d9e0f", "platform": {"status": 1},
        }));
    }

    fn text(&mut self, text: &str) {
        match json::read(text.as_bytes()) {
            Ok(Value::Object(request)) => match request.get("event").and_then(Value::as_str) {
                Some(event) => self.event(event, &request),
                None => self.error(10000, "event: invalid", &request),
            },
            Ok(Value::Array(parts)) => inputs::take(&self.bitfinex, self.connection, &parts),
            Ok(_) | Err(Unreadable::Malformed) => {
                self.verdict("malformed JSON");
                self.error(10000, "event: invalid", &Map::new());
            }
            Err(Unreadable::Duplicate) => {
                self.verdict("duplicate member");
                self.error(10000, "event: invalid", &Map::new());
            }
        }
    }

    fn beat(&mut self) {
        let now = self.bitfinex.clock.now();
        self.with_socket(|socket| {
            let numbers: Vec<_> = socket.channels.keys().copied().collect();
            for number in numbers {
                socket.send(number, vec![json!("hb")], now);
            }
            if socket.login.is_some() {
                socket.send(0, vec![json!("hb")], now);
            }
        });
    }

    fn is_subscribed(&self) -> bool {
        self.with_socket(|socket| socket.login.is_some() || !socket.channels.is_empty()).unwrap_or_default()
    }

    fn filler(&self, bytes: usize) -> String {
        format!(r#"[1001,"tu",["{}"]]"#, "x".repeat(bytes.saturating_sub(16)))
    }

    fn echo(&self, text: &str) -> String {
        json!({"event": "error", "code": 10000, "msg": text}).to_string()
    }

    fn closed(&mut self) {
        let now = self.bitfinex.clock.now();
        let mut state = self.bitfinex.state();
        let login = state.sockets.remove(&self.connection).and_then(|socket| socket.login);
        let Some(login) = login.filter(|login| login.is_dead_man) else { return };
        if let Some(held) = state.keys.get_mut(&login.api_key) {
            let count = held.account.cancel_all(now);
            self.bitfinex.record.note(self.connection, format!("dead-man switch: {count} orders canceled"));
        }
        state.publish(&login.api_key, now);
    }
}
