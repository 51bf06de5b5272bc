//! The life of one account's token: when it may be used, when a new one is due, when to try again after a failure.
//!
//! Pure: time and chance are passed in. Not the request itself: `account` sends it.

use crate::fresh::{Token, TokenId, UnixMillis};
use crate::secret::Secret;
use crate::venue::NotMinted;
use std::time::Duration;

/// A token is not handed out so shortly before its end: it has to reach the exchange before it.
const MARGIN: Duration = Duration::from_secs(10);
/// A token is renewed after 13 of the 15 parts of its life: Kraken's lives 15 minutes, and two are left for retries.
const REFRESH: (u32, u32) = (13, 15);
/// The first wait after a failure; each further one doubles it, up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest wait after a failure that may pass by itself.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The wait after the exchange refused the key: repeats would lock it out.
const BACKOFF_REFUSED: Duration = Duration::from_secs(300);

/// The state of one account's token.
#[derive(Debug, Default)]
pub struct TokenLife {
    token: Option<Token>,
    /// The one before: renewed ahead of its end, it is still good for the rest of its life.
    previous: Option<Secret>,
    refresh_at: UnixMillis,
    next_id: u64,
    failures: u32,
    not_before: UnixMillis,
}

impl TokenLife {
    /// The token, if it may be used for something new now.
    pub fn usable(&self, now: UnixMillis) -> Option<&Token> {
        self.token.as_ref().filter(|token| now.plus(MARGIN) < token.expires_at)
    }

    /// True if a new token should be bought now.
    pub fn is_due(&self, now: UnixMillis) -> bool {
        let wants_one = self.usable(now).is_none() || self.refresh_at <= now;
        wants_one && self.may_try(now)
    }

    /// True if the wait after the last failure is over.
    pub fn may_try(&self, now: UnixMillis) -> bool {
        // A wait that is longer than any that we set is a clock that was put back.
        self.not_before <= now || self.not_before.since(now) > BACKOFF_REFUSED
    }

    /// When [`TokenLife::is_due`] can become true by the passing of time.
    pub fn due_at(&self) -> UnixMillis {
        let wanted = if self.token.is_some() { self.refresh_at } else { UnixMillis(0) };
        wanted.max(self.not_before)
    }

    /// Takes over a token that was bought, or that an earlier run of the program left.
    pub fn renewed(&mut self, secret: Secret, minted_at: UnixMillis, expires_at: UnixMillis) -> &Token {
        self.next_id += 1;
        self.failures = 0;
        self.not_before = UnixMillis(0);
        if let Some(replaced) = self.token.take() {
            self.previous = Some(replaced.secret);
        }
        self.refresh_at = minted_at.plus(expires_at.since(minted_at) * REFRESH.0 / REFRESH.1);
        self.token.insert(Token { id: TokenId(self.next_id), secret, expires_at })
    }

    /// The exchange no longer takes this token. One that was replaced meanwhile changes nothing.
    pub fn refused(&mut self, id: TokenId) -> bool {
        let is_current = self.token.as_ref().is_some_and(|token| token.id == id);
        if is_current {
            self.previous = self.token.take().map(|token| token.secret);
        }
        is_current
    }

    /// The tokens that somebody could still use who gets hold of them: this one and the one before.
    pub fn live(&self) -> impl Iterator<Item = &Secret> {
        self.token.iter().map(|token| &token.secret).chain(&self.previous)
    }

    /// No token was to be had. `chance` is a random number below 1: all proxies must not come back at once.
    pub fn failed(&mut self, why: NotMinted, now: UnixMillis, chance: f64) -> Duration {
        let wait = match why {
            NotMinted::Credential => BACKOFF_REFUSED,
            NotMinted::NonceTooSmall | NotMinted::Unavailable | NotMinted::Unreadable => {
                let ceiling = BACKOFF_MIN.saturating_mul(1 << self.failures.min(5)).min(BACKOFF_MAX);
                // Never below half: full jitter down to zero would hammer an exchange that is down.
                ceiling.mul_f64(0.5 + chance / 2.0)
            }
        };
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.plus(wait);
        wait
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINTED: UnixMillis = UnixMillis(1_000_000);
    const LIFE: Duration = Duration::from_secs(900);

    fn life() -> TokenLife {
        let mut life = TokenLife::default();
        life.renewed(Secret::from("token".to_owned()), MINTED, MINTED.plus(LIFE));
        life
    }

    #[test]
    fn a_token_is_renewed_at_13_of_its_15_minutes() {
        let life = life();
        assert!(!life.is_due(MINTED.plus(Duration::from_secs(779))));
        assert!(life.is_due(MINTED.plus(Duration::from_secs(780))));
    }

    #[test]
    fn a_token_that_is_about_to_expire_is_not_handed_out() {
        let life = life();
        assert!(life.usable(MINTED.plus(Duration::from_secs(889))).is_some());
        assert!(life.usable(MINTED.plus(Duration::from_secs(890))).is_none());
    }

    #[test]
    fn an_issuer_that_is_down_is_asked_ever_less_often_and_the_old_token_serves_to_its_end() {
        let mut life = life();
        let mut now = MINTED.plus(Duration::from_secs(780));
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(life.failed(NotMinted::Unavailable, now, 1.0), Duration::from_secs(seconds));
            assert!(!life.is_due(now));
            now = now.plus(Duration::from_secs(seconds));
            assert!(life.is_due(now));
        }
        assert!(life.usable(now).is_some(), "780 s and 91 s of waiting are within its life");
    }

    #[test]
    fn a_refused_key_is_left_alone_for_five_minutes() {
        let mut life = TokenLife::default();
        life.failed(NotMinted::Credential, MINTED, 0.0);
        assert!(!life.is_due(MINTED.plus(Duration::from_secs(299))));
        assert!(life.is_due(MINTED.plus(Duration::from_secs(300))));
    }

    #[test]
    fn a_token_that_was_renewed_or_refused_counts_as_live_until_the_next_one_is() {
        let live = |life: &TokenLife| life.live().map(|secret| secret.expose().to_vec()).collect::<Vec<_>>();
        assert!(live(&TokenLife::default()).is_empty());
        let mut life = life();
        life.renewed(Secret::from("second".to_owned()), MINTED, MINTED.plus(LIFE));
        assert_eq!(live(&life), [b"second".to_vec(), b"token".to_vec()]);
        let refused = life.usable(MINTED).expect("fresh").id;
        assert!(life.refused(refused));
        assert_eq!(live(&life), [b"second"]);
        life.renewed(Secret::from("third".to_owned()), MINTED, MINTED.plus(LIFE));
        assert_eq!(live(&life), [b"third".to_vec(), b"second".to_vec()]);
    }

    #[test]
    fn a_clock_that_is_put_back_does_not_keep_anybody_waiting() {
        let mut life = TokenLife::default();
        life.failed(NotMinted::Unavailable, MINTED.plus(Duration::from_secs(3600)), 1.0);
        assert!(life.is_due(MINTED));
    }

    #[test]
    fn a_token_too_short_lived_to_be_refreshed_ahead_is_renewed_when_it_is_no_longer_usable() {
        let mut life = TokenLife::default();
        life.renewed(Secret::from("token".to_owned()), MINTED, MINTED.plus(Duration::from_secs(30)));
        let now = MINTED.plus(Duration::from_secs(21));
        assert!(life.usable(now).is_none() && life.is_due(now));
    }

    #[test]
    fn fifty_sessions_that_saw_one_refusal_cost_one_new_token() {
        let mut life = life();
        let refused = life.usable(MINTED).expect("fresh").id;
        assert!(life.refused(refused));
        life.renewed(Secret::from("next".to_owned()), MINTED, MINTED.plus(LIFE));
        for _ in 0..49 {
            assert!(!life.refused(refused), "the token that was refused is long gone");
        }
        assert!(life.usable(MINTED).is_some());
    }
}
