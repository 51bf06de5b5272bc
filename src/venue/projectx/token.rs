//! The shape of the venue's tokens: a JWT. Ours hold a placeholder in place of a signature.
//!
//! Client libraries read `exp` and nothing else, and project-x-py logs in before every call where it finds none. What
//! a placeholder says is not decided by that: `identity` opens it.

use crate::fresh::UnixMillis;
use crate::secret::Secret;
use crate::venue::wire::json::{self, Object, Value};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use std::time::Duration;

/// The first part of every token of ours, before it is encoded. No client token of the house has that type, so neither
/// passes for the other.
const HEADER: &str = r#"{"alg":"none","typ":"placeholder"}"#;

/// A placeholder has at most 1,024 bytes; header and payload add less than 200.
const WRAPPED_BYTES_MAX: usize = 1536;

/// Bounds of a token of the venue. Its JWTs have some hundred bytes; it has to fit into a request line.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How long a token lives that does not tell. Source: gateway.docs.projectx.com, "Validate session".
const LIVES: Duration = Duration::from_secs(24 * 3600);

/// Gives a placeholder the shape of the venue's tokens.
///
/// Its text is standard base64 without padding, and becomes the third part in the alphabet of URLs.
pub(super) fn wrap(placeholder: &Secret, ends_at: UnixMillis, now: UnixMillis) -> Secret {
    let header = BASE64_URL.encode(HEADER);
    let payload = BASE64_URL.encode(payload(ends_at.seconds(), now.seconds()));
    let mut wrapped = format!("{header}.{payload}.").into_bytes();
    wrapped.extend(placeholder.expose().iter().map(|byte| match byte {
        b'+' => b'-',
        b'/' => b'_',
        byte => *byte,
    }));
    Secret::new(wrapped)
}

/// Takes a placeholder out of that shape. `None`: this is not one of ours, to the letter.
pub(super) fn unwrap(text: &str) -> Option<Secret> {
    if text.len() > WRAPPED_BYTES_MAX {
        return None;
    }
    let mut parts = text.split('.');
    let (Some(header), Some(claims), Some(sealed), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    if header != BASE64_URL.encode(HEADER) || !is_payload(claims) {
        return None;
    }
    let is_sealed =
        !sealed.is_empty() && sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    is_sealed.then(|| Secret::from(sealed.replace('-', "+").replace('_', "/")))
}

/// How long a token of the venue lives from now on, read without verifying. `None`: it is no token, or it is over.
///
/// To its `exp`, and no longer than from its `iat` to there: one of the two clocks may be behind. Where it tells
/// nothing it is the documented day, and never more than that: a promise beyond it would be found out by a refusal.
pub(super) fn lives_from(now: UnixMillis, token: &str) -> Option<Duration> {
    let is_token = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte));
    if !is_token {
        return None;
    }
    let told = token.split('.').nth(1).and_then(|claims| told_life(now, claims));
    Some(told.unwrap_or(LIVES).min(LIVES)).filter(|lives| !lives.is_zero())
}

/// What a payload with an `exp` says of it.
fn told_life(now: UnixMillis, claims: &str) -> Option<Duration> {
    let bytes = BASE64_URL.decode(claims.trim_end_matches('=')).ok()?;
    let document = json::read(&bytes).ok()?;
    let claims = document.root().as_object()?;
    let exp = number(claims, "exp")?;
    let left = UnixMillis::from_seconds(exp).since(now);
    Some(match number(claims, "iat").map(|iat| Duration::from_secs(exp.saturating_sub(iat))) {
        // By our clock it was over before it came: ours is ahead.
        Some(whole) if left.is_zero() => whole,
        Some(whole) => left.min(whole),
        None => left,
    })
}

fn payload(exp: u64, iat: u64) -> String {
    format!(r#"{{"exp":{exp},"iat":{iat},"sub":"client"}}"#)
}

/// True for a payload exactly as [`payload`] writes it.
fn is_payload(claims: &str) -> bool {
    let written = |bytes: &[u8]| {
        let document = json::read(bytes).ok()?;
        let claims = document.root().as_object()?;
        Some(payload(number(claims, "exp")?, number(claims, "iat")?))
    };
    BASE64_URL.decode(claims).is_ok_and(|bytes| written(&bytes).is_some_and(|wanted| wanted.as_bytes() == bytes))
}

fn number(claims: Object<'_>, name: &str) -> Option<u64> {
    claims.get(name).and_then(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn wrapped(placeholder: &str) -> String {
        let wrapped = wrap(&Secret::from(placeholder.to_owned()), NOW.plus(Duration::from_secs(60)), NOW);
        String::from_utf8(wrapped.expose().to_vec()).expect("ASCII")
    }

    fn unwrapped(text: &str) -> Option<String> {
        unwrap(text).map(|placeholder| String::from_utf8(placeholder.expose().to_vec()).expect("ASCII"))
    }

    // Encoded with an independent program.
    #[test]
    fn a_placeholder_has_the_shape_of_a_jwt_that_tells_its_end() {
        assert_eq!(
            wrapped("ab+/cd"),
            "eyJhbGciOiJub25lIiwidHlwIjoicGxhY2Vob2xkZXIifQ\
             .eyJleHAiOjE3MDAwMDAwNjAsImlhdCI6MTcwMDAwMDAwMCwic3ViIjoiY2xpZW50In0.ab-_cd"
        );
    }

    proptest! {
        #[test]
        fn what_is_wrapped_is_unwrapped(placeholder in "[A-Za-z0-9+/]{1,1024}", exp in any::<u64>(), iat in any::<u64>()) {
            let wrapped = wrap(&Secret::from(placeholder.clone()), UnixMillis(exp), UnixMillis(iat));
            let text = std::str::from_utf8(wrapped.expose()).expect("ASCII");
            prop_assert_eq!(unwrapped(text), Some(placeholder));
        }

        #[test]
        fn no_other_text_is_one(text in "[A-Za-z0-9+/_=.-]{0,200}") {
            prop_assert_eq!(unwrapped(&text), None);
        }
    }

    #[test]
    fn a_text_that_differs_in_anything_is_none_of_ours() {
        let good = wrapped("abcd");
        let [header, payload, sealed] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
        let encode = |text: &str| BASE64_URL.encode(text);
        for bad in [
            String::new(),
            "abcd".to_owned(),
            format!("{header}.{payload}"),
            format!("{header}.{payload}."),
            format!("{header}.{payload}.{sealed}.x"),
            format!("{header}.{payload}.ab+d"),
            format!("{header}.{payload}.ab/d"),
            format!("{header}.{payload}.abcd="),
            format!("{header}.{payload}.ab d"),
            format!("{header}=.{payload}.{sealed}"),
            format!("{header}.{payload}=.{sealed}"),
            // A client token of the house, as anybody could write one.
            format!("{}.{payload}.{sealed}", encode(r#"{"alg":"HS256","typ":"JWT"}"#)),
            format!("{}.{payload}.{sealed}", encode(r#"{"alg":"none","typ":"JWT"}"#)),
            format!("{}.{payload}.{sealed}", encode(r#"{"typ":"placeholder","alg":"none"}"#)),
            format!("{header}.{}.{sealed}", encode(r#"{"exp":1,"iat":1,"sub":"bot-a"}"#)),
            format!("{header}.{}.{sealed}", encode(r#"{"exp":1,"iat":1,"sub":"client","x":1}"#)),
            format!("{header}.{}.{sealed}", encode(r#"{"exp":1, "iat":1,"sub":"client"}"#)),
            format!("{header}.{payload}.{}", "a".repeat(WRAPPED_BYTES_MAX)),
        ] {
            assert_eq!(unwrapped(&bad), None, "{bad}");
        }
        assert_eq!(unwrapped(&good).as_deref(), Some("abcd"));
    }

    #[test]
    fn a_token_lives_as_long_as_it_tells_and_a_day_at_most() {
        let jwt = |claims: &str| format!("eyJhbGciOiJIUzI1NiJ9.{}.c2lnbmF0dXJl", BASE64_URL.encode(claims));
        let seconds = |claims: &str| lives_from(NOW, &jwt(claims)).map(|lives| lives.as_secs());
        assert_eq!(seconds(r#"{"iat":1700000000,"exp":1700000900}"#), Some(900));
        assert_eq!(seconds(r#"{"iat":1700000000,"exp":1800000000}"#), Some(86_400));
        assert_eq!(seconds(r#"{"exp":1700000900}"#), Some(900), "nothing tells when it began");
        assert_eq!(seconds(r#"{"exp":1699999999}"#), None, "it is over");
        assert_eq!(seconds(r#"{"iat":1699999500,"exp":1700000400}"#), Some(400), "it is not new");
        assert_eq!(seconds(r#"{"iat":1700000600,"exp":1700000900}"#), Some(300), "our clock is behind");
        assert_eq!(seconds(r#"{"iat":1699990000,"exp":1699990900}"#), Some(900), "our clock is ahead");
        assert_eq!(seconds("{}"), Some(86_400));
        assert_eq!(seconds(r#"{"iat":1700000900,"exp":1700000000}"#), None, "it ended before it began");
        assert_eq!(lives_from(NOW, "an-opaque-token-of-some-kind").map(|lives| lives.as_secs()), Some(86_400));
        for bad in ["", "short", "a token with spaces in it", "a\"token\"with\"quotes\"", "a&token&of&parameters&x"] {
            assert_eq!(lives_from(NOW, bad), None, "{bad}");
        }
    }
}
