//! Kraken Spot: REST, WebSocket v2 and v1, public and private, and the REST call that buys the sockets' token.
//!
//! No login message: the token stands in every private message (v2 `params.token`, v1 `subscription.token` or `token`),
//! and nowhere else. A socket keeps the token that it first used until the exchange refuses it.
//!
//! Sources: docs.kraken.com, "Websocket API v2 / Introduction", "Authentication" and "Rest authentication".

mod acts;
mod requests;
mod rest;
mod v1;
mod v2;

use super::{
    Dialect, Endpoint, EndpointKind, Minted, Minting, NonceRules, NotMinted, SignedRequest, Venue,
    wire::json::{self, Value},
};
use crate::credential::{KeyShape, SecretFormat, Signer, TextShape, sha256};
use crate::fresh::{Nonce, NonceUnit, UnixMillis};
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::time::Duration;

pub use acts::rest_act;

/// Kraken Spot.
pub struct Kraken;

static ENDPOINTS: &[Endpoint] = &[
    Endpoint { name: "rest", kind: EndpointKind::Rest, host: "api.kraken.com", path: "/0", local_path: None },
    Endpoint {
        name: "private",
        kind: EndpointKind::Socket,
        host: "ws-auth.kraken.com",
        path: "/v2",
        local_path: Some("/kraken/v2"),
    },
    Endpoint {
        name: "public",
        kind: EndpointKind::Socket,
        host: "ws.kraken.com",
        path: "/v2",
        local_path: Some("/kraken/public/v2"),
    },
    Endpoint {
        name: "private-v1",
        kind: EndpointKind::Socket,
        host: "ws-auth.kraken.com",
        path: "/",
        local_path: Some("/kraken/v1"),
    },
    Endpoint {
        name: "public-v1",
        kind: EndpointKind::Socket,
        host: "ws.kraken.com",
        path: "/",
        local_path: Some("/kraken/public/v1"),
    },
];

impl Venue for Kraken {
    fn name(&self) -> &'static str {
        "kraken"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        ENDPOINTS
    }

    fn secret_format(&self) -> Option<SecretFormat> {
        Some(SecretFormat::Base64)
    }

    /// 56 characters and 88: the secret is as long as that of the example in "Spot REST authentication".
    fn local_key_shape(&self) -> Option<KeyShape> {
        Some(KeyShape { api_key: TextShape::Base64 { bytes: 42 }, secret: TextShape::Base64 { bytes: 64 } })
    }

    /// An unsigned 64-bit number of any unit. Nanoseconds are above whatever another program may have used.
    fn nonces(&self) -> Option<NonceRules> {
        Some(NonceRules { unit: NonceUnit::Nanoseconds, max: u64::MAX })
    }

    fn rest(&self) -> Option<&dyn super::rest::Rest> {
        Some(self)
    }

    fn minting(&self) -> Option<&dyn Minting> {
        Some(self)
    }

    fn dialect(&self, endpoint: &Endpoint) -> Box<dyn Dialect> {
        match endpoint.name {
            "private-v1" => Box::new(v1::Conversation::new(true)),
            "public-v1" => Box::new(v1::Conversation::new(false)),
            "public" => Box::new(v2::Conversation::new(false)),
            _ => Box::new(v2::Conversation::new(true)),
        }
    }
}

const TOKEN_PATH: &str = "/0/private/GetWebSocketsToken";

impl Minting for Kraken {
    fn request(&self, signer: &Signer, nonce: Option<Nonce>) -> SignedRequest {
        let nonce = nonce.expect("`needs_nonce` is true");
        let body = format!("nonce={nonce}");
        let signature = api_sign(signer, TOKEN_PATH, nonce, body.as_bytes());
        SignedRequest {
            endpoint: "rest",
            method: "POST",
            path: TOKEN_PATH.to_owned(),
            headers: vec![
                ("api-key", Secret::from(signer.expose_api_key().to_owned())),
                ("api-sign", Secret::from(signature)),
                ("content-type", Secret::from("application/x-www-form-urlencoded".to_owned())),
            ],
            body: body.into_bytes(),
        }
    }

    /// Reads `{"error":[],"result":{"token":"…","expires":900}}`.
    fn read(&self, status: u16, body: &[u8], _now: UnixMillis) -> Result<Minted, NotMinted> {
        if status != 200 {
            return Err(NotMinted::Unavailable);
        }
        let document = json::read(body).map_err(|_| NotMinted::Unreadable)?;
        let envelope = document.root().as_object().ok_or(NotMinted::Unreadable)?;
        let errors = envelope.get("error").and_then(Value::as_array).ok_or(NotMinted::Unreadable)?;
        if let Some(error) = errors.iter().next() {
            return Err(error.text().map_or(NotMinted::Unreadable, |text| refusal(&text)));
        }
        let result = envelope.get("result").and_then(Value::as_object).ok_or(NotMinted::Unreadable)?;
        let token = result.get("token").and_then(Value::text).ok_or(NotMinted::Unreadable)?;
        let is_token = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte));
        let expires = result.get("expires").and_then(Value::as_u64).ok_or(NotMinted::Unreadable)?;
        if !is_token || expires == 0 {
            return Err(NotMinted::Unreadable);
        }
        Ok(Minted { secret: Secret::from(token.into_owned()), lives: Duration::from_secs(expires.min(EXPIRES_MAX)) })
    }
}

/// Documented tokens have 43 characters; anything within these bounds may stand in a JSON string as it is.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 256;
/// A day: an `expires` beyond it is a fault of the answer, not a promise.
const EXPIRES_MAX: u64 = 86_400;

fn refusal(error: &str) -> NotMinted {
    match error {
        "EAPI:Invalid nonce" => NotMinted::NonceTooSmall,
        // Repeats make a lockout longer.
        "EAPI:Invalid key"
        | "EAPI:Invalid signature"
        | "EGeneral:Permission denied"
        | "EGeneral:Temporary lockout"
        | "EAuth:Account temporary disabled" => NotMinted::Credential,
        _ => NotMinted::Unavailable,
    }
}

/// The `API-Sign` header: HMAC-SHA512 over path and SHA-256 of nonce and body, in base64.
fn api_sign(signer: &Signer, path: &str, nonce: Nonce, body: &[u8]) -> String {
    let digest = sha256(&[nonce.to_string().as_bytes(), body]);
    BASE64.encode(signer.hmac_sha512(&[path.as_bytes(), &digest]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        let secret = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==";
        Signer::new(&Secret::from("key".to_owned()), &Secret::from(secret.to_owned()), SecretFormat::Base64)
            .expect("the published secret is base64")
    }

    // docs.kraken.com, "Spot REST authentication", the worked example.
    #[test]
    fn the_signature_is_the_published_one() {
        let body = b"nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25";
        assert_eq!(
            api_sign(&signer(), "/0/private/AddOrder", Nonce(1_616_492_376_594), body),
            "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ=="
        );
    }

    // Computed with an independent program.
    #[test]
    fn the_token_request_is_signed_over_the_bytes_that_it_carries() {
        let request = Kraken.request(&signer(), Some(Nonce(1_616_492_376_594)));
        assert_eq!(request.body, b"nonce=1616492376594");
        let signature = request.headers.iter().find(|(name, _)| *name == "api-sign").expect("a signature");
        assert_eq!(
            signature.1.expose(),
            b"+mRDmY9Ks0Moc1zjv/BjfvYa98buO0x1yHChZR5onlfAzAUbfIYlLggUZzdQ0RsmXm4Sh+Q8iAIZdo2wSeHeiA=="
        );
    }

    #[test]
    fn a_token_is_read_with_its_escaped_slashes() {
        let body = br#"{"error":[],"result":{"token":"1Dwc4lzSwNWOAwkMdqhssNNFhs1ed\/6d1WcF3Xf+EMw","expires":900}}"#;
        let minted = Kraken.read(200, body, UnixMillis(0)).expect("a token");
        assert_eq!(minted.secret.expose(), b"1Dwc4lzSwNWOAwkMdqhssNNFhs1ed/6d1WcF3Xf+EMw");
        assert_eq!(minted.lives, Duration::from_secs(900));
    }

    #[test]
    fn an_answer_without_a_usable_token_is_a_failure() {
        for (status, body, why) in [
            (200, r#"{"error":["EAPI:Invalid nonce"]}"#, NotMinted::NonceTooSmall),
            (200, r#"{"error":["EAPI:Invalid key"]}"#, NotMinted::Credential),
            (200, r#"{"error":["EService:Unavailable"]}"#, NotMinted::Unavailable),
            (200, r#"{"error":[],"result":{"token":"","expires":900}}"#, NotMinted::Unreadable),
            (200, r#"{"error":[],"result":{"token":"a\"b,\"x\":1aaaaaaaaaaaa","expires":900}}"#, NotMinted::Unreadable),
            (200, "<html>busy</html>", NotMinted::Unreadable),
            (503, "", NotMinted::Unavailable),
        ] {
            assert_eq!(Kraken.read(status, body.as_bytes(), UnixMillis(0)).expect_err(body), why, "{body}");
        }
    }

    fn token_shown(endpoint: &str, message: &str) -> Option<Vec<u8>> {
        let endpoint = ENDPOINTS.iter().find(|known| known.name == endpoint).expect("an endpoint");
        let shown = Kraken.dialect(endpoint).read(&crate::message::Message::text(message.to_owned())).shown;
        match shown {
            Some(crate::venue::ClientLogin::Token(token)) => Some(token.expose().to_vec()),
            Some(_) => panic!("nothing but a token stands on a socket"),
            None => None,
        }
    }

    #[test]
    fn a_token_at_its_place_is_shown() {
        for (endpoint, message) in [
            ("private", r#"{"method":"add_order","params":{"token":"a\/b"}}"#),
            ("private", r#"{"method":"subscribe","params":{"channel":"executions","token":"a/b"}}"#),
            ("private-v1", r#"{"event":"addOrder","token":"a/b"}"#),
            ("private-v1", r#"{"event":"subscribe","subscription":{"name":"ownTrades","token":"a/b"}}"#),
        ] {
            assert_eq!(token_shown(endpoint, message).as_deref(), Some(&b"a/b"[..]), "{message}");
        }
    }

    #[test]
    fn a_token_elsewhere_or_of_another_kind_is_not_shown() {
        for (endpoint, message) in [
            ("private", r#"{"method":"add_order","params":{"token":""}}"#),
            ("private", r#"{"method":"add_order","params":{"token":7}}"#),
            ("private", r#"{"method":"add_order","params":{}}"#),
            ("private", r#"{"method":"add_order","token":"t","params":{}}"#),
            ("private", r#"{"method":"subscribe","params":{"channel":"ticker","token":"t"}}"#),
            ("private", r#"{"method":"withdraw","params":{"token":"t"}}"#),
            ("public", r#"{"method":"add_order","params":{"token":"t"}}"#),
            ("private-v1", r#"{"event":"addOrder","subscription":{"token":"t"}}"#),
            ("private-v1", r#"{"event":"subscribe","token":"t","subscription":{"name":"ownTrades"}}"#),
            ("private-v1", r#"{"event":"subscribe","subscription":{"name":"ticker","token":"t"}}"#),
            ("public-v1", r#"{"event":"addOrder","token":"t"}"#),
        ] {
            assert_eq!(token_shown(endpoint, message), None, "{message}");
        }
    }
}
