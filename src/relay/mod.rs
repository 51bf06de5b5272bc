//! Moves messages between the two legs of a session, and does the session's actions.
//!
//! One task per session, and no write that is waited for: both legs are polled in one loop, each with an outbox
//! of its own, so that a client that reads slowly can still send its cancel, and a slow exchange delays nothing
//! that comes from it.

mod house;
mod journal;
mod leg;
mod pulse;

pub use house::{Dialled, House, Limits, NotDialled, end_of};

use crate::fault;
use crate::fresh::TokenId;
use crate::identity::budget::{Source, Unproved};
use crate::identity::{NotAuthenticated, Principal};
use crate::message::Message;
use crate::policy::Policy;
use crate::session::{Action, End, Event, Session};
use crate::supply::account::{Account, Lease, Unavailable};
use crate::supply::token::{Purpose, RefusedToken};
use crate::tls::Stream;
use crate::venue::{Comeback, LoginOutcome, Manner};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream as _, StreamExt as _};
use journal::Journal;
use leg::{Broken, Incoming, Leg, Peer, client_end, cost, upstream_end};
use pulse::{ClientPulse, UpstreamPulse};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::watch;
use tokio::time::Sleep;
use tracing::{debug, error, warn};

/// A client's socket after the upgrade.
pub struct ClientSocket {
    /// The connection.
    pub stream: Stream,
    /// What came with the upgrade.
    pub read_ahead: Bytes,
    /// Where it came from, for the budget of failures.
    pub source: Source,
    /// Where it came from, for the log.
    pub peer: SocketAddr,
    /// Its place among the connections that have proved nothing, if it has one.
    pub unproved: Option<Unproved>,
}

/// Runs a session to its end. `opened`: the exchange's socket, where it was opened before the upgrade was answered.
pub async fn run(house: Arc<House>, session: Session, client: ClientSocket, dialled: Option<Dialled>) -> End {
    let limits = &house.limits;
    let (source, peer, unproved) = (client.source, client.peer, client.unproved);
    let client = Leg::new(client.stream, client.read_ahead, Peer::Client, limits.client_message_bytes_max).await;
    let mut relay = Relay {
        session,
        source,
        unproved,
        client,
        upstream: None,
        client_pulse: ClientPulse::new(limits, Instant::now()),
        upstream_pulse: UpstreamPulse::new(limits, Instant::now()),
        lease: None,
        dialled_with: None,
        jobs: FuturesUnordered::new(),
        actions: Vec::with_capacity(8),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        waiting_close: None,
        sleep: Box::pin(tokio::time::sleep(limits.ping_interval)),
        policy: house.policy.clone(),
        draining: house.draining.clone(),
        is_upstream_next: false,
        unflushed: 0,
        journal: Journal::new(peer),
        end: None,
        house,
    };
    match dialled {
        Some(dialled) => relay.on_dialled(dialled).await,
        None => relay.step(Event::Arrived),
    }
    let end = relay.relay().await;
    // Boxed, so that a session at rest does not hold the room that its end needs.
    Box::pin(relay.farewell(end)).await;
    end
}

type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What was waited for outside the two legs.
enum Done {
    Authenticated(Result<Principal, NotAuthenticated>),
    Dialled(Result<Dialled, NotDialled>),
    Nonce(Result<Lease, Unavailable>),
    Token(Result<crate::fresh::Token, Unavailable>),
}

enum Happening {
    Done(Done),
    Client(Incoming),
    /// The session can take the client's message that has waited longest.
    TurnOf(Message),
    Upstream(Incoming),
    ClientBroken(Broken),
    UpstreamBroken(Broken),
    PolicyChanged,
    Draining,
    Time,
}

struct Relay {
    house: Arc<House>,
    session: Session,
    source: Source,
    unproved: Option<Unproved>,
    client: Leg,
    upstream: Option<Leg>,
    client_pulse: ClientPulse,
    upstream_pulse: UpstreamPulse,
    lease: Option<Lease>,
    /// Which of the account's tokens opened the exchange's socket, where it took one.
    dialled_with: Option<TokenId>,
    jobs: FuturesUnordered<Job>,
    actions: Vec<Action>,
    /// What the client sent while the session could take no message. It is read all the same, so that the end of
    /// the connection behind it is seen: a client that has died must not be logged in first.
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
    /// The client's close, behind those.
    waiting_close: Option<u16>,
    sleep: Pin<Box<Sleep>>,
    policy: watch::Receiver<Arc<Policy>>,
    draining: watch::Receiver<bool>,
    /// Whose turn it is to be read first: neither direction can starve the other.
    is_upstream_next: bool,
    /// Messages that were moved since the legs were last written.
    unflushed: u32,
    journal: Journal,
    end: Option<End>,
}

/// Messages that may be gathered before they are written, while more keep coming.
const GATHERED_MAX: u32 = 32;
/// Once so many bytes of messages wait for the session, the client is not read any more.
const WAITING_BYTES_MAX: usize = 16 * 1024;

impl Relay {
    async fn relay(&mut self) -> End {
        let policy = self.policy.clone();
        let draining = self.draining.clone();
        let mut changed = std::pin::pin!(control(policy, draining));
        loop {
            if let Some(end) = self.end {
                return end;
            }
            self.set_alarm();
            let happening = poll_fn(|cx| {
                // Between batches, so that a flood cannot keep news from outside away.
                if self.unflushed == 0
                    && let Poll::Ready(what) = changed.as_mut().poll_next(cx)
                {
                    return Poll::Ready(what.unwrap_or(Happening::Draining));
                }
                match self.poll(cx) {
                    Poll::Pending => changed.as_mut().poll_next(cx).map(|what| what.unwrap_or(Happening::Draining)),
                    ready @ Poll::Ready(_) => ready,
                }
            })
            .await;
            self.happen(happening).await;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        if !self.jobs.is_empty()
            && let Poll::Ready(Some(done)) = self.jobs.poll_next_unpin(cx)
        {
            return Poll::Ready(Happening::Done(done));
        }
        if self.unflushed >= GATHERED_MAX {
            if let broken @ Poll::Ready(_) = self.poll_write(cx) {
                return broken;
            }
            // A flood must not keep time from passing: a proof ends, an outbox has been full for too long.
            if self.sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Happening::Time);
            }
        }
        let had_room = self.have_room();
        self.is_upstream_next = !self.is_upstream_next;
        for is_upstream in [self.is_upstream_next, !self.is_upstream_next] {
            let happening = if is_upstream { self.poll_upstream(cx) } else { self.poll_client(cx) };
            if happening.is_ready() {
                return happening;
            }
        }
        if let broken @ Poll::Ready(_) = self.poll_write(cx) {
            return broken;
        }
        if self.have_room() != had_room {
            // Whoever was not read this time, and may be the next, has no other way to wake us.
            cx.waker().wake_by_ref();
        }
        self.sleep.as_mut().poll(cx).map(|()| Happening::Time)
    }

    /// Writes what the two peers take, and is ready only if one of them is gone.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        self.unflushed = 0;
        if let Poll::Ready(Err(broken)) = self.client.poll_write(cx) {
            return Poll::Ready(Happening::ClientBroken(broken));
        }
        match self.upstream.as_mut().map(|upstream| upstream.poll_write(cx)) {
            Some(Poll::Ready(Err(broken))) => Poll::Ready(Happening::UpstreamBroken(broken)),
            _ => Poll::Pending,
        }
    }

    /// Whether more may be put into the outbox of the client, and of the exchange.
    fn have_room(&self) -> (bool, bool) {
        let has_room = |leg: &Leg| leg.outbox_bytes() < self.house.limits.outbox_bytes_max;
        (has_room(&self.client), self.upstream.as_ref().is_none_or(has_room))
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        let (_, has_room) = self.have_room();
        if !has_room {
            return Poll::Pending;
        }
        let takes_messages = self.session.reads_client();
        if takes_messages && let Some(message) = self.waiting.pop_front() {
            self.waiting_bytes -= cost(message.len());
            return Poll::Ready(Happening::TurnOf(message));
        }
        if let Some(code) = self.waiting_close {
            return if takes_messages { Poll::Ready(Happening::Client(Incoming::Closed(code))) } else { Poll::Pending };
        }
        if takes_messages || self.waiting_bytes < WAITING_BYTES_MAX {
            self.client.poll_read(cx).map(Happening::Client)
        } else {
            Poll::Pending
        }
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        let (has_room, _) = self.have_room();
        match &mut self.upstream {
            Some(upstream) if has_room => upstream.poll_read(cx).map(Happening::Upstream),
            _ => Poll::Pending,
        }
    }

    async fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Client(incoming) => self.on_client(incoming),
            Happening::TurnOf(message) => self.take_from_client(message),
            Happening::Upstream(incoming) => self.on_upstream(incoming),
            Happening::Done(Done::Dialled(Ok(dialled))) => self.on_dialled(dialled).await,
            Happening::Done(done) => self.on_done(done),
            Happening::ClientBroken(broken) => self.end = Some(client_end(broken)),
            Happening::UpstreamBroken(broken) => self.end = Some(upstream_end(broken)),
            Happening::PolicyChanged => {
                let policy = Arc::clone(&self.policy.borrow_and_update());
                self.step(Event::PolicyChanged(policy));
            }
            Happening::Draining => self.end = Some(End::Draining),
            Happening::Time => self.on_time(),
        }
    }

    fn on_client(&mut self, incoming: Incoming) {
        self.unflushed += 1;
        match incoming {
            Incoming::Message(message) => {
                self.journal.client_sent(message.len());
                self.client_pulse.on_message(self.client.bytes_read(), Instant::now());
                if self.session.reads_client() {
                    self.take_from_client(message);
                } else {
                    self.waiting_bytes += cost(message.len());
                    self.waiting.push_back(message);
                }
            }
            Incoming::Ping(payload_bytes) => {
                if !self.client_pulse.on_ping(payload_bytes, Instant::now()) {
                    self.end = Some(End::PingFlood);
                }
            }
            Incoming::Pong(payload_bytes) => self.client_pulse.on_pong(payload_bytes),
            Incoming::Closed(code) if self.session.reads_client() => self.end = Some(End::ClientClosed(code)),
            // `cancel_all` and a close are how a bot goes home: the one must not overtake the other.
            Incoming::Closed(code) => self.waiting_close = Some(code),
            Incoming::Broken(broken) => self.end = Some(client_end(broken)),
        }
    }

    /// Gives the session a message of the client. What the exchange sends waits when the outbox is full; answers of our
    /// own cannot, and a client that provokes them without reading any is not waited for.
    fn take_from_client(&mut self, message: Message) {
        self.step(Event::FromClient(message));
        let limits = &self.house.limits;
        let of_the_exchange = if self.upstream.is_some() { limits.upstream_message_bytes_max } else { 0 };
        if self.client.outbox_bytes() >= limits.outbox_bytes_max.saturating_mul(2).saturating_add(of_the_exchange) {
            self.end = Some(End::SlowConsumer);
        }
    }

    fn on_upstream(&mut self, incoming: Incoming) {
        self.unflushed += 1;
        self.upstream_pulse.on_sign_of_life(Instant::now());
        match incoming {
            Incoming::Message(message) if self.session.watches(message.payload()) => {
                self.step(Event::FromUpstream(message));
            }
            Incoming::Message(message) => self.tell_client(message),
            Incoming::Ping(_) | Incoming::Pong(_) => {}
            Incoming::Closed(code) => self.end = Some(End::UpstreamClosed(code)),
            Incoming::Broken(broken) => self.end = Some(upstream_end(broken)),
        }
    }

    fn tell_client(&mut self, message: Message) {
        self.journal.client_was_sent(message.len());
        self.client.push(message);
    }

    async fn on_dialled(&mut self, dialled: Dialled) {
        let Dialled { opened, secrets, token } = dialled;
        self.dialled_with = token;
        for secret in &secrets {
            self.session.guard(secret);
        }
        let limit = self.house.limits.upstream_message_bytes_max;
        self.upstream = Some(Leg::new(opened.stream, opened.read_ahead, Peer::Exchange, limit).await);
        self.upstream_pulse = UpstreamPulse::new(&self.house.limits, Instant::now());
        self.step(Event::Dialled);
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Authenticated(outcome) => self.step(Event::Authenticated(outcome)),
            Done::Dialled(Ok(_)) => unreachable!("`happen` takes an open socket itself"),
            Done::Dialled(Err(error)) => {
                warn!(session = %self.session.id(), route = ?self.session.route(), %error, "exchange not reached");
                self.end = Some(error.end());
            }
            Done::Nonce(Ok(lease)) => {
                let fresh = crate::fresh::Fresh { now: self.house.clock.now(), nonce: Some(lease.nonce), token: None };
                self.lease = Some(lease);
                self.on_fresh(fresh);
            }
            Done::Token(Ok(token)) => {
                let fresh = crate::fresh::Fresh { now: self.house.clock.now(), nonce: None, token: Some(token) };
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

    fn on_fresh(&mut self, fresh: crate::fresh::Fresh) {
        if let Some(account) = self.account() {
            self.step(Event::Fresh(account.signer(), fresh));
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        let is_client_full = self.client.outbox_bytes() >= self.house.limits.outbox_bytes_max;
        match self.client_pulse.on_time(now, is_client_full, self.client.bytes_read()) {
            Ok(true) => self.client.ping(),
            Ok(false) => {}
            Err(end) => self.end = Some(end),
        }
        if let Some(upstream) = &mut self.upstream {
            let is_full = upstream.outbox_bytes() >= self.house.limits.outbox_bytes_max;
            // An exchange that we do not read, because the client does not, is not silent.
            let is_read = !is_client_full;
            match self.upstream_pulse.on_time(now, is_full, is_read) {
                Ok(true) => upstream.ping(),
                Ok(false) => {}
                Err(end) => self.end = Some(end),
            }
        }
        let wall = self.house.clock.now();
        if self.session.wakes_at().is_some_and(|at| at <= wall) {
            self.step(Event::Wake);
        }
    }

    /// Sets the alarm to the first moment at which time alone makes something happen.
    fn set_alarm(&mut self) {
        let now = Instant::now();
        let is_client_full = self.client.outbox_bytes() >= self.house.limits.outbox_bytes_max;
        let mut at = self.client_pulse.next(now, is_client_full);
        if let Some(upstream) = &self.upstream {
            let is_full = upstream.outbox_bytes() >= self.house.limits.outbox_bytes_max;
            at = at.min(self.upstream_pulse.next(now, is_full));
        }
        if let Some(wakes_at) = self.session.wakes_at() {
            at = at.min(now + wakes_at.since(self.house.clock.now()));
        }
        if self.sleep.deadline() != at.into() {
            self.sleep.as_mut().reset(at.into());
        }
    }

    /// Lets the session take one step, and does what it says.
    fn step(&mut self, event: Event) {
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
            Action::ToClient(message) => self.tell_client(message),
            Action::ToUpstream(message) => {
                if let Some(upstream) = &mut self.upstream {
                    upstream.push(message);
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

    /// A client that is proved no longer counts among those who are not.
    fn give_back_unproved(&mut self) {
        if let Some(unproved) = self.unproved.take() {
            self.house.budget.lock().unwrap_or_else(PoisonError::into_inner).closed_unproved(unproved);
        }
    }

    /// A client that never tried to log in counts like one that failed. A bad token was counted when it was judged.
    fn count_failure(&self, end: End) {
        let is_failure = matches!(end, End::AuthenticationTimeout | End::AuthenticationRequired | End::TokenMissing);
        if is_failure && self.unproved.is_some() {
            let mut budget = self.house.budget.lock().unwrap_or_else(PoisonError::into_inner);
            // The socket is closed as it is: there is no answer to hold back.
            let _ = budget.failed(self.source, self.house.clock.now());
        }
    }

    fn settle(&mut self, outcome: LoginOutcome) {
        if let Some(lease) = self.lease.take() {
            lease.settle(outcome);
        }
    }

    /// Says goodbye on both legs at once, within the limit. What the client sent before its end still leaves; what
    /// a client would not read is dropped.
    async fn farewell(&mut self, end: End) {
        self.count_failure(end);
        self.give_back_unproved();
        self.lease = None;
        let unanswered = self.session.unanswered();
        let drop_waiting = matches!(end, End::SlowConsumer);
        let route = self.session.route();
        let comeback = match route.manner {
            Manner::Native => route.venue.comeback(),
            Manner::Path => Comeback::default(),
        };
        let said = fault::to_native_client(end, unanswered, comeback);
        let code = said.as_ref().map(|farewell| farewell.code);
        if let Some(farewell) = said {
            self.client.close(farewell.code, farewell.reason, drop_waiting);
        }
        let client = &mut self.client;
        let upstream = &mut self.upstream;
        let is_upstream_gone = matches!(end, End::UpstreamLost | End::UpstreamStalled);
        if let Some(upstream) = upstream {
            let farewell = fault::to_upstream(end);
            upstream.close(farewell.code, farewell.reason, is_upstream_gone);
        }
        let to_client = async {
            if code.is_some() {
                client.finish(true).await;
            }
        };
        let to_upstream = async {
            if let Some(mut leg) = upstream.take() {
                leg.finish(false).await;
            }
        };
        let both = async { tokio::join!(to_client, to_upstream) };
        if tokio::time::timeout(self.house.limits.close_timeout, both).await.is_err() {
            debug!(session = %self.session.id(), "a peer did not answer the close");
        }
        self.journal.closed(&self.session, end, code);
    }
}

/// The changes from outside, one after another.
fn control(
    policy: watch::Receiver<Arc<Policy>>,
    draining: watch::Receiver<bool>,
) -> impl futures_util::Stream<Item = Happening> {
    futures_util::stream::unfold((policy, draining), |(mut policy, mut draining)| async move {
        let what = tokio::select! {
            true = async { draining.wait_for(|is_draining| *is_draining).await.is_ok() } => Happening::Draining,
            true = async { policy.changed().await.is_ok() } => Happening::PolicyChanged,
            // Both senders are gone only when the house is.
            else => Happening::Draining,
        };
        Some((what, (policy, draining)))
    })
}
