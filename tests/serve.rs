//! `countersign serve` as a user runs it: signals, reloads, how it ends, what it leaves behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod commands_stage;
mod house;
mod program;

use commands_stage::{CANARY, edit, tls, token};
use house::Socket;
use program::{PATIENCE, Serving, run, user_folder};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

#[test]
fn a_running_proxy_is_healthy_and_ready() {
    let folder = user_folder();
    let proxy = Serving::open(folder.path(), &[]);
    assert_eq!(proxy.ask("/healthz"), (200, "ok\n".to_owned()));
    let (status, body) = proxy.ask("/readyz");
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &told["ready"]), (200, &Value::Bool(true)));
    assert_eq!(told["listening_on"], proxy.address.to_string());
    assert_eq!(proxy.ask("/metrics-of-another-program").0, 404);

    let admin = format!("admin.address={}", proxy.admin);
    let healthy = run(folder.path(), &["healthcheck", "--set", &admin]);
    assert_eq!((healthy.code, healthy.stdout.as_str()), (Some(0), "ready\n"));
    drop(proxy);
    let gone = run(folder.path(), &["healthcheck", "--set", &admin]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("is `countersign serve` running"), "{gone:?}");
}

#[tokio::test]
async fn a_signal_drains_sessions_with_1001_and_exits_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = user_folder();
        let mut proxy = Serving::open(folder.path(), &[]);
        let kraken = log_in(&proxy, "/kraken/v2", "bot-a").await;
        let bitfinex = log_in(&proxy, "/bitfinex/v2", "bot-a").await;
        proxy.program.signal(signal);
        for mut socket in [kraken, bitfinex] {
            assert_eq!(socket.closed().await, (1001, "draining".to_owned()));
            // Reading on is what sends the answer, and then it goes: a client that does so holds nobody up.
            while let Some(Ok(_)) = socket.next().await {}
        }
        assert_eq!(proxy.program.ended(PATIENCE), Some(0));
        assert!(tokio::net::TcpStream::connect(proxy.address).await.is_err());
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let folder = user_folder();
    // Far more than the second signal may take.
    let mut proxy = Serving::open(folder.path(), &["--set", "limits.close_timeout=15s"]);
    // Never answers its farewell, so the house cannot empty.
    let _frozen = log_in(&proxy, "/kraken/v2", "bot-a").await;
    proxy.program.signal(Signal::TERM);
    proxy.program.line_where(|line| line.contains("draining"));
    while proxy.ask("/readyz").0 != 503 {}
    assert_eq!(proxy.ask("/healthz").0, 200, "on its way out, but alive");
    // A reload has no business here: neither an end nor a change.
    proxy.program.signal(Signal::HUP);
    assert_eq!(proxy.ask("/readyz").0, 503);
    proxy.program.signal(Signal::TERM);
    assert_eq!(proxy.program.ended(Duration::from_secs(5)), Some(1));
    assert!(!proxy.program.output().contains("reloaded"));
}

#[tokio::test]
async fn a_reload_ends_the_sessions_whose_grant_is_gone_and_no_other() {
    let folder = user_folder();
    let mut proxy = Serving::open(folder.path(), &[]);
    let mut bot = log_in(&proxy, "/kraken/v2", "bot-a").await;
    let mut viewer = log_in(&proxy, "/kraken/v2", "viewer").await;
    edit(
        folder.path(),
        "client = \"jwt:viewer\"\naccount = \"kraken_main\"",
        "client = \"jwt:other\"\naccount = \"kraken_main\"",
    );
    proxy.program.signal(Signal::HUP);
    proxy.program.line_where(|line| line.contains("grants reloaded"));
    assert_eq!(viewer.closed().await, (1008, "grant_removed".to_owned()));
    assert_lives(&mut bot, 1).await;
    let mut viewer = connect(&proxy, "/kraken/v2").await;
    viewer.log_in(&token(folder.path(), &["--subject", "viewer"])).await;
    assert_eq!(viewer.closed().await, (1008, "Authentication failed".to_owned()));
    log_in(&proxy, "/kraken/v2", "other").await;
}

#[tokio::test]
async fn a_reload_with_a_mistake_changes_nothing() {
    let folder = user_folder();
    let mut proxy = Serving::open(folder.path(), &[]);
    let mut bot = log_in(&proxy, "/kraken/v2", "bot-a").await;
    for (from, to, key) in [
        ("client = \"jwt:bot-a\"", &*format!("client = \"nobody:{CANARY}\""), "grants[0].client"),
        ("[[grants]]", "[[grants", "grants"),
    ] {
        let good = fs::read_to_string(folder.path().join("proxy.toml")).unwrap();
        edit(folder.path(), from, to);
        proxy.program.signal(Signal::HUP);
        let line = proxy.program.line_where(|line| line.contains("reload_failed"));
        assert!(line.contains(key) && line.contains("send SIGHUP again"), "{line}");
        fs::write(folder.path().join("proxy.toml"), good).unwrap();
    }
    assert_lives(&mut bot, 1).await;
    log_in(&proxy, "/kraken/v2", "bot-a").await;
    assert!(!proxy.program.output().contains(CANARY));
}

#[test]
fn a_second_proxy_on_the_same_state_ends_with_75() {
    let folder = user_folder();
    let proxy = Serving::open(folder.path(), &[]);
    let second = run(folder.path(), &["serve", "--set", "listen.address=127.0.0.1:0"]);
    assert_eq!(second.code, Some(75));
    assert!(second.stderr.contains("another countersign runs") && second.stderr.contains("store.path"), "{second:?}");
    assert_eq!(proxy.ask("/readyz").0, 200);
}

#[tokio::test]
async fn after_a_kill_the_next_start_goes_on() {
    let folder = user_folder();
    let mut proxy = Serving::open(folder.path(), &[]);
    let _bot = log_in(&proxy, "/bitfinex/v2", "bot-a").await;
    proxy.program.signal(Signal::KILL);
    assert_eq!(proxy.program.ended(PATIENCE), None);
    let proxy = Serving::open(folder.path(), &[]);
    log_in(&proxy, "/bitfinex/v2", "bot-a").await;
}

#[tokio::test]
async fn a_damaged_state_file_ends_with_73_and_is_left_alone() {
    let folder = user_folder();
    let mut proxy = Serving::open(folder.path(), &[]);
    let _bot = log_in(&proxy, "/bitfinex/v2", "bot-a").await;
    proxy.program.signal(Signal::KILL);
    proxy.program.ended(PATIENCE);
    let mark = folder.path().join("state/bitfinex_main.nonce");
    assert!(mark.exists());
    fs::write(&mark, "{\"version\":1,\"unit\"").unwrap();
    let damaged =
        run(folder.path(), &["serve", "--set", "listen.address=127.0.0.1:0", "--set", "admin.address=127.0.0.1:0"]);
    assert_eq!(damaged.code, Some(73));
    assert!(damaged.stderr.contains("bitfinex_main.nonce is damaged: restore it"), "{damaged:?}");
    assert_eq!(fs::read_to_string(&mark).unwrap(), "{\"version\":1,\"unit\"");
}

#[test]
fn a_port_in_use_ends_with_64_and_advice() {
    let folder = user_folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for key in ["listen.address", "admin.address"] {
        let other = if key == "listen.address" { "admin.address" } else { "listen.address" };
        let (taken, free) = (format!("{key}={address}"), format!("{other}=127.0.0.1:0"));
        let refused = run(folder.path(), &["serve", "--set", &taken, "--set", &free]);
        assert_eq!(refused.code, Some(64));
        let said = format!("countersign: {key}: {address}: ");
        assert!(refused.stderr.contains(&said), "{refused:?}");
        assert!(
            refused.stderr.contains("another program listens there; end it, or choose another port"),
            "{refused:?}"
        );
    }
}

#[test]
fn the_memory_of_a_running_proxy_is_its_own() {
    let folder = user_folder();
    let proxy = Serving::open(folder.path(), &[]);
    let process = Path::new("/proc").join(proxy.program.id().to_string());
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    // The kernel gives the files of a process that cannot be dumped to root (proc(5)). Of root's own they always are.
    assert_eq!(fs::metadata(process.join("environ")).unwrap().uid(), 0);
}

async fn log_in(proxy: &Serving, path: &str, subject: &str) -> Socket {
    let mut socket = connect(proxy, path).await;
    socket.log_in(&token(&proxy.folder, &["--subject", subject])).await;
    let told = socket.json().await;
    assert_eq!(told["type"], "connected", "{told}");
    socket
}

async fn connect(proxy: &Serving, path: &str) -> Socket {
    let stream = tls(&proxy.folder.join("certs/ca.pem"), proxy.address).await;
    let (socket, _) = tokio_tungstenite::client_async(format!("wss://localhost{path}"), stream).await.unwrap();
    Socket(socket)
}

async fn assert_lives(kraken: &mut Socket, req_id: u64) {
    kraken.say(format!(r#"{{"method":"ping","req_id":{req_id}}}"#)).await;
    kraken.json_where(|it| it["method"] == "pong" && it["req_id"] == req_id).await;
}
