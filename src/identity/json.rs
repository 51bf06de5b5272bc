//! Strict reading of small JSON objects into declared structs.
//!
//! Not for an exchange's messages: only members that the struct declares are checked for duplicates.

use serde::de::{Deserialize, Deserializer, IgnoredAny};

/// Reads one JSON object and nothing behind it. `None` for everything else, also if a declared member comes twice.
///
/// The parser's own error is dropped: its text quotes the peer.
pub(super) fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    // A derived struct would also be read from an array, its members by position.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

/// Reads an optional member that may be missing but not `null`.
pub(super) fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(member: D) -> Result<Option<T>, D::Error> {
    T::deserialize(member).map(Some)
}

/// True for a member that is there, whatever its value: `null` counts.
pub(super) fn is_present<'de, D: Deserializer<'de>>(member: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(member).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Pair {
        left: u64,
        #[serde(default, deserialize_with = "not_null")]
        right: Option<u64>,
        #[serde(default, deserialize_with = "is_present")]
        extra: bool,
    }

    #[test]
    fn an_object_is_read_with_or_without_its_optional_members() {
        let pair: Pair = object(br#" {"left":1,"right":2,"extra":null} "#).expect("is an object");
        assert_eq!((pair.left, pair.right, pair.extra), (1, Some(2), true));
        let pair: Pair = object(br#"{"left":1,"other":3}"#).expect("is an object");
        assert_eq!((pair.left, pair.right, pair.extra), (1, None, false));
    }

    #[test]
    fn arrays_duplicates_nulls_and_trailing_bytes_are_refused() {
        for bad in [
            &b"[1,2,3]"[..],
            br#"{"left":1,"left":1}"#,
            br#"{"left":1,"l\u0065ft":1}"#,
            br#"{"left":1,"extra":0,"extra":0}"#,
            br#"{"left":1,"right":null}"#,
            br#"{"left":1}{"#,
            br#"{"left":1.0}"#,
            br#"{"left":"1"}"#,
            br#"{"left":-1}"#,
            b"\xef\xbb\xbf{\"left\":1}",
            b"",
        ] {
            assert!(object::<Pair>(bad).is_none(), "{:?} was taken", String::from_utf8_lossy(bad));
        }
    }
}
