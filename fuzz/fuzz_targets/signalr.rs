//! Any bytes as a client's message: what is written anew of a record is what serde_json reads there, and nothing else.
//!
//! `cargo +nightly fuzz run signalr`

#![no_main]

#[path = "../../src/venue/wire/signalr/oracle.rs"]
mod oracle;

use countersign::venue::wire::json;
use countersign::venue::wire::signalr::{Handshake, Record, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (records, part) = split(bytes);
    let mut length = part.len();
    for record in records {
        length += record.len() + 1;
        let Ok(document) = json::read(record) else { continue };
        let _ = Handshake::read(document.root());
        if let Ok(Record::Invocation(invocation)) = Record::read(document.root()) {
            let mut written = Vec::new();
            invocation.write(invocation.target, &mut written);
            oracle::assert_right_writing(record, invocation.target, &written);
        }
    }
    assert_eq!(length, bytes.len());
});
