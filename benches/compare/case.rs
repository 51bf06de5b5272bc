//! What is measured: kinds of load, and what each comes to for one party.

use crate::Plan;
use crate::arena::{Arena, Contestant};
use crate::ledger::Figure;
use crate::rig::figures::{count, micros};
use crate::rig::load::{self, Client, Way};
use crate::rig::usage::Usage;
use std::time::Duration;

/// Sessions that are opened and left before memory is looked at: what is needed once belongs to no session. Few, because
/// later ones take over what they leave.
const SESSIONS_FIRST: usize = 8;

/// One kind of load.
#[derive(Clone, Copy)]
pub(crate) enum Case {
    /// Every session has one message under way, there or back.
    RoundTrips { length: usize, sessions: usize },
    /// The same, for its throughput.
    BothWays { length: usize, sessions: usize },
    /// The exchange sends over one session. A rate of 0: as fast as it can.
    Feed { rate: u32, length: usize },
    /// Sessions are opened and left, a few at a time.
    Opened,
    /// Sessions that do nothing.
    Memory,
}

/// What came out: of which load, and how much.
pub(crate) type Measured = Vec<(Figure, String, f64)>;

impl Case {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let round_trips = [(128, 1), (128, 16), (128, 64), (1024, 16), (16 * 1024, 1), (16 * 1024, 64)];
        let feeds = [10_000, 0].map(|rate| Self::Feed { rate, length: 128 });
        round_trips.into_iter().map(|(length, sessions)| Self::RoundTrips { length, sessions }).chain(feeds).chain([
            Self::BothWays { length: 64 * 1024, sessions: 4 },
            Self::Opened,
            Self::Memory,
        ])
    }

    /// As `--only` and the progress know it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::RoundTrips { .. } => format!("latency, {}", self.load()),
            Self::BothWays { .. } => format!("both ways, {}", self.load()),
            Self::Feed { .. } => self.load(),
            Self::Opened => "opened".to_owned(),
            Self::Memory => "memory".to_owned(),
        }
    }

    /// As the rows of the tables know it.
    fn load(&self) -> String {
        match self {
            Self::RoundTrips { length, sessions } | Self::BothWays { length, sessions } => {
                format!("{}, {sessions} session{}", size(*length), if *sessions == 1 { "" } else { "s" })
            }
            Self::Feed { rate: 0, length } => format!("feed of {}", size(*length)),
            Self::Feed { rate, length } => format!("feed of {}, {rate}/s", size(*length)),
            Self::Opened => "8 at a time".to_owned(),
            Self::Memory => "idle".to_owned(),
        }
    }

    /// How many rounds of it say something: memory comes out the same each time, and takes a minute.
    pub(crate) fn rounds_max(&self) -> usize {
        if matches!(self, Self::Memory) { 1 } else { usize::MAX }
    }

    /// True if so many threads could make a difference. To memory they make none.
    pub(crate) fn is_for(&self, threads: usize, plan: &Plan) -> bool {
        !matches!(self, Self::Memory) || plan.threads.first() == Some(&threads)
    }

    pub(crate) async fn measure(&self, plan: &Plan, arena: &Arena<'_>, contestant: &Contestant<'_>) -> Measured {
        let (way, usage) = (&contestant.way, contestant.usage());
        match *self {
            Self::RoundTrips { length, sessions } => {
                let (run, cpu) = round_trips(plan, way, usage.as_ref(), length, sessions).await;
                let cpu = cpu.map(|cpu| (Figure::Cpu, micros(cpu) / count(run.round_trips)));
                let figures = [(Figure::P50, micros(run.p50)), (Figure::P99, micros(run.p99))];
                figures.into_iter().chain(cpu).map(|(figure, value)| (figure, self.load(), value)).collect()
            }
            Self::BothWays { length, sessions } => {
                let (run, _) = round_trips(plan, way, usage.as_ref(), length, sessions).await;
                let megabytes = count(run.round_trips) * count(length) / 1e6;
                vec![(Figure::BothWays, self.load(), megabytes / run.took.as_secs_f64())]
            }
            Self::Feed { rate, length } => {
                let (messages, took, cpu) = feed(plan, way, usage.as_ref(), rate, length).await;
                let cpu = cpu.map(|cpu| (Figure::Cpu, self.load(), micros(cpu) / count(messages)));
                let per_second = count(messages) / took.as_secs_f64();
                let speed = (rate == 0).then(|| (Figure::Feed, self.load(), per_second));
                if per_second < 0.95 * f64::from(rate) {
                    eprintln!("        came at {per_second:.0} a second: this machine has other work");
                }
                speed.into_iter().chain(cpu).collect()
            }
            Self::Opened => opened(plan, arena, way, usage.as_ref(), &self.load()).await,
            Self::Memory => match arena.fresh(contestant).await {
                Some(fresh) => memory(plan, &fresh).await,
                None => Vec::new(),
            },
        }
    }
}

fn size(bytes: usize) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { format!("{} KiB", bytes / 1024) }
}

/// What is used between two looks.
struct Meter<'a>(Option<(&'a Usage, Duration)>);

impl<'a> Meter<'a> {
    fn start(usage: Option<&'a Usage>) -> Self {
        Self(usage.map(|usage| (usage, usage.cpu())))
    }

    fn read(&self) -> Option<Duration> {
        self.0.map(|(usage, before)| usage.cpu().saturating_sub(before))
    }
}

async fn round_trips(
    plan: &Plan,
    way: &Way,
    usage: Option<&Usage>,
    length: usize,
    sessions: usize,
) -> (crate::rig::figures::Run, Option<Duration>) {
    let clients = Client::open_many(way, sessions).await;
    let (clients, _) = load::run(clients, length, plan.warms_up).await;
    let meter = Meter::start(usage);
    let (_clients, run) = load::run(clients, length, plan.lasts).await;
    (run, meter.read())
}

async fn feed(
    plan: &Plan,
    way: &Way,
    usage: Option<&Usage>,
    rate: u32,
    length: usize,
) -> (usize, Duration, Option<Duration>) {
    let mut client = Client::open(way).await.expect("a session opens");
    client.ask_for_feed(rate, length).await.expect("an order is sent");
    client.count(length, plan.warms_up).await.expect("the feed comes");
    let meter = Meter::start(usage);
    let (messages, took) = client.count(length, plan.lasts).await.expect("the feed comes");
    (messages, took, meter.read())
}

async fn opened(plan: &Plan, arena: &Arena<'_>, way: &Way, usage: Option<&Usage>, load: &str) -> Measured {
    // Has a session of its own from before to after.
    let mut witness = Client::open(&arena.direct().way).await.expect("a session opens");
    load::open_and_leave(way, plan.warms_up).await;
    let before = witness.handshakes().await.expect("the exchange counts");
    let meter = Meter::start(usage);
    let (sessions, took) = load::open_and_leave(way, plan.lasts).await;
    let cpu = meter.read();
    let after = witness.handshakes().await.expect("the exchange counts");
    let (full, resumed) = (after.0 - before.0, after.1 - before.1);
    let mut measured = vec![
        (Figure::Opened, load.to_owned(), count(sessions) / took.as_secs_f64()),
        (Figure::Resumed, load.to_owned(), 100.0 * f64::from(resumed) / f64::from(full + resumed)),
    ];
    measured.extend(cpu.map(|cpu| (Figure::OpenedCpu, load.to_owned(), micros(cpu) / count(sessions))));
    measured
}

async fn memory(plan: &Plan, contestant: &Contestant<'_>) -> Measured {
    let usage = contestant.usage().expect("what is fresh has processes");
    drop(Client::open_many(&contestant.way, SESSIONS_FIRST).await);
    tokio::time::sleep(plan.settles).await;
    let empty = usage.resident_kib();
    let each = |sessions: usize| {
        let grown = usage.resident_kib().saturating_sub(empty);
        f64::from(u32::try_from(grown).expect("it is under 4 TiB")) / count(sessions)
    };

    let mut measured = Vec::new();
    let mut clients = Vec::new();
    for &sessions in &plan.idle_sessions {
        eprintln!("        {sessions} idle sessions");
        clients.extend(Client::open_many(&contestant.way, sessions - clients.len()).await);
        tokio::time::sleep(plan.settles).await;
        measured.push((Figure::Memory, format!("{sessions} idle"), each(sessions)));
    }
    load::once_each(&mut clients, 16 * 1024).await;
    tokio::time::sleep(plan.settles).await;
    measured.push((Figure::Memory, format!("{} after 16 KiB", clients.len()), each(clients.len())));
    measured
}
