//! REST requests through the house, over real TLS, against simulated exchanges: who is let in, what is refused, what
//! the exchange gets, and what the client is told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod house;

use house::{House, LOCAL, fresh_nonce, kraken_head};

const KRAKEN: &str = "api.kraken.com";

/// Nothing to complain of at the exchange, and something came in.
fn assert_flawless(record: &countersign::simulator::Record) {
    assert_eq!(record.verdicts(), Vec::<String>::new());
    assert_eq!((record.nonce_errors(), record.signature_errors(), record.leaks()), (0, 0, 0));
    assert!(record.bytes_received() > 0, "the exchange was never reached");
}

// ---- Who is let in ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_bot_with_a_local_key_trades_and_the_exchange_sees_the_real_one() {
    let house = House::with(LOCAL).await;
    let keys = house.local_key("bot-a", "kraken_main");
    for half in [&keys.0, &keys.1] {
        house.kraken().forbid(half);
    }
    let told = house.kraken_call(&keys, "Balance", "").await;
    assert_eq!((told.status, told.header("countersign-upstream")), (200, Some("answered")), "{told:?}");
    assert_eq!(told.json()["error"].as_array().unwrap().len(), 0, "{told:?}");
    assert!(told.json()["result"]["ZUSD"].is_string(), "{told:?}");

    let order = "ordertype=limit&type=buy&pair=XBTUSD&price=0.10000000000000000001&volume=1.25&cl_ord_id=a-1";
    let told = house.kraken_call(&keys, "AddOrder", order).await;
    let order_id = told.json()["result"]["txid"][0].as_str().unwrap().to_owned();
    let told = house.kraken_call(&keys, "CancelOrder", &format!("txid={order_id}")).await;
    assert_eq!(told.json()["result"]["count"], 1, "{told:?}");

    // What the client wrote arrives digit by digit.
    let saw = house.kraken().snapshot();
    assert!(saw.iter().any(|entry| entry.received("price=0.10000000000000000001&volume=1.25&cl_ord_id=a-1")));
    assert_flawless(house.kraken());
}

#[tokio::test]
async fn a_bitfinex_bot_with_a_local_key_trades() {
    let house = House::with(LOCAL).await;
    let keys = house.local_key("bot-a", "bitfinex_main");
    for half in [&keys.0, &keys.1] {
        house.bitfinex().forbid(half);
    }
    let told = house.bitfinex_call(&keys, "auth/r/wallets", "{}").await;
    assert_eq!((told.status, told.header("countersign-upstream")), (200, Some("answered")), "{told:?}");
    let order = r#"{"type":"EXCHANGE LIMIT","symbol":"tBTCUSD","price":"100","amount":"1","cid":7}"#;
    let told = house.bitfinex_call(&keys, "auth/w/order/submit", order).await;
    assert_eq!(told.json()[6], "SUCCESS", "{told:?}");
    assert_flawless(house.bitfinex());
}

#[tokio::test]
async fn a_token_or_a_certificate_needs_no_signature_at_all() {
    let house = House::open().await;
    let bearer = format!("authorization: Bearer {}\r\n", house.token("bot-a"));
    let told = house.ask(KRAKEN, None, "POST /0/private/Balance", &bearer, "").await;
    assert_eq!(told.json()["error"].as_array().unwrap().len(), 0, "{told:?}");
    let told = house.ask(KRAKEN, Some("bot-a"), "POST /0/private/Balance", "", "").await;
    assert_eq!(told.json()["error"].as_array().unwrap().len(), 0, "{told:?}");
    let dummies = "api-key: dummy\r\napi-sign: ZHVtbXk=\r\ncontent-type: application/json\r\n";
    let told = house.ask(KRAKEN, Some("bot-a"), "POST /0/private/Balance", dummies, r#"{"nonce":1}"#).await;
    assert_eq!(told.json()["error"].as_array().unwrap().len(), 0, "{told:?}");
    assert_flawless(house.kraken());
}

#[tokio::test]
async fn a_request_without_a_good_proof_is_refused_in_the_venue_s_words_and_not_sent() {
    let house = House::with(LOCAL).await;
    let (key, secret) = house.local_key("bot-a", "kraken_main");
    let other = house.local_key("bot-b", "kraken_main").1;
    let nobody = ("a2V5IG9mIHRoZSBleGNoYW5nZQ==".to_owned(), secret.clone());
    for (keys, why) in [((key.clone(), other), "a secret of another"), (nobody, "a key that is not ours")] {
        let told = house.kraken_call(&keys, "Balance", "").await;
        assert_eq!(told.json()["error"][0], "EAPI:Invalid key", "{why}: {told:?}");
        assert_eq!(told.said(), ("auth_required", "not-sent"), "{why}");
    }
    let told = house.ask(KRAKEN, None, "POST /0/private/Balance", "", "nonce=1").await;
    assert_eq!(told.json()["error"][0], "EAPI:Invalid key", "{told:?}");
    // A key of one venue at the other.
    let told = house.bitfinex_call(&(key, secret), "auth/r/wallets", "{}").await;
    assert_eq!((told.status, told.json()[1].as_u64()), (500, Some(10_100)), "{told:?}");
    let told = house.ask(KRAKEN, None, "POST /0/private/Balance", "authorization: Bearer a.b.c\r\n", "").await;
    assert_eq!((told.status, told.said()), (401, ("auth_invalid", "not-sent")));
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn a_request_that_was_seen_before_is_refused() {
    let house = House::with(LOCAL).await;
    let keys = house.local_key("bot-a", "kraken_main");
    let nonce = fresh_nonce();
    let body = format!("nonce={nonce}&ordertype=market&type=buy&pair=XBTUSD&volume=1");
    let head = kraken_head(&keys, "/0/private/AddOrder", nonce, &body);
    let send = || house.ask(KRAKEN, None, "POST /0/private/AddOrder", &head, &body);
    assert_eq!(send().await.json()["error"].as_array().unwrap().len(), 0);
    let again = send().await;
    assert_eq!(again.json()["error"][0], "EAPI:Invalid nonce", "{again:?}");
    assert_eq!(again.said(), ("replayed", "not-sent"));
    assert_flawless(house.kraken());
}

#[tokio::test]
async fn all_proofs_of_one_request_name_one_client() {
    let house = House::with(LOCAL).await;
    let keys = house.local_key("bot-b", "kraken_main");
    let nonce = fresh_nonce();
    let body = format!("nonce={nonce}");
    let head = kraken_head(&keys, "/0/private/Balance", nonce, &body);
    let told = house.ask(KRAKEN, Some("bot-a"), "POST /0/private/Balance", &head, &body).await;
    assert_eq!(told.said(), ("credential_field_not_allowed", "not-sent"), "{told:?}");
    let bearer = format!("authorization: Bearer {}\r\n", house.token("viewer"));
    let told = house.ask(KRAKEN, Some("bot-a"), "POST /0/private/Balance", &bearer, "nonce=1").await;
    assert_eq!((told.status, told.said()), (403, ("identity_mismatch", "not-sent")));
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn public_data_is_for_everybody_where_the_policy_says_so() {
    let house = House::with(LOCAL).await;
    let told = house.ask(KRAKEN, None, "GET /0/public/Time", "api-key: x\r\ncookie: a=b\r\n", "").await;
    assert!(told.json()["result"]["unixtime"].is_u64(), "{told:?}");
    let told = house.ask("api-pub.bitfinex.com", None, "GET /v2/platform/status", "", "").await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_flawless(house.kraken());
    assert_flawless(house.bitfinex());

    let house = House::open().await;
    let told = house.ask(KRAKEN, None, "GET /0/public/Time", "", "").await;
    assert_eq!((told.json()["error"][0].as_str(), told.said().1), (Some("EAPI:Invalid key"), "not-sent"));
    let bearer = format!("authorization: Bearer {}\r\n", house.token("viewer"));
    let told = house.ask(KRAKEN, None, "GET /0/public/Time", &bearer, "").await;
    assert!(told.json()["result"]["unixtime"].is_u64(), "{told:?}");
}

// ---- What is refused -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn what_the_grant_does_not_say_is_refused_and_not_sent() {
    let house = House::with(LOCAL).await;
    let viewer = house.local_key("viewer", "kraken_main");
    let told = house.kraken_call(&viewer, "AddOrder", "ordertype=market&type=buy&pair=XBTUSD&volume=1").await;
    assert_eq!(told.json()["error"][0], "EGeneral:Permission denied", "{told:?}");
    assert_eq!(told.said(), ("scope_denied", "not-sent"));
    assert_eq!(told.json()["countersign"], "scope_denied");
    let bot = house.local_key("bot-a", "kraken_main");
    for (method, fields, reason) in [
        ("Withdraw", "asset=XBT&key=mine&amount=1", "scope_denied"),
        ("WalletTransfer", "asset=XBT&from=a&to=b&amount=1", "scope_denied"),
        ("GetApiKeyInfo", "", "scope_denied"),
        ("CreatePrimeApiUserKey", "", "method_not_allowed"),
        ("NoSuchMethod", "", "method_not_allowed"),
    ] {
        let told = house.kraken_call(&bot, method, fields).await;
        assert_eq!(told.said(), (reason, "not-sent"), "{method}: {told:?}");
    }
    let bot = house.local_key("bot-a", "bitfinex_main");
    for (path, reason) in [("auth/w/withdraw", "scope_denied"), ("auth/w/token", "method_not_allowed")] {
        let told = house.bitfinex_call(&bot, path, r#"{"scope":"api"}"#).await;
        assert_eq!((told.status, told.said()), (500, (reason, "not-sent")), "{path}");
    }
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn a_path_with_a_second_reading_is_a_bad_request() {
    let house = House::with(LOCAL).await;
    for path in [
        "/0/public/../private/Withdraw",
        "/0/public/%2e%2e/private/Withdraw",
        "/0//private/Withdraw",
        "//0/private/Withdraw",
        "/0/private/Withdraw;x",
        "/0/private/Withdraw%00",
        "/0/private/./Withdraw",
        "/0/private\\Withdraw",
    ] {
        let told = house.ask(KRAKEN, Some("bot-a"), &format!("POST {path}"), "", "nonce=1").await;
        assert_eq!((told.status, told.header("countersign-upstream")), (400, Some("not-sent")), "{path}: {told:?}");
    }
    let elsewhere = house.ask(KRAKEN, Some("bot-a"), "POST https://evil.example/0/private/Balance", "", "").await;
    assert!(matches!(elsewhere.status, 400 | 421), "{elsewhere:?}");
    for query in ["pair=XBT%0d%0aX-Evil:1", "pair=%00", "pair=%zz"] {
        let told = house.ask(KRAKEN, None, &format!("GET /0/public/Ticker?{query}"), "", "").await;
        assert_eq!((told.status, told.said()), (400, ("query_not_plain", "not-sent")), "{query}");
    }
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn a_parameter_that_is_named_twice_is_refused() {
    let house = House::with(LOCAL).await;
    let keys = house.local_key("bot-a", "kraken_main");
    for fields in ["type=buy&type=sell", "type=buy&%74ype=sell", "type=buy&Type=sell", "nonce=2"] {
        let told = house.kraken_call(&keys, "AddOrder", fields).await;
        assert_eq!(told.said(), ("malformed_message", "not-sent"), "{fields}: {told:?}");
    }
    let keys = house.local_key("bot-a", "bitfinex_main");
    let told = house.bitfinex_call(&keys, "auth/w/order/submit", r#"{"amount":"1","amount":"-1"}"#).await;
    assert_eq!(told.said(), ("malformed_message", "not-sent"), "{told:?}");
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn a_body_that_is_too_long_or_packed_is_refused() {
    let house = House::with(&format!("{LOCAL}\n[limits]\nrequest_body_bytes_max = 1000\n")).await;
    let long = "x".repeat(1001);
    let told = house.ask(KRAKEN, Some("bot-a"), "POST /0/private/Balance", "", &long).await;
    assert_eq!((told.status, told.said()), (413, ("body_too_large", "not-sent")));
    let chunked = "transfer-encoding: chunked\r\n";
    let request =
        format!("POST /0/private/Balance HTTP/1.1\r\nhost: localhost\r\n{chunked}\r\n3e9\r\n{long}\r\n0\r\n\r\n");
    let mut stream = house.tls_as(Some("bot-a"), KRAKEN).await.unwrap();
    let request = request.replace("localhost", KRAKEN);
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
    assert_eq!(house::status_of(&answer), 413);
    let told = house.ask(KRAKEN, Some("bot-a"), "POST /0/private/Balance", "content-encoding: gzip\r\n", "x").await;
    assert_eq!((told.status, told.said()), (415, ("body_encoded", "not-sent")));
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let house = House::with(&format!("{LOCAL}\n[limits]\nrequest_body = \"100ms\"\n")).await;
    let mut stream = house.tls_as(Some("bot-a"), KRAKEN).await.unwrap();
    let head = format!("POST /0/private/Balance HTTP/1.1\r\nhost: {KRAKEN}\r\ncontent-length: 10\r\n\r\nnon");
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
    let _ = tokio::time::timeout(house::PATIENCE, reading).await.expect("the house waits for ever");
    assert_eq!(house::status_of(&answer), 408);
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn a_request_that_policy_refuses_is_not_asked_to_continue() {
    let house = House::open().await;
    let bearer = format!("authorization: Bearer {}\r\n", house.token("nobody-knows"));
    let mut stream = house.tls_as(None, KRAKEN).await.unwrap();
    let expects = format!("POST /0/private/Balance HTTP/1.1\r\nhost: {KRAKEN}\r\nexpect: 100-continue\r\n{bearer}");
    let head = format!("{expects}content-length: 7\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
    let _ = tokio::time::timeout(house::PATIENCE, reading).await.expect("the house waits for the body");
    assert_eq!(house::status_of(&answer), 403);
}

// ---- Tokens for sockets ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_bot_buys_a_placeholder_and_trades_on_the_socket_with_it() {
    let house = House::with(LOCAL).await;
    let keys = house.local_key("bot-a", "kraken_main");
    let told = house.kraken_call(&keys, "GetWebSocketsToken", "").await;
    let token = told.json()["result"]["token"].as_str().unwrap().to_owned();
    assert!(told.json()["result"]["expires"].as_u64().unwrap() > 0, "{told:?}");
    house.assert_nothing_upstream();
    for secret in [&keys.0, &keys.1, &token] {
        house.kraken().forbid(secret);
    }

    let mut bot = house.upgrade_at("ws-auth.kraken.com", "/v2", &[], None).await.unwrap();
    assert_eq!(bot.json().await["channel"], "status");
    bot.say(r#"{"method":"ping","req_id":1}"#).await;
    assert_eq!(bot.json_where(|it| it["req_id"] == 1).await["method"], "pong");
    assert_eq!(house.kraken().tcp_connections(), 0, "a ping is no proof");
    let subscribe = |id: u32, token: &str| {
        format!(r#"{{"method":"subscribe","params":{{"channel":"balances","token":"{token}"}},"req_id":{id}}}"#)
    };
    bot.say(subscribe(2, "not a token of ours")).await;
    let told = bot.json_where(|it| it["req_id"] == 2).await;
    assert_eq!((&told["error"], &told["countersign"]), (&"ESession:Invalid session".into(), &"auth_required".into()));
    assert_eq!(house.kraken().tcp_connections(), 0);
    bot.say(subscribe(3, &token)).await;
    assert_eq!(bot.json_where(|it| it["req_id"] == 3).await["success"], true);

    // Proved, any other dummy does; what was issued to another client does not.
    bot.say(subscribe(4, "dummy").replace("subscribe", "unsubscribe")).await;
    let told = bot.json_where(|it| it["req_id"] == 4).await;
    assert_eq!(told["success"], true, "{told}");
    let other = house.kraken_call(&house.local_key("bot-b", "kraken_main"), "GetWebSocketsToken", "").await;
    bot.say(subscribe(5, other.json()["result"]["token"].as_str().unwrap())).await;
    let told = bot.json_where(|it| it["req_id"] == 5).await;
    assert_eq!(told["countersign"], "credential_field_not_allowed", "{told}");
    assert_flawless(house.kraken());
}

#[tokio::test]
async fn a_placeholder_ends_with_the_token_that_bought_it_and_is_worth_nothing_elsewhere() {
    let house = House::with(LOCAL).await;
    let bearer = format!("authorization: Bearer {}\r\n", house.token("viewer"));
    let told = house.ask(KRAKEN, None, "POST /0/private/GetWebSocketsToken", &bearer, "").await;
    let result = told.json()["result"].clone();
    assert!((850..=906).contains(&result["expires"].as_u64().unwrap()), "{told:?}");
    let token = result["token"].as_str().unwrap();
    let mut bot = house.upgrade_at("ws-auth.kraken.com", "/v2", &[], None).await.unwrap();
    let order = r#""order_type":"market","side":"buy","symbol":"BTC/USD","order_qty":1"#;
    bot.say(format!(r#"{{"method":"add_order","params":{{"token":"{token}",{order}}},"req_id":1}}"#)).await;
    assert_eq!(bot.json_where(|it| it["req_id"] == 1).await["error"], "EGeneral:Permission denied");
    // As a bearer token it is none.
    let bearer = format!("authorization: Bearer {token}\r\n");
    let told = house.ask(KRAKEN, None, "POST /0/private/Balance", &bearer, "").await;
    assert_eq!((told.status, told.said()), (401, ("auth_invalid", "not-sent")));
}

#[tokio::test]
async fn a_bitfinex_bot_logs_in_late_with_its_local_key() {
    let house = House::with(LOCAL).await;
    let (key, secret) = house.local_key("bot-a", "bitfinex_main");
    house.bitfinex().forbid(&key);
    house.bitfinex().forbid(&secret);
    let auth = |key: &str, secret: &str| {
        let nonce = fresh_nonce();
        let signer = house::signer(&(key.to_owned(), secret.to_owned()), countersign::credential::SecretFormat::Text);
        let signature = hex::encode(signer.hmac_sha384(&[format!("AUTH{nonce}").as_bytes()]));
        format!(
            r#"{{"event":"auth","apiKey":"{key}","authSig":"{signature}","authNonce":{nonce},"authPayload":"AUTH{nonce}","apiSecret":"{secret}","dms":4}}"#
        )
    };
    let mut bot = house.upgrade_at("api.bitfinex.com", "/ws/2", &[], None).await.unwrap();
    assert_eq!(bot.json().await["event"], "info");
    let wrong = auth(&key, "another secret");
    bot.say(wrong).await;
    let told = bot.json_where(|it| it["event"] == "auth").await;
    assert_eq!((&told["status"], &told["code"]), (&"FAILED".into(), &10_100.into()), "{told}");
    assert_eq!(house.bitfinex().tcp_connections(), 0);

    // Public data first, as everybody may have it: the same socket then rises to the bot's own.
    bot.say(r#"{"event":"subscribe","channel":"ticker","symbol":"tBTCUSD"}"#).await;
    bot.json_where(|it| it["event"] == "subscribed").await;
    let good = auth(&key, &secret);
    bot.say(good.clone()).await;
    assert_eq!(bot.json_where(|it| it["event"] == "auth").await["status"], "OK");
    bot.say(r#"[0,"on",null,{"cid":1,"type":"EXCHANGE LIMIT","symbol":"tBTCUSD","price":"100","amount":"1"}]"#).await;
    let told = bot.json_where(|it| it[1] == "n" && it[2][1] == "on-req").await;
    assert_eq!(told[2][6], "SUCCESS", "{told}");
    assert_eq!(house.bitfinex().sockets_opened(), 1);

    // What was sent once proves nothing a second time.
    let mut thief = house.upgrade_at("api.bitfinex.com", "/ws/2", &[], None).await.unwrap();
    thief.say(good).await;
    let told = thief.json_where(|it| it["event"] == "auth").await;
    assert_eq!((&told["status"], &told["code"]), (&"FAILED".into(), &10_114.into()), "{told}");
    assert_flawless(house.bitfinex());
}

// ---- Whose request it is, and for how long ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_order_goes_to_the_account_whose_key_signed_it_or_nowhere() {
    let more = "[accounts.kraken_sub]\nvenue = \"kraken\"\nupstream = \"simulator\"\n\
                [[grants]]\nclient = \"key:bot-a\"\naccount = \"kraken_sub\"\nscope = [\"read\", \"trade\"]\n";
    let house = House::with(&format!("{LOCAL}\n{more}")).await;
    let keys = house.local_key("bot-a", "kraken_sub");
    let nonce = fresh_nonce();
    let body = format!("nonce={nonce}&ordertype=market&type=buy&pair=XBTUSD&volume=1");
    let head = kraken_head(&keys, "/0/private/AddOrder", nonce, &body);
    // The certificate alone would lead to the other account.
    let told = house.ask(KRAKEN, Some("bot-a"), "POST /0/private/AddOrder", &head, &body).await;
    assert_eq!(told.said(), ("credential_field_not_allowed", "not-sent"), "{told:?}");
    house.assert_nothing_upstream();
    let told = house.ask(KRAKEN, None, "POST /0/private/AddOrder", &head, &body).await;
    assert_eq!(told.json()["error"].as_array().unwrap().len(), 0, "{told:?}");
}

#[tokio::test]
async fn a_grant_that_goes_while_the_body_comes_is_gone() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let house = House::open().await;
    let bearer = format!("authorization: Bearer {}\r\n", house.token("bot-a"));
    let body = "nonce=1&ordertype=market&type=buy&pair=XBTUSD&volume=1";
    let mut stream = house.tls_as(None, KRAKEN).await.unwrap();
    let head = format!("POST /0/private/AddOrder HTTP/1.1\r\nhost: {KRAKEN}\r\nexpect: 100-continue\r\n{bearer}");
    let form = "content-type: application/x-www-form-urlencoded\r\nconnection: close\r\n";
    stream.write_all(format!("{head}{form}content-length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");

    let file = house.folder.path().join("proxy.toml");
    let toml = std::fs::read_to_string(&file).unwrap().replace("client = \"jwt:bot-a\"", "client = \"jwt:bot-z\"");
    std::fs::write(&file, toml).unwrap();
    let config = countersign::cli::assemble::read(Some(&file), &[]).unwrap();
    house.running.regrant(&config).unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("countersign-upstream: not-sent"), "{answer}");
    house.assert_nothing_upstream();
}
