//! Does what a session says: sends, waits for what has to be fresh, and hands the outcome back.

use super::house::NotDialled;
use super::inbox::Peer;
use super::leg::Leg;
use super::pulse::UpstreamPulse;
use super::{Dialled, Relay};
use crate::fresh::{Fresh, Token, TokenId};
use crate::identity::{NotAuthenticated, Principal};
use crate::session::{Action, End, Event};
use crate::supply::account::{Account, Lease, Unavailable};
use crate::supply::token::{Purpose, RefusedToken};
use crate::venue::LoginOutcome;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tracing::{error, warn};

pub(super) type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What was waited for outside the two legs.
pub(super) enum Done {
    Authenticated(Result<Principal, NotAuthenticated>),
    Dialled(Result<Dialled, NotDialled>),
    Nonce(Result<Lease, Unavailable>),
    Token(Result<Token, Unavailable>),
}

impl Relay {
    /// Lets the session take one step, and does what it says.
    pub(super) fn step(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        let now = self.house.clock.now();
        // A panic in pure code ends this session alone, and its client is told.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.session.on(event, now, &mut actions)));
        if outcome.is_err() {
            error!(session = %self.session.id(), "the session panicked");
            actions.clear();
            self.end = Some(End::Internal);
        }
        for action in actions.drain(..) {
            self.act(action);
        }
        self.actions = actions;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::ToClient(message) => self.tell_client(&message),
            Action::ToUpstream(message) => {
                if let Some(upstream) = &mut self.upstream {
                    upstream.push(&message, self.mask);
                }
            }
            Action::Authenticate(proof) => {
                let (house, source, peer) = (Arc::clone(&self.house), self.source, self.journal.peer());
                self.jobs
                    .push(Box::pin(async move { Done::Authenticated(house.authenticate(&proof, source, peer).await) }));
            }
            Action::Dial => {
                self.give_back_unproved();
                let permit = self.session.permit().expect("a session dials under its permit");
                let dialling = self.house.dial(permit, self.session.route());
                self.jobs.push(Box::pin(async move { Done::Dialled(dialling.await) }));
            }
            Action::Risen => self.rise(),
            Action::NeedNonce => {
                let limit = self.house.limits.supply_timeout;
                let client = self.session.permit().expect("whoever needs a nonce has a permit").client().clone();
                self.with_account(|account| async move { Done::Nonce(account.lease(client, limit).await) });
            }
            Action::NeedToken(refused) => {
                let limit = self.house.limits.supply_timeout;
                let refused = refused.map(|id| self.refused_token(id));
                self.with_account(move |account| async move { Done::Token(account.token(refused, limit).await) });
            }
            Action::LoginSettled(outcome) => self.settle(outcome),
            Action::TokenEnded => self.renew_token(),
            Action::Withdraw(cancelled) => {
                if let (Some(account), Some(permit)) = (self.account(), self.session.permit()) {
                    account.note_cancel(permit.client().clone(), cancelled);
                }
            }
            Action::Opened => self.journal.opened(&self.session),
            Action::Refused(refused) => self.journal.refused(&self.session, refused),
            Action::Close(end) => self.end = Some(end),
        }
    }

    /// The exchange's socket stays the one that was opened for nobody in particular: it has to be where the account's is.
    fn rise(&mut self) {
        let permit = self.session.permit().expect("a session rises to a permit");
        if self.house.upstream.is_where_nobody_is(permit, self.house.door(self.session.route())) {
            return self.journal.risen(&self.session);
        }
        warn!(session = %self.session.id(), client = %permit.client(),
            "the account's exchange is not where anonymous clients are led; let this bot prove itself with the upgrade");
        self.end = Some(End::AuthenticationFailed);
    }

    /// Has the account buy another token in place of the one that opened the exchange's socket. The socket stays: what
    /// the exchange does with it is the exchange's.
    fn renew_token(&mut self) {
        if let (Some(ended), Some(account)) = (self.dialled_with.take(), self.account()) {
            account.note_token_refused(self.refused_token(ended));
        }
    }

    fn refused_token(&self, id: TokenId) -> RefusedToken {
        RefusedToken { id, purpose: Purpose::socket(self.session.route().endpoint.name) }
    }

    pub(super) fn on_dialled(&mut self, dialled: Dialled) {
        let Dialled { opened, secrets, token } = dialled;
        self.dialled_with = token;
        for secret in &secrets {
            self.session.guard(secret);
        }
        let limit = self.house.limits.upstream_message_bytes_max;
        self.upstream = Some(Leg::new(opened.stream, &opened.read_ahead, Peer::Exchange, limit));
        self.upstream_pulse = UpstreamPulse::new(&self.house.limits, Instant::now());
        self.step(Event::Dialled);
    }

    pub(super) fn on_done(&mut self, done: Done) {
        match done {
            Done::Authenticated(outcome) => self.step(Event::Authenticated(outcome)),
            Done::Dialled(Ok(dialled)) => self.on_dialled(dialled),
            Done::Dialled(Err(error)) => {
                warn!(session = %self.session.id(), route = ?self.session.route(), %error, "exchange not reached");
                self.end = Some(error.end());
            }
            Done::Nonce(Ok(lease)) => {
                let fresh = Fresh { now: self.house.clock.now(), nonce: Some(lease.nonce), token: None };
                self.lease = Some(lease);
                self.on_fresh(fresh);
            }
            Done::Token(Ok(token)) => {
                let fresh = Fresh { now: self.house.clock.now(), nonce: None, token: Some(token) };
                self.on_fresh(fresh);
            }
            Done::Nonce(Err(error)) => {
                warn!(session = %self.session.id(), %error, "no nonce");
                self.step(Event::NotFresh(End::NonceUnavailable));
            }
            Done::Token(Err(error)) => {
                warn!(session = %self.session.id(), %error, "no token");
                self.step(Event::NotFresh(End::TokenUnavailable));
            }
        }
    }

    fn on_fresh(&mut self, fresh: Fresh) {
        if let Some(account) = self.account() {
            self.step(Event::Fresh(account.signer(), fresh));
        }
    }

    fn account(&self) -> Option<&Account> {
        self.session.permit()?.account().and_then(|name| self.house.accounts.get(name))
    }

    fn with_account<F>(&mut self, job: impl FnOnce(Account) -> F)
    where
        F: Future<Output = Done> + Send + 'static,
    {
        match self.account().cloned() {
            Some(account) => self.jobs.push(Box::pin(job(account))),
            // A dialect asks for supplies only where the permit names an account, and all of those exist.
            None => self.end = Some(End::Internal),
        }
    }

    fn settle(&mut self, outcome: LoginOutcome) {
        if let Some(lease) = self.lease.take() {
            lease.settle(outcome);
        }
    }
}
