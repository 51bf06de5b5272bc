//! One REST request at a time over a connection that is open before the request exists.
//!
//! The order is what matters: connect, [`HttpConnection::ready`], then nonce and signature, then
//! [`HttpConnection::send`]. A signature made earlier could be overtaken by a later nonce while DNS and TLS
//! take their time.

use super::websocket::READ_AHEAD_BYTES_MAX;
use super::{DialLimits, NotOpened, Resolver, Target, dial, drive};
use crate::tls;
use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long a connection may take to say that it can take a request. It has nothing to wait for: each
/// answer was read to its end, or the connection was dropped.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

type Connection = Pin<Box<http1::Connection<TokioIo<tls::Stream>, Full<Bytes>>>>;

/// What became of a request.
pub enum Fate {
    /// No byte of it left this process: here it is. The nonce in it is used up all the same.
    Unsent(Box<Request<Full<Bytes>>>),
    /// It may have arrived. It must not be sent again.
    Unknown,
    /// It was answered, with whatever status. The body is whole.
    Answered(Response<Bytes>),
    /// It was answered, and the body was cut off, or too long. What it did is unknown, so it must not be sent
    /// again.
    AnsweredInPart(StatusCode),
}

impl Fate {
    /// The word for it in headers, logs and the audit record.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unsent(_) => "not-sent",
            Self::Unknown => "maybe-sent",
            Self::Answered(_) | Self::AnsweredInPart(_) => "answered",
        }
    }
}

/// The connection was closed. Nothing was sent over it since the last answer; open another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the exchange closed the connection; open a new one")]
pub struct Closed;

/// An open HTTP/1.1 connection to an exchange. Dropped, it closes at once; there is no task behind it.
pub struct HttpConnection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// None once it cannot be used any more.
    connection: Option<Connection>,
    host: HeaderValue,
    used_at: Instant,
}

/// Opens a connection: DNS, TCP, TLS. Nothing above TLS is sent.
pub async fn connect_http(
    target: &Target,
    limits: &DialLimits,
    resolver: &Resolver,
) -> Result<HttpConnection, NotOpened> {
    let socket = dial::tcp(target, limits, resolver).await?;
    let stream =
        timeout(limits.handshake, dial::tls(socket, target)).await.map_err(|_| NotOpened::HandshakeTimeout)??;
    let mut client = http1::Builder::new();
    client.max_buf_size(READ_AHEAD_BYTES_MAX);
    let (sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(|_| NotOpened::Closed)?;
    Ok(HttpConnection {
        sender,
        connection: Some(Box::pin(connection)),
        host: target.host_header.clone(),
        used_at: Instant::now(),
    })
}

impl HttpConnection {
    /// Waits until a request can be sent, or finds out that the exchange has closed the connection meanwhile.
    pub async fn ready(&mut self) -> Result<(), Closed> {
        let connection = self.connection.take().ok_or(Closed)?;
        let (connection, ready) = drive(connection, timeout(READY_TIMEOUT, self.sender.ready())).await;
        if !matches!(ready, Ok(Ok(()))) {
            return Err(Closed);
        }
        self.connection = connection;
        self.connection.as_ref().map(|_| ()).ok_or(Closed)
    }

    /// Sends a request and reads its whole answer. `Host` is set to the target's, whatever the request says.
    ///
    /// After anything but [`Fate::Answered`] the connection is closed. Dropping the returned future closes it
    /// too, and the request's fate is then unknown.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>, limit: Duration, body_bytes_max: usize) -> Fate {
        // Taken out: if this future is dropped half way, nobody can mistake the rest of that answer for their own.
        let Some(connection) = self.connection.take() else { return Fate::Unsent(Box::new(request)) };
        self.used_at = Instant::now();
        request.headers_mut().insert(HOST, self.host.clone());
        only_path(request.uri_mut());

        let answer = self.sender.try_send_request(request);
        let exchange = async {
            match answer.await {
                Ok(response) => read_whole(response, body_bytes_max).await,
                Err(mut refused) => {
                    refused.take_message().map_or(Fate::Unknown, |unsent| Fate::Unsent(Box::new(unsent)))
                }
            }
        };
        let Ok((connection, fate)) = timeout(limit, drive(connection, exchange)).await else { return Fate::Unknown };
        if matches!(fate, Fate::Answered(_)) {
            self.connection = connection;
            self.used_at = Instant::now();
        }
        fate
    }

    /// How long nothing has been sent or received. An exchange may close a quiet connection at any moment.
    pub fn idle(&self) -> Duration {
        self.used_at.elapsed()
    }

    /// False once it is known to be of no more use. True is no promise: see [`HttpConnection::ready`].
    pub fn is_open(&self) -> bool {
        self.connection.is_some() && !self.sender.is_closed()
    }
}

/// hyper writes the request's URI as it is: with a host in it, it would be a request to a proxy.
fn only_path(uri: &mut Uri) {
    if uri.authority().is_some() || uri.scheme().is_some() {
        *uri = Uri::from(uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    }
}

async fn read_whole(response: Response<Incoming>, body_bytes_max: usize) -> Fate {
    let (head, body) = response.into_parts();
    match Limited::new(body, body_bytes_max).collect().await {
        Ok(body) => Fate::Answered(Response::from_parts(head, body.to_bytes())),
        Err(_cut_or_too_long) => Fate::AnsweredInPart(head.status),
    }
}

impl std::fmt::Debug for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Requests are signed and answers hold balances.
        f.write_str(self.word())
    }
}

impl std::fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpConnection").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}
