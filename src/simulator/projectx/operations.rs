//! What the simulated ProjectX' REST operations do, once the bearer is known (gateway.docs.projectx.com, "API reference").

use super::book::{self, Account, MARKET, Order, Side, Status, Wish};
use super::fields::{Fields, Invalid};
use super::market::{self, BARS_MAX};
use crate::fresh::UnixMillis;
use serde_json::{Value, json};

/// Orders that one page of `v2/query` has where the request says nothing.
const PAGE_DEFAULT: usize = 100;

/// An operation that needs a bearer and has a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    AccountSearch,
    ContractAvailable,
    ContractSearch,
    ContractSearchById,
    RetrieveBars,
    OrderSearch,
    OrderSearchOpen,
    OrderSearchById,
    OrderQuery,
    OrderPlace,
    OrderModify,
    OrderCancel,
    PositionSearchOpen,
    CloseContract,
    PartialCloseContract,
    TradeSearch,
}

impl Operation {
    /// The operation at a path in lower case.
    pub(super) fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/api/account/search" => Self::AccountSearch,
            "/api/contract/available" => Self::ContractAvailable,
            "/api/contract/search" => Self::ContractSearch,
            "/api/contract/searchbyid" => Self::ContractSearchById,
            "/api/history/retrievebars" => Self::RetrieveBars,
            "/api/order/search" => Self::OrderSearch,
            "/api/order/searchopen" => Self::OrderSearchOpen,
            "/api/order/searchbyid" => Self::OrderSearchById,
            "/api/order/v2/query" => Self::OrderQuery,
            "/api/order/place" => Self::OrderPlace,
            "/api/order/modify" => Self::OrderModify,
            "/api/order/cancel" => Self::OrderCancel,
            "/api/position/searchopen" => Self::PositionSearchOpen,
            "/api/position/closecontract" => Self::CloseContract,
            "/api/position/partialclosecontract" => Self::PartialCloseContract,
            "/api/trade/search" => Self::TradeSearch,
            _ => return None,
        })
    }

    /// The member that is null where the operation failed.
    pub(super) fn result_name(self) -> Option<&'static str> {
        match self {
            Self::AccountSearch => Some("accounts"),
            Self::ContractAvailable | Self::ContractSearch => Some("contracts"),
            Self::ContractSearchById => Some("contract"),
            Self::RetrieveBars => Some("bars"),
            Self::OrderSearch | Self::OrderSearchOpen | Self::OrderQuery => Some("orders"),
            Self::OrderSearchById => Some("order"),
            Self::OrderPlace => Some("orderId"),
            Self::PositionSearchOpen => Some("positions"),
            Self::TradeSearch => Some("trades"),
            Self::OrderModify | Self::OrderCancel | Self::CloseContract | Self::PartialCloseContract => None,
        }
    }
}

/// Why an operation was not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// HTTP 200 with the operation's own code, and seldom a text.
    Code(u32, Option<&'static str>),
    /// HTTP 400.
    Invalid(&'static str),
}

impl From<Invalid> for Refusal {
    fn from(Invalid(name): Invalid) -> Self {
        Self::Invalid(name)
    }
}

const ACCOUNT_NOT_FOUND: Refusal = Refusal::Code(1, None);

/// Does what was asked, and says what the answer has beside its envelope.
pub(super) fn execute(
    accounts: &mut [Account],
    operation: Operation,
    fields: &Fields,
    now: UnixMillis,
) -> Result<Value, Refusal> {
    Ok(match operation {
        Operation::AccountSearch => {
            let only_active = fields.flag("onlyActiveAccounts")?;
            let told = accounts.iter().filter(|account| account.is_active || !only_active).map(Account::to_json);
            json!({"accounts": told.collect::<Vec<_>>()})
        }
        Operation::ContractAvailable => {
            fields.flag("live")?;
            json!({"contracts": market::available()})
        }
        Operation::ContractSearch => {
            fields.flag("live")?;
            json!({"contracts": market::search(fields.optional("searchText", Fields::text)?.unwrap_or_default())})
        }
        Operation::ContractSearchById => {
            let contract = market::find(fields.text("contractId")?).ok_or(Refusal::Code(1, None))?;
            json!({"contract": contract.to_json()})
        }
        Operation::RetrieveBars => json!({"bars": bars(fields, now)?}),
        Operation::OrderSearch => {
            let account = account(accounts, fields)?;
            let (start, end) = span(fields, now)?;
            let told = account.orders.iter().filter(|order| (start..=end).contains(&order.created)).map(Order::to_json);
            json!({"orders": told.collect::<Vec<_>>()})
        }
        Operation::OrderSearchOpen => {
            let told = account(accounts, fields)?.open_orders().map(Order::to_json);
            json!({"orders": told.collect::<Vec<_>>()})
        }
        Operation::OrderSearchById => {
            let id = fields.integer("orderId")?;
            let mut orders = accounts.iter().flat_map(|account| &account.orders);
            let order = orders.find(|order| i64::try_from(order.id) == Ok(id)).ok_or(Refusal::Code(1, None))?;
            json!({"order": order.to_json()})
        }
        Operation::OrderQuery => query(accounts, fields)?,
        Operation::OrderPlace => place(accounts, fields, now)?,
        Operation::OrderModify => modify(accounts, fields, now)?,
        Operation::OrderCancel => {
            let account = account(accounts, fields)?;
            let id = fields.integer("orderId")?;
            account.open(id).ok_or(Refusal::Code(2, None))?;
            account.change(id, Status::Cancelled, now);
            json!({})
        }
        Operation::PositionSearchOpen => json!({"positions": account(accounts, fields)?.positions()}),
        Operation::CloseContract => close(accounts, fields, false, now)?,
        Operation::PartialCloseContract => close(accounts, fields, true, now)?,
        Operation::TradeSearch => {
            let account = account(accounts, fields)?;
            let (start, end) = span(fields, now)?;
            let told = account.trades.iter().filter(|trade| (start..=end).contains(&trade.at));
            json!({"trades": told.map(|trade| &trade.told).collect::<Vec<_>>()})
        }
    })
}

/// The user's account that a request names.
fn account<'a>(accounts: &'a mut [Account], fields: &Fields) -> Result<&'a mut Account, Refusal> {
    let id = fields.integer("accountId")?;
    accounts.iter_mut().find(|account| account.id == id).ok_or(ACCOUNT_NOT_FOUND)
}

fn span(fields: &Fields, now: UnixMillis) -> Result<(UnixMillis, UnixMillis), Invalid> {
    Ok((moment(fields, "startTimestamp")?, fields.optional("endTimestamp", moment)?.unwrap_or(now)))
}

fn moment(fields: &Fields, name: &'static str) -> Result<UnixMillis, Invalid> {
    market::moment(fields.text(name)?).ok_or(Invalid(name))
}

fn bars(fields: &Fields, now: UnixMillis) -> Result<Vec<Value>, Refusal> {
    let contract = market::find(fields.text("contractId")?).ok_or(Refusal::Code(1, None))?;
    let (start, end) = (moment(fields, "startTime")?, moment(fields, "endTime")?.min(now));
    let unit = market::unit_millis(fields.integer("unit")?).ok_or(Refusal::Code(2, None))?;
    let count = u64::try_from(fields.integer("unitNumber")?).ok().filter(|count| *count > 0);
    let span = count.and_then(|count| unit.checked_mul(count)).ok_or(Refusal::Code(3, None))?;
    let limit = fields.integer("limit")?;
    let limit =
        usize::try_from(limit).ok().filter(|_| (1..=BARS_MAX).contains(&limit)).ok_or(Refusal::Code(4, None))?;
    fields.flag("live")?;
    fields.flag("includePartialBar")?;
    Ok(contract.bars(start, end, span, limit))
}

fn query(accounts: &mut [Account], fields: &Fields) -> Result<Value, Refusal> {
    let filter = fields.within("filter")?;
    let account = account(accounts, &filter)?;
    let statuses = filter.optional("statuses", Fields::integers)?.filter(|statuses| !statuses.is_empty());
    let contract = filter.optional("contractId", Fields::text)?;
    let after = filter.optional("createdAfter", moment)?;
    let before = filter.optional("createdBefore", moment)?;
    let fits = |order: &&Order| {
        statuses.as_ref().is_none_or(|statuses| statuses.contains(&(order.status as i64)))
            && contract.is_none_or(|id| id == order.wish.contract.id)
            && after.is_none_or(|at| order.created >= at)
            && before.is_none_or(|at| order.created <= at)
    };
    let mut found: Vec<_> = account.orders.iter().filter(fits).collect();
    // Both ways to sort are the way in which orders came.
    if fields.optional("sortDirection", Fields::integer)? == Some(1) {
        found.reverse();
    }
    let count = |fields: &Fields, name| usize::try_from(fields.integer(name)?).map_err(|_| Invalid(name));
    let size = fields.optional("pageSize", count)?.unwrap_or(PAGE_DEFAULT);
    let offset = fields.optional("pageOffset", count)?.unwrap_or_default();
    let page: Vec<_> = found.iter().skip(offset).take(size).map(|order| order.to_json()).collect();
    let total = fields.flag("includeTotalCount")?.then_some(found.len());
    Ok(json!({"orders": page, "totalCount": total}))
}

fn place(accounts: &mut [Account], fields: &Fields, now: UnixMillis) -> Result<Value, Refusal> {
    let account = account(accounts, fields)?;
    let contract = market::find(fields.text("contractId")?).ok_or(Refusal::Code(8, None))?;
    let (kind, size) = (fields.integer("type")?, fields.integer("size")?);
    let side = Side::from_code(fields.integer("side")?).ok_or(Refusal::Invalid("side"))?;
    let wish = Wish {
        contract,
        kind,
        side,
        size,
        limit_price: fields.optional("limitPrice", Fields::number)?,
        stop_price: fields.optional("stopPrice", Fields::number)?,
        trail_price: fields.optional("trailPrice", Fields::number)?,
        tag: fields.optional("customTag", Fields::text)?.map(str::to_owned),
    };
    for bracket in ["stopLossBracket", "takeProfitBracket"] {
        if let Some(bracket) = fields.optional(bracket, Fields::within)? {
            bracket.integer("ticks").and(bracket.integer("type"))?;
        }
    }
    if !account.is_active {
        return Err(Refusal::Code(10, None));
    }
    if !contract.is_active {
        return Err(Refusal::Code(9, None));
    }
    let has_its_prices = match kind {
        1 => wish.limit_price.is_some(),
        3 => wish.limit_price.is_some() && wish.stop_price.is_some(),
        4 => wish.stop_price.is_some(),
        5 => wish.trail_price.is_some(),
        MARKET | 6 | 7 => true,
        _ => return Err(Refusal::Invalid("type")),
    };
    if !has_its_prices {
        return Err(Refusal::Code(2, Some("a price is missing for this order type")));
    }
    if size < 1 {
        return Err(Refusal::Code(2, Some("the size must be positive")));
    }
    if wish.tag.is_some() && account.orders.iter().any(|order| order.wish.tag == wish.tag) {
        return Err(Refusal::Code(2, Some("the custom tag is in use")));
    }
    Ok(json!({"orderId": account.place(wish, now)}))
}

fn modify(accounts: &mut [Account], fields: &Fields, now: UnixMillis) -> Result<Value, Refusal> {
    let account = account(accounts, fields)?;
    let id = fields.integer("orderId")?;
    let size = fields.optional("size", Fields::integer)?;
    let prices = ["limitPrice", "stopPrice", "trailPrice"];
    let [limit, stop, trail] = prices.map(|name| fields.optional(name, Fields::number));
    let (limit, stop, trail) = (limit?, stop?, trail?);
    if size.is_some_and(|size| size < 1) {
        return Err(Refusal::Code(3, Some("the size must be positive")));
    }
    let wish = &mut account.open(id).ok_or(Refusal::Code(2, None))?.wish;
    wish.size = size.unwrap_or(wish.size);
    wish.limit_price = limit.or(wish.limit_price);
    wish.stop_price = stop.or(wish.stop_price);
    wish.trail_price = trail.or(wish.trail_price);
    account.change(id, Status::Open, now);
    Ok(json!({}))
}

fn close(accounts: &mut [Account], fields: &Fields, is_partial: bool, now: UnixMillis) -> Result<Value, Refusal> {
    let account = account(accounts, fields)?;
    let contract = market::find(fields.text("contractId")?).ok_or(Refusal::Code(3, None))?;
    let size = if is_partial { Some(fields.integer("size")?) } else { None };
    let held = account.held(contract.id).ok_or(Refusal::Code(2, None))?;
    let size = size.unwrap_or(held.abs());
    if !(1..=held.abs()).contains(&size) {
        return Err(Refusal::Code(5, None));
    }
    account.place(book::closing(contract, held, size), now);
    Ok(json!({}))
}
