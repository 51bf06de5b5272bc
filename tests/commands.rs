//! The commands as a user runs them: what they print, which files they make, how they end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod house;
mod program;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use house::{Folder, Socket};
use program::{PATIENCE, Program, Serving, countersign, run, user_folder};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Stands where a value stands that may not be seen.
const CANARY: &str = "hunter2-canary";

const COMMANDS: [&str; 12] =
    ["serve", "demo", "check", "certs", "token", "key", "run", "env", "simulate", "status", "account", "healthcheck"];

// ---- serve ----------------------------------------------------------------------------------------------------------

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

// ---- check ----------------------------------------------------------------------------------------------------------

#[test]
fn the_file_in_the_repository_is_good_before_and_after_the_first_start() {
    let folder = user_folder();
    let first = run(folder.path(), &["check"]);
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    assert!(first.stdout.starts_with("the configuration is good\n"), "{first:?}");
    assert!(!folder.path().join("certs").exists(), "a check changes nothing");
    assert_eq!(run(folder.path(), &["certs"]).code, Some(0));
    let later = run(folder.path(), &["check"]);
    assert_eq!(later.code, Some(0));
    for told in
        ["certificates: good", "account kraken_main: kraken, simulated", "jwt:bot-a may use account kraken_main"]
    {
        assert!(later.stdout.contains(told), "{told}: {later:?}");
    }
}

#[test]
fn every_mistake_is_a_line_with_its_key_and_without_its_value() {
    let folder = user_folder();
    let mistakes = [
        ("address = \"127.0.0.1:8443\"", format!("address = \"{CANARY}\""), "listen.address"),
        (
            "# connections_max = 1000",
            format!("{CANARY} = 1").replace("hunter2-canary", "conections_max"),
            "listen.conections_max",
        ),
        ("# audience = \"countersign\"", format!("audience = [\"{CANARY}\"]"), "clients.jwt.audience"),
        (
            "[accounts.kraken_main]\nvenue = \"kraken\"",
            format!("[accounts.kraken_main]\nvenue = \"{CANARY}\""),
            "accounts.kraken_main.venue",
        ),
        ("# max_sessions = 8", format!("max_sessions = \"{CANARY}\""), "grants[0].max_sessions"),
        ("# level = \"info\"", format!("level = \"{CANARY}\""), "log.level"),
        ("# ping_interval = \"10s\"", format!("ping_interval = \"{CANARY}\""), "limits.ping_interval"),
    ];
    for (from, to, _) in &mistakes {
        edit(folder.path(), from, to);
    }
    let checked = run(folder.path(), &["check"]);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(64), ""));
    let lines: Vec<&str> = checked.stderr.lines().collect();
    assert_eq!(lines.len(), mistakes.len(), "{}", checked.stderr);
    for (_, _, key) in &mistakes {
        let count = lines.iter().filter(|line| line.contains(&format!("proxy.toml: {key}: "))).count();
        assert_eq!(count, 1, "{key}: {}", checked.stderr);
    }
    assert!(lines.iter().all(|line| line.starts_with("countersign: ")), "{}", checked.stderr);
    assert!(!checked.stderr.contains(CANARY), "{}", checked.stderr);
    // What does not check does not serve.
    assert_eq!(run(folder.path(), &["serve"]).code, Some(64));
}

#[test]
fn a_syntax_error_on_the_line_of_a_secret_does_not_show_it() {
    let folder = user_folder();
    edit(folder.path(), "secret = { file = \"certs/client-jwt.key\" }", &format!("secret = \"{CANARY}"));
    let checked = run(folder.path(), &["check"]);
    assert_eq!(checked.code, Some(64));
    assert!(checked.stderr.contains("proxy.toml: ") && checked.stderr.contains("line "), "{checked:?}");
    assert!(!checked.stderr.contains("hunter2"), "{checked:?}");
}

#[test]
fn a_secret_that_is_not_there_is_a_mistake_before_anything_is_bound() {
    let folder = user_folder();
    edit(
        folder.path(),
        "upstream = \"simulator\"",
        "key = { env = \"NOT_SET_KEY\" }\nsecret = { file = \"not-there\" }",
    );
    for command in ["check", "serve"] {
        let refused = run(folder.path(), &[command]);
        assert_eq!(refused.code, Some(64));
        assert!(
            refused.stderr.contains("accounts.kraken_main.key") && refused.stderr.contains("NOT_SET_KEY"),
            "{refused:?}"
        );
    }
}

#[test]
fn a_configuration_file_that_is_not_there_is_a_mistake() {
    let folder = user_folder();
    let refused = run(folder.path(), &["check", "--config", "desk.toml"]);
    assert_eq!(refused.code, Some(64));
    assert!(refused.stderr.contains("desk.toml"), "{refused:?}");
    let lost = run(Folder::new().path(), &["serve"]);
    assert_eq!(lost.code, Some(64));
    assert!(lost.stderr.starts_with("countersign: there is no proxy.toml in this folder"), "{lost:?}");
    assert!(!refused.stderr.contains("in this folder"), "{refused:?}");
}

#[test]
fn wrong_usage_ends_with_64_and_points_to_help() {
    let folder = user_folder();
    for wrong in [
        &["frobnicate"][..],
        &["serve", "--frobnicate"],
        &["token"],
        &["token", "--subject", "bot-a", "--ttl", "soon"],
        &["simulate", "coinbase"],
        &["simulate", "kraken", "--key", "only"],
        &["serve", "--set", CANARY],
    ] {
        let refused = run(folder.path(), wrong);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(64), ""), "{wrong:?}");
        assert!(refused.stderr.contains("--help"), "{refused:?}");
    }
}

#[test]
fn help_teaches_every_command_and_its_options() {
    let folder = Folder::new();
    let all = run(folder.path(), &["--help"]);
    assert_eq!((all.code, all.stderr.as_str()), (Some(0), ""));
    for text in
        COMMANDS.into_iter().chain(["--config", "--set", "--log-format", "--log-level", "Exit codes: 0", "proxy.toml"])
    {
        assert!(all.stdout.contains(text), "{text}");
    }
    for (command, texts) in [
        ("serve", &["--config", "--set"][..]),
        ("demo", &["--keep"]),
        ("check", &["--config"]),
        (
            "certs",
            &["--directory", "--client", "--force", "SSL_CERT_FILE=", "NODE_EXTRA_CA_CERTS=", "REQUESTS_CA_BUNDLE="],
        ),
        ("token", &["--subject", "--scope", "--ttl", "TOKEN=$(countersign token"]),
        ("simulate", &["--port", "--key", "--secret", "--quiet", "kraken, bitfinex", "verifies signatures"]),
        ("run", &["countersign run -- python3 bot.py", "--warn-after"]),
        ("env", &["eval \"$(countersign env)\"", "--for", "--json"]),
        ("status", &["--json", "the breaker is open"]),
        ("account", &["refresh", "reset", "unfreeze", "as the same user"]),
        ("healthcheck", &["exit 0"]),
    ] {
        let help = run(folder.path(), &[command, "--help"]);
        assert_eq!(help.code, Some(0));
        for text in texts {
            assert!(help.stdout.contains(text), "{command} --help does not have {text}:\n{}", help.stdout);
        }
    }
}

// ---- certs, token ---------------------------------------------------------------------------------------------------

#[test]
fn certs_makes_what_is_missing_and_keeps_what_is_there() {
    let folder = user_folder();
    let made = run(folder.path(), &["certs", "--client", "bot-b"]);
    assert_eq!(made.code, Some(0));
    let certs = folder.path().join("certs");
    for (name, mode) in [
        ("ca.pem", 0o644),
        ("ca.key", 0o600),
        ("server.pem", 0o644),
        ("server.key", 0o600),
        ("client-ca.pem", 0o644),
        ("client-ca.key", 0o600),
        ("bot-b.pem", 0o644),
        ("bot-b.key", 0o600),
        ("client-jwt.key", 0o600),
        ("local-keys.key", 0o600),
    ] {
        let facts = fs::metadata(certs.join(name)).unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, mode, "{name}");
    }
    let read = |name: &str| fs::read(certs.join(name)).unwrap();
    let names = ["ca.pem", "server.pem", "bot-b.key", "client-jwt.key", "local-keys.key"];
    let before: Vec<_> = names.map(read).into();
    let kept = run(folder.path(), &["certs", "--client", "bot-b"]);
    assert!(kept.stdout.lines().all(|line| line.ends_with(": kept")), "{kept:?}");
    assert_eq!(names.map(read).to_vec(), before);

    let forced = run(folder.path(), &["certs", "--client", "bot-b", "--force"]);
    assert_eq!(forced.code, Some(0));
    for (name, before) in names.iter().zip(before) {
        assert_ne!(read(name), before, "{name}");
    }

    let refused = run(folder.path(), &["certs", "--client", "../bot"]);
    assert_eq!(refused.code, Some(64));
    assert!(refused.stderr.contains("cannot be a client's name"), "{refused:?}");
}

#[test]
fn a_token_is_printed_alone_and_says_what_was_asked() {
    let folder = user_folder();
    assert_eq!(run(folder.path(), &["certs"]).code, Some(0));
    let token = token(folder.path(), &["--subject", "bot-a", "--scope", "read,trade", "--ttl", "90s"]);
    let claims = claims(&token);
    assert_eq!((&claims["sub"], &claims["aud"]), (&"bot-a".into(), &"countersign".into()), "{claims}");
    assert_eq!(claims["scope"], "read trade");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 90);
    assert!(house::now().seconds().abs_diff(claims["iat"].as_u64().unwrap()) < 60);
}

#[test]
fn a_token_without_a_scope_limits_nothing_and_lasts_15_minutes() {
    let folder = user_folder();
    assert_eq!(run(folder.path(), &["certs"]).code, Some(0));
    let claims = claims(&token(folder.path(), &["--subject", "bot-a"]));
    assert_eq!(claims.get("scope"), None);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 15 * 60);
}

#[test]
fn a_token_that_would_be_refused_is_not_made() {
    let folder = user_folder();
    let early = run(folder.path(), &["token", "--subject", "bot-a"]);
    assert_eq!((early.code, early.stdout.as_str()), (Some(64), ""));
    assert!(early.stderr.contains("countersign certs"), "what to do about the missing secret: {early:?}");
    assert_eq!(run(folder.path(), &["certs"]).code, Some(0));
    for (arguments, advice) in [
        (&["--subject", "bot-a", "--scope", "read,everything"][..], "--scope: the rights are public, read, trade"),
        (&["--subject", "bot-a", "--ttl", "48h"], "--ttl: must be from 1 second to `clients.jwt.lifetime_max`"),
        (&["--subject", "bot-a", "--ttl", "0s"], "--ttl: must be from 1 second to `clients.jwt.lifetime_max`"),
        (&["--subject", "anonymous"], "--subject"),
        (&["--subject", "bot a"], "--subject"),
    ] {
        let refused = run(folder.path(), &[&["token"], arguments].concat());
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(64), ""), "{arguments:?}");
        assert!(refused.stderr.contains(advice), "{refused:?}");
    }
}

// ---- simulate -------------------------------------------------------------------------------------------------------

/// With the example of docs.kraken.com, "Spot REST authentication": a signature that is not of our making.
#[tokio::test]
async fn simulate_takes_a_good_signature_and_refuses_a_bad_one() {
    const SECRET: &str = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==";
    const BODY: &str = "nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25";
    const SIGNATURE: &str = "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ==";
    for signal in [Signal::INT, Signal::TERM] {
        let folder = Folder::new();
        let arguments = ["simulate", "kraken", "--port", "0", "--key", "KEY", "--secret", SECRET];
        let mut exchange = Program::start(&mut countersign(folder.path(), &arguments));
        let line = exchange.line_where(|line| line.starts_with("listening  https://"));
        let address: std::net::SocketAddr = line.rsplit('/').next().unwrap().parse().unwrap();
        let trust = exchange.line_where(|line| line.starts_with("trust "));
        let authority = folder.path().join(trust.trim_start_matches("trust").trim());
        exchange.line_where(|line| line.starts_with("Ctrl-C"));

        let forged = BODY.replace("volume=1.25", "volume=9.25");
        let answer = post(&authority, address, "/0/private/AddOrder", SIGNATURE, &forged).await;
        assert!(answer.contains("EAPI:Invalid signature"), "{answer}");
        exchange.line_where(|line| line.contains("POST /0/private/AddOrder"));
        exchange.line_where(|line| line.contains("WRONG: "));
        let answer = post(&authority, address, "/0/private/AddOrder", SIGNATURE, BODY).await;
        assert!(answer.contains(r#""error":[]"#) && answer.contains("txid"), "{answer}");
        exchange.line_where(|line| line.contains("POST /0/private/AddOrder"));

        exchange.signal(signal);
        assert_eq!(exchange.ended(PATIENCE), Some(0));
        assert!(!exchange.output().contains(SECRET) && !exchange.output().contains(SIGNATURE));
    }
}

/// A user and a key of its choice get a token that ends when it was told to, and neither is shown afterwards.
#[tokio::test]
async fn simulate_projectx_logs_its_user_in_and_shows_no_token() {
    let folder = Folder::new();
    let arguments = ["simulate", "projectx", "--key", "SIMUSER", "--secret", CANARY, "--token-lifetime", "60"];
    let mut exchange = Program::start(&mut countersign(folder.path(), &arguments));
    let line = exchange.line_where(|line| line.starts_with("listening  https://") && line.ends_with("/api"));
    let address: std::net::SocketAddr = line.trim_end_matches("/api").rsplit('/').next().unwrap().parse().unwrap();
    let trust = exchange.line_where(|line| line.starts_with("trust "));
    let authority = folder.path().join(trust.trim_start_matches("trust").trim());
    exchange.line_where(|line| line.starts_with("Ctrl-C"));

    let mut stream = tls(&authority, address).await;
    let body = format!(r#"{{"userName":"SIMUSER","apiKey":"{CANARY}"}}"#);
    let head = "host: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let request = format!("POST /api/Auth/loginKey HTTP/1.1\r\n{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let token = answer.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    assert!(answer.contains(r#""success":true"#) && token.split('.').count() == 3, "{answer}");
    exchange.line_where(|line| line.contains("POST /api/Auth/loginKey"));

    let mut stream = tls(&authority, address).await;
    let request = format!("GET /hubs/user?access_token={token} HTTP/1.1\r\n{head}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    exchange.line_where(|line| line.contains("GET /hubs/user?access_token="));
    exchange.signal(Signal::INT);
    assert_eq!(exchange.ended(PATIENCE), Some(0));
    assert!(!exchange.output().contains(CANARY) && !exchange.output().contains(token));
}

#[test]
fn a_simulator_takes_nothing_from_the_proxy_in_its_folder() {
    let folder = user_folder();
    let mut exchange = Program::start(&mut countersign(folder.path(), &["simulate", "bitfinex", "--quiet"]));
    exchange.line_where(|line| line.starts_with("secret "));
    let proxy = Serving::open(folder.path(), &[]);
    assert_eq!(proxy.ask("/readyz").0, 200);
}

#[test]
fn a_simulator_says_why_it_does_not_start() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = run(folder.path(), &["simulate", "bitfinex", "--port", &port]);
    assert_eq!(refused.code, Some(64));
    assert!(refused.stderr.contains("--port") && refused.stderr.contains("choose another"), "{refused:?}");

    let secret = ["simulate", "kraken", "--key", "KEY", "--secret", CANARY];
    let refused = run(folder.path(), &secret);
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("--secret") && refused.stderr.contains("base64"), "{refused:?}");
    assert!(!refused.stderr.contains(CANARY));
}

#[test]
fn a_reader_of_the_log_that_stalls_is_not_waited_for() {
    let folder = user_folder();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let arguments = ["serve", "--log-format", "json", "--set", "admin.address=127.0.0.1:0", "--set"];
    let listen = format!("listen.address={address}");
    // Nobody reads what it says: the pipe holds 64 KiB.
    let mut proxy = countersign(folder.path(), &[&arguments[..], &[&listen]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let refused = || {
        let mut socket = TcpStream::connect(&address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(b"this is no TLS\r\n")?;
        // Each is a line of more than a hundred bytes in the log, and then the end of the connection.
        socket.read_to_end(&mut Vec::new())
    };
    while refused().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
        assert!(Instant::now() < deadline, "it does not listen");
    }
    for _ in 0..1_500 {
        if let Err(error) = refused() {
            let is_over = !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            assert!(is_over, "the proxy waits for the reader of its log");
        }
    }
    proxy.kill().unwrap();
    proxy.wait().unwrap();
}

// ---- helpers --------------------------------------------------------------------------------------------------------

/// Changes the first place of proxy.toml that reads like this.
fn edit(folder: &Path, from: &str, to: &str) {
    let file = folder.join("proxy.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "proxy.toml has no {from}");
    fs::write(&file, text.replacen(from, to, 1)).unwrap();
}

fn token(folder: &Path, arguments: &[&str]) -> String {
    let minted = run(folder, &[&["token"], arguments].concat());
    assert_eq!((minted.code, minted.stderr.as_str()), (Some(0), ""));
    let token = minted.stdout.strip_suffix('\n').unwrap();
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{token}");
    token.to_owned()
}

fn claims(token: &str) -> Value {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    serde_json::from_slice(&BASE64URL.decode(parts[1]).unwrap()).unwrap()
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

async fn tls(authority: &Path, address: std::net::SocketAddr) -> TlsStream<tokio::net::TcpStream> {
    countersign::tls::install_crypto();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

/// A signed request to a simulated Kraken: its answer, head and body.
async fn post(authority: &Path, address: std::net::SocketAddr, path: &str, signature: &str, body: &str) -> String {
    let mut stream = tls(authority, address).await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\napi-key: KEY\r\napi-sign: {signature}\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}
