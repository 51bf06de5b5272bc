//! The simulated exchange's clock: the system's, moved by as much as a test asks for.
//!
//! Not a timer: heartbeats and idle limits run on real time.

use crate::fresh::UnixMillis;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock that can be set. Clones share one offset.
#[derive(Debug, Clone, Default)]
pub struct SimClock(Arc<AtomicI64>);

impl SimClock {
    /// The system's time, until it is moved.
    pub fn real() -> Self {
        Self::default()
    }

    /// The time at the exchange.
    pub fn now(&self) -> UnixMillis {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let system = u64::try_from(system).unwrap_or(u64::MAX);
        UnixMillis(system.saturating_add_signed(self.0.load(Ordering::Relaxed)))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(millis(by), Ordering::Relaxed);
    }

    /// Moves the clock back.
    pub fn rewind(&self, by: Duration) {
        self.0.fetch_sub(millis(by), Ordering::Relaxed);
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// A moment as RFC 3339 with microseconds in UTC, as Kraken writes `time_in`.
pub(super) fn rfc3339(at: UnixMillis) -> String {
    let (year, month, day) = civil(at.0 / 86_400_000);
    let of_day = at.0 % 86_400_000;
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}000Z", of_day % 1000)
}

/// The proleptic Gregorian date of a day counted from 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_date_says_it() {
        // `date -u -d @1616492376 +%FT%TZ` and `date -u -d @951782400 +%FT%TZ`.
        assert_eq!(rfc3339(UnixMillis(1_616_492_376_594)), "2021-03-23T09:39:36.594000Z");
        assert_eq!(rfc3339(UnixMillis(951_782_400_000)), "2000-02-29T00:00:00.000000Z");
    }

    #[test]
    fn the_clock_moves_both_ways() {
        let clock = SimClock::real();
        let before = clock.now();
        clock.advance(Duration::from_secs(3600));
        assert!(clock.now().since(before) >= Duration::from_secs(3600));
        clock.rewind(Duration::from_secs(7200));
        assert!(clock.now() < before);
    }
}
