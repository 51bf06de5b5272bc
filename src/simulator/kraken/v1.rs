//! The simulated Kraken's WebSocket v1: events instead of methods, arrays instead of channels.

use super::book::{Account, Happening, OrderName};
use super::{Channel, Door, Kraken, Listener, TokenRefused, classic, market, names};
use crate::fresh::UnixMillis;
use crate::simulator::clock::rfc3339;
use crate::simulator::json::{self, Unreadable};
use crate::simulator::socket::{Conversation, Outbox};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Public subscriptions of one socket.
const SUBSCRIPTIONS_MAX: usize = 1000;

pub(super) struct V1 {
    kraken: Arc<Kraken>,
    connection: u64,
    door: Door,
    outbox: Outbox,
    public: BTreeSet<(String, String)>,
}

impl V1 {
    pub(super) fn new(kraken: Arc<Kraken>, connection: u64, door: Door, outbox: Outbox) -> Self {
        Self { kraken, connection, door, outbox, public: BTreeSet::new() }
    }

    fn event(&mut self, event: &str, request: &Map<String, Value>) {
        match event {
            "ping" => self.send(json!({"event": "pong"}), request),
            "subscribe" | "unsubscribe" => {
                let Some(subscription) = request.get("subscription").and_then(Value::as_object) else {
                    return self.malformed(request);
                };
                match subscription.get("name").and_then(Value::as_str).unwrap_or_default() {
                    "openOrders" => self.private(event, &[Channel::OpenOrders], subscription, request),
                    "ownTrades" => self.private(event, &[Channel::OwnTrades], subscription, request),
                    "*" => self.private(event, &[Channel::OpenOrders, Channel::OwnTrades], subscription, request),
                    name => self.market_data(event, name, request),
                }
            }
            "addOrder" | "amendOrder" | "editOrder" | "cancelOrder" | "cancelAll" | "cancelAllOrdersAfter" => {
                self.order(event, request);
            }
            _ => {
                self.verdict("event: unknown");
                self.malformed(request);
            }
        }
    }

    fn private(
        &self,
        event: &str,
        channels: &[Channel],
        subscription: &Map<String, Value>,
        request: &Map<String, Value>,
    ) {
        let token = subscription.get("token").and_then(Value::as_str);
        let is_echoing = self.kraken.faults.switches().echo_token;
        let holder = self.holder(token);
        for channel in channels {
            let mut told = json!({"name": channel.name()});
            if let (true, Some(token)) = (is_echoing, token) {
                told["token"] = json!(token);
            }
            let mut status =
                json!({"event": "subscriptionStatus", "channelName": channel.name(), "subscription": told});
            let outcome = holder.clone().and_then(|api_key| self.listen(event, *channel, &api_key));
            match &outcome {
                Ok(word) => status["status"] = json!(word),
                Err(error) => {
                    status["status"] = json!("error");
                    status["errorMessage"] = json!(error);
                }
            }
            self.send(status, request);
            if outcome == Ok("subscribed") && subscription.get("snapshot") != Some(&Value::Bool(false)) {
                self.snapshot(*channel);
            }
        }
    }

    fn listen(&self, event: &str, channel: Channel, api_key: &str) -> Result<&'static str, String> {
        let mut state = self.kraken.state();
        if event == "unsubscribe" {
            return if state.unlisten(self.connection, channel) {
                Ok("unsubscribed")
            } else {
                Err("Subscription Not Found".into())
            };
        }
        if !state.keys.get(api_key).is_some_and(|held| held.key.permissions.read) {
            return Err("EGeneral:Permission denied".into());
        }
        if state.is_listening(self.connection, channel) {
            return Err("Already subscribed".into());
        }
        let (api_key, outbox) = (api_key.to_owned(), self.outbox.clone());
        state.listeners.push(Listener { connection: self.connection, api_key, channel, sequence: 2, outbox });
        Ok("subscribed")
    }

    fn snapshot(&self, channel: Channel) {
        let state = self.kraken.state();
        let mine = state.listeners.iter().find(|l| l.connection == self.connection && l.channel == channel);
        let Some(held) = mine.and_then(|listener| state.keys.get(&listener.api_key)) else { return };
        let items: Vec<_> = match channel {
            Channel::OwnTrades => held
                .account
                .trades
                .iter()
                .rev()
                .take(50)
                .map(|trade| json!({&trade.id: classic::trade(trade)}))
                .collect(),
            _ => held.account.open.iter().map(|order| json!({&order.id: classic::order(order)})).collect(),
        };
        self.outbox.json(&json!([items, channel.name(), {"sequence": 1}]));
    }

    fn market_data(&mut self, event: &str, name: &str, request: &Map<String, Value>) {
        let status = |word: &str, pair: &str| json!({"event": "subscriptionStatus", "status": word, "pair": pair, "subscription": {"name": name}});
        let refused = |error: &str, pair: &str| {
            let mut status = status("error", pair);
            status["errorMessage"] = json!(error);
            status
        };
        if self.door == Door::Private {
            let error = "Public market data subscriptions are unavailable on this endpoint. Try ws.kraken.com";
            return self.send(refused(error, ""), request);
        }
        let now = self.kraken.clock.now();
        let pairs = request.get("pair").and_then(Value::as_array).cloned().unwrap_or_default();
        if pairs.is_empty() {
            return self.send(refused("Pair field must be an array", ""), request);
        }
        for symbol in pairs.iter().filter_map(Value::as_str) {
            let Some(pair) = market::pair(symbol) else {
                self.send(refused("Currency pair not supported", symbol), request);
                continue;
            };
            let Some(data) = market::v1(name, pair, now) else {
                self.send(refused("Subscription name invalid", symbol), request);
                continue;
            };
            let key = (name.to_owned(), pair.v1_name.to_owned());
            if event == "unsubscribe" {
                let answer = if self.public.remove(&key) {
                    status("unsubscribed", symbol)
                } else {
                    refused("Subscription Not Found", symbol)
                };
                self.send(answer, request);
                continue;
            }
            if self.public.len() >= SUBSCRIPTIONS_MAX {
                self.send(refused("Exceeded msg rate", symbol), request);
                continue;
            }
            self.public.insert(key);
            let mut answer = status("subscribed", symbol);
            answer["channelName"] = json!(name);
            answer["channelID"] = json!(self.public.len());
            self.send(answer, request);
            self.outbox.json(&json!([self.public.len(), data, name, pair.v1_name]));
        }
    }

    fn order(&self, event: &str, request: &Map<String, Value>) {
        let token = request.get("token").and_then(Value::as_str);
        let now = self.kraken.clock.now();
        let outcome = self.holder(token).and_then(|api_key| {
            let mut state = self.kraken.state();
            let held = state.keys.get_mut(&api_key).ok_or("EAPI:Invalid key")?;
            if !held.key.permissions.trade {
                self.verdict("permission: trade is missing");
                return Err("EGeneral:Permission denied".into());
            }
            let outcome = execute(&mut held.account, event, request, now);
            Ok((api_key, outcome?))
        });
        let mut status = json!({"event": format!("{event}Status")});
        match &outcome {
            Ok((_, Value::Object(members))) => {
                status["status"] = json!("ok");
                for (name, value) in members {
                    status[name] = value.clone();
                }
            }
            Ok(_) => status["status"] = json!("ok"),
            Err(error) => {
                status["status"] = json!("error");
                status["errorMessage"] = json!(error);
            }
        }
        self.send(status, request);
        if let Ok((api_key, _)) = &outcome {
            self.kraken.state().publish(api_key, now);
        }
    }

    fn holder(&self, token: Option<&str>) -> Result<String, String> {
        if self.door == Door::Public {
            self.verdict("private request on the public host");
            return Err("Private data and trading are unavailable on this endpoint. Try ws-auth.kraken.com".into());
        }
        self.kraken.holder(token, self.connection).map_err(|refused| match refused {
            TokenRefused::Missing => "Token(s) not found".into(),
            TokenRefused::Expired => "Token is expired".into(),
            TokenRefused::Unknown => "ESession:Invalid session".into(),
        })
    }

    fn malformed(&self, request: &Map<String, Value>) {
        self.send(json!({"event": "error", "errorMessage": "Malformed request"}), request);
    }

    fn send(&self, mut answer: Value, request: &Map<String, Value>) {
        if let Some(id) = request.get("reqid") {
            answer["reqid"] = id.clone();
        }
        self.outbox.json(&answer);
    }

    fn verdict(&self, text: &str) {
        self.kraken.record.verdict(self.connection, text);
    }
}

impl Conversation for V1 {
    fn opened(&mut self) {
        let connection_id = 8_628_615_390_848_610_000_u64 + self.connection;
        self.outbox.json(&json!({
            "connectionID": connection_id, "event": "systemStatus", "status": "online", "version": "1.9.1",
        }));
    }

    fn text(&mut self, text: &str) {
        let request = match json::read(text.as_bytes()) {
            Ok(Value::Object(request)) => request,
            Ok(_) | Err(Unreadable::Malformed) => {
                self.verdict("malformed JSON");
                return self.malformed(&Map::new());
            }
            Err(Unreadable::Duplicate) => {
                self.verdict("duplicate member");
                return self.malformed(&Map::new());
            }
        };
        match request.get("event").and_then(Value::as_str) {
            Some(event) => self.event(event, &request),
            None => self.malformed(&request),
        }
    }

    fn beat(&mut self) {
        if self.is_subscribed() {
            self.outbox.text(r#"{"event":"heartbeat"}"#);
        }
    }

    fn is_subscribed(&self) -> bool {
        if !self.public.is_empty() {
            return true;
        }
        self.kraken.state().listeners.iter().any(|listener| listener.connection == self.connection)
    }

    fn filler(&self, bytes: usize) -> String {
        format!(r#"[1,{{"filler":"{}"}},"ticker","XBT/USD"]"#, "x".repeat(bytes.saturating_sub(36)))
    }

    fn echo(&self, text: &str) -> String {
        json!({"event": "error", "errorMessage": text}).to_string()
    }

    fn closed(&mut self) {
        self.kraken.state().hang_up(self.connection);
    }
}

fn execute(account: &mut Account, event: &str, request: &Map<String, Value>, now: UnixMillis) -> Result<Value, String> {
    let number = |name: &str| request.get(name).and_then(classic::number);
    let name = || classic::order_name(request).ok_or("EGeneral:Invalid arguments:txid");
    Ok(match event {
        "addOrder" => {
            let order = account.place(classic::new_order(request)?, now)?;
            json!({"txid": order.id, "descr": classic::description(&order.asked)})
        }
        "amendOrder" => {
            account.amend(&name()?, number("order_qty"), number("limit_price"))?;
            json!({"amend_id": super::random_id('T')})
        }
        "editOrder" => {
            let (old, new) = account.edit(&name()?, number("volume"), number("price"), now)?;
            json!({"txid": new.id, "originaltxid": old.id, "descr": classic::description(&new.asked)})
        }
        "cancelOrder" => {
            let by_id = request.get("txid").map(|value| names(value, OrderName::from_json));
            let by_client =
                request.get("cl_ord_id").map(|value| names(value, |one| classic::text(one).map(OrderName::ClientId)));
            let asked = by_id.or(by_client).flatten().ok_or("EGeneral:Invalid arguments:txid")?;
            let count: usize = asked.iter().map(|name| account.cancel(name, now).len()).sum();
            if count == 0 {
                return Err("EOrder:Unknown order".into());
            }
            json!({})
        }
        "cancelAll" => json!({"count": account.cancel_all(now)}),
        _ => {
            let timeout = number("timeout").filter(|seconds| (0.0..86_400.0).contains(seconds));
            let timeout = timeout.ok_or("EGeneral:Invalid arguments:timeout")?;
            let trigger = account.arm(Duration::from_secs_f64(timeout), now);
            let trigger = trigger.map_or_else(|| "0".to_owned(), rfc3339);
            json!({"currentTime": rfc3339(now), "triggerTime": trigger})
        }
    })
}

/// What a private channel says about what has happened; none if nothing concerns it.
pub(super) fn update(channel: Channel, happened: &[Happening], sequence: u64) -> Option<Value> {
    let told = happened.iter().filter_map(|happening| match (channel, happening) {
        (Channel::OpenOrders, Happening::Order(_, order)) => Some(json!({&order.id: classic::order(order)})),
        (Channel::OwnTrades, Happening::Trade(trade)) => Some(json!({&trade.id: classic::trade(trade)})),
        _ => None,
    });
    let items: Vec<_> = told.collect();
    if items.is_empty() {
        return None;
    }
    Some(json!([items, channel.name(), {"sequence": sequence}]))
}
