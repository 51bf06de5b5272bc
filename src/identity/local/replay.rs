//! Which signatures of one local key were seen: each counts once.
//!
//! Two rules. A signature among the last [`SIGNATURES_MAX`] is a replay. So is a nonce that counts time and lies more
//! than [`WINDOW`] below the highest of its unit, or below the moment at which this memory began: what was signed
//! before that, nobody here remembers. Order is no rule: ten processes may share one key.
//!
//! What this asks of bots: those that share a key have clocks within the window of each other; a bot's clock is not
//! further than that behind the proxy's (they normally share a host); and a bot that takes the time once and then
//! counts by one has to be started again when the proxy was, because its numbers look like the past. A nonce that is
//! no time in any unit is a counter, and held to the first rule alone.

use crate::credential::sha256;
use crate::fresh::UnixMillis;
use crate::identity::NotAuthenticated;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// Signatures of one key that are remembered: 166 a second for as long as the window. At most half a megabyte a key.
pub(super) const SIGNATURES_MAX: usize = 10_000;

/// How far a nonce may lie below the highest: requests of several processes overtake each other on their way.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// A number further ahead than this is no time: it would keep every honest one out until a restart.
const AHEAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Units of time that bots count nonces in: tenths of the one before, from seconds to billionths.
const UNITS: usize = 10;

/// What is remembered of one key.
pub(super) struct Memory {
    seen: HashSet<u64>,
    /// The same in the order in which they came, each with its nonce.
    order: VecDeque<(u64, u64)>,
    marks: [Mark; UNITS],
}

/// What is remembered of the nonces of one unit.
#[derive(Clone, Copy)]
struct Mark {
    highest: u64,
    /// The highest nonce whose signature is forgotten. Without it, a forgotten one could come again within the window.
    forgotten: u64,
}

impl Memory {
    /// An empty memory, which knows nothing of what was before this moment.
    pub(super) fn since(began_at: UnixMillis) -> Self {
        let marks = std::array::from_fn(|unit| Mark { highest: count(began_at, unit), forgotten: 0 });
        Self { seen: HashSet::new(), order: VecDeque::new(), marks }
    }

    /// Takes note of a signature, which has been verified: only the key's holder can fill this memory.
    pub(super) fn admit(&mut self, signature: &[u8], nonce: u64, now: UnixMillis) -> Result<(), NotAuthenticated> {
        let signature = short(signature);
        if self.seen.contains(&signature) {
            return Err(NotAuthenticated::Replayed);
        }
        if let Some(unit) = unit_of(nonce, now) {
            let mark = &mut self.marks[unit];
            if nonce <= mark.forgotten || nonce.saturating_add(span(WINDOW, unit)) < mark.highest {
                return Err(NotAuthenticated::NonceTooOld);
            }
            mark.highest = mark.highest.max(nonce);
        }
        if self.order.len() == SIGNATURES_MAX
            && let Some((oldest, nonce)) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
            if let Some(unit) = unit_of(nonce, now) {
                self.marks[unit].forgotten = self.marks[unit].forgotten.max(nonce);
            }
        }
        self.seen.insert(signature);
        self.order.push_back((signature, nonce));
        Ok(())
    }
}

/// Which unit a nonce counts time in: the one in which it means a moment since half of the time that has passed since
/// 1970, and not far ahead. Units are ten times apart, so that there is one at most.
fn unit_of(nonce: u64, now: UnixMillis) -> Option<usize> {
    (0..UNITS).find(|unit| {
        let present = count(now, *unit);
        (present / 2..=present.saturating_add(span(AHEAD_MAX, *unit))).contains(&nonce)
    })
}

/// A moment in a unit.
fn count(moment: UnixMillis, unit: usize) -> u64 {
    span(Duration::from_millis(moment.0), unit)
}

/// A duration in a unit; the largest number there is, if it is longer.
fn span(duration: Duration, unit: usize) -> u64 {
    let per_second = std::iter::repeat_n(10_u128, unit).product::<u128>();
    u64::try_from(duration.as_nanos().saturating_mul(per_second) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// Enough of a signature to know it again. Two alike by chance would cost one request in 10^15.
fn short(signature: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = sha256(&[signature]);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-09-21T13:46:40Z.
    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn memory() -> Memory {
        Memory::since(NOW)
    }

    /// A signature that no other nonce has.
    fn signature(nonce: u64) -> [u8; 8] {
        nonce.to_be_bytes()
    }

    fn admit(memory: &mut Memory, nonce: u64) -> Result<(), NotAuthenticated> {
        memory.admit(&signature(nonce), nonce, NOW)
    }

    #[test]
    fn a_signature_counts_once() {
        let mut memory = memory();
        assert_eq!(memory.admit(b"signed", 7, NOW), Ok(()));
        assert_eq!(memory.admit(b"signed", 7, NOW), Err(NotAuthenticated::Replayed));
        assert_eq!(memory.admit(b"signed", 8, NOW), Err(NotAuthenticated::Replayed));
        assert_eq!(memory.admit(b"other", 7, NOW), Ok(()), "a counter is held to signatures alone");
    }

    #[test]
    fn nonces_may_overtake_each_other_by_a_minute_and_no_more_in_every_unit() {
        for unit in 0..UNITS {
            let mut memory = memory();
            let (present, minute) = (count(NOW, unit), span(WINDOW, unit));
            assert_eq!(admit(&mut memory, present + 2 * minute), Ok(()), "unit {unit}");
            assert_eq!(admit(&mut memory, present + minute), Ok(()), "unit {unit}");
            assert_eq!(admit(&mut memory, present + minute - 1), Err(NotAuthenticated::NonceTooOld), "unit {unit}");
        }
    }

    #[test]
    fn units_do_not_judge_each_other() {
        let mut memory = memory();
        for nonce in [1_790_000_000_000_000_000, 1_790_000_000_000, 179_000_000_000_000_000, 1_790_000_000_000_000] {
            assert_eq!(admit(&mut memory, nonce), Ok(()));
        }
        assert_eq!(admit(&mut memory, 3), Ok(()), "and a counter is none of them");
    }

    #[test]
    fn what_was_signed_a_minute_before_the_memory_began_is_refused() {
        let mut memory = memory();
        assert_eq!(admit(&mut memory, NOW.0 - 60_001), Err(NotAuthenticated::NonceTooOld));
        assert_eq!(admit(&mut memory, NOW.0 - 60_000), Ok(()));
        let last_year = NOW.0 - 365 * 24 * 60 * 60 * 1000;
        assert_eq!(admit(&mut memory, last_year), Err(NotAuthenticated::NonceTooOld));
    }

    #[test]
    fn a_number_far_ahead_does_not_keep_honest_ones_out() {
        let mut memory = memory();
        assert_eq!(admit(&mut memory, NOW.0 * 2), Ok(()));
        assert_eq!(admit(&mut memory, NOW.0), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_what_it_forgets_stays_refused() {
        let mut memory = memory();
        let most = u64::try_from(SIGNATURES_MAX).expect("is small");
        for step in 0..=most {
            assert_eq!(admit(&mut memory, NOW.0 + step), Ok(()));
        }
        assert_eq!((memory.order.len(), memory.seen.len()), (SIGNATURES_MAX, SIGNATURES_MAX));
        assert_eq!(admit(&mut memory, NOW.0), Err(NotAuthenticated::NonceTooOld), "the forgotten one");
        assert_eq!(admit(&mut memory, NOW.0 + 1), Err(NotAuthenticated::Replayed), "a remembered one");
    }

    #[test]
    fn the_unit_is_told_by_the_size_of_the_number() {
        for (nonce, unit) in [
            (1_790_000_000, Some(0)),
            (1_790_000_000_123, Some(3)),
            (1_790_000_000_123_456, Some(6)),
            (179_000_000_012_345_678, Some(8)),
            (1_790_000_000_123_456_789, Some(9)),
            (0, None),
            (1, None),
            (123_456_789, None),
            (u64::MAX, None),
        ] {
            assert_eq!(unit_of(nonce, NOW), unit, "{nonce}");
        }
    }
}
