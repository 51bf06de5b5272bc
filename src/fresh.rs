//! What must be new each time: the time, a nonce, a token. Made by `supply`, handed down to venues.

use crate::secret::Secret;
use std::fmt;
use std::time::Duration;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The moment `later` after this one.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long from `earlier` to this moment; zero if `earlier` is the later one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds, rounded down.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The moment of a Unix time in seconds.
    pub fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }
}

impl fmt::Debug for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// A number that an exchange accepts once per key, and only if it is greater than all before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nonce(pub u64);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which token of an account: grows by one with each that is minted. Says "this one was refused" without
/// naming the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u64);

/// A bearer token of an exchange.
#[derive(Debug, Clone)]
pub struct Token {
    /// Which one.
    pub id: TokenId,
    /// The text that the exchange expects.
    pub secret: Secret,
    /// When the exchange stops taking it for something new.
    pub expires_at: UnixMillis,
}

/// Everything that had to be new for one login or one message.
#[derive(Debug, Clone, Default)]
pub struct Fresh {
    /// The time at which it was obtained.
    pub now: UnixMillis,
    /// A nonce, where the venue's login carries one.
    pub nonce: Option<Nonce>,
    /// A token, where the venue's messages carry one.
    pub token: Option<Token>,
}
