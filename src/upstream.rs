//! stub
#![allow(missing_docs)]
use crate::fresh::UnixMillis;
use crate::policy::{Permit, Upkeep};
use crate::secret::Secret;
use crate::tls::Stream;
use crate::venue::Venue;
use bytes::Bytes;
use std::future::Future;
use std::time::Duration;
#[derive(Clone, Copy)]
pub struct Door { pub venue: &'static dyn Venue, pub endpoint: &'static str }
pub struct Upstream;
pub struct Opened { pub stream: Stream, pub read_ahead: Bytes, pub venue_time: Option<UnixMillis> }
#[derive(Debug, thiserror::Error)]
pub enum NotOpened { #[error("tls {0}")] Tls(crate::tls::HandshakeFailed), #[error("status")] Status { status: http::StatusCode, retry_after: Option<Duration> }, #[error("other")] Other }
pub struct HttpConnection;
pub struct Answer { pub status: http::StatusCode, pub body: Bytes, pub venue_time: Option<UnixMillis> }
pub enum Fate { Unsent(Box<http::Request<http_body_util::Full<Bytes>>>), Unknown, Answered(Answer) }
impl Upstream {
    pub fn connect(&self, _: &Upkeep, _: Door) -> impl Future<Output = Result<HttpConnection, NotOpened>> + Send + use<> { async { Err(NotOpened::Other) } }
    pub fn open(&self, _: &Permit, _: Door, _: Vec<(&'static str, Secret)>) -> impl Future<Output = Result<Opened, NotOpened>> + Send + use<> { async { Err(NotOpened::Other) } }
}
impl HttpConnection { pub async fn send(self, _: http::Request<http_body_util::Full<Bytes>>, _: Duration) -> Fate { Fate::Unknown } }
