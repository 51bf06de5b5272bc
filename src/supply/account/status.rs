//! How an account is: for the admin listener, the command line and tests. Never a token or a key.

use crate::fresh::{NonceUnit, UnixMillis};
use crate::names::AccountName;
use crate::supply::token::TokenState;

/// How an account is at one moment. Times are the wall clock's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStatus {
    /// Its name.
    pub account: AccountName,
    /// The name of its venue.
    pub venue: &'static str,
    /// What its token is doing. `None`: the venue sells none.
    pub token: Option<TokenState>,
    /// How often buying a token failed since all was well.
    pub token_failures: u32,
    /// Its nonces. `None`: the venue has none.
    pub lane: Option<LaneStatus>,
    /// Who waits for a turn.
    pub queue: QueueStatus,
    /// Requests and logins that are on their way with a nonce.
    pub in_flight: usize,
    /// The exchange's clock less ours, in milliseconds: to the second, as its answers tell. `None`: it has told nothing
    /// so far.
    pub clock_offset_ms: Option<i64>,
    /// Requests and logins in a row that the exchange refused for their key.
    pub refused_in_a_row: u32,
    /// A key that was refused again and again is left alone until then.
    pub left_alone_until: Option<UnixMillis>,
}

/// The nonces of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneStatus {
    /// What they count.
    pub unit: NonceUnit,
    /// True if the exchange refused several, and a person has to say that they may go on.
    pub is_frozen: bool,
    /// The highest number that is reserved in the state folder. `None`: the key was never used.
    pub reserved: Option<u64>,
}

/// How many wait for a turn, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStatus {
    /// Cancels.
    pub cancels: usize,
    /// Socket logins and token requests.
    pub logins: usize,
    /// Orders.
    pub orders: usize,
    /// Everything else.
    pub reads: usize,
}
