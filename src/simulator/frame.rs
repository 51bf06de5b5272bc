//! WebSocket frames as RFC 6455 writes them, seen from a server.
//!
//! Our own, not a library's: a simulator has to send what no library would (masked, broken, half frames), has to read
//! while its writing is blocked, and has to see whether the peer's frames are right. Not for the proxy.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest message taken from a peer. Kraken and Bitfinex document none; a batch of 75 orders is below 100 KiB.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a frame is (RFC 6455, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn is_control(self) -> bool {
        self.bits() >= 8
    }
}

/// One whole message, or one control frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong(Bytes),
    /// The code (1005 where there was none) and the reason.
    Close(u16, Bytes),
}

/// Puts messages together from what a peer sends.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    message: Option<(Opcode, BytesMut)>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader of `from`, whose first bytes have been read already.
    pub(super) fn new(from: R, read_ahead: &[u8]) -> Self {
        Self { from, buffer: BytesMut::from(read_ahead), message: None }
    }

    /// The next message; none at the end of the stream. Cancel-safe: what was read stays in the buffer.
    pub(super) async fn next(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            while let Some((is_final, opcode, payload)) = parse(&mut self.buffer)? {
                if let Some(incoming) = self.assemble(is_final, opcode, payload)? {
                    return Ok(Some(incoming));
                }
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn assemble(&mut self, is_final: bool, opcode: Opcode, payload: BytesMut) -> io::Result<Option<Incoming>> {
        match opcode {
            Opcode::Ping => return Ok(Some(Incoming::Ping(payload.freeze()))),
            Opcode::Pong => return Ok(Some(Incoming::Pong(payload.freeze()))),
            Opcode::Close => return close(payload.freeze()).map(Some),
            Opcode::Text | Opcode::Binary => {
                if self.message.is_some() {
                    return Err(broken("a new message inside another"));
                }
                self.message = Some((opcode, payload));
            }
            Opcode::Continuation => {
                let Some((_, message)) = &mut self.message else {
                    return Err(broken("a continuation of nothing"));
                };
                if message.len() + payload.len() > MESSAGE_BYTES_MAX {
                    return Err(broken("a message too long"));
                }
                message.extend_from_slice(&payload);
            }
        }
        if !is_final {
            return Ok(None);
        }
        Ok(match self.message.take() {
            Some((Opcode::Binary, message)) => Some(Incoming::Binary(message.freeze())),
            Some((_, message)) if std::str::from_utf8(&message).is_err() => {
                return Err(broken("text that is not UTF-8"));
            }
            Some((_, message)) => Some(Incoming::Text(message.freeze())),
            None => None,
        })
    }
}

/// Takes one frame off the buffer, unmasked; none if it has not come in whole.
fn parse(buffer: &mut BytesMut) -> io::Result<Option<(bool, Opcode, BytesMut)>> {
    let &[first, second, ..] = &buffer[..] else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(broken("a reserved bit is set"));
    }
    let opcode = Opcode::from_bits(first & 0x0f).ok_or_else(|| broken("a reserved opcode"))?;
    let is_final = first & 0x80 != 0;
    if second & 0x80 == 0 {
        return Err(broken("a client's frame without mask"));
    }
    let (length, header) = match second & 0x7f {
        126 => {
            let Some(&[a, b]) = buffer.get(2..4).and_then(|bytes| bytes.first_chunk()) else { return Ok(None) };
            (u64::from(u16::from_be_bytes([a, b])), 4)
        }
        127 => {
            let Some(bytes) = buffer.get(2..10).and_then(|bytes| bytes.first_chunk()) else { return Ok(None) };
            (u64::from_be_bytes(*bytes), 10)
        }
        short => (u64::from(short), 2),
    };
    if opcode.is_control() && (length > 125 || !is_final) {
        return Err(broken("a control frame that is long or in parts"));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES_MAX {
        return Err(broken("a frame too long"));
    }
    if buffer.len() < header + 4 + length {
        buffer.reserve(header + 4 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(header);
    let mask = buffer.split_to(4);
    let mut payload = buffer.split_to(length);
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[at % 4];
    }
    Ok(Some((is_final, opcode, payload)))
}

fn close(payload: Bytes) -> io::Result<Incoming> {
    match payload.len() {
        0 => Ok(Incoming::Close(1005, payload)),
        1 => Err(broken("a close code of one byte")),
        _ => {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            Ok(Incoming::Close(code, payload.slice(2..)))
        }
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A server's frame: whole, not masked.
pub(super) fn write(opcode: Opcode, payload: &[u8]) -> Bytes {
    frame(0x80 | opcode.bits(), None, payload)
}

/// A close frame.
pub(super) fn write_close(code: u16, reason: &str) -> Bytes {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    payload.truncate(125);
    write(Opcode::Close, &payload)
}

/// A text frame with a mask, which only a client may send.
pub(super) fn write_masked(payload: &[u8]) -> Bytes {
    frame(0x81, Some([1, 2, 3, 4]), payload)
}

/// A text frame with a reserved bit that no extension has given a meaning.
pub(super) fn write_reserved_bit(payload: &[u8]) -> Bytes {
    frame(0xc1, None, payload)
}

fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 14);
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    out.put_u8(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => out.put_u8(mask_bit | short),
        (_, Ok(middle)) => {
            out.put_u8(mask_bit | 126);
            out.put_u16(middle);
        }
        _ => {
            out.put_u8(mask_bit | 127);
            out.put_u64(payload.len() as u64);
        }
    }
    match mask {
        None => out.put_slice(payload),
        Some(mask) => {
            out.put_slice(&mask);
            out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        }
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<Option<Incoming>> {
        FrameReader::new(tokio::io::empty(), bytes).next().await
    }

    #[tokio::test]
    async fn the_masked_hello_of_the_rfc_is_read() {
        // RFC 6455, 5.7: "A single-frame masked text message".
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(read(&hello).await.ok(), Some(Some(Incoming::Text(Bytes::from_static(b"Hello")))));
    }

    #[test]
    fn the_unmasked_hello_of_the_rfc_is_written() {
        assert_eq!(&write(Opcode::Text, b"Hello")[..], [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        assert_eq!(&write(Opcode::Binary, &[0; 256])[..4], [0x82, 0x7e, 0x01, 0x00]);
    }

    #[tokio::test]
    async fn a_client_frame_without_mask_is_refused() {
        assert!(read(&write(Opcode::Text, b"Hello")).await.is_err());
    }

    #[tokio::test]
    async fn fragments_become_one_message_with_a_ping_between() {
        let mut bytes = frame(0x01, Some([9; 4]), b"Hel").to_vec();
        bytes.extend_from_slice(&frame(0x89, Some([9; 4]), b"?"));
        bytes.extend_from_slice(&frame(0x80, Some([9; 4]), b"lo"));
        let mut reader = FrameReader::new(tokio::io::empty(), &bytes);
        assert_eq!(reader.next().await.ok(), Some(Some(Incoming::Ping(Bytes::from_static(b"?")))));
        assert_eq!(reader.next().await.ok(), Some(Some(Incoming::Text(Bytes::from_static(b"Hello")))));
        assert_eq!(reader.next().await.ok(), Some(None));
    }
}
