//! One account at the simulated Kraken: balances, orders and their life, whichever way they came in.
//!
//! Pure, and not a matching engine: a market order fills at once at the listed price, a limit order rests until
//! [`Account::fill`] is asked to.

use super::market::{self, Pair};
use crate::fresh::UnixMillis;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Orders open at one time; the venue's own limit is 225 for each pair at its highest tier.
const OPEN_MAX: usize = 10_000;
/// Closed orders and trades that are kept.
const HISTORY_MAX: usize = 1000;

/// What a client asks for, whatever its dialect calls it.
#[derive(Debug, Clone)]
pub(super) struct NewOrder {
    pub(super) pair: &'static Pair,
    pub(super) is_buy: bool,
    pub(super) order_type: String,
    pub(super) quantity: f64,
    pub(super) limit_price: Option<f64>,
    pub(super) time_in_force: String,
    pub(super) client_id: Option<String>,
    pub(super) user_reference: Option<i64>,
    pub(super) is_validation: bool,
}

/// An order that was taken.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) asked: NewOrder,
    pub(super) filled: f64,
    pub(super) cost: f64,
    pub(super) status: Status,
    pub(super) opened_at: UnixMillis,
    pub(super) closed_at: Option<UnixMillis>,
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    PendingNew,
    New,
    PartiallyFilled,
    Filled,
    Canceled,
}

impl Status {
    /// As WebSocket v2 calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PendingNew => "pending_new",
            Self::New => "new",
            Self::PartiallyFilled => "partially_filled",
            Self::Filled => "filled",
            Self::Canceled => "canceled",
        }
    }

    /// As REST and WebSocket v1 call it.
    pub(super) fn classic_name(self) -> &'static str {
        match self {
            Self::PendingNew => "pending",
            Self::New | Self::PartiallyFilled => "open",
            Self::Filled => "closed",
            Self::Canceled => "canceled",
        }
    }
}

/// Part of an order met its counterpart.
#[derive(Debug, Clone)]
pub(super) struct Trade {
    pub(super) id: String,
    pub(super) order: Order,
    pub(super) quantity: f64,
    pub(super) price: f64,
    pub(super) at: UnixMillis,
}

/// What subscribers are told.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    /// An order changed; the text is v2's `exec_type`.
    Order(&'static str, Order),
    Trade(Trade),
    Balance {
        asset: &'static str,
        amount: f64,
    },
}

/// One way to name an order.
#[derive(Debug, Clone)]
pub(super) enum OrderName {
    Id(String),
    ClientId(String),
    UserReference(i64),
}

impl OrderName {
    /// Text names an order or a client id, as REST's `txid` does; a number names a user reference.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(match text.parse() {
                Ok(reference) => Self::UserReference(reference),
                Err(_) => Self::Id(text.clone()),
            }),
            Value::Number(number) => number.as_i64().map(Self::UserReference),
            _ => None,
        }
    }

    fn names(&self, order: &Order) -> bool {
        match self {
            Self::Id(id) => order.id == *id,
            Self::ClientId(id) => order.asked.client_id.as_deref() == Some(id),
            Self::UserReference(reference) => order.asked.user_reference == Some(*reference),
        }
    }
}

/// One account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) balances: BTreeMap<&'static str, f64>,
    pub(super) open: Vec<Order>,
    pub(super) closed: VecDeque<Order>,
    pub(super) trades: VecDeque<Trade>,
    pub(super) withdrawals: Vec<Value>,
    dead_man: Option<UnixMillis>,
    happened: Vec<Happening>,
}

impl Account {
    /// An account with play money.
    pub(super) fn new() -> Self {
        Self {
            balances: market::ASSETS.iter().map(|asset| (asset.name, 1_000_000.0)).collect(),
            open: Vec::new(),
            closed: VecDeque::new(),
            trades: VecDeque::new(),
            withdrawals: Vec::new(),
            dead_man: None,
            happened: Vec::new(),
        }
    }

    /// Places an order. The error is the venue's text.
    pub(super) fn place(&mut self, asked: NewOrder, now: UnixMillis) -> Result<Order, &'static str> {
        if asked.quantity < asked.pair.order_minimum {
            return Err("EOrder:Order minimum not met");
        }
        if asked.limit_price.is_some_and(|price| price <= 0.0) {
            return Err("EOrder:Invalid price");
        }
        if self.open.len() >= OPEN_MAX {
            return Err("EOrder:Orders limit exceeded");
        }
        let price = asked.limit_price.unwrap_or(asked.pair.price);
        let (spent, amount) = if asked.is_buy {
            (asked.pair.quote.name, asked.quantity * price)
        } else {
            (asked.pair.base.name, asked.quantity)
        };
        if self.balances.get(spent).is_none_or(|balance| *balance < amount) {
            return Err("EOrder:Insufficient funds");
        }
        let is_market = asked.order_type == "market";
        let needs_price = asked.order_type.ends_with("limit") || asked.order_type == "iceberg";
        if needs_price && asked.limit_price.is_none() {
            return Err("EGeneral:Invalid arguments:price");
        }
        let is_validation = asked.is_validation;
        let mut order = Order {
            id: super::random_id('O'),
            asked,
            filled: 0.0,
            cost: 0.0,
            status: Status::PendingNew,
            opened_at: now,
            closed_at: None,
        };
        if is_validation {
            return Ok(order);
        }
        self.happened.push(Happening::Order("pending_new", order.clone()));
        order.status = Status::New;
        self.happened.push(Happening::Order("new", order.clone()));
        let placed = order.clone();
        self.open.push(order);
        if is_market {
            self.fill(&placed.id, placed.asked.quantity, now);
        }
        Ok(placed)
    }

    /// Fills part or all of an open order; false if there is none.
    pub(super) fn fill(&mut self, id: &str, quantity: f64, now: UnixMillis) -> bool {
        let Some(at) = self.open.iter().position(|order| order.id == id) else { return false };
        let order = &mut self.open[at];
        let pair = order.asked.pair;
        let price = order.asked.limit_price.unwrap_or(pair.price);
        let quantity = quantity.min(order.asked.quantity - order.filled);
        // Not by addition alone: parts of a double need not add up to the whole.
        let is_done = quantity >= order.asked.quantity - order.filled;
        order.filled = if is_done { order.asked.quantity } else { order.filled + quantity };
        order.cost += quantity * price;
        order.status = if is_done { Status::Filled } else { Status::PartiallyFilled };
        let sign = if order.asked.is_buy { 1.0 } else { -1.0 };
        let trade = Trade { id: super::random_id('T'), order: order.clone(), quantity, price, at: now };
        let order = order.clone();
        self.happened.push(Happening::Trade(trade.clone()));
        keep(&mut self.trades, trade);
        self.credit(pair.base.name, sign * quantity);
        self.credit(pair.quote.name, -sign * quantity * price);
        if is_done {
            self.happened.push(Happening::Order("filled", order));
            self.close(at, now);
        }
        true
    }

    /// Cancels every open order that has this name.
    pub(super) fn cancel(&mut self, name: &OrderName, now: UnixMillis) -> Vec<Order> {
        let mut canceled = Vec::new();
        while let Some(at) = self.open.iter().position(|order| name.names(order)) {
            self.open[at].status = Status::Canceled;
            let order = self.close(at, now);
            self.happened.push(Happening::Order("canceled", order.clone()));
            canceled.push(order);
        }
        canceled
    }

    /// Cancels everything.
    pub(super) fn cancel_all(&mut self, now: UnixMillis) -> usize {
        let ids: Vec<_> = self.open.iter().map(|order| order.id.clone()).collect();
        ids.iter().map(|id| self.cancel(&OrderName::Id(id.clone()), now).len()).sum()
    }

    /// Changes an open order in place.
    pub(super) fn amend(
        &mut self,
        name: &OrderName,
        quantity: Option<f64>,
        limit_price: Option<f64>,
    ) -> Result<Order, &'static str> {
        let order = self.open.iter_mut().find(|order| name.names(order)).ok_or("EOrder:Unknown order")?;
        order.asked.quantity = quantity.unwrap_or(order.asked.quantity);
        order.asked.limit_price = limit_price.or(order.asked.limit_price);
        let order = order.clone();
        self.happened.push(Happening::Order("amended", order.clone()));
        Ok(order)
    }

    /// Replaces an open order by a new one.
    pub(super) fn edit(
        &mut self,
        name: &OrderName,
        quantity: Option<f64>,
        limit_price: Option<f64>,
        now: UnixMillis,
    ) -> Result<(Order, Order), &'static str> {
        let old = self.cancel(name, now).into_iter().next().ok_or("EOrder:Unknown order")?;
        let mut asked = old.asked.clone();
        asked.quantity = quantity.unwrap_or(asked.quantity);
        asked.limit_price = limit_price.or(asked.limit_price);
        let new = self.place(asked, now)?;
        Ok((old, new))
    }

    /// Cancels everything after `timeout` unless asked again; zero stops the timer. Returns when it will fire.
    pub(super) fn arm(&mut self, timeout: Duration, now: UnixMillis) -> Option<UnixMillis> {
        self.dead_man = (!timeout.is_zero()).then(|| now.plus(timeout));
        self.dead_man
    }

    /// Whether the timer runs.
    pub(super) fn is_armed(&self) -> bool {
        self.dead_man.is_some()
    }

    /// Fires the timer if it is due.
    pub(super) fn tick(&mut self, now: UnixMillis) {
        if self.dead_man.is_some_and(|at| at <= now) {
            self.dead_man = None;
            self.cancel_all(now);
        }
    }

    /// What subscribers have not been told yet.
    pub(super) fn take_happenings(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happened)
    }

    fn credit(&mut self, asset: &'static str, by: f64) {
        let balance = self.balances.entry(asset).or_default();
        *balance += by;
        let amount = *balance;
        self.happened.push(Happening::Balance { asset, amount });
    }

    fn close(&mut self, at: usize, now: UnixMillis) -> Order {
        let mut order = self.open.remove(at);
        order.closed_at = Some(now);
        keep(&mut self.closed, order.clone());
        order
    }
}

fn keep<T>(history: &mut VecDeque<T>, item: T) {
    if history.len() == HISTORY_MAX {
        history.pop_front();
    }
    history.push_back(item);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    fn limit_buy(quantity: f64) -> NewOrder {
        NewOrder {
            pair: &market::PAIRS[0],
            is_buy: true,
            order_type: "limit".into(),
            quantity,
            limit_price: Some(100.0),
            time_in_force: "gtc".into(),
            client_id: None,
            user_reference: Some(7),
            is_validation: false,
        }
    }

    #[test]
    fn an_order_rests_is_filled_and_moves_money() {
        let mut account = Account::new();
        let order = account.place(limit_buy(2.0), UnixMillis(1)).unwrap();
        assert!(account.fill(&order.id, 0.5, UnixMillis(2)));
        assert_eq!(account.open[0].status, Status::PartiallyFilled);
        assert!(account.fill(&order.id, 5.0, UnixMillis(3)));
        assert!(account.open.is_empty());
        assert_eq!((account.balances["BTC"], account.balances["USD"]), (1_000_002.0, 999_800.0));
        assert!(!account.fill(&order.id, 1.0, UnixMillis(4)));
    }

    #[test]
    fn the_dead_man_timer_cancels_once_and_can_be_stopped() {
        let mut account = Account::new();
        account.place(limit_buy(1.0), UnixMillis(0)).unwrap();
        account.arm(Duration::from_secs(60), UnixMillis(0));
        account.arm(Duration::ZERO, UnixMillis(1));
        account.tick(UnixMillis(60_000));
        assert_eq!(account.open.len(), 1);
        account.arm(Duration::from_secs(60), UnixMillis(0));
        account.tick(UnixMillis(60_000));
        assert_eq!((account.open.len(), account.is_armed()), (0, false));
    }
}
