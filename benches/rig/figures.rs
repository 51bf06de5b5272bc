//! What was measured, and how it is shown.

use std::time::Duration;

/// What a run of round trips came to.
pub(crate) struct Run {
    pub(crate) round_trips: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) took: Duration,
}

impl Run {
    /// The run whose round trips took these times, and `took` as a whole.
    pub(crate) fn of(mut times: Vec<Duration>, took: Duration) -> Self {
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        Self { round_trips: times.len(), p50: at(50), p99: at(99), took }
    }
}

/// The middle of some values, and how far they spread.
pub(crate) struct Median {
    pub(crate) least: f64,
    pub(crate) middle: f64,
    pub(crate) most: f64,
}

impl Median {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let (least, most) = (values.first().copied(), values.last().copied());
        let middle = values.get(values.len() / 2).copied();
        Self { least: least.unwrap_or_default(), middle: middle.unwrap_or_default(), most: most.unwrap_or_default() }
    }
}

impl std::fmt::Display for Median {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} ({:.1}-{:.1})", self.middle, self.least, self.most)
    }
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[allow(clippy::cast_precision_loss, reason = "no run has 2^52 round trips")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}
