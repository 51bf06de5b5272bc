//! The upgrade to a WebSocket: from a route to the `101` and the session behind it.
//!
//! A proof that comes with the upgrade is settled before the upgrade is answered, down to the open socket of the
//! exchange: an exchange that is down is then an HTTP status. A client without one gets its `101`, and proves itself on
//! the socket.

use super::refusal::Refusal;
use super::stall::Stalling;
use super::{Answer, Connection, Door, account_wish, head, principal};
use crate::fresh::UnixMillis;
use crate::identity::Principal;
use crate::identity::budget::{Source, Unproved};
use crate::names::SessionId;
use crate::policy::Permit;
use crate::relay::{self, ClientSocket, Dialled, House};
use crate::session::{End, Session};
use crate::tls::Stream;
use crate::venue::{Manner, Route};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::{Arc, PoisonError};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::{info, warn};

/// From the head of a request to the answer to its upgrade: proof, permit, the exchange's socket.
pub(super) async fn answer(
    door: &Arc<Door>,
    connection: &Arc<Connection>,
    route: Route,
    mut parts: Parts,
) -> Result<Answer, Refusal> {
    head::check_upgrade(&parts)?;
    let accept = derive_accept_key(head::websocket_key(&parts.headers)?);
    let wish = account_wish(&parts.headers)?;
    let bearer = head::bearer(&parts.headers)?.map(<[u8]>::to_vec);
    let upgrade = parts
        .extensions
        .remove::<OnUpgrade>()
        .ok_or_else(|| Refusal::new(End::Internal, "the connection cannot be upgraded"))?;

    let id = session_id()?;
    let house = &door.house;
    let rules = house.rules();
    let who = match principal(door, connection, bearer).await? {
        None if is_open_to_anybody(door, &route) => Some(Principal::anonymous()),
        who => who,
    };
    let (session, dialled, unproved) = match who {
        Some(who) => {
            let permit = rules.policy.authorize(&who, &route, wish.as_ref())?;
            let dialled = dial(house, &permit, &route).await?;
            (Session::permitted(id, route, rules, permit), Some(dialled), None)
        }
        None => {
            let now = house.clock.now();
            let unproved = take_unproved(house, connection.source, now)?;
            (Session::unproved(id, route, rules, now).wishing_for(wish), None, Some(unproved))
        }
    };
    let arriving = Arriving { session, connection: Arc::clone(connection), dialled, unproved };
    door.sessions.spawn(run_session(Arc::clone(house), upgrade, arriving));
    Ok(switching(&accept))
}

/// True if nobody can prove anything on this socket, and the policy opens it to those who prove nothing. Where a login
/// may still come, the client is asked for none, but is not taken for nobody at once either.
fn is_open_to_anybody(door: &Door, route: &Route) -> bool {
    route.manner == Manner::Native
        && door.house.policy.borrow().admits_anonymous(route)
        && !route.venue.dialect(route.endpoint).takes_login()
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
    match upgrade.await.map(hyper::upgrade::Upgraded::downcast::<TokioIo<Stalling<Stream>>>) {
        Ok(Ok(parts)) => {
            let (stream, read_ahead) = (parts.io.into_inner().into_inner(), parts.read_buf);
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
    let mut answer = Response::new(Either::Left(Full::default()));
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
