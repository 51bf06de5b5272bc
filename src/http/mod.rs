//! Reads a request, finds its route and proof, and answers it: by an upgrade to a session, or by the exchange's answer
//! to the same request signed anew. The one place where HTTP statuses are chosen.

mod bearer;
mod head;
mod refusal;
mod rest;
mod route;
mod stall;
mod throttle;
mod upgrade;

pub use route::{Entrance, NoRoute, Routes};
pub use throttle::Throttle;

use crate::identity::budget::Source;
use crate::identity::mtls::CertificateProof;
use crate::identity::{NotAuthenticated, Principal, Proof};
use crate::names::{AccountName, ClientName};
use crate::relay::House;
use crate::secret::Secret;
use crate::session::End;
use crate::tls::Stream;
use crate::upstream::AnswerLimits;
use crate::venue::Route;
use bytes::Bytes;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use refusal::Refusal;
use stall::Stalling;
use std::any::Any;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// The times and sizes of the door.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a request's head may take.
    pub request_head: Duration,
    /// How many headers a request may have.
    pub headers_max: usize,
    /// How long a head may be, in bytes; 8,192 at least.
    pub head_bytes_max: usize,
    /// How many requests one connection may carry.
    pub requests_per_connection_max: usize,
    /// How long the body of a request may take.
    pub request_body: Duration,
    /// How long the body of a request may be, in bytes.
    pub request_body_bytes_max: usize,
    /// How long and how large an exchange's answer may be to a request that needs no nonce.
    pub answer: AnswerLimits,
    /// How long an order that needs no nonce may wait for its token and its connection: the price that it was made for
    /// is gone by then.
    pub order_wait: Duration,
    /// How long a connection may have been idle to carry an order or cancel that needs no nonce: an exchange may be
    /// about to close it.
    pub order_connection_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_head: Duration::from_secs(10),
            headers_max: 64,
            head_bytes_max: 16 * 1024,
            requests_per_connection_max: 100,
            request_body: Duration::from_secs(30),
            request_body_bytes_max: 1024 * 1024,
            answer: AnswerLimits::default(),
            order_wait: Duration::from_secs(2),
            order_connection_idle: Duration::from_secs(10),
        }
    }
}

/// The door of the house: everything that a connection needs to be answered.
pub struct Door {
    /// What sessions share.
    pub house: Arc<House>,
    /// What the names and paths lead to.
    pub routes: Routes,
    /// Origins of browser pages that may connect.
    pub origins: Vec<String>,
    /// Development only: whoever comes is this client. The server refuses to start with it off loopback.
    pub unsafe_no_auth: Option<ClientName>,
    /// Sessions that run.
    pub sessions: TaskTracker,
    /// The times and sizes.
    pub limits: Limits,
    /// How many refusals the log is told of.
    pub refusals: Throttle,
}

/// Serves one connection to its end. The slot is held for as long as the connection or its session lives.
pub async fn serve<Slot>(door: Arc<Door>, entrance: Entrance, stream: Stream, peer: SocketAddr, slot: Slot)
where
    Slot: Send + Sync + 'static,
{
    let connection = Arc::new(Connection {
        entrance,
        source: source_of(peer.ip()),
        peer,
        server_name: stream.server_name().map(str::to_ascii_lowercase),
        certificate: stream.peer_certificates().first().map(|leaf| leaf.as_ref().to_vec()),
        requests: AtomicUsize::new(0),
        _slot: Box::new(slot),
    });
    let limits = door.limits.clone();
    let stall = door.house.limits.outbox_stall;
    let mut draining = door.house.draining.clone();
    let service = service_fn(move |request| {
        let (door, connection) = (Arc::clone(&door), Arc::clone(&connection));
        async move { Ok::<_, Infallible>(answer(&door, &connection, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_head)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max)
        .serve_connection(TokioIo::new(Stalling::new(stream, stall)), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = drained(&mut draining) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        debug!(%peer, %error, "connection ended");
    }
}

/// Waits until the house closes.
pub(crate) async fn drained(draining: &mut watch::Receiver<bool>) {
    // An error means that the house is gone, which is as closed as it gets.
    let _ = draining.wait_for(|is_draining| *is_draining).await;
}

/// What is true of every request of one connection.
struct Connection {
    entrance: Entrance,
    source: Source,
    peer: SocketAddr,
    server_name: Option<String>,
    certificate: Option<Vec<u8>>,
    requests: AtomicUsize,
    _slot: Box<dyn Any + Send + Sync>,
}

/// Text of our own, or the exchange's answer as it comes in.
type Answer = Response<Either<Full<Bytes>, rest::Relayed>>;

async fn answer(door: &Arc<Door>, connection: &Arc<Connection>, request: Request<Incoming>) -> Answer {
    let count = connection.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let mut answer = match admit(door, connection, request).await {
        Ok(answer) => answer,
        Err(refusal) => {
            if let Some(kept_back) = door.refusals.line(Instant::now()) {
                let status = refusal.status.as_u16();
                warn!(peer = %connection.peer, reason = refusal.slug, status, kept_back, "request refused");
            }
            refusal.into_answer()
        }
    };
    if count >= door.limits.requests_per_connection_max {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// From the head of a request to its answer.
async fn admit(door: &Arc<Door>, connection: &Arc<Connection>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (parts, body) = request.into_parts();
    let host = head::check(&parts, &door.origins)?;
    let route = find_route(door, connection, &host, &parts)?;
    if head::is_upgrade(&parts.headers) {
        upgrade::answer(door, connection, route, parts).await
    } else {
        rest::answer(door, connection, route, parts, body).await
    }
}

fn find_route(door: &Door, connection: &Connection, host: &str, parts: &Parts) -> Result<Route, Refusal> {
    let (path, method, is_upgrade) = (parts.uri.path(), &parts.method, head::is_upgrade(&parts.headers));
    let is_named_alike = match &connection.server_name {
        // A client that dials an address and names a host, or the other way round, proves nothing by the first. A tunnel
        // was opened for one name, and leads to no other.
        Some(name) => name == host || (!matches!(connection.entrance, Entrance::Tunnel) && is_address(host)),
        None => true,
    };
    let found = if is_named_alike {
        door.routes.find(&connection.entrance, host, path, is_upgrade)
    } else {
        Err(NoRoute::Host)
    };
    found.map_err(|no_route| match no_route {
        NoRoute::Host => Refusal {
            status: StatusCode::MISDIRECTED_REQUEST,
            slug: "host_rejected",
            advice: "this name is not served here; add it to `listen.hosts`, or configure an account at that venue"
                .to_owned(),
        },
        NoRoute::Path => Refusal {
            status: StatusCode::NOT_FOUND,
            slug: "no_route",
            advice: format!(
                "no such path; under names of ours there are the sockets {}, and REST requests go to the venue's own \
                 name or to its port (`[[ports]]`)",
                door.routes.local_paths().join(", ")
            ),
        },
        NoRoute::NotUpgraded if *method == Method::GET => head::NO_UPGRADE.into(),
        NoRoute::NotUpgraded => head::METHOD.into(),
    })
}

/// The account that the client names in the header `countersign-account`.
fn account_wish(headers: &HeaderMap) -> Result<Option<AccountName>, Refusal> {
    let mut values = headers.get_all("countersign-account").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let name = value.to_str().ok().and_then(|text| AccountName::parse(text).ok()).filter(|_| values.next().is_none());
    name.map(Some).ok_or_else(|| Refusal::new(End::AuthenticationFailed, "`countersign-account` names no one account"))
}

/// Who the client is, if it proved that with the request's head. All its proofs must name one client.
async fn principal(
    door: &Door,
    connection: &Connection,
    bearer: Option<Vec<u8>>,
) -> Result<Option<Principal>, Refusal> {
    let by_token = match bearer {
        Some(token) => Some(authenticate(door, connection, Proof::Jwt(Secret::new(token))).await?),
        None => None,
    };
    let by_certificate = match &connection.certificate {
        Some(leaf) => {
            let proof = CertificateProof::from_verified_leaf(leaf).map_err(|_| {
                Refusal::new(End::AuthenticationFailed, "the client certificate names no single client")
            })?;
            Some(authenticate(door, connection, Proof::Certificate(proof)).await?)
        }
        None => None,
    };
    match (by_token, by_certificate) {
        (Some(token), Some(certificate)) if token.name() != certificate.name() => {
            Err(Refusal::new(End::IdentityMismatch, "certificate and token name different clients"))
        }
        (Some(who), _) | (None, Some(who)) => Ok(Some(who)),
        (None, None) => Ok(door.unsafe_no_auth.clone().map(Principal::danger_unproved_for_development)),
    }
}

async fn authenticate(door: &Door, connection: &Connection, proof: Proof) -> Result<Principal, Refusal> {
    door.house.authenticate(&proof, connection.source, connection.peer).await.map_err(|why| match why {
        NotAuthenticated::NoKeys => Refusal::new(
            End::AuthenticationUnavailable,
            "nothing is configured to verify this proof with; add `[clients.jwt]`",
        ),
        _ => Refusal::new(End::InvalidToken, "the token or certificate was not accepted; the log says why"),
    })
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<IpAddr>().is_ok()
}

/// A source is an address; the addresses of one IPv6 network of 64 bits are one source.
pub(crate) fn source_of(address: IpAddr) -> Source {
    match address.to_canonical() {
        IpAddr::V4(address) => Source(u128::from(address.to_bits())),
        IpAddr::V6(address) => Source(address.to_bits() >> 64 << 64),
    }
}
