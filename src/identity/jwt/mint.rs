//! Making tokens, for desks without an issuer of their own; and the start-up test of the cryptography.
//!
//! Not for exchanges' tokens: those are minted upstream.

use super::keys::{JwtAlgorithm, JwtKey, JwtKeys};
use crate::fresh::UnixMillis;
use crate::names::ClientName;
use crate::scope::Scope;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::EncodingKey;
use serde::Serialize;
use std::time::Duration;

/// A token to be made.
#[derive(Debug, Clone, Copy)]
pub struct Mint<'a> {
    /// Whose token it is.
    pub subject: &'a ClientName,
    /// What it is limited to; `None` for everything that the client's grants allow.
    pub scope: Option<Scope>,
    /// How long it lives, in whole seconds; a fraction is dropped.
    pub lifetime: Duration,
    /// 128 random bits, the token's own name (`jti`).
    pub random: [u8; 16],
}

/// Why a token was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotMinted {
    /// No HS256 key is configured: the proxy can only verify.
    #[error("there is no HS256 key to sign with")]
    NoSharedSecret,
    /// Under one second, or more than the settings allow: our own check would refuse it.
    #[error("the lifetime is under one second or longer than the configured maximum")]
    Lifetime,
    /// A name that no token may carry.
    #[error("the subject is reserved")]
    Subject,
    /// The cryptography failed.
    #[error("signing failed")]
    Signing,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

impl JwtKeys {
    /// Makes a token that these keys accept from `now` on, signed with the first HS256 key.
    pub fn mint(&self, wanted: &Mint<'_>, now: UnixMillis) -> Result<Secret, NotMinted> {
        let settings = self.settings();
        let (key, signing) = settings
            .keys
            .iter()
            .find_map(|key| key.minting().map(|signing| (key, signing)))
            .ok_or(NotMinted::NoSharedSecret)?;
        let lifetime = wanted.lifetime.as_secs();
        if lifetime == 0 || wanted.lifetime > settings.lifetime_max {
            return Err(NotMinted::Lifetime);
        }
        if super::proved_name(wanted.subject.as_str()).is_none() {
            return Err(NotMinted::Subject);
        }
        let claims = Claims {
            iss: settings.issuer.as_deref(),
            sub: wanted.subject.as_str(),
            aud: &settings.audience,
            iat: now.seconds(),
            exp: now.seconds().saturating_add(lifetime),
            jti: hex::encode(wanted.random),
            scope: wanted.scope.map(words),
        };
        sign(key, signing, &claims)
    }
}

/// The scope as RFC 8693 section 4.2 writes it: words between spaces.
fn words(scope: Scope) -> String {
    scope.iter().map(crate::scope::Right::word).collect::<Vec<_>>().join(" ")
}

fn sign(key: &JwtKey, signing: &EncodingKey, claims: &Claims<'_>) -> Result<Secret, NotMinted> {
    let algorithm = JwtAlgorithm::HS256;
    let header = Header { alg: algorithm.word(), typ: "JWT", kid: key.kid() };
    let mut token = String::new();
    BASE64URL.encode_string(serde_json::to_vec(&header).map_err(|_| NotMinted::Signing)?, &mut token);
    token.push('.');
    BASE64URL.encode_string(serde_json::to_vec(claims).map_err(|_| NotMinted::Signing)?, &mut token);
    let signature = jsonwebtoken::crypto::sign(token.as_bytes(), signing, algorithm.in_library())
        .map_err(|_| NotMinted::Signing)?;
    token.push('.');
    token.push_str(&signature);
    Ok(Secret::from(token))
}

/// Makes aws-lc-rs the cryptography of `jsonwebtoken` in this process. May be called any number of times.
pub fn install_crypto() {
    // An error says that one is installed already. We install only this one, and `self_test` finds out if it works.
    let (Ok(()) | Err(_)) = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

/// The cryptography of tokens does not work in this build: nothing may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptography of tokens failed its own test")]
pub struct SelfTestFailed;

/// Signs and verifies the example of RFC 7515 appendix A.1, and refuses it changed.
///
/// `jsonwebtoken` panics at first use when it was built with none or two of its crypto features. To be called at
/// start, after [`install_crypto`], so that this happens before the first client and not because of it.
pub fn self_test() -> Result<(), SelfTestFailed> {
    const KEY: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    const MESSAGE: &str = concat!(
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.",
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    );
    const SIGNATURE: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    let secret = Secret::new(BASE64URL.decode(KEY).map_err(|_| SelfTestFailed)?);
    let key = JwtKey::new(None, JwtAlgorithm::HS256, &secret).map_err(|_| SelfTestFailed)?;
    let signing = key.minting().ok_or(SelfTestFailed)?;
    let signature = jsonwebtoken::crypto::sign(MESSAGE.as_bytes(), signing, JwtAlgorithm::HS256.in_library())
        .map_err(|_| SelfTestFailed)?;
    let is_right = signature == SIGNATURE
        && key.has_signed(MESSAGE, SIGNATURE)
        && !key.has_signed(&MESSAGE[1..], SIGNATURE)
        && !key.has_signed(MESSAGE, &SIGNATURE[4..]);
    if is_right { Ok(()) } else { Err(SelfTestFailed) }
}
