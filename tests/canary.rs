//! Known secrets are planted wherever a secret can be, a real process is run and mistreated, and everything that left
//! it is searched for them.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by where it panics")]

mod canaries;
mod house;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use canaries::{API_KEY, API_SECRET, Exchange, Proxy, Secrets, files_below, program};
use countersign::simulator::{MintFault, SocketAction};
use futures_util::{SinkExt as _, StreamExt as _};
use house::{Folder, PATIENCE};
use std::process::Output;
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Message;

#[test]
fn the_search_finds_a_planted_secret_in_every_spelling() {
    let secret = "a/secret+that is=planted";
    let mut secrets = Secrets::default();
    secrets.plant("it", secret.as_bytes());
    for spelling in [
        secret.to_owned(),
        STANDARD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        hex::encode(secret),
        hex::encode_upper(secret),
        secret.replace('/', "\\/"),
        "a%2Fsecret%2Bthat%20is%3Dplanted".to_owned(),
        "a%2fsecret%2bthat%20is%3Dplanted".to_owned(),
        format!("{:?}", secret.as_bytes()),
    ] {
        assert!(!secrets.seen_in(format!("before{spelling}behind").as_bytes()).is_empty(), "{spelling}");
    }
    assert_eq!(secrets.seen_in(b"a/secret+that is=planned"), Vec::<&str>::new());
}

fn login(token: &str) -> String {
    format!(r#"{{"type":"auth","token":"{token}"}}"#)
}

fn with_id(id: u32, method: &str, parameters: &str) -> String {
    format!(r#"{{"method":"{method}","params":{{{parameters}}},"req_id":{id}}}"#)
}

const ORDER: &str = r#""order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":1.0,"limit_price":100.1"#;

/// Good sessions and bad ones, and an exchange that does everything wrong. What clients were told comes back.
async fn mistreat(proxy: &Proxy, exchange: &Exchange, secrets: &mut Secrets) -> Vec<Vec<u8>> {
    let quarter = Duration::from_secs(900);
    let good = proxy.token("bot-a", &proxy.jwt_secret(), quarter);
    let viewer = proxy.token("viewer", &proxy.jwt_secret(), quarter);
    let nobody = proxy.token("nobody", &proxy.jwt_secret(), quarter);
    let forged = proxy.token("bot-a", b"a secret of at least thirty-two bytes, not ours", quarter);
    for (name, token) in [("good", &good), ("viewer's", &viewer), ("nobody's", &nobody), ("forged", &forged)] {
        secrets.plant(&format!("{name} client token"), token.as_bytes());
        exchange.running.record().forbid(token);
        let signature = token.rsplit('.').next().unwrap();
        secrets.plant(&format!("{name} client token's signature"), signature.as_bytes());
        exchange.running.record().forbid(signature);
    }
    let faults = exchange.running.faults();
    let mut told = Vec::new();

    faults.set(|switches| switches.mint = MintFault::Error("EAPI:Invalid key".to_owned() + API_KEY));
    told.push(proxy.talk(&[login(&good)], "connected").await);
    faults.clear();
    // The proxy waits a second at most before it asks the exchange again.
    let started = Instant::now();
    loop {
        let session =
            [login(&good), with_id(1, "add_order", ORDER), with_id(2, "subscribe", r#""channel":"executions""#)];
        let answer = proxy.talk(&session, r#""req_id":2"#).await;
        let is_in = String::from_utf8_lossy(&answer).contains("connected");
        told.push(answer);
        if is_in {
            break;
        }
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    told.push(proxy.talk(&[login(&viewer), with_id(3, "add_order", ORDER)], r#""req_id":3"#).await);
    for bad in [&nobody, &forged] {
        told.push(proxy.talk(&[login(bad)], "connected").await);
    }
    for first in [
        format!(r#"{{"type":"login","token":"{good}"}}"#),
        format!(r#"{{"type":"auth","token":"{good}","token":"{good}"}}"#),
        format!(r#"{{"type":"auth","token":["{good}"]}}"#),
        format!(r#"{{"type":"auth","token":"{good}x"}}"#),
        good.clone(),
    ] {
        told.push(proxy.talk(&[first], "connected").await);
    }
    // A client's own token where the exchange's has its place, and where nothing of the kind has one.
    let mine = format!(r#""channel":"executions","token":"{good}""#);
    told.push(proxy.talk(&[login(&good), with_id(4, "subscribe", &mine)], r#""req_id":4"#).await);
    for said in [
        format!(r#"{{"method":"ping","token":"{good}","req_id":5}}"#),
        format!(r#"{{"method":"{good}","req_id":5}}"#),
        format!(r#"{{"method":"ping","req_id":5,"req_id":"{good}"}}"#),
        format!(r#"{{"method":"ping","req_id":5}}{good}"#),
        format!(r#"{{"method":"subscribe","params":{{"channel":"{good}"}},"req_id":5}}"#),
    ] {
        told.push(proxy.talk(&[login(&good), said], "countersign").await);
    }
    exchange.running.exchange().invalidate_tokens();
    let again = [login(&good), with_id(6, "subscribe", r#""channel":"balances""#)];
    told.push(proxy.talk(&again, r#""req_id":6"#).await);
    exchange.running.exchange().invalidate_tokens();
    told.push(proxy.talk(&[login(&good), with_id(7, "add_order", ORDER)], r#""req_id":7"#).await);

    faults.set(|switches| switches.echo = true);
    // The first echo is plain, the second has its slashes escaped.
    let echoed = proxy.talk(&[login(&good), with_id(8, "subscribe", r#""channel":"executions","x":"/""#)], r"\/").await;
    assert_eq!(
        echoed.split(|byte| *byte == b'\n').filter(|line| line.windows(8).any(|it| it == b"********")).count(),
        2
    );
    told.push(echoed);
    faults.clear();
    for action in [SocketAction::InvalidUtf8, SocketAction::Close { code: 4008, reason: API_KEY.to_owned() }] {
        let mut socket = proxy.socket().await;
        socket.send(Message::text(login(&good))).await.unwrap();
        let mut heard = Vec::new();
        while let Some(Ok(message)) = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
            if message.to_text().is_ok_and(|text| text.contains("connected")) {
                faults.act(action.clone());
            }
            heard.extend_from_slice(format!("{message:?}").as_bytes());
        }
        told.push(heard);
    }

    let upgrade = |path: &str, header: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n\r\n"
        )
    };
    for request in [
        upgrade("/kraken/v2", &format!("Authorization: Bearer {forged}")),
        upgrade("/kraken/v2", &format!("Authorization: Bearer {nobody}")),
        upgrade("/kraken/v2", &format!("Authorization: Basic {good}")),
        upgrade(&format!("/kraken/v2?token={good}"), "X-Nothing: 1"),
        upgrade(&format!("/{good}"), "X-Nothing: 1"),
        upgrade("/kraken/v2", &format!("Countersign-Account: {good}\r\nAuthorization: Bearer {good}")),
        upgrade("/kraken/v2", &format!("Origin: https://{good}")),
        format!("GET /kraken/v2 HTTP/1.1\r\nHost: {good}\r\n\r\n"),
        format!("{good} / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /kraken/v2 HTTP/1.1\r\nHost: localhost\r\n{good} bad header\r\n\r\n"),
    ] {
        let answer = proxy.request(&request).await;
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{request}\n{}", String::from_utf8_lossy(&answer));
        told.push(answer);
    }
    for path in ["/readyz", "/healthz", "/metrics", "/status"] {
        told.push(proxy.admin(path).await);
    }
    told
}

async fn nothing_secret_leaves_a_process_that_logs_as(format: &str) {
    let exchange = Exchange::open().await;
    let proxy = Proxy::start(format, &exchange).await;
    let mut secrets = Secrets::default();
    secrets.plant("API key", API_KEY.as_bytes());
    secrets.plant("API secret", API_SECRET.as_bytes());
    secrets.plant("API secret decoded", &STANDARD.decode(API_SECRET).unwrap());
    let jwt_secret = proxy.jwt_secret();
    secrets.plant("secret of client tokens", jwt_secret.trim_ascii());
    let told = mistreat(&proxy, &exchange, &mut secrets).await;

    let (tokens, signatures) = (exchange.tokens(), exchange.signatures());
    assert!(tokens.len() >= 3, "{} tokens were sold", tokens.len());
    assert_eq!(tokens.len() as u64, exchange.running.record().tokens_minted());
    assert!(signatures.len() >= tokens.len());
    for token in &tokens {
        secrets.plant("exchange's token", token.as_bytes());
    }
    for signature in &signatures {
        secrets.plant("signature", signature.as_bytes());
    }
    secrets.assert_not_in("the command line", &proxy.command_line());
    let (printed, folder) = proxy.stop();
    for answer in &told {
        secrets.assert_not_in(&format!("what a client was told: {}", String::from_utf8_lossy(answer)), answer);
    }
    let closed = |text: &[u8]| memchr::memmem::find_iter(text, "session closed").count();
    for (name, text) in &printed {
        secrets.assert_not_in(&format!("{name}\n{}", String::from_utf8_lossy(text)), text);
    }
    assert!(printed.iter().map(|(_, text)| closed(text)).sum::<usize>() >= 20, "the log was not searched");
    let state = files_below(&folder.path().join("state"));
    assert!(!state.is_empty(), "the state folder was not searched");
    for path in state {
        secrets.assert_not_in(&path.display().to_string(), &std::fs::read(&path).unwrap());
    }
    assert_eq!(exchange.running.record().leaks(), 0, "{:?}", exchange.running.record().verdicts());
}

#[tokio::test]
async fn nothing_secret_leaves_a_process_that_logs_json() {
    nothing_secret_leaves_a_process_that_logs_as("json").await;
}

#[tokio::test]
async fn nothing_secret_leaves_a_process_that_logs_text() {
    nothing_secret_leaves_a_process_that_logs_as("text").await;
}

fn check(arguments: &[&str], variables: &[(&str, &str)], toml: &str) -> Output {
    let folder = Folder::new();
    let file = folder.path().join("proxy.toml");
    std::fs::write(&file, toml).unwrap();
    let mut command = program();
    command.args(["check", "--config"]).arg(&file).args(arguments).envs(variables.iter().copied());
    command.output().unwrap()
}

#[test]
fn a_mistake_with_a_secret_in_it_is_told_without_the_secret() {
    let mut secrets = Secrets::default();
    secrets.plant("API secret", API_SECRET.as_bytes());
    secrets.plant("digits", b"12345678901234567890");
    let account = "[accounts.kraken_main]\nvenue = \"kraken\"\n";
    let key = "COUNTERSIGN__ACCOUNTS__KRAKEN_MAIN__SECRET";
    let cases: Vec<Output> = [
        format!("{account}secret = \"{API_SECRET}\"\n"),
        format!("{account}secret = \"{API_SECRET}\n"),
        format!("{account}secret = {API_SECRET}\n"),
        format!("{account}secret = {{ value = \"{API_SECRET}\" }}\n"),
        format!("{account}secret = {{ env = \"{API_SECRET}\" }}\n"),
        format!("{account}secret = {{ file = \"{API_SECRET}\" }}\n"),
        format!("{account}secret = 12345678901234567890\n"),
        format!("{account}token = \"{API_SECRET}\"\n"),
        format!("{account}upstream = \"{API_SECRET}\"\n"),
        format!("{account}upstream = {{ ws = \"wss://user:{API_SECRET}@host/?{API_SECRET}\" }}\n"),
        format!("{account}nonce_unit = \"{API_SECRET}\"\n"),
        format!("{account}\"{API_SECRET}\" = 1\n"),
        format!("[accounts.\"{API_SECRET}\"]\nvenue = \"kraken\"\n"),
        format!("[listen]\naddress = \"{API_SECRET}\"\n"),
        format!("[[grants]]\nclient = \"{API_SECRET}\"\naccount = \"{API_SECRET}\"\nscope = [\"{API_SECRET}\"]\n"),
        format!("[clients.jwt]\nsecret = \"{API_SECRET}\"\nleeway = \"{API_SECRET}\"\n"),
        format!("[limits]\nping_interval = \"{API_SECRET}\"\nhead_bytes_max = 12345678901234567890\n"),
        API_SECRET.to_owned(),
    ]
    .iter()
    .map(|toml| check(&[], &[], toml))
    .chain([
        check(&[], &[(key, API_SECRET)], account),
        check(&[], &[(key, "12345678901234567890")], account),
        check(&["--set", &format!("accounts.kraken_main.secret={API_SECRET}")], &[], account),
        check(&["--set", &format!("listen.address={API_SECRET}")], &[], account),
        check(&["--set", API_SECRET.trim_end_matches('=')], &[], account),
    ])
    .collect();
    for (index, output) in cases.iter().enumerate() {
        assert_eq!(output.status.code(), Some(64), "case {index}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stderr.is_empty(), "case {index} says nothing");
        for printed in [&output.stdout, &output.stderr] {
            secrets.assert_not_in(&format!("case {index}: {}", String::from_utf8_lossy(printed)), printed);
        }
    }
}
