//! Which nonces a key has used: the exchange's side of "once, and greater than all before".

use std::collections::{BTreeSet, VecDeque};

/// Nonces remembered for each key: as many as a test looks back at, and as a window can hold.
const REMEMBERED_MAX: usize = 10_000;

/// The nonces of one key.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    greatest: Option<u64>,
    in_order: VecDeque<u64>,
    seen: BTreeSet<u64>,
}

impl Nonces {
    /// Takes a nonce if it is greater than all before, or new and at most `window` below the greatest.
    pub(super) fn accept(&mut self, nonce: u64, window: u64) -> bool {
        if let Some(greatest) = self.greatest
            && (nonce.saturating_add(window) <= greatest || self.seen.contains(&nonce))
        {
            return false;
        }
        self.greatest = self.greatest.max(Some(nonce));
        self.in_order.push_back(nonce);
        self.seen.insert(nonce);
        if self.in_order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    /// Those accepted, in the order in which they came, the last 10,000.
    pub(super) fn accepted(&self) -> Vec<u64> {
        self.in_order.iter().copied().collect()
    }

    /// Makes every nonce up to this one too small, as if another program had used the key.
    pub(super) fn raise(&mut self, to: u64) {
        self.greatest = self.greatest.max(Some(to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_window_only_greater_nonces_pass() {
        let mut nonces = Nonces::default();
        assert!(nonces.accept(5, 0));
        assert!(!nonces.accept(5, 0));
        assert!(!nonces.accept(4, 0));
        assert!(nonces.accept(6, 0));
        assert_eq!(nonces.accepted(), [5, 6]);
    }

    #[test]
    fn a_window_takes_late_nonces_but_none_twice() {
        let mut nonces = Nonces::default();
        assert!(nonces.accept(100, 10));
        assert!(nonces.accept(91, 10));
        assert!(!nonces.accept(91, 10));
        assert!(!nonces.accept(90, 10));
    }
}
