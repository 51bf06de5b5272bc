//! One REST request over a connection that is open before the request exists, and its answer as it comes.
//!
//! The order is what matters: connect, [`HttpConnection::ready`], then nonce and signature, then
//! [`HttpConnection::send`]. A signature made earlier could be overtaken by a later nonce while DNS and TLS
//! take their time. Not what decides whether a request may be made anew: that is whoever holds its [`Fate`].

use super::home::Home;
use super::websocket::READ_AHEAD_BYTES_MAX;
use super::{DialLimits, NotOpened, Resolver, Target, answer::AnswerBody, dial, retry_after};
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Weak;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

/// How long a connection may take to say that it can take a request. It has nothing to wait for: each
/// answer was read to its end, or the connection was dropped.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// What became of a request.
pub enum Fate {
    /// No byte of it left this process: here it is. The nonce in it is used up all the same.
    Unsent(Box<Request<Full<Bytes>>>),
    /// It may have arrived. It must not be sent again.
    Unknown(Silence),
    /// It was answered, with whatever status. The head is in; the body comes as it is read.
    Answered(Box<Response<AnswerBody>>),
}

/// Why nothing is known of a request that may have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// The connection ended, or what came over it was no answer.
    #[error("the exchange closed the connection before it answered")]
    Lost,
    /// No answer came in time. One that comes later is nobody's.
    #[error("the exchange did not answer in time")]
    Late,
}

impl Fate {
    /// The word for it in headers, logs and the audit record.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unsent(_) => "not-sent",
            Self::Unknown(_) => "maybe-sent",
            Self::Answered(_) => "answered",
        }
    }
}

/// How long and how large an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLimits {
    /// From the first byte of the request to the end of the answer's head.
    pub timeout: Duration,
    /// Bytes of the body.
    pub bytes_max: usize,
    /// How long the body may stand still.
    pub stall: Duration,
}

impl Default for AnswerLimits {
    /// The values of the fault catalogue: U13 (10 s) and U10 (8 MiB).
    fn default() -> Self {
        let timeout = Duration::from_secs(10);
        Self { timeout, bytes_max: 8 * 1024 * 1024, stall: Duration::from_secs(10) }
    }
}

/// The connection was closed. Nothing was sent over it since the last answer; open another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the exchange closed the connection; open a new one")]
pub struct Closed;

/// An open HTTP/1.1 connection to an exchange. Dropped, it closes at once.
pub struct HttpConnection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Moves the bytes, and ends with this value.
    driver: AbortOnDropHandle<()>,
    /// The socket, to look whether something has arrived. Never read or written here.
    socket: OwnedFd,
    host: HeaderValue,
    /// Who keeps it while it is idle. Weak: an idle connection is in there itself.
    home: Weak<Home>,
    used_at: Instant,
    has_served: bool,
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
    let socket = stream.tcp().as_fd().try_clone_to_owned();
    let socket = socket.map_err(|error| NotOpened::Unreachable(error.kind()))?;
    let mut client = http1::Builder::new();
    client.max_buf_size(READ_AHEAD_BYTES_MAX);
    let (sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(|_| NotOpened::Closed)?;
    // How it ended is told to the request that was under way, if there was one.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok(HttpConnection {
        sender,
        driver: AbortOnDropHandle::new(driver),
        socket,
        host: target.host_header.clone(),
        home: Weak::new(),
        used_at: Instant::now(),
        has_served: false,
    })
}

impl HttpConnection {
    /// Waits until a request can be sent, or finds out that the exchange has closed the connection meanwhile.
    pub async fn ready(&mut self) -> Result<(), Closed> {
        // Lets the runtime look at its sockets: an end that has arrived is then known before anything is written. Only
        // where something has, because each time it wakes another thread, which costs more than the request.
        if !self.is_quiet() {
            tokio::task::yield_now().await;
            // The one that reads it may live on another thread, and be late. What an idle connection has to say, if it
            // is not the tickets of its handshake, is that it ends.
            if self.has_served && !self.is_quiet() {
                return Err(Closed);
            }
        }
        match timeout(READY_TIMEOUT, self.sender.ready()).await {
            Ok(Ok(())) if self.is_open() => Ok(()),
            Ok(_) | Err(_) => Err(Closed),
        }
    }

    /// Sends a request and waits for the head of its answer. `Host` is set to the target's, whatever the request
    /// says. Interim answers (1xx) are no head and are passed over.
    ///
    /// The connection serves again once the answer's body was read to its end. After anything else it is closed;
    /// so it is when the returned future is dropped, and the request's fate is then unknown.
    pub async fn send(mut self, mut request: Request<Full<Bytes>>, limits: &AnswerLimits) -> Fate {
        request.headers_mut().insert(HOST, self.host.clone());
        // What is packed cannot be searched for secrets, and can be a bomb.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        only_path(request.uri_mut());
        self.used_at = Instant::now();
        self.has_served = true;
        let answer = self.sender.try_send_request(request);
        match timeout(limits.timeout, answer).await {
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                if let (Some(home), Some(wait)) = (self.home.upgrade(), retry_after(&head.headers)) {
                    home.note_answer(head.status, wait);
                }
                Fate::Answered(Box::new(Response::from_parts(head, AnswerBody::new(body, self, limits))))
            }
            Ok(Err(mut refused)) => {
                refused.take_message().map_or(Fate::Unknown(Silence::Lost), |unsent| Fate::Unsent(Box::new(unsent)))
            }
            Err(_elapsed) => Fate::Unknown(Silence::Late),
        }
    }

    /// True if nothing has arrived that was not read: neither bytes nor an end.
    fn is_quiet(&self) -> bool {
        let looked = SockRef::from(&self.socket).peek(&mut [MaybeUninit::uninit()]);
        looked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// How long nothing has been sent or received. An exchange may close a quiet connection at any moment.
    pub fn idle(&self) -> Duration {
        self.used_at.elapsed()
    }

    /// True if it has carried a request already.
    pub fn has_served(&self) -> bool {
        self.has_served
    }

    /// False once it is known to be of no more use. True is no promise: see [`HttpConnection::ready`].
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.driver.is_finished()
    }

    /// True if it can take a request at this moment, as far as is known.
    pub fn is_ready(&self) -> bool {
        self.is_open() && self.sender.is_ready()
    }

    /// Gives it back to be used for another request, or closes it where nobody keeps it. To be called for one over
    /// which no request is under way.
    pub fn keep(self) {
        if let Some(home) = self.home.upgrade() {
            home.keep(self);
        }
    }

    pub(super) fn at_home(mut self, home: Weak<Home>) -> Self {
        self.home = home;
        self
    }

    pub(super) fn answered(mut self) {
        self.used_at = Instant::now();
        self.keep();
    }
}

/// hyper writes the request's URI as it is: with a host in it, it would be a request to a proxy.
fn only_path(uri: &mut Uri) {
    if uri.authority().is_some() || uri.scheme().is_some() {
        *uri = Uri::from(uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
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
