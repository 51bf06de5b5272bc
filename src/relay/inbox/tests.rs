#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use super::super::frame::{CONTROL_BYTES_MAX, HEADER_BYTES_MAX};
use super::*;
use proptest::prelude::*;
use std::io::{self, Read, Write};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as TheirError, Message as Theirs};

const LIMIT: usize = 70_000;
const MASK: Mask = [0x37, 0xFA, 0x21, 0x3D];

/// A frame as its sender would write it.
#[derive(Debug, Clone)]
struct Sent {
    first: u8,
    payload: Vec<u8>,
    is_masked: bool,
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let mask_bit = if self.is_masked { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match self.payload.len() {
            length @ 0..126 => bytes.push(mask_bit | u8::try_from(length).unwrap()),
            length => match u16::try_from(length) {
                Ok(length) => {
                    bytes.push(mask_bit | 126);
                    bytes.extend(length.to_be_bytes());
                }
                Err(_) => {
                    bytes.push(mask_bit | 127);
                    bytes.extend((length as u64).to_be_bytes());
                }
            },
        }
        if self.is_masked {
            bytes.extend(MASK);
            bytes.extend(self.payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
        } else {
            bytes.extend(&self.payload);
        }
        bytes
    }
}

fn text(payload: &str, is_masked: bool) -> Sent {
    Sent { first: 0x81, payload: payload.into(), is_masked }
}

/// What somebody who reads a stream of frames says of it.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(usize),
    Closed(u16),
    Broken,
    /// The same, for text that is not UTF-8.
    NotUtf8,
}

impl Said {
    fn is_end(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Broken | Self::NotUtf8)
    }
}

/// What our own inbox says, if the bytes come in pieces of these sizes, by turns.
fn ours(peer: Peer, bytes: &[u8], sizes: &[usize]) -> Vec<Said> {
    let mut inbox = Inbox::new(peer, LIMIT);
    let mut said = Vec::new();
    let mut sizes = sizes.iter().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        rest = behind;
        inbox.push(piece);
        while let Some(incoming) = inbox.take_next() {
            said.push(match incoming {
                Incoming::Message(message, _) => Said::Message(message.kind(), message.payload().to_vec()),
                Incoming::Ping(payload) => Said::Ping(payload.to_vec()),
                Incoming::Pong(payload_bytes) => Said::Pong(payload_bytes),
                Incoming::Closed(code) => Said::Closed(code),
                Incoming::Broken(Broken::NotUtf8) => Said::NotUtf8,
                Incoming::Broken(_) => Said::Broken,
            });
            if said.last().is_some_and(Said::is_end) {
                return said;
            }
        }
        inbox.settle();
    }
    said
}

/// What a library says that others wrote.
fn theirs(peer: Peer, bytes: &[u8]) -> Vec<Said> {
    struct Tape<'a>(&'a [u8]);
    impl Read for Tape<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(room) }
        }
    }
    impl Write for Tape<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let role = if peer == Peer::Client { Role::Server } else { Role::Client };
    let config = WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
    let mut socket = WebSocket::from_raw_socket(Tape(bytes), role, Some(config));
    let mut said: Vec<Said> = Vec::new();
    while !said.last().is_some_and(Said::is_end) {
        said.push(match socket.read() {
            Ok(Theirs::Text(text)) => Said::Message(Kind::Text, text.as_bytes().to_vec()),
            Ok(Theirs::Binary(bytes)) => Said::Message(Kind::Binary, bytes.to_vec()),
            Ok(Theirs::Ping(payload)) => Said::Ping(payload.to_vec()),
            Ok(Theirs::Pong(payload)) => Said::Pong(payload.len()),
            Ok(Theirs::Close(frame)) => Said::Closed(frame.map_or(1005, |frame| frame.code.into())),
            Ok(Theirs::Frame(_)) => unreachable!("never read"),
            Err(TheirError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(TheirError::Utf8(_)) => Said::NotUtf8,
            Err(_) => Said::Broken,
        });
    }
    said
}

/// Frames that are mostly good, with bits here and there that are not.
fn frames(is_masked: bool) -> impl Strategy<Value = Vec<Sent>> {
    let first = prop_oneof![
        12 => prop::sample::select(vec![0x81_u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        8 => "[a-zä€]{0,40}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>(), 0..130),
        1 => (0_usize..4).prop_map(|size| vec![b'x'; [125, 126, 65_535, 65_536][size]]),
    ];
    let masked = prop_oneof![30 => Just(is_masked), 1 => any::<bool>()];
    let frame = (first, payload, masked).prop_map(|(first, mut payload, is_masked)| {
        if first & 0x08 != 0 {
            payload.truncate(CONTROL_BYTES_MAX);
        }
        if first == 0x88 && payload.len() >= 2 {
            // A code that is one of those around the limits.
            let code = 990 + u16::from(payload[1]) % 40;
            payload[..2].copy_from_slice(&code.to_be_bytes());
        }
        Sent { first, payload, is_masked }
    });
    prop::collection::vec(frame, 1..8)
}

proptest! {
    #[test]
    fn frames_say_what_another_library_says(
        peer in prop::sample::select(vec![Peer::Client, Peer::Exchange]),
        frames in (any::<bool>()).prop_flat_map(frames),
        sizes in prop::collection::vec(prop_oneof![1_usize..5, 1_usize..200, 1_usize..70_000], 1..5),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(Sent::bytes).collect();
        let (mut ours, mut theirs) = (ours(peer, &bytes, &sizes), theirs(peer, &bytes));
        // They refuse bad text at once, where we wait for the end of its message: whatever comes until then is what we
        // say. And they take a close of 1014 for one that may not be sent.
        if theirs.last() == Some(&Said::NotUtf8) {
            theirs.pop();
            ours.truncate(theirs.len());
        }
        for said in &mut ours {
            if *said == Said::Closed(1014) {
                *said = Said::Closed(1002);
            }
        }
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn no_bytes_at_all_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..400), size in 1_usize..50) {
        for peer in [Peer::Client, Peer::Exchange] {
            ours(peer, &bytes, &[size]);
        }
    }

    #[test]
    fn a_mask_that_is_put_on_twice_is_off(mask in any::<Mask>(), payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut masked = payload.clone();
        frame::apply(mask, &mut masked);
        let expected: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        prop_assert_eq!(&masked, &expected);
        frame::apply(mask, &mut masked);
        prop_assert_eq!(masked, payload);
    }

    #[test]
    fn what_is_put_is_read(
        length in prop_oneof![0_usize..300, 65_530_usize..65_540],
        mask in prop::option::of(any::<Mask>()),
    ) {
        let mut out = Buffer::new();
        let payload = vec![b'x'; length];
        frame::put(&mut out, Opcode::Data(Kind::Text), &payload, mask);
        let mut sent = Sent { first: 0x81, payload, is_masked: mask.is_some() }.bytes();
        let header = Header::read(out.bytes()).unwrap().unwrap();
        prop_assert!(header.header_bytes <= HEADER_BYTES_MAX);
        prop_assert_eq!((header.payload_bytes, header.mask), (length as u64, mask));
        if let Some(mask) = mask {
            // The model masks with a key of its own.
            let start = header.header_bytes;
            frame::apply(MASK, &mut sent[start..]);
            frame::apply(mask, &mut sent[start..]);
            sent[start - 4..start].copy_from_slice(&mask);
        }
        prop_assert_eq!(out.bytes(), sent);
    }
}

#[test]
fn whole_messages_at_the_front_pass_and_what_follows_them_waits() {
    let mut inbox = Inbox::new(Peer::Exchange, LIMIT);
    let row = [text("one", false).bytes(), text("{}", false).bytes()].concat();
    let part = Sent { first: 0x01, payload: b"thr".to_vec(), is_masked: false };
    let rest = Sent { first: 0x80, payload: b"ee".to_vec(), is_masked: false };
    for bytes in [&row, &part.bytes(), &text("in between is none", false).bytes()[..3].to_vec()] {
        inbox.push(bytes);
    }
    let found = inbox.frames(u64::MAX).unwrap();
    assert_eq!((found.bytes, found.messages, found.payload_bytes), (row.len(), 2, 5));
    assert_eq!(inbox.bytes_of(found), row);
    assert_eq!(inbox.frames(1).unwrap().messages, 1);
    inbox.take(found);
    assert_eq!(inbox.frames(u64::MAX), None, "a part of a message passed");
    assert!(matches!(inbox.take_next(), Some(Incoming::Broken(Broken::Protocol))));

    let mut inbox = Inbox::new(Peer::Exchange, LIMIT);
    inbox.push(&[part.bytes(), rest.bytes()].concat());
    assert_eq!(inbox.frames(u64::MAX), None);
    assert!(matches!(inbox.take_next(), Some(Incoming::Message(message, None)) if message.payload() == &b"three"[..]));
}

#[test]
fn control_frames_text_that_is_none_and_masked_frames_of_an_exchange_do_not_pass() {
    for (what, sent) in [
        ("ping", Sent { first: 0x89, payload: Vec::new(), is_masked: false }),
        ("close", Sent { first: 0x88, payload: Vec::new(), is_masked: false }),
        ("bad text", Sent { first: 0x81, payload: vec![0xFF], is_masked: false }),
        ("mask", text("x", true)),
        ("continuation", Sent { first: 0x80, payload: Vec::new(), is_masked: false }),
        ("too long", Sent { first: 0x82, payload: vec![0; LIMIT + 1], is_masked: false }),
    ] {
        let mut inbox = Inbox::new(Peer::Exchange, LIMIT);
        inbox.push(&[text("good", false).bytes(), sent.bytes()].concat());
        assert_eq!(inbox.frames(u64::MAX).unwrap().messages, 1, "{what}");
    }
}

#[test]
fn a_length_in_more_bytes_than_it_needs_is_read_and_does_not_pass() {
    for header in [&[0x81, 126, 0, 2][..], &[0x81, 127, 0, 0, 0, 0, 0, 0, 0, 2]] {
        let mut inbox = Inbox::new(Peer::Exchange, LIMIT);
        inbox.push(&[header, b"{}"].concat());
        assert_eq!(inbox.frames(u64::MAX), None);
        assert!(matches!(inbox.take_next(), Some(Incoming::Message(message, None)) if message.payload() == &b"{}"[..]));
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_by_its_header_alone() {
    let mut inbox = Inbox::new(Peer::Client, LIMIT);
    let sent = Sent { first: 0x81, payload: vec![b'x'; LIMIT + 1], is_masked: true };
    inbox.push(&sent.bytes()[..HEADER_BYTES_MAX]);
    assert!(matches!(inbox.take_next(), Some(Incoming::Broken(Broken::TooBig))));
}

#[test]
fn a_message_keeps_the_mask_of_its_last_frame() {
    let mut inbox = Inbox::new(Peer::Client, LIMIT);
    inbox.push(&text("order", true).bytes());
    assert!(matches!(inbox.take_next(), Some(Incoming::Message(_, Some(MASK)))));
}
