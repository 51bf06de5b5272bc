//! A simulated ProjectX Gateway, as TopstepX runs it: REST with bearers, and two SignalR hubs.
//!
//! Written from gateway.docs.projectx.com and ASP.NET Core's SignalR specifications. Not simulated: matching, brackets,
//! the web front-end's and the firms' own hosts, other transports than WebSockets, MessagePack.

mod book;
mod feed;
mod fields;
mod hub;
mod limits;
mod market;
mod negotiation;
mod operations;
mod rest;
mod tokens;

#[cfg(test)]
mod tests;

use super::record::Record;
use super::server::{self, Answer, Received};
use super::socket::{Conversation, Outbox};
use super::{Faults, Options, Running, SimClock, SimKey};
use crate::fresh::UnixMillis;
use book::Account;
use feed::{Channel, Socket};
use http::StatusCode;
use http::header::AUTHORIZATION;
use limits::Limits;
use negotiation::Negotiated;
use serde_json::json;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokens::{BearerRefused, Tokens};

/// The first account of the first user; the next user's begin a hundred further on.
const ACCOUNT_FIRST: i64 = 10_001;

/// Headers that a client or its way here may have put in, and that say nothing to the venue.
const NOT_FROM_A_PROXY: [&str; 6] = ["cookie", "origin", "referer", "forwarded", "x-forwarded-for", "x-requested-with"];

/// Starts a simulated ProjectX Gateway. Each key is a user with two accounts that may trade and one that may not.
///
/// Fails if the address cannot be had or is not loopback.
pub async fn start(options: Options) -> io::Result<Running<ProjectX>> {
    let mut users = HashMap::new();
    for (key, first) in options.keys.iter().zip((ACCOUNT_FIRST..).step_by(100)) {
        let account = |more, kind: &str| Account::new(first + more, format!("{kind}-{}", first + more), more < 2);
        let accounts = vec![account(0, "50KTC-V2"), account(1, "PRACTICE"), account(2, "EXPRESS-V2")];
        users.insert(key.api_key.clone(), User { key: key.clone(), accounts, limits: Limits::default() });
    }
    let record = Record::new(options.clock.clone());
    let state = State {
        users,
        tokens: Tokens::new(),
        negotiated: Negotiated::default(),
        sockets: HashMap::new(),
        logins: 0,
        validations: 0,
    };
    let projectx = ProjectX {
        state: Mutex::new(state),
        record: record.clone(),
        faults: options.faults.clone(),
        clock: options.clock.clone(),
        token_lifetime: options.token_lifetime,
        expects_a_proxy: options.expects_a_proxy,
    };
    super::run(options, record, Arc::new(projectx)).await
}

/// The simulated venue.
#[derive(Debug)]
pub struct ProjectX {
    state: Mutex<State>,
    record: Record,
    faults: Faults,
    clock: SimClock,
    token_lifetime: Duration,
    expects_a_proxy: bool,
}

impl ProjectX {
    /// Logins that succeeded.
    pub fn logins(&self) -> u64 {
        self.state().logins
    }

    /// Validations that succeeded, each with a new token.
    pub fn validations(&self) -> u64 {
        self.state().validations
    }

    /// Tokens that could be used now.
    pub fn live_tokens(&self) -> usize {
        self.state().tokens.live(self.clock.now())
    }

    /// A user's accounts, active or not.
    pub fn accounts(&self, user: &str) -> Vec<i64> {
        self.state().users.get(user).into_iter().flat_map(|held| &held.accounts).map(|account| account.id).collect()
    }

    /// The ids of an account's open orders.
    pub fn open_orders(&self, account: i64) -> Vec<u64> {
        self.with_account(account, |account| account.open_orders().map(|order| order.id).collect()).unwrap_or_default()
    }

    /// How many orders an account has placed, among the last 10,000.
    pub fn orders_placed(&self, account: i64) -> usize {
        self.with_account(account, |account| account.orders.len()).unwrap_or_default()
    }

    /// Fills an open order, up to `size`, and tells its user's subscribers; false if no account has it.
    pub fn fill(&self, order_id: u64, size: u32) -> bool {
        let (now, is_unwrapped) = (self.clock.now(), self.faults.switches().unwrapped_events);
        let mut state = self.state();
        let users = &mut state.users;
        let owner = users.iter_mut().find_map(|(name, held)| {
            let mut accounts = held.accounts.iter_mut();
            accounts.any(|account| account.fill(order_id, size.into(), now)).then(|| name.clone())
        });
        if let Some(owner) = &owner {
            state.publish(owner, is_unwrapped);
        }
        owner.is_some()
    }

    /// Sends a quote with what changed to all who subscribed to the contract's; how many those are.
    pub fn publish_quote(&self, contract: &str) -> usize {
        self.tell_of(contract, &[Channel::Quotes])
    }

    /// Sends a list of trades to all who subscribed to the contract's; how many those are.
    pub fn publish_trade(&self, contract: &str) -> usize {
        self.tell_of(contract, &[Channel::ContractTrades])
    }

    /// Sends a list of levels to all who subscribed to the contract's depth; how many those are.
    pub fn publish_depth(&self, contract: &str) -> usize {
        self.tell_of(contract, &[Channel::Depth])
    }

    /// Sends quote, trade and depth as several records in one message, to each what it subscribed to; how many those are.
    pub fn publish_coalesced(&self, contract: &str) -> usize {
        self.tell_of(contract, &[Channel::Quotes, Channel::ContractTrades, Channel::Depth])
    }

    /// How many subscriptions all hub connections have together.
    pub fn subscriptions(&self) -> usize {
        self.state().sockets.values().map(|socket| socket.subscriptions.len()).sum()
    }

    /// Makes every token invalid for requests and new connections. Hubs that are open stay.
    pub fn revoke_all_tokens(&self) {
        self.state().tokens.revoke_all();
    }

    /// Ends everybody's session, as if each had logged in elsewhere: `GatewayLogout` on every hub, and no token is good
    /// any more.
    pub fn logout_everybody(&self) {
        let mut state = self.state();
        state.tokens.revoke_all();
        for socket in state.sockets.values().filter(|socket| socket.is_greeted) {
            socket.outbox.text(feed::event("GatewayLogout", &json!([])));
        }
    }

    /// Ends every hub connection with a close record, and then the socket.
    pub fn close_hubs(&self, error: Option<&str>, may_reconnect: bool) {
        for socket in self.state().sockets.values() {
            socket.end(error, may_reconnect);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A conversation that panicked has ended; the books are whole between two messages.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_account<T>(&self, id: i64, look: impl FnOnce(&Account) -> T) -> Option<T> {
        let state = self.state();
        state.users.values().flat_map(|held| &held.accounts).find(|account| account.id == id).map(look)
    }

    fn tell_of(&self, contract: &str, channels: &[Channel]) -> usize {
        let now = self.clock.now();
        market::find(contract).map_or(0, |contract| self.state().tell_of(contract, channels, now))
    }

    /// A new token, or the venue's code of a failed login.
    fn log_in(&self, user: &str, api_key: &str) -> Result<String, u32> {
        let now = self.clock.now();
        let mut state = self.state();
        let held = state.users.get(user).ok_or(1_u32)?;
        if held.key.secret != api_key || self.faults.switches().refuse_auth {
            return Err(3);
        }
        state.logins += 1;
        Ok(state.tokens.mint(user, now, self.token_lifetime))
    }

    /// A token in place of one that is good.
    fn validate(&self, user: &str, token: &str, ends_the_old: bool) -> String {
        let now = self.clock.now();
        let mut state = self.state();
        state.validations += 1;
        if ends_the_old {
            state.tokens.revoke(token);
        }
        state.tokens.mint(user, now, self.token_lifetime)
    }

    /// The user behind a token that may be used now.
    fn holder(&self, token: &str) -> Result<String, BearerRefused> {
        if self.faults.switches().refuse_auth {
            return Err(BearerRefused::Unknown);
        }
        self.state().tokens.holder(token, self.clock.now())
    }

    /// Which of the venue's hosts a request came to.
    fn door(&self, request: &Received) -> Door {
        let host = request.host();
        let label = host.split('.').next().unwrap_or_default();
        match label {
            "rtc" | "gateway-rtc-demo" => Door::Hubs,
            "api" | "gateway-api-demo" => Door::Rest,
            _ => Door::Both,
        }
    }

    /// Finds what a request should not have: a bearer where none belongs, and what only a client sends.
    fn judge_head(&self, request: &Received, hub: Option<Hub>) {
        let query = tokens::query(request);
        let strays = query.iter().filter(|(name, _)| hub.is_none() || !name.eq_ignore_ascii_case(tokens::QUERY_NAME));
        for (name, value) in strays.clone() {
            self.judge_bytes(request.connection, "the query", format!("{name}={value}").as_bytes());
        }
        for (name, value) in request.headers.iter().filter(|(name, _)| *name != AUTHORIZATION) {
            self.judge_bytes(request.connection, name.as_str(), value.as_bytes());
        }
        self.judge_bytes(request.connection, "the path", request.path().as_bytes());
        if !request.path().eq_ignore_ascii_case("/api/Auth/loginKey") {
            self.judge_bytes(request.connection, "the body", &request.body);
        }
        if hub.is_some() && tokens::is_contradictory(request) {
            self.record.verdict(request.connection, "bearer: the query and the header differ");
        }
        if self.expects_a_proxy {
            for name in NOT_FROM_A_PROXY.iter().filter(|name| request.headers.contains_key(**name)) {
                self.record.verdict(request.connection, format!("proxy: header {name}"));
            }
            for (name, _) in strays {
                self.record.verdict(request.connection, format!("proxy: {name} in the query"));
            }
        }
    }

    /// A verdict if bytes that should hold no secret do.
    fn judge_bytes(&self, connection: u64, place: &str, bytes: &[u8]) {
        let state = self.state();
        let has_bearer = state.tokens.is_in(bytes);
        let mut keys = state.users.values().map(|held| held.key.secret.as_bytes());
        let has_key = keys.any(|key| !key.is_empty() && memchr::memmem::find(bytes, key).is_some());
        drop(state);
        if has_bearer {
            self.record.leak(connection, &format!("leak: a bearer in {place}"));
        }
        if has_key {
            self.record.leak(connection, &format!("leak: an API key in {place}"));
        }
    }
}

impl server::Exchange for ProjectX {
    fn answer(&self, request: &Received) -> Answer {
        rest::answer(self, request)
    }

    fn open(self: Arc<Self>, request: &Received, outbox: Outbox) -> Result<Box<dyn Conversation>, Answer> {
        let hub = Hub::at(&request.path().to_ascii_lowercase()).filter(|_| self.door(request) != Door::Rest);
        let hub = hub.ok_or_else(|| Answer::empty(StatusCode::NOT_FOUND))?;
        self.judge_head(request, Some(hub));
        let shown = tokens::shown(request, true).and_then(|token| Ok((self.holder(&token)?, token)));
        let (user, token) = shown.map_err(|why| rest::unauthorized(&self, request, why))?;
        let connection = request.connection;
        if let Some((_, id)) = tokens::query(request).into_iter().find(|(name, _)| name == "id") {
            let claimed = self.state().negotiated.claim(&id, &user, hub, connection);
            claimed.map_err(|status| {
                self.record.verdict(connection, format!("negotiate: id refused with {}", status.as_u16()));
                Answer::text(status, "text/plain", "No Connection with that ID")
            })?;
        }
        Ok(Box::new(hub::HubConversation::new(self, connection, hub, (user, token), outbox)))
    }

    fn tick(&self, now: UnixMillis) {
        if !self.faults.switches().hubs_end_with_token {
            return;
        }
        let mut state = self.state();
        let State { sockets, tokens, .. } = &mut *state;
        sockets.retain(|connection, socket| {
            let is_good = tokens.holder(&socket.token, now).is_ok();
            if !is_good {
                self.record.note(*connection, "bearer: over, and the hub connection with it");
                socket.end(None, true);
            }
            is_good
        });
    }
}

/// Which of the venue's hosts a client came to; `Both` where it came to no name of the venue's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Rest,
    Hubs,
    Both,
}

/// One of the two hubs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hub {
    User,
    Market,
}

impl Hub {
    /// The hub at a path in lower case.
    fn at(path: &str) -> Option<Self> {
        match path {
            "/hubs/user" => Some(Self::User),
            "/hubs/market" => Some(Self::Market),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct State {
    users: HashMap<String, User>,
    tokens: Tokens,
    negotiated: Negotiated,
    sockets: HashMap<u64, Socket>,
    logins: u64,
    validations: u64,
}

/// One user, and what it owns.
#[derive(Debug)]
struct User {
    key: SimKey,
    accounts: Vec<Account>,
    limits: Limits,
}

/// A name that nobody guesses, as negotiated connections have.
fn random_name() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    hex::encode(bytes)
}
