//! Client libraries as their users have them, unmodified, trade through the proxy over TLS on both venues.
//!
//! The bots are in `tests/clients`: plain scripts that know nothing of the proxy but its address and authority.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod bot;
mod house;
mod libraries;

use bot::Ended;
use countersign::certs::{self, Wanted};
use countersign::fresh::UnixMillis;
use countersign::simulator::{self, Direction, Kind, Options, Record, SimKey};
use countersign::tls::{Acceptor, Certificates, ServerSettings};
use house::{Folder, House};
use libraries::{Library, is_skipped, scripts};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;

/// How a bot comes in.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// A path of ours, a token in the first message.
    Token,
    /// A path of ours, a client certificate, no message.
    Certificate,
    /// The exchange's own name, a client certificate, and the exchange's own protocol from the first message on.
    OwnName,
}

#[tokio::test]
async fn websockets_trades_by_a_token_in_its_first_message() {
    if !is_skipped("websockets_trades_by_a_token_in_its_first_message") {
        trade(&libraries::websockets(), Way::Token).await;
    }
}

#[tokio::test]
async fn websockets_trades_by_a_client_certificate() {
    if !is_skipped("websockets_trades_by_a_client_certificate") {
        trade(&libraries::websockets(), Way::Certificate).await;
    }
}

#[tokio::test]
async fn websockets_trades_under_the_exchange_s_own_name() {
    if !is_skipped("websockets_trades_under_the_exchange_s_own_name") {
        trade(&libraries::websockets(), Way::OwnName).await;
    }
}

#[tokio::test]
async fn websockets_is_told_that_a_token_is_bad() {
    if !is_skipped("websockets_is_told_that_a_token_is_bad") {
        be_refused(&libraries::websockets()).await;
    }
}

#[tokio::test]
async fn aiohttp_trades_by_a_token_in_its_first_message() {
    if !is_skipped("aiohttp_trades_by_a_token_in_its_first_message") {
        trade(&libraries::aiohttp(), Way::Token).await;
    }
}

#[tokio::test]
async fn aiohttp_trades_by_a_client_certificate() {
    if !is_skipped("aiohttp_trades_by_a_client_certificate") {
        trade(&libraries::aiohttp(), Way::Certificate).await;
    }
}

#[tokio::test]
async fn aiohttp_trades_under_the_exchange_s_own_name() {
    if !is_skipped("aiohttp_trades_under_the_exchange_s_own_name") {
        trade(&libraries::aiohttp(), Way::OwnName).await;
    }
}

#[tokio::test]
async fn aiohttp_is_told_that_a_token_is_bad() {
    if !is_skipped("aiohttp_is_told_that_a_token_is_bad") {
        be_refused(&libraries::aiohttp()).await;
    }
}

#[tokio::test]
async fn node_ws_trades_by_a_token_in_its_first_message() {
    if !is_skipped("node_ws_trades_by_a_token_in_its_first_message") {
        trade(&libraries::ws(), Way::Token).await;
    }
}

#[tokio::test]
async fn node_ws_trades_by_a_client_certificate() {
    if !is_skipped("node_ws_trades_by_a_client_certificate") {
        trade(&libraries::ws(), Way::Certificate).await;
    }
}

#[tokio::test]
async fn node_ws_trades_under_the_exchange_s_own_name() {
    if !is_skipped("node_ws_trades_under_the_exchange_s_own_name") {
        trade(&libraries::ws(), Way::OwnName).await;
    }
}

#[tokio::test]
async fn node_ws_is_told_that_a_token_is_bad() {
    if !is_skipped("node_ws_is_told_that_a_token_is_bad") {
        be_refused(&libraries::ws()).await;
    }
}

#[test]
fn without_python_the_test_says_what_to_do() {
    let missing = libraries::environment("missing", "no-such-python3", "websockets==16.0", "websockets");
    let advice = missing.expect_err("there is no such interpreter");
    assert!(advice.contains("install Python 3") && advice.contains("COUNTERSIGN_SKIP_CLIENTS=1"), "{advice}");
}

#[tokio::test]
async fn our_signatures_are_those_of_an_independent_program() {
    if is_skipped("our_signatures_are_those_of_an_independent_program") {
        return;
    }
    let secrets = Secrets {
        kraken: "a3Jha2VuIHNlY3JldCBvZiB0aGUgc2ltdWxhdG9yLCA2NCBieXRlcyBsb25nIGFzIHRoZSByZWFsIG9uZXMu",
        bitfinex: "bitfinexSecretOfTheSimulator0123456789abcde",
    };
    let folder = Folder::new();
    let tls = exchange_certificates(folder.path());
    let kraken_keys = vec![SimKey::new("SIMKRAKEN", secrets.kraken)];
    let kraken = simulator::kraken::start(Options::kraken(tls.clone(), kraken_keys)).await.unwrap();
    let bitfinex_keys = vec![SimKey::new("SIMBITFINEX", secrets.bitfinex)];
    let bitfinex = simulator::bitfinex::start(Options::bitfinex(tls, bitfinex_keys)).await.unwrap();
    write_private(&folder.path().join("kraken.key"), "SIMKRAKEN");
    write_private(&folder.path().join("kraken.secret"), secrets.kraken);
    write_private(&folder.path().join("bitfinex.key"), "SIMBITFINEX");
    write_private(&folder.path().join("bitfinex.secret"), secrets.bitfinex);

    let place = folder.path().display();
    let house = House::from(&format!(
        r#"
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[clients.jwt]
secret = {{ file = "certs/client-jwt.key" }}
[accounts.kraken_main]
venue = "kraken"
key = {{ file = "{place}/kraken.key" }}
secret = {{ file = "{place}/kraken.secret" }}
upstream = {{ rest = "https://api.kraken.com", ws = "wss://ws-auth.kraken.com", roots = "{place}/ca.pem", addresses = ["{kraken}"], local = true }}
[accounts.bitfinex_main]
venue = "bitfinex"
key = {{ file = "{place}/bitfinex.key" }}
secret = {{ file = "{place}/bitfinex.secret" }}
upstream = {{ rest = "https://api.bitfinex.com", ws = "wss://api.bitfinex.com", roots = "{place}/ca.pem", addresses = ["{bitfinex}"], local = true }}
[[grants]]
client = "jwt:bot-a"
account = "kraken_main"
scope = ["read", "trade"]
[[grants]]
client = "jwt:bot-a"
account = "bitfinex_main"
scope = ["read", "trade"]
"#,
        kraken = kraken.address(),
        bitfinex = bitfinex.address(),
    ))
    .await;

    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    // The token is fetched when it is first used.
    bot.say(r#"{"method":"subscribe","params":{"channel":"balances"},"req_id":1}"#).await;
    bot.json_where(|it| it["req_id"] == 1 && it["success"] == true).await;
    let mut bot = house.logged_in("/bitfinex/v2", "bot-a").await;
    bot.json_where(|it| it["event"] == "auth" && it["status"] == "OK").await;

    let minted = minted(kraken.record());
    let frames = bitfinex.record().frames_received();
    let frame = frames.iter().find(|frame| frame.contains("\"event\":\"auth\"")).unwrap();
    let signed = json!({
        "kraken": {"secret": secrets.kraken, "path": minted.path, "body": minted.body, "signature": minted.signature},
        "bitfinex": {"secret": secrets.bitfinex, "frame": frame},
    });
    assert_eq!(verify(&signed).await, (true, String::new()));
    for record in [kraken.record(), bitfinex.record()] {
        assert_flawless(record);
    }

    // The verifier is not one that says yes to everything.
    let mut forged = signed.clone();
    forged["kraken"]["body"] = format!("{}&otp=1", minted.body).into();
    forged["bitfinex"]["secret"] = "another".into();
    let (is_good, told) = verify(&forged).await;
    assert!(!is_good && told.contains("API-Sign") && told.contains("authSig"), "{told}");
}

/// docs.kraken.com, "Spot REST authentication", the example.
#[tokio::test]
async fn the_independent_program_agrees_with_kraken_s_own_example() {
    if is_skipped("the_independent_program_agrees_with_kraken_s_own_example") {
        return;
    }
    let example = json!({"kraken": {
        "secret": "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==",
        "path": "/0/private/AddOrder",
        "body": "nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25",
        "signature": "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ==",
    }});
    assert_eq!(verify(&example).await, (true, String::new()));
}

/// A library trades on both venues, and the exchanges find nothing wrong with what reached them.
async fn trade(library: &Library, way: Way) {
    let house = House::open().await;
    let token = house.token("bot-a");
    for record in [house.kraken(), house.bitfinex()] {
        record.forbid(&token);
        // What a bot under the exchange's own name sends where its credentials would stand.
        record.forbid("no-token-here");
        record.forbid("no-key-here");
    }
    let steps = run(library, &house, "kraken", way, &token).await;
    assert_steps(&steps, KRAKEN_STEPS, way);
    for step in ["subscribe 1", "subscribe 2", "add_order 3", "cancel_order 4"] {
        assert_eq!(got(&steps, step)["success"], true, "{steps:?}");
    }
    let order = &got(&steps, "add_order 3")["result"]["order_id"];
    assert!(order.is_string(), "{steps:?}");
    for step in ["new", "canceled"] {
        let told = got(&steps, step)["data"].as_array().unwrap();
        assert!(told.iter().any(|it| it["order_id"] == *order && it["exec_type"] == step), "{steps:?}");
    }

    let steps = run(library, &house, "bitfinex", way, &token).await;
    assert_steps(&steps, BITFINEX_STEPS, way);
    assert_eq!(got(&steps, "auth")["status"], "OK", "{steps:?}");
    assert_eq!(got(&steps, "on-req")[2][6], "SUCCESS", "{steps:?}");
    assert_eq!(got(&steps, "oc-req")[2][6], "SUCCESS", "{steps:?}");
    assert_eq!(got(&steps, "canceled")[2][0], got(&steps, "new")[2][0], "{steps:?}");

    for record in [house.kraken(), house.bitfinex()] {
        assert_flawless(record);
    }
}

/// Without a good token, a library is told so in its own terms, and no exchange hears of it.
async fn be_refused(library: &Library) {
    let house = House::open().await;
    let steps = run(library, &house, "kraken", Way::Token, "not.a.token").await;
    assert_eq!(steps, [json!({"step": "closed", "code": 1008, "reason": "Invalid token"})]);
    house.assert_nothing_upstream();
}

const KRAKEN_STEPS: &[&str] = &[
    "connected",
    "subscribe 1",
    "subscribe 2",
    "balances",
    "add_order 3",
    "new",
    "cancel_order 4",
    "canceled",
    "done",
];
const BITFINEX_STEPS: &[&str] =
    &["connected", "auth", "wallets", "orders", "on-req", "new", "oc-req", "canceled", "done"];

fn assert_steps(lines: &[Value], wanted: &[&str], way: Way) {
    // Under the exchange's own name there is no word of ours.
    let wanted: Vec<&str> = wanted.iter().copied().filter(|step| *step != "connected" || way != Way::OwnName).collect();
    let steps: Vec<&str> = lines.iter().filter_map(|line| line["step"].as_str()).collect();
    assert_eq!(steps, wanted, "{lines:?}");
}

fn got<'a>(lines: &'a [Value], step: &str) -> &'a Value {
    &lines.iter().find(|line| line["step"] == step).unwrap_or_else(|| panic!("no {step}: {lines:?}"))["got"]
}

/// Nothing to complain of: no wrong signature, no nonce out of order, nothing that was forbidden.
fn assert_flawless(record: &Record) {
    assert_eq!(record.verdicts(), Vec::<String>::new());
    assert_eq!((record.nonce_errors(), record.signature_errors(), record.leaks()), (0, 0, 0));
    assert!(record.bytes_received() > 0, "the exchange was never reached");
}

/// Runs a bot to its end: the lines that it printed.
async fn run(library: &Library, house: &House, venue: &str, way: Way, token: &str) -> Vec<Value> {
    let port = house.address().port();
    let certs = house.certs();
    let mut command = tokio::process::Command::new(&library.program);
    command.arg(&library.script).arg(venue).env("CA", certs.join("ca.pem")).kill_on_drop(true);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    if way == Way::OwnName {
        let (host, path) =
            if venue == "kraken" { ("ws-auth.kraken.com", "/v2") } else { ("api.bitfinex.com", "/ws/2") };
        command.env("URL", format!("wss://{host}:{port}{path}")).env("DIAL", house.address().to_string());
    } else {
        command.env("URL", format!("wss://localhost:{port}/{venue}/v2"));
    }
    if way == Way::Token {
        command.env("TOKEN", token);
    } else {
        command.env("CERT", certs.join("bot-a.pem")).env("KEY", certs.join("bot-a.key"));
    }
    let scene = || format!("at {venue}: {:?}, {:?}", house.kraken().verdicts(), house.bitfinex().verdicts());
    let Ended { said, complaints, .. } = bot::finish(command, scene).await;
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty(), "{complaints}");
    lines
}

struct Secrets {
    kraken: &'static str,
    bitfinex: &'static str,
}

/// A token request as the simulated Kraken received it.
struct Minted {
    path: String,
    body: String,
    signature: String,
}

fn minted(record: &Record) -> Minted {
    let entries = record.snapshot();
    let found = entries.iter().find_map(|entry| match &entry.kind {
        Kind::Request { path, .. }
            if entry.direction == Direction::Received && path.ends_with("/GetWebSocketsToken") =>
        {
            Some((entry, path))
        }
        _ => None,
    });
    let (entry, path) = found.expect("a token was asked for");
    let text = entry.text();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let signature = head.lines().find_map(|line| line.strip_prefix("api-sign: ")).unwrap();
    Minted { path: path.clone(), body: body.to_owned(), signature: signature.to_owned() }
}

/// Asks the Python program whether signatures are right: whether they are, and what it said.
async fn verify(facts: &Value) -> (bool, String) {
    let mut command = tokio::process::Command::new("python3");
    command.arg(scripts().join("verify.py")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("install Python 3, or set COUNTERSIGN_SKIP_CLIENTS=1");
    let mut input = child.stdin.take().unwrap();
    input.write_all(facts.to_string().as_bytes()).await.unwrap();
    drop(input);
    let output = tokio::time::timeout(house::PATIENCE, child.wait_with_output()).await.expect("it hangs").unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// Certificates for the exchanges' own names, signed by an authority that only this test trusts.
fn exchange_certificates(folder: &Path) -> Acceptor {
    let names = ["api.kraken.com", "ws-auth.kraken.com", "api.bitfinex.com"].map(str::to_owned).to_vec();
    let wanted = Wanted { directory: folder.to_owned(), names, clients: Vec::new(), is_forced: false };
    let now: UnixMillis = house::now();
    countersign::tls::install_crypto();
    certs::ensure(&wanted, now).unwrap();
    let certificates = Certificates::Directory(folder.to_owned());
    ServerSettings { certificates, client_authority: None, client_revocations: None }.load(now).unwrap()
}

fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
