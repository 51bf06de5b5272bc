//! What a simulated exchange received and sent, in order, and what it thought of it.
//!
//! Tests ask it "the upstream saw no byte and no connection", "the upstream saw X", "no secret came through";
//! `demo` prints it. Not a log: it holds whole payloads, in memory alone, and only of a simulator.

use super::clock::SimClock;
use super::forbidden::Forbidden;
use crate::fresh::UnixMillis;
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

/// Entries kept; older ones are dropped. Enough for any test, and bounded under a flood.
const ENTRIES_MAX: usize = 10_000;

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Counts from zero without gaps.
    pub number: u64,
    /// By the exchange's clock.
    pub at: UnixMillis,
    /// Which TCP connection, counted from one.
    pub connection: u64,
    /// Whether it came in or went out.
    pub direction: Direction,
    /// What it was.
    pub kind: Kind,
    /// The request with head and body, the answer's body, the frame's payload, the close reason, the verdict's text.
    pub bytes: Bytes,
}

impl Entry {
    /// The bytes as text.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// Whether this came in and has `needle` in its bytes.
    pub fn received(&self, needle: &str) -> bool {
        self.direction == Direction::Received && memchr::memmem::find(&self.bytes, needle.as_bytes()).is_some()
    }
}

/// Which way something went, seen from the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the peer to the exchange.
    Received,
    /// From the exchange to the peer.
    Sent,
    /// The exchange's own thought.
    Internal,
}

/// What an entry tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A TCP connection was accepted.
    Connect,
    /// TLS was agreed; the bytes are the server name (SNI) that the client asked for.
    Tls,
    /// An HTTP request, with its query in `path`.
    Request {
        /// The method.
        method: String,
        /// Path and query.
        path: String,
    },
    /// The status of an HTTP answer.
    Response {
        /// The status.
        status: u16,
    },
    /// A text or binary message.
    Frame,
    /// A protocol ping.
    Ping,
    /// A protocol pong.
    Pong,
    /// A close frame.
    Close {
        /// Its code; 1005 where it had none.
        code: u16,
    },
    /// The connection is over.
    End,
    /// What the exchange found wrong.
    Verdict,
    /// What the exchange did by itself, with nothing wrong.
    Note,
}

/// The record of one simulator. Clones share it.
#[derive(Debug, Clone)]
pub struct Record(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: SimClock,
    kept: Mutex<Kept>,
    live: broadcast::Sender<Arc<Entry>>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Arc<Entry>>,
    total: u64,
    forbidden: Forbidden,
}

#[derive(Debug, Default)]
struct Counters {
    tcp_connections: AtomicU64,
    tcp_live: AtomicU64,
    sockets_opened: AtomicU64,
    sockets_live: AtomicU64,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    nonce_errors: AtomicU64,
    signature_errors: AtomicU64,
    tokens_minted: AtomicU64,
    leaks: AtomicU64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        impl Record {
            $($(#[$doc])* pub fn $name(&self) -> u64 { self.0.counters.$name.load(Ordering::SeqCst) })*
        }
    };
}

counters! {
    /// TCP connections accepted so far.
    tcp_connections,
    /// TCP connections open now.
    tcp_live,
    /// WebSockets opened so far.
    sockets_opened,
    /// WebSockets open now.
    sockets_live,
    /// Bytes that came in inside TLS.
    bytes_received,
    /// Bytes that went out inside TLS.
    bytes_sent,
    /// Requests and logins refused for their nonce.
    nonce_errors,
    /// Requests and logins refused for their key or signature.
    signature_errors,
    /// Tokens handed out.
    tokens_minted,
    /// Times that something forbidden came in.
    leaks,
}

impl Record {
    pub(super) fn new(clock: SimClock) -> Self {
        let live = broadcast::Sender::new(ENTRIES_MAX);
        Self(Arc::new(Inner { clock, kept: Mutex::default(), live, counters: Counters::default() }))
    }

    /// The entries that are kept, oldest first.
    pub fn snapshot(&self) -> Vec<Arc<Entry>> {
        self.kept().entries.iter().cloned().collect()
    }

    /// Every entry from now on. A reader that falls 10,000 behind is told so by the channel.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Entry>> {
        self.0.live.subscribe()
    }

    /// The text of every verdict kept.
    pub fn verdicts(&self) -> Vec<String> {
        let entries = self.snapshot();
        entries.iter().filter(|entry| entry.kind == Kind::Verdict).map(|entry| entry.text().into_owned()).collect()
    }

    /// The text of every message that came in on a socket, oldest first.
    pub fn frames_received(&self) -> Vec<String> {
        let entries = self.snapshot();
        let frames = entries.iter().filter(|e| e.kind == Kind::Frame && e.direction == Direction::Received);
        frames.map(|entry| entry.text().into_owned()).collect()
    }

    /// The first entry that `fits`, kept or still to come; none if nothing did within `limit`.
    pub async fn wait_for(&self, fits: impl Fn(&Entry) -> bool, limit: Duration) -> Option<Arc<Entry>> {
        // Subscribe before looking back: what happens in between must not be missed.
        let mut live = self.subscribe();
        let found = async {
            loop {
                if let Some(entry) = self.snapshot().into_iter().find(|entry| fits(entry)) {
                    return entry;
                }
                loop {
                    match live.recv().await {
                        Ok(entry) if fits(&entry) => return entry,
                        Ok(_) => {}
                        // Fell behind: look into what is kept, once more. It is never closed while we hold it.
                        Err(_) => break,
                    }
                }
            }
        };
        tokio::time::timeout(limit, found).await.ok()
    }

    /// Names a text that must never come in: not in a request line, header, body, frame or server name. It is found
    /// plain, in hexadecimal, in base64 (alone or within something longer), URL-encoded, and with `\/` or `\u002f` for `/`.
    pub fn forbid(&self, text: &str) {
        self.kept().forbidden.add(text);
    }

    /// Writes down what came in, and searches it for what is forbidden.
    pub(super) fn received(&self, connection: u64, kind: Kind, bytes: Bytes) {
        let leaked = self.kept().forbidden.is_in(&bytes);
        self.push(connection, Direction::Received, kind, bytes);
        if leaked {
            self.leak(connection, "leak: a forbidden text came in");
        }
    }

    pub(super) fn sent(&self, connection: u64, kind: Kind, bytes: Bytes) {
        self.push(connection, Direction::Sent, kind, bytes);
    }

    pub(super) fn verdict(&self, connection: u64, text: impl Into<String>) {
        self.push(connection, Direction::Internal, Kind::Verdict, Bytes::from(text.into()));
    }

    pub(super) fn note(&self, connection: u64, text: impl Into<String>) {
        self.push(connection, Direction::Internal, Kind::Note, Bytes::from(text.into()));
    }

    pub(super) fn leak(&self, connection: u64, text: &str) {
        self.0.counters.leaks.fetch_add(1, Ordering::SeqCst);
        self.verdict(connection, text);
    }

    pub(super) fn nonce_refused(&self, connection: u64, text: impl Into<String>) {
        self.0.counters.nonce_errors.fetch_add(1, Ordering::SeqCst);
        self.verdict(connection, text);
    }

    pub(super) fn signature_refused(&self, connection: u64, text: impl Into<String>) {
        self.0.counters.signature_errors.fetch_add(1, Ordering::SeqCst);
        self.verdict(connection, text);
    }

    pub(super) fn token_minted(&self) {
        self.0.counters.tokens_minted.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.0.counters.bytes_received.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.0.counters.bytes_sent.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    /// Counts a TCP connection, and gives it its number.
    pub(super) fn connected(&self) -> Connected {
        let counters = &self.0.counters;
        counters.tcp_live.fetch_add(1, Ordering::SeqCst);
        let connection = counters.tcp_connections.fetch_add(1, Ordering::SeqCst) + 1;
        self.push(connection, Direction::Received, Kind::Connect, Bytes::new());
        Connected { record: self.clone(), connection }
    }

    /// Counts a WebSocket while what it returns lives.
    pub(super) fn socket_opened(&self) -> SocketOpen {
        self.0.counters.sockets_opened.fetch_add(1, Ordering::SeqCst);
        self.0.counters.sockets_live.fetch_add(1, Ordering::SeqCst);
        SocketOpen { record: self.clone() }
    }

    fn push(&self, connection: u64, direction: Direction, kind: Kind, bytes: Bytes) {
        let at = self.0.clock.now();
        let mut kept = self.kept();
        let entry = Arc::new(Entry { number: kept.total, at, connection, direction, kind, bytes });
        kept.total += 1;
        if kept.entries.len() == ENTRIES_MAX {
            kept.entries.pop_front();
        }
        kept.entries.push_back(entry.clone());
        // Under the lock, so that subscribers see the same order. No subscriber is no error.
        let _ = self.0.live.send(entry);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Entries are pushed whole: what a panicking holder left is still a record.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A counted TCP connection.
#[derive(Debug)]
pub(super) struct Connected {
    record: Record,
    pub(super) connection: u64,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.record.0.counters.tcp_live.fetch_sub(1, Ordering::SeqCst);
        self.record.push(self.connection, Direction::Internal, Kind::End, Bytes::new());
    }
}

/// A counted WebSocket.
#[derive(Debug)]
pub(super) struct SocketOpen {
    record: Record,
}

impl Drop for SocketOpen {
    fn drop(&mut self) {
        self.record.0.counters.sockets_live.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_text_is_a_leak_and_a_verdict() {
        let record = Record::new(SimClock::real());
        record.forbid("a secret");
        record.received(1, Kind::Frame, Bytes::from_static(b"something else"));
        assert_eq!((record.leaks(), record.verdicts()), (0, vec![]));
        record.received(1, Kind::Tls, Bytes::from_static(b"a%20secret"));
        assert_eq!((record.leaks(), record.verdicts().len()), (1, 1));
    }

    #[test]
    fn the_record_is_bounded() {
        let record = Record::new(SimClock::real());
        for _ in 0..ENTRIES_MAX + 5 {
            record.verdict(1, "x");
        }
        let entries = record.snapshot();
        assert_eq!((entries.len(), entries[0].number), (ENTRIES_MAX, 5));
    }
}
