//! One task per account owns what its users share: the nonce lane, the token, the exchange's clock.
//!
//! Callers send it an order and wait for the answer with a limit of their own. No locks, one order of things, and
//! a token refresh that does not die with whoever asked first. Everything that carries one of the account's nonces
//! goes through here: clients' REST calls ([`Account::call`]), socket logins ([`Account::lease`]) and the account's own
//! token requests.

mod call;
mod queue;
mod status;
mod task;
#[cfg(test)]
mod tests;

use super::clock::Clock;
use super::lane::{LaneStopped, UnitChanged};
use super::token::{RefusedToken, TokenState};
use crate::credential::Signer;
use crate::fresh::{LifePart, Nonce, NonceUnit, Token, TokenId, UnixMillis};
use crate::names::{AccountName, ClientName};
use crate::policy::Upkeep;
use crate::secret::Secret;
use crate::store::{Store, StoreError};
use crate::upstream::{AnswerLimits, Door, Silence, Upstream};
use crate::venue::rest::Subjects;
use crate::venue::{LoginOutcome, NotMinted, Venue};
use std::sync::Arc;
use std::time::Duration;
use task::Task;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

pub use call::{Answered, Call, Class, NotAnswered, NotSent, Sign, StillGranted, Verdict};
pub use status::{AccountStatus, LaneStatus, QueueStatus};

/// Orders that wait for the account's task at most. A caller that finds the mailbox full is told so at once.
const MAILBOX: usize = 1024;

/// The times and sizes that an account keeps.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a request or login holds the lane at most. Whatever is overtaken after that is the exchange's to
    /// refuse.
    pub hold_max: Duration,
    /// How long and how large an answer of the exchange may be.
    pub answer: AnswerLimits,
    /// How long an order may wait for its turn: the price that it was made for is gone by then.
    pub order_wait: Duration,
    /// How long any other call may wait for its turn.
    pub call_wait: Duration,
    /// Calls that may wait at a time.
    pub calls_waiting_max: usize,
    /// Calls of one client that may wait at a time.
    pub calls_waiting_per_client_max: usize,
    /// How long a connection may have been idle to carry an order or cancel: an exchange may be about to close it.
    pub order_connection_idle: Duration,
    /// How much of a token's life is over when the next one is bought.
    pub token_refresh: LifePart,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hold_max: Duration::from_millis(500),
            answer: AnswerLimits::default(),
            order_wait: Duration::from_secs(2),
            call_wait: Duration::from_secs(8),
            calls_waiting_max: 1024,
            calls_waiting_per_client_max: 256,
            order_connection_idle: Duration::from_secs(10),
            token_refresh: LifePart::default(),
        }
    }
}

/// How requests of one key follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ordering {
    /// Each after the answer to the one before, or after [`Limits::hold_max`].
    #[default]
    Strict,
    /// So many at a time, which may arrive in another order. Only for a key with a nonce window at the exchange.
    Window(usize),
}

impl Ordering {
    /// How many may be under way at a time.
    pub fn in_flight_max(self) -> usize {
        match self {
            Self::Strict => 1,
            Self::Window(requests) => requests.max(1),
        }
    }
}

/// What an account is made of.
pub struct Settings {
    /// Its name.
    pub name: AccountName,
    /// Its venue.
    pub venue: &'static dyn Venue,
    /// Its keys.
    pub signer: Signer,
    /// What its nonces count; fixed once there is state. `None`: what its venue prefers.
    pub nonce_unit: Option<NonceUnit>,
    /// How its requests follow each other.
    pub ordering: Ordering,
    /// Evidence that the house may act for it.
    pub upkeep: Upkeep,
    /// The way to its exchange.
    pub upstream: Arc<Upstream>,
    /// Its times and sizes.
    pub limits: Limits,
    /// Counts the writes to the state folder, so that a house that closes can wait for the last one.
    pub writes: TaskTracker,
}

/// Why an account cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum NotOpen {
    /// The state that the last run left cannot be used.
    #[error("account {0}: {1}")]
    Store(AccountName, StoreError),
    /// The nonces were counted in another unit before.
    #[error("account {0}: {1}")]
    Unit(AccountName, UnitChanged),
}

/// Why an account gave no nonce or no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The lane has stopped.
    #[error(transparent)]
    Lane(#[from] LaneStopped),
    /// No token was sold.
    #[error(transparent)]
    Token(#[from] NotMinted),
    /// The account did not answer in time, or has too many waiting.
    #[error("the account is busy")]
    Busy,
    /// The account's task has ended.
    #[error("the account is closed")]
    Closed,
    /// The venue sells no tokens.
    #[error("the venue has no tokens")]
    NoTokens,
}

/// How sessions reach an account.
#[derive(Clone)]
pub struct Account {
    name: AccountName,
    venue: &'static dyn Venue,
    upstream: Arc<Upstream>,
    signer: Arc<Signer>,
    live_tokens: watch::Receiver<Vec<Secret>>,
    token_state: watch::Receiver<TokenState>,
    mailbox: mpsc::Sender<Order>,
}

/// The next nonce of an account. Nobody else gets one until this is settled, dropped, or held for too long.
#[derive(Debug)]
pub struct Lease {
    /// The number.
    pub nonce: Nonce,
    settled: oneshot::Sender<LoginOutcome>,
}

impl Lease {
    /// Says that the exchange answered.
    pub fn settle(self, outcome: LoginOutcome) {
        // The lane has gone on without us if we took too long: nothing is lost.
        let _ = self.settled.send(outcome);
    }
}

type Reply<T> = oneshot::Sender<Result<T, Unavailable>>;

enum Order {
    Call(Box<task::Queued>, Subjects),
    Verdict { nonce: Nonce, client: ClientName, is_overtaken: bool, outcome: LoginOutcome },
    Lease(ClientName, Reply<Lease>),
    Token { refused: Option<RefusedToken>, reply: Reply<Token> },
    TokenTaken(TokenId),
    VenueTime(UnixMillis),
    Status(Reply<AccountStatus>),
    RenewToken(Reply<Token>),
    ResetBreaker(Reply<()>),
    Unfreeze(Reply<()>),
    Withdraw(ClientName, Subjects),
}

impl Account {
    /// Opens an account: reads its state (blocking), and starts its task, which ends when the last handle is gone.
    pub fn open(settings: Settings, store: Arc<Store>, clock: Clock) -> Result<(Self, JoinHandle<()>), NotOpen> {
        let (name, venue, upstream) = (settings.name.clone(), settings.venue, Arc::clone(&settings.upstream));
        let (mailbox, orders) = mpsc::channel(MAILBOX);
        let task = Task::open(settings, store, clock, mailbox.downgrade())?;
        let (signer, live_tokens, token_state) = (task.signer(), task.live_tokens(), task.token_state());
        let running = tokio::spawn(task.run(orders));
        Ok((Self { name, venue, upstream, signer, live_tokens, token_state, mailbox }, running))
    }

    /// Its name.
    pub fn name(&self) -> &AccountName {
        &self.name
    }

    /// Its keys, for what a session signs.
    pub fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer)
    }

    /// Its venue.
    pub fn venue(&self) -> &'static dyn Venue {
        self.venue
    }

    /// What the exchange knows of it, whatever it is asked, and must not tell a client: the API key, and the tokens that
    /// are still good.
    pub fn secrets(&self) -> impl Iterator<Item = Secret> {
        let api_key = Secret::from(self.signer.expose_api_key().to_owned());
        std::iter::once(api_key).chain(self.live_tokens.borrow().clone())
    }

    /// Sends a client's call when its turn comes, and waits for the head of the answer.
    ///
    /// The waits are bounded by [`Limits`]. Dropped while the call waits, the call is not sent; dropped later, its
    /// answer goes to nobody. Whatever happens, it is sent once at most.
    pub async fn call(&self, call: Call) -> Result<Answered, NotAnswered> {
        if call.permit.account() != Some(&self.name) {
            return Err(NotSent::NotPermitted.into());
        }
        let door = Door { venue: self.venue, endpoint: call.endpoint };
        let approach = self.upstream.approach_for(&call.permit, door).map_err(NotSent::NotReached)?;
        let (reply, answer) = oneshot::channel();
        let Call { permit, endpoint, class, subjects, sign, still_granted } = call;
        let queued = task::Queued {
            permit,
            endpoint,
            class,
            approach,
            sign,
            shown: Vec::new(),
            still_granted,
            reply,
            is_again: false,
        };
        self.mailbox.try_send(Order::Call(Box::new(queued), subjects)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotSent::Busy,
            mpsc::error::TrySendError::Closed(_) => NotSent::Closed,
        })?;
        // A task that ended may have sent it before.
        answer.await.unwrap_or(Err(NotAnswered::MaybeSent(Silence::Lost)))
    }

    /// Leases the next nonce, within `limit`, for a login of this client's: the logins of clients take turns.
    pub async fn lease(&self, client: ClientName, limit: Duration) -> Result<Lease, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.ask(Order::Lease(client, reply), answer, limit).await
    }

    /// The account's token, within `limit`; not the one that was `refused`. Where so many were bought on account of such
    /// refusals that the next has to wait, [`NotMinted::RefusedWhenUsed`]: the token stays with everybody else.
    pub async fn token(&self, refused: Option<RefusedToken>, limit: Duration) -> Result<Token, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.ask(Order::Token { refused, reply }, answer, limit).await
    }

    /// Tells the account that the exchange took this token: with an open socket, or an answer that it gives to no other.
    pub fn note_token_taken(&self, taken: TokenId) {
        // A full mailbox holds others whose token was taken, and tell it.
        let _ = self.mailbox.try_send(Order::TokenTaken(taken));
    }

    /// Tells the account that the exchange refused this token: it buys the next one. Nobody waits for it.
    pub fn note_token_refused(&self, refused: RefusedToken) {
        let (reply, _nobody) = oneshot::channel();
        // A full mailbox holds others who were refused the same token, and tell it.
        let _ = self.mailbox.try_send(Order::Token { refused: Some(refused), reply });
    }

    /// What its token is doing, as it changes. Always [`TokenState::Absent`] at a venue that sells none.
    ///
    /// Its times are the account's own, which differ from the wall clock's where that was put back; those of
    /// [`status`](Self::status) are the wall clock's.
    pub fn token_state(&self) -> watch::Receiver<TokenState> {
        self.token_state.clone()
    }

    /// How the account is, within `limit`.
    pub async fn status(&self, limit: Duration) -> Result<AccountStatus, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.ask(Order::Status(reply), answer, limit).await
    }

    /// Buys a new token now, within `limit`, and gives it; the one before serves until then. Fails without a purchase
    /// while the breaker is open.
    pub async fn renew_token(&self, limit: Duration) -> Result<Token, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.ask(Order::RenewToken(reply), answer, limit).await
    }

    /// Closes the token's breaker and ends the pause of a key that the exchange refused, on a person's word.
    pub async fn reset_breaker(&self, limit: Duration) -> Result<(), Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.ask(Order::ResetBreaker(reply), answer, limit).await
    }

    /// Takes a frozen lane back into use, on a person's word.
    pub async fn unfreeze(&self, limit: Duration) -> Result<(), Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.ask(Order::Unfreeze(reply), answer, limit).await
    }

    /// Takes back those orders of a client that wait for their turn, because it cancels them elsewhere: on a socket.
    pub fn note_cancel(&self, client: ClientName, cancelled: Subjects) {
        // A mailbox that is full takes no orders either, and those in it are refused when they have waited for too long.
        let _ = self.mailbox.try_send(Order::Withdraw(client, cancelled));
    }

    /// Tells the account what time the exchange has.
    pub fn note_venue_time(&self, told: UnixMillis) {
        // A full mailbox has more urgent things in it; the next answer tells the time again.
        let _ = self.mailbox.try_send(Order::VenueTime(told));
    }

    async fn ask<T>(
        &self,
        order: Order,
        answer: oneshot::Receiver<Result<T, Unavailable>>,
        limit: Duration,
    ) -> Result<T, Unavailable> {
        self.mailbox.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unavailable::Busy,
            mpsc::error::TrySendError::Closed(_) => Unavailable::Closed,
        })?;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Unavailable::Closed),
            Err(_) => Err(Unavailable::Busy),
        }
    }
}
