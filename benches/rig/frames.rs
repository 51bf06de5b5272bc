//! Just enough of RFC 6455 to measure others: whole frames, none of them fragmented. Not for peers that misbehave.

use std::ops::Range;

/// Opcodes, with FIN set: section 5.2.
pub(super) const TEXT: u8 = 0x81;
pub(super) const BINARY: u8 = 0x82;
pub(super) const CLOSE: u8 = 0x88;
pub(super) const PING: u8 = 0x89;
pub(super) const PONG: u8 = 0x8a;

/// Where a frame's parts are in a buffer.
pub(super) struct Frame {
    /// The first byte: FIN and opcode.
    pub(super) first: u8,
    pub(super) mask: Option<[u8; 4]>,
    pub(super) payload: Range<usize>,
}

impl Frame {
    pub(super) fn is_data(&self) -> bool {
        self.first & 0x0f < 8
    }
}

/// The frame that the buffer begins with, if all of it is there.
pub(super) fn parse(buffer: &[u8]) -> Option<Frame> {
    let (&first, &second) = (buffer.first()?, buffer.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(*buffer.get(2..)?.first_chunk()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(*buffer.get(2..)?.first_chunk()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let mut mask = None;
    if second & 0x80 != 0 {
        mask = Some(*buffer.get(at..)?.first_chunk()?);
        at += 4;
    }
    let payload = at..at.checked_add(length)?;
    (payload.end <= buffer.len()).then_some(Frame { first, mask, payload })
}

/// Appends a frame; with a mask as clients send it.
pub(super) fn write(out: &mut Vec<u8>, first: u8, mask: Option<[u8; 4]>, payload: &[u8]) {
    out.push(first);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => out.push(masked | length),
        (_, Ok(length)) => {
            out.push(masked | 126);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend(mask.into_iter().flatten());
    let begin = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply(mask, &mut out[begin..]);
    }
}

/// Masks, or takes the mask off: section 5.3.
pub(super) fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for four in payload.chunks_mut(4) {
        for (byte, mask) in four.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}
