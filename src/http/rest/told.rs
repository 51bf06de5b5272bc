//! What a client is told: the exchange's answer, or one of our own in the venue's shape.

use super::relayed::{Begun, Judge};
use super::{Asked, Relayed};
use crate::fault;
use crate::http::Answer;
use crate::http::refusal::{REASON, UPSTREAM};
use crate::identity::Principal;
use crate::names::ClientName;
use crate::relay::end_of;
use crate::scope::Act;
use crate::session::Scrub;
use crate::supply::account::{Account, NotAnswered, NotSent, Verdict};
use crate::upstream::{AnswerBody, CutShort, Silence};
use crate::venue::Refusal as Why;
use crate::venue::rest::{RestAnswer, RestReading, Unanswered};
use http::header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{Either, Full};
use std::time::Instant;
use tracing::{debug, info, warn};

/// The headers of an exchange's answer that a client gets: what describes the body, and nothing that could be a cookie.
const PASSED_ON: &[HeaderName] = &[CONTENT_TYPE, CONTENT_ENCODING, CONTENT_DISPOSITION, RETRY_AFTER];

/// An answer of the exchange, read as far as a client has to wait for it, and scrubbed.
pub(super) struct Heard {
    pub(super) status: StatusCode,
    /// Those that the client gets.
    pub(super) headers: HeaderMap,
    pub(super) body: Begun,
}

impl Heard {
    /// The answer that the client gets.
    pub(super) fn into_answer(self) -> Answer {
        let mut answer = Response::new(self.body.into_body());
        *answer.status_mut() = self.status;
        *answer.headers_mut() = self.headers;
        answer.headers_mut().insert(UPSTREAM, HeaderValue::from_static("answered"));
        answer
    }
}

impl Asked<'_> {
    /// What the venue's client libraries understand, where the exchange gave no answer.
    pub(super) fn told(&self, why: Unanswered) -> RestAnswer {
        self.rest.refuse(Some(&self.request), why)
    }

    /// Passes the exchange's answer on: whole, where it is short, else as it comes in.
    pub(super) async fn relay(&self, response: Response<AnswerBody>, scrub: Scrub, verdict: Option<Verdict>) -> Answer {
        self.hear(response, scrub, verdict).await.map_or_else(|told| *told, Heard::into_answer)
    }

    /// Reads the start of the exchange's answer. The error is what to tell the client where it can be no answer.
    pub(super) async fn hear(
        &self,
        response: Response<AnswerBody>,
        scrub: Scrub,
        verdict: Option<Verdict>,
    ) -> Result<Heard, Box<Answer>> {
        let (head, body) = response.into_parts();
        if head.status.is_informational() {
            // A switch of protocols that nobody asked for.
            let told = RestAnswer { status: 502, ..self.told(Unanswered::MaybeSent) };
            return Err(Box::new(own(&told, "upstream_protocol_error", "answered")));
        }
        let headers = passed_on(&head.headers, &scrub);
        let judge = verdict.map(|verdict| Judge::new(self.rest, head.status, verdict));
        match Relayed::begin(body, scrub, judge).await {
            Ok(body) => Ok(Heard { status: head.status, headers, body }),
            Err(why) => Err(Box::new(self.cut_short(head.status, why))),
        }
    }

    /// Says that the exchange's answer did not come whole.
    pub(super) fn cut_short(&self, status: StatusCode, why: CutShort) -> Answer {
        warn!(peer = %self.connection.peer, %why, status = status.as_u16(), "answer cut short");
        let told = RestAnswer { status: 502, ..self.told(Unanswered::MaybeSent) };
        own(&told, "answer_incomplete", "answered")
    }

    /// Writes to the log that the exchange answered. Reads are many, and move nothing.
    pub(super) fn note_answered(&self, who: &ClientName, account: &Account, reading: &RestReading, status: StatusCode) {
        let (account, operation, status) = (account.name(), reading.operation, status.as_u16());
        if reading.acts.iter().all(|act| act == Act::Read) {
            debug!(client = %who, %account, operation, status, "answered");
        } else {
            info!(client = %who, %account, operation, status, "answered");
        }
    }

    /// Refuses the request as the venue would.
    pub(super) fn refuse(&self, why: Why, operation: &'static str, who: Option<&Principal>) -> Answer {
        if let Some(kept_back) = self.door.refusals.line(Instant::now()) {
            warn!(
                peer = %self.connection.peer,
                client = who.map(|who| who.name().as_str()),
                route = ?self.route,
                operation,
                lacking = if let Why::NotPermitted(right) = why { Some(right.word()) } else { None },
                reason = why.slug(),
                kept_back,
                "request refused"
            );
        }
        own(&self.told(Unanswered::Refused(why)), why.slug(), "not-sent")
    }

    pub(super) fn not_answered(&self, operation: &'static str, client: &ClientName, why: NotAnswered) -> Answer {
        warn!(%client, route = ?self.route, operation, %why, "request not answered");
        own(&self.told(why.unanswered()), slug(&why), why.word())
    }
}

/// An answer of our own in the venue's shape, with the headers that say so.
pub(super) fn own(told: &RestAnswer, reason: &'static str, upstream: &'static str) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(told.body.clone())));
    *answer.status_mut() = StatusCode::from_u16(told.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(UPSTREAM, HeaderValue::from_static(upstream));
    if !reason.is_empty() {
        headers.insert(REASON, HeaderValue::from_static(reason));
    }
    answer
}

/// The headers of the exchange's answer that a client gets. One with a secret in it describes nothing.
fn passed_on(headers: &HeaderMap, scrub: &Scrub) -> HeaderMap {
    let described = PASSED_ON.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
    described.filter(|(_, value)| !scrub.finds(value.as_bytes())).collect()
}

/// The word in the log and in the answer's header.
fn slug(why: &NotAnswered) -> &'static str {
    match why {
        NotAnswered::NotSent(NotSent::Busy) => "busy",
        NotAnswered::NotSent(NotSent::WaitedTooLong) => "waited_too_long",
        NotAnswered::NotSent(NotSent::Withdrawn) => "withdrawn",
        NotAnswered::NotSent(NotSent::Lane(_)) => "nonce_unavailable",
        NotAnswered::NotSent(NotSent::NotReached(error)) => fault::slug(end_of(error)),
        NotAnswered::NotSent(NotSent::ConnectionLost) => "upstream_unavailable",
        NotAnswered::NotSent(NotSent::LeftAlone) => "upstream_auth_failed",
        NotAnswered::NotSent(NotSent::Unwritable) => "malformed_message",
        NotAnswered::NotSent(NotSent::NotPermitted) => "identity_not_mapped",
        NotAnswered::NotSent(NotSent::NoLongerPermitted) => "no_longer_permitted",
        NotAnswered::NotSent(NotSent::Closed) => "internal_error",
        NotAnswered::MaybeSent(Silence::Lost) => "upstream_lost",
        NotAnswered::MaybeSent(Silence::Late) => "upstream_timeout",
    }
}
