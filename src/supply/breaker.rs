//! When to ask again after a failure: a circuit breaker before whoever sells tokens.
//!
//! Pure: time and chance are passed in. A few failures are waited out, each longer than the one before. Then the breaker
//! opens: nobody asks, and everybody is told so at once. When its time is over, one probe goes; what comes of it closes
//! the breaker or opens it anew.

use crate::fresh::UnixMillis;
use std::time::Duration;

/// So many failures in a row open the breaker.
pub const FAILURES_MAX: u32 = 5;
/// The shortest wait after a failure.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest wait after a failure that may pass by itself.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long the breaker is open at least.
const OPEN_MIN: Duration = Duration::from_secs(10);
/// How long it is open at most; and always where the exchange refused the key, since repeats would lock it out.
const OPEN_MAX: Duration = Duration::from_secs(300);

/// What a failure says about the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It may pass by itself. What is held serves for this much longer.
    Passing {
        /// Zero where nothing is held.
        left: Duration,
    },
    /// The exchange refused the key: a person has to do something about it.
    KeyRefused,
}

/// A breaker, closed at first.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    gate: Gate,
}

/// Who may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gate {
    /// Everybody.
    #[default]
    Closed,
    /// Nobody until then, and then everybody: a failure is waited out.
    Waiting(UnixMillis),
    /// Nobody until then, and then one probe.
    Open(UnixMillis),
    /// Nobody: the probe is on its way.
    HalfOpen,
}

impl Breaker {
    /// True if an attempt may begin.
    pub fn admits(&self, now: UnixMillis) -> bool {
        match self.gate {
            Gate::Closed => true,
            Gate::Waiting(until) | Gate::Open(until) => until <= now,
            Gate::HalfOpen => false,
        }
    }

    /// When [`admits`](Self::admits) becomes true by the passing of time; in the past if it is.
    pub fn admits_at(&self) -> UnixMillis {
        match self.gate {
            Gate::Closed | Gate::HalfOpen => UnixMillis(0),
            Gate::Waiting(until) | Gate::Open(until) => until,
        }
    }

    /// An attempt begins: behind an open gate, it is the probe.
    pub fn begins(&mut self) {
        self.gate = match self.gate {
            Gate::Closed | Gate::Waiting(_) => Gate::Closed,
            Gate::Open(_) | Gate::HalfOpen => Gate::HalfOpen,
        };
    }

    /// All is well.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Counts a failure and waits. `chance` is a random number below 1: all proxies must not come back at once.
    pub fn failed(&mut self, failure: Failure, now: UnixMillis, chance: f64) -> Duration {
        self.count();
        let backoff = backoff(self.failures, chance);
        let (wait, is_open) = match failure {
            Failure::KeyRefused => (OPEN_MAX, true),
            Failure::Passing { .. } if self.failures < FAILURES_MAX => (backoff, false),
            Failure::Passing { left: Duration::ZERO } => (backoff.max(OPEN_MIN), true),
            // Several probes before what is held has ended.
            Failure::Passing { left } => ((left / 4).clamp(OPEN_MIN, OPEN_MAX), true),
        };
        let until = now.plus(wait);
        self.gate = if is_open { Gate::Open(until) } else { Gate::Waiting(until) };
        wait
    }

    /// Counts a failure that nobody has to wait for.
    pub fn count(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Failures since all was well.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Who may pass.
    pub fn gate(&self) -> Gate {
        self.gate
    }
}

/// Anything from the shortest wait to a ceiling that doubles with each failure.
fn backoff(failures: u32, chance: f64) -> Duration {
    let ceiling = BACKOFF_MIN.saturating_mul(1 << failures.min(5)).min(BACKOFF_MAX);
    BACKOFF_MIN + (ceiling - BACKOFF_MIN).mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);
    const NOTHING_HELD: Failure = Failure::Passing { left: Duration::ZERO };

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    /// A breaker that has just opened.
    fn opened(failure: Failure) -> (Breaker, Duration) {
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES_MAX {
            breaker.failed(NOTHING_HELD, NOW, 0.0);
        }
        let wait = breaker.failed(failure, NOW, 0.0);
        (breaker, wait)
    }

    #[test]
    fn waits_grow_from_one_second_to_thirty_and_spread_over_their_whole_length() {
        for (failures, ceiling) in [(1, 2), (2, 4), (3, 8), (4, 16), (5, 30), (6, 30), (1000, 30)] {
            assert_eq!(backoff(failures, 0.0), BACKOFF_MIN);
            assert_eq!(backoff(failures, 1.0), seconds(ceiling));
        }
        assert_eq!(backoff(3, 0.5), Duration::from_millis(4500));
    }

    #[test]
    fn four_failures_are_waited_out_and_the_fifth_opens() {
        let mut breaker = Breaker::default();
        assert!(breaker.admits(NOW));
        for failures in 1..FAILURES_MAX {
            let wait = breaker.failed(NOTHING_HELD, NOW, 0.0);
            assert_eq!((breaker.gate(), breaker.failures()), (Gate::Waiting(NOW.plus(wait)), failures));
            assert!(!breaker.admits(NOW) && breaker.admits(NOW.plus(wait)));
        }
        let wait = breaker.failed(NOTHING_HELD, NOW, 0.0);
        assert_eq!(breaker.gate(), Gate::Open(NOW.plus(wait)));
        assert!(!breaker.admits(NOW.plus(wait - seconds(1))) && breaker.admits(NOW.plus(wait)));
    }

    #[test]
    fn a_success_in_between_starts_the_count_anew() {
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            breaker.failed(NOTHING_HELD, NOW, 0.0);
            breaker.begins();
            breaker.succeeded();
            assert_eq!((breaker.gate(), breaker.failures()), (Gate::Closed, 0));
        }
    }

    #[test]
    fn it_is_open_for_a_quarter_of_what_is_left_from_ten_seconds_to_five_minutes() {
        for (left, open) in [(0, 10), (1, 10), (60, 15), (400, 100), (1200, 300), (86_400, 300)] {
            assert_eq!(opened(Failure::Passing { left: seconds(left) }).1, seconds(open), "{left}");
        }
        let mut breaker = opened(NOTHING_HELD).0;
        assert_eq!(breaker.failed(NOTHING_HELD, NOW, 1.0), seconds(30), "with nothing to wait for, chance has its say");
    }

    #[test]
    fn a_refused_key_opens_it_at_once_for_five_minutes() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.failed(Failure::KeyRefused, NOW, 0.0), seconds(300));
        assert_eq!(breaker.gate(), Gate::Open(NOW.plus(seconds(300))));
    }

    #[test]
    fn one_probe_goes_and_its_success_closes() {
        let (mut breaker, wait) = opened(NOTHING_HELD);
        let later = NOW.plus(wait);
        breaker.begins();
        assert_eq!(breaker.gate(), Gate::HalfOpen);
        assert!(!breaker.admits(later.plus(seconds(3600))), "one probe, for however long it takes");
        breaker.succeeded();
        assert!(breaker.admits(later));
        assert_eq!(breaker.failures(), 0);
    }

    #[test]
    fn a_probe_that_fails_opens_anew() {
        let (mut breaker, wait) = opened(NOTHING_HELD);
        let later = NOW.plus(wait);
        breaker.begins();
        let wait = breaker.failed(NOTHING_HELD, later, 0.0);
        assert_eq!(breaker.gate(), Gate::Open(later.plus(wait)));
        assert_eq!(breaker.failures(), FAILURES_MAX + 1);
    }
}
