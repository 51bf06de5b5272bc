//! The life of one account's token: when it may be used, when a new one is due, when to try again after a failure.
//!
//! Pure: time and chance are passed in. Time here never goes back ([`Onward`](super::clock::Onward)). Not the purchase
//! itself: `account` makes it.

mod state;

pub use state::TokenState;

use super::breaker::{Breaker, Failure, Gate};
use crate::fresh::{LifePart, Token, TokenId, UnixMillis};
use crate::secret::Secret;
use crate::venue::NotMinted;
use std::time::Duration;

/// A token is not handed out so shortly before its end: it has to reach the exchange before it.
const MARGIN_MAX: Duration = Duration::from_secs(10);
/// Nor in the last tenth of its life, if that is shorter.
const MARGIN_PART: u32 = 10;
/// A token that the exchange refuses at this age was never good: buying the next one at once, again and again, would be
/// a storm.
const YOUNG: Duration = Duration::from_secs(10);
/// So many young tokens in a row may be refused before the next purchase has to wait. They count as failures all the same.
const YOUNG_REFUSED_MAX: u32 = 2;
/// No exchange sells tokens that live longer; one that was kept over a restart and claims to is not believed.
const LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

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
    /// Tokens in a row that were refused [young](YOUNG).
    young_refused: u32,
}

/// A token, and when what is due.
#[derive(Debug)]
struct Held {
    token: Token,
    bought_at: UnixMillis,
    refresh_at: UnixMillis,
    usable_until: UnixMillis,
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
            young_refused: 0,
        }
    }

    /// The token, if it may be used for something new now.
    pub fn usable(&self, now: UnixMillis) -> Option<&Token> {
        self.held.as_ref().filter(|held| now < held.usable_until).map(|held| &held.token)
    }

    /// True if a new token should be bought now.
    pub fn is_due(&self, now: UnixMillis) -> bool {
        let wants_one = self.held.as_ref().is_none_or(|held| held.refresh_at.min(held.usable_until) <= now);
        wants_one && !self.is_buying() && self.breaker.admits(now)
    }

    /// When something changes by the passing of time, for a token that is usable now: it is due, or runs out.
    pub fn changes_at(&self, now: UnixMillis) -> Option<UnixMillis> {
        let held = self.held.as_ref().filter(|held| now < held.usable_until)?;
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
        if self.young_refused == 0 {
            self.breaker.succeeded();
        } else {
            self.breaker.succeeded_on_trial();
        }
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
            bought_at,
            refresh_at: bought_at.plus(self.refresh.of(lives)),
            usable_until: bought_at.plus(usable_for(lives)),
        };
        &self.held.insert(held).token
    }

    /// The exchange no longer takes this token. One that was replaced meanwhile changes nothing.
    ///
    /// A token that was refused soon after it was bought counts as a failure: an exchange that refuses every fresh token
    /// opens the breaker.
    pub fn refused(&mut self, id: TokenId, now: UnixMillis, chance: f64) -> bool {
        self.forgive(now);
        let Some(held) = self.held.take_if(|held| held.token.id == id) else { return false };
        if now.since(held.bought_at) < YOUNG {
            self.young_refused = self.young_refused.saturating_add(1);
            self.last_failure = NotMinted::RefusedWhenUsed;
            // A purchase that is on its way has its own end.
            if self.young_refused <= YOUNG_REFUSED_MAX || self.is_buying() {
                self.breaker.count();
            } else {
                self.breaker.failed(Failure::Passing { left: Duration::ZERO }, now, chance);
            }
        }
        self.previous = Some(held.token.secret);
        true
    }

    /// The tokens that somebody could still use who gets hold of them: this one and the one before.
    pub fn live(&self) -> impl Iterator<Item = &Secret> {
        self.held.iter().map(|held| &held.token.secret).chain(&self.previous)
    }

    /// No token was to be had. `chance` is a random number below 1: all proxies must not come back at once.
    pub fn failed(&mut self, why: NotMinted, now: UnixMillis, chance: f64) -> Duration {
        self.forgive(now);
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

    /// A token that the exchange still takes at this age was good: those before it count no longer.
    fn forgive(&mut self, now: UnixMillis) {
        let is_proven = self.held.as_ref().is_some_and(|held| now.since(held.bought_at) >= YOUNG);
        if is_proven && self.young_refused > 0 {
            self.young_refused = 0;
            self.breaker.succeeded();
        }
    }

    /// Makes the next token due now, on a person's word. The one that is held serves until it is there.
    pub fn renew_now(&mut self, now: UnixMillis) {
        if let Some(held) = &mut self.held {
            held.refresh_at = held.refresh_at.min(now);
        }
    }

    /// Closes the breaker, on a person's word.
    pub fn reset(&mut self) {
        self.young_refused = 0;
        self.breaker.succeeded();
    }

    /// Failures since all was well.
    pub fn failures(&self) -> u32 {
        self.breaker.failures()
    }

    /// What the token is doing.
    pub fn state(&self, now: UnixMillis) -> TokenState {
        let usable_until = self.held.as_ref().map(|held| held.usable_until).filter(|until| now < *until);
        let failures = self.breaker.failures();
        let why = self.last_failure;
        match (self.breaker.gate(), &self.held) {
            (Gate::HalfOpen, _) => TokenState::Probing { usable_until },
            (_, _) if self.is_buying() => TokenState::Buying { usable_until },
            (Gate::Open(until), _) => TokenState::Open { until, failures, why, usable_until },
            (Gate::Waiting(until), _) if now < until => TokenState::Waiting { until, failures, why, usable_until },
            (Gate::Closed | Gate::Waiting(_), None) => TokenState::Absent,
            (Gate::Closed | Gate::Waiting(_), Some(held)) => match usable_until {
                Some(until) => TokenState::Valid { until, refresh_at: held.refresh_at },
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
