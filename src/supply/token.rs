//! The life of one account's token: when it may be used, when a new one is due, when to try again after a failure.
//!
//! A token is handed out until shortly before its end. It is replaced at a part of its life, on a person's word, or
//! because the exchange refused it. Whoever was refused it waits for the next one. Everybody else does so where that is
//! news, which it is if its [`Purpose`] has had no token replaced lately, and for no longer than the purchase takes.
//! Nothing is bought while a gate is shut: purchases that fail shut the breaker before the seller; a purpose that refuses
//! what was bought for it shuts its own patience; and tokens that the exchange takes for nothing at all shut that of all
//! purposes. Meanwhile what is held stays with those who can use it.
//!
//! Pure: time and chance are passed in. Time here never goes back ([`Onward`](super::clock::Onward)). Not the purchase
//! itself: `account` makes it.

mod patience;
mod state;

pub use state::TokenState;

use super::breaker::{Breaker, Failure, Gate};
use crate::fresh::{LifePart, Token, TokenId, UnixMillis};
use crate::secret::Secret;
use crate::venue::NotMinted;
use patience::Patience;
use std::collections::BTreeMap;
use std::time::Duration;

/// A token is not handed out so shortly before its end: it has to reach the exchange before it.
const MARGIN_MAX: Duration = Duration::from_secs(10);
/// Nor in the last tenth of its life, if that is shorter.
const MARGIN_PART: u32 = 10;
/// No exchange sells tokens that live longer; one that was kept over a restart and claims to is not believed.
const LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a token is shown for: a socket, or one operation over REST. An exchange may refuse for one what it takes for
/// all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Purpose {
    /// The venue's endpoint.
    pub endpoint: &'static str,
    /// The venue's word for the operation; empty for a socket.
    pub operation: &'static str,
}

impl Purpose {
    /// To open the socket of this endpoint, or to speak on it.
    pub fn socket(endpoint: &'static str) -> Self {
        Self { endpoint, operation: "" }
    }
}

/// A token that the exchange refused, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedToken {
    /// Which token.
    pub id: TokenId,
    /// What it was shown for.
    pub purpose: Purpose,
}

/// What becomes of a token that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// There is another one already, or it had ended: nothing changes.
    Past,
    /// The next one is due, and was before.
    Awaited,
    /// The next one is due because of this refusal.
    Due {
        /// True if this purpose has had none replaced lately: everybody waits for the next one.
        is_news: bool,
    },
    /// It stays with everybody else: too many were bought on account of such refusals.
    Kept,
}

/// The state of one account's token.
#[derive(Debug)]
pub struct TokenLife {
    refresh: LifePart,
    held: Option<Held>,
    /// The one before: renewed ahead of its end, it is still good for the rest of its life.
    previous: Option<Secret>,
    last_id: u64,
    /// When the purchase that is under way began.
    buying_since: Option<UnixMillis>,
    breaker: Breaker,
    last_failure: NotMinted,
    /// What was bought for each purpose that refused a token lately. A venue has a handful of them.
    purposes: BTreeMap<Purpose, Patience>,
    /// What was bought in place of tokens that the exchange had taken for nothing at all.
    untaken: Patience,
}

/// A token, and when what is due.
#[derive(Debug)]
struct Held {
    token: Token,
    refresh_at: UnixMillis,
    usable_until: UnixMillis,
    /// The exchange has taken it for something.
    is_taken: bool,
    /// Nobody gets it while the next one is bought.
    is_doubted: bool,
}

impl TokenLife {
    /// No token yet; each will be renewed after this part of its life.
    pub fn new(refresh: LifePart) -> Self {
        Self {
            refresh,
            held: None,
            previous: None,
            last_id: 0,
            buying_since: None,
            breaker: Breaker::default(),
            last_failure: NotMinted::Unavailable,
            purposes: BTreeMap::new(),
            untaken: Patience::default(),
        }
    }

    /// The token, if it may be used for something new now.
    pub fn usable(&self, now: UnixMillis) -> Option<&Token> {
        self.usable_held(now).map(|held| &held.token)
    }

    /// Which token is held, whether or not it is handed out.
    pub fn held(&self) -> Option<TokenId> {
        self.held.as_ref().map(|held| held.token.id)
    }

    fn usable_held(&self, now: UnixMillis) -> Option<&Held> {
        self.held.as_ref().filter(|held| now < held.usable_until && !held.is_doubted)
    }

    /// True if a new token should be bought now.
    pub fn is_due(&self, now: UnixMillis) -> bool {
        let wants_one = self.held.as_ref().is_none_or(|held| held.refresh_at.min(held.usable_until) <= now);
        wants_one && !self.is_buying() && self.breaker.admits(now)
    }

    /// When something changes by the passing of time, for a token that is usable now: it is due, or runs out.
    pub fn changes_at(&self, now: UnixMillis) -> Option<UnixMillis> {
        let held = self.usable_held(now)?;
        if self.is_buying() {
            return Some(held.usable_until);
        }
        Some(held.refresh_at.max(self.breaker.admits_at()).min(held.usable_until))
    }

    /// Why no token is to be had before the next attempt; `None` if one can be bought now, or is being bought.
    pub fn unavailable(&self, now: UnixMillis) -> Option<NotMinted> {
        (!self.is_buying() && !self.breaker.admits(now)).then_some(self.last_failure)
    }

    /// A purchase begins. It ends by [`renewed`](Self::renewed) or [`failed`](Self::failed).
    pub fn begins(&mut self, now: UnixMillis) {
        self.buying_since = Some(now);
        self.breaker.begins();
    }

    /// True from the beginning of a purchase to its end.
    pub fn is_buying(&self) -> bool {
        self.buying_since.is_some()
    }

    /// True if a token that was bought now has no time left: the purchase took longer than its life, which is a failure.
    pub fn is_late(&self, lives: Duration, now: UnixMillis) -> bool {
        self.buying_since.is_some_and(|since| since.plus(usable_for(lives)) <= now)
    }

    /// Takes over a token that was bought. Its life is counted from the beginning of the purchase: nobody knows when the
    /// exchange began to count.
    pub fn renewed(&mut self, secret: Secret, lives: Duration, now: UnixMillis) -> &Token {
        let bought_at = self.buying_since.take().unwrap_or(now);
        self.breaker.succeeded();
        self.hold(secret, bought_at, lives)
    }

    /// Takes over a token that an earlier run of the program left, with the wall clock's times. False: it is over, or
    /// its times cannot be true by this clock, so that nobody knows how long it lives.
    pub fn kept(&mut self, secret: Secret, bought_at: UnixMillis, ends_at: UnixMillis, now: UnixMillis) -> bool {
        let lives = ends_at.since(bought_at);
        let is_credible = bought_at <= now && now < ends_at && lives <= LIFE_MAX;
        if is_credible {
            self.hold(secret, bought_at, lives);
        }
        is_credible
    }

    fn hold(&mut self, secret: Secret, bought_at: UnixMillis, lives: Duration) -> &Token {
        self.last_id += 1;
        if let Some(replaced) = self.held.take() {
            self.previous = Some(replaced.token.secret);
        }
        let expires_at = bought_at.plus(lives);
        let held = Held {
            token: Token { id: TokenId(self.last_id), secret, expires_at },
            refresh_at: bought_at.plus(self.refresh.of(lives)),
            usable_until: bought_at.plus(usable_for(lives)),
            is_taken: false,
            is_doubted: false,
        };
        &self.held.insert(held).token
    }

    /// The exchange refused this token. What [becomes](Outlook) of it does not depend on its age: one that was refused
    /// late may have been refused all along.
    pub fn refused(&mut self, refused: RefusedToken, now: UnixMillis, chance: f64) -> Outlook {
        let is_current = |held: &&mut Held| held.token.id == refused.id && now < held.usable_until;
        let is_buying = self.is_buying();
        let Some(held) = self.held.as_mut().filter(is_current) else { return Outlook::Past };
        if is_buying || held.refresh_at <= now {
            return Outlook::Awaited;
        }
        self.purposes.retain(|_, patience| !patience.is_over(now));
        let purpose = self.purposes.entry(refused.purpose).or_default();
        if !purpose.admits(now) || (!held.is_taken && !self.untaken.admits(now)) {
            return Outlook::Kept;
        }
        let left = held.usable_until.since(now);
        let is_news = purpose.spend(left, now, chance);
        if !held.is_taken {
            self.untaken.spend(left, now, chance);
        }
        held.refresh_at = now;
        held.is_doubted = is_news && self.breaker.admits(now);
        Outlook::Due { is_news }
    }

    /// The exchange took this token for something: it is not the seller's fault if it refuses it for something else.
    pub fn taken(&mut self, id: TokenId) {
        if let Some(held) = self.held.as_mut().filter(|held| held.token.id == id && !held.is_taken) {
            held.is_taken = true;
            self.untaken = Patience::default();
        }
    }

    /// No other token is to be had just now: one that is in doubt is better than none.
    pub fn trust(&mut self) {
        if let Some(held) = &mut self.held {
            held.is_doubted = false;
        }
    }

    /// The tokens that somebody could still use who gets hold of them: this one and the one before.
    pub fn live(&self) -> impl Iterator<Item = &Secret> {
        self.held.iter().map(|held| &held.token.secret).chain(&self.previous)
    }

    /// No token was to be had. `chance` is a random number below 1: all proxies must not come back at once.
    pub fn failed(&mut self, why: NotMinted, now: UnixMillis, chance: f64) -> Duration {
        self.trust();
        self.buying_since = None;
        self.last_failure = why;
        let left = self.held.as_ref().map_or(Duration::ZERO, |held| held.usable_until.since(now));
        let failure = match why {
            NotMinted::Credential => Failure::KeyRefused,
            NotMinted::NonceTooSmall | NotMinted::Unavailable | NotMinted::Unreadable | NotMinted::RefusedWhenUsed => {
                Failure::Passing { left }
            }
        };
        self.breaker.failed(failure, now, chance)
    }

    /// Makes the next token due now, on a person's word. The one that is held serves until it is there.
    pub fn renew_now(&mut self, now: UnixMillis) {
        if let Some(held) = &mut self.held {
            held.refresh_at = held.refresh_at.min(now);
        }
    }

    /// Closes the breaker and forgets refusals, on a person's word.
    pub fn reset(&mut self) {
        self.purposes.clear();
        self.untaken = Patience::default();
        self.breaker.succeeded();
    }

    /// Purchases in a row that failed, or had to be made because the exchange had taken the token before for nothing.
    pub fn failures(&self, now: UnixMillis) -> u32 {
        let untaken = if self.untaken.is_over(now) { 0 } else { self.untaken.purchases() };
        self.breaker.failures().saturating_add(untaken)
    }

    /// What the token is doing.
    pub fn state(&self, now: UnixMillis) -> TokenState {
        let usable_until = self.usable_held(now).map(|held| held.usable_until);
        let is_untaken = self.held.as_ref().is_some_and(|held| !held.is_taken);
        let (gate, failures, why) = match self.untaken.shut(now) {
            Some(gate) if is_untaken => (gate, self.untaken.purchases(), NotMinted::RefusedWhenUsed),
            _ => (self.breaker.gate(), self.breaker.failures(), self.last_failure),
        };
        match (gate, &self.held) {
            (Gate::HalfOpen, _) => TokenState::Probing { usable_until },
            (_, _) if self.is_buying() => TokenState::Buying { usable_until },
            (Gate::Open(until), _) => TokenState::Open { until, failures, why, usable_until },
            (Gate::Waiting(until), _) if now < until => TokenState::Waiting { until, failures, why, usable_until },
            (Gate::Closed | Gate::Waiting(_), None) => TokenState::Absent,
            (Gate::Closed | Gate::Waiting(_), Some(held)) => match usable_until {
                Some(until) => TokenState::Valid { until, refresh_at: held.refresh_at },
                None if held.is_doubted => TokenState::Absent,
                None => TokenState::Expired { since: held.usable_until },
            },
        }
    }
}

/// For how long a token of this life is handed out.
fn usable_for(lives: Duration) -> Duration {
    lives - MARGIN_MAX.min(lives / MARGIN_PART)
}

#[cfg(test)]
mod tests;
