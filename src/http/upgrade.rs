//! The upgrade to a WebSocket: from a route to the `101` and the session behind it.
//!
//! A proof that comes with the upgrade is settled before the upgrade is answered, down to the open socket of the
//! exchange: an exchange that is down is then an HTTP status. A client without one gets its `101`, and proves itself on
//! the socket.

use super::bearer::{Others, in_header, in_query};
use super::refusal::Refusal;
use super::stall::Stalling;
use super::{Answer, Connection, Door, account_wish, authenticate, head, principal};
use crate::fresh::UnixMillis;
use crate::identity::budget::{Source, Unproved};
use crate::identity::{Principal, Proof};
use crate::names::{AccountName, SessionId};
use crate::policy::Permit;
use crate::relay::{self, ClientSocket, Dialled, House, NotDialled};
use crate::session::{End, Session};
use crate::tls::Stream;
use crate::venue::{ClientLogin, Manner, Route};
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
    let bearer = route.venue.bearer();
    head::check_upgrade(&parts, bearer.is_some())?;
    let accept = derive_accept_key(head::websocket_key(&parts.headers)?);
    let wish = account_wish(&parts.headers)?;
    let in_header = in_header(&parts.headers, bearer)?;
    let in_query = bearer.map(|bearer| in_query(parts.uri.query(), bearer, Others::Known)).transpose()?.flatten();
    let shown = in_header.placeholder.into_iter().chain(in_query);
    let upgrade = parts
        .extensions
        .remove::<OnUpgrade>()
        .ok_or_else(|| Refusal::new(End::Internal, "the connection cannot be upgraded"))?;

    let id = session_id()?;
    let house = &door.house;
    let rules = house.rules();
    let proved = principal(door, connection, in_header.jwt).await?;
    let Shown { who, account } = who(door, connection, &route, proved, shown).await?;
    let wish = match (wish, account) {
        (Some(wish), Some(bound)) if wish != bound => {
            return Err(Refusal::new(End::IdentityMismatch, "`countersign-account` and the token name two accounts"));
        }
        (wish, bound) => wish.or(bound),
    };
    let who = match who {
        None if is_open_to_anybody(door, &route) => Some(Principal::anonymous()),
        None if bearer.is_some() && route.manner == Manner::Native => return Err(nothing_shown()),
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

/// Who a client is, and for which account it proved that, where its proof is bound to one.
struct Shown {
    who: Option<Principal>,
    account: Option<AccountName>,
}

/// Who the client is by everything that it shows with its upgrade. All of it must name one client and one account.
///
/// Where a certificate or a token of ours proved who it is, a placeholder is not needed, and may be a dummy; one of
/// ours counts all the same.
async fn who(
    door: &Door,
    connection: &Connection,
    route: &Route,
    proved: Option<Principal>,
    shown: impl Iterator<Item = ClientLogin>,
) -> Result<Shown, Refusal> {
    const MISMATCH: &str =
        "certificate and tokens, in the header and in the query, have to be of one client and account";
    let (house, venue) = (&door.house, route.venue.name());
    let mut found = Shown { who: None, account: None };
    for login in shown {
        let (name, account) = match &proved {
            Some(_) => match house.trusted.local().and_then(|local| local.owner(&login, venue, house.clock.now())) {
                Some(owner) => (owner.client, Some(owner.account)),
                None => continue,
            },
            None => {
                let who = authenticate(door, connection, Proof::shown_at(venue, login)).await?;
                let named = (who.name().clone(), who.account().cloned());
                found.who.get_or_insert(who);
                named
            }
        };
        let is_other_client = proved.as_ref().or(found.who.as_ref()).is_some_and(|who| *who.name() != name);
        let is_other_account = found.account.is_some() && found.account != account;
        if is_other_client || is_other_account {
            return Err(Refusal::new(End::IdentityMismatch, MISMATCH));
        }
        found.account = account;
    }
    Ok(Shown { who: proved.or(found.who), ..found })
}

/// What a client is told that shows nothing where nothing that it could say later would prove anything.
fn nothing_shown() -> Refusal {
    let advice = "log in first, over REST, and open the socket with the token that the login answers; a client of ours \
                  sends `Authorization: Bearer <JWT>` or its certificate";
    Refusal::new(End::TokenMissing, advice)
}

/// True if nobody can prove anything on this socket, and the policy opens it to those who prove nothing. Where a login
/// may still come, the client is asked for none, but is not taken for nobody at once either.
fn is_open_to_anybody(door: &Door, route: &Route) -> bool {
    // A venue of bearer tokens opens its sockets to accounts alone.
    route.manner == Manner::Native
        && route.venue.bearer().is_none()
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
        let end = error.end();
        let advice = match error {
            NotDialled::NoAccount => "no grant lets this client use an account here; add one under `[[grants]]`",
            NotDialled::NotOpened(_) | NotDialled::NoToken(_) => "the exchange was not reached; the log says why",
        };
        let mut refusal = Refusal::new(end, advice);
        // Where the token is the account's, its refusal passes by itself, and says nothing of the client's.
        let is_token_refused = end == End::UpstreamAuthFailed && route.venue.bearer().is_some();
        if is_token_refused {
            refusal.status = StatusCode::SERVICE_UNAVAILABLE;
        }
        let passes = is_token_refused || matches!(end, End::UpstreamUnavailable | End::TokenUnavailable);
        let comeback = if route.manner == Manner::Native { route.venue.comeback().status } else { None };
        if let (true, Some(status)) = (passes, comeback) {
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
