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

    /// The moment `earlier` before this one; 1970 at the earliest.
    #[must_use]
    pub fn minus(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(earlier.as_millis()).unwrap_or(u64::MAX)))
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

/// What one step of a nonce stands for where the clock is its floor. Never changes once a key was used: numbers of
/// two units cannot be compared, and an exchange that has seen the larger one refuses the smaller for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NonceUnit {
    /// Thousandths of a second.
    Milliseconds,
    /// Millionths of a second: the finest that fits below 2^53.
    Microseconds,
    /// Billionths of a second: fits into 64 bits until the year 2554.
    Nanoseconds,
}

/// The text is no nonce unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a nonce unit; write `ms`, `us` or `ns`")]
pub struct UnknownUnit;

impl NonceUnit {
    /// The word for it in `proxy.toml` and in the state file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
        }
    }

    /// Reads a [word](Self::word).
    pub fn parse(word: &str) -> Result<Self, UnknownUnit> {
        [Self::Milliseconds, Self::Microseconds, Self::Nanoseconds]
            .into_iter()
            .find(|unit| unit.word() == word)
            .ok_or(UnknownUnit)
    }

    /// The number of this unit at a moment; the largest number there is, if the moment lies beyond it.
    pub fn at(self, moment: UnixMillis) -> u64 {
        moment.0.saturating_mul(self.per_second() / 1000)
    }

    /// How many make one second.
    pub fn per_second(self) -> u64 {
        match self {
            Self::Milliseconds => 1_000,
            Self::Microseconds => 1_000_000,
            Self::Nanoseconds => 1_000_000_000,
        }
    }
}

impl fmt::Display for NonceUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A part of a token's life, such as 13 of its 15 parts: Kraken's lives 15 minutes, and two are left for retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifePart {
    parts: u32,
    of: u32,
}

/// The text is no part of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a part of a token's life, more than none and less than all; write \"13/15\"")]
pub struct NoPart;

impl LifePart {
    /// Reads `13/15`. The whole has 1,000 parts at most.
    pub fn parse(text: &str) -> Result<Self, NoPart> {
        let number = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| is_plain && (1..=1000).contains(number)).ok_or(NoPart)
        };
        let (parts, of) = text.split_once('/').ok_or(NoPart)?;
        let (parts, of) = (number(parts)?, number(of)?);
        if parts < of { Ok(Self { parts, of }) } else { Err(NoPart) }
    }

    /// So much of a life.
    pub fn of(self, life: Duration) -> Duration {
        life / self.of * self.parts
    }
}

impl Default for LifePart {
    fn default() -> Self {
        Self { parts: 13, of: 15 }
    }
}

impl fmt::Display for LifePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.parts, self.of)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_unit_is_read_by_its_word_alone() {
        for unit in [NonceUnit::Milliseconds, NonceUnit::Microseconds, NonceUnit::Nanoseconds] {
            assert_eq!(NonceUnit::parse(unit.word()), Ok(unit));
        }
        for bad in ["", "NS", "s", "ns ", "nanoseconds"] {
            assert_eq!(NonceUnit::parse(bad), Err(UnknownUnit), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_part_of_a_life_is_more_than_none_and_less_than_all() {
        let part = LifePart::parse("13/15").expect("a part");
        assert_eq!((part, part.to_string().as_str()), (LifePart::default(), "13/15"));
        assert_eq!(part.of(Duration::from_secs(900)), Duration::from_secs(780));
        assert_eq!(part.of(Duration::from_secs(86_400)), Duration::from_secs(74_880));
        for bad in ["", "13", "0/15", "15/15", "16/15", "13/0", "+1/2", "1/1001", "1/2/3", " 1/2", "0.5"] {
            assert_eq!(LifePart::parse(bad), Err(NoPart), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_moment_counts_in_every_unit_and_never_wraps() {
        let moment = UnixMillis(1_790_000_000_123);
        assert_eq!(NonceUnit::Milliseconds.at(moment), 1_790_000_000_123);
        assert_eq!(NonceUnit::Microseconds.at(moment), 1_790_000_000_123_000);
        assert_eq!(NonceUnit::Nanoseconds.at(moment), 1_790_000_000_123_000_000);
        assert_eq!(NonceUnit::Nanoseconds.at(UnixMillis(u64::MAX)), u64::MAX);
    }
}
