//! The lane at work: what goes next, with which nonce and over which connection, and what became of it.

use super::connections::Need;
use super::{Item, Queued, Task, refuse};
use crate::fresh::Nonce;
use crate::names::ClientName;
use crate::supply::account::queue::{Rank, Waiting};
use crate::supply::account::{Answered, Class, Lease, NotSent, Verdict};
use crate::supply::clock::VenueTime;
use crate::supply::lane::LaneStopped;
use crate::upstream::{self, Fate, HttpConnection, NotOpened, read_whole};
use crate::venue::rest::Subjects;
use crate::venue::{LoginOutcome, NotMinted};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// The answer to a token request is some hundred bytes.
pub(super) const TOKEN_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Requests and logins that the exchange refuses for their key in a row before the key is left alone.
const REFUSED_MAX: u32 = 3;
/// For how long a refused key is left alone.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);
/// How long a client waits after a nonce of its was refused: each makes the lane begin anew, for all.
const CLIENT_PAUSE: Duration = Duration::from_secs(1);
/// Connections that are opened ahead at most: one for who is next, one in case that the first dial hangs.
const AHEAD_MAX: usize = 2;

/// The whole answer to a token request, if one came.
pub(super) type MintAnswer = Option<http::Response<Bytes>>;

/// A nonce that is on its way.
pub(super) struct Flight {
    nonce: Nonce,
    /// Until then those behind it wait.
    holds_until: Instant,
    /// The orders in it and whose they are: their cancel must not arrive before them.
    orders: Option<(ClientName, Subjects)>,
    /// Its client has cancelled them since: if they have not left, they must not any more.
    is_cancelled: bool,
    /// How many later nonces left before this one's answer came.
    overtakers: usize,
}

/// A nonce that is no longer on its way.
pub(super) struct Landing {
    nonce: Nonce,
    cargo: Landed,
}

enum Landed {
    /// None: the session is gone and took the answer with it.
    Login(Option<LoginOutcome>),
    Mint(MintAnswer),
    Call(Box<Waiting<Box<Queued>>>, Fate),
}

/// What one that waits needs to go.
enum Means {
    Nothing,
    Connection(HttpConnection),
}

impl Task {
    /// Lets go whoever may.
    pub(super) fn dispatch(&mut self) {
        while !self.queue.is_empty() && self.is_open() {
            let Some(lane) = &mut self.lane else { return };
            if self.spare.is_none() {
                self.spare = match lane.next_nonce() {
                    Ok(Some(nonce)) => Some(nonce),
                    Ok(None) => return,
                    // The write that would end this is under way.
                    Err(LaneStopped::NotPersisted) if self.reserving.is_some() => return,
                    Err(stopped) => return self.on_stopped(stopped),
                };
            }
            let (connections, flights, limits) = (&mut self.connections, &self.flights, &self.limits);
            let (paused, moment) = (&self.paused, Instant::now());
            let next = self.queue.next(moment, |waiting| {
                let until = waiting.client.as_ref().and_then(|client| paused.get(client));
                if matches!(waiting.rank, Rank::Order | Rank::Read) && until.is_some_and(|until| moment < *until) {
                    return None;
                }
                if waiting.rank == Rank::Cancel && flights.iter().any(|flight| flight.is_meant_by(waiting)) {
                    return None;
                }
                match need(waiting, limits.order_connection_idle) {
                    None => Some(Means::Nothing),
                    Some(need) => connections.take(&need).map(Means::Connection),
                }
            });
            let Some((waiting, means)) = next else { return };
            let is_abandoned = waiting.item.is_abandoned();
            if is_abandoned || !waiting.item.is_permitted(self.clock.now()) {
                if let Means::Connection(connection) = means {
                    connection.keep();
                }
                if !is_abandoned {
                    refuse(waiting.item, NotSent::NoLongerPermitted);
                }
                continue;
            }
            self.send(waiting, means);
            // Half of a block may be used up by one round.
            if self.reserving.is_none() {
                self.reserve_ahead(self.clock.now());
            }
        }
    }

    /// Gives the spare nonce to one that waited.
    fn send(&mut self, waiting: Waiting<Item>, means: Means) {
        let nonce = self.spare.take().expect("`dispatch` has just seen to it");
        let orders = match (&waiting.client, waiting.is_order) {
            (Some(client), true) => Some((client.clone(), waiting.subjects.clone())),
            _ => None,
        };
        self.depart(nonce, orders);
        let (item, place) = waiting.split();
        match (item, means) {
            (Item::Login(reply), _) => {
                let (settled, outcome) = oneshot::channel();
                // A caller that is gone drops the lease with its answer, which frees the lane at once.
                let _ = reply.send(Ok(Lease { nonce, settled }));
                self.landings
                    .push(Box::pin(async move { Landing { nonce, cargo: Landed::Login(outcome.await.ok()) } }));
            }
            (Item::Mint(_), Means::Connection(connection)) => self.send_mint(nonce, connection),
            (Item::Call(mut queued), Means::Connection(connection)) => {
                let signed = (queued.sign)(&self.signer, nonce);
                queued.shown = self.venue.rest().map_or_else(Vec::new, |rest| signed.secrets(rest.plain_headers()));
                let request = match signed.to_http() {
                    Ok(request) => request,
                    Err(_unwritable) => {
                        self.did_not_leave(nonce);
                        connection.keep();
                        return refuse(Item::Call(queued), NotSent::Unwritable);
                    }
                };
                let limits = self.limits.answer;
                self.landings.push(Box::pin(async move {
                    let fate = connection.send(request.map(Full::new), &limits).await;
                    Landing { nonce, cargo: Landed::Call(Box::new(place.holding(queued)), fate) }
                }));
            }
            (Item::Mint(_) | Item::Call(_), Means::Nothing) => unreachable!("both have needs"),
        }
    }

    /// Notes that a nonce is on its way, before all that are.
    fn depart(&mut self, nonce: Nonce, orders: Option<(ClientName, Subjects)>) {
        self.last_nonce = Some(nonce);
        for flight in &mut self.flights {
            flight.overtakers += 1;
        }
        let holds_until = Instant::now() + self.limits.hold_max;
        self.flights.push(Flight { nonce, holds_until, orders, is_cancelled: false, overtakers: 0 });
    }

    /// Takes that back, because nothing with the nonce was written: it has overtaken nothing. What was refused for its
    /// nonce meanwhile was refused for another reason.
    fn did_not_leave(&mut self, nonce: Nonce) {
        self.flights.retain(|flight| flight.nonce != nonce);
        for flight in self.flights.iter_mut().filter(|flight| flight.nonce < nonce) {
            flight.overtakers = flight.overtakers.saturating_sub(1);
        }
    }

    fn send_mint(&mut self, nonce: Nonce, connection: HttpConnection) {
        let minting = self.venue.minting().expect("only a venue that sells tokens has a token request");
        let limits = self.limits.answer;
        match minting.request(&self.signer, Some(nonce)).to_http() {
            Ok(request) => self.landings.push(Box::pin(async move {
                let answer = match connection.send(request.map(Full::new), &limits).await {
                    Fate::Answered(answer) => read_whole(*answer, TOKEN_ANSWER_BYTES_MAX).await.ok(),
                    Fate::Unsent(_) | Fate::Unknown(_) => None,
                };
                Landing { nonce, cargo: Landed::Mint(answer) }
            })),
            Err(error) => {
                self.did_not_leave(nonce);
                connection.keep();
                self.on_unwritable(&error);
            }
        }
    }

    pub(super) fn on_landed(&mut self, landing: Landing) {
        let Landing { nonce, cargo } = landing;
        let at = self.flights.iter().position(|flight| flight.nonce == nonce).expect("it departed as a flight");
        let flight = self.flights.swap_remove(at);
        let is_overtaken = flight.overtakers > 0;
        match cargo {
            Landed::Login(Some(outcome)) => self.on_outcome(outcome, nonce, is_overtaken, None),
            Landed::Login(None) => {}
            Landed::Mint(answer) => self.on_minted(answer, is_overtaken),
            Landed::Call(waiting, fate) => self.on_call(*waiting, fate, &flight),
        }
    }

    fn on_call(&mut self, waiting: Waiting<Box<Queued>>, fate: Fate, flight: &Flight) {
        let (mut queued, place) = waiting.split();
        match fate {
            Fate::Answered(response) => {
                if let Some(told) = upstream::date(response.headers()) {
                    self.venue_time = Some(VenueTime::new(told, Instant::now()));
                }
                if matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                    self.stay_away();
                }
                let was_refused_before = self.refused_in_a_row > 0;
                let account = self.mailbox.clone();
                let (nonce, is_overtaken) = (flight.nonce, flight.overtakers > 0);
                let client = queued.permit.client().clone();
                let verdict = Verdict { nonce, client, is_overtaken, was_refused_before, account };
                // A caller that is gone leaves the body unread, which closes the connection.
                let Queued { reply, shown, .. } = *queued;
                let _ = reply.send(Ok(Answered { response: *response, shown, verdict }));
            }
            Fate::Unknown(why) => {
                warn!(account = %self.name, class = ?queued.class, reason = %why, "a request may have been sent");
                let _ = queued.reply.send(Err(why.into()));
            }
            Fate::Unsent(_) => {
                self.did_not_leave(flight.nonce);
                if flight.is_cancelled {
                    return refuse(Item::Call(queued), NotSent::Withdrawn);
                }
                if queued.is_again {
                    return refuse(Item::Call(queued), NotSent::ConnectionLost);
                }
                queued.is_again = true;
                self.queue.put_back(place.holding(Item::Call(queued)));
            }
        }
    }

    /// The exchange asked us to stay away: what waits is told so, but for cancels.
    fn stay_away(&mut self) {
        let is_away = |waiting: &Waiting<Item>| match &waiting.item {
            Item::Call(queued) => queued.class != Class::Cancel && queued.approach.check().is_err(),
            Item::Login(_) | Item::Mint(_) => false,
        };
        for item in self.queue.take_out(is_away) {
            if let Item::Call(queued) = &item
                && let Err(away) = queued.approach.check()
            {
                refuse(item, NotSent::NotReached(away));
            }
        }
    }

    /// Takes what an answer said of the key and of the nonce in its request, which this client wrote; `None`: the house.
    pub(super) fn on_outcome(
        &mut self,
        outcome: LoginOutcome,
        nonce: Nonce,
        is_overtaken: bool,
        client: Option<ClientName>,
    ) {
        match outcome {
            LoginOutcome::Accepted => self.refused_in_a_row = 0,
            LoginOutcome::Undecided => {}
            LoginOutcome::NonceTooSmall if is_overtaken => {
                info!(account = %self.name, "a request was overtaken, and refused for its nonce");
            }
            // Sent before the lane began anew: the same cause, told again.
            LoginOutcome::NonceTooSmall if self.resynced_above >= Some(nonce) => {}
            LoginOutcome::NonceTooSmall => self.begin_anew(client),
            LoginOutcome::Refused => {
                self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
                if self.refused_in_a_row >= REFUSED_MAX {
                    self.leave_alone();
                }
            }
        }
    }

    fn leave_alone(&mut self) {
        error!(account = %self.name, pause_s = REFUSED_PAUSE.as_secs(),
            "the exchange refused the key again and again; check that it is right and has its permissions");
        self.left_alone_until = Some(Instant::now() + REFUSED_PAUSE);
        let is_stopped = |waiting: &Waiting<Item>| match &waiting.item {
            Item::Call(queued) => queued.class != Class::Cancel,
            Item::Login(_) => true,
            Item::Mint(_) => false,
        };
        for item in self.queue.take_out(is_stopped) {
            match item {
                Item::Login(reply) => drop(reply.send(Err(NotMinted::Credential.into()))),
                Item::Call(_) | Item::Mint(_) => refuse(item, NotSent::LeftAlone),
            }
        }
    }

    pub(super) fn is_left_alone(&self) -> bool {
        self.left_alone_until.is_some_and(|until| Instant::now() < until)
    }

    /// The nonce of a request of the house's own was refused.
    pub(super) fn resync(&mut self) {
        self.begin_anew(None);
    }

    fn begin_anew(&mut self, client: Option<ClientName>) {
        self.spare = None;
        self.resynced_above = self.last_nonce;
        let Some(lane) = &mut self.lane else { return };
        match lane.resync(self.clock.now(), client.as_ref()) {
            Ok(()) => {
                let client_name = client.as_ref().map(ClientName::as_str);
                warn!(account = %self.name, client = client_name,
                    "the exchange saw a greater nonce; is another program using this key?");
            }
            Err(stopped) => error!(account = %self.name, error = %stopped, "nonce lane stopped"),
        }
        if let Some(client) = client {
            let now = Instant::now();
            self.paused.retain(|_, until| *until > now);
            self.paused.insert(client, now + CLIENT_PAUSE);
        }
    }

    /// When the first client that pauses may go on.
    pub(super) fn pause_ends_at(&self) -> Option<Instant> {
        let now = Instant::now();
        self.paused.values().copied().filter(|until| *until > now).min()
    }

    /// No nonce is to be had: everybody is told.
    fn on_stopped(&mut self, stopped: LaneStopped) {
        for item in self.queue.take_out(|_| true) {
            match item {
                Item::Login(reply) => drop(reply.send(Err(stopped.into()))),
                Item::Mint(_) => self.on_mint_stopped(stopped),
                Item::Call(_) => refuse(item, NotSent::Lane(stopped)),
            }
        }
    }

    /// There is no connection to an endpoint: those who wait for one are told.
    pub(super) fn on_not_reached(&mut self, endpoint: &'static str, error: NotOpened) {
        if !self.flights.is_empty() {
            // Their connections may still come back.
            return;
        }
        warn!(account = %self.name, endpoint, %error, "no connection");
        let idle_max = self.limits.order_connection_idle;
        let waits = |waiting: &Waiting<Item>| need(waiting, idle_max).is_some_and(|need| need.endpoint == endpoint);
        for item in self.queue.take_out(waits) {
            match item {
                Item::Mint(_) => self.on_mint_failed(NotMinted::Unavailable),
                Item::Call(_) | Item::Login(_) => refuse(item, NotSent::NotReached(error)),
            }
        }
    }

    /// Tells those whose time is over.
    pub(super) fn refuse_overdue(&mut self) {
        for item in self.queue.overdue(Instant::now()) {
            refuse(item, NotSent::WaitedTooLong);
        }
    }

    /// Gets connections for those who go next, while others are still on their way.
    pub(super) fn connect_ahead(&mut self) {
        if self.queue.is_empty() {
            return self.connections.release();
        }
        let idle_max = self.limits.order_connection_idle;
        let needs = self.queue.firsts().filter_map(|waiting| need(waiting, idle_max));
        self.connections.provide(needs.take(self.in_flight_max.max(AHEAD_MAX)));
    }

    /// True if another request may go.
    fn is_open(&self) -> bool {
        let now = Instant::now();
        self.flights.iter().filter(|flight| now < flight.holds_until).count() < self.in_flight_max
    }

    /// When the lane opens by itself, if it is not open.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        let now = Instant::now();
        self.flights.iter().map(|flight| flight.holds_until).filter(|until| now < *until).min()
    }
}

impl Flight {
    /// Takes note of a cancel: orders in here that it means must not be sent once more.
    pub(super) fn cancel(&mut self, client: &ClientName, cancelled: &Subjects) {
        self.is_cancelled |=
            self.orders.as_ref().is_some_and(|(owner, orders)| owner == client && cancelled.meet(orders));
    }

    /// True if a cancel that waits could mean an order in here, and the order may not have arrived.
    fn is_meant_by(&self, cancel: &Waiting<Item>) -> bool {
        self.orders.as_ref().is_some_and(|(client, orders)| {
            cancel.client.as_ref() == Some(client) && cancel.subjects.meet(orders) && Instant::now() < self.holds_until
        })
    }
}

/// What one that waits needs of a connection. None: it brings its own.
fn need(waiting: &Waiting<Item>, order_idle_max: Duration) -> Option<Need<'_>> {
    match &waiting.item {
        Item::Login(_) => None,
        Item::Mint(approach) => {
            Some(Need { endpoint: super::token::COUNTER, approach, idle_max: Duration::MAX, is_new: false })
        }
        Item::Call(queued) => {
            let idle_max = match queued.class {
                Class::Cancel | Class::Order | Class::Other => order_idle_max,
                Class::Read => Duration::MAX,
            };
            let (endpoint, approach) = (queued.endpoint, &queued.approach);
            Some(Need { endpoint, approach, idle_max, is_new: queued.is_again })
        }
    }
}

#[cfg(test)]
mod tests;
