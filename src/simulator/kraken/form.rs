//! Reads `application/x-www-form-urlencoded` bodies, with the bracketed names in which clients nest what they send:
//! `close[ordertype]=limit`, `orders[0][price]=1`.

use serde_json::{Map, Value};

/// Brackets after a name: an order's members in a list are two deep, and nothing at the venue is deeper.
const DEPTH_MAX: usize = 3;

/// The members of a body, as text, lists and objects; none if a name stands twice or names two kinds of thing, or an
/// escape or a bracket is broken.
pub(super) fn read(body: &str) -> Option<Map<String, Value>> {
    let mut fields = Map::new();
    for pair in body.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // Unescaped first: clients write brackets as `%5B` and `%5D`.
        let name = unescape(name)?;
        let (first, inner) = name.find('[').map_or((name.as_str(), ""), |at| name.split_at(at));
        insert(&mut fields, first, inner, DEPTH_MAX, unescape(value)?)?;
    }
    Some(fields.into_iter().map(|(name, value)| (name, listed(value))).collect())
}

fn insert(fields: &mut Map<String, Value>, name: &str, inner: &str, depth: usize, value: String) -> Option<()> {
    if inner.is_empty() {
        return fields.insert(name.to_owned(), Value::from(value)).is_none().then_some(());
    }
    let (next, inner) = inner.strip_prefix('[')?.split_once(']')?;
    let nested = fields.entry(name).or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
    insert(nested, next, inner, depth.checked_sub(1)?, value)
}

/// Objects whose names are 0, 1, 2 … are lists.
fn listed(value: Value) -> Value {
    let Value::Object(members) = value else { return value };
    let mut members: Map<String, Value> = members.into_iter().map(|(name, value)| (name, listed(value))).collect();
    if (0..members.len()).all(|at| members.contains_key(&at.to_string())) {
        return (0..members.len()).filter_map(|at| members.remove(&at.to_string())).collect();
    }
    Value::Object(members)
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, tail) = tail.split_at_checked(2)?;
                rest = tail;
                bytes.extend(hex::decode(digits).ok()?);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;
    use serde_json::json;

    #[test]
    fn a_form_is_unescaped_and_may_not_repeat_itself() {
        let fields = read("a=1%2B2+3&b=").unwrap();
        assert_eq!((fields["a"].as_str(), fields["b"].as_str()), (Some("1+2 3"), Some("")));
        assert_eq!(read("a=1&a=2"), None);
        assert_eq!(read("a=1&%61=2"), None);
        assert_eq!(read("a=%2"), None);
    }

    #[test]
    fn brackets_make_objects_and_lists() {
        let fields = read("orders[0][price]=1&orders%5B1%5D%5Bprice%5D=2&close[ordertype]=limit&n=3").unwrap();
        let wanted = json!({"orders": [{"price": "1"}, {"price": "2"}], "close": {"ordertype": "limit"}, "n": "3"});
        assert_eq!(Value::Object(fields), wanted);
    }

    #[test]
    fn brackets_that_say_two_things_are_refused() {
        for form in ["a[b]=1&a[b]=2", "a=1&a[b]=2", "a[b]=1&a=2", "a[b=1", "a[b]c=1", "a[1][2][3][4]=5"] {
            assert_eq!(read(form), None, "{form}");
        }
    }
}
