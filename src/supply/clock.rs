//! What time it is: the system's, or one that a test sets.
//!
//! With the simulator, the only place that reads the system's wall clock. Not a timer: waiting is the runtime's.

use crate::fresh::UnixMillis;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of the wall clock's time.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's.
    System,
    /// One that stands still until it is set.
    Set(SetClock),
}

/// A clock that moves only when told to. Clones show the same time.
#[derive(Debug, Clone)]
pub struct SetClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    wall: AtomicU64,
    passed: AtomicU64,
}

impl Clock {
    /// A clock that stands at `start`, and the hand that moves it.
    pub fn set(start: UnixMillis) -> (Self, SetClock) {
        let hand = SetClock(Arc::new(Hands { wall: AtomicU64::new(start.0), passed: AtomicU64::new(0) }));
        (Self::Set(hand.clone()), hand)
    }

    /// The time now. Zero before 1970.
    pub fn now(&self) -> UnixMillis {
        match self {
            Self::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMillis::default().plus(since_epoch)
            }
            Self::Set(clock) => clock.now(),
        }
    }

    /// How much time has passed since some moment, the same for all clones: nobody can set it. A suspended machine may
    /// not count its sleep.
    pub fn passed(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        match self {
            Self::System => START.elapsed(),
            Self::Set(clock) => Duration::from_millis(clock.0.passed.load(Ordering::SeqCst)),
        }
    }
}

impl SetClock {
    /// The time that it shows.
    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.0.wall.load(Ordering::SeqCst))
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.sleep(by);
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.passed.fetch_add(millis, Ordering::SeqCst);
    }

    /// Lets time pass as on a machine that sleeps: the wall clock alone goes on.
    pub fn sleep(&self, by: Duration) {
        self.step(self.now().plus(by));
    }

    /// Jumps to a moment, back or ahead, as a clock does that somebody sets.
    pub fn step(&self, to: UnixMillis) {
        self.0.wall.store(to.0, Ordering::SeqCst);
    }
}

/// Time for what has to end, whatever somebody does to the wall clock: it starts at the wall clock's and never goes
/// back.
///
/// It follows whichever of the two clocks is ahead. The wall clock alone could be put back, and what has ended would
/// live again; the other one alone may stand still while the machine sleeps.
#[derive(Debug, Default)]
pub struct Onward {
    /// How far the wall clock was ahead of the time that had passed, at most.
    lead: Duration,
}

impl Onward {
    /// The time now: milliseconds since 1970 as long as nobody has put the wall clock back.
    pub fn now(&mut self, clock: &Clock) -> UnixMillis {
        let wall = clock.now().since(UnixMillis::default());
        let passed = clock.passed();
        self.lead = self.lead.max(wall.saturating_sub(passed));
        UnixMillis::default().plus(passed + self.lead)
    }
}

/// What time an exchange said it was, carried on by a clock that nobody can set.
///
/// Carrying it on by the wall clock would be no check of the wall clock: both would jump together.
#[derive(Debug, Clone, Copy)]
pub struct VenueTime {
    told: UnixMillis,
    learnt_at: Instant,
}

impl VenueTime {
    /// The time in an answer (its `Date`, to the second) that was read at `learnt_at`.
    pub fn new(told: UnixMillis, learnt_at: Instant) -> Self {
        Self { told, learnt_at }
    }

    /// The exchange's time at a later instant. A suspended machine may not count its sleep: then it is behind until
    /// the next answer.
    pub fn at(&self, instant: Instant) -> UnixMillis {
        self.told.plus(instant.saturating_duration_since(self.learnt_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_clock_moves_for_all_who_hold_it_and_only_when_told() {
        let (clock, hand) = Clock::set(UnixMillis(5_000));
        let other = clock.clone();
        assert_eq!(clock.now(), UnixMillis(5_000));
        hand.advance(Duration::from_secs(2));
        assert_eq!((clock.now(), other.now()), (UnixMillis(7_000), UnixMillis(7_000)));
        hand.step(UnixMillis(1));
        assert_eq!(other.now(), UnixMillis(1));
    }

    #[test]
    fn onward_time_ignores_a_clock_that_is_put_back_and_counts_the_sleep_of_a_machine() {
        let (clock, hand) = Clock::set(UnixMillis(1_000_000));
        let mut onward = Onward::default();
        assert_eq!(onward.now(&clock), UnixMillis(1_000_000));
        hand.advance(Duration::from_secs(5));
        assert_eq!(onward.now(&clock), UnixMillis(1_005_000));
        hand.step(UnixMillis(10));
        assert_eq!(onward.now(&clock), UnixMillis(1_005_000));
        hand.advance(Duration::from_secs(5));
        assert_eq!(onward.now(&clock), UnixMillis(1_010_000));
        hand.step(UnixMillis(1_010_000));
        hand.sleep(Duration::from_secs(3600));
        assert_eq!(onward.now(&clock), UnixMillis(4_610_000));
        hand.step(UnixMillis(20));
        hand.advance(Duration::from_secs(1));
        assert_eq!(onward.now(&clock), UnixMillis(4_611_000));
    }

    #[test]
    fn the_system_clock_is_in_this_century() {
        let now = Clock::System.now();
        assert!(now > UnixMillis::from_seconds(1_700_000_000) && now < UnixMillis::from_seconds(4_102_444_800));
    }

    #[test]
    fn an_exchanges_time_goes_on_without_the_wall_clock() {
        let learnt_at = Instant::now();
        let venue_time = VenueTime::new(UnixMillis(5_000), learnt_at);
        assert_eq!(venue_time.at(learnt_at + Duration::from_secs(90)), UnixMillis(95_000));
        assert_eq!(venue_time.at(learnt_at), UnixMillis(5_000));
    }
}
