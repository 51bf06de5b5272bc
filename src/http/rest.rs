//! A REST request: who sends it, whether it may, and the exchange's answer to the same request signed anew.
//!
//! Refused before anything is sent, a request is answered as the venue itself would refuse it, so that the bot's
//! library understands; headers say that Countersign spoke, and whether anything was sent.

mod relayed;

use super::refusal::{REASON, Refusal, UPSTREAM};
use super::{Answer, Connection, Door, account_wish, head, principal};
use crate::credential::Signer;
use crate::fault;
use crate::identity::{NotAuthenticated, Principal, Proof};
use crate::names::{AccountName, ClientName};
use crate::policy::{Denied, Permit, Policy};
use crate::relay::end_of;
use crate::scope::{Act, Acts};
use crate::secret::Secret;
use crate::session::{End, Scrub};
use crate::supply::account::{Account, Answered, Call, Class, NotAnswered, NotSent, Sign, Verdict};
use crate::upstream::{AnswerBody, Fate, NotOpened, Silence};
use crate::venue::rest::{Given, Handling, Local, Rest, RestAnswer, RestReading, RestRequest, Unanswered};
use crate::venue::{Refusal as Why, Route};
use http::header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use std::sync::Arc;
use tracing::{debug, info, warn};

use relayed::Judge;
pub(super) use relayed::Relayed;

/// The headers of an exchange's answer that a client gets: what describes the body, and nothing that could be a cookie.
const PASSED_ON: &[HeaderName] = &[CONTENT_TYPE, CONTENT_ENCODING, CONTENT_DISPOSITION, RETRY_AFTER];

/// From a route to the answer.
pub(super) async fn answer(
    door: &Arc<Door>,
    connection: &Connection,
    route: Route,
    parts: Parts,
    body: Incoming,
) -> Result<Answer, Refusal> {
    let Some(rest) = route.venue.rest() else { return Err(head::NO_UPGRADE.into()) };
    head::check_request(&parts, door.limits.request_body_bytes_max)?;
    let wish = account_wish(&parts.headers)?;
    let bearer = head::bearer(&parts.headers)?.map(<[u8]>::to_vec);
    let proved = principal(door, connection, bearer).await?;
    let policy = Arc::clone(&door.house.policy.borrow());
    if let Some(who) = &proved {
        // Before its body is read, and before `100 Continue`.
        permit(&policy, who, &route, wish.as_ref())?;
    }
    let request = Arc::new(whole(door, &route, parts, body).await?);
    let asked = Asked { door, connection, route, rest, policy, request, wish };
    Ok(asked.answer(proved).await)
}

/// Reads the body to its end, within its limits.
async fn whole(door: &Door, route: &Route, parts: Parts, body: Incoming) -> Result<RestRequest, Refusal> {
    let limits = &door.limits;
    let reading = Limited::new(body, limits.request_body_bytes_max).collect();
    let body = match tokio::time::timeout(limits.request_body, reading).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(head::TOO_LARGE.into()),
        Ok(Err(_)) => return Err(Refusal::new(End::ClientProtocol, "the body is not what its head says")),
        Err(_) => {
            return Err(Refusal {
                status: StatusCode::REQUEST_TIMEOUT,
                slug: "body_timeout",
                advice: "the body did not arrive in time; `limits.request_body` says how long it may take".to_owned(),
            });
        }
    };
    Ok(RestRequest {
        endpoint: route.endpoint,
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        body,
    })
}

/// Permits a request. What is open to everybody stays open to those who prove who they are.
fn permit(policy: &Policy, who: &Principal, route: &Route, wish: Option<&AccountName>) -> Result<Permit, Denied> {
    match policy.permit_request(who, route, wish) {
        Err(Denied::NoGrant) if policy.admits_anonymous(route) => {
            policy.permit_request(&Principal::anonymous(), route, None)
        }
        outcome => outcome,
    }
}

/// A request that was read whole.
struct Asked<'a> {
    door: &'a Arc<Door>,
    connection: &'a Connection,
    route: Route,
    rest: &'static dyn Rest,
    policy: Arc<Policy>,
    request: Arc<RestRequest>,
    wish: Option<AccountName>,
}

impl Asked<'_> {
    async fn answer(self, proved: Option<Principal>) -> Answer {
        let mut reading = match self.rest.read(&self.request) {
            Ok(reading) => reading,
            Err(why) => return self.refuse(why, "", None),
        };
        let who = match self.who(proved, &mut reading).await {
            Ok(who) => who,
            Err(why) => return self.refuse(why, reading.operation, None),
        };
        let permit = match permit(&self.policy, &who, &self.route, self.wish.as_ref()) {
            Ok(permit) => permit,
            Err(denied) => {
                warn!(peer = %self.connection.peer, client = %who.name(), %denied, "request not permitted");
                return self.refuse(Why::NotAuthenticated, reading.operation, Some(&who));
            }
        };
        if let Some(right) = permit.lacks(reading.acts) {
            return self.refuse(Why::NotPermitted(right), reading.operation, Some(&who));
        }
        match reading.handling {
            Handling::Public => self.pass(permit, reading).await,
            Handling::Local(Local::Token) => self.token(&who, &permit),
            // No venue whose requests are read so is in the table.
            Handling::Local(Local::Logout | Local::Negotiate) | Handling::Bearer => {
                self.refuse(Why::Unknown, reading.operation, Some(&who))
            }
            Handling::Signed => self.countersign(permit, reading).await,
        }
    }

    /// Who sends the request. A proof that came with its head counts; then what the venue's own protocol has as proof is
    /// a dummy, unless it is another client's.
    async fn who(&self, proved: Option<Principal>, reading: &mut RestReading) -> Result<Principal, Why> {
        let house = &self.door.house;
        let venue = self.route.venue.name();
        match (proved, reading.shown.take()) {
            (Some(who), Some(shown)) => {
                let owner = house.trusted.local().and_then(|local| local.owner(&shown, venue, house.clock.now()));
                match owner {
                    Some(owner) if owner.client != *who.name() => Err(Why::CredentialField),
                    _ => Ok(who),
                }
            }
            (Some(who), None) => Ok(who),
            (None, Some(shown)) => {
                let proof = Proof::shown_at(venue, shown);
                let outcome = house.authenticate(&proof, self.connection.source, self.connection.peer).await;
                outcome.map_err(|why| match why {
                    NotAuthenticated::Replayed | NotAuthenticated::NonceTooOld => Why::Replayed,
                    _ => Why::NotAuthenticated,
                })
            }
            (None, None) if reading.handling == Handling::Public && self.policy.admits_anonymous(&self.route) => {
                Ok(Principal::anonymous())
            }
            (None, None) => Err(Why::NotAuthenticated),
        }
    }

    /// Sells the client a placeholder for the venue's socket token.
    fn token(&self, who: &Principal, permit: &Permit) -> Answer {
        let house = &self.door.house;
        let (Some(local), Some(account)) = (house.trusted.local(), permit.account()) else {
            warn!(client = %who.name(), "no socket token: `[clients.local_keys]` is not configured");
            return own(&self.rest.refuse(Some(&self.request), Unanswered::Unavailable), "no_local_keys", "not-sent");
        };
        let mut random = [0; 16];
        if getrandom::fill(&mut random).is_err() {
            return own(&self.rest.refuse(Some(&self.request), Unanswered::Unavailable), "internal_error", "not-sent");
        }
        let now = house.clock.now();
        match local.issue_placeholder(who, account, self.route.venue, random, now) {
            Ok(placeholder) => {
                info!(client = %who.name(), %account, "placeholder issued");
                let given = Given::Token { placeholder: &placeholder.text, ends_at: placeholder.ends_at, now };
                let answer = self.rest.answer(&self.request, given);
                own(&answer, "", "not-sent")
            }
            Err(why) => {
                warn!(client = %who.name(), %account, %why, "no placeholder");
                self.refuse(Why::NotAuthenticated, "", Some(who))
            }
        }
    }

    /// Sends a public request on, without any credential.
    async fn pass(&self, permit: Permit, reading: RestReading) -> Answer {
        let house = &self.door.house;
        let signed = self.rest.pass(&self.request);
        let door = house.door(&self.route);
        let mut last = NotOpened::Closed;
        // A kept connection may turn out to be dead before anything is written; a fresh one is tried then, once.
        for _ in 0..2 {
            let connection = match house.upstream.connect_for(&permit, door).await {
                Ok(connection) => connection,
                Err(error) => {
                    last = error;
                    break;
                }
            };
            let Ok(request) = signed.to_http() else {
                return self.refuse(Why::Malformed, reading.operation, None);
            };
            match connection.send(request.map(Full::new), &self.door.limits.answer).await {
                Fate::Answered(response) => return self.relay(*response, Scrub::default(), None).await,
                Fate::Unsent(_) => {}
                Fate::Unknown(silence) => return self.not_answered(reading.operation, permit.client(), silence.into()),
            }
        }
        self.not_answered(reading.operation, permit.client(), NotSent::NotReached(last).into())
    }

    /// Signs the request anew and sends it, in the order of its account's nonces.
    async fn countersign(&self, permit: Permit, reading: RestReading) -> Answer {
        let house = &self.door.house;
        let Some(account) = permit.account().and_then(|name| house.accounts.get(name)).cloned() else {
            return self.refuse(Why::NotAuthenticated, reading.operation, None);
        };
        let who = permit.client().clone();
        let reading = Arc::new(reading);
        let call = Call {
            permit,
            endpoint: self.route.endpoint.name,
            class: class(reading.acts),
            subjects: reading.subjects.clone(),
            sign: self.signing(&reading),
        };
        match account.call(call).await {
            Ok(Answered { response, verdict }) => {
                let status = response.status().as_u16();
                if reading.acts.iter().all(|act| act == Act::Read) {
                    debug!(client = %who, account = %account.name(), operation = reading.operation, status, "answered");
                } else {
                    info!(client = %who, account = %account.name(), operation = reading.operation, status, "answered");
                }
                self.relay(response, scrub(&account), Some(verdict)).await
            }
            Err(why) => self.not_answered(reading.operation, &who, why),
        }
    }
}

// How answers are made.
impl Asked<'_> {
    /// What the lane calls when it is the request's turn.
    fn signing(&self, reading: &Arc<RestReading>) -> Sign {
        let (rest, request, reading) = (self.rest, Arc::clone(&self.request), Arc::clone(reading));
        Arc::new(move |signer: &Signer, nonce| rest.sign(&request, &reading, signer, nonce))
    }

    /// Passes the exchange's answer on: whole, where it is short, else as it comes in.
    async fn relay(&self, response: Response<AnswerBody>, scrub: Scrub, verdict: Option<Verdict>) -> Answer {
        let (head, body) = response.into_parts();
        let judge = verdict.map(|verdict| Judge::new(self.rest, head.status, verdict));
        let body = match Relayed::begin(body, scrub, judge).await {
            Ok(body) => body,
            Err(why) => {
                warn!(peer = %self.connection.peer, %why, status = head.status.as_u16(), "answer cut short");
                let told = RestAnswer { status: 502, ..self.rest.refuse(Some(&self.request), Unanswered::MaybeSent) };
                return own(&told, "answer_incomplete", "answered");
            }
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = head.status;
        for name in PASSED_ON {
            if let Some(value) = head.headers.get(name) {
                answer.headers_mut().insert(name, value.clone());
            }
        }
        answer.headers_mut().insert(UPSTREAM, HeaderValue::from_static("answered"));
        answer
    }

    /// Refuses the request as the venue would.
    fn refuse(&self, why: Why, operation: &'static str, who: Option<&Principal>) -> Answer {
        let lacking = if let Why::NotPermitted(right) = why { Some(right.word()) } else { None };
        warn!(
            peer = %self.connection.peer,
            client = who.map(|who| who.name().as_str()),
            route = ?self.route,
            operation,
            lacking,
            reason = why.slug(),
            "request refused"
        );
        own(&self.rest.refuse(Some(&self.request), Unanswered::Refused(why)), why.slug(), "not-sent")
    }

    fn not_answered(&self, operation: &'static str, client: &ClientName, why: NotAnswered) -> Answer {
        warn!(%client, route = ?self.route, operation, %why, "request not answered");
        own(&self.rest.refuse(Some(&self.request), why.unanswered()), slug(&why), why.word())
    }
}

/// An answer of our own in the venue's shape, with the headers that say so.
fn own(told: &RestAnswer, reason: &'static str, upstream: &'static str) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(told.body.clone())));
    *answer.status_mut() = StatusCode::from_u16(told.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(UPSTREAM, HeaderValue::from_static(upstream));
    if !reason.is_empty() {
        headers.insert(REASON, HeaderValue::from_static(reason));
    }
    answer
}

/// What the lane takes a request for. Whatever does more than read or cancel is like an order: it is worth less each
/// moment, and must not be sent when nobody waits for it any more.
fn class(acts: Acts) -> Class {
    let only = |wanted: Act| acts.iter().all(|act| act == wanted || act == Act::Read || act == Act::Public);
    if only(Act::Read) {
        Class::Read
    } else if only(Act::Cancel) {
        Class::Cancel
    } else {
        Class::Order
    }
}

/// What of an account must not come back in an answer.
fn scrub(account: &Account) -> Scrub {
    let mut scrub = Scrub::default();
    scrub.guard(&Secret::from(account.signer().expose_api_key().to_owned()));
    scrub
}

/// The word in the log and in the answer's header.
fn slug(why: &NotAnswered) -> &'static str {
    match why {
        NotAnswered::NotSent(NotSent::Busy) => "busy",
        NotAnswered::NotSent(NotSent::WaitedTooLong) => "waited_too_long",
        NotAnswered::NotSent(NotSent::Withdrawn) => "withdrawn",
        NotAnswered::NotSent(NotSent::Lane(_)) => "nonce_unavailable",
        NotAnswered::NotSent(NotSent::NotReached(error)) => fault::slug(end_of(error)),
        NotAnswered::NotSent(NotSent::ConnectionLost) => "upstream_unavailable",
        NotAnswered::NotSent(NotSent::LeftAlone) => "upstream_auth_failed",
        NotAnswered::NotSent(NotSent::Unwritable) => "malformed_message",
        NotAnswered::NotSent(NotSent::NotPermitted) => "identity_not_mapped",
        NotAnswered::NotSent(NotSent::Closed) => "internal_error",
        NotAnswered::MaybeSent(Silence::Lost) => "upstream_lost",
        NotAnswered::MaybeSent(Silence::Late) => "upstream_timeout",
    }
}
