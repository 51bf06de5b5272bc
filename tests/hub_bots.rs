//! SignalR libraries as ProjectX's users have them, unmodified: each subscribes on both hubs and trades over REST, while
//! its token ends twice under it.
//!
//! The bots are in `tests/clients`. First straight at the simulated venue, which shows what a library does by itself;
//! then through the proxy, with a local key, where the venue must find nothing to complain of.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod bot;
mod house;
mod libraries;
mod program;

use bot::Ended;
use countersign::certs::{self, Wanted};
use countersign::simulator::projectx::{self, ProjectX};
use countersign::simulator::{Options, Running, SimKey};
use countersign::tls::{Acceptor, Certificates, ServerSettings};
use house::{Folder, House};
use libraries::Library;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// How long a token lives at the venue, and then to the end of the second.
const LIFETIME: Duration = Duration::from_secs(2);
/// The same where the hubs end with it: a round that they end in would wait for what nobody hears.
const LIFETIME_WITH_HUBS: Duration = Duration::from_secs(6);
/// What a bot waits between two of its three rounds beyond the lifetime of its token, which then is over twice.
const PAUSE_BEYOND: Duration = Duration::from_millis(1200);

const USER: &str = "simulated-user";
const KEY: &str = "c2ltdWxhdGVkL2FwaStrZXkgb2YgcHJvamVjdHg=";

/// Where a bot is pointed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Directly,
    ThroughTheProxy,
}

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

/// An open door, and the venue behind it.
struct Door {
    address: SocketAddr,
    ca: PathBuf,
    user: String,
    key: String,
    venue: Running<ProjectX>,
    /// Goes when the test ends.
    _folder: Folder,
    _house: Option<House>,
}

impl Door {
    async fn open(target: Target, lifetime: Duration) -> Self {
        let folder = Folder::new();
        let keys = vec![SimKey::new(USER, KEY)];
        let mut options = Options::projectx(venue_certificates(folder.path()), keys);
        options.token_lifetime = lifetime;
        options.heartbeat = Duration::from_millis(500);
        options.expects_a_proxy = target == Target::ThroughTheProxy;
        let venue = projectx::start(options).await.unwrap();
        let ca = folder.path().join("ca.pem");
        if target == Target::Directly {
            let (user, key) = (USER.to_owned(), KEY.to_owned());
            return Self { address: venue.address(), ca, user, key, venue, _folder: folder, _house: None };
        }
        // A port that nobody has at the moment.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let [user_file, key_file] = [("user", USER), ("key", KEY)].map(|(name, text)| {
            let file = folder.path().join(name);
            // A key that others may read is refused.
            let written = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
            written.unwrap().write_all(text.as_bytes()).unwrap();
            file.display().to_string()
        });
        let house = House::from(&format!(
            r#"
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[[ports]]
address = "{address}"
venue = "projectx"
[clients.local_keys]
master = {{ file = "certs/local-keys.key" }}
[accounts.projectx_main]
venue = "projectx"
key = {{ file = "{user_file}" }}
secret = {{ file = "{key_file}" }}
upstream = {{ roots = "{roots}", addresses = ["{upstream}"], local = true }}
[[grants]]
client = "key:bot-a"
account = "projectx_main"
scope = ["read", "trade"]
"#,
            roots = ca.display(),
            upstream = venue.address(),
        ))
        .await;
        let (user, key) = local_key(house.folder.path());
        // What makes the proxy worth its name: nothing of the bot's reaches the venue.
        venue.record().forbid(&user);
        venue.record().forbid(&key);
        Self { address, ca: house.certs().join("ca.pem"), user, key, venue, _folder: folder, _house: Some(house) }
    }

    /// The command that runs a bot against this door, configured by its environment alone.
    fn command(&self, bot: &Bot) -> Command {
        let mut command = Command::new(&bot.library.program);
        command.arg(&bot.library.script).args(bot.arguments).kill_on_drop(true);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("PAUSE", (bot.lifetime() + PAUSE_BEYOND).as_secs_f64().to_string());
        command.env("REST", format!("https://localhost:{}", self.address.port()));
        command.env("HUB", format!("https://localhost:{}/hubs", self.address.port()));
        command.env("USER_NAME", &self.user).env("API_KEY", &self.key);
        if bot.hubs_end {
            command.env("HUBS_END", "1");
        }
        for name in ["CA", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
            command.env(name, &self.ca);
        }
        command
    }
}

/// The key pair that `countersign key` prints for `bot-a`.
fn local_key(folder: &Path) -> (String, String) {
    let outcome = program::run(folder, &["key", "--client", "bot-a", "--account", "projectx_main"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let field = |name: &str| {
        let line = outcome.stdout.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in the answer of `countersign key`")).trim().to_owned()
    };
    (field("user name"), field("key"))
}

/// Certificates for `localhost` and the venue's own names.
fn venue_certificates(folder: &Path) -> Acceptor {
    let names = ["api.topstepx.com", "rtc.topstepx.com"].map(str::to_owned).to_vec();
    let wanted = Wanted { directory: folder.to_owned(), names, clients: Vec::new(), is_forced: false };
    countersign::tls::install_crypto();
    certs::ensure(&wanted, house::now()).unwrap();
    let certificates = Certificates::Directory(folder.to_owned());
    ServerSettings { certificates, client_authority: None, client_revocations: None }.load(house::now()).unwrap()
}

async fn trade(target: Target, bot: Bot) {
    let door = Door::open(target, bot.lifetime()).await;
    door.venue.faults().set(|switches| switches.hubs_end_with_token = bot.hubs_end);
    let record = door.venue.record();
    let scene = || format!("{target:?}, the venue: {:?}", record.verdicts());
    let Ended { is_well, said, complaints } = bot::finish(door.command(&bot), scene).await;
    assert!(is_well, "{said}{complaints}\nthe venue: {:?}", record.verdicts());
    let seen = Seen(said.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
    assert_eq!(seen.steps().last(), Some(&"done"), "{said}");

    // What the hubs told is what was asked for over REST, in each of the rounds.
    let placed = seen.all("placed");
    assert_eq!(placed.len(), 3, "{said}");
    assert_eq!((seen.all("order open"), seen.all("order canceled")), (placed.clone(), placed), "{said}");
    assert_eq!(seen.all("quote").len(), 1, "{said}");
    let venue = door.venue.exchange();
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
