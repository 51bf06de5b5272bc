//! How a request gets to the exchange: in the lane of its account where it is signed, else over any good connection.
//! Whatever happens, it is sent once at most.

use super::Asked;
use crate::credential::Signer;
use crate::http::Answer;
use crate::policy::Permit;
use crate::scope::{Act, Acts};
use crate::session::Scrub;
use crate::supply::account::{Account, Answered, Call, Class, NotAnswered, NotSent, Sign, StillGranted};
use crate::upstream::{AnswerBody, Approach, Fate};
use crate::venue::rest::RestReading;
use crate::venue::{Refusal as Why, SignedRequest};
use http::Response;
use http_body_util::Full;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

impl Asked<'_> {
    /// Sends a public request on, without any credential.
    pub(super) async fn pass(&self, permit: Permit, reading: RestReading) -> Answer {
        let house = &self.door.house;
        let sent = match house.upstream.public_approach_for(&permit, house.door(&self.route)) {
            Ok(approach) => self.send(&permit, approach, &self.rest.pass(&self.request), Class::Read, None).await,
            Err(error) => Err(NotSent::NotReached(error).into()),
        };
        match sent {
            Ok(response) => self.relay(response, self.scrub(), None).await,
            Err(why) => self.not_answered(reading.operation, permit.client(), why),
        }
    }

    /// Sends a request that carries no nonce, over a connection that is as fresh as its class asks for. It is not sent
    /// any more where there is none by the moment `give_up_at`, or where its permit would not be given again by then.
    pub(super) async fn send(
        &self,
        permit: &Permit,
        approach: Approach,
        written: &SignedRequest,
        class: Class,
        give_up_at: Option<Instant>,
    ) -> Result<Response<AnswerBody>, NotAnswered> {
        let limits = &self.door.limits;
        let idle_max = match class {
            Class::Read => Duration::MAX,
            Class::Cancel | Class::Order | Class::Other => limits.order_connection_idle,
        };
        // A cancel goes even where we were asked to stay away: an order that cannot be taken back may cost much.
        if class != Class::Cancel {
            approach.check().map_err(NotSent::NotReached)?;
        }
        // A kept connection may turn out to be dead before anything is written; a new one is tried then, once.
        for idle_max in [Some(idle_max), None] {
            let connecting = approach.clone().connect(idle_max);
            let connected = match give_up_at {
                Some(moment) => timeout_at(moment, connecting).await.map_err(|_| NotSent::WaitedTooLong)?,
                None => connecting.await,
            };
            let connection = connected.map_err(NotSent::NotReached)?;
            let request = written.to_http().map_err(|_| NotSent::Unwritable)?;
            let has_ended = permit.ends_at().is_some_and(|ends_at| ends_at <= self.door.house.clock.now());
            if has_ended || !self.still_granted()(permit) {
                return Err(NotSent::NoLongerPermitted.into());
            }
            match connection.send(request.map(Full::new), &limits.answer).await {
                Fate::Answered(response) => return Ok(*response),
                Fate::Unsent(_) => {}
                Fate::Unknown(silence) => return Err(silence.into()),
            }
        }
        Err(NotSent::ConnectionLost.into())
    }

    /// Signs the request anew and sends it, in the order of its account's nonces.
    pub(super) async fn countersign(&self, permit: Permit, reading: RestReading) -> Answer {
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
            still_granted: self.still_granted(),
        };
        match account.call(call).await {
            Ok(Answered { response, shown, verdict }) => {
                self.note_answered(&who, &account, &reading, response.status());
                let scrub = account.secrets().chain(shown).collect();
                self.relay(response, scrub, Some(verdict)).await
            }
            Err(why) => self.not_answered(reading.operation, &who, why),
        }
    }

    /// What the lane calls when it is the request's turn.
    fn signing(&self, reading: &Arc<RestReading>) -> Sign {
        let (rest, request, reading) = (self.rest, Arc::clone(&self.request), Arc::clone(reading));
        Arc::new(move |signer: &Signer, nonce| rest.sign(&request, &reading, signer, nonce))
    }

    /// What the lane asks right before that.
    fn still_granted(&self) -> StillGranted {
        let (policy, route) = (self.door.house.policy.clone(), self.route);
        Arc::new(move |permit| policy.borrow().still_grants(permit, &route))
    }

    /// What must not come back in the answer to a request without a credential: it could be any account's.
    fn scrub(&self) -> Scrub {
        let venue = self.route.venue.name();
        let accounts = self.door.house.accounts.values().filter(|account| account.venue().name() == venue);
        accounts.flat_map(Account::secrets).collect()
    }
}

/// What the lane takes a request for. Whatever does more than read or cancel waits no longer than an order: it must not
/// be sent when nobody waits for it any more.
pub(super) fn class(acts: Acts) -> Class {
    let only = |wanted: Act| acts.iter().all(|act| act == wanted || act == Act::Read || act == Act::Public);
    if only(Act::Read) {
        Class::Read
    } else if only(Act::Cancel) {
        Class::Cancel
    } else if acts.iter().any(|act| matches!(act, Act::Transfer | Act::Admin)) {
        Class::Other
    } else {
        Class::Order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_money_or_manages_keys_is_no_order_that_a_cancel_takes_back() {
        let class = |acts: &[Act]| {
            class(acts.iter().fold(Acts::default(), |mut all, act| {
                all.add(*act);
                all
            }))
        };
        for (acts, wanted) in [
            (&[Act::Read][..], Class::Read),
            (&[Act::Cancel], Class::Cancel),
            (&[Act::Order], Class::Order),
            (&[Act::Order, Act::Cancel], Class::Order),
            (&[Act::Transfer], Class::Other),
            (&[Act::Admin], Class::Other),
        ] {
            assert_eq!(class(acts), wanted, "{acts:?}");
        }
    }
}
