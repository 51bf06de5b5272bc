//! One WebSocket message: text or binary, cheap to clone, edited by splicing bytes.

use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// What a message's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

/// One whole data message. Its payload is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    kind: Kind,
    payload: Bytes,
}

impl Message {
    /// A text message of our own.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: Kind::Text, payload: Bytes::from(text.into()) }
    }

    /// A message as it came from a peer. Text must have been checked to be UTF-8.
    pub fn from_peer(kind: Kind, payload: Bytes) -> Self {
        Self { kind, payload }
    }

    /// Text or binary.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The bytes.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The bytes, without the rest.
    pub fn into_payload(self) -> Bytes {
        self.payload
    }

    /// Length of the payload in bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// True if the payload has no bytes.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// The same message with the bytes of `range` replaced by `pieces`; every other byte as it was.
    #[must_use]
    pub fn spliced(&self, range: Range<usize>, pieces: &[&[u8]]) -> Self {
        let added: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut payload = BytesMut::with_capacity(self.payload.len() - range.len() + added);
        payload.extend_from_slice(&self.payload[..range.start]);
        for piece in pieces {
            payload.extend_from_slice(piece);
        }
        payload.extend_from_slice(&self.payload[range.end..]);
        Self { kind: self.kind, payload: payload.freeze() }
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.kind, self.payload.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_splice_leaves_every_other_byte() {
        let message = Message::text(r#"{"price":0.10000000000000000001,"token":"x"}"#);
        let edited = message.spliced(41..42, &[b"real"]);
        assert_eq!(&edited.payload()[..], br#"{"price":0.10000000000000000001,"token":"real"}"#);
    }

    #[test]
    fn debug_shows_no_payload() {
        assert!(!format!("{:?}", Message::text("canary")).contains("canary"));
    }
}
