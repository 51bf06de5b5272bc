//! Kraken Spot's REST API: what a client's request does, whose signature it carries, how it is signed anew.
//!
//! The nonce stands in the body, a form or JSON, and is replaced in place; a client's `otp` is cut out. Every other
//! byte of the body leaves as it came.
//!
//! Sources: docs.kraken.com, "Spot REST authentication", "Introduction" and "Errors".

mod body;
#[cfg(test)]
mod tests;

use super::{BASE64, Kraken, acts, api_sign};
use crate::credential::{Signer, sha256};
use crate::fresh::Nonce;
use crate::scope::{Act, Acts};
use crate::secret::Secret;
use crate::venue::rest::{
    Given, Handling, Local, MediaType, Piece, Rest, RestAnswer, RestReading, RestRequest, Subjects, Unanswered,
    content_type, user_agent,
};
use crate::venue::wire::json;
use crate::venue::{ClientLogin, LoginOutcome, Refusal, SignatureScheme, SignedLogin, SignedRequest};
use base64::Engine as _;
use body::Body;
pub(super) use body::cancelled;
use http::{HeaderMap, Method};

impl Rest for Kraken {
    fn read(&self, request: &RestRequest) -> Result<RestReading, Refusal> {
        request.refuse_ambiguous()?;
        if request.path.starts_with("/0/private/") {
            return read_private(request);
        }
        // Public methods take GET alone.
        if acts::rest_act(&request.path) != Some(Act::Public) || request.method != Method::GET {
            return Err(Refusal::Unknown);
        }
        if !request.body.is_empty() {
            return Err(Refusal::Malformed);
        }
        Ok(RestReading {
            operation: "public",
            acts: Acts::one(Act::Public),
            handling: Handling::Public,
            shown: None,
            sub_accounts: Vec::new(),
            subjects: Subjects::None,
            body: Vec::new(),
            content_type: None,
        })
    }

    fn may_prove(&self, _path: &str, headers: &HeaderMap) -> bool {
        headers.contains_key("api-key")
    }

    fn sign(&self, request: &RestRequest, reading: &RestReading, signer: &Signer, nonce: Nonce) -> SignedRequest {
        let body = Piece::render(&reading.body, &request.body, nonce);
        let signature = api_sign(signer, &request.path, nonce, &body);
        SignedRequest {
            endpoint: request.endpoint.name,
            method: "POST",
            path: request.path.clone(),
            headers: vec![
                ("api-key", Secret::from(signer.expose_api_key().to_owned())),
                ("api-sign", Secret::from(signature)),
                content_type(reading.content_type.unwrap_or(MediaType::Form)),
                user_agent(),
            ],
            body,
        }
    }

    /// Kraken says it in the body, whatever the status.
    fn outcome(&self, _status: u16, body_start: &[u8]) -> LoginOutcome {
        let mut outcome = LoginOutcome::Accepted;
        for error in errors(body_start) {
            let is =
                |known: &str| error.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
            if is("EAPI:Invalid nonce") {
                return LoginOutcome::NonceTooSmall;
            }
            // `EGeneral:Permission denied` is no such thing: the key is good, and lacks a right.
            if CREDENTIAL_ERRORS.iter().any(|known| is(known)) {
                outcome = LoginOutcome::Refused;
            }
        }
        outcome
    }

    fn refuse(&self, _request: Option<&RestRequest>, why: Unanswered) -> RestAnswer {
        let (status, error) = match why {
            Unanswered::Refused(Refusal::NotPermitted(_)) => (200, "EGeneral:Permission denied"),
            Unanswered::Refused(Refusal::Unknown) => (200, "EGeneral:Unknown method"),
            Unanswered::Refused(Refusal::Malformed | Refusal::CredentialField) => (200, "EGeneral:Invalid arguments"),
            Unanswered::Refused(Refusal::NotAuthenticated) => (200, "EAPI:Invalid key"),
            Unanswered::Refused(Refusal::Replayed) => (200, "EAPI:Invalid nonce"),
            // Libraries wait and try again, which is right: nothing was sent.
            Unanswered::Busy => (200, "EAPI:Rate limit exceeded"),
            // Final to all libraries: whoever cancels an order must not have it placed by a retry.
            Unanswered::Withdrawn => (200, "EService:Deadline elapsed"),
            Unanswered::Unavailable => (503, "EService:Unavailable"),
            // ccxt reads the text before the status: one that it does not know is a refusal to it, after which an
            // order may be placed again. This one is a failed call, of which nobody knows what it did.
            Unanswered::MaybeSent => (504, "EGeneral:Internal error"),
        };
        RestAnswer { status, body: format!(r#"{{"error":["{error}"],"countersign":"{}"}}"#, why.slug()) }
    }

    fn answer(&self, request: &RestRequest, given: Given<'_>) -> RestAnswer {
        let Given::Token { placeholder, ends_at, now } = given else {
            return self.refuse(Some(request), Unanswered::Refused(Refusal::Unknown));
        };
        let mut body = String::from(r#"{"error":[],"result":{"token":"#);
        json::string(&mut body, &String::from_utf8_lossy(placeholder.expose()));
        body.push_str(&format!(r#","expires":{}}}}}"#, ends_at.since(now).as_secs()));
        RestAnswer { status: 200, body }
    }
}

/// What Kraken says of a key or a signature that it does not take. Repeats lead to a lockout, and make it longer.
const CREDENTIAL_ERRORS: &[&str] =
    &["EAPI:Invalid key", "EAPI:Invalid signature", "EGeneral:Temporary lockout", "EAuth:Account temporary disabled"];

fn read_private(request: &RestRequest) -> Result<RestReading, Refusal> {
    let (operation, act) = acts::private(&request.path).ok_or(Refusal::Unknown)?;
    if request.method != Method::POST {
        return Err(Refusal::Unknown);
    }
    // None is documented, none is signed, and it could name a parameter that the body names too.
    if request.query.is_some() {
        return Err(Refusal::Malformed);
    }
    let body = body::read(request)?;
    let act = match operation {
        // Disarming the timer, or what might be that, lets orders live on.
        "CancelAllOrdersAfter" if body.seconds("timeout").is_none_or(|seconds| seconds == 0) => Act::Order,
        // Whatever `new` says: what counts as true is Kraken's to decide.
        "DepositAddresses" if !body.has("new") => Act::Read,
        _ => act,
    };
    let subjects = match operation {
        "CancelAll" => Subjects::All,
        // Cancels nothing now.
        "CancelAllOrdersAfter" => Subjects::None,
        _ => match body.subjects() {
            // It could mean any.
            names if names.is_empty() && act == Act::Cancel => Subjects::All,
            names if names.is_empty() => Subjects::None,
            names => Subjects::Named(names),
        },
    };
    Ok(RestReading {
        operation,
        acts: Acts::one(act),
        handling: if operation == "GetWebSocketsToken" { Handling::Local(Local::Token) } else { Handling::Signed },
        shown: shown(request, &body)?,
        sub_accounts: Vec::new(),
        subjects,
        body: body.edited(),
        content_type: Some(body.media_type()),
    })
}

/// The client's own signature, over exactly what it sent. Half of one is no proof, and no dummy either.
fn shown(request: &RestRequest, body: &Body<'_>) -> Result<Option<ClientLogin>, Refusal> {
    if request.has_unreadable(&["api-key", "api-sign"]) {
        return Err(Refusal::NotAuthenticated);
    }
    let (api_key, signature) = match (request.header("api-key"), request.header("api-sign")) {
        (None, None) => return Ok(None),
        (Some(api_key), Some(signature)) => (api_key, signature),
        _ => return Err(Refusal::NotAuthenticated),
    };
    let signature = BASE64.decode(signature).map_err(|_| Refusal::NotAuthenticated)?;
    let digits = body.nonce().filter(|nonce| nonce.bytes().all(|byte| byte.is_ascii_digit()));
    let digits = digits.ok_or(Refusal::NotAuthenticated)?;
    let nonce = digits.parse().map_err(|_| Refusal::NotAuthenticated)?;
    let digest = sha256(&[digits.as_bytes(), &request.body]);
    Ok(Some(ClientLogin::Signed(SignedLogin {
        api_key: api_key.to_owned(),
        nonce,
        scheme: SignatureScheme::HmacSha512,
        message: [request.path.as_bytes(), &digest].concat(),
        signature,
    })))
}

/// The errors at the top of an answer, of which only the start may be there. A string deeper inside is data.
fn errors(body_start: &[u8]) -> impl Iterator<Item = &str> {
    let text = match std::str::from_utf8(body_start) {
        Ok(text) => text,
        // The start may end inside a character.
        Err(error) => std::str::from_utf8(&body_start[..error.valid_up_to()]).unwrap_or_default(),
    };
    let behind = |text: &'_ str, mark: &str| text.trim_ascii_start().strip_prefix(mark).map(str::len);
    let mut rest = ["{", "\"error\"", ":", "["]
        .iter()
        .try_fold(text, |text, mark| behind(text, mark).map(|left| &text[text.len() - left..]));
    std::iter::from_fn(move || {
        let (error, behind) = rest?.trim_ascii_start().strip_prefix('"')?.split_once('"')?;
        rest = behind.trim_ascii_start().strip_prefix(',');
        Some(error)
    })
}
