//! An exchange's key as something that can sign and cannot be shown.

use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// How a venue hands out its API secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretFormat {
    /// Standard base64 with padding; the decoded bytes are the HMAC key.
    Base64,
    /// Opaque text; its UTF-8 bytes are the HMAC key.
    Text,
}

/// What a venue's API keys and secrets look like, so that one that is made here passes for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyShape {
    /// The API key.
    pub api_key: TextShape,
    /// The API secret, which also has to be of the venue's [`SecretFormat`].
    pub secret: TextShape,
}

/// What a random text looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextShape {
    /// Standard base64, padded, of this many bytes.
    Base64 {
        /// The bytes before they are encoded.
        bytes: usize,
    },
    /// This many letters and digits.
    Alphanumeric {
        /// The length of the text.
        characters: usize,
    },
}

/// Why a key and secret are not a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCredential {
    /// The API key is empty or holds something other than printable ASCII.
    #[error("the API key is empty or is not printable ASCII")]
    Key,
    /// The API secret is empty.
    #[error("the API secret is empty")]
    EmptySecret,
    /// The venue's secrets are base64, and this is not.
    #[error("the API secret is not base64; copy it whole, with the `=` at its end")]
    NotBase64,
}

/// A key pair of an exchange. Signs; has no way to give the secret back.
pub struct Signer {
    api_key: Secret,
    secret: Secret,
}

impl Signer {
    /// Makes a signer of an API key and secret as the venue printed them. White space around them is dropped.
    pub fn new(api_key: &Secret, secret: &Secret, format: SecretFormat) -> Result<Self, BadCredential> {
        let api_key = api_key.expose().trim_ascii();
        if api_key.is_empty() || !api_key.iter().all(u8::is_ascii_graphic) {
            return Err(BadCredential::Key);
        }
        let secret = secret.expose().trim_ascii();
        if secret.is_empty() {
            return Err(BadCredential::EmptySecret);
        }
        let secret = match format {
            SecretFormat::Base64 => BASE64.decode(secret).map_err(|_| BadCredential::NotBase64)?,
            SecretFormat::Text => secret.to_vec(),
        };
        Ok(Self { api_key: Secret::new(api_key.to_vec()), secret: Secret::new(secret) })
    }

    /// The API key as text, for the header or frame in which the venue expects it. Never for a client or a log.
    pub fn expose_api_key(&self) -> &str {
        std::str::from_utf8(self.api_key.expose()).expect("`new` takes printable ASCII alone")
    }

    /// The secret itself, for venues whose login carries it. Never for a client or a log.
    pub fn danger_expose_secret(&self) -> &[u8] {
        self.secret.expose()
    }

    /// HMAC-SHA256 of the parts in a row.
    pub fn hmac_sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.expose()).expect("HMAC takes keys of any length");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    /// HMAC-SHA384 of the parts in a row.
    pub fn hmac_sha384(&self, parts: &[&[u8]]) -> [u8; 48] {
        let mut mac = Hmac::<Sha384>::new_from_slice(self.secret.expose()).expect("HMAC takes keys of any length");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    /// HMAC-SHA512 of the parts in a row.
    pub fn hmac_sha512(&self, parts: &[&[u8]]) -> [u8; 64] {
        let mut mac = Hmac::<Sha512>::new_from_slice(self.secret.expose()).expect("HMAC takes keys of any length");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

/// SHA-256 of the parts in a row.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().into()
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[test]
    fn a_signer_shows_nothing() {
        let signer = Signer::new(&secret("canary-key"), &secret("canary-secret"), SecretFormat::Text).expect("valid");
        assert!(!format!("{signer:?}").contains("canary"));
    }

    #[test]
    fn a_secret_that_is_not_base64_is_refused_and_not_used_as_it_came() {
        let refused = Signer::new(&secret("key"), &secret("dummysecret"), SecretFormat::Base64);
        assert_eq!(refused.expect_err("no padding"), BadCredential::NotBase64);
    }

    #[test]
    fn a_line_end_after_a_secret_in_a_file_does_not_change_it() {
        let plain = Signer::new(&secret("k"), &secret("c2VjcmV0"), SecretFormat::Base64).expect("valid");
        let lined = Signer::new(&secret("k\n"), &secret("c2VjcmV0\n"), SecretFormat::Base64).expect("valid");
        assert_eq!(plain.hmac_sha512(&[b"x"]), lined.hmac_sha512(&[b"x"]));
    }

    // RFC 4231, test case 2.
    #[test]
    fn hmac_agrees_with_the_vectors_of_rfc_4231() {
        let signer = Signer::new(&secret("k"), &secret("Jefe"), SecretFormat::Text).expect("valid");
        let data: &[&[u8]] = &[b"what do ya want ", b"for nothing?"];
        assert!(hex::encode(signer.hmac_sha256(data)).starts_with("5bdcc146bf60754e6a042426089575c7"));
        assert!(hex::encode(signer.hmac_sha384(data)).starts_with("af45d2e376484031617f78d2b58a6b1b"));
        assert!(hex::encode(signer.hmac_sha512(data)).starts_with("164b7a7bfcf819e2e395fbe73b56e0a3"));
    }
}
