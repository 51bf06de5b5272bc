//! Where an unmodified bot is pointed: straight at a simulated exchange, or at the proxy in front of it.
//!
//! Straight first, to tell what is the library's doing from what is ours. A bot holds the exchange's key there and a
//! local key here, and cannot tell the difference.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by test programs that use a part each")]

mod projectx;

use crate::house::{self, Folder, House};
use crate::program;
use countersign::certs::{self, Wanted};
use countersign::simulator::{self, Options, Record, SimKey, bitfinex::Bitfinex, kraken::Kraken, projectx::ProjectX};
use countersign::tls::{Acceptor, Certificates, ServerSettings};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// How much of what was received or sent is shown.
const ENTRY_CHARS_MAX: usize = 400;

/// What a bot is pointed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A simulated exchange, with a key that it knows.
    Directly,
    /// The proxy, with a local key.
    ThroughTheProxy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Venue {
    Kraken,
    Bitfinex,
    ProjectX,
}

impl Venue {
    pub(crate) const ALL: [Self; 3] = [Self::Kraken, Self::Bitfinex, Self::ProjectX];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kraken => "kraken",
            Self::Bitfinex => "bitfinex",
            Self::ProjectX => "projectx",
        }
    }
}

/// A key pair in the venue's own format; at ProjectX a user name and its key.
pub(crate) struct KeyPair {
    pub(crate) key: String,
    pub(crate) secret: String,
}

/// An open door: an address that speaks for the venue, and what a bot needs to come in.
pub(crate) struct Door {
    pub(crate) venue: Venue,
    /// Serves the venue's REST API and its private sockets over TLS.
    pub(crate) address: SocketAddr,
    /// Serves the public sockets that share a path with private ones.
    pub(crate) public: SocketAddr,
    /// The authority that bots must trust.
    pub(crate) ca: PathBuf,
    pub(crate) bot: KeyPair,
    behind: Behind,
}

/// What keeps the door open. A simulator is reached by its venue's names through a tunnel of this test's.
enum Behind {
    Kraken(simulator::Running<Kraken>, Folder, SocketAddr),
    Bitfinex(simulator::Running<Bitfinex>, Folder, SocketAddr),
    House(Box<House>),
    /// A venue of this test's own, with the proxy before it or not.
    ProjectX(simulator::Running<ProjectX>, Folder, Option<Box<House>>),
}

impl Door {
    pub(crate) async fn open(target: Target, venue: Venue) -> Self {
        match (venue, target) {
            (Venue::ProjectX, _) => Self::to_projectx(target, |_| ()).await,
            (_, Target::Directly) => Self::to_a_simulator(venue).await,
            (_, Target::ThroughTheProxy) => Self::to_the_proxy(venue).await,
        }
    }

    async fn to_a_simulator(venue: Venue) -> Self {
        let folder = Folder::new();
        let tls = exchange_certificates(folder.path());
        let ca = folder.path().join("ca.pem");
        let (bot, address, behind) = match venue {
            Venue::Kraken => {
                let secret = "a3Jha2VuIHNlY3JldCBvZiB0aGUgc2ltdWxhdG9yLCA2NCBieXRlcyBsb25nIGFzIHRoZSByZWFsIG9uZXMu";
                let key = SimKey::new("SIMULATED/KRAKEN+KEY", secret);
                let running = simulator::kraken::start(Options::kraken(tls, vec![key.clone()])).await.unwrap();
                let address = running.address();
                (key, address, Behind::Kraken(running, folder, tunnel(address).await))
            }
            Venue::Bitfinex => {
                let key = SimKey::new("SIMULATEDBITFINEXKEY", "bitfinexSecretOfTheSimulator0123456789abcde");
                let running = simulator::bitfinex::start(Options::bitfinex(tls, vec![key.clone()])).await.unwrap();
                let address = running.address();
                (key, address, Behind::Bitfinex(running, folder, tunnel(address).await))
            }
            Venue::ProjectX => unreachable!("it has a door of its own"),
        };
        let bot = KeyPair { key: bot.api_key, secret: bot.secret };
        Self { venue, address, public: address, ca, bot, behind }
    }

    async fn to_the_proxy(venue: Venue) -> Self {
        let name = venue.name();
        let [address, public, connect, admin] = free_addresses();
        // Kraken's public and private sockets share a path; Bitfinex' private one carries public channels too.
        let (public, narrowed) = match venue {
            Venue::Kraken => {
                (public, format!("[[ports]]\naddress = \"{public}\"\nvenue = \"kraken\"\nendpoint = \"public\""))
            }
            Venue::Bitfinex | Venue::ProjectX => (address, String::new()),
        };
        let house = House::from(&format!(
            r#"
[listen]
address = "127.0.0.1:0"
[admin]
address = "{admin}"
[connect]
address = "{connect}"
[[ports]]
address = "{address}"
venue = "{name}"
{narrowed}
[clients.local_keys]
master = {{ file = "certs/local-keys.key" }}
[accounts.{name}_main]
venue = "{name}"
upstream = "simulator"
[[grants]]
client = "key:bot-a"
account = "{name}_main"
scope = ["read", "trade"]
# Libraries load markets and open public sockets without a key.
[[grants]]
client = "anonymous"
venues = ["{name}"]
scope = ["public"]
"#
        ))
        .await;
        let bot = local_key(house.folder.path(), &format!("{name}_main"), ["key", "secret"]);
        let ca = house.certs().join("ca.pem");
        let door = Self { venue, address, public, ca, bot, behind: Behind::House(Box::new(house)) };
        // What makes the proxy worth its name: nothing of the bot's reaches the exchange.
        door.record().forbid(&door.bot.key);
        door.record().forbid(&door.bot.secret);
        door
    }

    /// What the exchange saw, for somebody who looks for a bot's trouble.
    pub(crate) fn story(&self) -> String {
        let entries = self.record().snapshot();
        let lines = entries.iter().map(|entry| {
            let start: String = entry.text().chars().take(ENTRY_CHARS_MAX).collect();
            format!("{} connection {} {:?} {:?} {start:?}\n", entry.at.0, entry.connection, entry.direction, entry.kind)
        });
        lines.collect()
    }

    /// What the exchange saw.
    pub(crate) fn record(&self) -> &Record {
        match &self.behind {
            Behind::Kraken(running, ..) => running.record(),
            Behind::Bitfinex(running, ..) => running.record(),
            Behind::House(house) if self.venue == Venue::Kraken => house.kraken(),
            Behind::House(house) => house.bitfinex(),
            Behind::ProjectX(running, ..) => running.record(),
        }
    }
}

/// Certificates for `localhost` and the exchanges' own names.
fn exchange_certificates(folder: &Path) -> Acceptor {
    let kraken = ["api.kraken.com", "ws.kraken.com", "ws-auth.kraken.com"];
    let others = ["api.bitfinex.com", "api-pub.bitfinex.com", "api.topstepx.com", "rtc.topstepx.com"];
    let names = kraken.into_iter().chain(others).map(str::to_owned).collect();
    let wanted = Wanted { directory: folder.to_owned(), names, clients: Vec::new(), is_forced: false };
    countersign::tls::install_crypto();
    certs::ensure(&wanted, house::now()).unwrap();
    let certificates = Certificates::Directory(folder.to_owned());
    ServerSettings { certificates, client_authority: None, client_revocations: None }.load(house::now()).unwrap()
}

/// A proxy for CONNECT that leads wherever anybody wants to go to `address`.
async fn tunnel(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut client = BufReader::new(client);
                let mut line = String::new();
                while client.read_line(&mut line).await.is_ok_and(|count| count > 2) {}
                if !line.starts_with("CONNECT ") {
                    return;
                }
                let mut exchange = TcpStream::connect(address).await.unwrap();
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                // How the tunnel ends is for its two ends to judge.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut exchange).await;
            });
        }
    });
    own
}

/// The key pair that `countersign key` prints for `bot-a`, by the names that its two parts have there.
fn local_key(folder: &Path, account: &str, parts: [&str; 2]) -> KeyPair {
    let outcome = program::run(folder, &["key", "--client", "bot-a", "--account", account]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let field = |name: &str| {
        let line = outcome.stdout.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in the answer of `countersign key`")).trim().to_owned()
    };
    let [key, secret] = parts.map(field);
    KeyPair { key, secret }
}

/// Addresses that nobody has at the moment.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    // All are held before one is let go, or the system could give one twice.
    let held: [_; N] = std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

/// How a bot finds the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By addresses that the library is given.
    Port,
    /// By the exchange's own names, through the proxy that the environment names.
    Name,
}

/// The command that runs a bot against a door, configured by its environment alone.
pub(crate) fn command(arguments: &[&OsStr], door: &Door, way: Way) -> Command {
    let mut all = arguments.to_vec();
    let configuration = match &door.behind {
        Behind::House(house) => Some(house.folder.path().join("proxy.toml")),
        Behind::Kraken(..) | Behind::Bitfinex(..) | Behind::ProjectX(..) => None,
    };
    if let (Way::Name, Some(configuration)) = (way, &configuration) {
        let run = [program::binary().as_os_str(), "run".as_ref(), "--config".as_ref(), configuration.as_os_str()];
        all.splice(0..0, run.into_iter().chain(["--".as_ref()]));
    }
    let mut command = Command::new(all[0]);
    command.args(&all[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    match door.venue {
        Venue::Kraken | Venue::Bitfinex => command.env("API_KEY", &door.bot.key).env("API_SECRET", &door.bot.secret),
        Venue::ProjectX => command.env("USER_NAME", &door.bot.key).env("API_KEY", &door.bot.secret),
    };
    command.env("PYTHONDONTWRITEBYTECODE", "1").kill_on_drop(true);
    match (way, &door.behind) {
        // `countersign run` sets the rest.
        (Way::Name, Behind::House(_)) => return command,
        (Way::Name, Behind::Kraken(.., tunnel) | Behind::Bitfinex(.., tunnel)) => {
            command.env("HTTPS_PROXY", format!("http://{tunnel}"));
        }
        (Way::Name, Behind::ProjectX(..)) => unreachable!("its bots take addresses"),
        (Way::Port, _) => {
            command.env("REST", format!("https://localhost:{}", door.address.port()));
            command.env("WS", format!("wss://localhost:{}", door.public.port()));
            command.env("WS_AUTH", format!("wss://localhost:{}", door.address.port()));
            command.env("HUB", format!("https://localhost:{}/hubs", door.address.port()));
        }
    }
    for name in ["CA", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
        command.env(name, &door.ca);
    }
    command
}
