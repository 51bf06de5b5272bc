//! Countersign beside HAProxy, nginx and Envoy: the same work on the same machine in the same run.
//!
//! `benches/compare/run` fetches the peers and measures; `cargo bench --bench compare` takes those that are there.
//! `-- --quick` takes under a minute, `-- --help` lists the options. `README.md` beside this says how to read it. Asserts
//! nothing: it is a measurement.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a table is what it is for")]

#[path = "compare/arena.rs"]
mod arena;
#[path = "compare/case.rs"]
mod case;
#[path = "compare/goals.rs"]
mod goals;
#[path = "compare/ledger.rs"]
mod ledger;
#[path = "compare/peers.rs"]
mod peers;
mod rig;
#[path = "compare/table.rs"]
mod table;

use arena::{Arena, Pin, Processors};
use case::Case;
use clap::Parser as _;
use ledger::Ledger;
use rig::process::Exchange;
use rig::role;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Open files of a proxy beside two sockets a session: those that listen, logs, the system's own.
const FILES_BESIDE: u64 = 500;
/// Sessions beside the idle ones: those that were opened and left, until their end has been noticed.
const SESSIONS_BESIDE: usize = 500;
/// Longest that one case may take for one party; most of it is for opening idle sessions.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures Countersign, HAProxy, nginx and Envoy in turns, and says which goals are met.
#[derive(clap::Parser)]
struct Options {
    /// Fetches the peers that are missing into `target/peers`; nothing is installed, no service starts.
    #[arg(long)]
    install: bool,
    /// A look whether it runs, in under a minute. Its figures say little.
    #[arg(long)]
    quick: bool,
    /// How often each case is measured. Figures are medians.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only the cases with this word in their names: `latency`, `feed`, `both ways`, `opened`, `memory`, `16 KiB`.
    #[arg(long, default_value = "")]
    only: String,
    /// Threads that carry sessions in each proxy, `1,2` for a section of the report each.
    #[arg(long, value_delimiter = ',')]
    threads: Vec<usize>,
    /// Who runs on which processor.
    #[arg(long, value_enum, default_value_t = Pin::Together)]
    pin: Pin,
    /// Writes the figures of every round into this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Cargo says this. `cargo test --benches` does not, and wants no more than a look.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    role::main(|words| {
        let options = Options::parse_from(std::iter::once("compare").chain(words.iter().copied()));
        role::runtime().block_on(compare(&options));
    })
}

/// How long to measure.
struct Plan {
    rounds: usize,
    warms_up: Duration,
    lasts: Duration,
    settles: Duration,
    /// Sessions that are idle when memory is looked at, each more than the one before.
    idle_sessions: Vec<usize>,
    threads: Vec<usize>,
}

impl Plan {
    fn of(options: &Options) -> Self {
        let is_quick = options.quick || !options.bench;
        let chosen = |by_itself: &[usize]| {
            if options.threads.is_empty() { by_itself.to_vec() } else { options.threads.clone() }
        };
        if is_quick {
            return Self {
                rounds: options.rounds.unwrap_or(1),
                warms_up: Duration::from_millis(50),
                lasts: Duration::from_millis(200),
                settles: Duration::from_millis(300),
                idle_sessions: vec![50, 250],
                threads: chosen(&[1]),
            };
        }
        Self {
            rounds: options.rounds.unwrap_or(3),
            warms_up: Duration::from_millis(200),
            lasts: Duration::from_millis(1300),
            settles: Duration::from_secs(1),
            idle_sessions: vec![1000, 5000],
            threads: chosen(&[1, 2]),
        }
    }

    /// Sessions that a proxy must be able to hold.
    fn sessions_max(&self) -> usize {
        self.idle_sessions.iter().copied().max().unwrap_or_default() + SESSIONS_BESIDE
    }

    /// Raises the limit of open files, which all processes inherit, and leaves out what does not fit under it.
    fn fit_files(&mut self) {
        let limit = getrlimit(Resource::Nofile);
        let files = |sessions: usize| 2 * (sessions + SESSIONS_BESIDE) as u64 + FILES_BESIDE;
        let fits = |sessions: usize| limit.maximum.is_none_or(|maximum| files(sessions) <= maximum);
        self.idle_sessions.retain(|sessions| {
            if !fits(*sessions) {
                eprintln!("{sessions} idle sessions need {} open files: raise `ulimit -Hn` for them", files(*sessions));
            }
            fits(*sessions)
        });
        let wanted = files(self.sessions_max() - SESSIONS_BESIDE).max(limit.current.unwrap_or(u64::MAX));
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
            .expect("a limit may be raised up to its maximum");
    }
}

async fn compare(options: &Options) {
    let began = Instant::now();
    let mut plan = Plan::of(options);
    plan.fit_files();
    let peers = peers::found(options.install);
    let cases: Vec<Case> = Case::all().filter(|case| case.name().contains(&options.only)).collect();
    let machine = role::processors();
    let mut ledger = Ledger::default();
    for &threads in &plan.threads {
        let processors = Processors::share_out(&machine, options.pin, threads);
        println!("{}", processors.sentence(threads));
        role::stay_on(&processors.load);
        // Not before, for it stays where this program is.
        let exchange = Exchange::start("echo-one-of-each");
        let arena = Arena { exchange: &exchange, threads, processors, sessions_max: plan.sessions_max() };
        take_turns(&plan, &arena, &peers, &cases, &mut ledger).await;
        table::print(&ledger, threads, &peers);
    }
    if let Some(path) = &options.json {
        std::fs::write(path, ledger.json(&peers).to_string()).expect("the file of `--json` can be written");
        println!("the figures of every round are in {}", path.display());
    }
    println!("{:.0} s in all", began.elapsed().as_secs_f64());
}

/// Measures every case, the parties in turns, round after round: what drifts, drifts for all.
async fn take_turns(plan: &Plan, arena: &Arena<'_>, peers: &[peers::Peer], cases: &[Case], ledger: &mut Ledger) {
    let mut contestants = arena.contestants(peers).await;
    let steps = plan.rounds * cases.len() * contestants.len();
    let mut step = 0;
    for round in 0..plan.rounds {
        for case in cases {
            for contestant in &contestants {
                step += 1;
                let party = contestant.party;
                if round < case.rounds_max() && case.is_for(arena.threads, plan) {
                    eprintln!(
                        "[{:>3} %] round {} of {}: {}: {party}",
                        step * 100 / steps,
                        round + 1,
                        plan.rounds,
                        case.name()
                    );
                    let measured = tokio::time::timeout(PATIENCE, case.measure(plan, arena, contestant)).await;
                    if measured.is_err() {
                        eprintln!(
                            "        did not end within {} s, and has no figure in this round",
                            PATIENCE.as_secs()
                        );
                    }
                    for (figure, load, value) in measured.unwrap_or_default() {
                        ledger.note(arena.threads, figure, &load, (party, round), value);
                    }
                }
            }
            // Nobody is always the one after the direct connection.
            contestants.rotate_left(1);
        }
    }
}
