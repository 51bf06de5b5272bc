//! The lane of a process that is killed again and again: no nonce is used twice, and none falls.
//!
//! The exchange lives in the test, the account in a child process, which is this same program started for one ignored
//! test. `COUNTERSIGN_FULL_LOAD=1` makes it 10,000 calls.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod lane_stage;

use countersign::simulator::{Direction, Kind};
use countersign::store::{FileStore, Store};
use countersign::supply::account::Limits;
use countersign::venue::LoginOutcome;
use lane_stage::{Asked, CLIENTS, Desk, Exchange, PATIENCE, Setup, client, outcome};
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where the exchange is, its folder, the run's number and the calls of each client: what the child is told.
const TASK: &str = "COUNTERSIGN_LANE_CHILD";
const KILLS: usize = 3;

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(exchange: &Exchange, run: usize, calls_each: usize) -> Running {
    let task = format!("{}|{}|{run}|{calls_each}", exchange.simulator.address(), exchange.folder.path().display());
    let arguments = ["--ignored", "--exact", "a_child_calls_until_it_is_killed", "--nocapture"];
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).env(TASK, task).stdin(Stdio::null()).stdout(Stdio::null());
    Running(command.spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_nonce_is_used_twice_or_falls_over_three_kills_in_the_middle_of_the_load() {
    let is_full = std::env::var_os("COUNTERSIGN_FULL_LOAD").is_some_and(|value| value == "1");
    let calls_each = if is_full { 40 } else { 4 };
    let calls_per_run = CLIENTS * calls_each;

    let exchange = Exchange::open(0).await;
    exchange.faults().set(|switches| switches.arrival_delay_max = Duration::from_millis(10));
    // The record keeps fewer entries than there will be, so they are read as they come.
    let tags = Arc::new(Mutex::new(Vec::new()));
    let mut entries = exchange.simulator.record().subscribe();
    let reader = tokio::spawn({
        let tags = Arc::clone(&tags);
        async move {
            while let Ok(entry) = entries.recv().await {
                if entry.direction == Direction::Received && matches!(entry.kind, Kind::Request { .. }) {
                    let tag = entry.text().split_once("tag=").map(|(_, tag)| tag.to_owned());
                    tags.lock().unwrap().extend(tag);
                }
            }
        }
    });
    let came = || tags.lock().unwrap().len();

    for run in 0..KILLS {
        let before = came();
        // It would go on for much longer than it is let.
        let child = start(&exchange, run, calls_each * 100);
        let arrived = async {
            while came() < before + calls_per_run {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE * 6, arrived).await.expect("the child makes no calls");
        drop(child);
        // What the dead process sent is over before the next one begins; else the exchange itself would mix them.
        while exchange.simulator.record().tcp_live() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut last = start(&exchange, KILLS, calls_each);
    let status = tokio::task::spawn_blocking(move || last.0.wait()).await.unwrap().unwrap();
    assert!(status.success(), "the last run was refused");

    let tags = tags.lock().unwrap().clone();
    assert!(tags.len() >= (KILLS + 1) * calls_per_run, "only {} calls came", tags.len());
    let distinct: BTreeSet<&String> = tags.iter().collect();
    assert_eq!(distinct.len(), tags.len(), "a request came twice");
    let record = exchange.simulator.record();
    assert_eq!((record.nonce_errors(), record.signature_errors()), (0, 0), "{:?}", record.verdicts());
    assert!(exchange.nonces().is_sorted_by(|before, after| before < after));
    assert!(!reader.is_finished(), "the record was read too slowly");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the other test, as its child"]
async fn a_child_calls_until_it_is_killed() {
    let task = std::env::var(TASK).expect("started by the other test");
    let [address, folder, run, calls_each] = task.split('|').collect::<Vec<_>>().try_into().unwrap();
    let folder = std::path::Path::new(folder);
    let calls_each: usize = calls_each.parse().unwrap();
    let store = Store::File(FileStore::open(&folder.join("state")).unwrap());
    let limits = Limits { order_wait: PATIENCE, call_wait: PATIENCE, ..Limits::default() };
    let setup = Setup { store, limits, ..Setup::default() };
    let desk = Arc::new(Desk::open(address.parse().unwrap(), folder, setup));
    let clients = (0..CLIENTS).map(|number| {
        let (desk, run) = (Arc::clone(&desk), run.to_owned());
        tokio::spawn(async move {
            for round in 0..calls_each {
                let tag = format!("{run}-{number}-{round}");
                let asked = if round % 2 == 0 { Asked::balance(&tag) } else { Asked::order(&tag) };
                let text = desk.call(&client(number), &asked).await.expect("an answer");
                assert_eq!(outcome(&text), LoginOutcome::Accepted, "{text}");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no client failed");
    }
}
