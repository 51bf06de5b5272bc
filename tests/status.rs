//! What the admin listener tells of accounts and has done to them, and the commands in front of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod house;
mod program;

use countersign::cli::assemble;
use countersign::server::Threads;
use countersign::simulator::Kind;
use house::{Folder, House, status_of};
use program::{PATIENCE, Serving, run};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

// ---- the listener ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_status_tells_of_every_account_and_of_the_process() {
    let house = House::with(PLAIN).await;
    let told = status(&house).await;
    let accounts: Vec<&str> =
        told["accounts"].as_array().unwrap().iter().map(|it| it["account"].as_str().unwrap()).collect();
    assert_eq!(accounts, ["bitfinex_main", "feed", "kraken_main"]);
    assert_eq!((&told["sessions"], &told["draining"]), (&Value::from(0), &Value::Bool(false)));
    assert_eq!(told["countersign"], env!("CARGO_PKG_VERSION"));
    assert!(told["uptime_s"].is_u64() && told["pid"].is_u64());
    let kraken = account(&told, "kraken_main");
    assert_eq!((&kraken["venue"], &kraken["token"]["state"]), (&Value::from("kraken"), &Value::from("absent")));
    assert_eq!(kraken["lane"], serde_json::json!({"unit": "ns", "frozen": false, "reserved": null}));
    let bitfinex = account(&told, "bitfinex_main");
    assert_eq!((&bitfinex["token"], &bitfinex["breaker"]), (&Value::Null, &Value::Null), "its logins need no token");
    assert_eq!(bitfinex["lane"]["unit"], "us");
    assert_eq!(account(&told, "feed")["status"], "no_keys");

    let _bot = house.logged_in("/kraken/v2", "bot-a").await;
    let told = status(&house).await;
    assert_eq!((&told["sessions"], &told["connections"]), (&Value::from(1), &Value::from(1)));
    let kraken = account(&told, "kraken_main");
    assert_eq!((&kraken["token"]["state"], &kraken["breaker"]), (&Value::from("valid"), &Value::from("closed")));
    let left = kraken["token"]["usable_until"].as_u64().unwrap() - house::now().0;
    assert!((800_000..=890_000).contains(&left), "{left}");
    assert!(kraken["lane"]["reserved"].is_u64());
}

#[tokio::test]
async fn nothing_secret_is_in_a_status() {
    let house = House::open().await;
    let _bot = house.logged_in("/kraken/v2", "bot-a").await;
    let token = fs::read_to_string(house.folder.path().join("state/kraken_main.token"));
    let (_, body) = get(house.running.admin_address, "/status").await;
    let secret = admin_secret(&house);
    assert!(!body.contains(&secret));
    // The file may still be on its way to the disk; what is in it is base64 of the token.
    if let Ok(token) = token {
        let stored: Value = serde_json::from_str(&token).unwrap();
        assert!(!body.contains(stored["token"].as_str().unwrap()));
    }
    for entry in house.kraken().snapshot() {
        for word in entry.text().split('"').filter(|word| word.len() > 30) {
            assert!(!body.contains(word), "{word}");
        }
    }
}

#[tokio::test]
async fn a_refresh_drops_no_connection() {
    let house = House::open().await;
    let mut bots = Vec::new();
    for _ in 0..4 {
        let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
        bot.say(r#"{"method":"subscribe","params":{"channel":"executions"},"req_id":1}"#).await;
        assert_eq!(bot.json_where(|it| it["req_id"] == 1).await["success"], true);
        bots.push(bot);
    }
    // An answer of 101 is a socket that was opened.
    let opened = || {
        let entries = house.kraken().snapshot();
        entries.iter().filter(|entry| matches!(entry.kind, Kind::Response { status: 101 })).count()
    };
    assert_eq!(opened(), 4);
    let (status, body) = act(&house, "/accounts/kraken_main/token/refresh").await;
    assert_eq!(status, 200, "{body}");
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&told["account"], &told["token"]["state"]), (&Value::from("kraken_main"), &Value::from("valid")));
    assert_eq!(house.kraken().tokens_minted(), 2);
    for mut bot in bots {
        bot.say(r#"{"method":"add_order","params":{"order_type":"limit","side":"buy","symbol":"BTC/USD","limit_price":1,"order_qty":1},"req_id":2}"#).await;
        let told = bot.json_where(|it| it["req_id"] == 2).await;
        assert_eq!(told["success"], true, "{told}");
    }
    assert_eq!(opened(), 4, "a socket was opened anew");
}

#[tokio::test]
async fn a_breaker_is_shown_and_reset() {
    let house = House::open().await;
    house.kraken_exchange().faults().set(|switches| switches.refuse_auth = true);
    let (code, body) = act(&house, "/accounts/kraken_main/token/refresh").await;
    assert_eq!(code, 503);
    assert!(body.contains("refused the key") && body.contains("countersign account reset kraken_main"), "{body}");
    let told = status(&house).await;
    let kraken = account(&told, "kraken_main");
    assert_eq!((&kraken["token"]["state"], &kraken["breaker"]), (&Value::from("open"), &Value::from("open")));
    assert!(kraken["token"]["reason"].as_str().unwrap().contains("refused the key"), "{kraken}");
    assert!(kraken["token"]["retry_at"].as_u64().unwrap() > house::now().0 + 200_000, "five minutes");

    house.kraken_exchange().faults().clear();
    assert_eq!(act(&house, "/accounts/kraken_main/token/refresh").await.0, 503, "it is left alone");
    let (code, body) = act(&house, "/accounts/kraken_main/breaker/reset").await;
    assert_eq!(code, 200, "{body}");
    assert_eq!(act(&house, "/accounts/kraken_main/token/refresh").await.0, 200);
}

#[tokio::test]
async fn an_action_that_an_account_cannot_do_is_refused_with_the_reason() {
    let house = House::with(PLAIN).await;
    for (path, code, why) in [
        ("/accounts/bitfinex_main/token/refresh", 409, "nothing to renew"),
        ("/accounts/feed/nonces/unfreeze", 409, "no keys"),
        ("/accounts/nobody/breaker/reset", 404, "known are bitfinex_main, feed, kraken_main"),
        ("/accounts/kraken_main/nonces/refresh", 405, "GET, HEAD alone"),
        ("/accounts/kraken_main", 405, "GET, HEAD alone"),
    ] {
        let (status, body) = act(&house, path).await;
        assert_eq!(status, code, "{path}: {body}");
        assert!(body.contains(why), "{path}: {body}");
    }
    assert_eq!(act(&house, "/accounts/bitfinex_main/nonces/unfreeze").await.0, 200);
}

#[tokio::test]
async fn an_action_takes_the_secret_of_this_run_and_comes_from_no_browser() {
    let house = House::open().await;
    let (address, secret) = (house.running.admin_address, admin_secret(&house));
    let proof = format!("countersign-admin: {secret}\r\n");
    let wrong = format!("countersign-admin: {}\r\n", "0".repeat(64));
    let short = format!("countersign-admin: {}\r\n", &secret[..63]);
    let path = "/accounts/kraken_main/token/refresh";
    let host = format!("host: {address}\r\n");
    for (line, head, code, why) in [
        (format!("POST {path}"), format!("{host}content-length: 0\r\n"), 403, "admin.secret"),
        (format!("POST {path}"), format!("{host}{wrong}"), 403, "admin.secret"),
        (format!("POST {path}"), format!("{host}{short}"), 403, "admin.secret"),
        (format!("POST {path}"), format!("{host}countersign-admin: \r\n"), 403, "admin.secret"),
        (format!("POST {path}?countersign-admin={secret}"), host.clone(), 403, "admin.secret"),
        (format!("POST {path}"), format!("{host}{proof}origin: https://evil.example\r\n"), 403, "browser"),
        (format!("POST {path}"), format!("host: evil.example\r\n{proof}"), 421, "by address or as localhost"),
        (format!("POST {path}"), format!("{host}{proof}content-length: 2\r\n\r\n{{}}"), 400, "must be empty"),
        (format!("POST {path}"), format!("{host}{proof}transfer-encoding: chunked\r\n\r\n0\r\n"), 400, "must be empty"),
        (format!("GET {path}"), format!("{host}{proof}"), 405, "POST alone"),
        (format!("PUT {path}"), format!("{host}{proof}content-length: 0\r\n"), 405, "POST alone"),
        ("POST /status".to_owned(), format!("{host}{proof}content-length: 0\r\n"), 405, "GET, HEAD alone"),
        ("GET /status".to_owned(), "host: evil.example\r\n".to_owned(), 421, "by address"),
        ("GET /status".to_owned(), format!("{host}origin: https://evil.example\r\n"), 403, "browser"),
    ] {
        let (status, body) = raw(address, &format!("{line} HTTP/1.1\r\n{head}connection: close\r\n\r\n")).await;
        assert_eq!(status, code, "{line} {head}: {body}");
        assert!(body.contains(why), "{line} {head}: {body}");
        assert!(!body.contains(&secret));
    }
    assert_eq!(house.kraken().tokens_minted(), 0, "nothing was done");
    assert_eq!(act(&house, path).await.0, 200);
}

#[tokio::test]
async fn the_secret_is_for_its_owner_alone_and_new_at_each_start() {
    let house = House::open().await;
    let file = house.folder.path().join("state/admin.secret");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let first = admin_secret(&house);
    assert!(first.len() == 64 && first.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let House { running, folder, .. } = house;
    running.stop().await;
    let config = assemble::read(Some(&folder.path().join("proxy.toml")), &[]).unwrap();
    let running = assemble::start(&config, Threads::here()).await.unwrap_or_else(|exit| panic!("{exit:?}"));
    assert_ne!(fs::read_to_string(&file).unwrap(), first);
    let request = format!(
        "POST /accounts/kraken_main/breaker/reset HTTP/1.1\r\nhost: localhost\r\ncountersign-admin: {first}\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(raw(running.admin_address, &request).await.0, 403, "the secret of the last run is worth nothing");
}

// ---- the commands ---------------------------------------------------------------------------------------------------

#[test]
fn status_is_a_table_for_people_and_json_for_scripts() {
    let folder = user_folder();
    let proxy = Serving::open(folder.path(), &[]);
    let admin = format!("admin.address={}", proxy.admin);
    let shown = run(folder.path(), &["status", "--set", &admin]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""), "{shown:?}");
    for column in ["ACCOUNT", "VENUE", "TOKEN", "UNTIL", "BREAKER", "LANE", "QUEUE"] {
        assert!(shown.stdout.contains(column), "{}", shown.stdout);
    }
    let kraken = shown.stdout.lines().find(|line| line.starts_with("kraken_main")).unwrap();
    assert_eq!(
        kraken.split_whitespace().collect::<Vec<_>>()[..6],
        ["kraken_main", "kraken", "absent", "-", "closed", "ns"]
    );
    assert!(shown.stdout.starts_with("countersign ") && shown.stdout.contains("0 sessions"), "{}", shown.stdout);

    let json = run(folder.path(), &["status", "--json", "--set", &admin]);
    let told: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, told["accounts"].as_array().unwrap().len()), (Some(0), 2));
    drop(proxy);
    let gone = run(folder.path(), &["status", "--set", &admin]);
    assert_eq!((gone.code, gone.stdout.as_str()), (Some(1), ""));
    assert!(gone.stderr.contains("is `countersign serve` running"), "{gone:?}");
}

#[test]
fn an_account_is_renewed_reset_and_unfrozen_from_the_command_line() {
    let folder = user_folder();
    let mut proxy = Serving::open(folder.path(), &[]);
    let admin = format!("admin.address={}", proxy.admin);
    for (what, said) in [("refresh", "valid"), ("reset", "reset by a person"), ("unfreeze", "unfrozen by a person")] {
        let done = run(folder.path(), &["account", what, "kraken_main", "--set", &admin]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
        let line = done.stdout.lines().find(|line| line.starts_with("kraken_main")).unwrap();
        assert!(line.contains("valid") && line.contains("in 14m"), "{line}");
        proxy.program.line_where(|line| line.contains(said));
    }
    let secret = fs::read_to_string(folder.path().join("state/admin.secret")).unwrap();
    assert!(!proxy.program.output().contains(&secret));
}

#[test]
fn what_an_account_command_cannot_do_ends_with_advice() {
    let folder = user_folder();
    let alone = run(folder.path(), &["account", "reset", "kraken_main"]);
    assert_eq!(alone.code, Some(1));
    assert!(alone.stderr.contains("admin.secret is not there; is `countersign serve` running"), "{alone:?}");

    let mut proxy = Serving::open(folder.path(), &[]);
    let admin = format!("admin.address={}", proxy.admin);
    for (arguments, code, advice) in [
        (&["reset", "nobody"][..], 1, "known are bitfinex_main, kraken_main"),
        (&["refresh", "bitfinex_main"], 1, "nothing to renew"),
        (&["reset", "../status"], 64, "NAME "),
        (&["melt", "kraken_main"], 64, "--help"),
        (&["reset"], 64, "NAME"),
    ] {
        let refused = run(folder.path(), &[&["account", "--set", &admin][..], arguments].concat());
        assert_eq!(refused.code, Some(code), "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(advice) && refused.stdout.is_empty(), "{arguments:?}: {refused:?}");
    }

    // Somebody else's secret, or one that others could have read.
    let file = folder.path().join("state/admin.secret");
    let good = fs::read(&file).unwrap();
    fs::write(&file, "0".repeat(64)).unwrap();
    let refused = run(folder.path(), &["account", "reset", "kraken_main", "--set", &admin]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("each start writes anew"), "{refused:?}");
    let line = proxy.program.line_where(|line| line.contains("admin action refused"));
    assert!(!line.contains("0000"), "{line}");
    fs::write(&file, good).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = run(folder.path(), &["account", "reset", "kraken_main", "--set", &admin]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("can be read by every user"), "{refused:?}");
}

// ---- helpers --------------------------------------------------------------------------------------------------------

/// Behind the standard configuration: an account without keys.
const PLAIN: &str = r#"
[accounts.feed]
venue = "plain"
upstream = { ws = "wss://localhost:1/", local = true }
"#;

fn user_folder() -> Folder {
    let folder = Folder::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml");
    fs::copy(example, folder.path().join("proxy.toml")).unwrap();
    folder
}

fn admin_secret(house: &House) -> String {
    fs::read_to_string(house.folder.path().join("state/admin.secret")).unwrap()
}

async fn status(house: &House) -> Value {
    let (status, body) = get(house.running.admin_address, "/status").await;
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}

fn account<'a>(told: &'a Value, name: &str) -> &'a Value {
    told["accounts"].as_array().unwrap().iter().find(|account| account["account"] == name).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    raw(address, &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")).await
}

/// An action with everything that it needs.
async fn act(house: &House, path: &str) -> (u16, String) {
    let address = house.running.admin_address;
    let proof = format!("countersign-admin: {}", admin_secret(house));
    raw(address, &format!("POST {path} HTTP/1.1\r\nhost: {address}\r\n{proof}\r\nconnection: close\r\n\r\n")).await
}

/// The status and body of the answer to raw bytes.
async fn raw(address: SocketAddr, request: &str) -> (u16, String) {
    let request = request.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A refused body may end in a reset behind the answer.
        let _ = socket.read_to_end(&mut answer);
        answer
    });
    let answer = asked.await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status_of(&answer), body)
}
