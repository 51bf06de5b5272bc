//! Requests to a venue of bearer tokens: sent on with the account's token, and healed where the exchange no longer
//! takes it.
//!
//! A client never hears that our token was refused, where that can be helped: it would take it for its own, log in
//! again here, and gain nothing. What moves something is never sent twice all the same.

use super::Asked;
use super::relayed::Begun;
use super::send::class;
use super::told::{Heard, own};
use crate::http::Answer;
use crate::http::refusal::REASON;
use crate::policy::Permit;
use crate::scope::Act;
use crate::secret::Secret;
use crate::session::Scrub;
use crate::supply::account::{Account, Class, NotSent, Unavailable};
use crate::supply::token::{Purpose, RefusedToken};
use crate::venue::rest::{Given, RestReading, Unanswered};
use crate::venue::{ClientLogin, LoginOutcome, NotMinted, Refusal as Why};
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tracing::{info, warn};

/// The word where the exchange refuses the account's own token.
const TOKEN_REFUSED: &str = "upstream_auth_failed";

impl Asked<'_> {
    /// Sends the request on with the account's token.
    ///
    /// Refused for its token, a request that only reads is sent once more with another one, and its client waits.
    /// Anything else is told what the exchange said: it may have been looked at before it was refused.
    pub(super) async fn bear(&self, permit: &Permit, reading: &RestReading) -> Answer {
        let house = &self.door.house;
        let Some(account) = permit.account().and_then(|name| house.accounts.get(name)).cloned() else {
            return self.refuse(Why::NotAuthenticated, reading.operation, None);
        };
        let only_reads = reading.acts.iter().all(|act| matches!(act, Act::Read | Act::Public));
        let class = class(reading.acts);
        let is_urgent = matches!(class, Class::Order | Class::Other);
        let wait = if is_urgent { self.door.limits.order_wait } else { house.limits.supply_timeout };
        let give_up_at = is_urgent.then(|| Instant::now() + wait);
        let approach = match house.upstream.approach_for(permit, house.door(&self.route)) {
            Ok(approach) => approach,
            Err(error) => {
                return self.not_answered(reading.operation, permit.client(), NotSent::NotReached(error).into());
            }
        };
        let mut refused = None;
        loop {
            let token = match account.token(refused, wait).await {
                Ok(token) => token,
                Err(why) => {
                    warn!(client = %permit.client(), account = %account.name(), %why, "no token for a request");
                    let reason = match why {
                        Unavailable::Token(NotMinted::RefusedWhenUsed) => TOKEN_REFUSED,
                        _ => "token_unavailable",
                    };
                    let upstream = if refused.is_some() { "answered" } else { "not-sent" };
                    return own(&self.told(Unanswered::Unavailable), reason, upstream);
                }
            };
            let borne = self.rest.bear(&self.request, reading, &token.secret);
            let sent = self.send(permit, approach.clone(), &borne, class, give_up_at).await;
            let response = match sent {
                Ok(response) => response,
                Err(why) => return self.not_answered(reading.operation, permit.client(), why),
            };
            let heard = match self.hear(response, bearing(&account, &token.secret), None).await {
                Ok(heard) => heard,
                Err(told) => return *told,
            };
            self.note_answered(permit.client(), &account, reading, heard.status);
            if self.rest.outcome(heard.status.as_u16(), heard.body.start()) != LoginOutcome::Refused {
                // What is wrong otherwise may have been found before anybody looked at the token.
                if heard.status.is_success() {
                    account.note_token_taken(token.id);
                }
                return self.tell(permit, heard).await;
            }
            warn!(account = %account.name(), operation = reading.operation, "the exchange refused its token");
            let purpose = Purpose { endpoint: self.route.endpoint.name, operation: reading.operation };
            let refusal = RefusedToken { id: token.id, purpose };
            if only_reads && refused.is_none() {
                refused = Some(refusal);
                continue;
            }
            if only_reads {
                return own(&self.told(Unanswered::Unavailable), TOKEN_REFUSED, "answered");
            }
            account.note_token_refused(refusal);
            let mut answer = self.tell(permit, heard).await;
            answer.headers_mut().insert(REASON, HeaderValue::from_static(TOKEN_REFUSED));
            return answer;
        }
    }

    /// Passes the answer on, without what belongs to trading accounts that the client may not touch.
    async fn tell(&self, permit: &Permit, heard: Heard) -> Answer {
        let Some(allowed) = permit.sub_accounts() else { return heard.into_answer() };
        if is_packed(&heard.headers) {
            // Nobody can tell what is in it.
            warn!(client = %permit.client(), "a packed answer is kept from a client of few trading accounts");
            return own(&self.told(Unanswered::Unavailable), "upstream_protocol_error", "answered");
        }
        let Heard { status, headers, body } = heard;
        let body = match body.whole().await {
            Ok(body) => body,
            Err(why) => return self.cut_short(status, why),
        };
        let body = self.rest.narrow(&self.request, &body, allowed).map_or(body, Bytes::from);
        Heard { status, headers, body: Begun::Whole(body) }.into_answer()
    }

    /// Gives up the placeholder that was shown. Without one there is nothing to give up.
    pub(super) fn log_out(&self, permit: &Permit, shown: Option<&ClientLogin>) -> Answer {
        let house = &self.door.house;
        if let (Some(local), Some(ClientLogin::Token(token))) = (house.trusted.local(), shown)
            && let Ok(owner) = local.log_out(self.route.venue.name(), token, house.clock.now())
        {
            info!(client = %permit.client(), account = %owner.account, "placeholder given up");
        }
        own(&self.rest.answer(&self.request, Given::LoggedOut), "", "not-sent")
    }

    /// Says how to open a socket here. Whoever may open none learns nothing by it.
    pub(super) fn negotiate(&self) -> Answer {
        let mut random = [0; 16];
        if getrandom::fill(&mut random).is_err() {
            return own(&self.told(Unanswered::Unavailable), "internal_error", "not-sent");
        }
        let given = Given::Negotiated(u128::from_be_bytes(random));
        own(&self.rest.answer(&self.request, given), "", "not-sent")
    }
}

/// What must not come back: beside what the account has anyhow, the token that was sent, and the secret that bought it.
fn bearing(account: &Account, token: &Secret) -> Scrub {
    let mut scrub: Scrub = account.secrets().collect();
    scrub.guard(&Secret::new(account.signer().danger_expose_secret().to_vec()));
    scrub.guard(token);
    scrub
}

fn is_packed(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}
