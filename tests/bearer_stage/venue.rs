//! An exchange that nobody has heard of, where everything hangs on one bearer token: what the house is told of it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use countersign::credential::{KeyShape, SecretFormat, Signer, TextShape};
use countersign::fresh::{Nonce, UnixMillis};
use countersign::message::Message;
use countersign::scope::{Act, Acts, Scope};
use countersign::secret::Secret;
use countersign::venue::rest::{
    Given, Handling, Local, MediaType, Piece, Rest, RestAnswer, RestReading, RestRequest, Subjects, Unanswered,
};
use countersign::venue::{
    Bearer, ClientLogin, Dialect, Endpoint, EndpointKind, Event, LoginOutcome, Minted, Minting, NonceRules, NotMinted,
    Reading, Refusal, SignedRequest, Step, Steps, Venue, Watch,
};
use std::time::Duration;

pub static DESK: Desk = Desk;
pub const API: &str = "api.desk.test";
pub const HUBS: &str = "rtc.desk.test";

pub struct Desk;

static ENDPOINTS: &[Endpoint] = &[
    Endpoint { name: "rest", kind: EndpointKind::Rest, host: API, path: "/api", local_path: None },
    Endpoint {
        name: "user",
        kind: EndpointKind::Socket,
        host: HUBS,
        path: "/hubs/user",
        local_path: Some("/desk/user"),
    },
    Endpoint { name: "negotiate", kind: EndpointKind::Rest, host: HUBS, path: "/hubs", local_path: None },
];

impl Venue for Desk {
    fn name(&self) -> &'static str {
        "desk"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        ENDPOINTS
    }

    fn secret_format(&self) -> Option<SecretFormat> {
        Some(SecretFormat::Text)
    }

    fn local_key_shape(&self) -> Option<KeyShape> {
        let text = |characters| TextShape::Alphanumeric { characters };
        Some(KeyShape { api_key: text(20), secret: text(44) })
    }

    fn nonces(&self) -> Option<NonceRules> {
        None
    }

    fn rest(&self) -> Option<&dyn Rest> {
        Some(self)
    }

    fn minting(&self) -> Option<&dyn Minting> {
        Some(self)
    }

    fn bearer(&self) -> Option<&dyn Bearer> {
        Some(self)
    }

    fn has_sub_accounts(&self) -> bool {
        true
    }

    fn dialect(&self, _endpoint: &Endpoint) -> Box<dyn Dialect> {
        Box::new(Conversation { wakes_at: None })
    }
}

impl Minting for Desk {
    fn needs_nonce(&self) -> bool {
        false
    }

    fn request(&self, signer: &Signer, _nonce: Option<Nonce>) -> SignedRequest {
        let secret = String::from_utf8_lossy(signer.danger_expose_secret());
        let body = format!(r#"{{"user":"{}","key":"{secret}"}}"#, signer.expose_api_key());
        SignedRequest {
            endpoint: "rest",
            method: "POST",
            path: "/api/login".to_owned(),
            headers: vec![],
            body: body.into(),
        }
    }

    fn read(&self, status: u16, body: &[u8], _now: UnixMillis) -> Result<Minted, NotMinted> {
        let said: serde_json::Value = serde_json::from_slice(body).map_err(|_| NotMinted::Unreadable)?;
        match (status, said["token"].as_str()) {
            (200, Some(token)) => {
                Ok(Minted { secret: Secret::from(token.to_owned()), lives: Duration::from_secs(86_400) })
            }
            (200, None) => Err(NotMinted::Credential),
            _ => Err(NotMinted::Unavailable),
        }
    }
}

/// Our placeholders, as this exchange's tokens look.
fn dressed(placeholder: &Secret) -> String {
    format!("desk.{}", URL_SAFE_NO_PAD.encode(STANDARD_NO_PAD.decode(placeholder.expose()).expect("base64")))
}

impl Bearer for Desk {
    fn parameter(&self) -> &'static str {
        "access_token"
    }

    fn ignored_parameters(&self) -> &'static [&'static str] {
        &["id", "negotiateVersion"]
    }

    fn shown(&self, text: &str) -> Option<ClientLogin> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix("desk.")?).ok()?;
        Some(ClientLogin::Token(Secret::from(STANDARD_NO_PAD.encode(bytes))))
    }
}

impl Rest for Desk {
    fn may_prove(&self, path: &str, _headers: &http::HeaderMap) -> bool {
        path == "/api/login" || path.ends_with("/negotiate")
    }

    fn read(&self, request: &RestRequest) -> Result<RestReading, Refusal> {
        let (operation, act, handling) = match request.path.as_str() {
            "/api/login" => ("login", Act::Read, Handling::Local(Local::Token)),
            "/api/validate" => ("validate", Act::Read, Handling::Local(Local::Token)),
            "/api/logout" => ("logout", Act::Read, Handling::Local(Local::Logout)),
            "/api/accounts" => ("accounts", Act::Read, Handling::Bearer),
            "/api/order" => ("order", Act::Order, Handling::Bearer),
            "/hubs/user/negotiate" => ("negotiate", Act::Public, Handling::Local(Local::Negotiate)),
            _ => return Err(Refusal::Unknown),
        };
        let mut shown = None;
        if operation == "login" {
            let said: serde_json::Value = serde_json::from_slice(&request.body).map_err(|_| Refusal::Malformed)?;
            let text = |name: &str| said[name].as_str().map(str::to_owned).ok_or(Refusal::Malformed);
            shown = Some(ClientLogin::Key { api_key: text("user")?, secret: Secret::from(text("key")?) });
        }
        let body = vec![Piece::Kept(0..request.body.len())];
        let content_type = Some(MediaType::Json);
        let acts = Acts::one(act);
        Ok(RestReading {
            operation,
            acts,
            handling,
            shown,
            sub_accounts: Vec::new(),
            subjects: Subjects::None,
            body,
            content_type,
        })
    }

    fn sign(&self, _: &RestRequest, _: &RestReading, _: &Signer, _: Nonce) -> SignedRequest {
        unreachable!("nothing is signed here")
    }

    fn outcome(&self, status: u16, _body_start: &[u8]) -> LoginOutcome {
        if status == 401 { LoginOutcome::Refused } else { LoginOutcome::Accepted }
    }

    fn refuse(&self, _request: Option<&RestRequest>, why: Unanswered) -> RestAnswer {
        let status = match why {
            Unanswered::Refused(Refusal::NotAuthenticated) => 401,
            Unanswered::Refused(_) => 200,
            Unanswered::MaybeSent => 504,
            Unanswered::Busy | Unanswered::Withdrawn | Unanswered::Unavailable => 503,
        };
        RestAnswer { status, body: format!(r#"{{"success":false,"why":"{}"}}"#, why.slug()) }
    }

    fn answer(&self, _request: &RestRequest, given: Given<'_>) -> RestAnswer {
        let body = match given {
            Given::Token { placeholder, ends_at, now } => {
                format!(r#"{{"token":"{}","lives_s":{}}}"#, dressed(placeholder), ends_at.since(now).as_secs())
            }
            Given::LoggedOut => r#"{"success":true}"#.to_owned(),
            Given::Negotiated(number) => format!(r#"{{"connectionId":"{number:032x}"}}"#),
        };
        RestAnswer { status: 200, body }
    }

    fn narrow(&self, _request: &RestRequest, _body: &[u8], allowed: &[u64]) -> Option<Vec<u8>> {
        Some(format!(r#"{{"accounts":{allowed:?}}}"#).into_bytes())
    }
}

/// Says what it is asked to say, so that what lies around it can be seen.
struct Conversation {
    wakes_at: Option<UnixMillis>,
}

impl Dialect for Conversation {
    fn on_event(&mut self, event: Event, out: &mut Steps) {
        match event {
            Event::Opened { .. } => out.push(Step::Ready),
            Event::Wake(_) => {
                self.wakes_at = None;
                out.push(Step::ToClient(Message::text("woken")));
            }
            Event::Risen { .. } | Event::Fresh { .. } | Event::NotFresh => {}
        }
    }

    fn read(&self, _message: &Message) -> Reading {
        Reading { acts: Ok(Acts::one(Act::Read)), operation: "say", ..Reading::refused(Refusal::Unknown) }
    }

    fn forward(&mut self, message: Message, _reading: &Reading, _scope: Scope, _now: UnixMillis, out: &mut Steps) {
        if message.payload().as_ref() == b"wake me" {
            self.wakes_at = Some(UnixMillis(1));
        } else {
            out.push(Step::ToUpstream(message));
        }
    }

    fn refuse(&self, _: &Message, _: &Reading, why: Refusal, _: UnixMillis, out: &mut Steps) {
        out.push(Step::ToClient(Message::text(why.slug())));
    }

    fn on_upstream(&mut self, message: Message, out: &mut Steps) {
        if message.payload().as_ref() == b"logged out" {
            out.push(Step::TokenEnded);
        }
        out.push(Step::ToClient(message));
    }

    fn watch(&self) -> Watch<'_> {
        Watch::Everything
    }

    fn wakes_at(&self) -> Option<UnixMillis> {
        self.wakes_at
    }
}
