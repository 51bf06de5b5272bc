//! A REST request: who sends it, whether it may, and the exchange's answer to the same request signed anew.
//!
//! Refused before anything is sent, a request is answered as the venue itself would refuse it, so that the bot's
//! library understands; headers say that Countersign spoke, and whether anything was sent.

mod bearer;
mod relayed;
mod send;
mod told;
mod who;

use super::bearer::{Others, in_header, in_query, none_in_query};
use super::refusal::Refusal;
use super::{Answer, Connection, Door, account_wish, head, principal};
use crate::identity::Principal;
use crate::identity::local::Placeholder;
use crate::names::AccountName;
use crate::policy::{Denied, Permit, Policy};
use crate::session::End;
use crate::venue::rest::{Given, Handling, Local, Rest, RestReading, RestRequest, Unanswered};
use crate::venue::{ClientLogin, Refusal as Why, Route};
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use std::sync::Arc;
use tracing::{info, warn};

pub(super) use relayed::Relayed;
use told::own;

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
    let bearer = route.venue.bearer();
    let shown = in_header(&parts.headers, bearer)?;
    let in_url = bearer.map(|bearer| in_query(parts.uri.query(), bearer, Others::Any)).transpose()?.flatten();
    let may_prove = shown.placeholder.is_some() || rest.may_prove(parts.uri.path(), &parts.headers);
    let proved = principal(door, connection, shown.jwt).await?;
    // What can be refused is refused before its body is read, and before `100 Continue`.
    match &proved {
        Some(who) => drop(permit(&door.house.policy.borrow(), who, &route, wish.as_ref())?),
        None if may_prove || door.house.policy.borrow().admits_anonymous(&route) => {}
        None => {
            let mut answer = own(&rest.refuse(None, NOBODY), Why::NotAuthenticated.slug(), "not-sent");
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Ok(answer);
        }
    }
    let bytes_max = if proved.is_some() { usize::MAX } else { UNPROVED_BODY_BYTES_MAX };
    let request = Arc::new(whole(door, &route, parts, body, bytes_max).await?);
    // A body takes its time: what was true before it need not be true now.
    let policy = Arc::clone(&door.house.policy.borrow());
    let asked = Asked { door, connection, route, rest, policy, request, wish };
    asked.answer(proved, shown.placeholder, in_url).await
}

/// A body that nobody is known to have sent may have so many bytes. A signed batch of orders has a few thousand.
const UNPROVED_BODY_BYTES_MAX: usize = 64 * 1024;

/// What a request is told that proves nothing.
const NOBODY: Unanswered = Unanswered::Refused(Why::NotAuthenticated);

/// Reads the body to its end, within its limits.
async fn whole(
    door: &Door,
    route: &Route,
    parts: Parts,
    body: Incoming,
    bytes_max: usize,
) -> Result<RestRequest, Refusal> {
    let limits = &door.limits;
    let reading = Limited::new(body, limits.request_body_bytes_max.min(bytes_max)).collect();
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
    /// `shown` is the placeholder in the request's head, `in_url` the one in its query.
    async fn answer(
        self,
        proved: Option<Principal>,
        shown: Option<ClientLogin>,
        in_url: Option<ClientLogin>,
    ) -> Result<Answer, Refusal> {
        let mut reading = match self.rest.read(&self.request) {
            Ok(reading) => reading,
            Err(why) => return Ok(self.refuse(why, "", None)),
        };
        let is_negotiation = reading.handling == Handling::Local(Local::Negotiate);
        if !is_negotiation {
            // Only what opens a socket has a token in its query, and asks for one with the same query before.
            none_in_query(in_url.as_ref())?;
        }
        // What the body shows counts before the head: a bot that logs in anew may still send its old token.
        reading.shown = reading.shown.take().or(shown).or(in_url);
        Ok(if is_negotiation && proved.is_none() && reading.shown.is_none() {
            self.negotiate()
        } else {
            self.answer_proved(proved, reading).await
        })
    }

    async fn answer_proved(self, proved: Option<Principal>, mut reading: RestReading) -> Answer {
        let shown = reading.shown.clone();
        let (who, owner) = match self.who(proved, &mut reading).await {
            Ok(found) => found,
            Err(why) => return self.refuse(why, reading.operation, None),
        };
        if who.ends_at().is_some_and(|end| end <= self.door.house.clock.now()) {
            return self.refuse(Why::NotAuthenticated, reading.operation, Some(&who));
        }
        if reading.handling == Handling::Local(Local::Negotiate) {
            return self.negotiate();
        }
        let permit = match permit(&self.policy, &who, &self.route, self.wish.as_ref()) {
            Ok(permit) => permit,
            Err(denied) => {
                warn!(peer = %self.connection.peer, client = %who.name(), %denied, "request not permitted");
                return self.refuse(Why::NotAuthenticated, reading.operation, Some(&who));
            }
        };
        if owner.is_some_and(|owner| !owner.is(permit.client(), permit.account())) {
            return self.refuse(Why::CredentialField, reading.operation, Some(&who));
        }
        if let Some(right) = permit.lacks_at(reading.acts, &reading.sub_accounts) {
            return self.refuse(Why::NotPermitted(right), reading.operation, Some(&who));
        }
        match reading.handling {
            Handling::Public => self.pass(permit, reading).await,
            Handling::Bearer => self.bear(&permit, &reading).await,
            Handling::Local(Local::Token) => self.token(&who, &permit, shown.as_ref()),
            Handling::Local(Local::Logout) => self.log_out(&permit, shown.as_ref()),
            Handling::Local(Local::Negotiate) => self.negotiate(),
            Handling::Signed => self.countersign(permit, reading).await,
        }
    }

    /// Sells the client a placeholder for the venue's token. One that it shows for that is good until its own end.
    fn token(&self, who: &Principal, permit: &Permit, shown: Option<&ClientLogin>) -> Answer {
        let house = &self.door.house;
        let (Some(local), Some(account)) = (house.trusted.local(), permit.account()) else {
            warn!(client = %who.name(), "no socket token: `[clients.local_keys]` is not configured");
            return own(&self.told(Unanswered::Unavailable), "no_local_keys", "not-sent");
        };
        let now = house.clock.now();
        let give = |placeholder: &Placeholder| {
            let given = Given::Token { placeholder: &placeholder.text, ends_at: placeholder.ends_at, now };
            own(&self.rest.answer(&self.request, given), "", "not-sent")
        };
        if let Some(ClientLogin::Token(token)) = shown
            && let Some(same) = local.same_placeholder(token, who, account, self.route.venue.name(), now)
        {
            return give(&same);
        }
        let mut random = [0; 16];
        if getrandom::fill(&mut random).is_err() {
            return own(&self.told(Unanswered::Unavailable), "internal_error", "not-sent");
        }
        match local.issue_placeholder(who, account, self.route.venue, random, now) {
            Ok(placeholder) => {
                info!(client = %who.name(), %account, "placeholder issued");
                give(&placeholder)
            }
            Err(why) => {
                warn!(client = %who.name(), %account, %why, "no placeholder");
                self.refuse(Why::NotAuthenticated, "", Some(who))
            }
        }
    }
}
