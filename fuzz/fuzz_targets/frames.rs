//! Any bytes in any pieces as what a peer sends: however they are cut, the same is read, and nothing is read of bytes
//! that did not come.
//!
//! `cargo +nightly fuzz run frames`

#![no_main]

use countersign::relay::inbox::{Inbox, Incoming, Peer};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

fn read(peer: Peer, pieces: &[&[u8]]) -> Vec<String> {
    let mut inbox = Inbox::new(peer, LIMIT);
    let mut read = Vec::new();
    let mut came = 0;
    for piece in pieces {
        inbox.push(piece);
        came += piece.len() as u64;
        while let Some(incoming) = inbox.take_next() {
            assert!(inbox.bytes_taken() <= came && inbox.bytes_read() == came);
            let is_end = matches!(incoming, Incoming::Closed(_) | Incoming::Broken(_));
            read.push(match incoming {
                Incoming::Message(message, mask) => {
                    assert!(message.len() <= LIMIT);
                    format!("{:?} {:?} {mask:?}", message.kind(), message.payload())
                }
                other => format!("{other:?}"),
            });
            if is_end {
                return read;
            }
        }
        inbox.settle();
    }
    read
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_client, size, bytes) = input;
    let peer = if is_client { Peer::Client } else { Peer::Exchange };
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(size).max(1)).collect();
    assert_eq!(read(peer, &[bytes]), read(peer, &pieces));
});
