//! What must never come in, in every spelling that something might give it which did not mean to hide it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The fewest digits of base64 that are searched for: fewer are found by accident.
const BASE64_DIGITS_MIN: usize = 10;

/// Texts that must not come in.
#[derive(Debug, Default)]
pub(super) struct Forbidden(Vec<Vec<u8>>);

impl Forbidden {
    /// Forbids one more text. An empty one stands everywhere, and is none.
    pub(super) fn add(&mut self, text: &str) {
        if !text.is_empty() {
            self.0.extend(spellings(text));
        }
    }

    /// Whether one of them is in `bytes`: as they are, with URL escapes undone, or with JSON escapes undone.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        let is_in = |bytes: &[u8]| self.0.iter().any(|text| memchr::memmem::find(bytes, text).is_some());
        is_in(bytes)
            || (bytes.contains(&b'%') && is_in(&undo(bytes, b"%", 2)))
            || (bytes.contains(&b'\\') && is_in(&undo(&undo(bytes, b"\\u00", 2), b"\\", 0)))
    }
}

/// How a text may be written by something that did not mean to hide it.
fn spellings(text: &str) -> Vec<Vec<u8>> {
    let mut all = vec![text.to_owned(), hex::encode(text), hex::encode_upper(text)];
    // Base64 of something longer, as `key:secret` is, holds one of three spellings, by how many bytes stand before.
    // What its first and last digits say depends on the neighbours, so those are left out.
    for before in 0..3 {
        let padded = [vec![0; before], text.as_bytes().to_vec()].concat();
        let digits = [0, 2, 3][before]..padded.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            all.extend(encoded.get(digits.clone()).filter(|core| core.len() >= BASE64_DIGITS_MIN).map(str::to_owned));
        }
    }
    all.sort();
    all.dedup();
    all.into_iter().map(String::into_bytes).collect()
}

/// `bytes` without the marks of an escape; `digits` hexadecimal digits after a mark become the byte that they name.
fn undo(bytes: &[u8], mark: &[u8], digits: usize) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = rest.strip_prefix(mark).and_then(|after| after.split_at_checked(digits));
        match escaped.and_then(|(named, after)| Some((hex::decode(named).ok()?, after))) {
            Some((named, after)) => {
                plain.extend(named);
                rest = after;
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORBIDDEN: &str = "the/secret+of=a bot";

    fn leaks_in(came: &str) -> bool {
        let mut forbidden = Forbidden::default();
        forbidden.add("");
        forbidden.add(FORBIDDEN);
        forbidden.is_in(came.as_bytes())
    }

    #[test]
    fn a_forbidden_text_is_found_in_every_spelling() {
        for spelling in [
            "the/secret+of=a bot",
            "the\\/secret+of=a bot",
            "the\\u002fsecret\\u002Bof=a bot",
            "the%2Fsecret%2Bof%3Da%20bot",
            "the%2fsecret%2bof=a bot",
            "7468652f7365637265742b6f663d6120626f74",
            "7468652F7365637265742B6F663D6120626F74",
            "dGhlL3NlY3JldCtvZj1hIGJvdA==",
        ] {
            assert!(leaks_in(&format!("before {spelling} after")), "{spelling}");
        }
    }

    #[test]
    fn a_forbidden_text_is_found_in_the_base64_of_something_longer() {
        for before in ["", "a", "ab", "abc", "user:"] {
            for after in ["", "z", "zz"] {
                let whole = format!("{before}{FORBIDDEN}{after}");
                let authorization = format!("authorization: Basic {}\r\n", STANDARD_NO_PAD.encode(&whole));
                assert!(leaks_in(&authorization), "{whole}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_forbidden_text_is_none() {
        for other in ["", "something else", "the/secret", "the%2", "the\\", "the%2Gsecret", "dGhlL3NlY3Jl"] {
            assert!(!leaks_in(other), "{other}");
        }
    }
}
