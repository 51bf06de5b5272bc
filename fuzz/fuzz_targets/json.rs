//! Any bytes: the JSON reader must judge them as serde_json does, but for the refusals that are its own.
//!
//! `cargo +nightly fuzz run json`

#![no_main]

#[path = "../../src/venue/wire/json/oracle.rs"]
mod oracle;

use countersign::venue::wire::json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| oracle::assert_right_judgement(bytes, json::read(bytes).is_ok()));
