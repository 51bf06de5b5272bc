//! How soon a refused token may be replaced: the first time at once, then ever later.
//!
//! Pure: time and chance are passed in. What is counted is the purchases that a cause has brought about, not its
//! refusals, so that a cause that never rests costs no more than one that comes every five minutes. Not the failures of
//! purchases: those are the [`Breaker`]'s before the seller.

use crate::fresh::UnixMillis;
use crate::supply::breaker::{Breaker, Failure, Gate};
use std::time::Duration;

/// A cause that had nothing replaced for so long begins anew. Three times the longest wait: one that merely waited its
/// wait out has not recovered.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);

/// What one cause may still have replaced.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Counts purchases; nothing passes through it.
    breaker: Breaker,
    last_at: UnixMillis,
}

impl Patience {
    /// True if another token may be bought for this cause.
    pub(super) fn admits(&self, now: UnixMillis) -> bool {
        self.breaker.admits(now)
    }

    /// A token is bought for this cause, in place of one that would serve for `left`. True if that is the first of a row.
    pub(super) fn spend(&mut self, left: Duration, now: UnixMillis, chance: f64) -> bool {
        if self.is_over(now) {
            *self = Self::default();
        }
        self.last_at = now;
        let is_first = self.breaker.failures() == 0;
        if is_first {
            self.breaker.count();
        } else {
            self.breaker.failed(Failure::Passing { left }, now, chance);
        }
        is_first
    }

    /// True if nothing of it has to be remembered.
    pub(super) fn is_over(&self, now: UnixMillis) -> bool {
        now.since(self.last_at) >= FORGOTTEN_AFTER
    }

    /// Purchases in a row.
    pub(super) fn purchases(&self) -> u32 {
        self.breaker.failures()
    }

    /// Until when nothing is bought for this cause, if it has to wait.
    pub(super) fn shut(&self, now: UnixMillis) -> Option<Gate> {
        (!self.breaker.admits(now)).then_some(self.breaker.gate())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000_000);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn the_second_purchase_comes_at_once_and_those_after_it_ever_later() {
        let (mut patience, mut now, mut waits) = (Patience::default(), NOW, Vec::new());
        for count in 1..=8 {
            assert_eq!(patience.spend(DAY, now, 1.0), count == 1);
            let until = match patience.shut(now) {
                Some(Gate::Waiting(until) | Gate::Open(until)) => until,
                _ => now,
            };
            waits.push(until.since(now).as_secs());
            assert!(patience.admits(until));
            now = until;
        }
        assert_eq!(waits, [0, 4, 8, 16, 300, 300, 300, 300]);
    }

    #[test]
    fn a_cause_begins_anew_after_a_quarter_of_an_hour_and_not_after_the_longest_wait() {
        let mut patience = Patience::default();
        for _ in 0..5 {
            patience.spend(DAY, NOW, 0.0);
        }
        let mut later = NOW.plus(Duration::from_secs(301));
        assert!(patience.admits(later) && !patience.is_over(later));
        assert!(!patience.spend(DAY, later, 0.0) && !patience.admits(later));
        later = later.plus(FORGOTTEN_AFTER);
        assert!(patience.is_over(later));
        assert!(patience.spend(DAY, later, 0.0));
        assert_eq!((patience.purchases(), patience.shut(later)), (1, None));
    }
}
