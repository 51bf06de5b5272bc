//! A simulated Kraken: REST with signatures and nonces, tokens, WebSocket v2 and v1, and one book behind all of them.
//!
//! Written from docs.kraken.com. Not simulated: matching, rate counters, Level 3, futures, funding (beta).

mod book;
mod classic;
mod form;
mod market;
mod public;
mod queries;
mod rest;
mod v1;
mod v2;
mod v2_orders;
mod verify;

#[cfg(test)]
mod tests;

use super::nonces::Nonces;
use super::record::Record;
use super::server::{self, Answer, Received};
use super::socket::{Conversation, Outbox};
use super::{Faults, Options, Running, SimClock, SimKey};
use crate::fresh::UnixMillis;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use book::{Account, OrderName};
use http::StatusCode;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Tokens that are remembered; the oldest is forgotten, and with it refused.
const TOKENS_MAX: usize = 10_000;

/// Starts a simulated Kraken.
///
/// Fails if the address cannot be had, is not loopback, or a secret is not base64.
pub async fn start(options: Options) -> io::Result<Running<Kraken>> {
    let mut keys = HashMap::new();
    for key in &options.keys {
        let secret = STANDARD.decode(&key.secret);
        let secret = secret.map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a secret is not base64"))?;
        let held = Held { key: key.clone(), secret, nonces: Nonces::default(), account: Account::new() };
        keys.insert(key.api_key.clone(), held);
    }
    let record = Record::new(options.clock.clone());
    let kraken = Kraken {
        state: Mutex::new(State { keys, ..State::default() }),
        record: record.clone(),
        faults: options.faults.clone(),
        clock: options.clock.clone(),
        token_lifetime: options.token_lifetime,
    };
    super::run(options, record, Arc::new(kraken)).await
}

/// The simulated exchange.
#[derive(Debug)]
pub struct Kraken {
    state: Mutex<State>,
    record: Record,
    faults: Faults,
    clock: SimClock,
    token_lifetime: Duration,
}

impl Kraken {
    /// Makes every token invalid, on established connections too, as the venue does after an upgrade.
    pub fn invalidate_tokens(&self) {
        let mut state = self.state();
        state.tokens.clear();
        state.token_order.clear();
    }

    /// The ids of a key's open orders.
    pub fn open_orders(&self, api_key: &str) -> Vec<String> {
        let state = self.state();
        let orders = state.keys.get(api_key).map(|held| held.account.open.iter());
        orders.into_iter().flatten().map(|order| order.id.clone()).collect()
    }

    /// How many orders a key has placed that are open or in the last thousand closed ones.
    pub fn orders_placed(&self, api_key: &str) -> usize {
        let state = self.state();
        state.keys.get(api_key).map_or(0, |held| held.account.open.len() + held.account.closed.len())
    }

    /// Fills an open order, up to `quantity`; false if no account has it.
    pub fn fill(&self, order_id: &str, quantity: f64) -> bool {
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

    /// How many withdrawals a key has made: none, where a proxy does its work.
    pub fn withdrawals(&self, api_key: &str) -> usize {
        self.state().keys.get(api_key).map_or(0, |held| held.account.withdrawals.len())
    }

    /// Whether a key's dead-man timer (`CancelAllOrdersAfter`) runs.
    pub fn is_dead_man_armed(&self, api_key: &str) -> bool {
        self.state().keys.get(api_key).is_some_and(|held| held.account.is_armed())
    }

    /// The nonces that a key has used, in the order in which they came, the last 10,000.
    pub fn accepted_nonces(&self, api_key: &str) -> Vec<u64> {
        self.state().keys.get(api_key).map(|held| held.nonces.accepted()).unwrap_or_default()
    }

    /// Makes every nonce up to this one too small, as if another program had used the key.
    pub fn raise_nonce(&self, api_key: &str, to: u64) {
        if let Some(held) = self.state().keys.get_mut(api_key) {
            held.nonces.raise(to);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A conversation that panicked has ended; the books are whole between two messages.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key behind a token that may be used on this connection now.
    fn holder(&self, token: Option<&str>, connection: u64) -> Result<String, TokenRefused> {
        let now = self.clock.now();
        let refused = match token {
            None => TokenRefused::Missing,
            Some(_) if self.faults.switches().refuse_auth => TokenRefused::Unknown,
            Some(token) => match self.state().tokens.get_mut(token) {
                None => TokenRefused::Unknown,
                Some(minted) => {
                    // A token in use does not age: only its first use on a connection asks how old it is.
                    let is_young = now.since(minted.at) <= self.token_lifetime;
                    if minted.used_on.contains(&connection) || is_young {
                        minted.used_on.insert(connection);
                        return Ok(minted.api_key.clone());
                    }
                    TokenRefused::Expired
                }
            },
        };
        self.record.verdict(connection, format!("token: {refused:?}").to_ascii_lowercase());
        Err(refused)
    }
}

impl server::Exchange for Kraken {
    fn answer(&self, request: &Received) -> Answer {
        rest::answer(self, request)
    }

    fn open(self: Arc<Self>, request: &Received, outbox: Outbox) -> Result<Box<dyn Conversation>, Answer> {
        let door = match request.host().as_str() {
            "ws.kraken.com" | "beta-ws.kraken.com" => Door::Public,
            "ws-auth.kraken.com" | "beta-ws-auth.kraken.com" => Door::Private,
            "api.kraken.com" => return Err(Answer::html(StatusCode::NOT_FOUND)),
            _ => Door::Both,
        };
        let connection = request.connection;
        match request.path() {
            "/v2" => Ok(Box::new(v2::V2::new(self, connection, door, outbox))),
            "/" => Ok(Box::new(v1::V1::new(self, connection, door, outbox))),
            _ => Err(Answer::html(StatusCode::NOT_FOUND)),
        }
    }

    fn tick(&self, now: UnixMillis) {
        let mut state = self.state();
        let armed: Vec<_> =
            state.keys.iter().filter(|(_, held)| held.account.is_armed()).map(|(key, _)| key.clone()).collect();
        for api_key in armed {
            if let Some(held) = state.keys.get_mut(&api_key) {
                held.account.tick(now);
            }
            state.publish(&api_key, now);
        }
    }
}

/// Which of the venue's socket hosts a client came to; `Both` where it came to no name of the venue's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Public,
    Private,
    Both,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenRefused {
    Missing,
    Unknown,
    Expired,
}

/// A private channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Executions,
    Balances,
    OpenOrders,
    OwnTrades,
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Executions => "executions",
            Self::Balances => "balances",
            Self::OpenOrders => "openOrders",
            Self::OwnTrades => "ownTrades",
        }
    }
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<String, Held>,
    tokens: HashMap<String, Minted>,
    token_order: VecDeque<String>,
    listeners: Vec<Listener>,
}

/// One key, and the account that it opens.
#[derive(Debug)]
struct Held {
    key: SimKey,
    secret: Vec<u8>,
    nonces: Nonces,
    account: Account,
}

#[derive(Debug)]
struct Minted {
    api_key: String,
    at: UnixMillis,
    used_on: HashSet<u64>,
}

/// One private subscription of one socket.
#[derive(Debug)]
struct Listener {
    connection: u64,
    api_key: String,
    channel: Channel,
    sequence: u64,
    outbox: Outbox,
}

impl State {
    fn mint(&mut self, api_key: &str, now: UnixMillis) -> String {
        let token = random_token();
        if self.token_order.len() == TOKENS_MAX
            && let Some(oldest) = self.token_order.pop_front()
        {
            self.tokens.remove(&oldest);
        }
        self.token_order.push_back(token.clone());
        let minted = Minted { api_key: api_key.to_owned(), at: now, used_on: HashSet::new() };
        self.tokens.insert(token.clone(), minted);
        token
    }

    /// Tells a key's subscribers what has happened to its account.
    fn publish(&mut self, api_key: &str, now: UnixMillis) {
        let Some(held) = self.keys.get_mut(api_key) else { return };
        let happened = held.account.take_happenings();
        for listener in self.listeners.iter_mut().filter(|listener| listener.api_key == api_key) {
            let message = match listener.channel {
                Channel::Executions | Channel::Balances => {
                    v2_orders::update(listener.channel, &happened, now, listener.sequence)
                }
                Channel::OpenOrders | Channel::OwnTrades => v1::update(listener.channel, &happened, listener.sequence),
            };
            if let Some(message) = message {
                listener.sequence += 1;
                listener.outbox.json(&message);
            }
        }
    }

    fn is_listening(&self, connection: u64, channel: Channel) -> bool {
        self.listeners.iter().any(|listener| listener.connection == connection && listener.channel == channel)
    }

    /// Forgets a subscription; false if there was none.
    fn unlisten(&mut self, connection: u64, channel: Channel) -> bool {
        let before = self.listeners.len();
        self.listeners.retain(|listener| listener.connection != connection || listener.channel != channel);
        self.listeners.len() < before
    }

    /// Forgets a connection.
    fn hang_up(&mut self, connection: u64) {
        self.listeners.retain(|listener| listener.connection != connection);
        for minted in self.tokens.values_mut() {
            minted.used_on.remove(&connection);
        }
    }
}

/// An id in the venue's form, as in `OQCLML-BW3P3-BUCMWZ`.
fn random_id(first: char) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let letters: String =
        random_bytes::<16>().iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    format!("{first}{}-{}-{}", &letters[..5], &letters[5..10], &letters[10..])
}

/// 43 characters of base64, among them always `/` and `+`: what those do to a proxy should not be left to chance.
fn random_token() -> String {
    let mut token = STANDARD_NO_PAD.encode(random_bytes::<32>());
    token.replace_range(3..4, "/");
    token.replace_range(7..8, "+");
    token
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    bytes
}

/// The orders that a request means by a list of names.
fn names(value: &serde_json::Value, of: impl Fn(&serde_json::Value) -> Option<OrderName>) -> Option<Vec<OrderName>> {
    match value {
        serde_json::Value::Array(items) => items.iter().map(of).collect(),
        one => of(one).map(|name| vec![name]),
    }
}
