//! A simulated Bitfinex: REST v2 with signatures, and WebSocket v2, which share one nonce for each key.
//!
//! Written from docs.bitfinex.com. Not simulated: matching, positions, rate limits, the legacy v1.

mod book;
mod control;
mod inputs;
mod market;
mod public;
mod queries;
mod rest;
mod verify;

#[cfg(test)]
mod tests;

use super::nonces::Nonces;
use super::record::Record;
use super::server::{self, Answer, Received};
use super::socket::{Conversation, Outbox};
use super::{Faults, Options, Running, SimClock, SimKey};
use crate::fresh::UnixMillis;
use book::{Account, Told, Topic};
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tokens of `auth/w/token` that are remembered.
const TOKENS_MAX: usize = 1000;

/// Starts a simulated Bitfinex.
///
/// Fails if the address cannot be had or is not loopback.
pub async fn start(options: Options) -> io::Result<Running<Bitfinex>> {
    let keys = options.keys.iter().map(|key| {
        let held = Held { key: key.clone(), nonces: Nonces::default(), account: Account::new() };
        (key.api_key.clone(), held)
    });
    let record = Record::new(options.clock.clone());
    let bitfinex = Bitfinex {
        state: Mutex::new(State { keys: keys.collect(), ..State::default() }),
        record: record.clone(),
        faults: options.faults.clone(),
        clock: options.clock.clone(),
    };
    super::run(options, record, Arc::new(bitfinex)).await
}

/// The simulated exchange.
#[derive(Debug)]
pub struct Bitfinex {
    state: Mutex<State>,
    record: Record,
    faults: Faults,
    clock: SimClock,
}

impl Bitfinex {
    /// The ids of a key's open orders.
    pub fn open_orders(&self, api_key: &str) -> Vec<u64> {
        let state = self.state();
        let orders = state.keys.get(api_key).map(|held| held.account.open.iter());
        orders.into_iter().flatten().map(|order| order.id).collect()
    }

    /// How many orders a key has placed that are open or in the last thousand closed ones.
    pub fn orders_placed(&self, api_key: &str) -> usize {
        let state = self.state();
        state.keys.get(api_key).map_or(0, |held| held.account.open.len() + held.account.closed.len())
    }

    /// Fills an open order, up to `quantity`; false if no account has it.
    pub fn fill(&self, order_id: u64, quantity: f64) -> bool {
        let now = self.clock.now();
        let mut state = self.state();
        let api_key = state
            .keys
            .iter_mut()
            .find_map(|(api_key, held)| held.account.fill(order_id, quantity, now).then(|| api_key.clone()));
        if let Some(api_key) = &api_key {
            state.publish(api_key, now);
        }
        api_key.is_some()
    }

    /// How many withdrawals and transfers a key has made: none, where a proxy does its work.
    pub fn withdrawals(&self, api_key: &str) -> usize {
        self.state().keys.get(api_key).map_or(0, |held| held.account.moved_out.len())
    }

    /// The nonces that a key has used on REST and sockets, in the order in which they came, the last 10,000.
    pub fn accepted_nonces(&self, api_key: &str) -> Vec<u64> {
        self.state().keys.get(api_key).map(|held| held.nonces.accepted()).unwrap_or_default()
    }

    /// Makes every nonce up to this one too small, as if another program had used the key.
    pub fn raise_nonce(&self, api_key: &str, to: u64) {
        if let Some(held) = self.state().keys.get_mut(api_key) {
            held.nonces.raise(to);
        }
    }

    /// Tells every socket that the platform restarts (20051), stops (20060) or goes on (20061).
    pub fn announce(&self, code: u32, text: &str) {
        for socket in self.state().sockets.values() {
            socket.outbox.json(&json!({"event": "info", "code": code, "msg": text}));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A conversation that panicked has ended; the books are whole between two messages.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl server::Exchange for Bitfinex {
    fn answer(&self, request: &Received) -> Answer {
        rest::answer(self, request)
    }

    fn open(self: Arc<Self>, request: &Received, outbox: Outbox) -> Result<Box<dyn Conversation>, Answer> {
        if request.path() != "/ws/2" {
            return Err(Answer::html(StatusCode::NOT_FOUND));
        }
        let is_public_host = request.host() == "api-pub.bitfinex.com";
        Ok(Box::new(control::Control::new(self, request.connection, is_public_host, outbox)))
    }

    fn tick(&self, _now: UnixMillis) {}
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<String, Held>,
    sockets: HashMap<u64, Socket>,
    /// Tokens of `auth/w/token` and the keys that they stand for.
    tokens: VecDeque<(String, String)>,
}

/// One key, and the account that it opens.
#[derive(Debug)]
struct Held {
    key: SimKey,
    nonces: Nonces,
    account: Account,
}

/// One WebSocket, as what is sent to it needs to know it.
#[derive(Debug)]
struct Socket {
    outbox: Outbox,
    login: Option<Login>,
    /// Flags of `conf`; they change what a frame looks like.
    flags: u64,
    sequence: u64,
    account_sequence: u64,
    /// Public channels by their number: channel and symbol.
    channels: BTreeMap<u64, (String, String)>,
}

/// A socket that has proved its key.
#[derive(Debug, Clone)]
struct Login {
    api_key: String,
    filter: Option<Vec<String>>,
    is_dead_man: bool,
}

impl Login {
    fn wants(&self, topic: &Topic) -> bool {
        let Some(filter) = &self.filter else { return true };
        filter.iter().any(|word| match topic {
            Topic::Trading(symbol) => word == "trading" || word.strip_prefix("trading-") == Some(symbol),
            Topic::Funding(symbol) => word == "funding" || word.strip_prefix("funding-") == Some(symbol),
            Topic::Wallet(kind, currency) => word == "wallet" || *word == format!("wallet-{kind}-{currency}"),
        })
    }

    fn wants_any(&self, group: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.iter().any(|word| word.starts_with(group)))
    }
}

/// Conf flag `TIMESTAMP` (docs.bitfinex.com, "Configuration").
const FLAG_TIMESTAMP: u64 = 32_768;
/// Conf flag `SEQ_ALL`.
const FLAG_SEQUENCE: u64 = 65_536;

impl Socket {
    fn new(outbox: Outbox) -> Self {
        Self { outbox, login: None, flags: 0, sequence: 0, account_sequence: 0, channels: BTreeMap::new() }
    }

    /// Sends `[channel, …]`, with what the flags add to its end.
    fn send(&mut self, channel: u64, parts: Vec<Value>, now: UnixMillis) {
        let is_heartbeat = parts.first().is_some_and(|part| part == "hb");
        let mut frame = vec![json!(channel)];
        frame.extend(parts);
        if self.flags & FLAG_SEQUENCE != 0 {
            self.sequence += 1;
            frame.push(json!(self.sequence));
            // A heartbeat of the account is no event of the account: it does not count there.
            if channel == 0 && !is_heartbeat {
                self.account_sequence += 1;
                frame.push(json!(self.account_sequence));
            }
        }
        if self.flags & FLAG_TIMESTAMP != 0 {
            frame.push(json!(now.0));
        }
        self.outbox.json(&Value::Array(frame));
    }

    /// Sends a notification (docs.bitfinex.com, "Notifications").
    fn notify(&mut self, kind: &str, info: &Value, status: &str, text: &str, now: UnixMillis) {
        let notification = json!([now.0, kind, null, null, info, null, status, text]);
        self.send(0, vec![json!("n"), notification], now);
    }
}

impl State {
    /// Tells a key's sockets what has happened to its account.
    fn publish(&mut self, api_key: &str, now: UnixMillis) {
        let Some(held) = self.keys.get_mut(api_key) else { return };
        let told = held.account.take_told();
        for socket in self.sockets.values_mut() {
            let Some(login) = socket.login.clone().filter(|login| login.api_key == api_key) else { continue };
            for Told { topic, kind, payload } in &told {
                if login.wants(topic) {
                    socket.send(0, vec![json!(kind), payload.clone()], now);
                }
            }
        }
    }

    fn mint(&mut self, api_key: &str) -> String {
        let mut bytes = [0; 24];
        getrandom::fill(&mut bytes).expect("the system has random bytes");
        let token = format!("pub:api:{}-caps:o:r-write", hex::encode(bytes));
        if self.tokens.len() == TOKENS_MAX {
            self.tokens.pop_front();
        }
        self.tokens.push_back((token.clone(), api_key.to_owned()));
        token
    }

    fn token_holder(&self, token: &str) -> Option<String> {
        self.tokens.iter().find(|(known, _)| known == token).map(|(_, api_key)| api_key.clone())
    }
}
