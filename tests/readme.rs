//! Holds the README to the program: its tables, its words, its bots.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod house;
mod libraries;
mod program;

use countersign::scope::Right;
use countersign::supply::account::{NotAnswered, NotSent};
use countersign::upstream::Silence;
use countersign::venue::{Refusal, VENUES};
use program::{Outcome, PATIENCE, Serving, binary, countersign, finish, run, user_folder};
use std::fs;
use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");

#[test]
fn the_table_of_venues_is_the_program_s() {
    for (venue, says) in VENUES {
        let row = format!("| `{}` | {says} |", venue.name());
        assert!(README.contains(&row), "the README lacks the row\n{row}");
    }
}

#[test]
fn every_path_of_a_venue_is_told() {
    for endpoint in VENUES.iter().flat_map(|(venue, _)| venue.endpoints()) {
        let Some(path) = endpoint.local_path else { continue };
        assert!(README.contains(&format!("`{path}`")), "the README does not tell of {path}");
        let real = format!("`{}{}`", endpoint.host, endpoint.path);
        assert!(endpoint.host.is_empty() || README.contains(&real), "the README does not tell of {real}");
    }
}

#[test]
fn every_sentence_of_a_refused_login_is_told() {
    use countersign::fault::to_client;
    use countersign::session::End;
    for end in [
        End::AuthenticationRequired,
        End::AuthenticationTimeout,
        End::TokenMissing,
        End::InvalidToken,
        End::AuthenticationFailed,
        End::MaxConnections,
    ] {
        let sentence = to_client(end, 0).expect("a close frame").reason;
        assert!(README.contains(&format!("`{sentence}`")), "the README lacks `{sentence}`");
    }
}

#[test]
fn every_fate_of_a_request_and_every_reason_of_a_refusal_is_told() {
    let fates = [NotAnswered::NotSent(NotSent::Busy), NotAnswered::MaybeSent(Silence::Lost)].map(|fate| fate.word());
    let refusals = [
        Refusal::Malformed,
        Refusal::Unknown,
        Refusal::NotPermitted(Right::Trade),
        Refusal::CredentialField,
        Refusal::NotAuthenticated,
        Refusal::Replayed,
    ];
    for word in fates.into_iter().chain(refusals.map(Refusal::slug)) {
        let is_told = README.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{word}`")));
        assert!(is_told, "the README lacks `{word}`");
    }
}

#[test]
fn every_command_is_told() {
    let help = run(user_folder().path(), &["--help"]).stdout;
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let names = commands.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let told: Vec<&str> = names.filter(|name| !["serve", "demo", "help", "certs"].contains(name)).collect();
    assert!(told.len() > 5, "{help}");
    for name in told {
        assert!(README.contains(&format!("countersign {name}")), "the README does not tell of `countersign {name}`");
    }
}

#[test]
fn the_unmodified_bot_runs_as_it_is_written() {
    if libraries::is_skipped("the_unmodified_bot_runs_as_it_is_written") {
        return;
    }
    let folder = user_folder();
    fs::write(folder.path().join("my_bot.py"), block("import krakenex")).unwrap();
    let _proxy = Serving::open_findable(folder.path());
    let printed = run(folder.path(), &["key", "--client", "bot-a", "--account", "kraken_main", "--json"]).stdout;
    let pair: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let python = libraries::krakenex("krakenex_bot.py").program;
    let mut bot = countersign(folder.path(), &["run", "--", python.to_str().unwrap(), "my_bot.py"]);
    let said = finish(
        bot.env("API_KEY", pair["key"].as_str().unwrap()).env("API_SECRET", pair["secret"].as_str().unwrap()),
        PATIENCE,
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("'error': []") && said.stdout.contains("ZUSD"), "{said:?}");
}

#[test]
fn the_bot_without_any_key_runs_as_it_is_written() {
    if libraries::is_skipped("the_bot_without_any_key_runs_as_it_is_written") {
        return;
    }
    let folder = user_folder();
    let proxy = Serving::open(folder.path(), &[]);
    let text = block("from websockets").replace("localhost:8443", &format!("localhost:{}", proxy.address.port()));
    fs::write(folder.path().join("first_bot.py"), text).unwrap();
    let python = libraries::websockets().program;
    let said = paste(folder.path(), &python);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains(r#""type":"connected""#) && said.stdout.contains(r#""success":true"#), "{said:?}");
}

/// The README's block of Python with this line in it.
fn block(line: &str) -> &'static str {
    let mut blocks = README.split("```python\n").skip(1).filter_map(|rest| rest.split_once("```"));
    blocks.find(|(code, _)| code.contains(line)).expect("a block with that line").0
}

/// Runs the README's line for the bot without a key, with this program and a Python that has the library.
fn paste(folder: &Path, python: &Path) -> Outcome {
    let line = README.lines().find(|line| line.ends_with("first_bot.py") && line.contains("TOKEN=")).unwrap();
    let line = line.replace("bot/bin/python", &python.display().to_string());
    let line = line.replace("$(countersign", &format!("$({}", binary().display()));
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).current_dir(folder).env_clear().env("PATH", std::env::var("PATH").unwrap());
    finish(&mut shell, PATIENCE)
}
