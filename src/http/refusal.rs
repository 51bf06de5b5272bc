//! What is answered to a request that leads nowhere: a status, the reason, and what to do about it.

use super::Answer;
use super::head::BadHead;
use crate::fault;
use crate::names::AccountName;
use crate::policy::Denied;
use crate::session::End;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{Either, Full};

/// The header that says that Countersign spoke, and why: a slug of the log.
pub(super) const REASON: HeaderName = HeaderName::from_static("countersign-reason");
/// The header that says what became of a request: `not-sent`, `maybe-sent` or `answered`.
pub(super) const UPSTREAM: HeaderName = HeaderName::from_static("countersign-upstream");

/// Why a request is refused: a status, a slug for the log and the header, and what to do about it.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) slug: &'static str,
    pub(super) advice: String,
}

impl From<BadHead> for Refusal {
    fn from(bad: BadHead) -> Self {
        Self { status: bad.status, slug: bad.slug, advice: bad.advice.to_owned() }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::TooManySessions => {
                Refusal::new(End::MaxConnections, "this client has as many sessions as `max_sessions` allows")
            }
            Denied::WhichAccount(accounts) => {
                let names: Vec<&str> = accounts.iter().map(AccountName::as_str).collect();
                let advice = format!("several accounts fit; name one in `countersign-account`: {}", names.join(", "));
                Refusal::new(End::AuthenticationFailed, advice)
            }
            Denied::NoGrant | Denied::NotThatAccount => Refusal::new(
                End::AuthenticationFailed,
                "no grant lets this client use this; add one under `[[grants]]`",
            ),
        }
    }
}

impl Refusal {
    pub(super) fn new(end: End, advice: impl Into<String>) -> Self {
        Self { status: fault::status(end), slug: fault::slug(end), advice: advice.into() }
    }

    pub(super) fn into_answer(self) -> Answer {
        let mut text = format!("countersign: {}: {}\n", self.slug, self.advice);
        // signalrcore 1.0.2 takes every answer for a 101 whose head holds those digits: `Content-Length` must not.
        while text.len().to_string().contains("101") {
            text.push('\n');
        }
        let mut answer = Response::new(Either::Left(Full::from(text)));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(REASON, HeaderValue::from_static(self.slug));
        headers.insert(UPSTREAM, HeaderValue::from_static("not-sent"));
        if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        // Whatever of the request was not read must not be taken for the next one.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::Body as _;

    #[test]
    fn no_length_of_a_refusal_looks_like_a_status() {
        for length in 0..1200 {
            let refusal = Refusal { status: StatusCode::UNAUTHORIZED, slug: "bad", advice: "x".repeat(length) };
            let Either::Left(text) = refusal.into_answer().into_body() else { panic!("a refusal is a text of ours") };
            let bytes = text.size_hint().exact().expect("is known");
            assert!(!bytes.to_string().contains("101"), "{bytes}");
        }
    }
}
