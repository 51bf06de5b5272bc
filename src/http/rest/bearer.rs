//! Requests to a venue of bearer tokens: sent on with the account's token, and healed where the exchange no longer
//! takes it.
//!
//! A client never hears that our token was refused, where that can be helped: it would take it for its own, log in
//! again here, and gain nothing. What moves something is never sent twice all the same.

use super::relayed::Begun;
use super::{Asked, class, own, passed_on, scrub};
use crate::fresh::TokenId;
use crate::http::Answer;
use crate::http::refusal::REASON;
use crate::policy::Permit;
use crate::scope::Act;
use crate::secret::Secret;
use crate::session::Scrub;
use crate::supply::account::{Account, Class};
use crate::upstream::{AnswerBody, CutShort};
use crate::venue::rest::{Given, RestReading, Unanswered};
use crate::venue::{ClientLogin, LoginOutcome, Refusal as Why};
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Relayed;

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
        let wait = if class == Class::Order { self.door.limits.order_wait } else { house.limits.supply_timeout };
        let give_up_at = (class == Class::Order).then(|| Instant::now() + wait);
        let mut refused = None;
        loop {
            let token = match account.token(refused, wait).await {
                Ok(token) => token,
                Err(why) => {
                    warn!(client = %permit.client(), account = %account.name(), %why, "no token for a request");
                    let upstream = if refused.is_some() { "answered" } else { "not-sent" };
                    return own(&self.told(Unanswered::Unavailable), "token_unavailable", upstream);
                }
            };
            let borne = self.rest.bear(&self.request, reading, &token.secret);
            let response = match self.send(permit, &borne, class, give_up_at).await {
                Ok(response) => response,
                Err(why) => return self.not_answered(reading.operation, permit.client(), why),
            };
            let (head, begun) = match begin(response, bearing(&account, &token.secret)).await {
                Ok(begun) => begun,
                Err((status, why)) => return self.cut_short(status, why),
            };
            self.note_answered(permit.client(), &account, reading, head.status);
            if self.rest.outcome(head.status.as_u16(), begun.start()) != LoginOutcome::Refused {
                return self.tell(permit, &head, begun).await;
            }
            warn!(account = %account.name(), operation = reading.operation, "the exchange refused its token");
            if only_reads && refused.is_none() {
                refused = Some(token.id);
                continue;
            }
            self.renew(account, token.id);
            if only_reads {
                return own(&self.told(Unanswered::Unavailable), TOKEN_REFUSED, "answered");
            }
            let mut answer = self.tell(permit, &head, begun).await;
            answer.headers_mut().insert(REASON, HeaderValue::from_static(TOKEN_REFUSED));
            return answer;
        }
    }

    /// Has the account buy another token, whoever waits for it.
    fn renew(&self, account: Account, refused: TokenId) {
        let limit = self.door.house.limits.supply_timeout;
        // The account says in its own log what came of it.
        self.door.sessions.spawn(async move { drop(account.token(Some(refused), limit).await) });
    }

    /// Passes the answer on, without what belongs to trading accounts that the client may not touch.
    async fn tell(&self, permit: &Permit, head: &http::response::Parts, begun: Begun) -> Answer {
        let Some(allowed) = permit.sub_accounts() else { return passed_on(head, begun.into_body()) };
        if is_packed(&head.headers) {
            // Nobody can tell what is in it.
            warn!(client = %permit.client(), "a packed answer is kept from a client of few trading accounts");
            return own(&self.told(Unanswered::Unavailable), "upstream_protocol_error", "answered");
        }
        let body = match begun.whole().await {
            Ok(body) => body,
            Err(why) => return self.cut_short(head.status, why),
        };
        let body = self.rest.narrow(&self.request, &body, allowed).map_or(body, Bytes::from);
        passed_on(head, Begun::Whole(body).into_body())
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
    let mut scrub = scrub(account);
    scrub.guard(&Secret::new(account.signer().danger_expose_secret().to_vec()));
    scrub.guard(token);
    scrub
}

/// Reads the start of an answer.
async fn begin(
    response: Response<AnswerBody>,
    scrub: Scrub,
) -> Result<(http::response::Parts, Begun), (StatusCode, CutShort)> {
    let (head, body) = response.into_parts();
    match Relayed::begin(body, scrub, None).await {
        Ok(begun) => Ok((head, begun)),
        Err(why) => Err((head.status, why)),
    }
}

fn is_packed(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}
