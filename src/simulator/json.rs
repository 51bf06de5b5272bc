//! Reads JSON as strictly as an exchange might: a name that stands twice in one object is refused.
//!
//! Not the proxy's reader. `serde_json::Value` alone keeps the last of two equal names, which is the difference
//! that a parser attack lives on.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

const DUPLICATE: &str = "duplicate member";

/// Why a text is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is not one JSON value.
    Malformed,
    /// An object names a member twice.
    Duplicate,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed JSON",
            Self::Duplicate => DUPLICATE,
        })
    }
}

/// The one value in `text`.
pub(super) fn read(text: &[u8]) -> Result<Value, Unreadable> {
    let Strict(value) = serde_json::from_slice(text).map_err(|error| {
        if error.to_string().starts_with(DUPLICATE) { Unreadable::Duplicate } else { Unreadable::Malformed }
    })?;
    Ok(value)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reader.deserialize(deserializer).map(Strict)
    }
}

struct Reader;

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Reader)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Reader)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom(DUPLICATE));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_twice_is_refused_at_any_depth_and_in_any_spelling() {
        assert_eq!(read(br#"{"a":1,"a":1}"#), Err(Unreadable::Duplicate));
        assert_eq!(read(br#"{"x":[{"a":1,"\u0061":2}]}"#), Err(Unreadable::Duplicate));
        assert_eq!(read(br#"{"a":1,"b":{"a":1}}"#), Ok(serde_json::json!({"a": 1, "b": {"a": 1}})));
    }

    #[test]
    fn more_or_less_than_one_value_is_malformed() {
        for text in ["", "{", "{} {}", "nope"] {
            assert_eq!(read(text.as_bytes()), Err(Unreadable::Malformed), "{text}");
        }
    }

    #[test]
    fn a_nonce_keeps_all_its_digits() {
        assert_eq!(read(b"18446744073709551615").map(|v| v.as_u64()), Ok(Some(u64::MAX)));
    }
}
