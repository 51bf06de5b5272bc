//! `docs/bots.md` as its readers use it: every block that says it is tested is taken from the page and run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod bot;
mod door;
mod house;
mod libraries;
mod program;

use bot::Ended;
use door::{Door, Target, Venue, Way};
use libraries::Library;

const PAGE: &str = include_str!("../docs/bots.md");
/// Stands before a block that is run, with the library and the venue behind it.
const MARK: &str = "<!-- run: ";

/// A block of the page.
#[derive(Debug)]
struct Block {
    library: &'static str,
    venue: Venue,
    language: &'static str,
    code: &'static str,
}

#[tokio::test]
async fn the_blocks_of_the_page_run_at_a_simulator_as_they_are_written() {
    if !libraries::is_skipped("the_blocks_of_the_page_run_at_a_simulator_as_they_are_written") {
        run_all(Target::Directly).await;
    }
}

#[tokio::test]
async fn the_blocks_of_the_page_run_through_the_proxy_as_they_are_written() {
    if !libraries::is_skipped("the_blocks_of_the_page_run_through_the_proxy_as_they_are_written") {
        run_all(Target::ThroughTheProxy).await;
    }
}

#[test]
fn every_block_that_says_it_is_tested_is_marked() {
    // A table's heading and the first paragraph explain the word.
    let claims = PAGE.matches("*tested*").count() + PAGE.matches("*Tested*").count() - 1;
    assert_eq!(blocks().len(), claims);
    let code = PAGE.matches("```python").count() + PAGE.matches("```js\n").count();
    assert_eq!(blocks().len(), code, "a block of code without a mark");
}

async fn run_all(target: Target) {
    // All of this blocks the thread that the exchanges run on: a proxy or a bot that is under way would wait for its
    // handshake. What may take minutes, on a machine that has none of the libraries, comes before the first of them.
    let installed: Vec<_> = blocks().into_iter().filter_map(|block| Some((library(block.library)?, block))).collect();
    let mut prepared = Vec::new();
    for (library, block) in installed {
        let door = Door::open(target, block.venue).await;
        let command = command(&library, &block, &door, target);
        prepared.push((block, door, command));
    }
    // Side by side: they mostly wait, as the exchanges' limits want it.
    let running = prepared.into_iter().map(|(block, door, command)| run(block, door, command, target));
    futures_util::future::join_all(running).await;
}

async fn run(block: Block, door: Door, command: tokio::process::Command, target: Target) {
    let scene = || format!("{block:?}\n{target:?}, the exchange saw:\n{}", door.story());
    let Ended { is_well, said, complaints } = bot::finish(command, scene).await;
    assert!(is_well, "{block:?}\n{said}{complaints}");
    assert!(!said.trim().is_empty() && !said.contains("EAPI:"), "{block:?}\n{said}{complaints}");
    let record = door.record();
    assert_eq!((record.nonce_errors(), record.signature_errors()), (0, 0), "{block:?}");
    assert!(record.bytes_received() > 0, "{block:?}");
    let has_sockets = block.code.contains("wss://") || block.code.contains("/hubs/");
    assert_eq!(record.sockets_opened() > 0, has_sockets, "{block:?}");
    if target == Target::ThroughTheProxy {
        assert_eq!((record.verdicts(), record.leaks()), (Vec::new(), 0), "{block:?}");
    }
}

/// The blocks behind a mark, in the page's order.
fn blocks() -> Vec<Block> {
    let marked = PAGE.split(MARK).skip(1);
    marked
        .map(|rest| {
            let (mark, rest) = rest.split_once(" -->\n```").expect("a block right behind its mark");
            let (library, venue) = mark.split_once(", ").expect("a library and a venue");
            let venue = Venue::ALL.into_iter().find(|known| known.name() == venue);
            let (language, rest) = rest.split_once('\n').expect("a language");
            let (code, _) = rest.split_once("```").expect("an end");
            Block { library, venue: venue.expect("a venue that we know"), language, code }
        })
        .collect()
}

/// Runs a block with the page's places and paths replaced by those of the door, and nothing else.
fn command(library: &Library, block: &Block, door: &Door, target: Target) -> tokio::process::Command {
    let mut code = block.code.replace("certs/ca.pem", &door.ca.display().to_string());
    for (place, address) in
        [("8601", door.address), ("8602", door.public), ("8603", door.address), ("8604", door.address)]
    {
        code = code.replace(&format!("localhost:{place}"), &format!("localhost:{}", address.port()));
    }
    let script = match block.language {
        // Beside its modules, which all doors share: the two tests run side by side.
        "js" => library.script.with_file_name(format!("page-{target:?}.mjs")),
        // Beside the authority, in a folder that only this door has.
        _ => door.ca.with_file_name("page.py"),
    };
    std::fs::write(&script, code).unwrap();
    door::command(&[library.program.as_os_str(), script.as_os_str()], door, Way::Port)
}

/// The library that a mark names. None, and said aloud, where this machine cannot have it.
fn library(name: &str) -> Option<Library> {
    Some(match name {
        "ccxt" => libraries::ccxt("ccxt_bot.py"),
        "krakenex" => libraries::krakenex("krakenex_bot.py"),
        "kraken-sdk" => libraries::kraken_sdk("kraken_sdk_bot.py"),
        "bitfinex-api-py" => libraries::bitfinex_py("bitfinex_py_bot.py"),
        "bitfinex-api-node" => libraries::bitfinex_node("bitfinex_node_bot.mjs"),
        "signalrcore" => libraries::signalrcore(),
        "pysignalr" => libraries::pysignalr(),
        "signalr" => libraries::signalr(),
        "project-x-py" => return libraries::project_x_py("the block of project-x-py"),
        other => panic!("the page names {other}, which is not installed"),
    })
}
