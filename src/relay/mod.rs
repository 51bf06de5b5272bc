//! Moves frames between the two legs of a session, and does the session's actions.
//!
//! ```text
//! from the exchange   whole frames in a row pass as the bytes that came, unless the session watches for something in
//!                     them: then message by message, and what is watched for is given to the session
//! from the client     message by message, each given to the session, which judges it; what the session sends on leaves
//!                     with the mask that it came with
//! ```
//!
//! One task per session, and no write that is waited for: both legs are polled in one loop, each with an outbox
//! of its own, so that a client that reads slowly can still send its cancel, and a slow exchange delays nothing
//! that comes from it. A frame is sent on once it is whole, so that the two legs can be closed properly at any time.

mod act;
mod farewell;
pub mod frame;
mod house;
pub mod inbox;
mod journal;
mod leg;
mod news;
mod pulse;

pub use house::{Dialled, House, Limits, NotDialled, end_of};

use crate::fresh::TokenId;
use crate::identity::budget::{Source, Unproved};
use crate::message::Message;
use crate::session::{Action, End, Event, Session};
use crate::supply::account::Lease;
use crate::tls::Stream;
use act::Job;
use bytes::Bytes;
use frame::Mask;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use inbox::{Incoming, Peer};
use journal::Journal;
use leg::{Leg, client_end, upstream_end};
use news::{Change, News};
use pulse::{ClientPulse, UpstreamPulse};
use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::time::Sleep;

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
    let client = Leg::new(client.stream, &client.read_ahead, Peer::Client, limits.client_message_bytes_max);
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
        mask: None,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        waiting_close: None,
        watched_bytes: 0,
        sleep: Box::pin(tokio::time::sleep(limits.ping_interval)),
        news: News::new(house.policy.clone(), house.draining.clone()),
        is_upstream_next: false,
        now: Instant::now(),
        journal: Journal::new(peer),
        end: None,
        house,
    };
    match dialled {
        Some(dialled) => relay.on_dialled(dialled),
        None => relay.step(Event::Arrived),
    }
    let end = relay.relay().await;
    // Boxed, so that a session at rest does not hold the room that its end needs.
    Box::pin(relay.farewell(end)).await;
    end
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
    /// The mask of the client's message that is judged just now. It leaves as it came, where the session leaves it.
    mask: Option<Mask>,
    /// What the client sent while the session could take no message. It is read all the same, so that the end of
    /// the connection behind it is seen: a client that has died must not be logged in first.
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
    /// The client's close, behind those.
    waiting_close: Option<u16>,
    /// Bytes at the front of what the exchange sent in which something stands that the session watches for: they are
    /// looked at message by message.
    watched_bytes: usize,
    sleep: Pin<Box<Sleep>>,
    news: News,
    /// Whose turn it is to be served first: neither direction can starve the other.
    is_upstream_next: bool,
    /// The time of this round.
    now: Instant,
    journal: Journal,
    end: Option<End>,
}

/// Once so many bytes of messages wait for the session, the client is not read any more.
const WAITING_BYTES_MAX: usize = 16 * 1024;
/// What a message that waits costs us beside its bytes: an empty one is not free.
const WAITING_MESSAGE_COST: usize = 64;

impl Relay {
    async fn relay(&mut self) -> End {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Round after round: what has come is moved, what is ready to go is written, and the sockets are read once more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            // Once for all that happens in a round: to ask the clock costs as much as to judge a frame.
            self.now = Instant::now();
            // Between batches, so that a flood keeps neither news nor time from passing.
            while self.end.is_none()
                && let Poll::Ready(change) = self.news.poll(cx)
            {
                match change {
                    Change::Policy(policy) => self.step(Event::PolicyChanged(policy)),
                    Change::Draining => self.end = Some(End::Draining),
                }
            }
            if self.end.is_none() && self.now >= self.sleep.deadline().into_std() {
                self.on_time();
                self.set_alarm();
            }
            if self.end.is_none() {
                self.poll_jobs(cx);
            }
            self.move_what_came();
            if let Some(end) = self.end {
                return Poll::Ready(end);
            }
            let had_room = self.have_room();
            self.write(cx);
            // Whoever was not taken from for want of room has no other way to wake us.
            let has_room_again = self.have_room() != had_room;
            self.note_room();
            let has_more = self.fill(cx, had_room);
            if !has_more && !has_room_again && self.end.is_none() && self.poll_outside(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// What is waited for beside the two sockets. Ready: another round is due.
    fn poll_outside(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.set_alarm();
        if self.sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // What was begun in this round has not been asked yet, and could not wake us.
        if self.poll_jobs(cx) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// True: a job was done.
    fn poll_jobs(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.jobs.is_empty()
            && let Poll::Ready(Some(done)) = self.jobs.poll_next_unpin(cx)
        {
            self.on_done(done);
            return true;
        }
        false
    }

    /// Takes everything that is whole off both inboxes, by turns.
    fn move_what_came(&mut self) {
        let mut idle = 0;
        while idle < 2 && self.end.is_none() {
            self.is_upstream_next = !self.is_upstream_next;
            let moved = if self.is_upstream_next { self.take_from_upstream() } else { self.take_from_client() };
            idle = if moved { 0 } else { idle + 1 };
        }
    }

    /// Writes what the two peers take.
    fn write(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(broken)) = self.client.poll_write(cx) {
            self.end = self.end.or(Some(client_end(broken)));
        }
        if let Some(Poll::Ready(Err(broken))) = self.upstream.as_mut().map(|upstream| upstream.poll_write(cx)) {
            self.end = self.end.or(Some(upstream_end(broken)));
        }
    }

    /// A peer that takes something now and then is slow, but not stalled.
    fn note_room(&mut self) {
        let (client_has_room, upstream_has_room) = self.have_room();
        if client_has_room {
            self.client_pulse.on_room();
        }
        if upstream_has_room {
            self.upstream_pulse.on_room();
        }
    }

    /// Reads each socket once, if there was room for all that it sent before: then nothing whole is left of that, and an
    /// end that is read now came behind everything. True: something came.
    fn fill(&mut self, cx: &mut Context<'_>, (client_has_room, upstream_has_room): (bool, bool)) -> bool {
        let mut has_more = false;
        if let Some(upstream) = self.upstream.as_mut().filter(|_| client_has_room)
            && let Poll::Ready(filled) = upstream.poll_fill(cx)
        {
            has_more = true;
            if let Err(broken) = filled {
                self.end = self.end.or(Some(upstream_end(broken)));
            }
        }
        if upstream_has_room
            && self.reads_client()
            && let Poll::Ready(filled) = self.client.poll_fill(cx)
        {
            has_more = true;
            if let Err(broken) = filled {
                self.end = self.end.or(Some(client_end(broken)));
            }
        }
        has_more
    }

    /// Whether more may be put into the outbox of the client, and of the exchange.
    fn have_room(&self) -> (bool, bool) {
        let has_room = |leg: &Leg| leg.outbox_bytes() < self.house.limits.outbox_bytes_max;
        (has_room(&self.client), self.upstream.as_ref().is_none_or(has_room))
    }

    /// True if a message of the client could be taken, or has a place to wait.
    fn reads_client(&self) -> bool {
        self.waiting_close.is_none() && (self.session.reads_client() || self.waiting_bytes < WAITING_BYTES_MAX)
    }

    /// Takes the next thing of the client's. False: there is none, or it has to wait.
    fn take_from_client(&mut self) -> bool {
        let (_, has_room) = self.have_room();
        if !has_room {
            return false;
        }
        if self.session.reads_client() {
            if let Some(message) = self.waiting.pop_front() {
                self.waiting_bytes -= message.len() + WAITING_MESSAGE_COST;
                self.judge(message, None);
                return true;
            }
            if let Some(code) = self.waiting_close {
                self.end = Some(End::ClientClosed(code));
                return true;
            }
        }
        let next = if self.reads_client() { self.client.take_next() } else { None };
        next.map(|incoming| self.on_client(incoming)).is_some()
    }

    fn on_client(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message(message, mask) => {
                self.journal.client_sent(message.len());
                self.client_pulse.on_message(self.client.bytes_taken(), self.now);
                if self.session.reads_client() {
                    self.judge(message, mask);
                } else {
                    self.waiting_bytes += message.len() + WAITING_MESSAGE_COST;
                    self.waiting.push_back(message);
                }
            }
            Incoming::Ping(payload) => {
                if !self.client_pulse.on_ping(payload.len(), self.now) {
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
    fn judge(&mut self, message: Message, mask: Option<Mask>) {
        self.mask = mask;
        self.step(Event::FromClient(message));
        self.mask = None;
        let limits = &self.house.limits;
        let of_the_exchange = if self.upstream.is_some() { limits.upstream_message_bytes_max } else { 0 };
        if self.client.outbox_bytes() >= limits.outbox_bytes_max.saturating_mul(2).saturating_add(of_the_exchange) {
            self.end = Some(End::SlowConsumer);
        }
    }

    /// Takes what the exchange sent: as many frames at once as nobody has to read. False: there is nothing whole, or it
    /// has to wait.
    fn take_from_upstream(&mut self) -> bool {
        let (has_room, _) = self.have_room();
        let Some(upstream) = self.upstream.as_mut().filter(|_| has_room) else { return false };
        if !self.session.watches_everything() {
            let messages_max = if self.watched_bytes > 0 { 1 } else { u64::MAX };
            if let Some(frames) = upstream.frames(messages_max) {
                if !self.session.watches(upstream.bytes_of(frames)) {
                    self.upstream_pulse.on_sign_of_life(self.now);
                    upstream.pass(frames, &mut self.client);
                    self.watched_bytes = self.watched_bytes.saturating_sub(frames.bytes);
                    self.journal.client_was_sent(frames.messages, frames.payload_bytes);
                    return true;
                }
                self.watched_bytes = self.watched_bytes.max(frames.bytes);
            }
        }
        let before = upstream.bytes_taken();
        let Some(incoming) = upstream.take_next() else { return false };
        let taken = usize::try_from(upstream.bytes_taken() - before).unwrap_or(usize::MAX);
        self.watched_bytes = self.watched_bytes.saturating_sub(taken);
        // Bytes alone are none: an exchange that stops inside a frame is lost.
        self.upstream_pulse.on_sign_of_life(self.now);
        self.on_upstream(incoming);
        true
    }

    fn on_upstream(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message(message, _) if self.session.watches(message.payload()) => {
                self.step(Event::FromUpstream(message));
            }
            Incoming::Message(message, _) => self.tell_client(&message),
            Incoming::Ping(_) | Incoming::Pong(_) => {}
            Incoming::Closed(code) => self.end = Some(End::UpstreamClosed(code)),
            Incoming::Broken(broken) => self.end = Some(upstream_end(broken)),
        }
    }

    fn tell_client(&mut self, message: &Message) {
        self.journal.client_was_sent(1, message.len());
        self.client.push(message, None);
    }

    fn on_time(&mut self) {
        let now = self.now;
        let is_client_full = self.client.outbox_bytes() >= self.house.limits.outbox_bytes_max;
        match self.client_pulse.on_time(now, is_client_full, self.client.bytes_read()) {
            Ok(true) => self.client.ping(),
            Ok(false) => {}
            Err(end) => return self.end = Some(end),
        }
        if let Some(upstream) = &mut self.upstream {
            let is_full = upstream.outbox_bytes() >= self.house.limits.outbox_bytes_max;
            // An exchange that we do not read, because the client does not, is not silent.
            let is_read = !is_client_full;
            match self.upstream_pulse.on_time(now, is_full, is_read) {
                Ok(true) => upstream.ping(),
                Ok(false) => {}
                Err(end) => return self.end = Some(end),
            }
        }
        let wall = self.house.clock.now();
        if self.session.wakes_at().is_some_and(|at| at <= wall) {
            self.step(Event::Wake);
        }
    }

    /// Sets the alarm to the first moment at which time alone makes something happen.
    fn set_alarm(&mut self) {
        let now = self.now;
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
}
