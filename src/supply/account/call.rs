//! A client's REST call through its account's lane: what it brings, what comes of it.
//!
//! Not the queue and not the wire: see `queue` and `task`.

use super::Order;
use crate::credential::Signer;
use crate::fresh::Nonce;
use crate::names::ClientName;
use crate::policy::Permit;
use crate::secret::Secret;
use crate::supply::lane::LaneStopped;
use crate::upstream::{AnswerBody, NotOpened, Silence};
use crate::venue::rest::{Subjects, Unanswered};
use crate::venue::{LoginOutcome, Refusal, SignedRequest};
use http::Response;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Writes and signs the request with the nonce that it is given. Called when a connection is ready and it is the
/// call's turn; twice if the first request did not leave the process.
pub type Sign = Arc<dyn Fn(&Signer, Nonce) -> SignedRequest + Send + Sync>;

/// Says whether a permit would be given again, at this moment.
pub type StillGranted = Arc<dyn Fn(&Permit) -> bool + Send + Sync>;

/// One call of a client.
pub struct Call {
    /// Evidence that the client may use this account. Kept until the call is answered.
    pub permit: Permit,
    /// The venue's endpoint that it goes to.
    pub endpoint: &'static str,
    /// What it is, which decides who goes first.
    pub class: Class,
    /// Which orders it is about: a cancel takes back those of its client that are still in the queue.
    pub subjects: Subjects,
    /// Signs it, late.
    pub sign: Sign,
    /// Asked right before it is signed: while it waited, its client's grant may have been taken away.
    pub still_granted: StillGranted,
}

/// What a call is, in the order in which they go. Between cancels and orders go socket logins and token requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Takes orders back. Waits for nobody's orders; never sent before its own client's orders that it means, which it
    /// withdraws.
    Cancel,
    /// Places or changes orders. Not sent any more when it has waited for too long.
    Order,
    /// Neither order, cancel nor read: moves money, manages keys. Goes among the orders, and no cancel takes it back.
    Other,
    /// Everything else: it waits behind orders for a second at most.
    Read,
}

/// The exchange answered.
#[derive(Debug)]
pub struct Answered {
    /// The answer. Its body comes as it is read; read to its end, it frees the connection for the next call.
    pub response: Response<AnswerBody>,
    /// What the request showed the exchange, which must not come back to the client: its signature, above all.
    pub shown: Vec<Secret>,
    /// Takes what the answer says of key and nonce, once the start of the body is known.
    pub verdict: Verdict,
}

/// How the account hears what an answer meant ([`Rest::outcome`](crate::venue::rest::Rest::outcome)). Dropped, the
/// account goes on as if the request had been accepted.
#[derive(Debug)]
#[must_use = "a lane that is not told of a refused nonce goes on with nonces that are too small"]
pub struct Verdict {
    pub(super) nonce: Nonce,
    pub(super) client: ClientName,
    pub(super) is_overtaken: bool,
    /// None where an acceptance would be no news.
    pub(super) was_refused_before: bool,
    pub(super) account: mpsc::WeakSender<Order>,
}

impl Verdict {
    /// Says what the answer meant.
    ///
    /// A nonce that was too small makes the lane begin anew at the clock, unless a later request had gone out before
    /// this one's answer came: then the exchange saw them in the other order, and nothing is wrong with the numbers.
    pub fn tell(self, outcome: LoginOutcome) {
        if outcome == LoginOutcome::Accepted && !self.was_refused_before {
            return;
        }
        let Some(account) = self.account.upgrade() else { return };
        let told = Order::Verdict { nonce: self.nonce, client: self.client, is_overtaken: self.is_overtaken, outcome };
        // A mailbox that is full holds calls that will be refused for the same reason, and tell it again.
        let _ = account.try_send(told);
    }

    /// True if a later request went out before this one was answered.
    pub fn is_overtaken(&self) -> bool {
        self.is_overtaken
    }
}

/// Why a call got no answer of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnswered {
    /// Nothing of it left this process.
    #[error("not sent: {0}")]
    NotSent(#[from] NotSent),
    /// It may have arrived. Whether it did has to be asked; it must not be sent again.
    #[error("maybe sent: {0}")]
    MaybeSent(#[from] Silence),
}

/// Why nothing of a call left this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The permit is not for this account.
    #[error("the permit is for another account")]
    NotPermitted,
    /// The permit ended, or its grant was taken away, while the call waited.
    #[error("its client was permitted when it came, and no longer is")]
    NoLongerPermitted,
    /// Too many calls wait, of this client or of all.
    #[error("too many calls of this account wait; send fewer at a time")]
    Busy,
    /// It waited in the queue for as long as it may.
    #[error("its turn did not come in time; send fewer calls at a time")]
    WaitedTooLong,
    /// Its client's own cancel took it back.
    #[error("its client's own cancel took it back")]
    Withdrawn,
    /// The account has no nonces to give.
    #[error(transparent)]
    Lane(#[from] LaneStopped),
    /// There is no connection to the exchange, or it asked to be left alone.
    #[error(transparent)]
    NotReached(#[from] NotOpened),
    /// Two connections, the second of them new, closed before the request was written.
    #[error("the exchange closed the connection before the request was written; try again")]
    ConnectionLost,
    /// The exchange refused the key again and again: it is left alone for five minutes, or repeats would lock it out.
    #[error("the exchange refused the key again and again; check that it is right and has its permissions")]
    LeftAlone,
    /// The signed request cannot be written as HTTP.
    #[error("the request holds a character that HTTP cannot carry")]
    Unwritable,
    /// The account's task has ended.
    #[error("the account is closed")]
    Closed,
}

impl NotAnswered {
    /// The word for it in headers, logs and the audit record.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotSent(_) => "not-sent",
            Self::MaybeSent(_) => "maybe-sent",
        }
    }

    /// What the venue tells its client.
    pub fn unanswered(&self) -> Unanswered {
        match self {
            Self::NotSent(NotSent::Busy | NotSent::WaitedTooLong) => Unanswered::Busy,
            Self::NotSent(NotSent::Withdrawn) => Unanswered::Withdrawn,
            Self::NotSent(NotSent::NoLongerPermitted) => Unanswered::Refused(Refusal::NotAuthenticated),
            Self::NotSent(
                NotSent::NotPermitted
                | NotSent::Lane(_)
                | NotSent::NotReached(_)
                | NotSent::ConnectionLost
                | NotSent::LeftAlone
                | NotSent::Unwritable
                | NotSent::Closed,
            ) => Unanswered::Unavailable,
            Self::MaybeSent(_) => Unanswered::MaybeSent,
        }
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Subjects are a client's own data.
        f.debug_struct("Call").field("endpoint", &self.endpoint).field("class", &self.class).finish_non_exhaustive()
    }
}
