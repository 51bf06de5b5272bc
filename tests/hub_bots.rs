//! SignalR libraries as ProjectX's users have them, unmodified: each subscribes on both hubs and trades over REST, while
//! its token ends twice under it.
//!
//! The bots are in `tests/clients`. First straight at the simulated venue, which shows what a library does by itself;
//! then through the proxy, with a local key, where the venue must find nothing to complain of.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod bot;
mod door;
mod house;
mod libraries;
mod program;

use bot::Ended;
use door::{Door, Target, Way};
use libraries::Library;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

/// How long a token lives at the venue, and then to the end of the second.
const LIFETIME: Duration = Duration::from_secs(2);
/// The same where the hubs end with it: a round that they end in would wait for what nobody hears.
const LIFETIME_WITH_HUBS: Duration = Duration::from_secs(6);
/// What a bot waits between two of its three rounds beyond the lifetime of its token, which then is over twice.
const PAUSE_BEYOND: Duration = Duration::from_millis(1200);

/// One script on one library.
struct Bot {
    library: Library,
    arguments: &'static [&'static str],
    /// Whether the hubs end together with the token, so that the bot has to connect anew.
    hubs_end: bool,
    /// How often the bot itself renews its token where it sees the venue's.
    renewals: usize,
    /// What the venue complains of when it is asked straight: the library's own habits, which the proxy mends.
    habits: &'static [&'static str],
}

impl Bot {
    fn lifetime(&self) -> Duration {
        if self.hubs_end { LIFETIME_WITH_HUBS } else { LIFETIME }
    }
}

/// The lines that a bot printed.
struct Seen(Vec<Value>);

impl Seen {
    fn steps(&self) -> Vec<&str> {
        self.0.iter().filter_map(|line| line["step"].as_str()).collect()
    }

    /// Everything that was said at a step, in order.
    fn all(&self, step: &str) -> Vec<&Value> {
        self.0.iter().filter(|line| line["step"] == step).map(|line| &line["got"]).collect()
    }
}

async fn trade(target: Target, bot: Bot) {
    let door = Door::to_projectx(target, |options| {
        options.token_lifetime = bot.lifetime();
        options.heartbeat = Duration::from_millis(500);
    })
    .await;
    door.projectx().faults().set(|switches| switches.hubs_end_with_token = bot.hubs_end);
    let record = door.record();
    let scene = || format!("{target:?}, the venue saw:\n{}", door.story());
    let Ended { is_well, said, complaints } = bot::finish(command(&bot, &door), scene).await;
    assert!(is_well, "{said}{complaints}\nthe venue: {:?}", record.verdicts());
    let seen = Seen(said.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
    assert_eq!(seen.steps().last(), Some(&"done"), "{said}");

    // What the hubs told is what was asked for over REST, in each of the rounds.
    let placed = seen.all("placed");
    assert_eq!(placed.len(), 3, "{said}");
    assert_eq!((seen.all("order open"), seen.all("order canceled")), (placed.clone(), placed), "{said}");
    assert_eq!(seen.all("quote").len(), 1, "{said}");
    let venue = door.projectx().exchange();
    assert!(venue.logins() + venue.validations() >= 3, "the token did not end twice");
    if bot.hubs_end {
        assert!(seen.steps().contains(&"reconnected"), "{said}");
    }

    let verdicts: BTreeSet<String> = record.verdicts().into_iter().collect();
    match target {
        Target::Directly => {
            assert_eq!(seen.all("renewed").len(), bot.renewals, "{said}");
            // A process that exits says no good-bye in TLS: the scripts' doing, not the libraries'.
            let is_exit = |verdict: &String| EXITS.iter().any(|exit| verdict.starts_with(exit));
            let told: BTreeSet<String> = verdicts.into_iter().filter(|verdict| !is_exit(verdict)).collect();
            assert_eq!(told, bot.habits.iter().map(|habit| (*habit).to_owned()).collect());
        }
        Target::ThroughTheProxy => {
            assert_eq!(seen.all("renewed").len(), 0, "the venue's own times showed: {said}");
            assert_eq!((verdicts, record.leaks()), (BTreeSet::new(), 0));
        }
    }
}

/// The command that runs a bot, which waits for the end of its tokens.
fn command(bot: &Bot, door: &Door) -> tokio::process::Command {
    let library = [bot.library.program.as_os_str(), bot.library.script.as_os_str()];
    let arguments: Vec<&OsStr> = library.into_iter().chain(bot.arguments.iter().map(OsStr::new)).collect();
    let mut command = door::command(&arguments, door, Way::Port);
    command.env("PAUSE", (bot.lifetime() + PAUSE_BEYOND).as_secs_f64().to_string());
    if bot.hubs_end {
        command.env("HUBS_END", "1");
    }
    command
}

/// How the venue sees a process that ends while its sockets are open.
const EXITS: [&str; 2] = ["frame: peer closed connection", "frame: Connection reset"];
/// A bearer that is over is shown once before it is renewed.
const EXPIRED: &str = "bearer: expired";
const HEADERS: &str = "hub: member headers";
const BEARER_IN_RECORD: &str = "leak: a bearer in a hub's record";
/// project-x-py invokes a method that the venue does not document, and asks for no answer.
const HEARTBEAT: &str = "hub: unknown method Heartbeat";

/// Each bot twice: a test that goes straight, and one that goes through the proxy.
macro_rules! bots {
    ($($name:ident: $library:expr, $arguments:expr, $hubs_end:expr, $renewals:expr, $habits:expr;)*) => {
        mod directly {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                run(Target::Directly, stringify!($name), $library, |library| Bot {
                    library, arguments: $arguments, hubs_end: $hubs_end, renewals: $renewals, habits: $habits,
                }).await;
            })*
        }
        mod through_the_proxy {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                run(Target::ThroughTheProxy, stringify!($name), $library, |library| Bot {
                    library, arguments: $arguments, hubs_end: $hubs_end, renewals: $renewals, habits: $habits,
                }).await;
            })*
        }
    };
}

async fn run(
    target: Target,
    name: &str,
    library: impl FnOnce(&str) -> Option<Library>,
    bot: impl FnOnce(Library) -> Bot,
) {
    if !libraries::is_skipped(name)
        && let Some(library) = library(name)
    {
        trade(target, bot(library)).await;
    }
}

bots! {
    signalrcore_hears_its_orders:
        |_| Some(libraries::signalrcore()), &[], false, 2, &[EXPIRED, HEADERS, BEARER_IN_RECORD];
    signalrcore_without_negotiation_hears_its_orders:
        |_| Some(libraries::signalrcore()), &["skip"], false, 2, &[EXPIRED, HEADERS];
    pysignalr_hears_its_orders: |_| Some(libraries::pysignalr()), &[], false, 2, &[EXPIRED, HEADERS];
    signalr_as_documented_hears_its_orders: |_| Some(libraries::signalr()), &["documented"], false, 2, &[EXPIRED];
    signalr_with_negotiation_hears_its_orders: |_| Some(libraries::signalr()), &["negotiating"], false, 2, &[EXPIRED];
    signalr_comes_back_when_its_hubs_end: |_| Some(libraries::signalr()), &["negotiating"], true, 0, &[EXPIRED];
    project_x_py_hears_its_orders: libraries::project_x_py, &[], false, 0, &[HEADERS, HEARTBEAT];
}
