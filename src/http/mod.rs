//! Reads a request, finds its route and proof, and answers it: the one place where HTTP statuses are chosen.
//!
//! A proof that comes with the upgrade is settled before the upgrade is answered, down to the open socket of the
//! exchange: an exchange that is down is then an HTTP status. A client without one gets its `101` and has to log
//! in by its first message.

mod head;
mod route;

pub use route::{Entrance, NoRoute, Routes};

use crate::fault;
use crate::fresh::UnixMillis;
use crate::identity::budget::{Source, Unproved};
use crate::identity::mtls::CertificateProof;
use crate::identity::{NotAuthenticated, Principal, Proof};
use crate::names::{AccountName, ClientName, SessionId};
use crate::policy::{Denied, Permit};
use crate::relay::{self, ClientSocket, Dialled, House};
use crate::secret::Secret;
use crate::session::{End, Session};
use crate::tls::Stream;
use crate::venue::{Manner, Route};
use bytes::Bytes;
use head::BadHead;
use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_head: Duration::from_secs(10),
            headers_max: 64,
            head_bytes_max: 16 * 1024,
            requests_per_connection_max: 100,
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
}

/// Serves one connection to its end. The slot is held for as long as the connection or its session lives.
pub async fn serve(door: Arc<Door>, entrance: Entrance, stream: Stream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
    let connection = Arc::new(Connection {
        entrance,
        source: source_of(peer.ip()),
        peer,
        server_name: stream.server_name().map(str::to_ascii_lowercase),
        certificate: stream.peer_certificates().first().map(|leaf| leaf.as_ref().to_vec()),
        requests: AtomicUsize::new(0),
        _slot: slot,
    });
    let limits = door.limits.clone();
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
        .serve_connection(TokioIo::new(stream), service)
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
    _slot: OwnedSemaphorePermit,
}

type Answer = Response<Full<Bytes>>;

async fn answer(door: &Arc<Door>, connection: &Arc<Connection>, request: Request<Incoming>) -> Answer {
    let count = connection.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let mut answer = match admit(door, connection, request).await {
        Ok(answer) => answer,
        Err(refusal) => {
            warn!(peer = %connection.peer, reason = refusal.slug, status = refusal.status.as_u16(), "request refused");
            refusal.into_answer()
        }
    };
    if count >= door.limits.requests_per_connection_max {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Why a request is refused: a status, a slug for the log and the header, and what to do about it.
struct Refusal {
    status: StatusCode,
    slug: &'static str,
    advice: String,
}

impl From<BadHead> for Refusal {
    fn from(bad: BadHead) -> Self {
        Self { status: bad.status, slug: bad.slug, advice: bad.advice.to_owned() }
    }
}

impl Refusal {
    fn new(end: End, advice: impl Into<String>) -> Self {
        Self { status: fault::status(end), slug: fault::slug(end), advice: advice.into() }
    }

    fn into_answer(self) -> Answer {
        let mut answer = Response::new(Full::from(format!("countersign: {}: {}\n", self.slug, self.advice)));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert("countersign-reason", HeaderValue::from_static(self.slug));
        headers.insert("countersign-upstream", HeaderValue::from_static("not-sent"));
        if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        // Whatever of the request was not read must not be taken for the next one.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        answer
    }
}

/// From the head of a request to the answer to its upgrade: route, proof, permit, the exchange's socket.
async fn admit(door: &Arc<Door>, connection: &Arc<Connection>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (mut parts, _no_body) = request.into_parts();
    let host = head::check(&parts, &door.origins)?;
    let route = find_route(door, connection, &host, parts.uri.path(), head::is_upgrade(&parts.headers))?;
    let accept = derive_accept_key(head::websocket_key(&parts.headers)?);
    let wish = account_wish(&parts.headers)?;
    let bearer = head::bearer(&parts.headers)?.map(<[u8]>::to_vec);
    let upgrade = parts
        .extensions
        .remove::<OnUpgrade>()
        .ok_or_else(|| Refusal::new(End::Internal, "the connection cannot be upgraded"))?;

    let id = session_id()?;
    let house = &door.house;
    let policy = Arc::clone(&house.policy.borrow());
    let limits = house.limits.session.clone();
    let (session, dialled, unproved) = match principal(door, connection, &route, bearer).await? {
        Some(who) => {
            let permit = policy.authorize(&who, &route, wish.as_ref()).map_err(denied)?;
            let dialled = dial(house, &permit, &route).await?;
            (Session::permitted(id, route, policy, limits, permit), Some(dialled), None)
        }
        None => {
            let now = house.clock.now();
            let unproved = take_unproved(house, connection.source, now)?;
            (Session::unproved(id, route, policy, limits, now).wishing_for(wish), None, Some(unproved))
        }
    };
    let arriving = Arriving { session, connection: Arc::clone(connection), dialled, unproved };
    door.sessions.spawn(run_session(Arc::clone(house), upgrade, arriving));
    Ok(switching(&accept))
}

fn find_route(
    door: &Door,
    connection: &Connection,
    host: &str,
    path: &str,
    is_upgrade: bool,
) -> Result<Route, Refusal> {
    let is_named_alike = match &connection.server_name {
        // A client that dials an address and names a host, or the other way round, proves nothing by the first.
        Some(name) => name == host || host.starts_with('[') || host.parse::<IpAddr>().is_ok(),
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
        NoRoute::NotUpgraded => head::NO_UPGRADE.into(),
    })
}

/// The account that the client names in the header `countersign-account`.
fn account_wish(headers: &HeaderMap) -> Result<Option<AccountName>, Refusal> {
    let mut values = headers.get_all("countersign-account").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let name = value.to_str().ok().and_then(|text| AccountName::parse(text).ok()).filter(|_| values.next().is_none());
    name.map(Some).ok_or_else(|| Refusal::new(End::AuthenticationFailed, "`countersign-account` names no one account"))
}

/// Who the client is, if it proved that with the upgrade. All its proofs must name one client.
async fn principal(
    door: &Door,
    connection: &Connection,
    route: &Route,
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
        (None, None) => match &door.unsafe_no_auth {
            Some(name) => Ok(Some(Principal::danger_unproved_for_development(name.clone()))),
            None if route.manner == Manner::Native && door.house.policy.borrow().admits_anonymous(route) => {
                Ok(Some(Principal::anonymous()))
            }
            None => Ok(None),
        },
    }
}

async fn authenticate(door: &Door, connection: &Connection, proof: Proof) -> Result<Principal, Refusal> {
    door.house.authenticate(&proof, connection.source, connection.peer).await.map_err(|why| match why {
        NotAuthenticated::NoKeys => {
            Refusal::new(End::AuthenticationUnavailable, "no `[clients.jwt]` is configured to verify a token with")
        }
        _ => Refusal::new(End::InvalidToken, "the token or certificate was not accepted; the log says why"),
    })
}

fn denied(denied: Denied) -> Refusal {
    match denied {
        Denied::TooManySessions => {
            Refusal::new(End::MaxConnections, "this client has as many sessions as `max_sessions` allows")
        }
        Denied::WhichAccount(accounts) => {
            let names: Vec<&str> = accounts.iter().map(AccountName::as_str).collect();
            let advice = format!("several accounts fit; name one in `countersign-account`: {}", names.join(", "));
            Refusal::new(End::AuthenticationFailed, advice)
        }
        Denied::NoGrant | Denied::NotThatAccount => {
            Refusal::new(End::AuthenticationFailed, "no grant lets this client use this; add one under `[[grants]]`")
        }
    }
}

/// Counts a connection whose client has still to prove itself.
fn take_unproved(house: &House, source: Source, now: UnixMillis) -> Result<Unproved, Refusal> {
    let mut budget = house.budget.lock().unwrap_or_else(PoisonError::into_inner);
    budget.open_unproved(source, now).ok_or_else(|| Refusal {
        status: StatusCode::TOO_MANY_REQUESTS,
        slug: "too_many_unproved",
        advice: "too many logins failed from here, and too many wait; try again in a minute".to_owned(),
    })
}

async fn dial(house: &House, permit: &Permit, route: &Route) -> Result<Dialled, Refusal> {
    house.dial(permit, route).await.map_err(|error| {
        warn!(client = %permit.client(), ?route, %error, "exchange not reached");
        let end = relay::end_of(&error);
        let mut refusal = Refusal::new(end, "the exchange was not reached; the log says why");
        let comeback = if route.manner == Manner::Native { route.venue.comeback().status } else { None };
        if let (End::UpstreamUnavailable, Some(status)) = (end, comeback) {
            refusal.status = StatusCode::from_u16(status).unwrap_or(refusal.status);
        }
        refusal
    })
}

/// A session whose client waits for its upgrade.
struct Arriving {
    session: Session,
    /// Kept to the session's end, with its slot: hyper lets go of the connection as soon as it is upgraded, and a
    /// session that nobody counts could be one too many.
    connection: Arc<Connection>,
    dialled: Option<Dialled>,
    unproved: Option<Unproved>,
}

/// Takes the socket over once hyper has let go of it, and runs the session.
async fn run_session(house: Arc<House>, upgrade: OnUpgrade, arriving: Arriving) {
    let Arriving { session, connection, dialled, unproved } = arriving;
    let id = session.id();
    match upgrade.await.map(hyper::upgrade::Upgraded::downcast::<TokioIo<Stream>>) {
        Ok(Ok(parts)) => {
            let (stream, read_ahead) = (parts.io.into_inner(), parts.read_buf);
            let Connection { source, peer, .. } = *connection;
            let socket = ClientSocket { stream, read_ahead, source, peer, unproved };
            relay::run(house, session, socket, dialled).await;
            return;
        }
        Ok(Err(_)) => warn!(session = %id, "the upgraded connection is not ours"),
        Err(error) => info!(session = %id, %error, "the client left during the upgrade"),
    }
    if let Some(unproved) = unproved {
        house.budget.lock().unwrap_or_else(PoisonError::into_inner).closed_unproved(unproved);
    }
}

fn switching(accept: &str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(accept).expect("base64 is a header value");
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer
}

fn session_id() -> Result<SessionId, Refusal> {
    let bits = getrandom::u64().map_err(|_| Refusal::new(End::Internal, "the system gave no random numbers"))?;
    Ok(SessionId::from_random(bits))
}

/// A source is an address; the addresses of one IPv6 network of 64 bits are one source.
pub(crate) fn source_of(address: IpAddr) -> Source {
    match address.to_canonical() {
        IpAddr::V4(address) => Source(u128::from(address.to_bits())),
        IpAddr::V6(address) => Source(address.to_bits() >> 64 << 64),
    }
}
