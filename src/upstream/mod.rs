//! Opens sockets to exchanges and sends single REST requests.
//!
//! Knows nothing of credentials or clients: it is handed evidence, a [`Door`] and finished headers. It never
//! follows a redirect and never sends anything twice; [`Fate`] gives a request back only where no byte of it
//! left this process.

mod answer;
mod dial;
mod home;
mod resolve;
mod rest;
#[cfg(test)]
mod tests;
mod ways;
mod websocket;

pub use answer::{AnswerBody, AnsweredInPart, CutShort, read_whole};
pub use resolve::{NotResolved, Resolver};
pub use rest::{AnswerLimits, Closed, Fate, HttpConnection, Silence, connect_http};
pub use ways::{Approach, BadWay, Base, Door, Shown, Upstream, Way, percent_encoded};
pub use websocket::{BadAnswer, Dial, Opened, open_websocket};

use crate::fresh::UnixMillis;
use crate::tls::{Connector, HandshakeFailed};
use http::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{StatusCode, uri::Authority};
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, SystemTime};

/// Where one endpoint of a venue is reached.
#[derive(Debug, Clone)]
pub struct Target {
    /// The host as the certificate must name it, in lower case.
    host: String,
    server_name: ServerName<'static>,
    host_header: HeaderValue,
    /// The TCP port.
    pub port: u16,
    /// Where the host is, from the configuration. If there are any, DNS is not asked, and they may be local.
    pub addresses: Vec<SocketAddr>,
    /// Whom we trust to vouch for the host. Shared, so that sessions resume.
    pub connector: Connector,
    /// Lets DNS lead to this machine or a private network: for simulators and tests.
    pub is_local_allowed: bool,
}

/// A text that is not a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a host name or IP address; write it without scheme, port and path, like `api.kraken.com`")]
pub struct BadHost;

impl Target {
    /// A target that DNS will find and that has to be on the public internet.
    pub fn new(host: &str, port: u16, connector: Connector) -> Result<Self, BadHost> {
        let host = host.to_ascii_lowercase();
        let server_name = ServerName::try_from(host.clone()).map_err(|_| BadHost)?;
        let named = if matches!(server_name, ServerName::IpAddress(rustls::pki_types::IpAddr::V6(_))) {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let named = if port == 443 { named } else { format!("{named}:{port}") };
        named.parse::<Authority>().map_err(|_| BadHost)?;
        let host_header = HeaderValue::try_from(named).map_err(|_| BadHost)?;
        Ok(Self { host, server_name, host_header, port, addresses: Vec::new(), connector, is_local_allowed: false })
    }

    /// True if both are one host at the same addresses.
    fn is_same_place(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port && self.addresses == other.addresses
    }

    /// The host, in lower case, without port.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// How long and how much each step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialLimits {
    /// DNS and TCP together, over all addresses.
    pub connect: Duration,
    /// TLS and, for a WebSocket, the answer to the upgrade.
    pub handshake: Duration,
    /// Quiet time after which the system asks the peer whether it is still there; then every third of it.
    pub keepalive: Duration,
    /// How long sent bytes may stay unacknowledged before the connection counts as lost.
    pub unacknowledged: Duration,
    /// How long a connection for requests is kept open while nobody uses it.
    pub idle: Duration,
    /// How many such connections are kept for each account and endpoint.
    pub idle_connections_max: usize,
}

impl Default for DialLimits {
    /// The values of the fault catalogue: U1 (5 s), U3 (10 s), U6 (a black hole is noticed within 20 s). Idle for less
    /// than the minute after which servers commonly close: better to close first than to write into a closed one.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            keepalive: Duration::from_secs(10),
            unacknowledged: Duration::from_secs(20),
            idle: Duration::from_secs(50),
            idle_connections_max: 16,
        }
    }
}

/// Why there is no connection to the exchange. No REST request has left this process. Of a WebSocket, the
/// upgrade request's own headers may have, at [`NotOpened::HandshakeTimeout`] and from [`NotOpened::Status`] down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// The name has no address.
    #[error("the exchange's host was not found: {0}")]
    Dns(#[from] NotResolved),
    /// DNS leads to this machine, so we would call ourselves.
    #[error(
        "the exchange's host resolves to this machine; the DNS server knows the name that points bots here: configure `addresses` with the exchange's real ones"
    )]
    SelfDial,
    /// DNS leads to a private network.
    #[error("the exchange's host resolves to a private network; if that is meant, configure `addresses`")]
    PrivateAddress,
    /// Nobody listens at any of its addresses.
    #[error("the exchange refused the connection; check host and port")]
    Refused,
    /// The network has no way there.
    #[error("the exchange cannot be reached ({0:?}); check this machine's network")]
    Unreachable(io::ErrorKind),
    /// No address answered in time.
    #[error("the exchange did not accept a connection in time; check the network, firewalls first")]
    ConnectTimeout,
    /// TLS was not set up; see the cause.
    #[error("TLS to the exchange failed: {0}")]
    Tls(#[from] HandshakeFailed),
    /// TLS, or the answer to the upgrade, took too long.
    #[error("the exchange did not finish the handshake in time; try again later")]
    HandshakeTimeout,
    /// It answered the upgrade with something other than 101. Redirects are not followed.
    #[error("the exchange answered the WebSocket upgrade with status {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// How long it asks us to wait, at most an hour.
        retry_after: Option<Duration>,
    },
    /// Its answer to the upgrade is not one.
    #[error("the exchange answered the WebSocket upgrade wrongly: {0}; check the path")]
    BadHandshake(#[from] BadAnswer),
    /// The configuration knows no way to this door.
    #[error("no way to this endpoint is configured; give its venue an account")]
    NoWay,
    /// A header that the venue wants cannot be written.
    #[error("a credential holds a character that no header can carry; check its file")]
    BadHeader,
    /// It closed the connection before it answered.
    #[error("the exchange closed the connection during the handshake; try again later")]
    Closed,
}

/// Longest wait that an exchange can ask of us. A hint beyond it is a mistake or an attack.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date, which is read by the answer's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(http_date(headers)?).ok()?,
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The exchange's clock when it answered, to the second.
pub fn date(headers: &HeaderMap) -> Option<UnixMillis> {
    let since = http_date(headers)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(UnixMillis::from_seconds(since.as_secs()))
}

fn http_date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

/// Runs hyper's connection for as long as an exchange over it takes, in this task: when the caller goes, the
/// socket goes with it. Gives the connection back if it is still there.
async fn drive<C: Future + Unpin, T>(connection: C, exchange: impl Future<Output = T>) -> (Option<C>, T) {
    use futures_util::future::{Either, select};
    let exchange = pin!(exchange);
    match select(connection, exchange).await {
        // Whatever ended the connection was also told to the exchange.
        Either::Left((_ended, exchange)) => (None, exchange.await),
        Either::Right((done, connection)) => (Some(connection), done),
    }
}
