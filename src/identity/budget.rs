//! How many bad proofs one source may show before it is slowed.
//!
//! Not a limit on good proofs: all bots of a machine share one address, and a broken one among them must not lock
//! out the rest. There is nothing here to call for a proof that was accepted.

use crate::fresh::UnixMillis;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// What a source is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bad proofs of one source in `within` that are answered at once.
    pub failures_max: usize,
    /// The time in which failures are counted.
    pub within: Duration,
    /// How long the answer to a bad proof is held back once the source is past its budget.
    pub slowed_by: Duration,
    /// Connections without an accepted proof that a source past its budget may hold.
    pub unproved_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { failures_max: 20, within: Duration::from_secs(60), slowed_by: Duration::from_secs(1), unproved_max: 32 }
    }
}

/// Sources that are remembered. With 20 times of 8 bytes each, under 1 MiB.
pub const SOURCES_MAX: usize = 4096;

/// Where a connection comes from: the bits of its address, an IPv4 address mapped into IPv6.
///
/// One IPv6 host owns a whole /64: whoever makes a source of such an address clears its lower half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(pub u128);

/// The failures of all sources, and their unproved connections.
#[derive(Debug, Default)]
pub struct FailureBudget {
    limits: Limits,
    /// The latest failures of each source, oldest first, at most `failures_max`; none is empty.
    failures: HashMap<Source, VecDeque<UnixMillis>>,
    /// Apart from the failures, so that forgetting those miscounts no connection. Bounded by the open connections.
    unproved: HashMap<Source, usize>,
}

/// One counted connection. To be given back to [`FailureBudget::closed_unproved`] when it is proved or closed.
#[derive(Debug)]
#[must_use = "a connection that is not given back is counted for ever"]
pub struct Unproved(Source);

impl FailureBudget {
    /// A budget that nobody has touched.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Counts a bad proof, and says how long its answer has to wait: not at all for the first
    /// `failures_max` within `within`, then `slowed_by` for each.
    #[must_use = "the answer has to wait this long"]
    pub fn failed(&mut self, source: Source, now: UnixMillis) -> Duration {
        let is_spent = self.is_spent(source, now);
        if !self.failures.contains_key(&source) && self.failures.len() >= SOURCES_MAX {
            self.forget_oldest(now);
        }
        let times = self.failures.entry(source).or_default();
        if times.len() >= self.limits.failures_max {
            times.pop_front();
        }
        times.push_back(now);
        if is_spent { self.limits.slowed_by } else { Duration::ZERO }
    }

    /// Counts one more connection without an accepted proof; `None` if the source may not have it.
    ///
    /// A source within its budget may have any number: bots that start together all connect before they log in.
    pub fn open_unproved(&mut self, source: Source, now: UnixMillis) -> Option<Unproved> {
        let open = self.unproved.get(&source).copied().unwrap_or(0);
        if open >= self.limits.unproved_max && self.is_spent(source, now) {
            return None;
        }
        self.unproved.insert(source, open + 1);
        Some(Unproved(source))
    }

    /// Takes back a connection that has been proved, or has closed.
    #[expect(clippy::needless_pass_by_value, reason = "taking it makes a second call impossible")]
    pub fn closed_unproved(&mut self, unproved: Unproved) {
        let Unproved(source) = unproved;
        let left = self.unproved.get(&source).map_or(0, |open| open - 1);
        if left == 0 {
            self.unproved.remove(&source);
        } else {
            self.unproved.insert(source, left);
        }
    }

    /// True if the source has used up its budget.
    fn is_spent(&self, source: Source, now: UnixMillis) -> bool {
        let times = self.failures.get(&source);
        times.is_some_and(|times| {
            times.len() >= self.limits.failures_max
                && times.iter().all(|at| *at <= now && now.since(*at) < self.limits.within)
        })
    }

    /// Makes room: drops sources whose failures are all over, and if there are none, the one that failed longest ago.
    fn forget_oldest(&mut self, now: UnixMillis) {
        let within = self.limits.within;
        let latest = |times: &VecDeque<UnixMillis>| times.back().copied().unwrap_or_default();
        self.failures.retain(|_, times| now.since(latest(times)) < within);
        if self.failures.len() >= SOURCES_MAX {
            let oldest = self.failures.iter().min_by_key(|(_, times)| latest(times)).map(|(source, _)| *source);
            if let Some(oldest) = oldest {
                self.failures.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURES_MAX: usize = 20;
    const UNPROVED_MAX: usize = 32;
    const WINDOW: Duration = Duration::from_secs(60);
    const SLOWED_BY: Duration = Duration::from_secs(1);

    const A: Source = Source(1);
    const B: Source = Source(2);
    const START: UnixMillis = UnixMillis(1_700_000_000_000);

    fn spent(now: UnixMillis) -> FailureBudget {
        let mut budget = FailureBudget::new(Limits::default());
        for _ in 0..FAILURES_MAX {
            assert_eq!(budget.failed(A, now), Duration::ZERO);
        }
        budget
    }

    #[test]
    fn twenty_failures_are_answered_at_once_and_the_next_after_a_second() {
        let mut budget = spent(START);
        assert_eq!(budget.failed(A, START), SLOWED_BY);
        assert_eq!(budget.failed(A, START.plus(Duration::from_secs(59))), SLOWED_BY);
    }

    #[test]
    fn one_source_does_not_slow_another() {
        let mut budget = spent(START);
        assert_eq!(budget.failed(B, START), Duration::ZERO);
        assert_eq!(budget.failed(A, START), SLOWED_BY);
    }

    #[test]
    fn a_failure_counts_for_sixty_seconds() {
        let mut budget = spent(START);
        assert_eq!(budget.failed(A, START.plus(WINDOW - Duration::from_millis(1))), SLOWED_BY);
        let mut budget = spent(START);
        assert_eq!(budget.failed(A, START.plus(WINDOW)), Duration::ZERO);
    }

    #[test]
    fn the_window_slides() {
        let slowed = |every: Duration| {
            let mut budget = FailureBudget::new(Limits::default());
            let failures = (0..100).map(|index| budget.failed(A, START.plus(every * index)));
            failures.filter(|delay| !delay.is_zero()).count()
        };
        assert_eq!(slowed(Duration::from_millis(3000)), 0, "20 in any 60 s");
        assert_eq!(slowed(Duration::from_millis(2999)), 80, "21 in any 60 s, but for the first 20");
    }

    #[test]
    fn a_source_within_its_budget_may_open_any_number_of_unproved_connections() {
        let mut budget = FailureBudget::new(Limits::default());
        let open: Vec<_> = (0..1000).filter_map(|_| budget.open_unproved(A, START)).collect();
        assert_eq!(open.len(), 1000);
    }

    #[test]
    fn a_source_past_its_budget_holds_at_most_thirty_two() {
        let mut budget = spent(START);
        let mut open: Vec<_> = (0..UNPROVED_MAX).filter_map(|_| budget.open_unproved(A, START)).collect();
        assert_eq!(open.len(), UNPROVED_MAX);
        assert!(budget.open_unproved(A, START).is_none());
        assert!(budget.open_unproved(B, START).is_some(), "another source is not concerned");
        budget.closed_unproved(open.pop().expect("32 are open"));
        assert!(budget.open_unproved(A, START).is_some(), "one left, one may come");
        assert!(budget.open_unproved(A, START).is_none());
        assert!(budget.open_unproved(A, START.plus(WINDOW)).is_some(), "the failures are over");
    }

    #[test]
    fn nothing_is_kept_of_connections_that_have_closed() {
        let mut budget = FailureBudget::new(Limits::default());
        let open: Vec<_> = (0..3).filter_map(|_| budget.open_unproved(A, START)).collect();
        for unproved in open {
            budget.closed_unproved(unproved);
        }
        assert!(budget.unproved.is_empty());
    }

    #[test]
    fn a_flood_of_sources_forgets_the_oldest_and_miscounts_no_connection() {
        let mut budget = spent(START);
        let open: Vec<_> = (0..UNPROVED_MAX).filter_map(|_| budget.open_unproved(A, START)).collect();
        let later = START.plus(Duration::from_secs(1));
        for source in 0..SOURCES_MAX as u128 {
            assert_eq!(budget.failed(Source(1000 + source), later), Duration::ZERO);
        }
        assert_eq!(budget.failures.len(), SOURCES_MAX);
        assert!(!budget.failures.contains_key(&A), "the oldest was forgotten");
        assert_eq!(budget.unproved.get(&A), Some(&open.len()));
    }

    #[test]
    fn sources_whose_failures_are_over_make_room_first() {
        let mut budget = FailureBudget::new(Limits::default());
        for source in 0..SOURCES_MAX as u128 {
            assert_eq!(budget.failed(Source(source), START), Duration::ZERO);
        }
        assert_eq!(budget.failed(Source(u128::MAX), START.plus(WINDOW)), Duration::ZERO);
        assert_eq!(budget.failures.len(), 1);
    }
}
