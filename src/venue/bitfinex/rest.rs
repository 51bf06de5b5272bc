//! Bitfinex' REST v2: what a client's request does, whose signature it carries, how it is signed anew.
//!
//! Key, nonce and signature stand in headers, so that a body leaves byte for byte as it came. Version 1 is not served:
//! there the nonce and every parameter stand in one header.
//!
//! Sources: docs.bitfinex.com, "Authenticated endpoints"; the clients bitfinex-api-py, bfx-api-node-rest and ccxt,
//! which agree on what is signed.

pub(super) mod subjects;
#[cfg(test)]
mod tests;

use super::acts::{RestRow, rest_row};
use super::{Bitfinex, v2};
use crate::credential::Signer;
use crate::fresh::Nonce;
use crate::scope::{Act, Acts};
use crate::secret::Secret;
use crate::venue::rest::{
    Handling, MediaType, Piece, Rest, RestAnswer, RestReading, RestRequest, Subjects, Unanswered, content_type,
    user_agent,
};
use crate::venue::wire::json::{self, Array, Document};
use crate::venue::{ClientLogin, LoginOutcome, Refusal, SignatureScheme, SignedLogin, SignedRequest};
use http::{HeaderMap, Method};

/// The headers of a signed request.
const SIGNED_HEADERS: &[&str] = &["bfx-apikey", "bfx-nonce", "bfx-signature"];

/// What stands before the path in the signed text, and nowhere else.
const SIGNED_PREFIX: &str = "/api";

impl Rest for Bitfinex {
    fn read(&self, request: &RestRequest) -> Result<RestReading, Refusal> {
        request.refuse_ambiguous()?;
        match rest_row(&request.path).ok_or(Refusal::Unknown)? {
            RestRow::Get if request.method == Method::GET && request.body.is_empty() => Ok(public("public", None)),
            RestRow::Post(operation, Act::Public) if request.method == Method::POST => {
                read_body(request)?;
                Ok(public(operation, Some(MediaType::Json)))
            }
            // The public host has no private paths.
            RestRow::Post(operation, act)
                if act != Act::Public && request.method == Method::POST && request.endpoint.name == "rest" =>
            {
                read_private(request, operation, act)
            }
            RestRow::Get | RestRow::Post(..) => Err(Refusal::Unknown),
        }
    }

    fn may_prove(&self, _path: &str, headers: &HeaderMap) -> bool {
        headers.contains_key("bfx-apikey")
    }

    fn sign(&self, request: &RestRequest, reading: &RestReading, signer: &Signer, nonce: Nonce) -> SignedRequest {
        let body = Piece::render(&reading.body, &request.body, nonce);
        let nonce = nonce.to_string();
        let signature =
            signer.hmac_sha384(&[SIGNED_PREFIX.as_bytes(), request.path.as_bytes(), nonce.as_bytes(), &body]);
        SignedRequest {
            endpoint: request.endpoint.name,
            method: "POST",
            path: request.path.clone(),
            headers: vec![
                ("bfx-nonce", Secret::from(nonce)),
                ("bfx-apikey", Secret::from(signer.expose_api_key().to_owned())),
                ("bfx-signature", Secret::from(hex::encode(signature))),
                content_type(MediaType::Json),
                user_agent(),
            ],
            body,
        }
    }

    fn plain_headers(&self) -> &'static [&'static str] {
        &["content-type", "user-agent", "bfx-nonce"]
    }

    /// Bitfinex says it in the body: `["error",10114,"nonce: small"]`.
    fn outcome(&self, _status: u16, body_start: &[u8]) -> LoginOutcome {
        match error_code(body_start) {
            Some(10_114) => LoginOutcome::NonceTooSmall,
            // The key or its signature. 10001, a missing permission, is no such thing: the key is good.
            Some(10_100 | 10_111..=10_113) => LoginOutcome::Refused,
            _ => LoginOutcome::Accepted,
        }
    }

    /// ccxt reads the code under status 500, and the status otherwise; bitfinex-api-py the code alone.
    fn refuse(&self, _request: Option<&RestRequest>, why: Unanswered) -> RestAnswer {
        let (status, code, text) = match why {
            Unanswered::Refused(Refusal::NotPermitted(_)) => (500, 10_001, "api_key: permission invalid"),
            Unanswered::Refused(Refusal::Unknown) => (500, 10_000, "request: unknown to the proxy, and so not sent"),
            Unanswered::Refused(Refusal::Malformed) => (500, 10_020, "request: invalid"),
            Unanswered::Refused(Refusal::CredentialField) => (500, 10_100, "token: invalid"),
            Unanswered::Refused(Refusal::NotAuthenticated) => (500, 10_100, "apikey: invalid"),
            Unanswered::Refused(Refusal::Replayed) => (500, 10_114, "nonce: small"),
            // Libraries wait and try again, which is right: nothing was sent.
            Unanswered::Busy => (500, 11_010, "ratelimit: error"),
            // "Concurrency", final to all libraries: whoever cancels an order must not have it placed by a retry.
            Unanswered::Withdrawn => (500, 10_008, "request: withdrawn by a cancel, and so not sent"),
            // "Not ready, try again later".
            Unanswered::Unavailable => (503, 11_000, "temporarily_unavailable"),
            Unanswered::MaybeSent => (504, 10_000, "no answer: find out whether the request arrived"),
        };
        RestAnswer { status, body: format!(r#"["error",{code},"{text}"]"#) }
    }
}

/// A reading of a request that needs no key. Whatever the client signed it with is not looked at: bitfinex-api-py signs
/// these too.
fn public(operation: &'static str, content_type: Option<MediaType>) -> RestReading {
    RestReading {
        operation,
        acts: Acts::one(Act::Public),
        handling: Handling::Public,
        shown: None,
        sub_accounts: Vec::new(),
        subjects: Subjects::None,
        body: Vec::new(),
        content_type,
    }
}

fn read_private(request: &RestRequest, operation: &'static str, act: Act) -> Result<RestReading, Refusal> {
    // No private call has one, and it is not signed.
    if request.query.is_some() {
        return Err(Refusal::Malformed);
    }
    // Another bearer credential of the exchange's own; it would win over the key there.
    if request.headers.contains_key("bfx-token") {
        return Err(Refusal::CredentialField);
    }
    let document = read_body(request)?;
    let root = document.as_ref().map(Document::root);
    let object = root.and_then(json::Value::as_object);
    if object.is_some_and(|object| object.in_other_case(&["ops", "id", "cid", "gid", "all"])) {
        return Err(Refusal::Malformed);
    }
    let acts = if operation == "auth/w/order/multi" {
        let operations = object.and_then(|object| object.get("ops")).ok_or(Refusal::Malformed)?;
        v2::batched(operations)?
    } else {
        Acts::one(act)
    };
    if acts.is_empty() {
        return Err(Refusal::Malformed);
    }
    Ok(RestReading {
        operation,
        acts,
        handling: Handling::Signed,
        shown: shown(request)?,
        sub_accounts: Vec::new(),
        subjects: subjects::of(operation, act, object),
        body: if request.body.is_empty() { Vec::new() } else { vec![Piece::Kept(0..request.body.len())] },
        content_type: Some(MediaType::Json),
    })
}

/// The body, an object or nothing. JSON is the only encoding in use, so it is read as such where no header says it.
fn read_body(request: &RestRequest) -> Result<Option<Document<'_>>, Refusal> {
    if request.media_type()? == Some(MediaType::Form) {
        return Err(Refusal::Malformed);
    }
    if request.body.is_empty() {
        return Ok(None);
    }
    let document = json::read(&request.body).map_err(|_| Refusal::Malformed)?;
    let root = document.root();
    // PHP writes an empty object as an empty array, and so does ccxt there.
    let is_body = root.as_object().is_some() || root.as_array().is_some_and(Array::is_empty);
    if is_body { Ok(Some(document)) } else { Err(Refusal::Malformed) }
}

/// The client's own signature, over exactly what it sent. A part of one is no proof, and no dummy either.
fn shown(request: &RestRequest) -> Result<Option<ClientLogin>, Refusal> {
    if request.has_unreadable(SIGNED_HEADERS) {
        return Err(Refusal::NotAuthenticated);
    }
    let header = |name| request.header(name);
    let (api_key, digits, signature) = match (header("bfx-apikey"), header("bfx-nonce"), header("bfx-signature")) {
        (None, None, None) => return Ok(None),
        (Some(api_key), Some(nonce), Some(signature)) => (api_key, nonce, signature),
        _ => return Err(Refusal::NotAuthenticated),
    };
    let signature = hex::decode(signature).map_err(|_| Refusal::NotAuthenticated)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let nonce = digits.parse().ok().filter(|_| is_number).ok_or(Refusal::NotAuthenticated)?;
    Ok(Some(ClientLogin::Signed(SignedLogin {
        api_key: api_key.to_owned(),
        nonce,
        scheme: SignatureScheme::HmacSha384,
        message: [SIGNED_PREFIX.as_bytes(), request.path.as_bytes(), digits.as_bytes(), &request.body].concat(),
        signature,
    })))
}

/// The code of an error, of which only the start may be there.
fn error_code(body_start: &[u8]) -> Option<u64> {
    let behind = |bytes: &'_ [u8], mark: &str| bytes.trim_ascii_start().strip_prefix(mark.as_bytes()).map(<[u8]>::len);
    let marks = ["[", "\"error\"", ","];
    let rest = marks
        .iter()
        .try_fold(body_start, |bytes, mark| behind(bytes, mark).map(|left| &bytes[bytes.len() - left..]))?
        .trim_ascii_start();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // Cut off in the middle, it might be another code.
    let is_whole = rest.get(digits).is_some();
    std::str::from_utf8(&rest[..digits]).ok().filter(|_| is_whole)?.parse().ok()
}
