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
    for shown in ["connected", "add_order", "\"token\":\"", "\"event\":\"auth\"", "40 balances, and not one"] {
        assert!(demo.stdout.contains(shown), "{shown}\n{}", demo.stdout);
    }
    for (stream, text) in [("stdout", &demo.stdout), ("stderr", &demo.stderr)] {
        for name in ["\"token\":\"", "\"apiKey\":\"", "\"authSig\":\"", "API-Key ", "API-Sign "] {
            let values = text.split(name).skip(1).filter_map(|rest| rest.split(['"', ' ']).next());
            for value in values {
                let is_cut = value.ends_with('…') && value.chars().count() <= 12;
                assert!(is_cut, "{stream} shows {name} in full: {} characters", value.len());
            }
        }
        assert_eq!(longest_word(text), "", "{stream} has a word as long as a secret");
    }
}

#[test]
fn what_the_unmodified_bot_signed_is_signed_anew_and_otherwise_as_it_was() {
    let folder = Folder::new();
    let demo = finish(&mut countersign(folder.path(), &["demo"]), Duration::from_secs(60));
    assert_eq!(demo.code, Some(0), "{}", demo.stderr);
    let requests = |who: &str| -> Vec<Request> {
        let lines = demo.stdout.lines().filter(|line| line.trim_start().starts_with(who) && line.contains("API-Key "));
        lines.map(Request::read).collect()
    };
    let (sent, got) = (requests("bot sent"), requests("exchange got"));
    assert_eq!(sent.len(), 4, "{}", demo.stdout);
    for request in &sent {
        let countersigned = got.iter().find(|other| other.path == request.path).expect("the exchange got it as well");
        assert_eq!(countersigned.fields, request.fields, "{}", demo.stdout);
        assert_ne!(countersigned.nonce, request.nonce, "{}", demo.stdout);
        assert_ne!(countersigned.key, request.key, "{}", demo.stdout);
        assert_ne!(countersigned.signature, request.signature, "{}", demo.stdout);
    }
    // The token that the bot holds is not the one that the exchange sees.
    let tokens = |who: &str| -> Vec<&str> {
        let lines = demo.stdout.lines().filter(|line| line.trim_start().starts_with(who) && line.contains("balances"));
        lines.filter_map(|line| line.split("\"token\":\"").nth(1)?.split('"').next()).collect()
    };
    let (held, seen) = (tokens("bot sent"), tokens("exchange got"));
    assert_eq!((held.len(), seen.len()), (1, 2), "{}", demo.stdout);
    assert_ne!(held[0], seen[0]);
}

/// A signed request as the demo shows it.
struct Request {
    path: String,
    key: String,
    signature: String,
    nonce: String,
    fields: String,
}

impl Request {
    fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let behind = |name: &str| {
            let at = words.iter().position(|word| *word == name).expect("the line has it");
            words[at + 1].to_owned()
        };
        let body = words.last().and_then(|body| body.strip_prefix("nonce=")).expect("a body with a nonce");
        let (nonce, fields) = body.split_once('&').unwrap_or((body, ""));
        let (nonce, fields) = (nonce.to_owned(), fields.to_owned());
        Self { path: behind("POST"), key: behind("API-Key"), signature: behind("API-Sign"), nonce, fields }
    }
}

/// The first word as long as a key, a signature or a token; empty if there is none.
fn longest_word(text: &str) -> &str {
    const SECRET_CHARS_MIN: usize = 40;
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "+/=_.".contains(letter);
    text.split(|letter| !is_part(letter)).find(|word| word.len() >= SECRET_CHARS_MIN).unwrap_or_default()
}
