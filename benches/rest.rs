//! What an account's lane costs for each call, and how many calls pass through it.
//!
//! `cargo bench --bench rest`, `-- --quick` for a look whether it runs. Bookkeeping is measured with logins, which go
//! through mailbox, queue, nonce and task as calls do, and need no network. Throughput is against the simulated exchange
//! in this process, which checks each signature and writes a record: a part of the time is its own.
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

#[path = "../tests/lane_stage/mod.rs"]
mod lane_stage;

use countersign::names::ClientName;
use countersign::supply::account::{Limits, Ordering};
use countersign::venue::LoginOutcome;
use lane_stage::{Asked, CLIENTS, Desk, Exchange, PATIENCE, Setup, client, outcome};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Requests of one key that are under way at a time, where they may be.
const WINDOW: usize = 64;
/// Ten seconds in nanoseconds, which is what Kraken's nonces count.
const NONCE_WINDOW: u64 = 10_000_000_000;

fn main() {
    let is_quick = std::env::args().any(|word| word == "--quick") || !std::env::args().any(|word| word == "--bench");
    let (logins, calls_each) = if is_quick { (1_000, 2) } else { (200_000, 500) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");

    println!("{:<44}{:>12}", "bookkeeping of one nonce, without a network", "µs");
    let (alone, together) = runtime.block_on(bookkeeping(logins));
    println!("{:<44}{:>12.2}", "one caller, there and back", micros(alone, logins));
    println!("{:<44}{:>12.2}", format!("{CLIENTS} callers at a time"), micros(together, logins));

    println!("\n{:<44}{:>12}", "throughput against the simulator", "calls/s");
    for (name, ordering, nonce_window) in [
        ("strict".to_owned(), Ordering::Strict, 0),
        (format!("window of {WINDOW}"), Ordering::Window(WINDOW), NONCE_WINDOW),
    ] {
        for callers in [1, CLIENTS] {
            let calls = callers * if callers == 1 { calls_each * 4 } else { calls_each };
            let took = runtime.block_on(throughput(ordering, nonce_window, callers, calls / callers));
            let rate = f64::from(u32::try_from(calls).expect("a few thousand")) / took.as_secs_f64();
            println!("{:<44}{rate:>12.0}", format!("{name}, {callers} callers"));
        }
    }
}

fn micros(took: Duration, count: u32) -> f64 {
    took.as_secs_f64() * 1e6 / f64::from(count)
}

async fn bookkeeping(logins: u32) -> (Duration, Duration) {
    let exchange = Exchange::open(0).await;
    let desk = Arc::new(Desk::at(&exchange, Setup::default()));
    let log_in = |count: u32| {
        let account = desk.account.clone();
        tokio::spawn(async move {
            for _ in 0..count {
                account
                    .lease(ClientName::parse(&client(0)).expect("a name"), PATIENCE)
                    .await
                    .expect("a nonce")
                    .settle(LoginOutcome::Accepted);
            }
        })
    };
    let began = Instant::now();
    log_in(logins).await.expect("no login fails");
    let alone = began.elapsed();

    let began = Instant::now();
    let share = logins / u32::try_from(CLIENTS).expect("some");
    for caller in (0..CLIENTS).map(|_| log_in(share)).collect::<Vec<_>>() {
        caller.await.expect("no login fails");
    }
    (alone, began.elapsed())
}

async fn throughput(ordering: Ordering, nonce_window: u64, callers: usize, calls_each: usize) -> Duration {
    let exchange = Exchange::open(nonce_window).await;
    let limits = Limits { order_wait: PATIENCE, call_wait: PATIENCE, ..Limits::default() };
    let desk = Arc::new(Desk::at(&exchange, Setup { ordering, limits, ..Setup::default() }));
    // Opens the connections that the load needs.
    let run = |round: &'static str, calls: usize| {
        let callers = (0..callers).map(|number| {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move {
                let (name, asked) = (client(number), Asked::balance(round));
                for _ in 0..calls {
                    let text = desk.call(&name, &asked).await.expect("an answer");
                    assert_eq!(outcome(&text), LoginOutcome::Accepted, "{text}");
                }
            })
        });
        futures_util::future::join_all(callers.collect::<Vec<_>>())
    };
    run("warm", 2).await.into_iter().for_each(|ended| ended.expect("no call fails"));
    let began = Instant::now();
    run("load", calls_each).await.into_iter().for_each(|ended| ended.expect("no call fails"));
    began.elapsed()
}
