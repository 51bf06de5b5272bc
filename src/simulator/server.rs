//! The listener of a simulated exchange: TCP, TLS, HTTP/1.1 and the upgrade, on one port.
//!
//! Knows no exchange: what a request or a message means is the [`Exchange`]'s.

use super::Options;
use super::faults::SocketAction;
use super::record::{Connected, Kind, Record};
use super::socket::{self, Conversation, Outbox, Surroundings};
use super::tls;
use crate::fresh::UnixMillis;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at one time: more than any load test opens, fewer than there are file descriptors.
const CONNECTIONS_MAX: usize = 4096;
/// A request body longer than this is refused.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long TLS may take.
const TLS_LIMIT: Duration = Duration::from_secs(10);
/// How often the exchange looks at its dead-man timers.
const TICK: Duration = Duration::from_millis(50);

/// One exchange's rules.
pub(super) trait Exchange: Send + Sync + 'static {
    /// Answers a REST request.
    fn answer(&self, request: &Received) -> Answer;
    /// Opens a conversation for an upgrade, or says why there is none at this host and path, or for this client.
    fn open(self: Arc<Self>, request: &Received, outbox: Outbox) -> Result<Box<dyn Conversation>, Answer>;
    /// Time has passed.
    fn tick(&self, now: UnixMillis);
}

/// An HTTP request, read whole.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) connection: u64,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Received {
    /// The host that the client asked for: lower case, without a port.
    pub(super) fn host(&self) -> String {
        let host = self.header(HOST.as_str()).unwrap_or_default();
        host.split(':').next().unwrap_or_default().to_ascii_lowercase()
    }

    pub(super) fn path(&self) -> &str {
        self.uri.path()
    }

    /// A header's value, if it is there once and is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        if values.next().is_some() { None } else { value.to_str().ok() }
    }

    fn as_bytes(&self) -> Bytes {
        let mut text = format!("{} {}\r\n", self.method, self.uri);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        Bytes::from(bytes)
    }
}

/// A REST answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Empty for an answer without a body.
    pub(super) content_type: &'static str,
    /// Headers beside those that every answer has; names in lower case.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    pub(super) delay: Duration,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: impl Into<String>) -> Self {
        Self::text(status, "application/json", body)
    }

    pub(super) fn text(status: StatusCode, content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into(), delay: Duration::ZERO }
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self::text(status, "", "")
    }

    pub(super) fn html(status: StatusCode) -> Self {
        let body = format!("<html><head><title>{status}</title></head><body>simulated outage</body></html>");
        Self::text(status, "text/html", body)
    }
}

/// What all connections of one simulator share.
pub(super) struct Shop<E> {
    pub(super) exchange: Arc<E>,
    pub(super) record: Record,
    pub(super) options: Options,
    pub(super) stop: CancellationToken,
}

/// Accepts until told to stop, then waits for the connections.
pub(super) async fn serve<E: Exchange>(listener: TcpListener, shop: Arc<Shop<E>>) {
    let connections = TaskTracker::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            () = shop.stop.cancelled() => break,
            _ = tick.tick() => shop.exchange.tick(shop.options.clock.now()),
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((socket, _)) => {
                    let counted = shop.record.connected();
                    connections.spawn(connection(socket, counted, shop.clone(), connections.clone()));
                }
                // Out of descriptors, most likely: the next tick is soon enough.
                Err(_) => tokio::time::sleep(TICK).await,
            },
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection<E: Exchange>(socket: TcpStream, counted: Connected, shop: Arc<Shop<E>>, tasks: TaskTracker) {
    let number = counted.connection;
    // Best effort: without it frames only wait for Nagle.
    let _ = socket.set_nodelay(true);
    let reset = ResetHandle::of(&socket);
    let mut actions = shop.options.faults.actions();
    let handshake = tokio::time::timeout(TLS_LIMIT, tls::accept(&shop.options.tls, socket));
    let stream = tokio::select! {
        () = shop.stop.cancelled() => return,
        stream = handshake => match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) | Err(_) => return shop.record.verdict(number, "tls: no handshake"),
        },
    };
    let name = tls::server_name(&stream).unwrap_or_default().to_owned();
    shop.record.received(number, Kind::Tls, Bytes::from(name));

    let stream = Counted { stream, record: shop.record.clone(), _connected: counted };
    let service = hyper::service::service_fn({
        let shop = shop.clone();
        move |request| respond(request, number, shop.clone(), tasks.clone())
    });
    let http = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut http = std::pin::pin!(http.with_upgrades());
    loop {
        tokio::select! {
            () = shop.stop.cancelled() => return,
            // A peer that ends a connection badly is not the exchange's business.
            _ = &mut http => return,
            action = actions.recv() => match action {
                Ok(SocketAction::Reset) => {
                    if let Some(reset) = reset {
                        reset.danger_reset();
                    }
                    return;
                }
                Ok(SocketAction::HangUp) => return,
                Ok(_) | Err(_) => {}
            },
        }
    }
}

async fn respond<E: Exchange>(
    mut request: Request<Incoming>,
    connection: u64,
    shop: Arc<Shop<E>>,
    tasks: TaskTracker,
) -> io::Result<Response<Full<Bytes>>> {
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(io::Error::other)?.to_bytes();
    let received = Received { connection, method: head.method, uri: head.uri, headers: head.headers, body };
    let kind = Kind::Request { method: received.method.to_string(), path: received.uri.to_string() };
    shop.record.received(connection, kind, received.as_bytes());

    let switches = shop.options.faults.switches();
    let answer = match upgrade {
        Some(upgrade) => match (switches.handshake_status, accept_key(&received)) {
            (Some(status), _) => Answer::html(StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN)),
            (None, Err(why)) => {
                shop.record.verdict(connection, format!("upgrade: {why}"));
                Answer::html(StatusCode::BAD_REQUEST)
            }
            (None, Ok(accept)) => {
                let (outbox, outbox_end) = Outbox::new();
                match shop.exchange.clone().open(&received, outbox.clone()) {
                    Err(refusal) => refusal,
                    Ok(conversation) => {
                        shop.record.sent(connection, Kind::Response { status: 101 }, Bytes::new());
                        let shop = shop.clone();
                        tasks.spawn(async move {
                            let Ok(parts) = upgrade.await.map(Upgraded::downcast::<TokioIo<Counted>>) else {
                                return;
                            };
                            let Ok(parts) = parts else { return };
                            let around = Surroundings {
                                connection,
                                record: shop.record.clone(),
                                faults: shop.options.faults.clone(),
                                idle_close: shop.options.idle_close,
                                heartbeat: shop.options.heartbeat,
                                stop: shop.stop.clone(),
                            };
                            let stream = parts.io.into_inner();
                            socket::converse(stream, parts.read_buf, conversation, outbox, outbox_end, around).await;
                        });
                        return Ok(switching(accept));
                    }
                }
            }
        },
        None => match switches.rest_status {
            Some(status) => Answer::html(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)),
            None => {
                if !switches.arrival_delay_max.is_zero() {
                    tokio::time::sleep(switches.arrival_delay_max.mul_f64(random_part())).await;
                }
                shop.exchange.answer(&received)
            }
        },
    };
    let delay = answer.delay.max(switches.answer_delay);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if switches.hang_up {
        return Err(io::Error::other("hung up on purpose"));
    }
    let status = answer.status.as_u16();
    let body = Bytes::from(answer.body);
    shop.record.sent(connection, Kind::Response { status }, body.clone());
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = answer.status;
    if !answer.content_type.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(answer.content_type));
    }
    for (name, value) in answer.headers {
        let value = http::HeaderValue::try_from(value).map_err(io::Error::other)?;
        response.headers_mut().insert(name, value);
    }
    // The venues stand behind a CDN that sets cookies; none may reach a client.
    let cookie = http::HeaderValue::from_static("__cf_bm=simulated-cookie; path=/; Secure; HttpOnly");
    response.headers_mut().insert(http::header::SET_COOKIE, cookie);
    Ok(response)
}

/// Something from 0 to 1.
fn random_part() -> f64 {
    let mut bytes = [0];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    f64::from(bytes[0]) / 255.0
}

/// Checks an upgrade as RFC 6455, 4.2.1, asks.
fn accept_key(request: &Received) -> Result<String, &'static str> {
    let has = |name: &str, word: &str| {
        let value = request.header(name).unwrap_or_default();
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    if request.method != Method::GET {
        return Err("not a GET");
    }
    if !has("upgrade", "websocket") || !has("connection", "upgrade") {
        return Err("no upgrade to websocket");
    }
    if !has("sec-websocket-version", "13") {
        return Err("not version 13");
    }
    let key = request.header(SEC_WEBSOCKET_KEY.as_str()).ok_or("no key")?;
    Ok(derive_accept_key(key.as_bytes()))
}

fn switching(accept: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, http::HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = http::HeaderValue::from_maybe_shared(Bytes::from(accept)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// A TLS stream that counts its bytes in the record.
#[derive(Debug)]
pub(super) struct Counted {
    stream: tls::Stream,
    record: Record,
    // Counted as live until the stream itself is gone, whoever holds it by then.
    _connected: Connected,
}

impl Counted {
    /// The TCP socket below.
    pub(super) fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().0
    }
}

/// A second handle to a TCP socket, for those who have given the first away: a reset is a property of the socket.
pub(super) struct ResetHandle(OwnedFd);

impl ResetHandle {
    /// None where the system has no descriptor left; the connection then ends without a reset.
    pub(super) fn of(socket: &TcpStream) -> Option<Self> {
        socket.as_fd().try_clone_to_owned().ok().map(Self)
    }

    /// Makes the end of the connection a reset: it goes out when the last handle is closed, and whatever has not been
    /// read is lost.
    pub(super) fn danger_reset(self) {
        // A socket that is gone already needs no reset.
        let _ = socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.record.count_received(read);
        }
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.record.count_sent(written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
