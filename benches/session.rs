//! What a session costs: added latency, processor time and memory, beside a direct connection in the same run.
//!
//! `cargo bench --bench session`, `-- --quick` for a look whether it runs. `README.md` beside this says how to read
//! it. Asserts nothing about time.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a table is what it is for")]

mod rig;

use rig::figures::{Median, Run, count, micros};
use rig::load::{self, Client, Way};
use rig::process::{Exchange, Proxy};
use rig::role;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Path of the venue `plain` at the proxy; the echo server takes any.
const PATH: &str = "/plain";
const SIZES: [usize; 2] = [128, 16 * 1024];
const SESSIONS: [usize; 2] = [1, 64];
/// Three ends of a socket in each session, all in processes that inherit the limit, and room for the rest.
const FILES: u64 = 8192;

fn main() -> ExitCode {
    role::main(|words| {
        let plan = if role::is_quick(words) { Plan::QUICK } else { Plan::FULL };
        role::runtime().block_on(measure(plan, role::threads(words)));
    })
}

/// How long to measure.
struct Plan {
    rounds: usize,
    warms_up: Duration,
    lasts: Duration,
    idle_sessions: usize,
    settles: Duration,
}

impl Plan {
    const FULL: Self = Self {
        rounds: 3,
        warms_up: Duration::from_millis(300),
        lasts: Duration::from_millis(2200),
        idle_sessions: 1000,
        settles: Duration::from_secs(1),
    };
    const QUICK: Self = Self {
        rounds: 1,
        warms_up: Duration::from_millis(50),
        lasts: Duration::from_millis(250),
        idle_sessions: 100,
        settles: Duration::from_millis(300),
    };
}

async fn measure(plan: Plan, threads: usize) {
    raise_files();
    let began = Instant::now();
    let echo = Exchange::start("echo");
    let direct = Way { address: echo.address, connector: rig::trusting(&echo.authority), path: PATH, token: None };
    println!("proxy with {threads} thread(s), TLS 1.3 on both sides, loopback, {} round(s)\n", plan.rounds);
    round_trips(&plan, &echo, &direct, threads).await;
    memory(&plan, &echo, threads).await;
    println!("\n{:.0} s in all", began.elapsed().as_secs_f64());
}

fn raise_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES, |maximum| maximum.min(FILES)).max(limit.current.unwrap_or(FILES));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
        .expect("a limit may be raised");
}

fn way_to(proxy: &Proxy) -> Way {
    let connector = rig::trusting(&proxy.authority());
    Way { address: proxy.address, connector, path: PATH, token: Some(proxy.token()) }
}

/// One kind of load, and what each round of it came to.
struct Case {
    size: usize,
    sessions: usize,
    rounds: Vec<Round>,
}

struct Round {
    direct: Run,
    proxied: Run,
    cpu: Duration,
}

async fn round_trips(plan: &Plan, echo: &Exchange, direct: &Way, threads: usize) {
    let most = SESSIONS.into_iter().max().expect("there are some");
    let proxy = Proxy::start(&configuration(echo, most + 8), threads);
    eprintln!("opening {most} sessions each way");
    let mut by_way = [Client::open_many(direct, most).await, Client::open_many(&way_to(&proxy), most).await];
    let mut cases: Vec<Case> = SIZES
        .into_iter()
        .flat_map(|size| SESSIONS.map(|sessions| Case { size, sessions, rounds: Vec::new() }))
        .collect();
    for round in 0..plan.rounds {
        for case in &mut cases {
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, case.name());
            let mut runs = Vec::new();
            for clients in &mut by_way {
                let idle = clients.split_off(case.sessions);
                let (warm, _) = load::run(std::mem::take(clients), case.size, plan.warms_up).await;
                let before = proxy.cpu();
                let (back, run) = load::run(warm, case.size, plan.lasts).await;
                runs.push((run, proxy.cpu() - before));
                *clients = back;
                clients.extend(idle);
            }
            let [(direct, _), (proxied, cpu)] = <[_; 2]>::try_from(runs).ok().expect("two ways");
            case.rounds.push(Round { direct, proxied, cpu });
        }
    }
    println!(
        "{:<22}{:>16}{:>16}{:>27}{:>27}{:>27}{:>12}",
        "round trip, µs",
        "direct p50/p99",
        "proxy p50/p99",
        "added p50",
        "added p99",
        "proxy CPU/message",
        "messages/s"
    );
    for case in &cases {
        case.print();
    }
}

impl Case {
    fn name(&self) -> String {
        let size = if self.size < 1024 { format!("{} B", self.size) } else { format!("{} KiB", self.size / 1024) };
        format!("{size}, {} session{}", self.sessions, if self.sessions == 1 { "" } else { "s" })
    }

    fn print(&self) {
        let each = |of: &dyn Fn(&Round) -> f64| Median::of(self.rounds.iter().map(of).collect());
        let direct = (each(&|round| micros(round.direct.p50)), each(&|round| micros(round.direct.p99)));
        let proxied = (each(&|round| micros(round.proxied.p50)), each(&|round| micros(round.proxied.p99)));
        let p50 = each(&|round| micros(round.proxied.p50) - micros(round.direct.p50));
        let p99 = each(&|round| micros(round.proxied.p99) - micros(round.direct.p99));
        let cpu = each(&|round| micros(round.cpu) / count(round.proxied.round_trips));
        let rate = each(&|round| count(round.proxied.round_trips) / round.proxied.took.as_secs_f64());
        println!(
            "{:<22}{:>16}{:>16}{:>27}{:>27}{:>27}{:>12.0}",
            self.name(),
            format!("{:.0} / {:.0}", direct.0.middle, direct.1.middle),
            format!("{:.0} / {:.0}", proxied.0.middle, proxied.1.middle),
            p50.to_string(),
            p99.to_string(),
            cpu.to_string(),
            rate.middle,
        );
    }
}

async fn memory(plan: &Plan, echo: &Exchange, threads: usize) {
    let sessions = plan.idle_sessions;
    // A process that has done nothing else, and a few sessions first, so that what is needed once does not count.
    let proxy = Proxy::start(&configuration(echo, sessions + 16), threads);
    let way = way_to(&proxy);
    drop(Client::open_many(&way, 8).await);
    tokio::time::sleep(plan.settles).await;
    let empty = proxy.resident_kib();

    eprintln!("opening {sessions} idle sessions");
    let (began, cpu) = (Instant::now(), proxy.cpu());
    let mut clients = Client::open_many(&way, sessions).await;
    let (took, cpu) = (began.elapsed(), proxy.cpu() - cpu);
    tokio::time::sleep(plan.settles).await;
    let idle = proxy.resident_kib();

    eprintln!("one echo of 16 KiB each");
    load::once_each(&mut clients, 16 * 1024).await;
    tokio::time::sleep(plan.settles).await;
    let echoed = proxy.resident_kib();

    let per_session = |kib: u64| (kib.saturating_sub(empty)) / sessions as u64;
    println!("\nmemory of the proxy, {sessions} sessions");
    println!("{:<34}{:>8} KiB", "without sessions", empty);
    println!("{:<34}{:>8} KiB each", "idle session", per_session(idle));
    println!("{:<34}{:>8} KiB each", "after one echo of 16 KiB", per_session(echoed));
    println!("\nsessions opened, 8 at a time");
    println!("{:<34}{:>8.0} a second", "rate", count(sessions) / took.as_secs_f64());
    println!("{:<34}{:>8.0} µs each", "proxy CPU", micros(cpu) / count(sessions));
}

/// One account at the echo server.
fn configuration(echo: &Exchange, sessions_max: usize) -> String {
    format!(
        r#"
[listen]
address = "127.0.0.1:0"
connections_max = {sessions_max}
[clients.jwt]
secret = {{ file = "certs/client-jwt.key" }}
[accounts.echo]
venue = "plain"
upstream = {{ ws = "wss://localhost:{port}/echo", roots = "{roots}", addresses = ["{address}"] }}
[[grants]]
client = "jwt:bot-a"
account = "echo"
scope = ["read", "trade"]
max_sessions = {sessions_max}
[admin]
address = "127.0.0.1:0"
"#,
        port = echo.address.port(),
        roots = echo.authority.display(),
        address = echo.address,
    )
}
