//! The keys that tokens are verified with, and what else a token has to match.
//!
//! Not where keys come from: whoever reads the configuration hands over their bytes.

use super::super::NotAuthenticated;
use crate::secret::Secret;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use std::time::Duration;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

/// Shortest secret for HS256 in bytes (RFC 7518 section 3.2: as long as the hash).
pub const SHARED_SECRET_BYTES_MIN: usize = 32;

/// Most keys at once: a token without `kid` costs one verification for each that could have signed it.
pub const KEYS_MAX: usize = 8;

/// Most leeway: it forgives clocks, it does not prolong tokens.
pub const LEEWAY_MAX: Duration = Duration::from_secs(60);

/// Shortest RSA key in bits (RFC 7518 section 3.3).
const RSA_BITS_MIN: usize = 2048;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256 and a secret that issuer and proxy share.
    HS256,
    /// RSA PKCS#1 v1.5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl JwtAlgorithm {
    /// All algorithms.
    pub const ALL: [JwtAlgorithm; 4] =
        [JwtAlgorithm::HS256, JwtAlgorithm::RS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA];

    /// The word in a token's `alg` and in `proxy.toml`.
    pub const fn word(self) -> &'static str {
        match self {
            JwtAlgorithm::HS256 => "HS256",
            JwtAlgorithm::RS256 => "RS256",
            JwtAlgorithm::ES256 => "ES256",
            JwtAlgorithm::EdDSA => "EdDSA",
        }
    }

    /// Reads the word, case and all: `none` and its spellings are no words of ours.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.word() == word)
    }

    pub(super) const fn in_library(self) -> Algorithm {
        match self {
            JwtAlgorithm::HS256 => Algorithm::HS256,
            JwtAlgorithm::RS256 => Algorithm::RS256,
            JwtAlgorithm::ES256 => Algorithm::ES256,
            JwtAlgorithm::EdDSA => Algorithm::EdDSA,
        }
    }
}

/// Why bytes are not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadJwtKey {
    /// An HS256 secret under [`SHARED_SECRET_BYTES_MIN`].
    #[error("the secret is shorter than 32 bytes")]
    TooShort,
    /// An HS256 secret that is a PEM file. If it is a public key, everybody could sign with it.
    #[error("the secret is a PEM file; HS256 takes secret bytes, and a public key is not secret")]
    PemAsSecret,
    /// Not exactly one PEM block `PUBLIC KEY`.
    #[error("the key is not one PEM block `PUBLIC KEY`")]
    NotPem,
    /// The issuer's private key, which has no business here.
    #[error("this is a private key; the proxy takes only its public half")]
    Private,
    /// A public key, but of another algorithm or curve.
    #[error("the public key is not of the given algorithm")]
    OtherAlgorithm,
    /// An RSA key under 2,048 bits.
    #[error("the RSA key is shorter than 2048 bits")]
    Weak,
}

/// One key, good for one algorithm and for no other.
#[derive(Debug)]
pub struct JwtKey {
    kid: Option<String>,
    algorithm: JwtAlgorithm,
    verifying: DecodingKey,
    minting: Option<EncodingKey>,
}

impl JwtKey {
    /// Reads a key. `material` is the secret's bytes as they are for HS256, a PEM block `PUBLIC KEY` for the others.
    pub fn new(kid: Option<String>, algorithm: JwtAlgorithm, material: &Secret) -> Result<Self, BadJwtKey> {
        let bytes = material.expose();
        let (verifying, minting) = match algorithm {
            JwtAlgorithm::HS256 => {
                // A public key that is taken for a shared secret lets everybody sign.
                if memchr::memmem::find(bytes, b"-----BEGIN ").is_some() {
                    return Err(BadJwtKey::PemAsSecret);
                }
                if bytes.len() < SHARED_SECRET_BYTES_MIN {
                    return Err(BadJwtKey::TooShort);
                }
                (DecodingKey::from_secret(bytes), Some(EncodingKey::from_secret(bytes)))
            }
            JwtAlgorithm::RS256 | JwtAlgorithm::ES256 | JwtAlgorithm::EdDSA => (public_key(algorithm, bytes)?, None),
        };
        Ok(Self { kid, algorithm, verifying, minting })
    }

    /// What a token calls it.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The key for signing new tokens, where issuer and proxy share one.
    pub(super) fn minting(&self) -> Option<&EncodingKey> {
        self.minting.as_ref()
    }

    /// True if this key made the signature. An undecodable signature is a wrong one.
    pub(super) fn has_signed(&self, message: &str, signature: &str) -> bool {
        let algorithm = self.algorithm.in_library();
        matches!(jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.verifying, algorithm), Ok(true))
    }
}

/// Reads a public key and checks that it is what the algorithm needs.
///
/// `jsonwebtoken` also reads PEM files, but takes an RSA private key for a public one, and looks at no curve.
fn public_key(algorithm: JwtAlgorithm, pem: &[u8]) -> Result<DecodingKey, BadJwtKey> {
    let (rest, pem) = parse_x509_pem(pem).map_err(|_| BadJwtKey::NotPem)?;
    let contents = Zeroizing::new(pem.contents);
    if pem.label.ends_with("PRIVATE KEY") {
        return Err(BadJwtKey::Private);
    }
    if pem.label != "PUBLIC KEY" || !rest.trim_ascii().is_empty() {
        return Err(BadJwtKey::NotPem);
    }
    let (rest, key) = SubjectPublicKeyInfo::from_der(&contents).map_err(|_| BadJwtKey::NotPem)?;
    if !rest.is_empty() {
        return Err(BadJwtKey::NotPem);
    }
    let bytes = &key.subject_public_key.data;
    match algorithm {
        JwtAlgorithm::RS256 => {
            let Ok(PublicKey::RSA(rsa)) = key.parsed() else { return Err(BadJwtKey::OtherAlgorithm) };
            if rsa.key_size() < RSA_BITS_MIN {
                return Err(BadJwtKey::Weak);
            }
            Ok(DecodingKey::from_rsa_der(bytes))
        }
        JwtAlgorithm::ES256 => {
            let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
            if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
                return Err(BadJwtKey::OtherAlgorithm);
            }
            Ok(DecodingKey::from_ec_der(bytes))
        }
        JwtAlgorithm::EdDSA => {
            if key.algorithm.algorithm != OID_SIG_ED25519 || bytes.len() != 32 {
                return Err(BadJwtKey::OtherAlgorithm);
            }
            Ok(DecodingKey::from_ed_der(bytes))
        }
        JwtAlgorithm::HS256 => Err(BadJwtKey::OtherAlgorithm),
    }
}

/// What a token is checked against, as configured.
#[derive(Debug)]
pub struct JwtSettings {
    /// The keys, at most [`KEYS_MAX`], no two with the same `kid`.
    pub keys: Vec<JwtKey>,
    /// What `iss` must be; `None` to take any issuer that signs with one of the keys.
    pub issuer: Option<String>,
    /// What `aud` must be or contain. Always required: a token for another service is no login here.
    pub audience: String,
    /// The longest allowed time from `iat` to `exp`.
    pub lifetime_max: Duration,
    /// How far the issuer's clock may be from ours, at most [`LEEWAY_MAX`].
    pub leeway: Duration,
}

impl Default for JwtSettings {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            issuer: None,
            audience: "countersign".to_owned(),
            lifetime_max: Duration::from_secs(24 * 60 * 60),
            leeway: Duration::from_secs(5),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadJwtSettings {
    /// No key at all.
    #[error("there is no key")]
    NoKeys,
    /// More than [`KEYS_MAX`].
    #[error("there are more than 8 keys")]
    TooManyKeys,
    /// Two keys with one `kid`.
    #[error("two keys have the same kid")]
    KidTwice,
    /// An audience or issuer that is the empty text: it would match a token that says nothing.
    #[error("the audience or the issuer is empty")]
    Empty,
    /// A longest lifetime under one second.
    #[error("the longest lifetime is shorter than a second")]
    Lifetime,
    /// More than [`LEEWAY_MAX`].
    #[error("the leeway is longer than 60 s")]
    Leeway,
}

/// Settings that were checked: what [`authenticate`](crate::identity::authenticate) verifies tokens with.
#[derive(Debug)]
pub struct JwtKeys(JwtSettings);

impl JwtKeys {
    /// Checks settings.
    pub fn new(settings: JwtSettings) -> Result<Self, BadJwtSettings> {
        let kids: Vec<&str> = settings.keys.iter().filter_map(JwtKey::kid).collect();
        if settings.keys.is_empty() {
            return Err(BadJwtSettings::NoKeys);
        }
        if settings.keys.len() > KEYS_MAX {
            return Err(BadJwtSettings::TooManyKeys);
        }
        if kids.iter().enumerate().any(|(index, kid)| kids[..index].contains(kid)) {
            return Err(BadJwtSettings::KidTwice);
        }
        if settings.audience.is_empty() || settings.issuer.as_deref() == Some("") {
            return Err(BadJwtSettings::Empty);
        }
        if settings.lifetime_max < Duration::from_secs(1) {
            return Err(BadJwtSettings::Lifetime);
        }
        if settings.leeway > LEEWAY_MAX {
            return Err(BadJwtSettings::Leeway);
        }
        Ok(Self(settings))
    }

    /// The settings.
    pub fn settings(&self) -> &JwtSettings {
        &self.0
    }

    /// The keys that may have signed a token: never one of another algorithm, at least one.
    ///
    /// A `kid` only chooses among the configured keys. Where no key has one, what a token says of it is ignored.
    pub(super) fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: JwtAlgorithm,
    ) -> Result<Vec<&JwtKey>, NotAuthenticated> {
        let mut keys: Vec<&JwtKey> = self.0.keys.iter().collect();
        if let Some(kid) = kid
            && keys.iter().any(|key| key.kid.is_some())
        {
            keys.retain(|key| key.kid() == Some(kid));
            if keys.is_empty() {
                return Err(NotAuthenticated::UnknownKey);
            }
        }
        keys.retain(|key| key.algorithm == algorithm);
        if keys.is_empty() { Err(NotAuthenticated::Algorithm) } else { Ok(keys) }
    }
}
