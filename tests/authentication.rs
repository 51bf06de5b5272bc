//! Who gets in, and how everybody else is told. Rows A1 to A19 of the fault catalogue, end to end.
//!
//! Beside every refusal stands the same client let in, and of every refusal no exchange may have seen a byte.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod house;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use countersign::scope::Right;
use futures_util::{FutureExt as _, SinkExt as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use house::{Folder, House, PATIENCE, STANDARD, Socket, now};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, date_time_ymd,
};
use serde_json::{Value, json};
use sha2::Sha256;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

const PATH: &str = "/kraken/v2";

/// More bad proofs than a test shows: none is held back.
const PATIENT: &str = "[limits]\nauth_failures_max = 1000\n";

/// A token that ends soon, and the leeway that lets it.
const SOON: Duration = Duration::from_secs(2);

const EXACT: (&str, &str) = ("[clients.jwt]\n", "[clients.jwt]\nleeway = \"0s\"\n");

fn closed(reason: &str) -> (u16, String) {
    (1008, reason.to_owned())
}

/// What a socket is told whose first message is this.
async fn first(house: &House, message: impl Into<String>) -> (u16, String) {
    let mut socket = house.socket(PATH).await;
    socket.say(message).await;
    // Whoever is let in by mistake hears from the exchange for ever.
    timeout(PATIENCE, socket.closed()).await.expect("it was let in")
}

fn login(token: &str) -> String {
    json!({ "type": "auth", "token": token }).to_string()
}

/// Signs with RustCrypto's HMAC: not the code under test.
fn signed(secret: &[u8], header: &Value, claims: &str) -> String {
    let message = format!("{}.{}", BASE64URL.encode(header.to_string()), BASE64URL.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", BASE64URL.encode(mac.finalize().into_bytes()))
}

fn seconds() -> u64 {
    now().0 / 1000
}

/// The claims of a good token, with these in place of some.
fn claims(changes: &Value) -> String {
    let now = seconds();
    let mut claims = json!({ "sub": "bot-a", "aud": "countersign", "iat": now, "exp": now + 900 });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.to_string()
}

/// The claims of a good token without one.
fn claims_without(name: &str) -> String {
    let mut claims: Value = serde_json::from_str(&claims(&json!({}))).unwrap();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims.to_string()
}

fn header() -> Value {
    json!({ "alg": "HS256", "typ": "JWT" })
}

/// The status and the reason of an upgrade that was refused.
fn refusal(outcome: Result<Socket, WsError>) -> (u16, String) {
    match outcome {
        Err(WsError::Http(answer)) => {
            let reason = answer.headers().get("countersign-reason").map_or("", |reason| reason.to_str().unwrap());
            (answer.status().as_u16(), reason.to_owned())
        }
        Err(other) => panic!("no answer but {other}"),
        Ok(_) => panic!("it was let in"),
    }
}

fn refused(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

async fn with_bearer(house: &House, token: &str) -> Result<Socket, WsError> {
    house.upgrade(PATH, &[("authorization", &format!("Bearer {token}"))], None).await
}

/// Asserts that a session works: all the way to the exchange and back.
async fn assert_open(socket: &mut Socket) {
    socket.say(r#"{"method":"ping","req_id":77}"#).await;
    let pong = socket.json_where(|it| it["req_id"] == 77).await;
    assert_eq!(pong["method"], "pong", "{pong}");
}

/// A frame that a client may send: final or not, masked with zeros.
fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first_byte];
    match u8::try_from(payload.len()) {
        Ok(length @ ..126) => bytes.push(0x80 | length),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

// ---- The first message

#[tokio::test]
async fn a_client_that_never_logs_in_is_closed_in_time_however_it_pings() {
    let house = House::with("[limits]\nauth_timeout = \"300ms\"\n").await;
    let mut silent = house.socket(PATH).await;
    assert_eq!(silent.closed().await, closed("Authentication timeout"));

    let mut lively = house.socket(PATH).await;
    let mut beat = interval(Duration::from_millis(20));
    let told = loop {
        tokio::select! {
            _ = beat.tick() => {
                // It may have been closed between two beats; what it was told is read below.
                let _closed = lively.0.send(Message::Ping(b"here".as_slice().into())).await;
                let _closed = lively.0.send(Message::text(r#"{"type":"ping"}"#)).await;
            }
            message = lively.next() => match message {
                Some(Ok(Message::Close(Some(frame)))) => break (u16::from(frame.code), frame.reason.to_string()),
                Some(Ok(Message::Text(text))) => assert!(text.contains(r#""type":"pong""#), "{text}"),
                Some(Ok(_)) => {}
                other => panic!("instead of a close came {other:?}"),
            },
        }
    };
    assert_eq!(told, closed("Authentication timeout"));
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn a_first_message_that_is_no_login_is_told_so_and_one_without_token_too() {
    let house = House::open().await;
    for message in [
        "hello",
        "",
        "null",
        "[]",
        r#"["auth","a.b.c"]"#,
        "{}",
        r#"{"token":"a.b.c"}"#,
        r#"{"type":"subscribe","token":"a.b.c"}"#,
        r#"{"type":"AUTH","token":"a.b.c"}"#,
        r#"{"method":"ping"}"#,
        r#"{"type":"auth","token":"a.b.c","account":"No Such Name"}"#,
    ] {
        assert_eq!(first(&house, message).await, closed("Authentication required"), "{message}");
    }
    for token in ["", r#","token":null"#, r#","token":"""#, r#","token":7"#, r#","token":["a"]"#, r#","token":{}"#] {
        let message = format!(r#"{{"type":"auth"{token}}}"#);
        assert_eq!(first(&house, &message).await, closed("Token missing"), "{message}");
    }
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn both_words_log_in_and_are_answered_by_one_message() {
    let house = House::open().await;
    for word in ["auth", "authenticate"] {
        let mut socket = house.socket(PATH).await;
        socket.say(json!({ "type": word, "token": house.token("bot-a") }).to_string()).await;
        assert_eq!(socket.json().await["type"], "connected");
        socket.say(r#"{"method":"ping","req_id":1}"#).await;
        // What the exchange says by itself has a channel; nothing else may be in between.
        let next = socket.json_where(|it| it.get("channel").is_none()).await;
        assert_eq!((&next["method"], &next["req_id"]), (&json!("pong"), &json!(1)));
    }
}

#[tokio::test]
async fn a_binary_login_is_refused_a_fragmented_one_taken_and_a_long_one_too_big() {
    let house = House::open().await;
    let message = login(&house.token("bot-a"));

    let mut binary = house.socket(PATH).await;
    binary.0.send(Message::binary(message.clone())).await.unwrap();
    assert_eq!(binary.closed().await, closed("Authentication required"));

    let padded = |length: usize| message.replace('{', &format!("{{{}", " ".repeat(length - message.len())));
    assert_eq!(first(&house, padded(8 * 1024 + 1)).await, (1009, "message_too_big".to_owned()));
    house.assert_nothing_upstream();

    let mut long = house.socket(PATH).await;
    long.say(padded(8 * 1024)).await;
    assert_eq!(long.json().await["type"], "connected");

    let mut fragmented = house.socket(PATH).await;
    let (left, right) = message.as_bytes().split_at(20);
    fragmented.raw(&[frame(0x01, left), frame(0x89, b"ping"), frame(0x80, right)].concat()).await;
    assert_eq!(fragmented.json().await["type"], "connected");
}

#[tokio::test]
async fn a_login_with_a_member_named_twice_or_bytes_behind_it_is_none() {
    let house = House::open().await;
    let token = house.token("bot-a");
    for message in [
        format!(r#"{{"type":"auth","token":"{token}","token":"{token}"}}"#),
        format!(r#"{{"type":"auth","token":"{token}","t\u006fken":"{token}"}}"#),
        format!(r#"{{"type":"auth","type":"auth","token":"{token}"}}"#),
        format!(r#"{{"type":"ping","type":"auth","token":"{token}"}}"#),
        format!(r#"{}{{}}"#, login(&token)),
        format!("{}x", login(&token)),
        format!("{}\0", login(&token)),
    ] {
        assert_eq!(first(&house, &message).await, closed("Authentication required"), "{message}");
    }
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn messages_behind_a_login_wait_for_it_and_keep_their_order() {
    let house = House::open().await;
    let mut socket = house.socket(PATH).await;
    socket.0.feed(Message::text(login(&house.token("bot-a")))).await.unwrap();
    for id in 1..=5 {
        socket.0.feed(Message::text(format!(r#"{{"method":"ping","req_id":{id}}}"#))).await.unwrap();
    }
    socket.0.flush().await.unwrap();
    assert_eq!(socket.json().await["type"], "connected");
    for id in 1..=5 {
        assert_eq!(socket.json_where(|it| it["method"] == "pong").await["req_id"], id);
    }
    let sent = house.kraken().frames_received();
    let ids: Vec<usize> =
        (1..=5).map(|id| sent.iter().position(|it| it.contains(&format!(":{id}}}"))).unwrap()).collect();
    assert!(ids.is_sorted(), "{sent:?}");
}

#[tokio::test]
async fn a_login_that_comes_with_the_upgrade_is_not_lost() {
    let house = House::open().await;
    let mut stream = house.tls().await;
    let mut bytes = format!(
        "GET {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes();
    bytes.extend(frame(0x81, login(&house.token("bot-a")).as_bytes()));
    bytes.extend(frame(0x81, br#"{"method":"ping","req_id":5}"#));
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(r#""req_id":5"#) {
        let count = timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("nothing came").unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(String::from_utf8_lossy(&answer).contains(r#""type":"connected""#));
}

#[tokio::test]
async fn nothing_behind_a_bad_login_is_forwarded() {
    let house = House::open().await;
    for (token, told) in [("a.b.c", "Invalid token"), (&house.token("stranger"), "Authentication failed")] {
        let mut socket = house.socket(PATH).await;
        socket.0.feed(Message::text(login(token))).await.unwrap();
        socket.0.feed(Message::text(r#"{"method":"cancel_all","req_id":1}"#)).await.unwrap();
        socket.0.flush().await.unwrap();
        assert_eq!(socket.closed().await, closed(told));
    }
    house.assert_nothing_upstream();
}

// ---- Tokens

#[tokio::test]
async fn a_token_signed_otherwise_than_configured_is_invalid() {
    let public = include_bytes!("fixtures/keys/rs256.public.pem");
    let folder = Folder::new();
    let file = folder.path().join("issuer.pem");
    std::fs::write(&file, public).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let keys = format!(
        "[clients.jwt]\nkeys = [{{ algorithm = \"RS256\", pem = {{ file = \"{}\" }} }}]\n",
        file.to_str().unwrap()
    );
    let house = House::from(&format!("{}\n{PATIENT}", STANDARD.replace("[clients.jwt]\n", &keys))).await;
    let good = claims(&json!({}));
    let with = |header: Value| signed(&house.jwt_secret, &header, &good);
    let unsigned = |alg: &str| {
        let header = BASE64URL.encode(json!({ "alg": alg, "typ": "JWT" }).to_string());
        format!("{header}.{}.", BASE64URL.encode(&good))
    };
    let genuine = with(header());
    let two_algorithms = {
        let head = BASE64URL.encode(r#"{"alg":"none","alg":"HS256","typ":"JWT"}"#);
        format!("{head}.{}", genuine.split_once('.').unwrap().1)
    };
    let mut forged = genuine.clone();
    let last = if forged.pop() == Some('A') { 'Q' } else { 'A' };
    forged.push(last);
    for token in [
        unsigned("none"),
        unsigned("None"),
        unsigned("NONE"),
        unsigned("HS256"),
        signed(public, &header(), &good),
        signed(public.trim_ascii_end(), &header(), &good),
        signed(b"another secret of thirty-two bytes", &header(), &good),
        with(json!({ "alg": "RS256", "typ": "JWT" })),
        with(json!({ "alg": "HS512", "typ": "JWT" })),
        with(json!({ "alg": "hs256", "typ": "JWT" })),
        with(json!({ "alg": ["HS256"], "typ": "JWT" })),
        with(json!({ "typ": "JWT" })),
        two_algorithms,
        forged,
        genuine[..genuine.rfind('.').unwrap()].to_owned(),
        "a.b.c".to_owned(),
        "not a token".to_owned(),
    ] {
        assert_eq!(first(&house, login(&token)).await, closed("Invalid token"), "{token}");
        assert_eq!(refusal(with_bearer(&house, &token).await), refused(401, "auth_invalid"), "{token}");
    }
    house.assert_nothing_upstream();

    let mut socket = house.socket(PATH).await;
    socket.log_in(&genuine).await;
    assert_eq!(socket.json().await["type"], "connected");
}

#[tokio::test]
async fn a_token_that_is_over_not_yet_valid_or_oddly_timed_is_invalid() {
    let house = House::with(PATIENT).await;
    let now = seconds();
    for changes in [
        json!({ "exp": now - 6, "iat": now - 60 }),
        json!({ "nbf": now + 60 }),
        json!({ "iat": now + 60, "exp": now + 120 }),
        json!({ "exp": now + 48 * 3600 }),
        json!({ "exp": now, "iat": now }),
        json!({ "exp": (now + 900).to_string() }),
        json!({ "exp": (now + 900) as f64 + 0.5 }),
        json!({ "exp": 1e18 }),
        json!({ "exp": 1_000_000_000_000_000_000_u64 }),
        json!({ "exp": -1 }),
        json!({ "exp": null }),
        json!({ "iat": "now" }),
        json!({ "nbf": null }),
    ] {
        let token = signed(&house.jwt_secret, &header(), &claims(&changes));
        assert_eq!(first(&house, login(&token)).await, closed("Invalid token"), "{changes}");
    }
    for missing in ["exp", "iat"] {
        let token = signed(&house.jwt_secret, &header(), &claims_without(missing));
        assert_eq!(first(&house, login(&token)).await, closed("Invalid token"), "without {missing}");
    }
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn a_token_for_or_by_or_of_another_is_invalid() {
    let issuer = "[clients.jwt]\nissuer = \"https://issuer.test\"\n";
    let house = House::from(&format!("{}\n{PATIENT}", STANDARD.replace("[clients.jwt]\n", issuer))).await;
    let ours = json!("https://issuer.test");
    for changes in [
        json!({ "iss": ours, "aud": "another-service" }),
        json!({ "iss": ours, "aud": "Countersign" }),
        json!({ "iss": ours, "aud": 7 }),
        json!({ "iss": ours, "aud": [] }),
        json!({ "iss": ours, "aud": null }),
        json!({}),
        json!({ "iss": "https://issuer.test.evil.example" }),
        json!({ "iss": [ours] }),
        json!({ "iss": ours, "sub": "" }),
        json!({ "iss": ours, "sub": "bot-a\n" }),
        json!({ "iss": ours, "sub": "bot-a\u{0}" }),
        json!({ "iss": ours, "sub": 7 }),
        json!({ "iss": ours, "sub": "anonymous" }),
        json!({ "iss": ours, "scope": "read everything" }),
    ] {
        let token = signed(&house.jwt_secret, &header(), &claims(&changes));
        assert_eq!(first(&house, login(&token)).await, closed("Invalid token"), "{changes}");
    }
    house.assert_nothing_upstream();

    let token = signed(&house.jwt_secret, &header(), &claims(&json!({ "iss": ours, "aud": ["x", "countersign"] })));
    let mut socket = house.socket(PATH).await;
    socket.log_in(&token).await;
    assert_eq!(socket.json().await["type"], "connected");
}

#[tokio::test]
async fn a_token_of_another_kind_or_that_brings_its_key_is_invalid_and_nothing_is_fetched() {
    let house = House::with(PATIENT).await;
    let attacker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    attacker.set_nonblocking(true).unwrap();
    let url = format!("https://{}/keys.json", attacker.local_addr().unwrap());
    let jwk = json!({ "kty": "oct", "k": BASE64URL.encode(&house.jwt_secret) });
    for more in [
        json!({ "typ": "at+jwt" }),
        json!({ "typ": "logout+jwt" }),
        json!({ "typ": null }),
        json!({ "crit": ["exp"] }),
        json!({ "crit": [] }),
        json!({ "jku": url }),
        json!({ "x5u": url }),
        json!({ "x5c": ["MIIB"] }),
        json!({ "jwk": jwk }),
    ] {
        let mut header = header();
        for (name, value) in more.as_object().unwrap() {
            header[name] = value.clone();
        }
        let token = signed(&house.jwt_secret, &header, &claims(&json!({})));
        assert_eq!(first(&house, login(&token)).await, closed("Invalid token"), "{more}");
    }
    house.assert_nothing_upstream();
    assert_eq!(attacker.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
}

#[tokio::test]
async fn where_no_keys_are_configured_a_token_is_answered_with_try_later() {
    let open = STANDARD.find("[clients.jwt]").unwrap();
    let close = STANDARD.find("[clients.mtls]").unwrap();
    let without = format!("{}{}", &STANDARD[..open], &STANDARD[close..]).replace("jwt:", "cert:");
    let house = House::from(&dedup_grants(&without)).await;
    let token = house.token("bot-a");
    assert_eq!(first(&house, login(&token)).await, (1013, "auth_unavailable".to_owned()));
    assert_eq!(refusal(with_bearer(&house, &token).await), refused(503, "auth_unavailable"));
    house.assert_nothing_upstream();
}

/// Each grant once.
fn dedup_grants(toml: &str) -> String {
    let (before, rest) = toml.split_once("[[grants]]").unwrap();
    let (grants, after) = rest.split_once("[admin]").unwrap();
    let mut seen = Vec::new();
    for grant in grants.split("[[grants]]") {
        let key: Vec<&str> =
            grant.lines().filter(|line| line.starts_with("client") || line.starts_with("acc")).collect();
        if !seen.iter().any(|(known, _)| *known == key) {
            seen.push((key, grant));
        }
    }
    let grants: String = seen.iter().map(|(_, grant)| format!("[[grants]]{grant}")).collect();
    format!("{before}{grants}[admin]{after}")
}

#[tokio::test]
async fn a_good_token_without_a_grant_fails_and_so_does_an_account_that_is_not_granted() {
    let house = House::open().await;
    let stranger = house.token("stranger");
    assert_eq!(first(&house, login(&stranger)).await, closed("Authentication failed"));
    assert_eq!(refusal(with_bearer(&house, &stranger).await), refused(403, "identity_not_mapped"));

    let token = house.token("bot-a");
    for account in ["bitfinex_main", "kraken_other"] {
        let named = json!({ "type": "auth", "token": token, "account": account }).to_string();
        assert_eq!(first(&house, named).await, closed("Authentication failed"));
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("countersign-account", account)];
        assert_eq!(refusal(house.upgrade(PATH, &headers, None).await), refused(403, "identity_not_mapped"));
    }
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn a_bearer_token_on_the_upgrade_needs_no_message() {
    let house = House::open().await;
    let mut socket = with_bearer(&house, &house.token("bot-a")).await.unwrap();
    let connected = socket.json().await;
    assert_eq!((&connected["type"], &connected["client_id"]), (&json!("connected"), &json!("bot-a")));
    assert_open(&mut socket).await;
}

#[tokio::test]
async fn an_authorization_that_is_no_bearer_token_is_unauthorized_and_told_what_would_be() {
    let house = House::open().await;
    for value in ["Basic Ym90LWE6eA==", "Bearer", "Token a.b.c", "Bearer a.b.c"] {
        match house.upgrade(PATH, &[("authorization", value)], None).await {
            Err(WsError::Http(answer)) => {
                assert_eq!(answer.status(), 401, "{value}");
                assert_eq!(answer.headers()["www-authenticate"], "Bearer", "{value}");
            }
            other => panic!("{value}: {:?}", other.map(drop)),
        }
    }
    house.assert_nothing_upstream();
}

// ---- The life of a proof

#[tokio::test]
async fn a_session_ends_with_its_token_and_one_that_logged_in_again_goes_on() {
    let house = House::from(&STANDARD.replace(EXACT.0, EXACT.1)).await;
    let short = house.token_for("bot-a", None, SOON);
    let (mut ends, mut goes_on) = (house.socket(PATH).await, house.socket(PATH).await);
    for socket in [&mut ends, &mut goes_on] {
        socket.log_in(&short).await;
        assert_eq!(socket.json().await["type"], "connected");
        // It ends within the minute before which a client is told so.
        let notice = socket.json_where(|it| it["type"] == "expiring").await;
        assert!(notice["expires_at"].as_u64().unwrap() <= now().0 + 2000, "{notice}");
    }
    goes_on.log_in(&house.token("bot-a")).await;
    let again = goes_on.json_where(|it| it["type"] == "connected").await;
    assert!(again["expires_at"].as_u64().unwrap() > now().0 + 800_000, "{again}");

    assert_eq!(ends.closed().await, closed("token_expired"));
    assert_open(&mut goes_on).await;
}

#[tokio::test]
async fn a_session_that_ends_with_its_token_says_how_many_orders_have_no_answer() {
    let toml = format!("{}\n[limits]\nclose_timeout = \"200ms\"\n", STANDARD.replace(EXACT.0, EXACT.1));
    let house = House::from(&toml).await;
    let mut socket = house.socket(PATH).await;
    socket.log_in(&house.token_for("bot-a", None, SOON)).await;
    assert_eq!(socket.json().await["type"], "connected");
    house.kraken_exchange().faults().set(|switches| switches.stall = true);
    let order = r#"{"method":"add_order","params":{"order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":1.0,"limit_price":100.10},"req_id":1}"#;
    socket.say(order).await;
    assert_eq!(socket.closed().await, closed("token_expired; maybe-sent: 1"));
}

#[tokio::test]
async fn a_second_login_takes_on_the_rights_of_its_token() {
    let house = House::open().await;
    let mut socket = house.socket(PATH).await;
    let order = r#"{"method":"cancel_all","req_id":1}"#;
    socket.log_in(&house.token_for("bot-a", Some(&[Right::Read]), Duration::from_secs(900))).await;
    assert_eq!(socket.json().await["permissions"], json!(["public", "read"]));
    socket.say(order).await;
    assert_eq!(socket.json_where(|it| it["req_id"] == 1).await["error"], "EGeneral:Permission denied");

    socket.log_in(&house.token("bot-a")).await;
    let told = socket.json_where(|it| it["type"] == "connected").await;
    assert_eq!(told["permissions"], json!(["public", "read", "trade"]));
    socket.say(order).await;
    assert_eq!(socket.json_where(|it| it["req_id"] == 1).await["success"], true);
}

#[tokio::test]
async fn a_second_login_of_another_client_a_bad_one_or_for_another_account_ends_the_session() {
    let house = House::with("[limits]\nclose_timeout = \"200ms\"\n").await;
    for path in [PATH, "/bitfinex/v2"] {
        let other_account = json!({ "type": "auth", "token": house.token("bot-a"), "account": "other" }).to_string();
        for (message, told) in [
            (login(&house.token("viewer")), "reauth_identity_changed"),
            (login(&house.token("stranger")), "reauth_identity_changed"),
            (login("a.b.c"), "Invalid token"),
            (other_account, "Authentication failed"),
        ] {
            let mut socket = house.logged_in(path, "bot-a").await;
            socket.say(message).await;
            assert_eq!(socket.closed().await, closed(told), "{path}");
        }
    }
}

#[tokio::test]
async fn a_client_with_all_its_sessions_gets_no_more_and_keeps_those() {
    let house = House::open().await;
    let token = house.token("viewer");
    let mut kept = house.logged_in(PATH, "viewer").await;
    let leaves = house.logged_in(PATH, "viewer").await;
    assert_eq!(first(&house, login(&token)).await, closed("Max connections reached"));
    assert_eq!(refusal(with_bearer(&house, &token).await), refused(429, "connection_limit"));
    house.logged_in(PATH, "bot-a").await;
    assert_open(&mut kept).await;

    drop(leaves);
    let enters = async {
        while with_bearer(&house, &token).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, enters).await.expect("a session that ended counts still");
}

// ---- The failure budget

#[tokio::test]
async fn past_the_budget_bad_proofs_wait_and_good_ones_do_not() {
    // Longer than the test has patience: whoever is answered was not held back.
    let limits = "[limits]\nauth_failures_max = 3\nauth_failure_delay = \"60s\"\n";
    let house = House::with(limits).await;
    for _ in 0..3 {
        assert_eq!(first(&house, login("a.b.c")).await, closed("Invalid token"));
    }
    let mut bad = house.socket(PATH).await;
    bad.log_in("a.b.c").await;
    let mut bad_bearer = Box::pin(with_bearer(&house, "a.b.c"));
    assert!(bad_bearer.as_mut().now_or_never().is_none());

    let mut good = house.logged_in(PATH, "bot-a").await;
    assert_open(&mut good).await;
    let mut good = with_bearer(&house, &house.token("bot-a")).await.unwrap();
    assert_open(&mut good).await;
    house.upgrade(PATH, &[], Some("bot-a")).await.unwrap();

    assert!(bad.next().now_or_never().is_none(), "a bad proof was answered at once");
    assert!(bad_bearer.as_mut().now_or_never().is_none(), "a bad proof was answered at once");
}

#[tokio::test]
async fn past_the_budget_a_bad_proof_is_answered_after_its_delay() {
    let delay = Duration::from_millis(300);
    let house = House::with("[limits]\nauth_failures_max = 1\nauth_failure_delay = \"300ms\"\n").await;
    assert_eq!(first(&house, login("a.b.c")).await, closed("Invalid token"));
    let start = Instant::now();
    assert_eq!(first(&house, login("a.b.c")).await, closed("Invalid token"));
    assert!(start.elapsed() >= delay);
    let start = Instant::now();
    assert_eq!(refusal(with_bearer(&house, "a.b.c").await), refused(401, "auth_invalid"));
    assert!(start.elapsed() >= delay);
}

#[tokio::test]
async fn past_the_budget_few_connections_may_wait_for_a_login_and_proved_ones_are_not_counted() {
    let house = House::with("[limits]\nauth_failures_max = 1\nunproved_per_source_max = 2\n").await;
    let before = house.socket(PATH).await;
    assert_eq!(first(&house, login("a.b.c")).await, closed("Invalid token"));
    let mut logs_in = house.socket(PATH).await;
    assert_eq!(refusal(house.upgrade(PATH, &[], None).await), refused(429, "too_many_unproved"));
    with_bearer(&house, &house.token("bot-a")).await.unwrap();
    house.upgrade(PATH, &[], Some("bot-a")).await.unwrap();

    logs_in.log_in(&house.token("bot-a")).await;
    assert_eq!(logs_in.json().await["type"], "connected");
    let after = house.socket(PATH).await;
    assert_eq!(refusal(house.upgrade(PATH, &[], None).await), refused(429, "too_many_unproved"));
    drop((before, after));
}

// ---- Certificates

/// A client certificate and its key, where [`House::client_config`] finds them.
struct Wanted<'a> {
    file: &'a str,
    names: &'a [SanType],
    common_name: Option<&'a str>,
    years: (i32, i32),
    purpose: ExtendedKeyUsagePurpose,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        let purpose = ExtendedKeyUsagePurpose::ClientAuth;
        Self { file: "made", names: &[], common_name: None, years: (2020, 2100), purpose }
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn issue<'a>(house: &House, issuer: &Issuer<'_, KeyPair>, wanted: &Wanted<'a>) -> &'a str {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(wanted.years.0, 1, 1);
    params.not_after = date_time_ymd(wanted.years.1, 1, 1);
    params.subject_alt_names = wanted.names.to_vec();
    params.extended_key_usages = vec![wanted.purpose.clone()];
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = wanted.common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    std::fs::write(house.certs().join(format!("{}.pem", wanted.file)), certificate.pem()).unwrap();
    std::fs::write(house.certs().join(format!("{}.key", wanted.file)), key.serialize_pem()).unwrap();
    wanted.file
}

/// The authority that the house trusts.
fn authority(house: &House) -> Issuer<'static, KeyPair> {
    let read = |name: &str| std::fs::read_to_string(house.certs().join(name)).unwrap();
    Issuer::from_ca_cert_pem(&read("client-ca.pem"), KeyPair::from_pem(&read("client-ca.key")).unwrap()).unwrap()
}

fn unknown_authority() -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Issuer::new(params, KeyPair::generate().unwrap())
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_ends_the_handshake_and_none_leaves_the_first_message() {
    let house = House::open().await;
    let (trusted, unknown) = (authority(&house), unknown_authority());
    let names = [dns("bot-a")];
    let good = Wanted { names: &names, ..Wanted::default() };
    for (issuer, wanted) in [
        (&unknown, Wanted { file: "unknown", ..good }),
        (&trusted, Wanted { file: "expired", years: (2020, 2021), names: &names, ..Wanted::default() }),
        (&trusted, Wanted { file: "early", years: (2099, 2100), names: &names, ..Wanted::default() }),
        (
            &trusted,
            Wanted { file: "server", purpose: ExtendedKeyUsagePurpose::ServerAuth, names: &names, ..Wanted::default() },
        ),
    ] {
        let file = issue(&house, issuer, &wanted);
        match house.upgrade(PATH, &[], Some(file)).await {
            Err(WsError::Http(answer)) => panic!("{file}: answered with {}", answer.status()),
            Err(_) => {}
            Ok(_) => panic!("{file}: let in"),
        }
    }
    house.assert_nothing_upstream();

    let file = issue(&house, &trusted, &Wanted { names: &names, ..Wanted::default() });
    assert_eq!(house.upgrade(PATH, &[], Some(file)).await.unwrap().json().await["client_id"], "bot-a");
    house.logged_in(PATH, "bot-a").await;
}

#[tokio::test]
async fn a_certificate_s_name_is_its_spiffe_id_or_its_dns_name_or_its_common_name() {
    let grant = "[[grants]]\nclient = \"cert:spiffe://desk/bot/*\"\naccount = \"kraken_main\"\nscope = [\"read\"]\n";
    let house = House::with(grant).await;
    let trusted = authority(&house);
    for (names, common_name, client) in [
        (vec![uri("spiffe://desk/bot/7")], None, "spiffe://desk/bot/7"),
        (vec![uri("spiffe://desk/bot/7"), dns("bot-b")], Some("bot-c"), "spiffe://desk/bot/7"),
        (vec![dns("bot-a")], Some("bot-c"), "bot-a"),
        (vec![], Some("bot-a"), "bot-a"),
    ] {
        let file = issue(&house, &trusted, &Wanted { names: &names, common_name, ..Wanted::default() });
        let mut socket = house.upgrade(PATH, &[], Some(file)).await.unwrap();
        assert_eq!(socket.json().await["client_id"], client);
    }
}

#[tokio::test]
async fn a_certificate_that_maps_to_no_single_client_with_a_grant_is_forbidden() {
    let grant = "[[grants]]\nclient = \"cert:spiffe://desk/bot/*\"\naccount = \"kraken_main\"\nscope = [\"read\"]\n";
    let house = House::with(grant).await;
    let trusted = authority(&house);
    for (names, common_name) in [
        (vec![uri("spiffe://desk/person/7")], None),
        (vec![uri("spiffe://desk/bot/7/x")], None),
        (vec![uri("spiffe://evil/bot/7")], None),
        (vec![uri("spiffe://desk/bot/7"), uri("spiffe://desk/bot/8")], None),
        (vec![dns("bot-a"), dns("bot-b")], None),
        (vec![dns("stranger")], Some("bot-a")),
        (vec![], Some("stranger")),
        (vec![], Some("spiffe://desk/bot/7")),
        (vec![], Some("anonymous")),
        (vec![], None),
    ] {
        let file = issue(&house, &trusted, &Wanted { names: &names, common_name, ..Wanted::default() });
        let told = refusal(house.upgrade(PATH, &[], Some(file)).await);
        assert_eq!(told, refused(403, "identity_not_mapped"), "{names:?} {common_name:?}");
    }
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn a_certificate_and_a_token_must_name_one_client() {
    let house = House::with("[limits]\nclose_timeout = \"200ms\"\n").await;
    let with = |token: String| {
        let house = &house;
        async move { house.upgrade(PATH, &[("authorization", &format!("Bearer {token}"))], Some("bot-a")).await }
    };
    for other in ["viewer", "stranger"] {
        assert_eq!(refusal(with(house.token(other)).await), refused(403, "identity_mismatch"));
    }
    assert_eq!(refusal(with("a.b.c".to_owned()).await), refused(401, "auth_invalid"));
    house.assert_nothing_upstream();

    let mut both = with(house.token("bot-a")).await.unwrap();
    assert_eq!(both.json().await["client_id"], "bot-a");

    let mut later = house.upgrade(PATH, &[], Some("bot-a")).await.unwrap();
    assert_eq!(later.json().await["type"], "connected");
    later.log_in(&house.token("bot-a")).await;
    later.json_where(|it| it["type"] == "connected").await;
    let mut later = house.upgrade(PATH, &[], Some("bot-a")).await.unwrap();
    assert_eq!(later.json().await["type"], "connected");
    later.log_in(&house.token("viewer")).await;
    assert_eq!(later.closed().await, closed("identity_mismatch"));
}

// ---- Accounts

/// Two accounts at one venue, both granted to `bot-a`.
const SECOND: &str = r#"
[accounts.kraken_second]
venue = "kraken"
upstream = "simulator"
[[grants]]
client = "jwt:bot-a"
account = "kraken_second"
scope = ["read"]
[[grants]]
client = "cert:bot-a"
account = "kraken_second"
scope = ["read"]
"#;

#[tokio::test]
async fn a_client_with_two_accounts_that_names_none_is_told_which_there_are() {
    let house = House::with(SECOND).await;
    let token = house.token("bot-a");
    let mut socket = house.socket(PATH).await;
    socket.log_in(&token).await;
    let told = socket.json().await;
    assert_eq!(told["reason"], "account_required", "{told}");
    assert_eq!(told["accounts"], json!(["kraken_main", "kraken_second"]));
    assert_eq!(socket.closed().await, closed("Authentication failed"));

    match with_bearer(&house, &token).await {
        Err(WsError::Http(answer)) => {
            assert_eq!(answer.status(), 403);
            let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
            assert!(body.contains("kraken_main, kraken_second"), "{body}");
        }
        other => panic!("{:?}", other.map(drop)),
    }
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn an_account_is_named_by_the_first_message_or_by_a_header() {
    let house = House::with(SECOND).await;
    let token = house.token("bot-a");
    let bearer = format!("Bearer {token}");
    for account in ["kraken_main", "kraken_second"] {
        let named = ("countersign-account", account);
        let message = json!({ "type": "auth", "token": token, "account": account }).to_string();

        let mut by_message = house.socket(PATH).await;
        by_message.say(&*message).await;
        assert_eq!(by_message.json().await["account"], account);

        let mut by_both = house.upgrade(PATH, &[named], None).await.unwrap();
        by_both.say(&*message).await;
        assert_eq!(by_both.json().await["account"], account);

        let mut by_header = house.upgrade(PATH, &[named], None).await.unwrap();
        by_header.log_in(&token).await;
        assert_eq!(by_header.json().await["account"], account);

        let mut with_token = house.upgrade(PATH, &[("authorization", &bearer), named], None).await.unwrap();
        assert_eq!(with_token.json().await["account"], account);

        let mut with_certificate = house.upgrade(PATH, &[named], Some("bot-a")).await.unwrap();
        assert_eq!(with_certificate.json().await["account"], account);
    }
}

#[tokio::test]
async fn a_client_that_names_two_accounts_gets_neither() {
    let house = House::with(SECOND).await;
    let mut socket = house.upgrade(PATH, &[("countersign-account", "kraken_main")], None).await.unwrap();
    let other = json!({ "type": "auth", "token": house.token("bot-a"), "account": "kraken_second" });
    socket.say(other.to_string()).await;
    assert_eq!(socket.closed().await, closed("Authentication failed"));

    let twice = "countersign-account: kraken_main\r\ncountersign-account: kraken_second\r\n";
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{twice}\r\n"
    );
    assert_eq!(house.status(request.as_bytes()).await, 403);
    house.assert_nothing_upstream();
}

// ---- Without a proof

#[tokio::test]
async fn whoever_is_let_in_without_any_proof_is_greeted_with_another_word() {
    let house = House::from(&STANDARD.replace("[listen]\n", "[listen]\nunsafe_no_auth = true\n")).await;
    let mut socket = house.socket(PATH).await;
    let told = socket.json().await;
    assert_eq!(told["type"], "welcome", "{told}");
    assert_eq!(told["expires_at"], Value::Null);
    assert_open(&mut socket).await;

    let house = House::open().await;
    assert_eq!(first(&house, r#"{"method":"ping"}"#).await, closed("Authentication required"));
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn an_anonymous_client_sees_public_data_under_the_venue_s_name_and_nothing_private() {
    let grant = "[[grants]]\nclient = \"anonymous\"\nvenues = [\"kraken\"]\nscope = [\"public\"]\n";
    let house = House::with(grant).await;
    for host in ["ws.kraken.com", "ws-auth.kraken.com"] {
        let mut nobody = house.upgrade_at(host, "/v2", &[], None).await.unwrap();
        assert_eq!(nobody.json().await["channel"], "status");
        nobody.say(r#"{"method":"ping","req_id":1}"#).await;
        assert_eq!(nobody.json_where(|it| it["req_id"] == 1).await["method"], "pong");
        for message in [
            r#"{"method":"subscribe","params":{"channel":"balances","token":"x"},"req_id":2}"#,
            r#"{"method":"cancel_all","params":{"token":"x"},"req_id":2}"#,
            r#"{"method":"add_order","params":{"order_type":"market","side":"buy","symbol":"BTC/USD","order_qty":1.0},"req_id":2}"#,
        ] {
            nobody.say(message).await;
            let told = nobody.json_where(|it| it["req_id"] == 2).await;
            assert_eq!(told["success"], false, "{told}");
            assert!(told["countersign"].is_string(), "the exchange was asked: {told}");
        }
    }
    let mut nobody = house.upgrade_at("ws.kraken.com", "/v2", &[], None).await.unwrap();
    nobody.say(r#"{"method":"subscribe","params":{"channel":"ticker","symbol":["BTC/USD"]},"req_id":3}"#).await;
    assert_eq!(nobody.json_where(|it| it["req_id"] == 3).await["success"], true);
    assert_eq!(house.kraken().tokens_minted(), 0);
    let frames = house.kraken().frames_received();
    assert!(frames.iter().all(|frame| frame.contains("ping") || frame.contains("ticker")), "{frames:?}");

    // By path a login is asked for all the same, and at another venue too.
    assert_eq!(first(&house, r#"{"method":"ping"}"#).await, closed("Authentication required"));
    // Another venue's public socket is not open: its client is answered here, and no exchange is called.
    let mut elsewhere = house.upgrade_at("api-pub.bitfinex.com", "/ws/2", &[], None).await.unwrap();
    assert_eq!(elsewhere.json().await["event"], "info");
    elsewhere.say(r#"{"event":"ping","cid":7}"#).await;
    assert_eq!(elsewhere.json_where(|it| it["event"] == "pong").await["cid"], 7);
    elsewhere.say(r#"{"event":"subscribe","channel":"ticker","symbol":"tBTCUSD"}"#).await;
    assert_eq!(elsewhere.json_where(|it| it["event"] == "error").await["countersign"], "auth_required");
    assert_eq!(house.bitfinex().tcp_connections(), 0);
    let named = house.upgrade_at("ws.kraken.com", "/v2", &[("countersign-account", "kraken_main")], None).await;
    assert_eq!(refusal(named), refused(403, "identity_not_mapped"));
}
