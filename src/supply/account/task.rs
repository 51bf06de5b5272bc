//! The task of one account: one order of things over its nonces, its token, and the exchange's clock.

use super::{Lease, Limits, NotOpen, Order, Settings, Unavailable};
use crate::credential::{Signer, sha256};
use crate::fresh::{Token, UnixMillis};
use crate::names::AccountName;
use crate::policy::Upkeep;
use crate::store::{KeyFingerprint, Store, StoreError, StoredToken};
use crate::supply::clock::{Clock, VenueTime};
use crate::supply::lane::{LaneStopped, NonceLane, Reservation};
use crate::supply::token::TokenLife;
use crate::upstream::{self, Door, Fate, HttpConnection, NotOpened, Upstream};
use crate::venue::{LoginOutcome, Minted, NotMinted, SignedRequest, Venue};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body_util::Full;
use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// The answer to a token request is some hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Logins that the exchange refuses in a row before the key is left alone.
const REFUSED_LOGINS_MAX: u32 = 3;
/// For how long a refused key is left alone.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);
/// How long a write of the state waits after one that failed.
const RESERVE_AGAIN: Duration = Duration::from_secs(1);

/// Which of the account's nonces is out on the wire.
enum Holder {
    Nobody,
    Login { settled: oneshot::Receiver<LoginOutcome>, until: Instant },
    Minting(BoxFuture<Fate>),
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(super) struct Task {
    name: AccountName,
    venue: &'static dyn Venue,
    signer: Arc<Signer>,
    upkeep: Upkeep,
    upstream: Arc<Upstream>,
    limits: Limits,
    writes: TaskTracker,
    store: Arc<Store>,
    clock: Clock,
    fingerprint: KeyFingerprint,
    lane: NonceLane,
    venue_time: Option<VenueTime>,
    token: TokenLife,
    leases: VecDeque<oneshot::Sender<Result<Lease, Unavailable>>>,
    buyers: Vec<oneshot::Sender<Result<Token, Unavailable>>>,
    holder: Holder,
    connecting: Option<BoxFuture<Result<HttpConnection, NotOpened>>>,
    connection: Option<HttpConnection>,
    /// The block that is being written. A writer that is lost must not keep the lane waiting for it.
    reserving: Option<(Reservation, JoinHandle<Result<(), StoreError>>)>,
    reserve_not_before: Instant,
    refused_logins: u32,
    /// Set while a key that the exchange refuses is left alone: repeats would lock it out.
    no_login_before: Option<Instant>,
    /// True while a token request is repeated that was refused for its nonce: once, since nothing was bought.
    retried: bool,
}

/// What the task waits for.
enum Happening {
    Order(Option<Order>),
    LoginSettled(Option<LoginOutcome>),
    Answered(Fate),
    Connected(Result<HttpConnection, NotOpened>),
    Written(Result<Result<(), StoreError>, tokio::task::JoinError>),
    TokenDue,
}

impl Task {
    /// A task with what the last run left of its account.
    pub(super) fn open(settings: Settings, store: Arc<Store>, clock: Clock) -> Result<Self, NotOpen> {
        let name = settings.name;
        let lost = |error| NotOpen::Store(name.clone(), error);
        let mark = store.read_mark(&name).map_err(lost)?;
        let lane = NonceLane::new(settings.nonce_unit, settings.venue.nonces().max, mark)
            .map_err(|changed| NotOpen::Unit(name.clone(), changed))?;
        let fingerprint = fingerprint(&settings.signer);
        let mut token = TokenLife::default();
        if settings.venue.minting().is_some()
            && let Some(kept) = store.read_token(&name, &fingerprint).map_err(lost)?
            && clock.now() < kept.expires_at
        {
            token.renewed(kept.secret, kept.minted_at, kept.expires_at);
        }
        Ok(Self {
            name,
            venue: settings.venue,
            signer: Arc::new(settings.signer),
            upkeep: settings.upkeep,
            upstream: settings.upstream,
            limits: settings.limits,
            writes: settings.writes,
            store,
            clock,
            fingerprint,
            lane,
            venue_time: None,
            token,
            leases: VecDeque::new(),
            buyers: Vec::new(),
            holder: Holder::Nobody,
            connecting: None,
            connection: None,
            reserving: None,
            reserve_not_before: Instant::now(),
            retried: false,
            refused_logins: 0,
            no_login_before: None,
        })
    }

    /// The account's keys.
    pub(super) fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer)
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            self.start_what_is_due();
            match self.next(&mut orders).await {
                Happening::Order(None) => return,
                Happening::Order(Some(order)) => self.take(order),
                Happening::LoginSettled(outcome) => {
                    self.holder = Holder::Nobody;
                    self.on_login(outcome);
                }
                Happening::Answered(fate) => {
                    self.holder = Holder::Nobody;
                    self.on_minted(fate);
                }
                Happening::Connected(outcome) => {
                    self.connecting = None;
                    match outcome {
                        Ok(connection) => self.connection = Some(connection),
                        Err(error) => {
                            warn!(account = %self.name, %error, "no connection for a token");
                            self.on_mint_failed(NotMinted::Unavailable);
                        }
                    }
                }
                Happening::Written(written) => self.on_written(written),
                Happening::TokenDue => {}
            }
        }
    }

    fn on_login(&mut self, outcome: Option<LoginOutcome>) {
        match outcome {
            Some(LoginOutcome::Accepted) => self.refused_logins = 0,
            Some(LoginOutcome::NonceTooSmall) => self.resync(),
            Some(LoginOutcome::Refused) => {
                self.refused_logins += 1;
                if self.refused_logins >= REFUSED_LOGINS_MAX {
                    error!(account = %self.name, pause_s = REFUSED_PAUSE.as_secs(),
                        "the exchange refused the key again and again; check that it is right and has its permissions");
                    self.no_login_before = Some(Instant::now() + REFUSED_PAUSE);
                }
            }
            // The caller is gone, or the exchange did not answer in time.
            None => {}
        }
    }

    fn start_what_is_due(&mut self) {
        let now = self.clock.now();
        if self.venue.minting().is_some() && self.is_mint_wanted(now) {
            self.start_connecting();
        }
        // First what is on disk, then what is handed out: an account whose disk was full goes on when it no longer is.
        if self.reserving.is_none() && self.reserve_not_before <= Instant::now() {
            self.reserve_ahead(now);
        }
        if matches!(self.holder, Holder::Nobody) {
            self.lease_the_next(now);
        }
    }

    /// A token is bought ahead of its need only while one is in use, or somebody waits for it.
    fn is_mint_wanted(&self, now: UnixMillis) -> bool {
        let is_idle =
            self.connecting.is_none() && self.connection.is_none() && !matches!(self.holder, Holder::Minting(_));
        let is_needed = !self.buyers.is_empty() || self.token.usable(now).is_some();
        is_idle && is_needed && self.token.is_due(now)
    }

    fn start_connecting(&mut self) {
        let request = self.upstream.connect(&self.upkeep, Door { venue: self.venue, endpoint: "rest" });
        self.connecting = Some(Box::pin(request));
    }

    /// Gives the lane to a token request that is ready to be written, else to the login that waits longest.
    fn lease_the_next(&mut self, now: UnixMillis) {
        self.leases.retain(|reply| !reply.is_closed());
        if self.connection.is_none() && self.leases.is_empty() {
            return;
        }
        let nonce = match self.lane.next_nonce() {
            Ok(Some(nonce)) => nonce,
            Ok(None) => return,
            // The write that would end this is under way.
            Err(LaneStopped::NotPersisted) if self.reserving.is_some() => return,
            Err(stopped) => return self.on_stopped(stopped, now),
        };
        if let (Some(connection), Some(minting)) = (self.connection.take(), self.venue.minting()) {
            match built(&minting.request(&self.signer, nonce)) {
                Ok(request) => {
                    let sending = send(connection, request, self.limits.answer_timeout);
                    self.holder = Holder::Minting(Box::pin(sending));
                }
                Err(error) => {
                    error!(account = %self.name, %error, "the token request cannot be written; check the key's file");
                    self.on_mint_failed(NotMinted::Credential);
                }
            }
        } else if let Some(reply) = self.leases.pop_front() {
            let (settled, outcome) = oneshot::channel();
            // A caller that is gone drops the lease with its answer, which frees the lane at once.
            let _ = reply.send(Ok(Lease { nonce, settled }));
            self.holder = Holder::Login { settled: outcome, until: Instant::now() + self.limits.hold_max };
        }
    }

    fn on_stopped(&mut self, stopped: LaneStopped, now: UnixMillis) {
        for reply in self.leases.drain(..) {
            let _ = reply.send(Err(stopped.into()));
        }
        if self.connection.take().is_some() {
            self.token.failed(NotMinted::Unavailable, now, chance());
            for reply in self.buyers.drain(..) {
                let _ = reply.send(Err(stopped.into()));
            }
        }
    }

    fn reserve_ahead(&mut self, now: UnixMillis) {
        // An account that is never used writes nothing.
        let is_used = self.connection.is_some() || !self.leases.is_empty() || !matches!(self.holder, Holder::Nobody);
        if !is_used {
            return;
        }
        let venue_now = self.venue_time.as_ref().map(|time| time.at(Instant::now()));
        let Some(reservation) = self.lane.wanted(now, venue_now) else { return };
        if let Some(doubt) = reservation.doubt() {
            warn!(account = %self.name, ?doubt, "the clock and the account's nonces disagree");
        }
        let (store, name, mark) = (Arc::clone(&self.store), self.name.clone(), reservation.mark());
        let writing = self.writes.spawn_blocking(move || store.write_mark(&name, &mark));
        self.reserving = Some((reservation, writing));
    }

    fn on_written(&mut self, written: Result<Result<(), StoreError>, tokio::task::JoinError>) {
        let Some((reservation, _)) = self.reserving.take() else { return };
        match written {
            Ok(Ok(())) => return self.lane.reserved(reservation),
            Ok(Err(error)) => error!(account = %self.name, %error, "nonces could not be reserved"),
            Err(error) => error!(account = %self.name, %error, "the writer of nonces ended"),
        }
        self.lane.failed_to_reserve(reservation);
        self.reserve_not_before = Instant::now() + RESERVE_AGAIN;
    }

    fn take(&mut self, order: Order) {
        let now = self.clock.now();
        match order {
            Order::Lease(reply) if self.no_login_before.is_some_and(|at| Instant::now() < at) => {
                let _ = reply.send(Err(NotMinted::Credential.into()));
            }
            Order::Lease(reply) => self.leases.push_back(reply),
            Order::VenueTime(told) => self.venue_time = Some(VenueTime::new(told, Instant::now())),
            Order::Token { reply, .. } if self.venue.minting().is_none() => {
                let _ = reply.send(Err(Unavailable::NoTokens));
            }
            Order::Token { refused, reply } => {
                if refused.is_some_and(|id| self.token.refused(id)) {
                    info!(account = %self.name, "token refused by the exchange");
                    self.forget_stored_token();
                }
                match self.token.usable(now) {
                    Some(token) => drop(reply.send(Ok(token.clone()))),
                    None if self.token.may_try(now) => self.buyers.push(reply),
                    None => drop(reply.send(Err(NotMinted::Unavailable.into()))),
                }
            }
        }
    }

    fn on_minted(&mut self, fate: Fate) {
        let minting = self.venue.minting().expect("only a venue that sells tokens was asked");
        let answer = match fate {
            Fate::Answered(answer) => answer,
            // Buying a token moves nothing: whether it left or not, it may be tried again.
            Fate::Unsent(_) | Fate::Unknown | Fate::AnsweredInPart(_) => {
                return self.on_mint_failed(NotMinted::Unavailable);
            }
        };
        if let Some(told) = upstream::date(answer.headers()) {
            self.venue_time = Some(VenueTime::new(told, Instant::now()));
        }
        match minting.read(answer.status().as_u16(), answer.body()) {
            Ok(minted) => self.on_bought(minted),
            Err(NotMinted::NonceTooSmall) if !self.retried => {
                self.retried = true;
                self.resync();
                self.start_connecting();
            }
            Err(why) => self.on_mint_failed(why),
        }
    }

    fn on_bought(&mut self, minted: Minted) {
        let now = self.clock.now();
        self.retried = false;
        let stored = StoredToken { secret: minted.secret.clone(), minted_at: now, expires_at: now.plus(minted.lives) };
        let token = self.token.renewed(minted.secret, now, stored.expires_at).clone();
        info!(account = %self.name, lives_s = minted.lives.as_secs(), "token bought");
        for reply in self.buyers.drain(..) {
            let _ = reply.send(Ok(token.clone()));
        }
        let (store, name, key) = (Arc::clone(&self.store), self.name.clone(), self.fingerprint);
        self.writes.spawn_blocking(move || {
            if let Err(error) = store.write_token(&name, &key, &stored) {
                warn!(account = %name, %error, "token not kept for the next start");
            }
        });
    }

    fn on_mint_failed(&mut self, why: NotMinted) {
        self.retried = false;
        let now = self.clock.now();
        if why == NotMinted::NonceTooSmall {
            self.resync();
        }
        let wait = self.token.failed(why, now, chance());
        warn!(account = %self.name, reason = %why, failures = self.token.failures(), retry_in_s = wait.as_secs(),
            "no token");
        for reply in self.buyers.drain(..) {
            let _ = reply.send(Err(why.into()));
        }
    }

    fn resync(&mut self) {
        match self.lane.resync(self.clock.now()) {
            Ok(()) => {
                warn!(account = %self.name, "the exchange saw a greater nonce; is another program using this key?");
            }
            Err(stopped) => error!(account = %self.name, error = %stopped, "nonce lane stopped"),
        }
    }

    fn forget_stored_token(&self) {
        let (store, name) = (Arc::clone(&self.store), self.name.clone());
        self.writes.spawn_blocking(move || {
            if let Err(error) = store.forget_token(&name) {
                warn!(account = %name, %error, "a refused token is still in the state folder");
            }
        });
    }

    async fn next(&mut self, orders: &mut mpsc::Receiver<Order>) -> Happening {
        let now = self.clock.now();
        let is_mint_idle = self.connecting.is_none() && self.connection.is_none();
        let due_in = (self.venue.minting().is_some() && is_mint_idle && self.token.usable(now).is_some())
            .then(|| self.token.due_at().since(now));
        let (holder, connecting, reserving) = (&mut self.holder, &mut self.connecting, &mut self.reserving);
        tokio::select! {
            biased;
            happening = held(holder) => happening,
            written = maybe(reserving.as_mut().map(|(_, writing)| writing)) => Happening::Written(written),
            connected = maybe(connecting.as_mut()) => Happening::Connected(connected),
            order = orders.recv() => Happening::Order(order),
            () = after(due_in) => Happening::TokenDue,
        }
    }
}

async fn held(holder: &mut Holder) -> Happening {
    match holder {
        Holder::Nobody => pending().await,
        Holder::Minting(answer) => Happening::Answered(answer.await),
        Holder::Login { settled, until } => {
            let outcome = tokio::time::timeout_at((*until).into(), settled).await;
            Happening::LoginSettled(outcome.ok().and_then(Result::ok))
        }
    }
}

/// Waits for what is there, and for ever where nothing is.
async fn maybe<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn after(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => pending().await,
    }
}

/// The request as hyper takes it.
fn built(request: &SignedRequest) -> Result<http::Request<Full<Bytes>>, http::Error> {
    let mut builder = http::Request::builder().method(request.method).uri(&request.path);
    for (name, value) in &request.headers {
        let mut value = HeaderValue::from_bytes(value.expose())?;
        value.set_sensitive(true);
        builder = builder.header(HeaderName::from_static(name), value);
    }
    builder.body(request.body.clone().into())
}

/// Writes one signed request, and waits for its whole answer.
async fn send(mut connection: HttpConnection, request: http::Request<Full<Bytes>>, limit: Duration) -> Fate {
    match connection.ready().await {
        Ok(()) => connection.send(request, limit, ANSWER_BYTES_MAX).await,
        Err(_) => Fate::Unsent(Box::new(request)),
    }
}

/// Says whether a stored token was bought with this key, and nothing about the key.
fn fingerprint(signer: &Signer) -> KeyFingerprint {
    let digest = sha256(&[b"countersign token of ", signer.expose_api_key().as_bytes()]);
    digest[..8].try_into().expect("a digest has 32 bytes")
}

/// A random number below 1.
fn chance() -> f64 {
    let bits = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}
