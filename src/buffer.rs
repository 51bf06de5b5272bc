//! Buffers that belong to the thread: lent while bytes are under way, given back when none are.
//!
//! A session at rest holds none. What a thread keeps for the next that needs one is bounded, whatever its sessions have
//! sent.

use std::cell::RefCell;

/// The least room that is lent: four full TLS records, with what is around them. More is made when one message needs
/// more.
const LENT_BYTES: usize = 4 * (16 * 1024 + 256 + 5);
/// The largest room that is kept: the longest message of a client, with what is around it. Larger ones are for the first
/// snapshot of a market, and not needed again.
const KEPT_BYTES_MAX: usize = 512 * 1024;
/// Bytes that fill no more than this part of a lent room are worth moving out of it.
const SETTLED_PART: usize = 4;
/// Buffers that a thread keeps. A session that is moving uses up to seven: one to read into, and for each leg one of what
/// came, what waits and what is encrypted.
const KEPT_MAX: usize = 8;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes in the order in which they came: pushed behind, consumed from the front. Holds memory only while it holds
/// bytes.
#[derive(Default)]
pub struct Buffer {
    /// Initialised to its whole length; the bytes are those from `start` to `end`.
    room: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// An empty buffer, which holds no memory.
    pub const fn new() -> Self {
        Self { room: Vec::new(), start: 0, end: 0 }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.room[self.start..self.end]
    }

    /// The bytes, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.end]
    }

    /// Room behind the bytes, of at least this size and mostly more, with anything in it. What is written there counts
    /// from [`Buffer::fill`] on.
    pub fn space(&mut self, at_least: usize) -> &mut [u8] {
        if self.room.len() - self.end < at_least {
            self.make_room(at_least);
        }
        &mut self.room[self.end..]
    }

    /// Moves the bytes to the front of a room that has this much behind them.
    fn make_room(&mut self, at_least: usize) {
        let bytes = self.start..self.end;
        let needed = bytes.len() + at_least;
        (self.start, self.end) = (0, bytes.len());
        if needed <= self.room.len() {
            self.room.copy_within(bytes, 0);
        } else {
            let mut room = lend(needed);
            room[..bytes.len()].copy_from_slice(&self.room[bytes]);
            give_back(std::mem::replace(&mut self.room, room));
        }
    }

    /// Lets go of the thread's room, for bytes that will wait: they get one of their own size.
    pub fn settle(&mut self) {
        if !self.is_empty() && self.len() <= self.room.len() / SETTLED_PART && self.room.len() >= LENT_BYTES {
            let own = self.bytes().to_vec();
            (self.start, self.end) = (0, own.len());
            give_back(std::mem::replace(&mut self.room, own));
        }
    }

    /// So many bytes of [`Buffer::space`] were written.
    ///
    /// # Panics
    /// If that is more than there was room for.
    pub fn fill(&mut self, count: usize) {
        assert!(count <= self.room.len() - self.end, "more was written than there is room for");
        self.end += count;
    }

    /// Appends a copy of these bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.space(bytes.len())[..bytes.len()].copy_from_slice(bytes);
            self.end += bytes.len();
        }
    }

    /// Forgets so many bytes at the front.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "more was consumed than there is");
        self.start += count;
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets all bytes behind the first so many.
    pub fn truncate(&mut self, count: usize) {
        self.end = self.end.min(self.start + count);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets all bytes, and gives the memory back.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        give_back(std::mem::take(&mut self.room));
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.room));
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}

/// A room of at least this size.
fn lend(needed: usize) -> Vec<u8> {
    // A thread that is ending has none left.
    let kept = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        let fitting = kept.iter().enumerate().filter(|(_, room)| room.len() >= needed);
        let (smallest, _) = fitting.min_by_key(|(_, room)| room.len())?;
        Some(kept.swap_remove(smallest))
    });
    kept.ok().flatten().unwrap_or_else(|| vec![0; needed.next_power_of_two().max(LENT_BYTES)])
}

/// Keeps a room for the next that needs one.
fn give_back(room: Vec<u8>) {
    if (LENT_BYTES..=KEPT_BYTES_MAX).contains(&room.len()) {
        let _thread_is_ending = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.push(room);
            }
        });
    }
}

#[cfg(test)]
pub(crate) fn kept_count() -> usize {
    KEPT.with(|kept| kept.borrow().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_however_they_are_cut() {
        let mut buffer = Buffer::new();
        let (mut told, mut taken) = (Vec::<u8>::new(), Vec::<u8>::new());
        for round in 0..400_u16 {
            let piece = vec![u8::try_from(round % 251).expect("it is below 251"); usize::from(round) * 7];
            buffer.push(&piece);
            told.extend(piece);
            let count = buffer.len() / 3;
            taken.extend(&buffer.bytes()[..count]);
            buffer.consume(count);
        }
        taken.extend(buffer.bytes());
        assert_eq!(taken, told);
    }

    #[test]
    fn an_empty_buffer_holds_no_memory_and_the_thread_keeps_a_bounded_number() {
        let mut buffers: Vec<Buffer> = (0..3 * KEPT_MAX).map(|_| Buffer::new()).collect();
        for buffer in &mut buffers {
            buffer.push(b"x");
        }
        for buffer in &mut buffers {
            buffer.consume(1);
            assert_eq!(buffer.room.capacity(), 0);
        }
        assert_eq!(kept_count(), KEPT_MAX);
    }

    #[test]
    fn a_room_for_one_very_long_message_is_not_kept() {
        let mut buffer = Buffer::new();
        buffer.push(&vec![1; KEPT_BYTES_MAX + 1]);
        buffer.clear();
        assert!(KEPT.with(|kept| kept.borrow().iter().all(|room| room.len() <= KEPT_BYTES_MAX)));
    }

    #[test]
    fn few_bytes_that_wait_do_not_keep_the_room_of_many() {
        let mut buffer = Buffer::new();
        buffer.push(b"abc");
        buffer.consume(1);
        buffer.settle();
        assert_eq!((buffer.bytes(), buffer.room.len()), (&b"bc"[..], 2));
        buffer.push(b"d");
        assert_eq!((buffer.bytes(), buffer.room.len()), (&b"bcd"[..], LENT_BYTES));
    }

    #[test]
    fn what_was_truncated_does_not_come_back() {
        let mut buffer = Buffer::new();
        buffer.push(b"abcdef");
        buffer.consume(1);
        buffer.truncate(2);
        buffer.push(b"XY");
        assert_eq!(buffer.bytes(), b"bcXY");
    }
}
