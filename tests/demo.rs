//! The demo: it ends by itself, and shows what the bots see beside what the exchanges see.

mod house;
mod program;

use house::Folder;
use program::{countersign, finish};
use std::time::Duration;

#[test]
fn the_demo_ends_by_itself_with_0_and_shows_both_sides() {
    let folder = Folder::new();
    let demo = finish(&mut countersign(folder.path(), &["demo"]), Duration::from_secs(60));
    assert_eq!(demo.code, Some(0), "{}\n{}", demo.stdout, demo.stderr);
    for shown in ["connected", "add_order", "\"token\":\"", "\"event\":\"auth\""] {
        assert!(demo.stdout.contains(shown), "{shown}\n{}", demo.stdout);
    }
    for (stream, text) in [("stdout", &demo.stdout), ("stderr", &demo.stderr)] {
        for name in ["\"token\":\"", "\"apiKey\":\"", "\"authSig\":\""] {
            for value in text.split(name).skip(1).filter_map(|rest| rest.split('"').next()) {
                let is_cut = value.ends_with('…') && value.chars().count() <= 12;
                assert!(is_cut, "{stream} shows {name} in full: {} characters", value.len());
            }
        }
        assert_eq!(longest_word(text), "", "{stream} has a word as long as a secret");
    }
}

/// The first word as long as a key, a signature or a token; empty if there is none.
fn longest_word(text: &str) -> &str {
    const SECRET_CHARS_MIN: usize = 40;
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "+/=_.".contains(letter);
    text.split(|letter| !is_part(letter)).find(|word| word.len() >= SECRET_CHARS_MIN).unwrap_or_default()
}
