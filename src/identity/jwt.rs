//! Tokens: a JSON Web Token in its compact form, checked whole.
//!
//! Not a general reader of JWTs: `jsonwebtoken` verifies the signature and nothing else. It reads the system clock for
//! `exp` and `nbf`, and its defaults take more than we do; header, claims and time are ours, against `now`.
//!
//! Sources: RFC 7515 (signature), RFC 7519 (claims), RFC 8725 (what goes wrong), RFC 8693 section 4.2 (`scope`).

mod keys;
mod mint;

pub use keys::{
    BadJwtKey, BadJwtSettings, JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, KEYS_MAX, LEEWAY_MAX,
    SHARED_SECRET_BYTES_MIN,
};
pub use mint::{Mint, NotMinted, SelfTestFailed, install_crypto, self_test};

use super::{NotAuthenticated, json, proved_name};
use crate::fresh::UnixMillis;
use crate::names::ClientName;
use crate::scope::{Right, Scope};
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Longest token in bytes: as long as the first message may be.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Largest whole number that every JSON reader reads alike (RFC 8259 section 6).
const SECONDS_MAX: u64 = (1 << 53) - 1;

/// What a verified token says.
pub(super) struct Verified {
    pub(super) subject: ClientName,
    pub(super) ends_at: UnixMillis,
    pub(super) scope: Option<Scope>,
}

/// The members of the header that we act on. Others are ignored, as RFC 7515 section 4 asks.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "json::not_null")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "json::not_null")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "json::is_present")]
    crit: bool,
    #[serde(default, deserialize_with = "json::is_present")]
    jku: bool,
    #[serde(default, deserialize_with = "json::is_present")]
    jwk: bool,
    #[serde(default, deserialize_with = "json::is_present")]
    x5u: bool,
    #[serde(default, deserialize_with = "json::is_present")]
    x5c: bool,
}

/// The claims that we act on. Times are whole seconds: RFC 7519 would allow fractions, which readers round apart.
#[derive(Deserialize)]
struct Claims {
    exp: u64,
    iat: u64,
    #[serde(default, deserialize_with = "json::not_null")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "json::not_null")]
    iss: Option<String>,
    #[serde(default, deserialize_with = "json::not_null")]
    aud: Option<OneOrMany>,
    #[serde(default, deserialize_with = "json::not_null")]
    sub: Option<String>,
    #[serde(default, deserialize_with = "json::not_null")]
    scope: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Verifies a token: length, header, signature, and only then its claims.
pub(super) fn verify(token: &Secret, now: UnixMillis, keys: &JwtKeys) -> Result<Verified, NotAuthenticated> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(NotAuthenticated::TooLong);
    }
    let text = std::str::from_utf8(token.expose()).map_err(|_| NotAuthenticated::Malformed)?;
    let (signed, signature) = text.rsplit_once('.').ok_or(NotAuthenticated::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(NotAuthenticated::Malformed)?;

    let header: Header = part(header)?;
    check_header(&header)?;
    let algorithm = JwtAlgorithm::parse(&header.alg).ok_or(NotAuthenticated::Algorithm)?;
    let candidates = keys.candidates(header.kid.as_deref(), algorithm)?;
    if !candidates.iter().any(|key| key.has_signed(signed, signature)) {
        return Err(NotAuthenticated::Signature);
    }
    check_claims(&part(claims)?, now, keys.settings())
}

/// Decodes one part of a token: base64url without padding, and in it one JSON object.
fn part<T: DeserializeOwned>(encoded: &str) -> Result<T, NotAuthenticated> {
    let decoded = BASE64URL.decode(encoded).map_err(|_| NotAuthenticated::Malformed)?;
    json::object(&decoded).ok_or(NotAuthenticated::Malformed)
}

/// Refuses other kinds of token, and every way for a token to bring its own key.
fn check_header(header: &Header) -> Result<(), NotAuthenticated> {
    // We understand no critical extension. A key that the token points at or carries is the attacker's.
    if header.crit || header.jku || header.jwk || header.x5u || header.x5c {
        return Err(NotAuthenticated::HeaderMember);
    }
    // RFC 8725 section 3.11: an access token (`at+jwt`), a logout token or one of our placeholders is not a login.
    if header.typ.as_deref().is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
        return Err(NotAuthenticated::Type);
    }
    Ok(())
}

fn check_claims(claims: &Claims, now: UnixMillis, settings: &JwtSettings) -> Result<Verified, NotAuthenticated> {
    let is_for_us = match &claims.aud {
        Some(OneOrMany::One(audience)) => *audience == settings.audience,
        Some(OneOrMany::Many(audiences)) => audiences.contains(&settings.audience),
        None => false,
    };
    if !is_for_us {
        return Err(NotAuthenticated::Audience);
    }
    if settings.issuer.is_some() && claims.iss != settings.issuer {
        return Err(NotAuthenticated::Issuer);
    }
    let ends_at = check_times(claims, now, settings)?;
    let subject = claims.sub.as_deref().and_then(proved_name).ok_or(NotAuthenticated::Subject)?;
    let scope = claims.scope.as_ref().map(read_scope).transpose()?;
    Ok(Verified { subject, ends_at, scope })
}

/// Checks `exp`, `iat`, `nbf`, and gives the first moment at which the token no longer counts: `exp` plus leeway.
fn check_times(claims: &Claims, now: UnixMillis, settings: &JwtSettings) -> Result<UnixMillis, NotAuthenticated> {
    if [claims.exp, claims.iat, claims.nbf.unwrap_or(0)].iter().any(|seconds| *seconds > SECONDS_MAX) {
        return Err(NotAuthenticated::Malformed);
    }
    let ends_at = UnixMillis::from_seconds(claims.exp).plus(settings.leeway);
    if ends_at <= now {
        return Err(NotAuthenticated::Expired);
    }
    let begins_at = UnixMillis::from_seconds(claims.iat.max(claims.nbf.unwrap_or(0)));
    if begins_at > now.plus(settings.leeway) {
        return Err(NotAuthenticated::NotYetValid);
    }
    let lifetime = Duration::from_secs(claims.exp.saturating_sub(claims.iat));
    if lifetime.is_zero() || lifetime > settings.lifetime_max {
        return Err(NotAuthenticated::Lifetime);
    }
    Ok(ends_at)
}

/// Reads the `scope` claim: words in one string, between spaces (RFC 8693) or commas; or one word in each string.
///
/// An unknown word is refused, never skipped: the token means something that we do not know.
fn read_scope(claim: &OneOrMany) -> Result<Scope, NotAuthenticated> {
    let right = |word: &str| Right::parse(word).ok_or(NotAuthenticated::Scope);
    match claim {
        OneOrMany::One(words) => words.split([' ', ',']).filter(|word| !word.is_empty()).map(right).collect(),
        OneOrMany::Many(words) => words.iter().map(|word| right(word)).collect(),
    }
}
