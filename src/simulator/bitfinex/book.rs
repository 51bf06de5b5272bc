//! One account at the simulated Bitfinex: wallets, orders, funding offers, whichever way they came in.
//!
//! Pure, and not a matching engine: a market order fills at once at the listed price, others rest until
//! [`Account::fill`] is asked to.

use super::market;
use crate::fresh::UnixMillis;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

/// Orders or offers open at one time.
const OPEN_MAX: usize = 10_000;
/// Closed orders and trades that are kept.
const HISTORY_MAX: usize = 1000;

static NEXT_ID: AtomicU64 = AtomicU64::new(149_000_000_001);

/// An order.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) id: u64,
    pub(super) group: Option<u64>,
    pub(super) client_id: u64,
    pub(super) symbol: String,
    pub(super) order_type: String,
    /// What is left, negative when selling.
    pub(super) amount: f64,
    pub(super) amount_original: f64,
    pub(super) price: f64,
    pub(super) price_average: f64,
    pub(super) status: String,
    pub(super) flags: u64,
    pub(super) created: UnixMillis,
    pub(super) updated: UnixMillis,
}

impl Order {
    /// The order's 32 places (docs.bitfinex.com, "Orders").
    pub(super) fn to_json(&self) -> Value {
        json!([
            self.id,
            self.group,
            self.client_id,
            self.symbol,
            self.created.0,
            self.updated.0,
            self.amount,
            self.amount_original,
            self.order_type,
            null,
            null,
            null,
            self.flags,
            self.status,
            null,
            null,
            self.price,
            self.price_average,
            0,
            0,
            null,
            null,
            null,
            0,
            0,
            null,
            null,
            null,
            "API>BFX",
            null,
            null,
            null
        ])
    }
}

/// A funding offer.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) id: u64,
    pub(super) symbol: String,
    offer_type: String,
    amount: f64,
    rate: f64,
    period: u64,
    status: &'static str,
    created: UnixMillis,
}

impl Offer {
    /// The offer's 21 places (docs.bitfinex.com, "Funding offers").
    pub(super) fn to_json(&self) -> Value {
        json!([
            self.id,
            self.symbol,
            self.created.0,
            self.created.0,
            self.amount,
            self.amount,
            self.offer_type,
            null,
            null,
            0,
            self.status,
            null,
            null,
            null,
            self.rate,
            self.period,
            0,
            0,
            null,
            0,
            null
        ])
    }
}

/// Which filter word lets a message through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topic {
    Trading(String),
    Funding(String),
    Wallet(String, String),
}

/// A message for every socket of the account.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) topic: Topic,
    pub(super) kind: &'static str,
    pub(super) payload: Value,
}

/// One account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) wallets: BTreeMap<(&'static str, String), f64>,
    pub(super) open: Vec<Order>,
    pub(super) closed: VecDeque<Order>,
    pub(super) trades: VecDeque<Value>,
    pub(super) offers: Vec<Offer>,
    /// Withdrawals and transfers, as they were asked for.
    pub(super) moved_out: Vec<Value>,
    told: Vec<Told>,
}

impl Account {
    /// An account with play money.
    pub(super) fn new() -> Self {
        let currencies = market::CURRENCIES.iter();
        Self {
            wallets: currencies.map(|currency| (("exchange", (*currency).to_owned()), 1_000_000.0)).collect(),
            open: Vec::new(),
            closed: VecDeque::new(),
            trades: VecDeque::new(),
            offers: Vec::new(),
            moved_out: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Places an order. The error is the venue's text.
    pub(super) fn place(&mut self, asked: &Map<String, Value>, now: UnixMillis) -> Result<Order, &'static str> {
        let symbol = asked.get("symbol").and_then(Value::as_str).unwrap_or_default();
        let pair = market::pair(symbol).ok_or("symbol: invalid")?;
        let order_type = asked.get("type").and_then(Value::as_str).ok_or("type: invalid")?;
        let amount = number(asked, "amount").filter(|amount| *amount != 0.0).ok_or("amount: invalid")?;
        let is_market = order_type.ends_with("MARKET");
        let price = match number(asked, "price").filter(|price| *price > 0.0) {
            Some(price) => price,
            None if is_market => pair.price,
            None => return Err("price: invalid"),
        };
        let (spent, needed) = if amount > 0.0 { (pair.quote, amount * price) } else { (pair.base, -amount) };
        if self.wallets.get(&("exchange", spent.to_owned())).is_none_or(|balance| *balance < needed) {
            return Err("Invalid order: not enough exchange balance");
        }
        if self.open.len() >= OPEN_MAX {
            return Err("Invalid order: too many open orders");
        }
        let order = Order {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            group: asked.get("gid").and_then(Value::as_u64),
            client_id: asked.get("cid").and_then(Value::as_u64).unwrap_or(now.0 % 86_400_000),
            symbol: symbol.to_owned(),
            order_type: order_type.to_owned(),
            amount,
            amount_original: amount,
            price,
            price_average: 0.0,
            status: "ACTIVE".into(),
            flags: asked.get("flags").and_then(Value::as_u64).unwrap_or(0),
            created: now,
            updated: now,
        };
        self.tell_order("on", &order);
        self.open.push(order.clone());
        if is_market {
            self.fill(order.id, amount.abs(), now);
        }
        Ok(order)
    }

    /// Changes an open order.
    pub(super) fn update(&mut self, asked: &Map<String, Value>, now: UnixMillis) -> Result<Order, &'static str> {
        let id = asked.get("id").and_then(Value::as_u64).ok_or("id: invalid")?;
        let order = self.open.iter_mut().find(|order| order.id == id).ok_or("Order not found.")?;
        if let Some(amount) = number(asked, "amount") {
            order.amount = amount;
        }
        if let Some(delta) = number(asked, "delta") {
            order.amount += delta;
        }
        if let Some(price) = number(asked, "price") {
            order.price = price;
        }
        order.updated = now;
        let order = order.clone();
        self.tell_order("ou", &order);
        Ok(order)
    }

    /// Cancels the one order that `id`, or `cid` with its date, names.
    pub(super) fn cancel(&mut self, asked: &Map<String, Value>, now: UnixMillis) -> Result<Order, &'static str> {
        let id = asked.get("id").and_then(Value::as_u64);
        let client_id = asked.get("cid").and_then(Value::as_u64).filter(|_| asked.contains_key("cid_date"));
        let is_meant = |order: &Order| Some(order.id) == id || (id.is_none() && Some(order.client_id) == client_id);
        self.cancel_where(is_meant, now).pop().ok_or("Order not found.")
    }

    /// Cancels those that `id`, `cid` or `gid` list, or all.
    pub(super) fn cancel_multi(&mut self, asked: &Map<String, Value>, now: UnixMillis) -> Vec<Order> {
        let list = |name: &str| asked.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let (ids, groups) = (list("id"), list("gid"));
        let clients: Vec<_> = list("cid").iter().filter_map(|pair| pair.get(0)?.as_u64()).collect();
        let is_all = asked.get("all").is_some_and(|all| *all == 1 || *all == true);
        let is_in = |list: &[Value], id: u64| list.iter().any(|one| one.as_u64() == Some(id));
        self.cancel_where(
            |order| {
                is_all
                    || is_in(&ids, order.id)
                    || clients.contains(&order.client_id)
                    || order.group.is_some_and(|group| is_in(&groups, group))
            },
            now,
        )
    }

    /// Cancels everything.
    pub(super) fn cancel_all(&mut self, now: UnixMillis) -> usize {
        self.cancel_where(|_| true, now).len()
    }

    /// Fills part or all of an open order; false if there is none.
    pub(super) fn fill(&mut self, id: u64, quantity: f64, now: UnixMillis) -> bool {
        let Some(at) = self.open.iter().position(|order| order.id == id) else { return false };
        let order = &mut self.open[at];
        let is_done = quantity >= order.amount.abs();
        let executed = if is_done { order.amount } else { quantity.copysign(order.amount) };
        order.amount = if is_done { 0.0 } else { order.amount - executed };
        order.price_average = order.price;
        order.updated = now;
        let word = if is_done { "EXECUTED" } else { "PARTIALLY FILLED" };
        order.status = format!("{word} @ {}({executed})", order.price);
        let order = order.clone();
        let trade_id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let trade = |fee: Value, currency: Value| {
            json!([
                trade_id,
                order.symbol,
                now.0,
                order.id,
                executed,
                order.price,
                order.order_type,
                order.price,
                1,
                fee,
                currency,
                order.client_id
            ])
        };
        let topic = Topic::Trading(order.symbol.clone());
        self.told.push(Told { topic: topic.clone(), kind: "te", payload: trade(Value::Null, Value::Null) });
        let finished = trade(json!(-0.0), json!("USD"));
        self.told.push(Told { topic, kind: "tu", payload: finished.clone() });
        keep(&mut self.trades, finished);
        if let Some(pair) = market::pair(&order.symbol) {
            self.credit(pair.base, executed, now);
            self.credit(pair.quote, -executed * order.price, now);
        }
        if is_done {
            self.open.remove(at);
            self.tell_order("oc", &order);
            keep(&mut self.closed, order);
        } else {
            self.tell_order("ou", &order);
        }
        true
    }

    /// Places a funding offer.
    pub(super) fn offer(&mut self, asked: &Map<String, Value>, now: UnixMillis) -> Result<Offer, &'static str> {
        let symbol = asked.get("symbol").and_then(Value::as_str).filter(|symbol| symbol.starts_with('f'));
        let offer = Offer {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            symbol: symbol.ok_or("symbol: invalid")?.to_owned(),
            offer_type: asked.get("type").and_then(Value::as_str).ok_or("type: invalid")?.to_owned(),
            amount: number(asked, "amount").ok_or("amount: invalid")?,
            rate: number(asked, "rate").ok_or("rate: invalid")?,
            period: asked.get("period").and_then(Value::as_u64).ok_or("period: invalid")?,
            status: "ACTIVE",
            created: now,
        };
        if self.offers.len() >= OPEN_MAX {
            return Err("too many offers");
        }
        self.tell_offer("fon", &offer);
        self.offers.push(offer.clone());
        Ok(offer)
    }

    /// Cancels a funding offer.
    pub(super) fn cancel_offer(&mut self, asked: &Map<String, Value>) -> Result<Offer, &'static str> {
        let id = asked.get("id").and_then(Value::as_u64);
        let at = self.offers.iter().position(|offer| Some(offer.id) == id).ok_or("Offer not found.")?;
        let mut offer = self.offers.remove(at);
        offer.status = "CANCELED";
        self.tell_offer("foc", &offer);
        Ok(offer)
    }

    /// Cancels every funding offer.
    pub(super) fn cancel_offers(&mut self) {
        for mut offer in std::mem::take(&mut self.offers) {
            offer.status = "CANCELED";
            self.tell_offer("foc", &offer);
        }
    }

    /// What the account's sockets have not been told yet.
    pub(super) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    fn cancel_where(&mut self, is_meant: impl Fn(&Order) -> bool, now: UnixMillis) -> Vec<Order> {
        let (mut meant, rest) = std::mem::take(&mut self.open).into_iter().partition::<Vec<_>, _>(is_meant);
        self.open = rest;
        for order in &mut meant {
            order.status = "CANCELED".into();
            order.updated = now;
            self.tell_order("oc", order);
            keep(&mut self.closed, order.clone());
        }
        meant
    }

    fn credit(&mut self, currency: &str, by: f64, now: UnixMillis) {
        let balance = self.wallets.entry(("exchange", currency.to_owned())).or_default();
        *balance += by;
        let payload = wallet("exchange", currency, *balance, now);
        self.told.push(Told { topic: Topic::Wallet("exchange".into(), currency.to_owned()), kind: "wu", payload });
    }

    fn tell_order(&mut self, kind: &'static str, order: &Order) {
        let topic = Topic::Trading(order.symbol.clone());
        self.told.push(Told { topic, kind, payload: order.to_json() });
    }

    fn tell_offer(&mut self, kind: &'static str, offer: &Offer) {
        let topic = Topic::Funding(offer.symbol.clone());
        self.told.push(Told { topic, kind, payload: offer.to_json() });
    }
}

/// A wallet's 7 places (docs.bitfinex.com, "Wallets").
pub(super) fn wallet(kind: &str, currency: &str, balance: f64, now: UnixMillis) -> Value {
    json!([kind, currency, balance, 0, balance, null, {"mts": now.0}])
}

/// A number, or a text of digits, as Bitfinex wants its amounts.
fn number(fields: &Map<String, Value>, name: &str) -> Option<f64> {
    match fields.get(name)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn keep<T>(history: &mut VecDeque<T>, item: T) {
    if history.len() == HISTORY_MAX {
        history.pop_front();
    }
    history.push_back(item);
}
