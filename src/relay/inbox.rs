//! What has come on a leg and is not taken yet: frames cut out of bytes, messages put together of frames. Pure.
//!
//! Frames that nobody has to read stay bytes: [`Inbox::frames`] tells how many at the front may pass as they are.
//!
//! Public, as [`super::frame`] is, for the fuzz target and the benchmarks.

use super::frame::{self, Broken, Header, Mask, Opcode};
use crate::buffer::Buffer;
use crate::message::{Kind, Message};
use bytes::Bytes;

/// Who is at the other end of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A client: it masks its frames, we do not.
    Client,
    /// An exchange: we mask.
    Exchange,
}

/// What came in on a leg.
#[derive(Debug)]
pub enum Incoming {
    /// A whole message, and the mask that it came with: that of its last frame.
    Message(Message, Option<Mask>),
    /// A ping.
    Ping(Bytes),
    /// A pong, whose payload had so many bytes.
    Pong(usize),
    /// The peer closed, with this code (1005: none).
    Closed(u16),
    /// What came is no WebSocket, or too much of one.
    Broken(Broken),
}

/// Whole messages of one frame each, which stand at the front of an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frames {
    /// Their bytes, headers included.
    pub bytes: usize,
    /// How many they are.
    pub messages: u64,
    /// The bytes of their payloads.
    pub payload_bytes: usize,
}

/// Bytes that came from one peer.
pub struct Inbox {
    peer: Peer,
    message_bytes_max: usize,
    bytes: Buffer,
    /// The message whose first frames came, and not its last.
    parts: Option<(Kind, Vec<u8>)>,
    bytes_taken: u64,
}

/// A data frame that is whole, and is not part of anything.
struct Whole {
    kind: Kind,
    header: Header,
    /// Bytes of the payload, which is within the limit.
    payload_bytes: usize,
}

impl Inbox {
    /// An empty inbox for what this peer sends, with a limit for whole messages.
    pub const fn new(peer: Peer, message_bytes_max: usize) -> Self {
        Self { peer, message_bytes_max, bytes: Buffer::new(), parts: None, bytes_taken: 0 }
    }

    /// More bytes came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.push(bytes);
    }

    /// The bytes that came and were taken, and those that were not.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_taken + self.bytes.len() as u64
    }

    /// The bytes of whole frames that were taken.
    pub fn bytes_taken(&self) -> u64 {
        self.bytes_taken
    }

    /// Lets go of a thread's buffer that the beginning of a frame would occupy for as long as the rest takes.
    pub fn settle(&mut self) {
        self.bytes.settle();
    }

    /// The frames at the front that are whole messages and nothing else, at most so many: what may pass as it came, if
    /// nobody reads it.
    pub fn frames(&self, messages_max: u64) -> Option<Frames> {
        let mut found = Frames { bytes: 0, messages: 0, payload_bytes: 0 };
        let bytes = self.bytes.bytes();
        // Whatever does not belong ends the row, and is looked at when it stands at the front.
        while found.messages < messages_max
            && let Ok(Some(Whole { kind, header, payload_bytes })) = self.whole(&bytes[found.bytes..])
        {
            let start = found.bytes + header.header_bytes;
            let end = start + payload_bytes;
            if kind == Kind::Text && std::str::from_utf8(&bytes[start..end]).is_err() {
                break;
            }
            found =
                Frames { bytes: end, messages: found.messages + 1, payload_bytes: found.payload_bytes + payload_bytes };
        }
        (found.messages > 0).then_some(found)
    }

    /// The bytes of these frames.
    pub fn bytes_of(&self, frames: Frames) -> &[u8] {
        &self.bytes.bytes()[..frames.bytes]
    }

    /// Takes these frames off.
    pub fn take(&mut self, frames: Frames) {
        self.consume(frames.bytes);
    }

    /// Takes the next thing off that is whole. `None`: more bytes have to come.
    pub fn take_next(&mut self) -> Option<Incoming> {
        loop {
            match self.step() {
                Ok(Step::Took(incoming)) => return Some(incoming),
                Ok(Step::Part) => {}
                Ok(Step::NotWhole) => return None,
                Err(broken) => return Some(Incoming::Broken(broken)),
            }
        }
    }

    fn step(&mut self) -> Result<Step, Broken> {
        let Some(header) = self.header(self.bytes.bytes())? else { return Ok(Step::NotWhole) };
        let payload_bytes = self.payload_bytes(&header)?;
        let frame_bytes = header.header_bytes + payload_bytes;
        if self.bytes.len() < frame_bytes {
            return Ok(Step::NotWhole);
        }
        let payload = &mut self.bytes.bytes_mut()[header.header_bytes..frame_bytes];
        if let Some(mask) = header.mask {
            frame::apply(mask, payload);
        }
        let step = match header.opcode {
            Opcode::Ping => Step::Took(Incoming::Ping(Bytes::copy_from_slice(payload))),
            Opcode::Pong => Step::Took(Incoming::Pong(payload.len())),
            Opcode::Close => Step::Took(Incoming::Closed(frame::close_code(payload)?)),
            Opcode::Data(kind) if header.is_final => Step::message(kind, Bytes::copy_from_slice(payload), header.mask)?,
            Opcode::Data(kind) => {
                self.parts = Some((kind, payload.to_vec()));
                Step::Part
            }
            Opcode::Continuation => {
                let (kind, mut parts) = self.parts.take().ok_or(Broken::Protocol)?;
                parts.extend_from_slice(payload);
                if header.is_final {
                    Step::message(kind, parts.into(), header.mask)?
                } else {
                    self.parts = Some((kind, parts));
                    Step::Part
                }
            }
        };
        self.consume(frame_bytes);
        Ok(step)
    }

    /// The header at the front, if it is whole and may stand there.
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, Broken> {
        let Some(header) = Header::read(bytes)? else { return Ok(None) };
        let is_in_order = match header.opcode {
            Opcode::Continuation => self.parts.is_some(),
            Opcode::Data(_) => self.parts.is_none(),
            Opcode::Close | Opcode::Ping | Opcode::Pong => true,
        };
        let is_masked_as_it_must_be = header.mask.is_some() == (self.peer == Peer::Client);
        if is_in_order && is_masked_as_it_must_be { Ok(Some(header)) } else { Err(Broken::Protocol) }
    }

    /// What the header announces, if that is within the limit: judged before the first byte of it came.
    fn payload_bytes(&self, header: &Header) -> Result<usize, Broken> {
        let so_far = match (&self.parts, header.opcode) {
            (Some((_, parts)), Opcode::Continuation) => parts.len(),
            _ => 0,
        };
        let announced = usize::try_from(header.payload_bytes).map_err(|_| Broken::TooBig)?;
        let whole = announced.checked_add(so_far).filter(|bytes| *bytes <= self.message_bytes_max);
        whole.map(|_| announced).ok_or(Broken::TooBig)
    }

    /// The data frame at the front of these bytes, if it is whole and final.
    fn whole(&self, bytes: &[u8]) -> Result<Option<Whole>, Broken> {
        let Some(header) = self.header(bytes)? else { return Ok(None) };
        let payload_bytes = self.payload_bytes(&header)?;
        // One whose length is written longer than it has to be is written anew: its reader may be strict.
        let is_whole = header.is_final && header.is_shortest() && bytes.len() >= header.header_bytes + payload_bytes;
        Ok(match header.opcode {
            Opcode::Data(kind) if is_whole => Some(Whole { kind, header, payload_bytes }),
            _ => None,
        })
    }

    fn consume(&mut self, count: usize) {
        self.bytes_taken += count as u64;
        self.bytes.consume(count);
    }
}

/// What became of the frame at the front.
enum Step {
    Took(Incoming),
    /// It is part of a message that is not whole yet.
    Part,
    /// It is not whole itself.
    NotWhole,
}

impl Step {
    fn message(kind: Kind, payload: Bytes, mask: Option<Mask>) -> Result<Self, Broken> {
        if kind == Kind::Text && std::str::from_utf8(&payload).is_err() {
            return Err(Broken::NotUtf8);
        }
        Ok(Self::Took(Incoming::Message(Message::from_peer(kind, payload), mask)))
    }
}

#[cfg(test)]
#[path = "inbox/tests.rs"]
mod tests;
