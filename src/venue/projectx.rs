//! ProjectX's gateway, as TopstepX runs it: REST and two SignalR hubs, all of which hang on one bearer token.
//!
//! Nothing is signed. A login carries the API key itself and buys a JWT, which stands in `Authorization` and in the
//! query of a hub's upgrade. Clients log in here, and carry a placeholder of the same shape in the same places.
//!
//! Sources: gateway.docs.projectx.com, "Connection URLs", "Authenticate", "Real time data" and the API reference; what
//! client libraries were seen to send.

mod acts;
mod hub;
mod narrow;
mod rest;
mod token;

use super::{
    Bearer, ClientLogin, Comeback, Dialect, Endpoint, EndpointKind, Minted, Minting, NonceRules, NotMinted,
    SignedRequest, Venue,
    wire::json::{self, Value},
};
use crate::credential::{KeyShape, SecretFormat, Signer, TextShape};
use crate::fresh::{Nonce, UnixMillis};
use crate::secret::Secret;

/// The ProjectX gateway of TopstepX. Other firms run the same one under other names.
pub struct ProjectX;

/// REST and hubs have hosts of their own. The hubs' host takes requests too: how to open a socket.
static ENDPOINTS: &[Endpoint] = &[
    Endpoint { name: "rest", kind: EndpointKind::Rest, host: "api.topstepx.com", path: "/api", local_path: None },
    Endpoint {
        name: "user",
        kind: EndpointKind::Socket,
        host: "rtc.topstepx.com",
        path: "/hubs/user",
        local_path: Some("/projectx/user"),
    },
    Endpoint {
        name: "market",
        kind: EndpointKind::Socket,
        host: "rtc.topstepx.com",
        path: "/hubs/market",
        local_path: Some("/projectx/market"),
    },
    Endpoint { name: "negotiate", kind: EndpointKind::Rest, host: "rtc.topstepx.com", path: "/hubs", local_path: None },
];

impl Venue for ProjectX {
    fn name(&self) -> &'static str {
        "projectx"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        ENDPOINTS
    }

    fn secret_format(&self) -> Option<SecretFormat> {
        Some(SecretFormat::Text)
    }

    /// In place of a user name, and a key of 44 characters. project-x-py takes none under 10.
    fn local_key_shape(&self) -> Option<KeyShape> {
        Some(KeyShape { api_key: TextShape::Alphanumeric { characters: 20 }, secret: TextShape::Base64 { bytes: 32 } })
    }

    /// Nothing is signed.
    fn nonces(&self) -> Option<NonceRules> {
        None
    }

    fn rest(&self) -> Option<&dyn super::rest::Rest> {
        Some(self)
    }

    fn minting(&self) -> Option<&dyn Minting> {
        Some(self)
    }

    fn bearer(&self) -> Option<&dyn Bearer> {
        Some(self)
    }

    /// pysignalr comes back after a close with 1001 (version 1.3.3).
    fn comeback(&self) -> Comeback {
        Comeback { status: None, close: Some(1001) }
    }

    /// A user has several trading accounts.
    fn has_sub_accounts(&self) -> bool {
        true
    }

    fn dialect(&self, endpoint: &Endpoint) -> Box<dyn Dialect> {
        let hub = if endpoint.name == "market" { acts::Hub::Market } else { acts::Hub::User };
        Box::new(hub::Conversation::new(hub))
    }
}

impl Bearer for ProjectX {
    fn parameter(&self) -> &'static str {
        "access_token"
    }

    /// What belongs to a negotiation, which is answered here.
    fn ignored_parameters(&self) -> &'static [&'static str] {
        &["id", "connectionId", "negotiateVersion", "useStatefulReconnect"]
    }

    fn shown(&self, text: &str) -> Option<ClientLogin> {
        token::unwrap(text).map(ClientLogin::Token)
    }
}

impl Minting for ProjectX {
    fn needs_nonce(&self) -> bool {
        false
    }

    /// The account's `key` is the user name, its `secret` the API key.
    fn request(&self, signer: &Signer, _nonce: Option<Nonce>) -> SignedRequest {
        let mut body = String::with_capacity(LOGIN_BYTES);
        body.push_str(r#"{"userName":"#);
        json::string(&mut body, signer.expose_api_key());
        body.push_str(r#","apiKey":"#);
        json::string(&mut body, &String::from_utf8_lossy(signer.danger_expose_secret()));
        body.push('}');
        SignedRequest {
            endpoint: "rest",
            method: "POST",
            path: format!("/api/{}", acts::LOGIN),
            headers: vec![
                ("accept", Secret::from("text/plain".to_owned())),
                super::rest::content_type(super::rest::MediaType::Json),
                super::rest::user_agent(),
            ],
            body: body.into_bytes(),
        }
    }

    /// Reads `{"token":"…","success":true,"errorCode":0,"errorMessage":null}`. A refusal has status 200 as well.
    fn read(&self, status: u16, body: &[u8], now: UnixMillis) -> Result<Minted, NotMinted> {
        if status != 200 {
            return Err(NotMinted::Unavailable);
        }
        let document = json::read(body).map_err(|_| NotMinted::Unreadable)?;
        let envelope = document.root().as_object().ok_or(NotMinted::Unreadable)?;
        let code = envelope.get("errorCode").and_then(Value::as_u64).ok_or(NotMinted::Unreadable)?;
        let is_success = envelope.get("success").is_some_and(|success| success.kind() == json::Kind::True);
        if !is_success || code != 0 {
            return Err(refusal(code));
        }
        let text = envelope.get("token").and_then(Value::plain_str).ok_or(NotMinted::Unreadable)?;
        let lives = token::lives_from(now, text).ok_or(NotMinted::Unreadable)?;
        Ok(Minted { secret: Secret::from(text.to_owned()), lives })
    }
}

/// Room for a user name and a key, so that no smaller copy of the text is left behind.
const LOGIN_BYTES: usize = 512;

/// What a code of the login's answer means. Source: the schema `LoginErrorCode` of the venue's Swagger document.
fn refusal(code: u64) -> NotMinted {
    match code {
        // User not found, password, invalid credentials, device, agreements not signed, no subscription, keys disabled.
        1..=3 | 6 | 7 | 9 | 10 => NotMinted::Credential,
        8 => NotMinted::Unavailable,
        // 4 and 5 are about applications; the rest is not documented.
        _ => NotMinted::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn signer(user: &str, key: &str) -> Signer {
        let text = |text: &str| Secret::from(text.to_owned());
        Signer::new(&text(user), &text(key), SecretFormat::Text).expect("a credential")
    }

    #[test]
    fn the_login_carries_the_key_and_nothing_else() {
        let request = ProjectX.request(&signer("trader@example.com", "a\"b+c/d="), None);
        assert_eq!(request.body, br#"{"userName":"trader@example.com","apiKey":"a\"b+c/d="}"#);
        assert_eq!((request.endpoint, request.method, &*request.path), ("rest", "POST", "/api/Auth/loginKey"));
        let names: Vec<_> = request.headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["accept", "content-type", "user-agent"]);
    }

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    // The payload is {"iat":1700000000,"exp":1700003600}.
    const HOUR: &str = "eyJhbGciOiJIUzI1NiJ9.eyJpYXQiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.c2lnbmF0dXJl";

    #[test]
    fn a_token_is_read_with_the_life_that_it_tells() {
        let body = format!(r#"{{"token":"{HOUR}","success":true,"errorCode":0,"errorMessage":null}}"#);
        let minted = ProjectX.read(200, body.as_bytes(), NOW).expect("a token");
        assert_eq!(minted.secret.expose(), HOUR.as_bytes());
        assert_eq!(minted.lives, Duration::from_secs(3600));
    }

    #[test]
    fn an_answer_without_a_usable_token_is_a_failure() {
        let failed = |code: u64| format!(r#"{{"token":null,"success":false,"errorCode":{code},"errorMessage":null}}"#);
        for code in [1, 2, 3, 6, 7, 9, 10] {
            assert_eq!(ProjectX.read(200, failed(code).as_bytes(), NOW).expect_err("refused"), NotMinted::Credential);
        }
        for (status, body, why) in [
            (200, failed(8), NotMinted::Unavailable),
            (200, failed(4), NotMinted::Unreadable),
            (200, failed(0), NotMinted::Unreadable),
            (200, r#"{"token":null,"success":true,"errorCode":0}"#.to_owned(), NotMinted::Unreadable),
            (200, r#"{"token":"","success":true,"errorCode":0}"#.to_owned(), NotMinted::Unreadable),
            (200, r#"{"token":"a b c d e f g h i","success":true,"errorCode":0}"#.to_owned(), NotMinted::Unreadable),
            (200, format!(r#"{{"token":"{HOUR}","success":true,"errorCode":3}}"#), NotMinted::Credential),
            (200, format!(r#"{{"token":"{HOUR}","success":"true","errorCode":0}}"#), NotMinted::Unreadable),
            (200, "<html>busy</html>".to_owned(), NotMinted::Unreadable),
            (429, String::new(), NotMinted::Unavailable),
            (503, String::new(), NotMinted::Unavailable),
        ] {
            assert_eq!(ProjectX.read(status, body.as_bytes(), NOW).expect_err(&body), why, "{body}");
        }
    }
}
