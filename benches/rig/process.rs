//! The processes beside the load: this same program, told by its arguments to be something else, and proxies.

use super::certificates;
use super::usage::Usage;
use countersign::credential::{SecretFormat, Signer};
use countersign::fresh::UnixMillis;
use countersign::identity::jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, Mint};
use countersign::identity::local::{LocalGrants, LocalKeyFor, LocalKeys};
use countersign::names::{AccountName, ClientName};
use countersign::secret::Secret;
use countersign::venue;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The product, as it is released.
const PROGRAM: &str = env!("CARGO_BIN_EXE_countersign");
/// How long a process may take until it listens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long one with workers may take to end them.
const FAREWELL: Duration = Duration::from_secs(3);

/// A folder that goes when the benchmark ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("countersign-bench-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("the folder of temporary files can be written");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A process of ours. Ends with the value; and with this process, however that ends.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let others = self.usage().descendants();
        if !others.is_empty() {
            // nginx's workers would outlive a master that is killed. Told to end, it ends them first.
            let is_told = kill_process(Pid::from_child(&self.0), Signal::TERM).is_ok();
            let began = Instant::now();
            while is_told && !self.has_ended() && began.elapsed() < FAREWELL {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    /// Starts this program again.
    fn start(role: &str, tune: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args(["--role", role]).stdin(Stdio::piped());
        tune(&mut command);
        Self(command.spawn().expect("this program can be started again"))
    }

    /// Starts another program, on these processors. None: on those that this process may use.
    pub(crate) fn start_program(program: &Path, processors: &[usize], tune: impl FnOnce(&mut Command)) -> Self {
        Self::start("become", |command| {
            let list: Vec<String> = processors.iter().map(ToString::to_string).collect();
            command.arg(list.join(",")).arg(program).stdin(Stdio::null());
            tune(command);
        })
    }

    /// What it uses, with the processes that it started.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.0)
    }

    /// True once it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

/// The server behind the proxy.
pub(crate) struct Exchange {
    _process: Process,
    pub(crate) address: SocketAddr,
    /// Whoever trusts this, trusts it.
    pub(crate) authority: PathBuf,
    _folder: Folder,
}

impl Exchange {
    /// `role`: what it does with its connections.
    pub(crate) fn start(role: &str) -> Self {
        let folder = Folder::new();
        certificates::of_an_exchange(folder.path());
        let mut process = Process::start(role, |command| {
            command.arg(folder.path()).stdout(Stdio::piped());
        });
        let mut line = String::new();
        let output = process.0.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("the server says where it is");
        let address = line.trim().parse().expect("an address");
        Self { _process: process, address, authority: folder.path().join("ca.pem"), _folder: folder }
    }
}

/// The proxy.
pub(crate) struct Proxy {
    process: Process,
    pub(crate) address: SocketAddr,
    folder: Folder,
}

impl Proxy {
    /// `configuration`: what `proxy.toml` says. `threads`: how many carry the sessions.
    pub(crate) fn start(configuration: &str, threads: usize) -> Self {
        Self::start_on(&[], configuration, threads)
    }

    /// The same, on these processors.
    pub(crate) fn start_on(processors: &[usize], configuration: &str, threads: usize) -> Self {
        let folder = Folder::new();
        let config = folder.path().join("proxy.toml");
        fs::write(&config, configuration).expect("the folder can be written");
        let log_path = folder.path().join("log.json");
        let log = fs::File::create(&log_path).expect("the folder can be written");
        let process = Process::start_program(Path::new(PROGRAM), processors, |command| {
            command.arg("--config").arg(&config).args(["--log-format", "json", "serve"]);
            command.env("COUNTERSIGN__LISTEN__THREADS", threads.to_string()).stdout(Stdio::null()).stderr(log);
            // For accounts that sign. The server behind looks at no signature.
            command.env("BENCH_KEY", "KEY-OF-THE-BENCHMARK").env("BENCH_SECRET", "c2VjcmV0IG9mIHRoZSBiZW5jaG1hcms=");
        });
        let began = Instant::now();
        let address = loop {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            if let Some(address) = log.lines().find_map(listening_on) {
                break address;
            }
            assert!(began.elapsed() < PATIENCE, "the proxy did not start:\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        };
        Self { process, address, folder }
    }

    /// The authority of its certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("certs/ca.pem")
    }

    /// A proof for its one client.
    pub(crate) fn token(&self) -> String {
        let secret = fs::read(self.folder.path().join("certs/client-jwt.key")).expect("the proxy made it");
        let key = JwtKey::new(None, JwtAlgorithm::HS256, &Secret::new(secret)).expect("a key");
        let keys = JwtKeys::new(JwtSettings { keys: vec![key], ..JwtSettings::default() }).expect("settings");
        let subject = ClientName::parse("bot-a").expect("a name");
        let wanted = Mint { subject: &subject, scope: None, lifetime: Duration::from_secs(900), random: [7; 16] };
        let token = keys.mint(&wanted, now()).expect("a token");
        String::from_utf8(token.expose().to_vec()).expect("a token is ASCII")
    }

    /// The keys that an unmodified bot would be given for an account at Kraken.
    pub(crate) fn local_key(&self, client: &str, account: &str) -> Signer {
        let master = fs::read(self.folder.path().join("certs/local-keys.key")).expect("the proxy made it");
        let lifetime = Duration::from_secs(60);
        let local =
            LocalKeys::new(&Secret::new(master), LocalGrants::default(), lifetime, now()).expect("a master key");
        let venue = venue::by_name("kraken").expect("a venue");
        let (client, account) = (ClientName::parse(client), AccountName::parse(account));
        let whose = LocalKeyFor { client: client.expect("a name"), account: account.expect("a name"), venue };
        let pair = local.issue(&whose).expect("its bots sign");
        Signer::new(&Secret::from(pair.api_key), &pair.secret, SecretFormat::Base64).expect("a key")
    }

    /// Processor time that it has used, in user and kernel mode.
    pub(crate) fn cpu(&self) -> Duration {
        self.usage().cpu()
    }

    /// Memory that is in use, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.usage().resident_kib()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.process.usage()
    }
}

fn listening_on(line: &str) -> Option<SocketAddr> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    (event["message"] == "listening").then(|| event["address"].as_str()?.parse().ok())?
}

pub(super) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    UnixMillis(u64::try_from(since.as_millis()).expect("it is before the year 500,000,000"))
}
