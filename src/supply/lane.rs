//! The numbers of one key: which nonce is next, and which block of them has to be on disk first.
//!
//! Pure: time is passed in, and the caller persists. Not the queue of requests, and not what decides whether an
//! exchange's refusal was our fault.
//!
//! Numbers are handed out from blocks that were made durable before their first use, and inside a block they are
//! consecutive. A crash skips what was left of a block. The clock has a say only when a block is reserved, and then
//! it only raises the block's first number. The next block is asked for when half of the current one is used, so no
//! request waits for the disk.

use crate::fresh::{Nonce, NonceUnit, UnixMillis};
use crate::names::ClientName;
use crate::store::Mark;
use std::time::Duration;

/// How many numbers are reserved at once: at 5,000 requests a second, a write to disk every 200 ms.
pub const BLOCK: u64 = 1_000;

/// How far the wall clock alone may raise a key's next number. A number that is too high cannot be taken back: an
/// exchange refuses all below it for the life of the key.
pub const JUMP_MAX: Duration = Duration::from_secs(60);

/// So many refusals of a nonce within [`REFUSALS_WITHIN`] freeze a key. One is an accident; when they go on after a
/// resync, another program uses the key or the clock is wrong, and only a person can end that.
///
/// Those of one client's requests alone do not count: it may write requests whose nonce the exchange cannot find, and no
/// client must be able to stop all others.
pub const REFUSALS_MAX: usize = 3;

/// See [`REFUSALS_MAX`].
pub const REFUSALS_WITHIN: Duration = Duration::from_secs(60);

/// The nonce source of one key. There must be one per key, in all processes.
#[derive(Debug)]
pub struct NonceLane {
    unit: NonceUnit,
    max: u64,
    /// The highest number known to be reserved; `None` until the key's first block.
    reserved: Option<u64>,
    /// The first number of a block whose write failed. It may be on disk all the same, and marks do not fall: no
    /// later block begins below.
    tried: Option<u64>,
    current: Block,
    ahead: Option<Block>,
    is_reserving: bool,
    /// Grows with each resync: a block that was asked for before one is not used after it.
    round: u64,
    obstacle: Option<LaneStopped>,
    is_frozen: bool,
    refusals: Vec<NonceRefusal>,
    doubt: Option<ClockDoubt>,
}

/// The exchange refused a nonce.
#[derive(Debug)]
struct NonceRefusal {
    at: UnixMillis,
    /// Whose request it was in. None: one that the house wrote, a login or token request.
    client: Option<ClientName>,
}

/// A block that must be on disk before it is used. Goes back to its lane once, by
/// [`reserved`](NonceLane::reserved) or [`failed_to_reserve`](NonceLane::failed_to_reserve).
#[derive(Debug)]
#[must_use = "the lane waits until it is told how the write ended"]
pub struct Reservation {
    block: Block,
    round: u64,
    mark: Mark,
    doubt: Option<ClockDoubt>,
}

/// Consecutive numbers, each handed out once: not `Clone`.
#[derive(Debug, Default)]
struct Block {
    next: u64,
    left: u64,
}

/// The wall clock disagrees with what else is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockDoubt {
    /// It stands more than [`JUMP_MAX`] below numbers already reserved: it was set back, or ran ahead before.
    Behind,
    /// It stands more than [`JUMP_MAX`] above them, and the exchange's time is unknown or another.
    JumpNotConfirmed,
}

/// Why a key has no next number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LaneStopped {
    /// The next block could not be made durable. Ends with the next write that succeeds.
    #[error("the next nonces could not be written to the state folder; make room there or repair the disk")]
    NotPersisted,
    /// The exchange refused nonces again and again. Ends by [`NonceLane::unfreeze`] alone.
    #[error(
        "the exchange refused several nonces as too small; end every other program that uses this key, check the \
         clock, then run `countersign account unfreeze` with the name of the account"
    )]
    Frozen,
    /// The exchange takes no greater number.
    #[error("the key has no nonces left below the exchange's limit; check the account's nonce unit, or make a new key")]
    Exhausted,
    /// The venue's requests carry no nonces.
    #[error("the venue has no nonces")]
    NoNonces,
}

/// The unit is not the one in which the key's nonces were counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "nonces of this account are counted in `{recorded}` and the configuration says `{configured}`: the exchange \
     compares them as plain numbers, so a change can shut the key out for good; set `nonce_unit = \"{recorded}\"`, or \
     make a new key at the exchange and give it a new account name here"
)]
pub struct UnitChanged {
    /// What the state says.
    pub recorded: NonceUnit,
    /// What was asked for.
    pub configured: NonceUnit,
}

impl NonceLane {
    /// The lane of a key whose venue takes nonces up to `max`, from what the store holds of it.
    pub fn new(unit: NonceUnit, max: u64, mark: Option<Mark>) -> Result<Self, UnitChanged> {
        if let Some(Mark { unit: recorded, .. }) = mark
            && recorded != unit
        {
            return Err(UnitChanged { recorded, configured: unit });
        }
        Ok(Self {
            unit,
            max,
            reserved: mark.map(|mark| mark.reserved),
            tried: None,
            current: Block::default(),
            ahead: None,
            is_reserving: false,
            round: 0,
            obstacle: None,
            is_frozen: false,
            refusals: Vec::with_capacity(REFUSALS_MAX),
            doubt: None,
        })
    }

    /// The next number; greater than every one before it, for the life of the key. `None` asks the caller to persist
    /// what [`wanted`](Self::wanted) gives and to come back.
    pub fn next_nonce(&mut self) -> Result<Option<Nonce>, LaneStopped> {
        if self.is_frozen {
            return Err(LaneStopped::Frozen);
        }
        if self.current.left == 0
            && let Some(block) = self.ahead.take()
        {
            self.current = block;
        }
        match (self.current.take(), self.obstacle) {
            (Some(number), _) => Ok(Some(Nonce(number))),
            (None, Some(stopped)) => Err(stopped),
            (None, None) => Ok(None),
        }
    }

    /// The block to persist now, if one is needed: to be asked after every [`next_nonce`](Self::next_nonce), and
    /// after a pause where the last write failed. At most one is out at a time, so writes cannot overtake each other.
    ///
    /// `venue_now` is the exchange's time at this moment, carried on since its last answer by a monotonic clock.
    pub fn wanted(&mut self, now: UnixMillis, venue_now: Option<UnixMillis>) -> Option<Reservation> {
        if self.is_frozen || self.is_reserving || self.ahead.is_some() || self.current.left > BLOCK / 2 {
            return None;
        }
        let (first, doubt) = self.first_of_next(now, venue_now);
        let Some(first) = first.filter(|first| *first <= self.max) else {
            self.obstacle = Some(LaneStopped::Exhausted);
            return None;
        };
        self.is_reserving = true;
        let last = first.saturating_add(BLOCK - 1).min(self.max);
        let news = doubt.filter(|_| doubt != self.doubt);
        self.doubt = doubt;
        Some(Reservation {
            block: Block { next: first, left: last - first + 1 },
            round: self.round,
            mark: Mark { unit: self.unit, reserved: last },
            doubt: news,
        })
    }

    /// The block is durable: its numbers may be used.
    pub fn reserved(&mut self, reservation: Reservation) {
        let Reservation { block, round, mark, .. } = reservation;
        self.is_reserving = false;
        self.obstacle = None;
        let is_above = self.reserved.is_none_or(|reserved| block.next > reserved);
        if round == self.round && is_above {
            self.ahead = Some(block);
        }
        self.reserved = self.reserved.max(Some(mark.reserved));
    }

    /// The block may or may not be durable: what is left of the current one is used up, then the lane stops.
    pub fn failed_to_reserve(&mut self, reservation: Reservation) {
        let Reservation { block, .. } = reservation;
        self.is_reserving = false;
        self.obstacle = Some(LaneStopped::NotPersisted);
        self.tried = self.tried.max(Some(block.next));
    }

    /// The exchange said that a nonce was too small, in a request that nothing of ours had overtaken. Drops the
    /// blocks at hand, so that the next one begins at the clock; freezes the key at the third time in a minute. `client`
    /// wrote the request; `None`: the house did.
    pub fn resync(&mut self, now: UnixMillis, client: Option<&ClientName>) -> Result<(), LaneStopped> {
        self.round += 1;
        self.current = Block::default();
        self.ahead = None;
        self.note_refusal(NonceRefusal { at: now, client: client.cloned() });
        if self.is_frozen { Err(LaneStopped::Frozen) } else { Ok(()) }
    }

    fn note_refusal(&mut self, refusal: NonceRefusal) {
        self.refusals.retain(|earlier| refusal.at.since(earlier.at) <= REFUSALS_WITHIN);
        let of_the_same = self.refusals.iter().filter(|earlier| earlier.client == refusal.client).count();
        if of_the_same == REFUSALS_MAX
            && let Some(oldest) = self.refusals.iter().position(|earlier| earlier.client == refusal.client)
        {
            self.refusals.remove(oldest);
        }
        self.refusals.push(refusal);
        let mut clients = self.refusals.iter().filter_map(|refusal| refusal.client.as_ref());
        let has_two_clients = clients.next().is_some_and(|first| clients.any(|client| client != first));
        let counting = self.refusals.iter().filter(|refusal| refusal.client.is_none() || has_two_clients).count();
        self.is_frozen |= counting >= REFUSALS_MAX;
    }

    /// Takes a frozen key back into use, on a person's word.
    pub fn unfreeze(&mut self) {
        self.is_frozen = false;
        self.refusals.clear();
    }

    /// True after too many refusals, until [`unfreeze`](Self::unfreeze).
    pub fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// The highest number that is known to be reserved; `None` if the key was never used.
    pub fn mark(&self) -> Option<u64> {
        self.reserved
    }

    /// What the key's numbers count.
    pub fn unit(&self) -> NonceUnit {
        self.unit
    }

    /// Where the next block begins; `None` if no number is left at all.
    fn first_of_next(&self, now: UnixMillis, venue_now: Option<UnixMillis>) -> (Option<u64>, Option<ClockDoubt>) {
        let wall = self.unit.at(now);
        let (first, doubt) = match self.reserved {
            None => (Some(wall.max(1)), None),
            Some(reserved) => self.follow(reserved, wall, is_confirmed(now, venue_now)),
        };
        (first.map(|first| first.max(self.tried.unwrap_or(0))), doubt)
    }

    fn follow(&self, reserved: u64, wall: u64, is_confirmed: bool) -> (Option<u64>, Option<ClockDoubt>) {
        let jump_max = JUMP_MAX.as_secs() * self.unit.per_second();
        let next = reserved.checked_add(1);
        if wall <= reserved {
            return (next, (reserved - wall > jump_max).then_some(ClockDoubt::Behind));
        }
        if wall - reserved > jump_max && !is_confirmed {
            return (next, Some(ClockDoubt::JumpNotConfirmed));
        }
        (Some(wall), None)
    }
}

impl Reservation {
    /// What to persist before [`NonceLane::reserved`].
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// A doubt about the clock that is new with this block: to be told once.
    pub fn doubt(&self) -> Option<ClockDoubt> {
        self.doubt
    }
}

impl Block {
    fn take(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let number = self.next;
        // Wraps only past the last number of all, when none is left.
        self.next = number.wrapping_add(1);
        Some(number)
    }
}

fn is_confirmed(now: UnixMillis, venue_now: Option<UnixMillis>) -> bool {
    venue_now.is_some_and(|venue_now| Duration::from_millis(now.0.abs_diff(venue_now.0)) <= JUMP_MAX)
}

#[cfg(test)]
mod tests;
