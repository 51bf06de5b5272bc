//! The body of an exchange's answer on its way to the client: judged at its start, scrubbed all along, never whole in
//! memory unless it is short.

use crate::session::Scrub;
use crate::supply::account::Verdict;
use crate::upstream::{AnswerBody, CutShort};
use crate::venue::rest::Rest;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A body that ends within so many bytes is read whole before its client hears of it: what is cut off then can still
/// be told in the status. Answers to orders have some hundred bytes.
const SHORT_BYTES_MAX: usize = 64 * 1024;
/// Where an error stands, if the answer is one, it stands within so many bytes.
const START_BYTES: usize = 256;

/// Reads the start of an answer, and tells the account what it says of key and nonce.
pub(super) struct Judge {
    rest: &'static dyn Rest,
    status: StatusCode,
    start: Vec<u8>,
    verdict: Option<Verdict>,
}

impl Judge {
    pub(super) fn new(rest: &'static dyn Rest, status: StatusCode, verdict: Verdict) -> Self {
        Self { rest, status, start: Vec::with_capacity(START_BYTES), verdict: Some(verdict) }
    }

    fn read(&mut self, data: &[u8]) {
        let missing = START_BYTES.saturating_sub(self.start.len());
        self.start.extend_from_slice(&data[..data.len().min(missing)]);
        if self.start.len() >= START_BYTES {
            self.conclude();
        }
    }

    /// Says what the answer meant, once it is whole or its start is long enough. Of one that was cut off before,
    /// nothing is known.
    fn conclude(&mut self) {
        if let Some(verdict) = self.verdict.take() {
            verdict.tell(self.rest.outcome(self.status.as_u16(), &self.start));
        }
    }
}

/// An answer's body, as far as it was read before its client hears of it.
pub(super) enum Begun {
    /// It is short, and scrubbed.
    Whole(Bytes),
    /// It is long.
    Coming(Box<Relayed>),
}

impl Begun {
    /// The first bytes, enough to tell an error.
    pub(super) fn start(&self) -> &[u8] {
        let read: &[u8] = match self {
            Self::Whole(body) => body,
            Self::Coming(relayed) => &relayed.held,
        };
        &read[..read.len().min(START_BYTES)]
    }

    /// All of it, however long the limits let it be.
    pub(super) async fn whole(self) -> Result<Bytes, CutShort> {
        match self {
            Self::Whole(body) => Ok(body),
            Self::Coming(relayed) => Ok(relayed.collect().await?.to_bytes()),
        }
    }

    /// The body that the client gets.
    pub(super) fn into_body(self) -> Either<Full<Bytes>, Relayed> {
        match self {
            Self::Whole(body) => Either::Left(Full::new(body)),
            Self::Coming(relayed) => Either::Right(*relayed),
        }
    }
}

/// A body that is still coming.
pub(in crate::http) struct Relayed {
    body: AnswerBody,
    scrub: Scrub,
    judge: Option<Judge>,
    /// Read and not passed on: its end could be the beginning of a secret.
    held: BytesMut,
    is_over: bool,
}

impl Relayed {
    /// Reads a short body whole, and the start of a long one.
    pub(super) async fn begin(body: AnswerBody, scrub: Scrub, judge: Option<Judge>) -> Result<Begun, CutShort> {
        let mut relayed = Self { body, scrub, judge, held: BytesMut::new(), is_over: false };
        while relayed.held.len() <= SHORT_BYTES_MAX {
            match relayed.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        relayed.take(&data);
                    }
                }
                None => {
                    relayed.judge.iter_mut().for_each(Judge::conclude);
                    let mut whole = std::mem::take(&mut relayed.held);
                    relayed.scrub.overwrite(&mut whole);
                    return Ok(Begun::Whole(whole.freeze()));
                }
            }
        }
        Ok(Begun::Coming(Box::new(relayed)))
    }

    fn take(&mut self, data: &[u8]) {
        if let Some(judge) = &mut self.judge {
            judge.read(data);
        }
        self.held.extend_from_slice(data);
    }

    /// What may be passed on of what is held: all of it but what the next piece could complete to a secret.
    fn release(&mut self) -> Option<Bytes> {
        self.scrub.overwrite(&mut self.held);
        let kept = if self.is_over { 0 } else { self.scrub.overlap().min(self.held.len()) };
        let free = self.held.len() - kept;
        (free > 0).then(|| self.held.split_to(free).freeze())
    }
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let this = self.get_mut();
        loop {
            if let Some(data) = this.release() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if this.is_over {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.take(&data);
                    }
                }
                Some(Err(cut)) => return Poll::Ready(Some(Err(cut))),
                None => {
                    this.is_over = true;
                    this.judge.iter_mut().for_each(Judge::conclude);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && (self.is_over || self.body.is_end_stream())
    }

    /// Nothing is added and nothing taken away: overwriting keeps the length.
    fn size_hint(&self) -> SizeHint {
        let held = self.held.len() as u64;
        let coming = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(coming.lower() + held);
        if let Some(upper) = coming.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}
