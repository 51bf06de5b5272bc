//! Which orders a request of Bitfinex' is about: its own number, the client's, and that of a group, each apart from the
//! others, because all of them are plain numbers.

use crate::scope::Act;
use crate::venue::rest::Subjects;
use crate::venue::wire::json::{Array, Kind, Object, Value};

/// Funding offers have no name before the exchange gives them one: those in the queue are all meant, or none.
const OFFERS: &str = "offers";

/// What an operation of the table is about.
pub(super) fn of(operation: &str, act: Act, body: Option<Object<'_>>) -> Subjects {
    let mut names = Vec::new();
    let is_about_all = match operation {
        "auth/w/funding/offer/submit" | "auth/w/funding/offer/cancel/all" => {
            names.push(OFFERS.into());
            false
        }
        "auth/w/funding/offer/cancel" => !adds("offer", body.and_then(|body| body.get("id")), &mut names),
        "auth/w/order/multi" => {
            let operations = body.and_then(|body| body.get("ops")).and_then(Value::as_array);
            operations.into_iter().flat_map(Array::iter).filter_map(Value::as_array).any(|pair| {
                let order = pair.get(1).and_then(Value::as_object);
                let is_cancel = pair.get(0).and_then(Value::plain_str).is_some_and(|name| name.starts_with("oc"));
                adds_all(order, is_cancel, &mut names)
            })
        }
        _ if operation.starts_with("auth/w/order/") => adds_all(body, act == Act::Cancel, &mut names),
        _ => false,
    };
    told(is_about_all, names)
}

/// What an input on a socket cancels; a batch, what its cancels do.
pub(in crate::venue::bitfinex) fn cancelled(input: &str, payload: Value<'_>) -> Subjects {
    match input {
        "oc" | "oc_multi" => of("auth/w/order/cancel", Act::Cancel, payload.as_object()),
        "foc" => of("auth/w/funding/offer/cancel", Act::Cancel, payload.as_object()),
        "ox_multi" => {
            let mut names = Vec::new();
            let operations = payload.as_array().into_iter().flat_map(Array::iter).filter_map(Value::as_array);
            let is_cancel =
                |pair: &Array<'_>| pair.get(0).and_then(Value::plain_str).is_some_and(|name| name.starts_with("oc"));
            let is_about_all = operations
                .filter(is_cancel)
                .any(|pair| adds_all(pair.get(1).and_then(Value::as_object), true, &mut names));
            told(is_about_all, names)
        }
        _ => Subjects::None,
    }
}

fn told(is_about_all: bool, names: Vec<Box<str>>) -> Subjects {
    match names.is_empty() {
        _ if is_about_all => Subjects::All,
        true => Subjects::None,
        false => Subjects::Named(names),
    }
}

/// Adds the ids of an order or a cancel. True: it is, or could be, about every order.
fn adds_all(order: Option<Object<'_>>, is_cancel: bool, names: &mut Vec<Box<str>>) -> bool {
    let before = names.len();
    let member = |name: &str| order.and_then(|order| order.get(name));
    let is_told = ["id", "cid", "gid"].into_iter().all(|kind| adds(kind, member(kind), names));
    // `all` with whatever value: what counts as true is the exchange's to decide. A cancel without ids could mean any.
    !is_told || member("all").is_some() || (is_cancel && names.len() == before)
}

/// Adds one id, a list of them, or a list of pairs of the client's id and its day. False: it may be any number, because
/// the exchange might read another one there than we do.
fn adds(kind: &str, value: Option<Value<'_>>, names: &mut Vec<Box<str>>) -> bool {
    let Some(value) = value else { return true };
    match value.kind() {
        Kind::Array => value.as_array().into_iter().flat_map(Array::iter).all(|element| {
            let id = element.as_array().map_or(Some(element), |pair| pair.get(0));
            id.and_then(canonical).map(|id| names.push(format!("{kind}:{id}").into())).is_some()
        }),
        Kind::Null => true,
        Kind::Number | Kind::String | Kind::Object | Kind::True | Kind::False => {
            canonical(value).map(|id| names.push(format!("{kind}:{id}").into())).is_some()
        }
    }
}

/// A number that is written as everybody writes it, with quotes or without: `1`, and not `1.0`, `01` or `1e0`.
fn canonical(value: Value<'_>) -> Option<u64> {
    let text = match value.kind() {
        Kind::Number => std::str::from_utf8(value.raw()).ok()?,
        Kind::String | Kind::Array | Kind::Object | Kind::True | Kind::False | Kind::Null => value.plain_str()?,
    };
    text.parse().ok().filter(|id: &u64| id.to_string() == text)
}
