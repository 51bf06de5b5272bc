//! The simulated Kraken over its real socket, against a client that knows nothing of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod rest;

use super::*;
use crate::simulator::testing::{Certified, Client, LIMIT, nonce};
use crate::simulator::{Direction, Flood, Kind, MintFault, SocketAction};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

const KEY: &str = "simulated-key";
const SECRET: &str = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==";

struct Setting {
    tls: Certified,
    simulator: Running<Kraken>,
    clock: SimClock,
    step: u64,
}

impl Setting {
    async fn new() -> Self {
        let tls = Certified::new();
        let options = Options::kraken(tls.acceptor.clone(), vec![SimKey::new(KEY, SECRET)]);
        let clock = options.clock.clone();
        Self { tls, simulator: start(options).await.unwrap(), clock, step: 0 }
    }

    fn nonce(&mut self) -> u64 {
        self.step += 1;
        nonce(&self.clock, self.step)
    }

    async fn call(&mut self, method: &str, fields: &str) -> Value {
        let nonce = self.nonce();
        self.call_with(method, fields, nonce, SECRET).await
    }

    async fn call_with(&self, method: &str, fields: &str, nonce: u64, secret: &str) -> Value {
        let (path, body) = (format!("/0/private/{method}"), format!("nonce={nonce}&{fields}"));
        let mut mac = Hmac::<Sha512>::new_from_slice(&STANDARD.decode(secret).unwrap()).unwrap();
        mac.update(path.as_bytes());
        mac.update(&Sha256::digest(format!("{nonce}{body}")));
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let headers =
            [("api-key", KEY), ("api-sign", signature.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        self.tls.post(&self.simulator, &path, &headers, &body).await.1
    }

    async fn token(&mut self) -> String {
        let answer = self.call("GetWebSocketsToken", "").await;
        answer["result"]["token"].as_str().expect("a token was minted").to_owned()
    }

    async fn private_socket(&self) -> Client {
        self.tls.socket(&self.simulator, "ws-auth.kraken.com", "/v2").await
    }
}

fn subscribe(token: &str) -> Value {
    json!({"method": "subscribe", "params": {"channel": "executions", "token": token}, "req_id": 1})
}

fn is_answer(value: &Value) -> bool {
    value.get("success").is_some()
}

#[tokio::test]
async fn an_order_lives_from_add_to_cancel() {
    let mut setting = Setting::new().await;
    let token = setting.token().await;
    assert_eq!((token.len(), token.contains('/'), token.contains('+')), (43, true, true));
    let mut socket = setting.private_socket().await;
    let status = socket.expect("status", |_| true).await;
    assert_eq!(status["channel"], "status");

    socket.send(&subscribe(&token)).await;
    assert_eq!(socket.expect("the acknowledgement", is_answer).await["success"], true);
    socket.expect("the snapshot", |value| value["type"] == "snapshot" && value["sequence"] == 1).await;

    let order =
        json!({"order_type": "limit", "side": "buy", "symbol": "BTC/USD", "order_qty": 0.5, "limit_price": 100.5});
    let mut add = json!({"method": "add_order", "params": order, "req_id": 2});
    add["params"]["token"] = json!(token);
    socket.send(&add).await;
    let added = socket.expect("the order", is_answer).await;
    assert_eq!((&added["success"], &added["req_id"]), (&json!(true), &json!(2)));
    let id = added["result"]["order_id"].as_str().unwrap().to_owned();
    let update = socket.expect("the execution", |value| value["type"] == "update").await;
    assert_eq!((&update["sequence"], &update["data"][1]["exec_type"]), (&json!(2), &json!("new")));
    assert_eq!(setting.simulator.exchange().open_orders(KEY), [id.as_str()]);
    let open = setting.call("OpenOrders", "").await;
    assert_eq!(open["result"]["open"][&id]["vol"], "0.5");

    let cancel = json!({"method": "cancel_order", "params": {"order_id": [id, "OUNKNO-WNWNW-NWNWNW"], "token": token}});
    socket.send(&cancel).await;
    assert_eq!(socket.expect("the first answer", is_answer).await["success"], true);
    assert_eq!(socket.expect("the second answer", is_answer).await["error"], "EOrder:Unknown order");
    let update = socket.expect("the execution", |value| value["type"] == "update").await;
    assert_eq!(update["data"][0]["order_status"], "canceled");
    assert!(setting.simulator.exchange().open_orders(KEY).is_empty());
    assert_eq!(setting.simulator.record().verdicts(), [""; 0]);
    socket.close().await;
}

#[tokio::test]
async fn a_bad_signature_and_a_small_nonce_are_refused() {
    let mut setting = Setting::new().await;
    let wrong = "AAAAHW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==";
    let nonce = setting.nonce();
    assert_eq!(setting.call_with("Balance", "", nonce, wrong).await["error"][0], "EAPI:Invalid signature");
    // What was not signed has not used its nonce.
    assert_eq!(setting.call_with("Balance", "", nonce, SECRET).await["error"], json!([]));
    assert_eq!(setting.call_with("Balance", "", nonce, SECRET).await["error"][0], "EAPI:Invalid nonce");
    let record = setting.simulator.record();
    assert_eq!((record.signature_errors(), record.nonce_errors()), (1, 1));
    assert_eq!(setting.simulator.exchange().accepted_nonces(KEY), [nonce]);
}

#[tokio::test]
async fn a_token_ages_until_its_first_use_and_not_after() {
    let mut setting = Setting::new().await;
    let token = setting.token().await;
    let mut established = setting.private_socket().await;
    established.send(&subscribe(&token)).await;
    assert_eq!(established.expect("the acknowledgement", is_answer).await["success"], true);
    setting.clock.advance(Duration::from_secs(901));

    let mut late = setting.private_socket().await;
    late.send(&subscribe(&token)).await;
    let refused = late.expect("the refusal", is_answer).await;
    assert_eq!((&refused["error"], &refused["status"]), (&json!("ESession:Invalid session"), &json!("error")));
    established.send(&json!({"method": "cancel_all", "params": {"token": token}})).await;
    assert_eq!(established.expect("the count", is_answer).await["result"]["count"], 0);

    setting.simulator.exchange().invalidate_tokens();
    established.send(&json!({"method": "cancel_all", "params": {"token": token}})).await;
    assert_eq!(established.expect("the refusal", is_answer).await["error"], "ESession:Invalid session");
}

#[tokio::test]
async fn a_name_twice_is_refused_and_noted() {
    let mut setting = Setting::new().await;
    let token = setting.token().await;
    let mut socket = setting.private_socket().await;
    let text = format!(r#"{{"method":"ping","method":"cancel_all","params":{{"token":"{token}"}}}}"#);
    socket.send_text(&text).await;
    assert_eq!(socket.expect("the refusal", is_answer).await["success"], false);
    assert_eq!(setting.simulator.record().verdicts(), ["duplicate member"]);
}

#[tokio::test]
async fn each_host_refuses_what_belongs_to_the_other() {
    let mut setting = Setting::new().await;
    let token = setting.token().await;
    let ticker = json!({"method": "subscribe", "params": {"channel": "ticker", "symbol": ["BTC/USD"]}});
    let mut private = setting.private_socket().await;
    private.send(&ticker).await;
    assert_eq!(private.expect("the refusal", is_answer).await["success"], false);
    let mut public = setting.tls.socket(&setting.simulator, "ws.kraken.com", "/v2").await;
    public.send(&subscribe(&token)).await;
    assert_eq!(public.expect("the refusal", is_answer).await["success"], false);
    public.send(&ticker).await;
    assert_eq!(public.expect("the acknowledgement", is_answer).await["success"], true);
    assert_eq!(public.expect("the snapshot", |v| v["type"] == "snapshot").await["data"][0]["last"], 60_000.0);
    public.expect("a heartbeat", |value| value["channel"] == "heartbeat").await;
}

#[tokio::test]
async fn money_moves_only_with_the_permission() {
    let mut setting = Setting::new().await;
    let refused = setting.call("Withdraw", "asset=XBT&key=mine&amount=1").await;
    assert_eq!(refused["error"][0], "EGeneral:Permission denied");
    assert_eq!(setting.simulator.exchange().withdrawals(KEY), 0);
}

#[tokio::test]
async fn version_one_speaks_events() {
    let mut setting = Setting::new().await;
    setting.simulator.faults().set(|switches| switches.echo_token = true);
    let token = setting.token().await;
    let mut socket = setting.tls.socket(&setting.simulator, "ws-auth.kraken.com", "/").await;
    assert_eq!(socket.expect("the status", |_| true).await["event"], "systemStatus");
    socket.send(&json!({"event": "subscribe", "subscription": {"name": "openOrders", "token": token}})).await;
    let status = socket.expect("the subscription", |v| v["event"] == "subscriptionStatus").await;
    assert_eq!((&status["status"], &status["subscription"]["token"]), (&json!("subscribed"), &json!(token)));
    let order = json!({"event": "addOrder", "token": token, "ordertype": "limit", "type": "sell", "pair": "XBT/USD",
        "volume": "1", "price": "90000", "reqid": 5});
    socket.send(&order).await;
    let added = socket.expect("the order", |v| v["event"] == "addOrderStatus").await;
    assert_eq!((&added["status"], &added["reqid"]), (&json!("ok"), &json!(5)));
    socket.expect("the update", |v| v[1] == "openOrders" && v[2]["sequence"] == 2).await;
    socket.send(&json!({"event": "cancelOrder", "token": token, "txid": [added["txid"]]})).await;
    let canceled = socket.expect("the answer", |v| v["event"] == "cancelOrderStatus").await;
    assert_eq!(canceled["status"], "ok");
}

#[tokio::test]
async fn a_fill_moves_orders_trades_and_balances() {
    let mut setting = Setting::new().await;
    let token = setting.token().await;
    let mut socket = setting.private_socket().await;
    socket.send(&json!({"method": "subscribe", "params": {"channel": "balances", "token": token}})).await;
    socket.expect("the snapshot", |value| value["type"] == "snapshot").await;
    let placed = setting.call("AddOrder", "ordertype=limit&pair=XBTUSD&price=100&type=buy&volume=2").await;
    let id = placed["result"]["txid"][0].as_str().unwrap();
    assert!(setting.simulator.exchange().fill(id, 2.0));
    let update = socket.expect("the update", |value| value["type"] == "update").await;
    assert_eq!(update["data"][0], v2_orders::balance("BTC", 1_000_002.0));
    assert_eq!(setting.call("TradesHistory", "").await["result"]["count"], 1);
}

#[tokio::test]
async fn the_mint_fails_as_told() {
    let mut setting = Setting::new().await;
    let faults = setting.simulator.faults().clone();
    faults.set(|switches| switches.mint = MintFault::EmptyToken);
    assert_eq!(setting.token().await, "");
    faults.set(|switches| switches.mint = MintFault::Error("EService:Unavailable".into()));
    assert_eq!(setting.call("GetWebSocketsToken", "").await["error"][0], "EService:Unavailable");
    faults.clear();
    assert_eq!(setting.token().await.len(), 43);
    assert_eq!(setting.simulator.record().tokens_minted(), 1);
}

#[tokio::test]
async fn sockets_break_as_told() {
    let setting = Setting::new().await;
    let faults = setting.simulator.faults();
    for action in [SocketAction::Masked, SocketAction::ReservedBit, SocketAction::InvalidUtf8, SocketAction::Reset] {
        let mut socket = setting.private_socket().await;
        socket.expect("the status", |_| true).await;
        faults.act(action.clone());
        assert!(socket.next().await.is_some_and(|frame| frame.is_err()), "{action:?}");
    }
    let mut socket = setting.private_socket().await;
    socket.expect("the status", |_| true).await;
    faults.close_all(1012, "restart");
    let closed = socket.next().await.unwrap().unwrap();
    assert!(format!("{closed:?}").contains("restart"), "{closed:?}");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_still_heard() {
    let setting = Setting::new().await;
    let mut socket = setting.tls.socket(&setting.simulator, "localhost", "/v2").await;
    socket.send(&json!({"method": "subscribe", "params": {"channel": "ticker", "symbol": ["BTC/USD"]}})).await;
    socket.expect("the acknowledgement", is_answer).await;
    let flood = Flood { per_second: 2000, bytes: 16 * 1024 };
    setting.simulator.faults().set(|switches| switches.flood = Some(flood));
    // More than the system's buffers hold: the simulator's writing must be stuck by now.
    let record = setting.simulator.record();
    let full = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = record.bytes_sent();
            if now == before {
                return;
            }
            before = now;
        }
    };
    tokio::time::timeout(LIMIT, full).await.unwrap();
    socket.send(&json!({"method": "ping", "req_id": 77})).await;
    let heard = record.wait_for(|entry| entry.received(r#""req_id":77"#), LIMIT).await;
    assert_eq!(heard.map(|entry| entry.kind.clone()), Some(Kind::Frame));
}

#[tokio::test]
async fn what_is_forbidden_is_counted_wherever_it_comes() {
    let setting = Setting::new().await;
    let record = setting.simulator.record();
    record.forbid("local/secret");
    let headers = [("authorization", "Bearer local/secret")];
    setting.tls.post(&setting.simulator, "/0/private/Balance", &headers, "").await;
    assert_eq!(record.leaks(), 1);
    let mut socket = setting.private_socket().await;
    socket.send_text(r#"{"method":"ping","params":{"x":"local\/secret"}}"#).await;
    socket.expect("the pong", |value| value["method"] == "pong").await;
    assert_eq!(record.leaks(), 2);
}

#[tokio::test]
async fn a_request_can_be_executed_and_never_answered() {
    let mut setting = Setting::new().await;
    setting.simulator.faults().set(|switches| switches.hang_up = true);
    let answer = setting.call("AddOrder", "ordertype=limit&pair=XBTUSD&price=100&type=buy&volume=2").await;
    assert_eq!(answer, Value::Null);
    assert_eq!(setting.simulator.exchange().orders_placed(KEY), 1);
}

#[tokio::test]
async fn upgrades_are_refused_as_told_and_where_there_is_no_socket() {
    let setting = Setting::new().await;
    for (host, path) in [("api.kraken.com", "/v2"), ("ws.kraken.com", "/v3")] {
        assert_eq!(setting.tls.refused_socket(&setting.simulator, host, path).await, 404);
    }
    for status in [401, 403, 429, 503] {
        setting.simulator.faults().set(|switches| switches.handshake_status = Some(status));
        assert_eq!(setting.tls.refused_socket(&setting.simulator, "ws.kraken.com", "/v2").await, status);
    }
    assert_eq!(setting.simulator.record().sockets_opened(), 0);
}

#[tokio::test]
async fn a_stalled_socket_reads_nothing_until_it_is_let_go() {
    let setting = Setting::new().await;
    let faults = setting.simulator.faults();
    let mut socket = setting.private_socket().await;
    socket.expect("the status", |_| true).await;
    faults.set(|switches| switches.stall = true);
    // What it was waiting for when it was told may still be taken: the second cannot.
    for id in [1, 2] {
        socket.send(&json!({"method": "ping", "req_id": id})).await;
    }
    let record = setting.simulator.record();
    let heard = record.wait_for(|entry| entry.received(r#""req_id":2"#), Duration::from_millis(100)).await;
    assert!(heard.is_none());
    faults.clear();
    socket.expect("the pong", |value| value["req_id"] == 2).await;
}

#[tokio::test]
async fn a_silent_socket_is_closed_and_a_subscribed_one_is_not() {
    let tls = Certified::new();
    let mut options = Options::kraken(tls.acceptor.clone(), vec![SimKey::new(KEY, SECRET)]);
    options.idle_close = Duration::from_millis(100);
    let simulator = start(options).await.unwrap();
    let mut subscribed = tls.socket(&simulator, "ws.kraken.com", "/v2").await;
    subscribed.send(&json!({"method": "subscribe", "params": {"channel": "book", "symbol": ["BTC/USD"]}})).await;
    subscribed.expect("the book", |value| value["channel"] == "book").await;
    let silent = tls.socket(&simulator, "ws.kraken.com", "/v2").await;
    let noted = simulator.record().wait_for(|entry| entry.text() == "idle: closed", LIMIT).await;
    assert_eq!(noted.map(|entry| entry.connection), Some(2));
    assert_eq!(simulator.record().sockets_opened(), 2);
    silent.close().await;
    subscribed.send(&json!({"method": "ping"})).await;
    subscribed.expect("the pong", |value| value["method"] == "pong").await;
}

#[tokio::test]
async fn every_token_is_echoed_raw_and_escaped_when_told() {
    let mut setting = Setting::new().await;
    let token = setting.token().await;
    setting.simulator.faults().set(|switches| switches.echo = true);
    let mut socket = setting.private_socket().await;
    socket.send(&subscribe(&token)).await;
    for _ in 0..2 {
        let echo = socket.expect("the echo", is_answer).await;
        assert!(echo["error"].as_str().unwrap().contains(&token));
    }
    let sent = setting.simulator.record().snapshot();
    let escaped = token.replace('/', "\\/");
    assert!(sent.iter().any(|entry| entry.direction == Direction::Sent && entry.text().contains(&escaped)));
}

#[tokio::test]
async fn a_simulator_listens_on_loopback_alone() {
    let tls = Certified::new();
    let mut options = Options::kraken(tls.acceptor.clone(), Vec::new());
    options.address = "0.0.0.0:0".parse().unwrap();
    assert_eq!(start(options).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn stopping_ends_every_connection() {
    let setting = Setting::new().await;
    let mut socket = setting.private_socket().await;
    socket.expect("the status", |_| true).await;
    let record = setting.simulator.record().clone();
    assert_eq!((record.tcp_live(), record.sockets_live()), (1, 1));
    let Setting { simulator, tls: _tls, .. } = setting;
    tokio::join!(simulator.stop(), socket.close());
    assert_eq!((record.tcp_live(), record.sockets_live()), (0, 0));
    assert!(record.snapshot().iter().any(|entry| entry.direction == Direction::Internal && entry.kind == Kind::End));
}
