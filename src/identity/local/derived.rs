//! Shares of the master key: one for each purpose, so that what is made for one can never pass for another.
//!
//! HMAC-SHA256 throughout, as HKDF's second half has it (RFC 5869 section 2.3): a master key that somebody rolled
//! needs no first half.

use crate::credential::TextShape;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const ALPHANUMERIC: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The share of the master key for one purpose.
pub(super) struct Derived(Hmac<Sha256>);

impl Derived {
    /// The share that belongs to a label. The labels are fixed: another one makes everything issued worthless.
    pub(super) fn new(master: &Secret, label: &str) -> Self {
        let mut mac = keyed(master.expose());
        mac.update(b"countersign ");
        mac.update(label.as_bytes());
        let share = Secret::new(mac.finalize().into_bytes().to_vec());
        Self(keyed(share.expose()))
    }

    /// The authentication of parts. Each is counted, so that `ab`, `c` is never `a`, `bc`.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(&u64::try_from(part.len()).expect("lengths have at most 64 bits").to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Bytes without end that nobody can tell from random ones.
    pub(super) fn stream(&self, parts: &[&[u8]]) -> impl Iterator<Item = u8> {
        let seed = self.mac(parts);
        (0_u64..).flat_map(move |block| self.mac(&[&seed, &block.to_be_bytes()]))
    }

    /// A text of a shape.
    pub(super) fn text(&self, shape: TextShape, parts: &[&[u8]]) -> Secret {
        let stream = self.stream(parts);
        match shape {
            TextShape::Base64 { bytes } => {
                let bytes = Secret::new(stream.take(bytes).collect());
                Secret::from(BASE64.encode(bytes.expose()))
            }
            TextShape::Alphanumeric { characters } => {
                // Bytes past the last whole 62 are skipped: else the first letters would come more often.
                let fair = stream.filter(|byte| *byte < 248).map(|byte| ALPHANUMERIC[usize::from(byte % 62)]);
                Secret::new(fair.take(characters).collect())
            }
        }
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master() -> Secret {
        Secret::from("a master key of the tests, long enough".to_owned())
    }

    #[test]
    fn purposes_and_parts_are_kept_apart() {
        let (one, other) = (Derived::new(&master(), "one"), Derived::new(&master(), "other"));
        assert_ne!(one.mac(&[b"a"]), other.mac(&[b"a"]));
        assert_ne!(one.mac(&[b"ab", b"c"]), one.mac(&[b"a", b"bc"]));
        assert_ne!(one.mac(&[b"a"]), one.mac(&[b"a", b""]));
        assert_eq!(one.mac(&[b"a"]), Derived::new(&master(), "one").mac(&[b"a"]));
    }

    // Computed with Python's hmac: HMAC(HMAC(master, "countersign one"), 8 bytes of length || "a").
    #[test]
    fn a_share_is_what_another_program_computes() {
        let made = hex::encode(Derived::new(&master(), "one").mac(&[b"a"]));
        assert_eq!(made, "ec4c499e80f80a40009e16ceb86283d74ce01498ece793ead39ec262002d7709");
    }

    #[test]
    fn texts_have_the_shape_that_was_asked_for() {
        let derived = Derived::new(&master(), "texts");
        let base64 = derived.text(TextShape::Base64 { bytes: 64 }, &[b"x"]);
        assert_eq!(BASE64.decode(base64.expose()).expect("is base64").len(), 64);
        let letters = derived.text(TextShape::Alphanumeric { characters: 43 }, &[b"x"]);
        assert!(letters.len() == 43 && letters.expose().iter().all(u8::is_ascii_alphanumeric));
        assert_ne!(letters, derived.text(TextShape::Alphanumeric { characters: 43 }, &[b"y"]));
    }
}
