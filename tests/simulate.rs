//! `countersign simulate` as a user runs it: what it takes, what it shows, how it ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod commands_stage;
mod house;
mod program;

use commands_stage::{CANARY, tls};
use house::Folder;
use program::{PATIENCE, Program, Serving, countersign, run, user_folder};
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
