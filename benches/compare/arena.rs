//! Everybody who is measured, running and configured for the same work.

use crate::ledger::Party;
use crate::peers::Peer;
use crate::rig::load::{self, Client, Way};
use crate::rig::process::{Exchange, Folder, PATIENCE, Process, Proxy};
use crate::rig::usage::Usage;
use crate::rig::{Offer, trusting_with};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

/// Countersign's door for the venue `plain`. The exchange takes any path, and the others pass this one on.
const PATH: &str = "/plain";

/// How processors are shared out.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Pin {
    /// All on as many as the proxy has threads: no wake-up of another processor is part of a figure.
    Together,
    /// The proxy on as many as it has threads, clients and exchange on the others.
    Apart,
    /// As the scheduler likes.
    No,
}

/// Who runs where.
pub(crate) struct Processors {
    proxy: Vec<usize>,
    /// Of the clients and of the exchange.
    pub(crate) load: Vec<usize>,
}

impl Processors {
    pub(crate) fn share_out(machine: &[usize], pin: Pin, threads: usize) -> Self {
        let (few, others) = machine.split_at(threads.min(machine.len()));
        match pin {
            Pin::Apart if !others.is_empty() => Self { proxy: few.to_vec(), load: others.to_vec() },
            Pin::Together => Self { proxy: few.to_vec(), load: few.to_vec() },
            Pin::Apart | Pin::No => Self { proxy: machine.to_vec(), load: machine.to_vec() },
        }
    }

    pub(crate) fn sentence(&self, threads: usize) -> String {
        let (proxy, load) = (&self.proxy, &self.load);
        if proxy == load {
            format!("\n{threads} thread(s) each; proxy, clients and exchange share processors {proxy:?}")
        } else {
            format!("\n{threads} thread(s) each; proxy on processor(s) {proxy:?}, clients and exchange on {load:?}")
        }
    }
}

/// What is the same for all.
pub(crate) struct Arena<'a> {
    pub(crate) exchange: &'a Exchange,
    pub(crate) threads: usize,
    pub(crate) processors: Processors,
    pub(crate) sessions_max: usize,
}

/// One that is measured.
pub(crate) struct Contestant<'a> {
    pub(crate) party: Party,
    pub(crate) way: Way,
    runs: Runs,
    /// What it was started from, to start it once more.
    peer: Option<&'a Peer>,
}

enum Runs {
    /// Nothing stands between client and exchange.
    Nothing,
    Countersign(Proxy),
    Peer(Process, #[allow(dead_code, reason = "goes with the process")] Folder),
}

impl Contestant<'_> {
    /// What its processes use. None where there are none.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match &self.runs {
            Runs::Nothing => None,
            Runs::Countersign(proxy) => Some(proxy.usage()),
            Runs::Peer(process, _) => Some(process.usage()),
        }
    }
}

impl Arena<'_> {
    /// Starts all. A peer that does not do its work is left out, and why is said.
    pub(crate) async fn contestants<'a>(&self, peers: &'a [Peer]) -> Vec<Contestant<'a>> {
        let mut contestants = vec![self.direct(), self.countersign()];
        for peer in peers {
            match self.peer(peer).await {
                Ok(contestant) => contestants.push(contestant),
                Err(why) => eprintln!("{} is left out: {why}", peer.party),
            }
        }
        contestants
    }

    /// Starts it once more, in processes that have done nothing. None where there are none.
    pub(crate) async fn fresh<'a>(&self, contestant: &Contestant<'a>) -> Option<Contestant<'a>> {
        match (&contestant.runs, contestant.peer) {
            (Runs::Countersign(_), _) => Some(self.countersign()),
            (_, Some(peer)) => Some(self.peer(peer).await.expect("it has started before")),
            _ => None,
        }
    }

    pub(crate) fn direct<'a>(&self) -> Contestant<'a> {
        let way = way(self.exchange.address, &self.exchange.authority, None);
        Contestant { party: Party::Direct, way, runs: Runs::Nothing, peer: None }
    }

    fn countersign<'a>(&self) -> Contestant<'a> {
        let proxy = Proxy::start_on(&self.processors.proxy, &self.fill(include_str!("proxy.toml"), &[]), self.threads);
        let way = way(proxy.address, &proxy.authority(), Some(proxy.token()));
        Contestant { party: Party::Countersign, way, runs: Runs::Countersign(proxy), peer: None }
    }

    async fn peer<'a>(&self, peer: &'a Peer) -> Result<Contestant<'a>, String> {
        let folder = Folder::new();
        let certificates = folder.path();
        crate::rig::certificates::of_a_proxy(certificates);
        let both = ["server.pem", "server.key"].map(|name| fs::read_to_string(certificates.join(name)));
        let both = both.map(|text| text.expect("they were made just now")).concat();
        fs::write(certificates.join("server.pem"), both).expect("the folder can be written");

        let address = free_address();
        let named = [("FOLDER", certificates.display().to_string()), ("LISTEN_PORT", address.port().to_string())];
        let (template, name) = match peer.party {
            Party::Haproxy => (include_str!("haproxy.cfg"), "haproxy.cfg"),
            Party::Nginx => (include_str!("nginx.conf"), "nginx.conf"),
            _ => (include_str!("envoy.yaml"), "envoy.yaml"),
        };
        let configuration = certificates.join(name);
        fs::write(&configuration, self.fill(template, &named)).expect("the folder can be written");
        let output_path = certificates.join("output");
        let output = fs::File::create(&output_path).expect("the folder can be written");
        let mut process = Process::start_program(&peer.program, &self.processors.proxy, |command| {
            match peer.party {
                Party::Haproxy => command.arg("-db").arg("-f").arg(&configuration),
                Party::Nginx => {
                    command.arg("-p").arg(certificates).arg("-e").arg("stderr").arg("-c").arg(&configuration)
                }
                _ => command
                    .args(["--disable-hot-restart", "--log-level", "error", "--concurrency"])
                    .arg(self.threads.to_string())
                    .arg("-c")
                    .arg(&configuration),
            };
            peer.tune(command);
            command.stdout(output.try_clone().expect("a file can be shared")).stderr(output);
        });

        let way = way(address, &certificates.join("ca.pem"), None);
        let said = || fs::read_to_string(&output_path).unwrap_or_default();
        let began = Instant::now();
        while let Err(error) = prove(&way).await {
            if process.has_ended() || began.elapsed() > PATIENCE {
                return Err(format!("no message comes back ({error})\n{}", said()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Contestant { party: peer.party, way, runs: Runs::Peer(process, folder), peer: Some(peer) })
    }

    /// A template with its places filled.
    fn fill(&self, template: &str, named: &[(&str, String)]) -> String {
        let common = [
            ("THREADS", self.threads.to_string()),
            ("SESSIONS", self.sessions_max.to_string()),
            ("FILES", (2 * self.sessions_max).to_string()),
            ("UPSTREAM_PORT", self.exchange.address.port().to_string()),
            ("AUTHORITY", self.exchange.authority.display().to_string()),
        ];
        let places = common.iter().chain(named);
        places.fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
    }
}

fn way(address: SocketAddr, authority: &Path, token: Option<String>) -> Way {
    Way { address, connector: trusting_with(Offer::OneOfEach, authority), path: PATH, token }
}

/// An address that nobody listens at. Another process could take it before the peer does: then that is left out.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// One message there and back: it upgrades, and trusts the exchange.
async fn prove(way: &Way) -> std::io::Result<()> {
    let there_and_back = async {
        let mut client = Client::open(way).await?;
        client.round_trip(&load::message(128), 128).await
    };
    tokio::time::timeout(PATIENCE, there_and_back).await?
}
