//! `countersign run` and `countersign env` as a user runs them: programs, signals, exit codes, one proxy for several.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod house;
mod program;

use house::{Folder, STANDARD};
use program::{PATIENCE, Program, Serving, countersign, finish};
use rustix::process::Signal;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

const CANARY: &str = "hunter2-canary";

/// Reaches the exchange's real name through the proxy variables, as libraries do that read them.
const BOT: &str = r#"
import base64, http.client, os, ssl, sys, time, urllib.parse
proxy = urllib.parse.urlparse(os.environ["HTTPS_PROXY"])
pair = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
bot = http.client.HTTPSConnection(proxy.hostname, proxy.port, context=ssl.create_default_context(), timeout=20)
bot.set_tunnel(sys.argv[1], 443, {"Proxy-Authorization": "Basic " + pair})
bot.connect()
print("issuer", dict(part[0] for part in bot.sock.getpeercert()["issuer"])["commonName"])
bot.request("GET", "/nowhere")
print("status", bot.getresponse().status)
sys.stdout.flush()
time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0)
"#;

// ---- run ------------------------------------------------------------------------------------------------------------

#[test]
fn a_bot_that_reads_the_proxy_variables_reaches_us_under_the_exchange_s_name() {
    let desk = Desk::new("");
    // As long again as a busy machine may take to start Python, so that the warning falls due while it is connected.
    let wait = "5";
    let outcome =
        finish(&mut desk.run(&["--warn-after", "5s", "--", "python3", "bot.py", "api.kraken.com", wait]), PATIENCE);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("issuer Countersign"), "the real exchange was asked, or nobody: {outcome:?}");
    assert!(outcome.stdout.contains("status "), "{outcome:?}");
    assert!(outcome.stderr.contains("started a proxy") && !outcome.stderr.contains("no connection"), "{outcome:?}");
    assert!(!desk.is_open(), "the proxy outlived the program");
}

#[test]
fn a_name_that_is_not_served_is_refused_with_advice() {
    let desk = Desk::new("");
    let outcome = finish(&mut desk.run(&["--", "python3", "bot.py", "example.com"]), PATIENCE);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("403"), "{outcome:?}");
}

#[test]
fn the_exit_code_is_the_program_s_own() {
    let desk = Desk::new("");
    let _proxy = desk.serve();
    for (code, script) in [(0, "exit 0"), (7, "exit 7"), (143, "kill -TERM $$"), (137, "kill -KILL $$")] {
        let outcome = finish(&mut desk.run(&["sh", "-c", script]), PATIENCE);
        assert_eq!(outcome.code, Some(code), "{script}: {outcome:?}");
        assert_eq!(outcome.stderr, "", "nothing of ours: {script}");
    }
    fs::write(desk.path().join("no-program"), "").unwrap();
    for (code, command) in [(127, "no-such-program-anywhere"), (126, "./no-program")] {
        let outcome = finish(&mut desk.run(&["--", command]), PATIENCE);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.stderr.contains(command), "{outcome:?}");
    }
    for wrong in [&[][..], &["--no-such-option", "sh"]] {
        assert_eq!(finish(&mut desk.run(wrong), PATIENCE).code, Some(64), "{wrong:?}");
    }
}

#[test]
fn options_behind_the_program_are_the_program_s() {
    let desk = Desk::new("");
    let _proxy = desk.serve();
    let outcome = finish(&mut desk.run(&["sh", "-c", "echo $0 $1", "--config", "--help"]), PATIENCE);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "--config --help\n"));
}

#[test]
fn signals_are_passed_on_to_the_program() {
    let desk = Desk::new("");
    let _proxy = desk.serve();
    for (signal, code) in [(Signal::TERM, 15), (Signal::HUP, 11), (Signal::USR1, 10)] {
        let script = format!("trap 'exit {code}' {}; echo up; while :; do sleep 0.02; done", name(signal));
        let mut running = Program::start(&mut desk.run(&["sh", "-c", &script]));
        running.line_where(|line| line == "up");
        running.signal(signal);
        assert_eq!(running.ended(PATIENCE), Some(code), "{signal:?}");
    }
}

#[test]
fn a_proxy_that_is_there_is_used_and_left_alone() {
    let desk = Desk::new("[connect]\naddress = \"127.0.0.1:0\"\n");
    let proxy = desk.serve();
    let outcome = finish(&mut desk.run(&["--", "python3", "bot.py", "api.kraken.com"]), PATIENCE);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    assert!(desk.is_open());
    assert!(!desk.path().join("state/run.log").exists(), "a second proxy was started");
    drop(proxy);
}

#[test]
fn a_proxy_without_the_listener_is_not_used_and_what_to_add_is_said() {
    let desk = Desk::new("");
    let _proxy = Serving::open(desk.path(), &["--set", &desk.admin_setting()]);
    let outcome = finish(&mut desk.run(&["--", "sh", "-c", "echo ran"]), PATIENCE);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(64), ""), "{outcome:?}");
    assert!(outcome.stderr.contains("[connect]") && outcome.stderr.contains("address = "), "{outcome:?}");
}

#[test]
fn another_program_at_the_admin_address_is_not_taken_for_a_proxy() {
    let desk = Desk::new("");
    let stranger = TcpListener::bind(desk.admin).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for mut socket in stranger.incoming().flatten() {
            let _ = socket.read(&mut [0; 1024]);
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"ready\":true}");
        }
    });
    let outcome = finish(&mut desk.run(&["--", "sh", "-c", "echo ran"]), PATIENCE);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(64), ""), "{outcome:?}");
    assert!(outcome.stderr.contains("another program answers"), "{outcome:?}");
}

#[test]
fn a_proxy_that_was_started_lives_until_the_last_program_ends_whoever_started_it() {
    let desk = Desk::new("");
    let mut first = Program::start(&mut desk.run(&["sh", "-c", &wait_for("first")]));
    first.line_where(|line| line == "up first");
    let mut second = Program::start(&mut desk.run(&["sh", "-c", &wait_for("second")]));
    second.line_where(|line| line == "up second");
    assert!(!second.output().contains("started a proxy"), "{}", second.output());
    fs::write(desk.path().join("first"), "").unwrap();
    assert_eq!(first.ended(PATIENCE), Some(0), "the first waits for nobody");
    assert!(desk.is_open(), "the proxy ended under the second program");
    fs::write(desk.path().join("second"), "").unwrap();
    assert_eq!(second.ended(PATIENCE), Some(0));
    assert!(!desk.is_open(), "the proxy outlived the last program");
}

#[test]
fn a_run_that_is_killed_leaves_a_proxy_that_the_next_one_ends() {
    let desk = Desk::new("");
    let mut killed = Program::start(&mut desk.run(&["sh", "-c", &wait_for("gate")]));
    killed.line_where(|line| line == "up gate");
    killed.signal(Signal::KILL);
    fs::write(desk.path().join("gate"), "").unwrap();
    drop(killed);
    assert!(desk.is_open());
    let next = finish(&mut desk.run(&["--", "python3", "bot.py", "api.kraken.com"]), PATIENCE);
    assert_eq!(next.code, Some(0), "{next:?}");
    assert!(!next.stderr.contains("started a proxy"), "{next:?}");
    assert!(!desk.is_open());
}

#[test]
fn runs_that_start_together_share_one_proxy() {
    let desk = Desk::new("");
    let mut all: Vec<_> =
        ["a", "b", "c"].map(|gate| (gate, Program::start(&mut desk.run(&["sh", "-c", &wait_for(gate)])))).into();
    for (gate, running) in &mut all {
        running.line_where(|line| line == format!("up {gate}"));
    }
    let starters = all.iter().filter(|(_, running)| running.output().contains("started a proxy")).count();
    assert_eq!(starters, 1);
    for (gate, mut running) in all {
        fs::write(desk.path().join(gate), "").unwrap();
        assert_eq!(running.ended(PATIENCE), Some(0));
    }
    assert!(!desk.is_open());
}

#[test]
fn a_program_that_never_connects_is_told_what_its_library_may_need() {
    let desk = Desk::new("");
    let mut running = Program::start(&mut desk.run(&["--warn-after", "1ms", "--", "sh", "-c", &wait_for("gate")]));
    let told = running.line_where(|line| line.contains("no connection came"));
    assert!(told.contains("countersign env --for ccxt|"), "{told}");
    fs::write(desk.path().join("gate"), "").unwrap();
    assert_eq!(running.ended(PATIENCE), Some(0));
}

#[test]
fn a_proxy_that_does_not_start_says_why() {
    let desk = Desk::new("");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("listen.address={}", taken.local_addr().unwrap());
    let outcome = finish(&mut desk.run(&["--set", &listen, "--", "sh", "-c", "echo ran"]), PATIENCE);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(64), ""), "{outcome:?}");
    assert!(outcome.stderr.contains("another program listens there"), "{outcome:?}");
}

#[test]
fn the_program_gets_a_file_of_roots_and_no_key_of_an_exchange() {
    let keys = "key = { env = \"DESK_KEY\" }\nsecret = { env = \"DESK_SECRET\" }\n";
    let desk = Desk::new("");
    let toml = fs::read_to_string(desk.path().join("proxy.toml")).unwrap();
    let real = toml.replacen("upstream = \"simulator\"\n", keys, 1);
    assert_ne!(real, toml);
    fs::write(desk.path().join("proxy.toml"), real).unwrap();
    let mut command = desk.run(&["sh", "-c", "env; cat \"$SSL_CERT_FILE\"; cat \"$COUNTERSIGN_CA\" >/dev/null"]);
    command.env("DESK_KEY", CANARY).env("DESK_SECRET", "aHVudGVyMi1jYW5hcnk=").env("NO_PROXY", "telegram.example");
    let outcome = finish(&mut command, PATIENCE);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for name in ["HTTPS_PROXY", "https_proxy", "WSS_PROXY", "WS_PROXY"] {
        assert!(outcome.stdout.contains(&format!("{name}=http://run:")), "{name}");
    }
    for name in ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
        assert!(outcome.stdout.contains(&format!("{name}=/")), "{name}");
    }
    assert!(outcome.stdout.contains("NO_PROXY=telegram.example"));
    let authority = fs::read_to_string(desk.path().join("certs/ca.pem")).unwrap();
    let body = authority.lines().nth(1).unwrap();
    assert!(outcome.stdout.contains(body), "our authority is not in the bundle");
    for secret in [CANARY, "aHVudGVyMi1jYW5hcnk=", "DESK_KEY", "DESK_SECRET", "PRIVATE KEY"] {
        assert!(!outcome.stdout.contains(secret), "the program got {secret}");
    }
}

#[test]
fn the_secret_of_a_run_is_in_no_log_and_no_file() {
    let desk = Desk::new("");
    let script = "echo $HTTPS_PROXY; python3 bot.py api.kraken.com; cat state/run.log";
    let outcome = finish(&mut desk.run(&["sh", "-c", script]), PATIENCE);
    let url = outcome.stdout.lines().find(|line| line.starts_with("http://run:")).unwrap();
    let secret = url.trim_start_matches("http://run:").split('@').next().unwrap();
    assert_eq!(outcome.stdout.matches(secret).count(), 1, "{outcome:?}");
    assert!(!outcome.stderr.contains(secret));
    assert!(outcome.stdout.contains("listening"), "the log was looked at: {outcome:?}");
}

// ---- env ------------------------------------------------------------------------------------------------------------

#[test]
fn a_shell_can_take_the_variables_over() {
    let desk = Desk::new("[connect]\naddress = \"127.0.0.1:8444\"\n");
    assert_eq!(finish(&mut desk.command(&["certs"]), PATIENCE).code, Some(0));
    let program = program::binary().display().to_string();
    let script = format!(
        "eval \"$({program} env --for ccxt)\"; echo \"$HTTPS_PROXY\"; test -f \"$SSL_CERT_FILE\" && echo found"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(desk.path());
    let outcome = finish(&mut shell, PATIENCE);
    assert!(outcome.stdout.starts_with("http://run:"), "{outcome:?}");
    assert!(outcome.stdout.contains("@127.0.0.1:8444\nfound\n"), "{outcome:?}");
    assert_eq!(outcome.stderr, "");
}

#[test]
fn every_library_has_its_lines_with_the_ports_of_the_configuration() {
    let desk = Desk::new("[[ports]]\naddress = \"127.0.0.1:8601\"\nvenue = \"kraken\"\n");
    assert_eq!(finish(&mut desk.command(&["certs"]), PATIENCE).code, Some(0));
    for library in
        ["ccxt", "ccxt-async", "krakenex", "kraken-sdk", "bitfinex-api-py", "bfx-api-node", "websockets", "curl"]
    {
        let outcome = finish(&mut desk.command(&["env", "--json", "--for", library]), PATIENCE);
        let told: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert!(!told["lines"].as_array().unwrap().is_empty(), "{library}");
        assert_eq!(told["library"], library);
        assert!(told["env"]["SSL_CERT_FILE"].as_str().unwrap().ends_with("bundle.pem"), "{told}");
        assert!(told["env"].get("HTTPS_PROXY").is_none(), "there is no such listener: {told}");
    }
    let outcome = finish(&mut desk.command(&["env", "--for", "krakenex"]), PATIENCE);
    assert!(outcome.stdout.contains("api.uri = 'https://localhost:8601'"), "{outcome:?}");
    assert!(outcome.stdout.contains("HTTPS_PROXY is not set"), "{outcome:?}");
    let unknown = finish(&mut desk.command(&["env", "--for", "no-such-library"]), PATIENCE);
    assert_eq!(unknown.code, Some(64));
    assert!(unknown.stderr.contains("kraken-sdk"), "{unknown:?}");
}

#[test]
fn before_the_first_start_env_says_what_makes_the_certificates() {
    let desk = Desk::new("");
    let outcome = finish(&mut desk.command(&["env"]), PATIENCE);
    assert_eq!(outcome.code, Some(64));
    assert!(outcome.stderr.contains("countersign certs"), "{outcome:?}");
}

/// What the secrets of runs are made of.
const LOCAL_KEYS: &str = "[clients.local_keys]\nmaster = { file = \"certs/local-keys.key\" }\n";

/// A folder with a configuration and a bot, and an admin address of its own.
struct Desk {
    folder: Folder,
    admin: SocketAddr,
}

impl Desk {
    fn new(more: &str) -> Self {
        let folder = Folder::new();
        let admin = free_address();
        let (head, _) = STANDARD.rsplit_once("[admin]").unwrap();
        fs::write(
            folder.path().join("proxy.toml"),
            format!("{head}\n[admin]\naddress = \"{admin}\"\n{LOCAL_KEYS}{more}"),
        )
        .unwrap();
        fs::write(folder.path().join("bot.py"), BOT).unwrap();
        Self { folder, admin }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        countersign(self.path(), arguments)
    }

    fn run(&self, arguments: &[&str]) -> Command {
        self.command(&[&["run"], arguments].concat())
    }

    fn admin_setting(&self) -> String {
        format!("admin.address={}", self.admin)
    }

    /// A proxy that somebody else started.
    fn serve(&self) -> Serving {
        let settings = ["--set", &self.admin_setting(), "--set", "connect.address=127.0.0.1:0"];
        Serving::open(self.path(), &settings)
    }

    /// True if a proxy is there.
    fn is_open(&self) -> bool {
        TcpStream::connect(self.admin).is_ok()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // A test that failed half-way may have left a proxy; it is one of ours if it answers here.
        let Ok(text) = fs::read_to_string(self.path().join("state/run.pid")) else { return };
        let pid = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.is_open()) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A script that says that it is up, and ends when a file appears.
fn wait_for(gate: &str) -> String {
    format!("echo up {gate}; while [ ! -e {gate} ]; do sleep 0.02; done")
}

fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::TERM => "TERM",
        Signal::HUP => "HUP",
        _ => "USR1",
    }
}
