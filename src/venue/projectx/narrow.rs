//! What a client gets that may use some trading accounts alone: of a REST answer, and of what the user hub sends.
//!
//! What cannot be read is not passed on: a limit that lets through what it does not understand is none.

use crate::venue::wire::json::{self, Value};
use crate::venue::wire::signalr;

/// The list of accounts without those that are not allowed; every other byte as it was. `None`: it names no account.
pub(super) fn accounts(body: &[u8], allowed: &[u64], refused: impl Fn() -> Vec<u8>) -> Option<Vec<u8>> {
    if body.trim_ascii().is_empty() {
        return None;
    }
    let Ok(document) = json::read(body) else { return Some(refused()) };
    let Some(answer) = document.root().as_object().filter(|answer| !answer.in_other_case(&["accounts"])) else {
        return Some(refused());
    };
    let accounts = match answer.get("accounts") {
        None => return None,
        Some(accounts) if accounts.is_null() => return None,
        Some(accounts) => accounts,
    };
    let Some(listed) = accounts.as_array() else { return Some(refused()) };
    let is_allowed = |account: &Value<'_>| own_id(*account).is_some_and(|id| allowed.contains(&id));
    let kept: Vec<&[u8]> = listed.iter().filter(is_allowed).map(Value::raw).collect();
    let span = accounts.span();
    Some([&body[..=span.start], &kept.join(&b","[..]), &body[span.end - 1..]].concat())
}

/// An answer about an order that was asked for by its own id alone. `None`: the order is of an allowed account, or there
/// is none.
pub(super) fn order(body: &[u8], allowed: &[u64], refused: impl Fn() -> Vec<u8>) -> Option<Vec<u8>> {
    if body.trim_ascii().is_empty() {
        return None;
    }
    let Ok(document) = json::read(body) else { return Some(refused()) };
    let root = document.root();
    let holds_nothing = root.as_object().is_some_and(|answer| answer.members().all(|(_, value)| !is_container(value)));
    let named = named(root);
    // An order may stand at the top as well, without a container around it.
    let is_empty = holds_nothing && named.is_empty();
    if is_empty || are_allowed(&named, allowed) { None } else { Some(refused()) }
}

/// What becomes of a record of the user hub.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Narrowed {
    /// It passes as it is.
    Kept,
    /// It is about an account that is not the client's.
    Dropped,
    /// It passes in these bytes, without a separator.
    Replaced(Vec<u8>),
}

/// Judges an event or an answer of the user hub. Pings and the like are not for this.
pub(super) fn record(root: Value<'_>, allowed: &[u64]) -> Narrowed {
    let Some(record) = root.as_object() else { return Narrowed::Dropped };
    match record.get("type").and_then(Value::as_u64) {
        Some(1) => {
            let target = record.get("target").and_then(Value::plain_str);
            let Some(arguments) = record.get("arguments") else { return Narrowed::Dropped };
            let mut accounts = named(arguments);
            if target == Some("GatewayUserAccount") {
                let data = arguments.as_array().into_iter().flat_map(json::Array::iter);
                accounts.extend(data.map(|data| own_id(unwrapped(data))));
            }
            if are_allowed(&accounts, allowed) { Narrowed::Kept } else { Narrowed::Dropped }
        }
        // An answer to a subscription. None is documented to hold anything; if it does, nobody knows of which account.
        Some(3) if record.get("result").is_some_and(is_container) => match signalr::Record::id(root) {
            Some(id) => Narrowed::Replaced([b"{\"type\":3,\"invocationId\":", id, b",\"result\":null}"].concat()),
            None => Narrowed::Dropped,
        },
        Some(3 | 7) => Narrowed::Kept,
        _ => Narrowed::Dropped,
    }
}

/// In practice the hub's data comes as `{"action":0,"data":{…}}`, and is documented without.
fn unwrapped(data: Value<'_>) -> Value<'_> {
    data.as_object().and_then(|wrapped| wrapped.get("data")).unwrap_or(data)
}

fn own_id(account: Value<'_>) -> Option<u64> {
    account.as_object()?.get("id")?.as_u64()
}

/// True if there is an account, and none that is not allowed.
fn are_allowed(accounts: &[Option<u64>], allowed: &[u64]) -> bool {
    !accounts.is_empty() && accounts.iter().all(|id| id.is_some_and(|id| allowed.contains(&id)))
}

/// Every `accountId` at any depth; `None` for one that is no id.
fn named(value: Value<'_>) -> Vec<Option<u64>> {
    fn collect(value: Value<'_>, into: &mut Vec<Option<u64>>) {
        for (name, member) in value.as_object().into_iter().flat_map(json::Object::members) {
            if name.eq_ignore_ascii_case("accountId") {
                into.push(member.as_u64());
            }
            collect(member, into);
        }
        value.as_array().into_iter().flat_map(json::Array::iter).for_each(|element| collect(element, into));
    }
    let mut found = Vec::new();
    collect(value, &mut found);
    found
}

fn is_container(value: Value<'_>) -> bool {
    value.as_object().is_some() || value.as_array().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Vec<u8> {
        b"refused".to_vec()
    }

    fn listed(body: &str) -> Option<String> {
        accounts(body.as_bytes(), &[1, 3], refused).map(|body| String::from_utf8(body).expect("UTF-8"))
    }

    #[test]
    fn the_list_of_accounts_loses_the_others_and_nothing_else() {
        let body = r#"{ "accounts":[{"id":1,"balance":50000.10}, {"id":2,"name":"x"},{"id":3}], "success":true }"#;
        let wanted = r#"{ "accounts":[{"id":1,"balance":50000.10},{"id":3}], "success":true }"#;
        assert_eq!(listed(body).as_deref(), Some(wanted));
        assert_eq!(listed(r#"{"accounts":[{"id":2}]}"#).as_deref(), Some(r#"{"accounts":[]}"#));
        assert_eq!(listed(r#"{"accounts":[{"id":"1"},{"Id":1},1]}"#).as_deref(), Some(r#"{"accounts":[]}"#));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_not_passed_on() {
        for body in [
            "<html>",
            "[]",
            r#"{"Accounts":[{"id":2}]}"#,
            r#"{"accounts":[],"accounts":[{"id":2}]}"#,
            r#"{"accounts":{"id":2}}"#,
        ] {
            assert_eq!(listed(body).as_deref(), Some("refused"), "{body}");
        }
        for body in ["", r#"{"success":false,"errorCode":1}"#, r#"{"accounts":null,"success":false}"#] {
            assert_eq!(listed(body), None, "{body}");
        }
    }

    #[test]
    fn an_order_of_another_account_is_not_passed_on() {
        let of = |body: &str| order(body.as_bytes(), &[1, 3], refused).is_none();
        assert!(of(r#"{"id":9,"accountId":3,"success":true}"#));
        assert!(!of(r#"{"id":9,"accountId":2,"success":true}"#), "an order at the top is one too");
        assert!(of(r#"{"order":{"id":9,"accountId":3},"success":true}"#));
        assert!(of(r#"{"order":null,"success":false,"errorCode":1,"errorMessage":null}"#));
        assert!(of(""));
        for body in [
            r#"{"order":{"id":9,"accountId":2},"success":true}"#,
            r#"{"order":{"id":9},"success":true}"#,
            r#"{"order":{"id":9,"accountId":"1"},"success":true}"#,
            r#"{"orders":[{"accountId":1},{"AccountId":2}],"success":true}"#,
            r#"{"order":{"id":9},"success":false}"#,
            "<html>",
        ] {
            assert!(!of(body), "{body}");
        }
    }

    fn judged(text: &str) -> Narrowed {
        record(json::read(text.as_bytes()).expect("JSON").root(), &[1, 3])
    }

    #[test]
    fn an_event_of_an_allowed_account_passes_wrapped_or_not() {
        for text in [
            r#"{"type":1,"target":"GatewayUserAccount","arguments":[{"id":1,"name":"a"}]}"#,
            r#"{"type":1,"target":"GatewayUserAccount","arguments":[{"action":0,"data":{"id":3}}]}"#,
            r#"{"type":1,"target":"GatewayUserOrder","arguments":[{"id":2,"accountId":1}]}"#,
            r#"{"type":1,"target":"GatewayUserTrade","arguments":[{"action":1,"data":{"id":2,"accountId":3}}]}"#,
            r#"{"type":3,"invocationId":"1","result":null}"#,
            r#"{"type":3,"invocationId":"1","error":"no"}"#,
            r#"{"type":7,"error":"x","allowReconnect":true}"#,
        ] {
            assert_eq!(judged(text), Narrowed::Kept, "{text}");
        }
    }

    #[test]
    fn an_event_of_another_account_or_of_nobody_knows_which_does_not_pass() {
        for text in [
            r#"{"type":1,"target":"GatewayUserAccount","arguments":[{"id":2}]}"#,
            r#"{"type":1,"target":"GatewayUserAccount","arguments":[{"action":0,"data":{"id":2}}]}"#,
            r#"{"type":1,"target":"GatewayUserAccount","arguments":[{"id":1},{"id":2}]}"#,
            r#"{"type":1,"target":"GatewayUserAccount","arguments":[[{"id":2}]]}"#,
            r#"{"type":1,"target":"GatewayUserOrder","arguments":[{"id":1,"accountId":2}]}"#,
            r#"{"type":1,"target":"GatewayUserOrder","arguments":[{"accountId":1},{"AccountId":2}]}"#,
            r#"{"type":1,"target":"GatewayUserOrder","arguments":[{"id":1}]}"#,
            r#"{"type":1,"target":"GatewayUserOrder","arguments":[]}"#,
            r#"{"type":1,"target":"GatewayNews","arguments":["x"]}"#,
            r#"{"type":2,"invocationId":"1","item":{"accountId":1}}"#,
            r#"{"type":3,"result":{"accountId":2}}"#,
            r#"["x"]"#,
        ] {
            assert_eq!(judged(text), Narrowed::Dropped, "{text}");
        }
        let emptied = Narrowed::Replaced(br#"{"type":3,"invocationId":"7","result":null}"#.to_vec());
        assert_eq!(judged(r#"{"type":3,"invocationId":"7","result":[{"id":2}]}"#), emptied);
    }
}
