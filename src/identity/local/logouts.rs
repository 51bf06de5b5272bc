//! Placeholders that their bots gave up before their end.
//!
//! In memory alone: a placeholder that was given up is taken again by the next start of the program, until its own
//! end. Whoever lost one raises the client's generation, which is for good.

use crate::fresh::UnixMillis;
use std::collections::BTreeSet;

/// Placeholders that are remembered. What is over is forgotten first; then what ends next, since it is worth least.
pub(super) const LOGOUTS_MAX: usize = 10_000;

/// What was given up: the end and the number of each, in the order in which they end.
#[derive(Default)]
pub(super) struct Logouts(BTreeSet<(UnixMillis, [u8; 16])>);

impl Logouts {
    /// Takes note of a placeholder that was given up.
    pub(super) fn add(&mut self, ends_at: UnixMillis, id: [u8; 16], now: UnixMillis) {
        while self.0.first().is_some_and(|(ends_at, _)| *ends_at <= now) {
            self.0.pop_first();
        }
        self.0.insert((ends_at, id));
        if self.0.len() > LOGOUTS_MAX {
            self.0.pop_first();
        }
    }

    /// True if it was given up.
    pub(super) fn hold(&self, ends_at: UnixMillis, id: [u8; 16]) -> bool {
        self.0.contains(&(ends_at, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> [u8; 16] {
        std::array::from_fn(|place| if place < 8 { number.to_be_bytes()[place] } else { 0 })
    }

    #[test]
    fn what_was_given_up_is_held_until_its_end_and_then_forgotten() {
        let mut logouts = Logouts::default();
        logouts.add(UnixMillis(10), id(1), UnixMillis(0));
        assert!(logouts.hold(UnixMillis(10), id(1)));
        assert!(!logouts.hold(UnixMillis(10), id(2)));
        logouts.add(UnixMillis(20), id(2), UnixMillis(10));
        assert_eq!(logouts.0.len(), 1, "what is over takes no room");
        assert!(logouts.hold(UnixMillis(20), id(2)));
    }

    #[test]
    fn the_list_is_bounded_and_what_ends_next_makes_room() {
        let mut logouts = Logouts::default();
        let most = u64::try_from(LOGOUTS_MAX).expect("is small");
        for number in 1..=most + 1 {
            logouts.add(UnixMillis(1000 + number), id(number), UnixMillis(0));
        }
        assert_eq!(logouts.0.len(), LOGOUTS_MAX);
        assert!(!logouts.hold(UnixMillis(1001), id(1)));
        assert!(logouts.hold(UnixMillis(1001 + most), id(most + 1)));
    }
}
