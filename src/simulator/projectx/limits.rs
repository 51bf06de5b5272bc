//! How many requests a user may send: the venue's two windows (gateway.docs.projectx.com, "Rate limits").

use crate::fresh::UnixMillis;
use std::collections::VecDeque;

/// `History/retrieveBars`: this many in that many milliseconds.
const BARS: (usize, u64) = (50, 30_000);
/// Everything else.
const OTHERS: (usize, u64) = (200, 60_000);

/// One user's windows.
#[derive(Debug, Default)]
pub(super) struct Limits {
    bars: VecDeque<UnixMillis>,
    others: VecDeque<UnixMillis>,
}

impl Limits {
    /// Counts a request; or the seconds to wait where the window is full.
    pub(super) fn take(&mut self, is_bars: bool, now: UnixMillis) -> Result<(), u64> {
        let (window, (count, span)) = if is_bars { (&mut self.bars, BARS) } else { (&mut self.others, OTHERS) };
        while window.front().is_some_and(|at| at.0 + span <= now.0) {
            window.pop_front();
        }
        match window.front() {
            Some(oldest) if window.len() >= count => Err((oldest.0 + span - now.0).div_ceil(1000)),
            _ => {
                window.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_201st_of_a_minute_waits_for_the_first_to_grow_old() {
        let mut limits = Limits::default();
        for at in 0..200 {
            assert_eq!(limits.take(false, UnixMillis(at)), Ok(()));
        }
        assert_eq!(limits.take(false, UnixMillis(58_500)), Err(2));
        assert_eq!(limits.take(true, UnixMillis(58_500)), Ok(()), "bars are counted apart");
        assert_eq!(limits.take(false, UnixMillis(60_000)), Ok(()));
        assert_eq!(limits.take(false, UnixMillis(60_000)), Err(1));
    }
}
