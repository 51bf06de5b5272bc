//! How many lines about refused requests the log takes: a client in a loop must not fill the disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines a second, whoever causes them. A person cannot read more, and the count of the others is told.
const LINES_PER_SECOND: u32 = 20;

/// Lets so many lines through each second, and counts the others.
pub struct Throttle(Mutex<State>);

struct State {
    since: Instant,
    lines: u32,
    kept_back: u64,
}

impl Throttle {
    /// Counts from now on.
    pub fn new() -> Self {
        Self(Mutex::new(State { since: Instant::now(), lines: 0, kept_back: 0 }))
    }

    /// Asks for a line. `None`: not this one. Else how many were kept back since the last.
    pub(super) fn line(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.since) >= Duration::from_secs(1) {
            state.since = now;
            state.lines = 0;
        }
        if state.lines >= LINES_PER_SECOND {
            state.kept_back += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.kept_back))
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_twenty_in_a_second_lines_are_counted_and_the_count_is_told() {
        let (throttle, start) = (Throttle::new(), Instant::now());
        for _ in 0..LINES_PER_SECOND {
            assert_eq!(throttle.line(start), Some(0));
        }
        assert_eq!((throttle.line(start), throttle.line(start)), (None, None));
        let later = start + Duration::from_millis(1100);
        assert_eq!((throttle.line(later), throttle.line(later)), (Some(2), Some(0)));
    }
}
