//! The body of an exchange's answer, as it comes: never more than a limit, never standing still for long.
//!
//! Owns its connection. Read to its end, it hands the connection on to the next request; dropped before, it closes
//! it, since the rest of one answer must never be taken for the next one.

use super::rest::{AnswerLimits, HttpConnection};
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// A body that is still coming.
pub struct AnswerBody {
    body: Incoming,
    /// None once the body is over, well or badly.
    connection: Option<HttpConnection>,
    bytes_left: usize,
    stall: Duration,
    stalled: Pin<Box<Sleep>>,
}

/// Why a body did not come whole. What the request did is then unknown, so it must not be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CutShort {
    /// The connection ended, or what came was no body.
    #[error("the exchange's answer was cut off")]
    Cut,
    /// It has more bytes than the limit.
    #[error("the exchange's answer is too long; raise `limits.answer_bytes_max` if it is meant to be")]
    TooLong,
    /// Nothing came for too long.
    #[error("the exchange's answer stood still for too long")]
    Stalled,
}

/// It was answered, and the body did not come whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why} (status {status})")]
pub struct AnsweredInPart {
    /// The status, which did come.
    pub status: StatusCode,
    /// What became of the rest.
    pub why: CutShort,
}

/// Reads a whole answer of at most `bytes_max` bytes, which only narrows the limit that it was sent with.
pub async fn read_whole(response: Response<AnswerBody>, bytes_max: usize) -> Result<Response<Bytes>, AnsweredInPart> {
    let (head, mut body) = response.into_parts();
    body.bytes_left = body.bytes_left.min(bytes_max);
    match body.collect().await {
        Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
        Err(why) => Err(AnsweredInPart { status: head.status, why }),
    }
}

impl AnswerBody {
    pub(super) fn new(body: Incoming, connection: HttpConnection, limits: &AnswerLimits) -> Self {
        let mut answer = Self {
            body,
            connection: Some(connection),
            bytes_left: limits.bytes_max,
            stall: limits.stall,
            stalled: Box::pin(sleep(limits.stall)),
        };
        answer.hand_on_at_end();
        answer
    }

    /// Readers that know the length stop at the last byte and never ask whether there is more.
    fn hand_on_at_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(connection) = self.connection.take()
        {
            connection.answered();
        }
    }

    fn fail(&mut self, why: CutShort) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        self.connection = None;
        Poll::Ready(Some(Err(why)))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let bytes_left = u64::try_from(self.bytes_left).unwrap_or(u64::MAX);
        if self.body.size_hint().lower() > bytes_left {
            return self.fail(CutShort::TooLong);
        }
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are dropped: no venue documents any, and nobody behind us looks for some.
                    let Ok(data) = frame.into_data() else { continue };
                    let Some(left) = self.bytes_left.checked_sub(data.len()) else {
                        return self.fail(CutShort::TooLong);
                    };
                    self.bytes_left = left;
                    let deadline = Instant::now() + self.stall;
                    self.stalled.as_mut().reset(deadline);
                    self.hand_on_at_end();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(None) => {
                    if let Some(connection) = self.connection.take() {
                        connection.answered();
                    }
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(_cut))) => return self.fail(CutShort::Cut),
                Poll::Pending => break,
            }
        }
        match self.stalled.as_mut().poll(cx) {
            Poll::Ready(()) => self.fail(CutShort::Stalled),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl std::fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnswerBody(…)")
    }
}
