//! What it costs to judge a client's message, edit it and send it on: the session alone, no socket.
//!
//! `cargo bench --bench judge`, `-- --quick` for a look whether it runs. The message goes in as bytes that are
//! already unmasked and comes out as the bytes for the exchange; `plain`, which reads nothing, is the floor. The client is
//! proved and local keys are configured, so that a token in a message is looked at.
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

mod stage;

use countersign::identity::jwt;
use countersign::message::Message;
use countersign::session::{Action, Event};
use stage::{
    BITFINEX_ANSWER, BITFINEX_ORDER, Desk, KRAKEN_ANSWER, KRAKEN_ORDER, KRAKEN_PING, Stage, TOKEN, bitfinex, kraken,
};
use std::hint::black_box;
use std::time::Instant;

/// Messages between two looks at the clock: fewer than a dialect remembers without an answer.
const BATCH: usize = 512;
fn main() {
    let is_quick = std::env::args().any(|word| word == "--quick") || !std::env::args().any(|word| word == "--bench");
    let (rounds, batches) = if is_quick { (1, 20) } else { (9, 300) };
    jwt::install_crypto();
    let desk = Desk::new();
    let order_with = |token: &str| KRAKEN_ORDER.replace("any-dummy-text", token);
    let placeholder = desk.placeholder();
    let (own, other, none) =
        (order_with(&placeholder), order_with(TOKEN), KRAKEN_ORDER.replace(r#","token":"any-dummy-text""#, ""));
    let mut cases = [
        Case::new("plain, passed unread", Stage::open(&desk, "plain", "ws"), KRAKEN_ORDER, None),
        Case::new("kraken ping, read", kraken(&desk, &none), KRAKEN_PING, None),
        Case::new("kraken add_order, no token in it", kraken(&desk, &none), &none, Some(KRAKEN_ANSWER)),
        Case::new("  its placeholder in each", kraken(&desk, &own), &own, Some(KRAKEN_ANSWER)),
        Case::new("  a dummy in each", kraken(&desk, KRAKEN_ORDER), KRAKEN_ORDER, Some(KRAKEN_ANSWER)),
        Case::new("  a token of Kraken's in each", kraken(&desk, &other), &other, Some(KRAKEN_ANSWER)),
        Case::new("bitfinex on, read", bitfinex(&desk), BITFINEX_ORDER, Some(BITFINEX_ANSWER)),
    ];
    for _ in 0..rounds {
        for case in &mut cases {
            case.measure(batches);
        }
    }
    println!("{:<38}{:>8}{:>14}{:>20}", "client to exchange", "bytes", "ns/message", "least - most");
    for case in &cases {
        case.print();
    }
}

/// One kind of message, and what it cost in each round.
struct Case {
    name: &'static str,
    stage: Stage,
    message: Message,
    /// What the exchange says to it, so that nothing is left to be remembered.
    answer: Option<Message>,
    rounds: Vec<u128>,
}

impl Case {
    fn new(name: &'static str, stage: Stage, message: &str, answer: Option<&str>) -> Self {
        Self { name, stage, message: Message::text(message), answer: answer.map(Message::text), rounds: Vec::new() }
    }

    fn measure(&mut self, batches: usize) {
        let mut times: Vec<u128> = (0..batches).map(|_| self.batch()).collect();
        times.sort_unstable();
        self.rounds.push(times[times.len() / 2]);
    }

    fn batch(&mut self) -> u128 {
        let began = Instant::now();
        for _ in 0..BATCH {
            self.stage.happen(Event::FromClient(black_box(self.message.clone())));
            black_box(&self.stage.actions);
        }
        let took = began.elapsed();
        let [Action::ToUpstream(_)] = self.stage.actions[..] else { panic!("{} is not sent on", self.name) };
        for _ in 0..BATCH {
            if let Some(answer) = &self.answer {
                self.stage.happen(Event::FromUpstream(answer.clone()));
            }
        }
        took.as_nanos() / BATCH as u128
    }

    fn print(&self) {
        let mut rounds = self.rounds.clone();
        rounds.sort_unstable();
        let (least, most) = (rounds[0], rounds[rounds.len() - 1]);
        let spread = format!("{least} - {most}");
        println!("{:<38}{:>8}{:>14}{:>20}", self.name, self.message.len(), rounds[rounds.len() / 2], spread);
    }
}
