//! What one REST call costs: added latency and processor time of the proxy, beside the same call made directly in the
//! same run.
//!
//! `cargo bench --bench call`, `-- --quick` for a look whether it runs, `-- --only strict` for the cases with that word.
//! `README.md` beside this says how to read it. Asserts nothing about time.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a table is what it is for")]

mod rig;

use rig::caller::{self, Ask, Caller, Way};
use rig::figures::{Median, Run, count, micros};
use rig::process::{Exchange, Proxy};
use rig::role;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Clients at a time.
const CLIENTS: [usize; 2] = [1, 16];

fn main() -> ExitCode {
    role::main(|words| {
        let plan = if role::is_quick(words) { Plan::QUICK } else { Plan::FULL };
        let only = words.iter().skip_while(|word| **word != "--only").nth(1).copied().unwrap_or_default();
        role::runtime().block_on(measure(&plan, role::threads(words), only));
    })
}

/// How long to measure.
struct Plan {
    rounds: usize,
    warms_up: Duration,
    lasts: Duration,
}

impl Plan {
    const FULL: Self = Self { rounds: 5, warms_up: Duration::from_millis(200), lasts: Duration::from_millis(1500) };
    const QUICK: Self = Self { rounds: 1, warms_up: Duration::from_millis(50), lasts: Duration::from_millis(250) };
}

/// One kind of load, and what each round of it came to.
struct Case {
    name: &'static str,
    ask: Ask,
    clients: usize,
    rounds: Vec<Round>,
}

struct Round {
    direct: Run,
    proxied: Run,
    cpu: Duration,
}

async fn measure(plan: &Plan, threads: usize, only: &str) {
    let began = Instant::now();
    let exchange = Exchange::start("answers");
    let proxy = Proxy::start(&configuration(&exchange), threads);
    let [strict, window] = ["strict", "window"].map(|account| Arc::new(proxy.local_key("bot-a", account)));
    let asks = [
        ("public", Ask::Ticker),
        ("read, ordering = \"strict\"", Ask::Balance(Arc::clone(&strict))),
        ("order, ordering = \"strict\"", Ask::Order(strict)),
        ("order, ordering = \"window\"", Ask::Order(window)),
    ];
    let mut cases: Vec<Case> = asks
        .into_iter()
        .flat_map(|(name, ask)| CLIENTS.map(|clients| Case { name, ask: ask.clone(), clients, rounds: Vec::new() }))
        .collect();
    cases.retain(|case| case.name.contains(only));

    let ways = [
        Way { address: exchange.address, connector: rig::trusting(&exchange.authority), host: "localhost" },
        Way { address: proxy.address, connector: rig::trusting(&proxy.authority()), host: "api.kraken.com" },
    ];
    let mut by_way = [Vec::new(), Vec::new()];
    for (callers, way) in by_way.iter_mut().zip(&ways) {
        for _ in 0..CLIENTS.into_iter().max().expect("there are some") {
            callers.push(Caller::open(way).await.expect("a connection opens"));
        }
    }
    println!("proxy with {threads} thread(s), TLS 1.3 on both sides, loopback, {} round(s)\n", plan.rounds);
    for round in 0..plan.rounds {
        for case in &mut cases {
            eprintln!("round {} of {}: {}, {}", round + 1, plan.rounds, case.name, case.clients);
            let mut runs = Vec::new();
            for callers in &mut by_way {
                let idle = callers.split_off(case.clients);
                let (warm, _) = caller::run(std::mem::take(callers), &case.ask, plan.warms_up).await;
                let before = proxy.cpu();
                let (back, run) = caller::run(warm, &case.ask, plan.lasts).await;
                runs.push((run, proxy.cpu() - before));
                *callers = back;
                callers.extend(idle);
            }
            let [(direct, _), (proxied, cpu)] = <[_; 2]>::try_from(runs).ok().expect("two ways");
            case.rounds.push(Round { direct, proxied, cpu });
        }
    }
    println!(
        "{:<32}{:>8}{:>16}{:>16}{:>24}{:>24}{:>24}{:>10}",
        "one call, µs", "clients", "direct p50/p99", "proxy p50/p99", "added p50", "added p99", "proxy CPU", "calls/s"
    );
    cases.iter().for_each(Case::print);
    println!("\n{:.0} s in all", began.elapsed().as_secs_f64());
}

impl Case {
    fn print(&self) {
        let each = |of: &dyn Fn(&Round) -> f64| Median::of(self.rounds.iter().map(of).collect());
        let direct = (each(&|round| micros(round.direct.p50)), each(&|round| micros(round.direct.p99)));
        let proxied = (each(&|round| micros(round.proxied.p50)), each(&|round| micros(round.proxied.p99)));
        let p50 = each(&|round| micros(round.proxied.p50) - micros(round.direct.p50));
        let p99 = each(&|round| micros(round.proxied.p99) - micros(round.direct.p99));
        let cpu = each(&|round| micros(round.cpu) / count(round.proxied.round_trips));
        let rate = each(&|round| count(round.proxied.round_trips) / round.proxied.took.as_secs_f64());
        println!(
            "{:<32}{:>8}{:>16}{:>16}{:>24}{:>24}{:>24}{:>10.0}",
            self.name,
            self.clients,
            format!("{:.0} / {:.0}", direct.0.middle, direct.1.middle),
            format!("{:.0} / {:.0}", proxied.0.middle, proxied.1.middle),
            p50.to_string(),
            p99.to_string(),
            cpu.to_string(),
            rate.middle,
        );
    }
}

/// Two accounts at the exchange, one for each order of requests, and market data for everybody. The connections of
/// clients carry as many requests as they like: a handshake now and then is not what is measured.
fn configuration(exchange: &Exchange) -> String {
    let account = |name: &str, ordering: &str| {
        format!(
            r#"
[accounts.{name}]
venue = "kraken"
key = {{ env = "BENCH_KEY" }}
secret = {{ env = "BENCH_SECRET" }}
{ordering}
upstream = {{ rest = "https://localhost:{port}", roots = "{roots}", addresses = ["{address}"] }}
[[grants]]
client = "key:bot-a"
account = "{name}"
scope = ["read", "trade"]
"#,
            port = exchange.address.port(),
            roots = exchange.authority.display(),
            address = exchange.address,
        )
    };
    let (strict, window) = (account("strict", ""), account("window", "ordering = \"window\"\nwindow = 64"));
    format!(
        r#"
[listen]
address = "127.0.0.1:0"
[limits]
requests_per_connection_max = 1000000
[clients.local_keys]
master = {{ file = "certs/local-keys.key" }}
{strict}{window}
[[grants]]
client = "anonymous"
venues = ["kraken"]
scope = ["public"]
[admin]
address = "127.0.0.1:0"
"#
    )
}
