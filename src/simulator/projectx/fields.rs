//! The members of a request's body, as ASP.NET Core reads them: names in any case, numbers also as texts
//! (learn.microsoft.com, "System.Text.Json", defaults for web apps).

use crate::simulator::json;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A request's members by their names in lower case. `null` is as good as absent.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, Value>);

/// A member that is missing or of the wrong kind: the venue answers 400 and names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid(pub(super) &'static str);

impl Fields {
    /// The members of `body`, and whether one was named twice, in whatever case: then the last counts.
    pub(super) fn read(body: &[u8]) -> Result<(Self, bool), Invalid> {
        let is_duplicate = json::read(body) == Err(json::Unreadable::Duplicate);
        let Ok(Value::Object(members)) = serde_json::from_slice(body) else { return Err(Invalid("$")) };
        let count = members.len();
        let fields = Self::of(members);
        let is_duplicate = is_duplicate || fields.0.len() < count;
        Ok((fields, is_duplicate))
    }

    fn of(members: Map<String, Value>) -> Self {
        Self(members.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(&name.to_ascii_lowercase()).filter(|value| !value.is_null())
    }

    /// A member that may be absent, and is read as `read` reads it.
    pub(super) fn optional<'a, T>(
        &'a self,
        name: &'static str,
        read: impl FnOnce(&'a Self, &'static str) -> Result<T, Invalid>,
    ) -> Result<Option<T>, Invalid> {
        self.value(name).map(|_| read(self, name)).transpose()
    }

    pub(super) fn text(&self, name: &'static str) -> Result<&str, Invalid> {
        self.value(name).and_then(Value::as_str).ok_or(Invalid(name))
    }

    pub(super) fn integer(&self, name: &'static str) -> Result<i64, Invalid> {
        let value = self.value(name).ok_or(Invalid(name))?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok()).ok_or(Invalid(name))
    }

    pub(super) fn number(&self, name: &'static str) -> Result<f64, Invalid> {
        let value = self.value(name).ok_or(Invalid(name))?;
        value.as_f64().or_else(|| value.as_str()?.parse().ok()).ok_or(Invalid(name))
    }

    /// A flag that may be absent, and is false then.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Invalid> {
        self.value(name).map_or(Ok(false), |value| value.as_bool().ok_or(Invalid(name)))
    }

    pub(super) fn integers(&self, name: &'static str) -> Result<Vec<i64>, Invalid> {
        let items = self.value(name).and_then(Value::as_array).ok_or(Invalid(name))?;
        items.iter().map(Value::as_i64).collect::<Option<_>>().ok_or(Invalid(name))
    }

    /// The members of an object within.
    pub(super) fn within(&self, name: &'static str) -> Result<Self, Invalid> {
        self.value(name).and_then(Value::as_object).map(|inner| Self::of(inner.clone())).ok_or(Invalid(name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn names_are_read_in_any_case_and_a_second_one_is_noticed() {
        let (fields, is_duplicate) = Fields::read(br#"{"ACCOUNTid":"7","limitPrice":null,"filter":{"A":1}}"#).unwrap();
        assert_eq!((fields.integer("accountId"), is_duplicate), (Ok(7), false));
        assert_eq!(fields.optional("limitPrice", Fields::number), Ok(None));
        assert_eq!(fields.optional("accountId", Fields::number), Ok(Some(7.0)));
        assert_eq!(fields.optional("filter", Fields::number), Err(Invalid("filter")));
        assert_eq!(fields.within("filter").unwrap().integer("a"), Ok(1));
        assert_eq!(fields.text("accountId"), Ok("7"));
        assert_eq!(fields.text("contractId"), Err(Invalid("contractId")));
        assert!(Fields::read(br#"{"a":1,"A":2}"#).unwrap().1);
        assert!(Fields::read(br#"{"a":1,"a":2}"#).unwrap().1);
    }

    #[test]
    fn what_is_no_object_is_invalid() {
        for body in ["", "[]", "{", "1"] {
            assert_eq!(Fields::read(body.as_bytes()).map(|_| ()), Err(Invalid("$")), "{body}");
        }
    }
}
