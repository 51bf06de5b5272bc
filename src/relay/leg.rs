//! One side of a session: a WebSocket over TLS, read and written without waiting.
//!
//! What comes in is cut into frames by its [`Inbox`]; what goes out waits as frames, and is encrypted once the socket
//! takes it. At rest a leg holds no buffer.

use super::frame::{self, Broken, Header, Mask, Opcode};
use super::inbox::{Frames, Inbox, Incoming, Peer};
use crate::buffer::Buffer;
use crate::message::Message;
use crate::session::End;
use crate::tls::Stream;
use bytes::Bytes;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes that may wait for the socket encrypted. More would wait where a close could no longer take their place.
const SEALED_BYTES_MAX: usize = 64 * 1024;

/// A WebSocket and what waits to be written to it.
pub(super) struct Leg {
    stream: Stream,
    peer: Peer,
    inbox: Inbox,
    /// Frames that wait to be encrypted.
    outbox: Buffer,
    /// How many bytes at the outbox's front are the rest of a frame that is on its way already.
    begun: usize,
    /// The answer to the peer's last ping. One is enough, however many came at once (RFC 6455, 5.5.3).
    pong: Option<Bytes>,
    /// The peer's close has come, and its answer waits; nothing else can be sent.
    is_closed_by_peer: bool,
    /// The peer sent what cannot be read, so nothing behind it can.
    is_unreadable: bool,
}

impl Leg {
    /// A leg over a socket whose upgrade is done; `read_ahead` came with it.
    pub(super) fn new(stream: Stream, read_ahead: &[u8], peer: Peer, message_bytes_max: usize) -> Self {
        let mut inbox = Inbox::new(peer, message_bytes_max);
        inbox.push(read_ahead);
        Self {
            stream,
            peer,
            inbox,
            outbox: Buffer::new(),
            begun: 0,
            pong: None,
            is_closed_by_peer: false,
            is_unreadable: false,
        }
    }

    /// Reads what has come, once. Ready: there is more to take, or the end of it.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let inbox = &mut self.inbox;
        let filled = match self.stream.poll_records(cx, &mut |plaintext| inbox.push(plaintext)) {
            Poll::Pending => {
                inbox.settle();
                return Poll::Pending;
            }
            // An end of TLS in the middle of a conversation is as good as none.
            Poll::Ready(Ok(0) | Err(_)) => Err(Broken::Lost),
            Poll::Ready(Ok(_)) => Ok(()),
        };
        self.is_unreadable |= filled.is_err();
        Poll::Ready(filled)
    }

    /// The frames that came and may pass as they are, at most so many messages.
    pub(super) fn frames(&self, messages_max: u64) -> Option<Frames> {
        self.inbox.frames(messages_max)
    }

    /// The bytes of these frames.
    pub(super) fn bytes_of(&self, frames: Frames) -> &[u8] {
        self.inbox.bytes_of(frames)
    }

    /// Sends frames on to the other leg, byte for byte.
    pub(super) fn pass(&mut self, frames: Frames, other: &mut Self) {
        other.push_bytes(self.inbox.bytes_of(frames));
        self.inbox.take(frames);
    }

    /// The next thing that came. `None`: more has to be read.
    pub(super) fn take_next(&mut self) -> Option<Incoming> {
        if self.is_closed_by_peer || self.is_unreadable {
            return None;
        }
        let incoming = self.inbox.take_next()?;
        match &incoming {
            Incoming::Ping(payload) => self.pong = Some(payload.clone()),
            Incoming::Closed(code) => self.answer_close(*code),
            Incoming::Broken(_) => self.is_unreadable = true,
            Incoming::Message(..) | Incoming::Pong(_) => {}
        }
        Some(incoming)
    }

    /// The peer wants to go: what waits for it is dropped, and it hears its own code.
    fn answer_close(&mut self, code: u16) {
        self.drop_waiting();
        self.pong = None;
        let payload = if code == frame::NO_CODE { Vec::new() } else { frame::close_payload(code, "") };
        self.put(Opcode::Close, &payload, None);
        self.is_closed_by_peer = true;
    }

    /// Puts a message into the outbox, masked as the client's was that it came with. Does not wait: whoever fills it
    /// looks at [`Leg::outbox_bytes`] first. A peer that has closed takes nothing more.
    pub(super) fn push(&mut self, message: &Message, mask: Option<Mask>) {
        if !self.is_closed_by_peer {
            self.put(Opcode::Data(message.kind()), message.payload(), mask);
        }
    }

    fn push_bytes(&mut self, frames: &[u8]) {
        if self.is_closed_by_peer {
            return;
        }
        let can_go_at_once = self.outbox.is_empty() && self.stream.sealed_bytes() + frames.len() <= SEALED_BYTES_MAX;
        // A connection that cannot encrypt any more says so when it is written next.
        if !can_go_at_once || self.stream.seal(frames).is_err() {
            self.outbox.push(frames);
        }
    }

    /// Puts a protocol ping into the outbox.
    pub(super) fn ping(&mut self) {
        if !self.is_closed_by_peer {
            self.put(Opcode::Ping, &[], None);
        }
    }

    /// Puts a close frame behind everything that waits, or in its place. A peer that has closed gets its answer and
    /// nothing else.
    pub(super) fn close(&mut self, code: u16, reason: &str, drop_waiting: bool) {
        if self.is_closed_by_peer {
            return;
        }
        if drop_waiting {
            self.drop_waiting();
        }
        // Behind a close nothing may stand.
        self.pong = None;
        self.put(Opcode::Close, &frame::close_payload(code, reason), None);
    }

    fn put(&mut self, opcode: Opcode, payload: &[u8], mask: Option<Mask>) {
        let mask = match self.peer {
            Peer::Client => None,
            Peer::Exchange => Some(mask.unwrap_or_else(frame::fresh_mask)),
        };
        frame::put(&mut self.outbox, opcode, payload, mask);
    }

    /// Forgets the frames of which nothing was sent yet.
    fn drop_waiting(&mut self) {
        self.outbox.truncate(self.begun);
    }

    /// What waits to be written, in bytes.
    pub(super) fn outbox_bytes(&self) -> usize {
        self.outbox.len() + self.stream.sealed_bytes()
    }

    /// All bytes that came in, whole messages or not.
    pub(super) fn bytes_read(&self) -> u64 {
        self.inbox.bytes_read()
    }

    /// The bytes of whole frames that came in and were taken.
    pub(super) fn bytes_taken(&self) -> u64 {
        self.inbox.bytes_taken()
    }

    /// Writes as much as the peer takes. Ready once nothing waits any more.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if let Some(payload) = self.pong.take() {
            self.put(Opcode::Pong, &payload, None);
        }
        loop {
            self.seal().map_err(|_| Broken::Lost)?;
            if self.stream.sealed_bytes() == 0 {
                return Poll::Ready(Ok(()));
            }
            ready!(self.stream.poll_send(cx)).map_err(|_| Broken::Lost)?;
        }
    }

    /// Encrypts what the socket may take soon.
    fn seal(&mut self) -> std::io::Result<()> {
        // Not by handfuls, each of which would be a record.
        while !self.outbox.is_empty() && self.stream.sealed_bytes() <= SEALED_BYTES_MAX / 2 {
            let count = self.outbox.len().min(SEALED_BYTES_MAX - self.stream.sealed_bytes());
            // Where the frame ends that the last of these bytes belongs to.
            while self.begun < count {
                self.begun += frame_bytes(&self.outbox.bytes()[self.begun..]);
            }
            self.stream.seal(&self.outbox.bytes()[..count])?;
            self.begun -= count;
            self.outbox.consume(count);
        }
        Ok(())
    }

    /// Writes what waits, waits for the peer's close if it should, and closes the connection so that the peer still
    /// gets all of it. For the farewell, within a limit of the caller's.
    pub(super) async fn finish(&mut self, await_peer: bool) {
        if poll_fn(|cx| self.poll_write(cx)).await.is_err() {
            return;
        }
        while await_peer && !self.is_closed_by_peer && !self.is_unreadable {
            if self.take_next().is_none() && poll_fn(|cx| self.poll_fill(cx)).await.is_err() {
                break;
            }
        }
        // An end without TLS's own could be anybody's.
        if self.stream.shutdown().await.is_err() {
            return;
        }
        // A socket that is dropped with bytes unread is reset, and a reset overtakes what was written last.
        let mut unread = [0; 512];
        while self.stream.read(&mut unread).await.is_ok_and(|count| count > 0) {}
    }
}

/// The length of the whole frame at the front: of our own making, or checked when it came.
fn frame_bytes(bytes: &[u8]) -> usize {
    match Header::read(bytes) {
        Ok(Some(header)) => header.header_bytes + usize::try_from(header.payload_bytes).unwrap_or(usize::MAX),
        _ => unreachable!("an outbox holds whole frames alone"),
    }
}

/// How a session ends whose client's leg broke.
pub(super) fn client_end(broken: Broken) -> End {
    match broken {
        Broken::Lost => End::ClientLost,
        Broken::Protocol => End::ClientProtocol,
        Broken::NotUtf8 => End::ClientNotUtf8,
        Broken::TooBig => End::ClientMessageTooBig,
    }
}

/// How a session ends whose exchange's leg broke.
pub(super) fn upstream_end(broken: Broken) -> End {
    match broken {
        Broken::Lost => End::UpstreamLost,
        Broken::Protocol => End::UpstreamProtocol,
        Broken::NotUtf8 => End::UpstreamNotUtf8,
        Broken::TooBig => End::UpstreamMessageTooBig,
    }
}
