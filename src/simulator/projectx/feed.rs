//! Who is subscribed to what on the simulated ProjectX' hubs, and what they are told.

use super::book::{Account, Happening};
use super::market::Contract;
use super::{Hub, State};
use crate::fresh::UnixMillis;
use crate::simulator::socket::Outbox;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Ends every record of a hub (ASP.NET Core SignalR, "Hub Protocol": JSON encoding).
pub(super) const RECORD_END: char = '\u{1e}';

/// What a hub's method subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Channel {
    Accounts,
    Orders,
    Positions,
    Trades,
    Quotes,
    ContractTrades,
    Depth,
}

impl Channel {
    /// The channel that a method's name in lower case ends with.
    pub(super) fn named(hub: Hub, name: &str) -> Option<Self> {
        match (hub, name) {
            (Hub::User, "accounts") => Some(Self::Accounts),
            (Hub::User, "orders") => Some(Self::Orders),
            (Hub::User, "positions") => Some(Self::Positions),
            (Hub::User, "trades") => Some(Self::Trades),
            (Hub::Market, "contractquotes") => Some(Self::Quotes),
            (Hub::Market, "contracttrades") => Some(Self::ContractTrades),
            (Hub::Market, "contractmarketdepth") => Some(Self::Depth),
            (Hub::User | Hub::Market, _) => None,
        }
    }
}

/// One hub connection, as what is sent to it needs to know it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) outbox: Outbox,
    pub(super) user: String,
    pub(super) token: String,
    /// Nothing is sent before the handshake.
    pub(super) is_greeted: bool,
    /// Channels, each with an account or a contract; `Accounts` with nothing.
    pub(super) subscriptions: BTreeSet<(Channel, String)>,
}

impl Socket {
    pub(super) fn wants(&self, channel: Channel, subject: &str) -> bool {
        self.is_greeted && self.subscriptions.iter().any(|(of, about)| *of == channel && about == subject)
    }

    /// Says good-bye as the framework does, and closes.
    pub(super) fn end(&self, error: Option<&str>, may_reconnect: bool) {
        if self.is_greeted {
            let mut told = json!({"type": 7});
            if let Some(error) = error {
                told["error"] = json!(error);
            }
            if may_reconnect {
                told["allowReconnect"] = json!(true);
            }
            self.outbox.text(record(&told));
        }
        self.outbox.close(1000, "");
    }
}

/// A record on the wire.
pub(super) fn record(value: &Value) -> String {
    format!("{value}{RECORD_END}")
}

/// An event on the wire.
pub(super) fn event(target: &str, arguments: &Value) -> String {
    record(&json!({"type": 1, "target": target, "arguments": arguments}))
}

/// What a user event's data looks like: wrapped in practice, plain in the documentation.
pub(super) fn wrapped(data: &Value, is_unwrapped: bool) -> Value {
    if is_unwrapped { json!([data]) } else { json!([{"action": 1, "data": data}]) }
}

impl State {
    /// Tells a user's subscribers what has happened to its accounts.
    pub(super) fn publish(&mut self, user: &str, is_unwrapped: bool) {
        let Some(held) = self.users.get_mut(user) else { return };
        for account in &mut held.accounts {
            for happening in account.take_happenings() {
                let subject = account.id.to_string();
                let (channel, target, subject, data) = match happening {
                    Happening::Account(data) => (Channel::Accounts, "GatewayUserAccount", "", data),
                    Happening::Order(data) => (Channel::Orders, "GatewayUserOrder", &*subject, data),
                    Happening::Position(data) => (Channel::Positions, "GatewayUserPosition", &*subject, data),
                    Happening::Trade(data) => (Channel::Trades, "GatewayUserTrade", &*subject, data),
                };
                let told = event(target, &wrapped(&data, is_unwrapped));
                let wanting = self.sockets.values().filter(|it| it.user == user && it.wants(channel, subject));
                wanting.for_each(|socket| socket.outbox.text(told.clone()));
            }
        }
    }

    /// Tells everybody who subscribed of a contract; how many those are. Each gets all of it in one message.
    pub(super) fn tell_of(&self, contract: &Contract, channels: &[Channel], now: UnixMillis) -> usize {
        let mut count = 0;
        for socket in self.sockets.values() {
            let wanted = channels.iter().filter(|channel| socket.wants(**channel, contract.id));
            let told: String = wanted.filter_map(|channel| market_event(*channel, contract, now)).collect();
            if !told.is_empty() {
                socket.outbox.text(told);
                count += 1;
            }
        }
        count
    }

    /// Whether the user has an account with this id.
    pub(super) fn owns(&self, user: &str, account: i64) -> bool {
        let mut accounts = self.users.get(user).into_iter().flat_map(|held| &held.accounts);
        accounts.any(|held| held.id == account)
    }

    /// What a socket is told before it asked for anything.
    pub(super) fn first_event(&self, socket: &Socket, is_unwrapped: bool) -> String {
        let account = self.users.get(&socket.user).and_then(|held| held.accounts.first()).map(Account::to_json);
        event("GatewayUserAccount", &wrapped(&account.unwrap_or_default(), is_unwrapped))
    }
}

/// An event of the market hub: quotes with what changed alone, trades and depth as lists.
fn market_event(channel: Channel, contract: &Contract, now: UnixMillis) -> Option<String> {
    let (target, data) = match channel {
        Channel::Quotes => ("GatewayQuote", contract.sparse_quote(now)),
        Channel::ContractTrades => ("GatewayTrade", json!([contract.trade(now)])),
        Channel::Depth => ("GatewayDepth", contract.depth(now)),
        Channel::Accounts | Channel::Orders | Channel::Positions | Channel::Trades => return None,
    };
    Some(event(target, &json!([contract.id, data])))
}
