//! One account at the simulated ProjectX: balance, orders, positions, trades.
//!
//! Pure, and not a matching engine: a market order fills at once at the listed price, others rest until
//! [`Account::fill`] is asked to. Brackets are taken and not worked.

use super::market::{Contract, timestamp};
use crate::fresh::UnixMillis;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Orders kept, open or not; the oldest that is not open is forgotten.
const ORDERS_MAX: usize = 10_000;
/// Trades that are kept.
const TRADES_MAX: usize = 1000;

static NEXT_ID: AtomicU64 = AtomicU64::new(9_000_001);

fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// Buying or selling, as the venue counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Bid,
    Ask,
}

impl Side {
    pub(super) fn from_code(code: i64) -> Option<Self> {
        [Self::Bid, Self::Ask].into_iter().find(|side| side.code() == code)
    }

    fn code(self) -> i64 {
        match self {
            Self::Bid => 0,
            Self::Ask => 1,
        }
    }

    /// `size` with the sign of this side.
    fn signed(self, size: i64) -> i64 {
        match self {
            Self::Bid => size,
            Self::Ask => -size,
        }
    }
}

/// Where an order is in its life, as the venue counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Open = 1,
    Filled = 2,
    Cancelled = 3,
}

/// The venue's number for a market order.
pub(super) const MARKET: i64 = 2;

/// What an order asks for.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) contract: &'static Contract,
    pub(super) kind: i64,
    pub(super) side: Side,
    pub(super) size: i64,
    pub(super) limit_price: Option<f64>,
    pub(super) stop_price: Option<f64>,
    pub(super) trail_price: Option<f64>,
    pub(super) tag: Option<String>,
}

/// An order.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: u64,
    pub(super) wish: Wish,
    pub(super) status: Status,
    pub(super) created: UnixMillis,
    account: i64,
    updated: UnixMillis,
    filled: i64,
    filled_price: Option<f64>,
}

impl Order {
    /// The order as REST and hub tell it (gateway.docs.projectx.com, "Search for orders").
    pub(super) fn to_json(&self) -> Value {
        let wish = &self.wish;
        json!({
            "id": self.id, "accountId": self.account, "contractId": wish.contract.id, "symbolId": wish.contract.symbol,
            "creationTimestamp": timestamp(self.created), "updateTimestamp": timestamp(self.updated),
            "status": self.status as u8, "type": wish.kind, "side": wish.side.code(), "size": wish.size,
            "limitPrice": wish.limit_price, "stopPrice": wish.stop_price, "trailPrice": wish.trail_price,
            "fillVolume": self.filled, "filledPrice": self.filled_price, "customTag": wish.tag,
        })
    }
}

/// What an account holds of one contract; negative when short.
#[derive(Debug)]
struct Position {
    id: u64,
    created: UnixMillis,
    size: i64,
    average_price: f64,
}

/// A trade.
#[derive(Debug)]
pub(super) struct Trade {
    pub(super) at: UnixMillis,
    pub(super) told: Value,
}

/// Something that a subscriber of the user hub is told.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    Account(Value),
    Order(Value),
    Position(Value),
    Trade(Value),
}

/// One account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) is_active: bool,
    balance: f64,
    pub(super) orders: Vec<Order>,
    positions: BTreeMap<&'static str, Position>,
    pub(super) trades: Vec<Trade>,
    happened: Vec<Happening>,
}

impl Account {
    pub(super) fn new(id: i64, name: String, is_active: bool) -> Self {
        let (orders, positions, trades, happened) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
        Self { id, name, is_active, balance: 50_000.0, orders, positions, trades, happened }
    }

    /// The account as REST and hub tell it.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "balance": self.balance, "canTrade": self.is_active,
            "isVisible": self.is_active, "simulated": true,
        })
    }

    pub(super) fn open_orders(&self) -> impl Iterator<Item = &Order> {
        self.orders.iter().filter(|order| order.status == Status::Open)
    }

    pub(super) fn positions(&self) -> Vec<Value> {
        self.positions.iter().map(|(contract, position)| position.to_json(self.id, contract)).collect()
    }

    /// How much is held of a contract; negative when short, none if nothing is.
    pub(super) fn held(&self, contract: &str) -> Option<i64> {
        self.positions.get(contract).map(|position| position.size)
    }

    /// Takes an order, and fills it if it is a market order.
    pub(super) fn place(&mut self, wish: Wish, now: UnixMillis) -> u64 {
        if self.orders.len() == ORDERS_MAX
            && let Some(at) = self.orders.iter().position(|order| order.status != Status::Open)
        {
            self.orders.remove(at);
        }
        let (id, size, is_market) = (next_id(), wish.size, wish.kind == MARKET);
        let (status, account) = (Status::Open, self.id);
        let order = Order { id, wish, status, account, created: now, updated: now, filled: 0, filled_price: None };
        self.happened.push(Happening::Order(order.to_json()));
        self.orders.push(order);
        if is_market {
            self.fill(id, size, now);
        }
        id
    }

    /// An order that is still open.
    pub(super) fn open(&mut self, id: i64) -> Option<&mut Order> {
        let id = u64::try_from(id).ok()?;
        self.orders.iter_mut().find(|order| order.id == id && order.status == Status::Open)
    }

    /// Tells of an order that was changed in place, with its new status.
    pub(super) fn change(&mut self, id: i64, status: Status, now: UnixMillis) {
        if let Some(order) = self.open(id) {
            order.status = status;
            order.updated = now;
            let told = order.to_json();
            self.happened.push(Happening::Order(told));
        }
    }

    /// Fills an open order, up to `size`; false if there is none.
    pub(super) fn fill(&mut self, id: u64, size: i64, now: UnixMillis) -> bool {
        let open = |order: &&mut Order| order.id == id && order.status == Status::Open;
        let Some(order) = self.orders.iter_mut().find(open) else { return false };
        let size = size.min(order.wish.size - order.filled);
        let price = order.wish.limit_price.unwrap_or(order.wish.contract.price);
        order.filled += size;
        order.filled_price = Some(price);
        order.updated = now;
        if order.filled == order.wish.size {
            order.status = Status::Filled;
        }
        let (contract, side) = (order.wish.contract, order.wish.side);
        let told = order.to_json();
        self.happened.push(Happening::Order(told));
        let profit = self.hold(contract, side.signed(size), price, now);
        let trade = json!({
            "id": next_id(), "accountId": self.id, "contractId": contract.id, "creationTimestamp": timestamp(now),
            "price": price, "profitAndLoss": profit, "fees": 0.37, "side": side.code(), "size": size, "voided": false,
            "orderId": id,
        });
        self.balance += profit.unwrap_or_default() - 0.37;
        if self.trades.len() == TRADES_MAX {
            self.trades.remove(0);
        }
        self.trades.push(Trade { at: now, told: trade.clone() });
        self.happened.push(Happening::Trade(trade));
        self.happened.push(Happening::Account(self.to_json()));
        true
    }

    /// Adds to a position; what was earned by making it smaller, if it was.
    fn hold(&mut self, contract: &'static Contract, more: i64, price: f64, now: UnixMillis) -> Option<f64> {
        let fresh = Position { id: next_id(), created: now, size: 0, average_price: price };
        let position = self.positions.entry(contract.id).or_insert(fresh);
        let (before, after) = (position.size, position.size + more);
        let closed = if before.signum() == -more.signum() { before.abs().min(more.abs()) } else { 0 };
        let earned = (closed > 0).then(|| {
            let ticks = (price - position.average_price) / contract.tick_size * float(closed * before.signum());
            ticks * contract.tick_value
        });
        if closed == 0 && after != 0 {
            let (held, added) = (float(before.abs()), float(more.abs()));
            position.average_price = (position.average_price * held + price * added) / (held + added);
        } else if after.signum() == -before.signum() && after != 0 {
            position.average_price = price;
        }
        position.size = after;
        let told = position.to_json(self.id, contract.id);
        if after == 0 {
            self.positions.remove(contract.id);
        }
        self.happened.push(Happening::Position(told));
        earned
    }

    pub(super) fn take_happenings(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happened)
    }
}

impl Position {
    /// Size 0 and type 0 where it has been closed.
    fn to_json(&self, account: i64, contract: &str) -> Value {
        let kind = match self.size.signum() {
            1 => 1,
            -1 => 2,
            _ => 0,
        };
        json!({
            "id": self.id, "accountId": account, "contractId": contract, "creationTimestamp": timestamp(self.created),
            "type": kind, "size": self.size.abs(), "averagePrice": self.average_price,
        })
    }
}

/// Sizes are a few lots; one that is not would be worth nothing.
fn float(size: i64) -> f64 {
    i32::try_from(size).map(f64::from).unwrap_or_default()
}

/// The order that makes a position smaller by `size`.
pub(super) fn closing(contract: &'static Contract, held: i64, size: i64) -> Wish {
    let side = if held > 0 { Side::Ask } else { Side::Bid };
    Wish { contract, kind: MARKET, side, size, limit_price: None, stop_price: None, trail_price: None, tag: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::projectx::market;

    const NOW: UnixMillis = UnixMillis(1_753_218_000_000);

    fn account() -> Account {
        Account::new(7, "A".to_owned(), true)
    }

    fn wish(kind: i64, side: Side, size: i64) -> Wish {
        let contract = market::find("CON.F.US.EP.Z26").expect("it is listed");
        Wish { contract, kind, side, size, limit_price: None, stop_price: None, trail_price: None, tag: None }
    }

    #[test]
    fn a_market_order_fills_and_a_limit_order_rests() {
        let mut account = account();
        account.place(wish(MARKET, Side::Bid, 2), NOW);
        assert_eq!(account.held("CON.F.US.EP.Z26"), Some(2));
        let id = account.place(Wish { limit_price: Some(6400.0), ..wish(1, Side::Bid, 1) }, NOW);
        assert_eq!(account.open_orders().map(|order| order.id).collect::<Vec<_>>(), [id]);
        assert!(account.fill(id, 1, NOW) && !account.fill(id, 1, NOW));
        assert_eq!(account.positions()[0]["averagePrice"], (6500.25 * 2.0 + 6400.0) / 3.0);
    }

    #[test]
    fn closing_earns_what_the_price_moved() {
        let mut account = account();
        let cheap = account.place(Wish { limit_price: Some(6490.25), ..wish(1, Side::Bid, 1) }, NOW);
        account.fill(cheap, 1, NOW);
        account.take_happenings();
        account.place(wish(MARKET, Side::Ask, 1), NOW);
        assert_eq!(account.held("CON.F.US.EP.Z26"), None);
        // Forty ticks of 12.50.
        assert_eq!(account.trades.last().map(|trade| trade.told["profitAndLoss"].clone()), Some(json!(500.0)));
        let happened = account.take_happenings();
        let closed = happened.iter().find_map(|it| match it {
            Happening::Position(told) => Some((told["type"].clone(), told["size"].clone())),
            Happening::Account(_) | Happening::Order(_) | Happening::Trade(_) => None,
        });
        assert_eq!(closed, Some((json!(0), json!(0))));
    }

    #[test]
    fn a_position_that_turns_starts_at_the_new_price() {
        let mut account = account();
        account.place(wish(MARKET, Side::Bid, 1), NOW);
        let id = account.place(Wish { limit_price: Some(6600.0), ..wish(1, Side::Ask, 3) }, NOW);
        account.fill(id, 3, NOW);
        let position = &account.positions()[0];
        assert_eq!(
            (&position["type"], &position["size"], &position["averagePrice"]),
            (&json!(2), &json!(2), &json!(6600.0))
        );
    }
}
