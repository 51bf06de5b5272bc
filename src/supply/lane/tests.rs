use super::*;
use proptest::prelude::*;

const START: UnixMillis = UnixMillis(1_790_000_000_000);
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const YEAR: u64 = 365 * 24 * HOUR;
/// 2^53 - 1: what Bitfinex takes.
const BITFINEX_MAX: u64 = 9_007_199_254_740_991;

/// A key in use: a lane, the disk under it, the clocks, and an exchange that remembers the last nonce.
struct Key {
    unit: NonceUnit,
    max: u64,
    disk: Option<Mark>,
    lane: NonceLane,
    now: UnixMillis,
    venue_now: Option<UnixMillis>,
    last: Option<u64>,
}

impl Key {
    fn new(unit: NonceUnit, max: u64) -> Self {
        let lane = NonceLane::new(unit, max, None).expect("no state, no other unit");
        Self { unit, max, disk: None, lane, now: START, venue_now: None, last: None }
    }

    fn nanoseconds() -> Self {
        Self::new(NonceUnit::Nanoseconds, u64::MAX)
    }

    /// With a mark on disk that was reserved at [`START`].
    fn used() -> Self {
        let mut key = Self::nanoseconds();
        key.take_one();
        key
    }

    fn crash(&mut self) {
        self.lane = NonceLane::new(self.unit, self.max, self.disk).expect("the same unit");
    }

    fn want(&mut self) -> Option<Reservation> {
        let reservation = self.lane.wanted(self.now, self.venue_now)?;
        self.check_first(&reservation);
        Some(reservation)
    }

    /// I-N2: the clock alone raises a number by a minute at most.
    fn check_first(&self, reservation: &Reservation) {
        let first = reservation.block.next;
        let Some(before) = self.lane.reserved else { return };
        assert!(first > before, "a block begins inside one that was reserved");
        let minute = 60 * self.unit.per_second();
        let is_confirmed = self.venue_now.is_some_and(|venue| venue.0.abs_diff(self.now.0) <= MINUTE);
        let was_tried = Some(first) == self.lane.tried;
        assert!(first == before + 1 || was_tried || first - before <= minute || is_confirmed, "an unconfirmed jump");
        assert!(first == before + 1 || was_tried || first == self.unit.at(self.now), "neither last+1 nor now");
    }

    fn persist(&mut self, reservation: &Reservation) {
        assert!(
            self.disk.is_none_or(|disk| disk.reserved <= reservation.mark().reserved),
            "the mark on disk would fall: {:?} to {:?}",
            self.disk,
            reservation.mark()
        );
        self.disk = Some(reservation.mark());
    }

    fn reserve(&mut self) {
        if let Some(reservation) = self.want() {
            self.persist(&reservation);
            self.lane.reserved(reservation);
        }
    }

    fn try_take(&mut self) -> Result<Option<u64>, LaneStopped> {
        let Some(Nonce(nonce)) = self.lane.next_nonce()? else { return Ok(None) };
        assert!(self.last.is_none_or(|last| nonce > last), "{nonce} after {:?}", self.last);
        assert!(self.disk.is_some_and(|disk| nonce <= disk.reserved), "{nonce} was not on disk");
        assert!(nonce <= self.max, "{nonce} is above the venue's limit");
        self.last = Some(nonce);
        Ok(Some(nonce))
    }

    fn take_one(&mut self) -> u64 {
        self.reserve();
        self.try_take().expect("not stopped").expect("reserved")
    }

    fn take(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.take_one()).collect()
    }

    /// Empties the blocks as a long run would, without a restart.
    fn use_up_blocks(&mut self) {
        self.lane.current = Block::default();
        self.lane.ahead = None;
    }

    fn resync(&mut self) {
        assert_eq!(self.lane.resync(self.now, None).is_err(), self.lane.is_frozen());
    }
}

#[test]
fn the_first_nonce_of_a_key_is_now_and_the_rest_follow_it() {
    let mut key = Key::nanoseconds();
    assert_eq!(key.try_take(), Ok(None), "nothing before it is on disk");
    let first = key.unit.at(START);
    assert_eq!(key.take(3), [first, first + 1, first + 2]);
}

#[test]
fn a_block_is_on_disk_before_its_first_number_is_used() {
    let mut key = Key::nanoseconds();
    let reservation = key.want().expect("nothing reserved yet");
    assert_eq!(key.try_take(), Ok(None));
    assert_eq!(reservation.mark().reserved, key.unit.at(START) + BLOCK - 1);
    key.persist(&reservation);
    key.lane.reserved(reservation);
    assert_eq!(key.try_take(), Ok(Some(key.unit.at(START))));
}

#[test]
fn the_next_block_is_wanted_at_half_and_once() {
    let mut key = Key::nanoseconds();
    key.take_one();
    for _ in 1..BLOCK / 2 {
        assert!(key.want().is_none(), "too early");
        key.try_take().expect("not stopped").expect("in the block");
    }
    let reservation = key.want().expect("half is used");
    assert!(key.want().is_none(), "one write at a time");
    for _ in 0..BLOCK / 2 {
        key.try_take().expect("not stopped").expect("the other half does not wait for the disk");
    }
    assert_eq!(key.try_take(), Ok(None));
    key.persist(&reservation);
    key.lane.reserved(reservation);
    key.try_take().expect("not stopped").expect("the next block");
}

#[test]
fn a_crash_between_want_and_persist_repeats_nothing() {
    let mut key = Key::used();
    key.take(600);
    key.crash();
    let _lost = key.want().expect("wanted");
    key.crash();
    key.take(3000);
}

#[test]
fn a_crash_between_persist_and_use_skips_the_block() {
    let mut key = Key::used();
    key.crash();
    let reservation = key.want().expect("wanted");
    key.persist(&reservation);
    key.crash();
    let skipped = reservation.mark().reserved;
    assert_eq!(key.take_one(), skipped + 1);
}

#[test]
fn a_thousand_crashes_repeat_no_nonce() {
    for (unit, max) in [(NonceUnit::Nanoseconds, u64::MAX), (NonceUnit::Microseconds, BITFINEX_MAX)] {
        let mut key = Key::new(unit, max);
        let mut seen = std::collections::HashSet::new();
        for crash in 0..1_000_usize {
            for _ in 0..crash * 7 % 1_300 {
                assert!(seen.insert(key.take_one()));
            }
            match crash % 3 {
                0 => {
                    let _lost = key.want();
                }
                1 => {
                    if let Some(reservation) = key.want() {
                        key.persist(&reservation);
                    }
                }
                _ => {}
            }
            key.crash();
        }
        assert!(seen.len() > 500_000);
    }
}

#[test]
fn n6_a_clock_set_back_continues_at_last_plus_one_and_is_told_once() {
    for back in [HOUR, YEAR] {
        let mut key = Key::used();
        key.now = UnixMillis(START.0 - back);
        key.venue_now = Some(START);
        key.crash();
        let reserved = key.disk.expect("used").reserved;
        let reservation = key.want().expect("wanted");
        assert_eq!(reservation.doubt(), Some(ClockDoubt::Behind));
        key.persist(&reservation);
        key.lane.reserved(reservation);
        assert_eq!(key.take_one(), reserved + 1);
        key.take(499);
        let again = key.want().expect("half is used");
        assert_eq!(again.doubt(), None, "told twice");
    }
}

#[test]
fn n6_a_doubt_that_ended_and_came_back_is_told_again() {
    let mut key = Key::used();
    for (now, doubt) in [
        (START.0 - HOUR, Some(ClockDoubt::Behind)),
        (START.0 + 1, None),
        (START.0 - HOUR, Some(ClockDoubt::Behind)),
        (START.0 + YEAR, Some(ClockDoubt::JumpNotConfirmed)),
    ] {
        key.now = UnixMillis(now);
        key.use_up_blocks();
        let reservation = key.want().expect("wanted");
        assert_eq!(reservation.doubt(), doubt);
        key.persist(&reservation);
        key.lane.reserved(reservation);
    }
}

#[test]
fn n6_a_jump_ahead_over_a_minute_waits_for_the_exchanges_word() {
    for ahead in [HOUR, YEAR] {
        for venue_now in [None, Some(START), Some(UnixMillis(START.0 + ahead + MINUTE + 1))] {
            let mut key = Key::used();
            key.crash();
            key.now = UnixMillis(START.0 + ahead);
            key.venue_now = venue_now;
            let reserved = key.disk.expect("used").reserved;
            let reservation = key.want().expect("wanted");
            assert_eq!(reservation.doubt(), Some(ClockDoubt::JumpNotConfirmed), "{venue_now:?}");
            assert_eq!(reservation.block.next, reserved + 1);
        }
        for venue_now in [ahead - MINUTE, ahead, ahead + MINUTE] {
            let mut key = Key::used();
            key.crash();
            key.now = UnixMillis(START.0 + ahead);
            key.venue_now = Some(UnixMillis(START.0 + venue_now));
            assert_eq!(key.take_one(), key.unit.at(key.now));
        }
    }
}

#[test]
fn n6_a_jump_ahead_of_a_minute_is_taken_and_one_number_more_is_not() {
    let mut key = Key::new(NonceUnit::Milliseconds, u64::MAX);
    key.take_one();
    let reserved = key.disk.expect("used").reserved;
    key.crash();
    key.now = UnixMillis(reserved + MINUTE + 1);
    assert_eq!(key.want().expect("wanted").block.next, reserved + 1);
    key.crash();
    key.now = UnixMillis(reserved + MINUTE);
    assert_eq!(key.take_one(), reserved + MINUTE);
}

#[test]
fn a_clock_that_stands_on_the_last_reserved_number_does_not_repeat_it() {
    let mut key = Key::new(NonceUnit::Milliseconds, u64::MAX);
    key.take_one();
    let reserved = key.disk.expect("used").reserved;
    key.crash();
    key.now = UnixMillis(reserved);
    assert_eq!(key.take_one(), reserved + 1);
}

#[test]
fn n6_a_frozen_clock_goes_on_by_one() {
    let mut key = Key::used();
    let first = key.last.expect("used");
    let nonces = key.take(5_000);
    assert!(nonces.iter().zip(first + 1..).all(|(nonce, expected)| *nonce == expected));
}

#[test]
fn n7_a_failed_write_uses_the_block_up_then_stops_then_recovers() {
    for lands in [false, true] {
        let mut key = Key::used();
        let mut taken = 1;
        while key.lane.current.left > 0 {
            if let Some(reservation) = key.want() {
                if lands {
                    key.persist(&reservation);
                }
                key.lane.failed_to_reserve(reservation);
            }
            key.try_take().expect("not stopped yet").expect("in the block");
            taken += 1;
        }
        assert_eq!(taken, BLOCK);
        assert_eq!(key.try_take(), Err(LaneStopped::NotPersisted));
        key.now = UnixMillis(START.0 - HOUR);
        key.take_one();
        while key.lane.current.left > 0 {
            key.try_take().expect("not stopped").expect("in the block");
        }
        assert_eq!(key.try_take(), Ok(None), "still stopped after a write that succeeded");
    }
}

#[test]
fn n7_a_first_block_that_cannot_be_written_is_never_used() {
    let mut key = Key::nanoseconds();
    let reservation = key.want().expect("wanted");
    key.lane.failed_to_reserve(reservation);
    assert_eq!(key.try_take(), Err(LaneStopped::NotPersisted));
}

#[test]
fn n12_a_refused_nonce_drops_the_block_and_jumps_to_the_clock() {
    let mut key = Key::used();
    key.take(600);
    assert!(key.lane.ahead.is_some());
    key.now = UnixMillis(START.0 + 10 * MINUTE);
    key.venue_now = Some(key.now);
    assert_eq!(key.lane.resync(key.now, None), Ok(()));
    assert_eq!(key.try_take(), Ok(None));
    assert_eq!(key.take_one(), key.unit.at(key.now));
}

#[test]
fn n12_a_block_asked_for_before_the_refusal_is_not_used_after_it() {
    let mut key = Key::used();
    key.crash();
    let stale = key.want().expect("wanted");
    key.now = UnixMillis(START.0 + 1_000);
    key.lane.resync(key.now, None).expect("the first");
    assert!(key.want().is_none(), "one write at a time");
    key.persist(&stale);
    key.lane.reserved(stale);
    assert_eq!(key.try_take(), Ok(None));
    assert_eq!(key.take_one(), key.unit.at(key.now));
}

#[test]
fn n12_the_third_refusal_in_a_minute_freezes_until_a_person_says_so() {
    let mut key = Key::used();
    for after in [0, 30_000] {
        assert_eq!(key.lane.resync(UnixMillis(START.0 + after), None), Ok(()));
    }
    assert_eq!(key.lane.resync(UnixMillis(START.0 + MINUTE), None), Err(LaneStopped::Frozen));
    assert!(key.lane.is_frozen());
    key.now = UnixMillis(START.0 + YEAR);
    assert!(key.want().is_none());
    assert_eq!(key.try_take(), Err(LaneStopped::Frozen));
    key.lane.unfreeze();
    key.take_one();
    assert_eq!(key.lane.resync(UnixMillis(START.0 + MINUTE), None), Ok(()), "counts from zero again");
}

#[test]
fn n12_refusals_more_than_a_minute_apart_do_not_freeze() {
    let mut key = Key::used();
    for refusal in 0..10 {
        assert_eq!(key.lane.resync(UnixMillis(START.0 + refusal * 31_000), None), Ok(()));
    }
}

#[test]
fn one_clients_refused_nonces_freeze_no_key() {
    let mut key = Key::used();
    let bot = ClientName::parse("bot-a").expect("a name");
    for _ in 0..100 {
        assert_eq!(key.lane.resync(key.now, Some(&bot)), Ok(()));
    }
    assert!(key.lane.refusals.len() <= REFUSALS_MAX, "memory grows with each");
    assert_eq!(key.lane.resync(key.now, None), Ok(()), "one of the house's own is still an accident");
    key.take_one();
}

#[test]
fn refused_nonces_of_two_clients_freeze_the_key() {
    let mut key = Key::used();
    let bots = ["bot-a", "bot-b"].map(|bot| ClientName::parse(bot).expect("a name"));
    for _ in 0..2 {
        assert_eq!(key.lane.resync(key.now, Some(&bots[0])), Ok(()));
    }
    assert_eq!(key.lane.resync(key.now, Some(&bots[1])), Err(LaneStopped::Frozen));
}

#[test]
fn n13_another_unit_than_the_recorded_one_is_refused_with_the_reason() {
    let mark = Mark { unit: NonceUnit::Milliseconds, reserved: 1 };
    let refused = NonceLane::new(NonceUnit::Microseconds, u64::MAX, Some(mark)).expect_err("changed");
    assert_eq!(refused.recorded, NonceUnit::Milliseconds);
    assert!(refused.to_string().contains("set `nonce_unit = \"ms\"`"), "{refused}");
    assert!(NonceLane::new(NonceUnit::Milliseconds, u64::MAX, Some(mark)).is_ok());
}

#[test]
fn no_nonce_exceeds_what_the_venue_takes() {
    for max in [BITFINEX_MAX, u64::MAX] {
        let unit = NonceUnit::Microseconds;
        let mut key = Key::new(unit, max);
        key.disk = Some(Mark { unit, reserved: max - 1_500 });
        key.crash();
        assert_eq!(key.take(1_500).last(), Some(&max));
        key.reserve();
        assert_eq!(key.try_take(), Err(LaneStopped::Exhausted));
    }
}

#[test]
fn nanoseconds_at_a_venue_that_stops_at_2_to_the_53_are_refused() {
    let mut key = Key::new(NonceUnit::Nanoseconds, BITFINEX_MAX);
    key.reserve();
    assert_eq!(key.try_take(), Err(LaneStopped::Exhausted));
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Take(usize),
    Reserve,
    FailToReserve { lands: bool },
    CrashAfterWant,
    CrashAfterPersist,
    Crash,
    StepClock(i64),
    VenueSays(Option<i64>),
    Refused,
    ResyncWhileReserving { lands: bool },
    Unfreeze,
}

fn op() -> impl Strategy<Value = Op> {
    let year = 365 * 24 * 3_600_000_i64;
    let step = prop_oneof![Just(0), -2_000..2_000_i64, -120_000..120_000_i64, -year..year];
    prop_oneof![
        4 => (1..1_500_usize).prop_map(Op::Take),
        2 => Just(Op::Reserve),
        1 => any::<bool>().prop_map(|lands| Op::FailToReserve { lands }),
        1 => Just(Op::CrashAfterWant),
        1 => Just(Op::CrashAfterPersist),
        1 => Just(Op::Crash),
        3 => step.clone().prop_map(Op::StepClock),
        2 => prop::option::of(step).prop_map(Op::VenueSays),
        1 => Just(Op::Refused),
        1 => any::<bool>().prop_map(|lands| Op::ResyncWhileReserving { lands }),
        1 => Just(Op::Unfreeze),
    ]
}

fn apply(key: &mut Key, op: Op) {
    match op {
        Op::Take(count) => {
            for _ in 0..count {
                if let Ok(None) = key.try_take() {
                    key.reserve();
                }
            }
        }
        Op::Reserve => key.reserve(),
        Op::FailToReserve { lands } => {
            if let Some(reservation) = key.want() {
                if lands {
                    key.persist(&reservation);
                }
                key.lane.failed_to_reserve(reservation);
            }
        }
        Op::CrashAfterWant => {
            let _lost = key.want();
            key.crash();
        }
        Op::CrashAfterPersist => {
            if let Some(reservation) = key.want() {
                key.persist(&reservation);
            }
            key.crash();
        }
        Op::Crash => key.crash(),
        Op::StepClock(by) => key.now = UnixMillis(key.now.0.saturating_add_signed(by)),
        Op::VenueSays(off_by) => key.venue_now = off_by.map(|by| UnixMillis(key.now.0.saturating_add_signed(by))),
        Op::Refused => key.resync(),
        Op::ResyncWhileReserving { lands } => {
            let reservation = key.want();
            key.resync();
            if let Some(reservation) = reservation {
                if lands {
                    key.persist(&reservation);
                    key.lane.reserved(reservation);
                } else {
                    key.lane.failed_to_reserve(reservation);
                }
            }
        }
        Op::Unfreeze => key.lane.unfreeze(),
    }
}

proptest! {
    // `try_take`, `persist` and `check_first` hold the claims: strictly increasing, on disk before use, within the
    // venue's limit, a mark that never falls, no unconfirmed jump.
    #[test]
    fn every_interleaving_gives_strictly_increasing_nonces(
        ops in prop::collection::vec(op(), 1..80),
        unit in prop::sample::select(vec![
            (NonceUnit::Milliseconds, u64::MAX), (NonceUnit::Microseconds, BITFINEX_MAX), (NonceUnit::Nanoseconds, u64::MAX),
        ]),
    ) {
        let mut key = Key::new(unit.0, unit.1);
        for op in ops {
            apply(&mut key, op);
        }
        key.lane.unfreeze();
        let before = key.last;
        let after = key.take_one();
        prop_assert!(before.is_none_or(|before| after > before));
    }
}
