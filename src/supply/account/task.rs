//! The task of one account: one order of things over its nonces, its token, and the exchange's clock.
//!
//! Here is what it holds and what it waits for. `dispatch` lets requests go and takes what became of them, `token` buys
//! the token, `connections` has the ways to send.

mod connections;
mod dispatch;
mod status;
mod token;

use super::queue::{Full, Queue, Rank, Sizes, Waiting};
use super::{
    Answered, Class, Lease, Limits, NotAnswered, NotOpen, NotSent, Order, Settings, Sign, StillGranted, Unavailable,
};
use crate::credential::{Signer, sha256};
use crate::fresh::{Nonce, UnixMillis};
use crate::names::{AccountName, ClientName};
use crate::policy::{Permit, Upkeep};
use crate::secret::Secret;
use crate::store::{KeyFingerprint, Store, StoreError};
use crate::supply::clock::{Clock, Onward, VenueTime};
use crate::supply::lane::{LaneStopped, NonceLane, Reservation};
use crate::supply::token::{TokenLife, TokenState};
use crate::upstream::{Approach, Upstream};
use crate::venue::rest::Subjects;
use crate::venue::{NotMinted, Venue};
use connections::{Arrival, Connections};
use dispatch::{Flight, Landing, MintAnswer};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::HashMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use token::Buyer;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// How long a write of the state waits after one that failed.
const RESERVE_AGAIN: Duration = Duration::from_secs(1);
/// Orders that are taken out of the mailbox at once, so that a cancel is seen before the orders that it takes back go.
const ORDERS_AT_ONCE: usize = 64;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A call that waits.
pub(super) struct Queued {
    pub(super) permit: Permit,
    pub(super) endpoint: &'static str,
    pub(super) class: Class,
    pub(super) approach: Approach,
    pub(super) sign: Sign,
    /// What it showed the exchange, once it was signed.
    pub(super) shown: Vec<Secret>,
    pub(super) still_granted: StillGranted,
    pub(super) reply: oneshot::Sender<Result<Answered, NotAnswered>>,
    /// Its first connection had closed before it was written.
    pub(super) is_again: bool,
}

/// What waits for a nonce.
enum Item {
    Login(oneshot::Sender<Result<Lease, Unavailable>>),
    /// The account's token request.
    Mint(Approach),
    Call(Box<Queued>),
}

pub(super) struct Task {
    name: AccountName,
    venue: &'static dyn Venue,
    signer: Arc<Signer>,
    upkeep: Upkeep,
    upstream: Arc<Upstream>,
    limits: Limits,
    in_flight_max: usize,
    writes: TaskTracker,
    store: Arc<Store>,
    clock: Clock,
    fingerprint: KeyFingerprint,
    mailbox: mpsc::WeakSender<Order>,

    /// None: the venue has no nonces, and nothing waits in the queue.
    lane: Option<NonceLane>,
    /// Taken from the lane, and not used so far: nothing was ready to carry it.
    spare: Option<Nonce>,
    /// The greatest nonce that was out when the lane last began anew. Refusals of those before it tell nothing new.
    resynced_above: Option<Nonce>,
    last_nonce: Option<Nonce>,
    venue_time: Option<VenueTime>,
    /// The block that is being written. A writer that is lost must not keep the lane waiting for it.
    reserving: Option<(Reservation, JoinHandle<Result<(), StoreError>>)>,
    reserve_not_before: Instant,

    queue: Queue<Item>,
    flights: Vec<Flight>,
    landings: FuturesUnordered<BoxFuture<Landing>>,
    connections: Connections,
    /// Clients whose orders and reads wait because a nonce of theirs was refused, and until when.
    paused: HashMap<ClientName, Instant>,
    refused_in_a_row: u32,
    /// Set while a key that the exchange refuses is left alone: repeats would lock it out.
    left_alone_until: Option<Instant>,

    token: TokenLife,
    live_tokens: watch::Sender<Vec<Secret>>,
    /// The time by which the token lives.
    onward: Onward,
    token_state: watch::Sender<TokenState>,
    buyers: Vec<Buyer>,
    /// A token request without a nonce that is on its way.
    purchase: Option<BoxFuture<MintAnswer>>,
    /// True while a token request is repeated that was refused for its nonce: once, since nothing was bought.
    retried: bool,
}

/// What the task waits for.
enum Happening {
    Order(Option<Order>),
    Landed(Landing),
    Bought(MintAnswer),
    Arrived(Arrival),
    Written(Result<Result<(), StoreError>, tokio::task::JoinError>),
    /// A connection came back, or a moment came.
    Due,
}

impl Task {
    /// A task with what the last run left of its account.
    pub(super) fn open(
        settings: Settings,
        store: Arc<Store>,
        clock: Clock,
        mailbox: mpsc::WeakSender<Order>,
    ) -> Result<Self, NotOpen> {
        let name = settings.name;
        let lost = |error| NotOpen::Store(name.clone(), error);
        let mark = store.read_mark(&name).map_err(lost)?;
        let lane = match settings.venue.nonces() {
            Some(rules) => {
                let lane = NonceLane::new(settings.nonce_unit.unwrap_or(rules.unit), rules.max, mark);
                Some(lane.map_err(|changed| NotOpen::Unit(name.clone(), changed))?)
            }
            None => None,
        };
        let fingerprint = fingerprint(&settings.signer);
        let limits = settings.limits;
        let mut token = TokenLife::new(limits.token_refresh);
        let mut onward = Onward::default();
        let now = onward.now(&clock);
        if settings.venue.minting().is_some()
            && let Some(kept) = store.read_token(&name, &fingerprint).map_err(lost)?
            && !token.kept(kept.secret, kept.minted_at, kept.expires_at, now)
        {
            info!(account = %name, "the token of the last run is over, or the clock was put back: a new one is bought");
        }
        let live_tokens = watch::Sender::new(token.live().cloned().collect());
        let token_state = watch::Sender::new(token.state(now));
        let sizes = Sizes { all_max: limits.calls_waiting_max, each_client_max: limits.calls_waiting_per_client_max };
        Ok(Self {
            name,
            venue: settings.venue,
            signer: Arc::new(settings.signer),
            upkeep: settings.upkeep,
            upstream: settings.upstream,
            limits,
            in_flight_max: settings.ordering.in_flight_max(),
            writes: settings.writes,
            store,
            clock,
            fingerprint,
            mailbox,
            lane,
            spare: None,
            resynced_above: None,
            last_nonce: None,
            venue_time: None,
            reserving: None,
            reserve_not_before: Instant::now(),
            queue: Queue::new(sizes),
            flights: Vec::new(),
            landings: FuturesUnordered::new(),
            connections: Connections::default(),
            paused: HashMap::new(),
            refused_in_a_row: 0,
            left_alone_until: None,
            token,
            live_tokens,
            onward,
            token_state,
            buyers: Vec::new(),
            purchase: None,
            retried: false,
        })
    }

    /// The account's keys.
    pub(super) fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer)
    }

    /// The tokens that are still good, as they come and go.
    pub(super) fn live_tokens(&self) -> watch::Receiver<Vec<Secret>> {
        self.live_tokens.subscribe()
    }

    /// What its token is doing, as it changes.
    pub(super) fn token_state(&self) -> watch::Receiver<TokenState> {
        self.token_state.subscribe()
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            self.start_what_is_due();
            match self.next(&mut orders).await {
                Happening::Order(None) => return,
                Happening::Order(Some(order)) => {
                    self.take(order);
                    for _ in 1..ORDERS_AT_ONCE {
                        let Ok(order) = orders.try_recv() else { break };
                        self.take(order);
                    }
                }
                Happening::Landed(landing) => self.on_landed(landing),
                Happening::Bought(answer) => {
                    self.purchase = None;
                    self.on_minted(answer, false);
                }
                Happening::Arrived(arrival) => {
                    if let Err((endpoint, error)) = self.connections.arrived(arrival) {
                        self.on_not_reached(endpoint, error);
                    }
                }
                Happening::Written(written) => self.on_written(written),
                Happening::Due => {}
            }
        }
    }

    fn start_what_is_due(&mut self) {
        let now = self.clock.now();
        if self.is_mint_wanted() {
            self.want_token();
        }
        // First what is on disk, then what is handed out: an account whose disk was full goes on when it no longer is.
        if self.reserving.is_none() && self.reserve_not_before <= Instant::now() {
            self.reserve_ahead(now);
        }
        self.refuse_overdue();
        self.dispatch();
        self.connect_ahead();
        self.tell_of_token();
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Call(queued, _) if self.lane.is_none() => {
                refuse(Item::Call(queued), NotSent::Lane(LaneStopped::NoNonces));
            }
            Order::Call(queued, subjects) => self.take_call(queued, subjects),
            Order::Verdict { nonce, client, is_overtaken, outcome } => {
                self.on_outcome(outcome, nonce, is_overtaken, Some(client));
            }
            Order::Lease(_, reply) if self.lane.is_none() => {
                let _ = reply.send(Err(LaneStopped::NoNonces.into()));
            }
            Order::Lease(_, reply) if self.is_left_alone() => {
                let _ = reply.send(Err(NotMinted::Credential.into()));
            }
            Order::Lease(client, reply) => self.take_login(client, reply),
            Order::Withdraw(client, cancelled) => self.withdraw(&client, &cancelled),
            Order::VenueTime(told) => self.venue_time = Some(VenueTime::new(told, Instant::now())),
            Order::Token { refused, reply } => self.take_buyer(refused, reply),
            Order::TokenTaken(taken) => self.token.taken(taken),
            Order::RenewToken(reply) => self.take_renewal(reply),
            // A caller that is gone has nothing to hear.
            Order::Status(reply) => drop(reply.send(Ok(self.status()))),
            Order::ResetBreaker(reply) => drop(reply.send(self.reset_breaker())),
            Order::Unfreeze(reply) => drop(reply.send(self.unfreeze())),
        }
    }

    fn take_call(&mut self, queued: Box<Queued>, subjects: Subjects) {
        let client = queued.permit.client().clone();
        if queued.class == Class::Cancel {
            self.withdraw(&client, &subjects);
        }
        // A cancel goes always: one more request costs little, an order that cannot be taken back may cost much.
        if queued.class != Class::Cancel && self.is_left_alone() {
            return refuse(Item::Call(queued), NotSent::LeftAlone);
        }
        if queued.class != Class::Cancel
            && let Err(away) = queued.approach.check()
        {
            return refuse(Item::Call(queued), NotSent::NotReached(away));
        }
        let since = Instant::now();
        let (rank, wait) = match queued.class {
            Class::Cancel => (Rank::Cancel, self.limits.call_wait),
            Class::Order | Class::Other => (Rank::Order, self.limits.order_wait),
            Class::Read => (Rank::Read, self.limits.call_wait),
        };
        let is_order = queued.class == Class::Order;
        let (client, deadline, item) = (Some(client), Some(since + wait), Item::Call(queued));
        self.let_wait(Waiting { rank, client, subjects, is_order, since, deadline, item });
    }

    /// Its caller keeps the time.
    fn take_login(&mut self, client: ClientName, reply: oneshot::Sender<Result<Lease, Unavailable>>) {
        let (rank, client, subjects) = (Rank::Login, Some(client), Subjects::None);
        let (since, deadline, item) = (Instant::now(), None, Item::Login(reply));
        self.let_wait(Waiting { rank, client, subjects, is_order: false, since, deadline, item });
    }

    fn let_wait(&mut self, waiting: Waiting<Item>) {
        if waiting.client.as_ref().is_some_and(|client| self.queue.is_full_for(waiting.rank, client)) {
            // Callers that are gone hold no places.
            self.queue.take_out(|waiting| waiting.item.is_abandoned());
        }
        if let Err(Full(item)) = self.queue.push(waiting) {
            refuse(item, NotSent::Busy);
        }
    }

    /// Sees to it that no order goes any more that its own client has cancelled.
    fn withdraw(&mut self, client: &ClientName, cancelled: &Subjects) {
        for withdrawn in self.queue.withdraw(client, cancelled) {
            refuse(withdrawn, NotSent::Withdrawn);
        }
        for flight in &mut self.flights {
            flight.cancel(client, cancelled);
        }
    }

    fn reserve_ahead(&mut self, now: UnixMillis) {
        // An account that is never used writes nothing.
        if self.queue.is_empty() && self.flights.is_empty() {
            return;
        }
        let venue_now = self.venue_time.as_ref().map(|time| time.at(Instant::now()));
        let Some(reservation) = self.lane.as_mut().and_then(|lane| lane.wanted(now, venue_now)) else { return };
        if let Some(doubt) = reservation.doubt() {
            warn!(account = %self.name, ?doubt, "the clock and the account's nonces disagree");
        }
        let (store, name, mark) = (Arc::clone(&self.store), self.name.clone(), reservation.mark());
        let writing = self.writes.spawn_blocking(move || store.write_mark(&name, &mark));
        self.reserving = Some((reservation, writing));
    }

    fn on_written(&mut self, written: Result<Result<(), StoreError>, tokio::task::JoinError>) {
        let (Some((reservation, _)), Some(lane)) = (self.reserving.take(), &mut self.lane) else { return };
        match written {
            Ok(Ok(())) => return lane.reserved(reservation),
            Ok(Err(error)) => error!(account = %self.name, %error, "nonces could not be reserved"),
            Err(error) => error!(account = %self.name, %error, "the writer of nonces ended"),
        }
        lane.failed_to_reserve(reservation);
        self.reserve_not_before = Instant::now() + RESERVE_AGAIN;
    }

    async fn next(&mut self, orders: &mut mpsc::Receiver<Order>) -> Happening {
        let due_at = self.due_at();
        let (landings, purchase) = (&mut self.landings, &mut self.purchase);
        let (connections, reserving) = (&mut self.connections, &mut self.reserving);
        tokio::select! {
            biased;
            Some(landing) = landings.next() => Happening::Landed(landing),
            answer = maybe(purchase.as_mut()) => Happening::Bought(answer),
            written = maybe(reserving.as_mut().map(|(_, writing)| writing)) => Happening::Written(written),
            arrival = connections.next() => arrival.map_or(Happening::Due, Happening::Arrived),
            order = orders.recv() => Happening::Order(order),
            () = until(due_at) => Happening::Due,
        }
    }

    /// The next moment at which something has to be done that nothing else tells.
    fn due_at(&mut self) -> Option<Instant> {
        let token = self.token_changes_at();
        if self.queue.is_empty() {
            return token;
        }
        let lane = self.opens_at();
        let (connections, clients) = (self.connections.dials_again_at(), self.pause_ends_at());
        [token, lane, self.queue.next_deadline(), connections, clients].into_iter().flatten().min()
    }
}

impl Item {
    /// True if it may still be sent: time has passed since its client was permitted.
    fn is_permitted(&self, now: UnixMillis) -> bool {
        match self {
            Self::Call(queued) => {
                let has_ended = queued.permit.ends_at().is_some_and(|ends_at| ends_at <= now);
                !has_ended && (queued.still_granted)(&queued.permit)
            }
            // Of those a session has the permit, and ends with it.
            Self::Login(_) | Self::Mint(_) => true,
        }
    }

    /// True if nobody waits for it any more.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Login(reply) => reply.is_closed(),
            Self::Mint(_) => false,
            Self::Call(queued) => queued.reply.is_closed(),
        }
    }
}

/// Tells a caller why its call or login did not go. A caller that is gone has nothing to hear.
fn refuse(item: Item, why: NotSent) {
    match item {
        Item::Call(queued) => drop(queued.reply.send(Err(why.into()))),
        // Too many wait: nothing else is refused of a login here.
        Item::Login(reply) => drop(reply.send(Err(Unavailable::Busy))),
        Item::Mint(_) => {}
    }
}

/// Waits for what is there, and for ever where nothing is.
async fn maybe<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => pending().await,
    }
}

/// Says whether a stored token was bought with this key, and nothing about the key.
fn fingerprint(signer: &Signer) -> KeyFingerprint {
    let digest = sha256(&[b"countersign token of ", signer.expose_api_key().as_bytes()]);
    digest[..8].try_into().expect("a digest has 32 bytes")
}
