//! Frames as they stand on the wire: headers, masks and close payloads (RFC 6455, sections 5 and 7.4). Pure.

use crate::buffer::Buffer;
use crate::message::Kind;

/// The longest header: two bytes, eight of the length, four of the mask.
pub const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;
/// The code of a close without one.
pub const NO_CODE: u16 = 1005;
/// The code for a peer that broke the protocol.
const PROTOCOL_ERROR: u16 = 1002;

/// The key that a client's payload is masked with.
pub type Mask = [u8; 4];

/// How a leg broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The connection ended without a close frame.
    Lost,
    /// The peer broke RFC 6455.
    Protocol,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A message over the limit.
    TooBig,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The next part of a message.
    Continuation,
    /// A message, or its first part.
    Data(Kind),
    /// The end of the conversation.
    Close,
    /// A question whether the peer is there.
    Ping,
    /// The answer to it.
    Pong,
}

impl Opcode {
    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Data(Kind::Text) => 0x1,
            Self::Data(Kind::Binary) => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Data(Kind::Text),
            0x2 => Self::Data(Kind::Binary),
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// True for the last frame of a message.
    pub is_final: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// What its payload is masked with.
    pub mask: Option<Mask>,
    /// Bytes of the header itself.
    pub header_bytes: usize,
    /// Bytes that the peer says will follow.
    pub payload_bytes: u64,
}

impl Header {
    /// Reads the header at the front of these bytes. `None`: it is not whole yet. An error: it is none, whatever
    /// follows.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, Broken> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let opcode = Opcode::from_bits(first & 0x0F).ok_or(Broken::Protocol)?;
        let (is_final, has_reserved_bits) = (first & 0x80 != 0, first & 0x70 != 0);
        let (is_masked, length) = (second & 0x80 != 0, second & 0x7F);
        let is_bad_control = opcode.is_control() && (!is_final || usize::from(length) > CONTROL_BYTES_MAX);
        if has_reserved_bits || is_bad_control {
            return Err(Broken::Protocol);
        }
        let (payload_bytes, length_bytes) = match length {
            126 => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 8),
                None => return Ok(None),
            },
            length => (u64::from(length), 0),
        };
        let mask = match (is_masked, rest[length_bytes..].first_chunk()) {
            (false, _) => None,
            (true, Some(mask)) => Some(*mask),
            (true, None) => return Ok(None),
        };
        let header_bytes = 2 + length_bytes + if is_masked { 4 } else { 0 };
        Ok(Some(Self { is_final, opcode, mask, header_bytes, payload_bytes }))
    }
}

impl Header {
    /// True if the length is written in as few bytes as it needs, as RFC 6455 (5.2) wants it.
    pub fn is_shortest(&self) -> bool {
        let length_bytes = self.header_bytes - 2 - if self.mask.is_some() { 4 } else { 0 };
        match length_bytes {
            0 => true,
            2 => self.payload_bytes >= 126,
            _ => self.payload_bytes > u64::from(u16::MAX),
        }
    }
}

/// Appends a whole frame.
pub fn put(out: &mut Buffer, opcode: Opcode, payload: &[u8], mask: Option<Mask>) {
    let space = out.space(HEADER_BYTES_MAX + payload.len());
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    space[0] = 0x80 | opcode.bits();
    let mut at = 2;
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length), _) if length < 126 => space[1] = mask_bit | length,
        (_, Ok(length)) => {
            space[1] = mask_bit | 126;
            space[2..4].copy_from_slice(&length.to_be_bytes());
            at = 4;
        }
        _ => {
            space[1] = mask_bit | 127;
            space[2..10].copy_from_slice(&(payload.len() as u64).to_be_bytes());
            at = 10;
        }
    }
    if let Some(mask) = mask {
        space[at..at + 4].copy_from_slice(&mask);
        at += 4;
    }
    let end = at + payload.len();
    space[at..end].copy_from_slice(payload);
    if let Some(mask) = mask {
        apply(mask, &mut space[at..end]);
    }
    out.fill(end);
}

/// Masks a payload, or takes its mask off: the same in both directions.
pub fn apply(mask: Mask, payload: &mut [u8]) {
    // As many bytes at once as any processor's registers hold; the compiler makes vector instructions of it.
    const STRIDE: usize = 64;
    let key: [u8; STRIDE] = std::array::from_fn(|at| mask[at % 4]);
    let mut strides = payload.chunks_exact_mut(STRIDE);
    for stride in &mut strides {
        for (byte, key) in stride.iter_mut().zip(&key) {
            *byte ^= key;
        }
    }
    for (byte, key) in strides.into_remainder().iter_mut().zip(&key) {
        *byte ^= key;
    }
}

/// A mask for a frame of our own.
///
/// It hides nothing: masks keep scripts in browsers from writing requests that some cache on the way takes for HTTP, and
/// inside TLS there is none. So a system without random numbers is no reason to keep a cancel back.
pub fn fresh_mask() -> Mask {
    getrandom::u32().unwrap_or_default().to_be_bytes()
}

/// The code of a close frame, which an unfit one loses to 1002. An error: it is no close frame.
pub fn close_code(payload: &[u8]) -> Result<u16, Broken> {
    match payload {
        [] => Ok(NO_CODE),
        [_] => Err(Broken::Protocol),
        [high, low, reason @ ..] => {
            std::str::from_utf8(reason).map_err(|_| Broken::NotUtf8)?;
            let code = u16::from_be_bytes([*high, *low]);
            let may_be_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            Ok(if may_be_sent { code } else { PROTOCOL_ERROR })
        }
    }
}

/// The payload of a close frame. A reason that would not fit is cut between characters.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let fits = |end: &usize| *end <= CONTROL_BYTES_MAX - 2 && reason.is_char_boundary(*end);
    let end = (0..=reason.len()).rev().find(fits).unwrap_or(0);
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    payload
}
