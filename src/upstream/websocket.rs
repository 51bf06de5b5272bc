//! A WebSocket to an exchange, up to the last byte of the handshake. Frames are somebody else's.

use super::{DialLimits, NotOpened, Resolver, Target, date, dial, drive, retry_after};
use crate::fresh::UnixMillis;
use crate::tls;
use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

/// How we name ourselves where the venue's headers do not: some edges refuse requests without a name.
const OUR_NAME: HeaderValue = HeaderValue::from_static(concat!("countersign/", env!("CARGO_PKG_VERSION")));

/// Most bytes that are read ahead of the end of the answer's headers, and most that a refusal's body can cost.
pub(super) const READ_AHEAD_BYTES_MAX: usize = 64 * 1024;

/// What to ask for. May hold secrets, so it does not print.
#[derive(Clone)]
pub struct Dial {
    /// Path and query.
    pub path: PathAndQuery,
    /// Headers of the venue's own: login, subprotocol, `User-Agent`. Those of the handshake itself are ours.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Opened {
    /// The stream, right behind the handshake.
    pub stream: tls::Stream,
    /// What arrived together with the handshake's end: the first frames. Read these before the stream.
    pub read_ahead: Bytes,
    /// The exchange's clock, to the second, if it told.
    pub date: Option<UnixMillis>,
}

/// Why an answer is not a WebSocket handshake (RFC 6455, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// It is not HTTP, or its headers are larger than 64 KiB.
    #[error("it is not an HTTP response that we can read")]
    NotHttp,
    /// `Upgrade` is missing or names something else.
    #[error("its Upgrade header is not `websocket`")]
    Upgrade,
    /// `Connection` does not say `Upgrade`.
    #[error("its Connection header does not say `Upgrade`")]
    Connection,
    /// The key was not answered: somebody in between answered from memory.
    #[error("its Sec-WebSocket-Accept does not fit our key")]
    Accept,
    /// It switched on an extension that nobody asked for.
    #[error("it uses an extension that was not asked for")]
    Extension,
    /// It chose a subprotocol that nobody asked for.
    #[error("it chose a subprotocol that was not asked for")]
    Subprotocol,
}

/// Opens a WebSocket: DNS, TCP, TLS, upgrade. Nothing is tried twice, and no redirect is followed.
pub async fn open_websocket(
    target: &Target,
    dial: &Dial,
    limits: &DialLimits,
    resolver: &Resolver,
) -> Result<Opened, NotOpened> {
    let socket = dial::tcp(target, limits, resolver).await?;
    let opened = async {
        let stream = dial::tls(socket, target).await?;
        upgrade(stream, target, dial).await
    };
    timeout(limits.handshake, opened).await.map_err(|_| NotOpened::HandshakeTimeout)?
}

async fn upgrade(stream: tls::Stream, target: &Target, dial: &Dial) -> Result<Opened, NotOpened> {
    let key = generate_key();
    let request = request(target, dial, &key);
    let asked = request.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned();

    let mut client = http1::Builder::new();
    client.max_buf_size(READ_AHEAD_BYTES_MAX);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(|error| why(&error))?;
    let answer = sender.send_request(request);
    let exchange = async {
        let response = answer.await.map_err(|error| why(&error))?;
        let (status, headers) = (response.status(), response.headers());
        if status != StatusCode::SWITCHING_PROTOCOLS {
            // The body stays unread: it could be long, and nobody here may show it.
            return Err(NotOpened::Status { status, retry_after: retry_after(headers) });
        }
        check(headers, &key, asked.as_ref())?;
        let date = date(headers);
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| why(&error))?;
        Ok((upgraded, date))
    };
    let (_connection, outcome) = drive(connection.with_upgrades(), exchange).await;
    let (upgraded, date) = outcome?;
    let parts = upgraded.downcast::<TokioIo<tls::Stream>>().expect("the connection was made of this very type");
    Ok(Opened { stream: parts.io.into_inner(), read_ahead: parts.read_buf, date })
}

fn request(target: &Target, dial: &Dial, key: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = Uri::from(dial.path.clone());
    let headers = request.headers_mut();
    headers.extend(dial.headers.iter().cloned());
    headers.entry(USER_AGENT).or_insert(OUR_NAME);
    // Last, so that no venue can name another host than the one whose certificate was checked.
    headers.insert(HOST, target.host_header.clone());
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(key).expect("a key is base64"));
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    request
}

fn check(headers: &HeaderMap, key: &str, asked: Option<&HeaderValue>) -> Result<(), BadAnswer> {
    let only = |name: HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    if !only(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return Err(BadAnswer::Upgrade);
    }
    let mut connection = headers.get_all(CONNECTION).iter().flat_map(tokens);
    if !connection.any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return Err(BadAnswer::Connection);
    }
    let expected = derive_accept_key(key.as_bytes());
    if only(SEC_WEBSOCKET_ACCEPT).is_none_or(|value| value.as_bytes() != expected.as_bytes()) {
        return Err(BadAnswer::Accept);
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err(BadAnswer::Extension);
    }
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        let chosen = only(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
        let was_asked = chosen.is_some_and(|chosen| asked.into_iter().flat_map(tokens).any(|token| token == chosen));
        if !was_asked {
            return Err(BadAnswer::Subprotocol);
        }
    }
    Ok(())
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim)
}

fn why(error: &hyper::Error) -> NotOpened {
    if error.is_parse() || error.is_parse_too_large() {
        return BadAnswer::NotHttp.into();
    }
    NotOpened::Closed
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dial(…)")
    }
}
