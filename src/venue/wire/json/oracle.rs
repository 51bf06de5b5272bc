//! What the reader should say of any bytes, worked out with serde_json alone. For tests and for fuzzing.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// As `DEPTH_MAX`, written out so that a changed limit is noticed.
const DEPTH_MAX: usize = 32;

/// Panics unless the reader's judgement is the right one: valid JSON by serde_json, in which no object names a member
/// twice, no name is escaped, and nothing stands deeper than the limit.
pub(crate) fn assert_right_judgement(bytes: &[u8], accepted: bool) {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let judged = Strict { depth: 0 }.deserialize(&mut reader).and_then(|()| reader.end());
    match judged {
        Ok(()) => assert!(accepted, "refused, but valid"),
        // A number that no f64 holds is valid JSON; where serde_json stops at it, only grammar is left to compare.
        Err(error) if error.to_string().starts_with("number out of range") => {
            let grammatical = serde_json::from_slice::<de::IgnoredAny>(bytes).is_ok();
            assert!(grammatical || !accepted, "accepted, but not valid");
        }
        Err(error) => assert!(!accepted, "accepted, but: {error}"),
    }
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn inside<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX { Err(E::custom("too deep")) } else { Ok(Self { depth: self.depth + 1 }) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while elements.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        let mut names = HashSet::new();
        while let Some(name) = members.next_key_seed(Name)? {
            if !names.insert(name.to_ascii_lowercase()) {
                return Err(de::Error::custom("a member is named twice"));
            }
            members.next_value_seed(inside)?;
        }
        Ok(())
    }
}

/// A member's name. serde_json lends what stands in the input, and copies what had to be unescaped.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = &'de str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'de str, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = &'de str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name without an escape")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<&'de str, E> {
        Ok(name)
    }
}
