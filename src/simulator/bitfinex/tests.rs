//! The simulated Bitfinex over its real socket, against a client that knows nothing of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod rest;

use super::*;
use crate::simulator::testing::{Certified, Client, LIMIT, nonce};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha384;

const KEY: &str = "simulated-key";
const SECRET: &str = "dummysecret";

struct Setting {
    tls: Certified,
    simulator: Running<Bitfinex>,
    clock: SimClock,
    step: u64,
}

impl Setting {
    async fn new() -> Self {
        let tls = Certified::new();
        let options = Options::bitfinex(tls.acceptor.clone(), vec![SimKey::new(KEY, SECRET)]);
        let clock = options.clock.clone();
        Self { tls, simulator: start(options).await.unwrap(), clock, step: 0 }
    }

    fn nonce(&mut self) -> u64 {
        self.step += 1;
        nonce(&self.clock, self.step)
    }

    async fn socket(&self) -> Client {
        self.tls.socket(&self.simulator, "api.bitfinex.com", "/ws/2").await
    }

    async fn logged_in(&mut self, more: &Value) -> Client {
        let mut socket = self.socket().await;
        let mut auth = login(self.nonce(), SECRET);
        for (name, value) in more.as_object().into_iter().flatten() {
            auth[name] = value.clone();
        }
        socket.send(&auth).await;
        let answer = socket.expect("the login", |value| value["event"] == "auth").await;
        assert_eq!(answer["status"], "OK");
        socket
    }

    async fn post(&self, endpoint: &str, nonce: u64, body: &str) -> (u16, Value) {
        let signature = sign(SECRET, &format!("/api/v2/{endpoint}{nonce}{body}"));
        let nonce = nonce.to_string();
        let headers = [
            ("bfx-nonce", nonce.as_str()),
            ("bfx-apikey", KEY),
            ("bfx-signature", &signature),
            ("content-type", "application/json"),
        ];
        self.tls.post(&self.simulator, &format!("/v2/{endpoint}"), &headers, body).await
    }
}

fn sign(secret: &str, message: &str) -> String {
    let mut mac = Hmac::<Sha384>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn login(nonce: u64, secret: &str) -> Value {
    let payload = format!("AUTH{nonce}");
    json!({"event": "auth", "apiKey": KEY, "authSig": sign(secret, &payload), "authNonce": nonce, "authPayload": payload})
}

fn is_kind(value: &Value, kind: &str) -> bool {
    value[0] == 0 && value[1] == kind
}

async fn refused(socket: &mut Client) -> Value {
    let answer = socket.expect("the refusal", |value| value["event"] == "auth").await;
    assert_eq!(answer["status"], "FAILED");
    answer["code"].clone()
}

#[tokio::test]
async fn an_order_lives_from_on_to_oc() {
    let mut setting = Setting::new().await;
    let mut socket = setting.logged_in(&json!({"filter": null})).await;
    for kind in ["ps", "ws", "os", "fos", "fcs", "fls"] {
        socket.expect(kind, |value| is_kind(value, kind)).await;
    }
    let order = json!({"type": "EXCHANGE LIMIT", "symbol": "tBTCUSD", "amount": "0.5", "price": "100", "cid": 42});
    socket.send(&json!([0, "on", null, order])).await;
    let told = socket.expect("the notification", |value| is_kind(value, "n")).await;
    assert_eq!((&told[2][1], &told[2][4][2], &told[2][6]), (&json!("on-req"), &json!(42), &json!("SUCCESS")));
    let placed = socket.expect("the order", |value| is_kind(value, "on")).await;
    let id = placed[2][0].as_u64().unwrap();
    assert_eq!(setting.simulator.exchange().open_orders(KEY), [id]);
    let step = setting.nonce();
    let (status, open) = setting.post("auth/r/orders", step, "").await;
    assert_eq!((status, &open[0][0]), (200, &json!(id)));

    socket.send(&json!([0, "oc", null, {"id": id}])).await;
    let told = socket.expect("the notification", |value| is_kind(value, "n")).await;
    assert_eq!(told[2][1], "oc-req");
    assert_eq!(socket.expect("the order", |value| is_kind(value, "oc")).await[2][13], "CANCELED");
    socket.send(&json!([0, "oc", null, {"id": id}])).await;
    let told = socket.expect("the notification", |value| is_kind(value, "n")).await;
    assert_eq!(told[2][6], "ERROR");
    assert_eq!(setting.simulator.record().verdicts(), [""; 0]);
}

#[tokio::test]
async fn a_bad_signature_an_unknown_key_and_a_small_nonce_are_refused() {
    let mut setting = Setting::new().await;
    let first = setting.nonce();
    let mut socket = setting.socket().await;
    assert_eq!(socket.expect("the greeting", |_| true).await["version"], 2);
    socket.send(&login(first, "othersecret")).await;
    assert_eq!(refused(&mut socket).await, 10100);
    let mut unknown = login(first, SECRET);
    unknown["apiKey"] = json!("someone");
    socket.send(&unknown).await;
    assert_eq!(refused(&mut socket).await, 10100);
    // REST and sockets share one nonce.
    let (status, _) = setting.post("auth/r/wallets", first, "{}").await;
    assert_eq!(status, 200);
    socket.send(&login(first, SECRET)).await;
    assert_eq!(refused(&mut socket).await, 10114);
    socket.send(&login(9_007_199_254_740_992, SECRET)).await;
    assert_eq!(refused(&mut socket).await, 10114);
    socket.send(&login(first + 1, SECRET)).await;
    assert_eq!(socket.expect("the login", |value| value["event"] == "auth").await["status"], "OK");
    socket.send(&login(first + 2, SECRET)).await;
    assert_eq!(refused(&mut socket).await, 10101);
    let (status, error) = setting.post("auth/r/wallets", first + 1, "{}").await;
    assert_eq!((status, error), (500, json!(["error", 10114, "nonce: small"])));
    assert_eq!(setting.simulator.exchange().accepted_nonces(KEY), [first, first + 1]);
}

#[tokio::test]
async fn a_login_with_foreign_members_is_a_leak() {
    let mut setting = Setting::new().await;
    setting.logged_in(&json!({"apiSecret": SECRET, "agent": 1})).await;
    assert_eq!(setting.simulator.record().leaks(), 2);
    let verdicts = setting.simulator.record().verdicts().concat();
    assert!(verdicts.contains("apiSecret") && !verdicts.contains(SECRET), "{verdicts}");
}

#[tokio::test]
async fn the_dead_man_switch_cancels_on_close() {
    let mut setting = Setting::new().await;
    let mut watcher = setting.logged_in(&json!({})).await;
    let mut socket = setting.logged_in(&json!({"dms": 4})).await;
    let order = json!({"type": "EXCHANGE LIMIT", "symbol": "tBTCUSD", "amount": "1", "price": "100"});
    socket.send(&json!([0, "on", null, order])).await;
    watcher.expect("the order", |value| is_kind(value, "on")).await;
    drop(socket);
    watcher.expect("the cancellation", |value| is_kind(value, "oc")).await;
    assert!(setting.simulator.exchange().open_orders(KEY).is_empty());
}

#[tokio::test]
async fn a_filter_narrows_what_a_socket_is_told() {
    let mut setting = Setting::new().await;
    let mut socket = setting.logged_in(&json!({"filter": ["wallet-exchange-BTC"]})).await;
    assert_eq!(socket.expect("the first frame", |value| value[0] == 0).await[1], "ws");
    let order = json!({"type": "EXCHANGE MARKET", "symbol": "tBTCUSD", "amount": "1"});
    let step = setting.nonce();
    let (_, placed) = setting.post("auth/w/order/submit", step, &order.to_string()).await;
    assert_eq!((&placed[1], &placed[6]), (&json!("on-req"), &json!("SUCCESS")));
    let told = socket.expect("the next frame", |value| value[0] == 0).await;
    assert_eq!((&told[1], &told[2][1], &told[2][2]), (&json!("wu"), &json!("BTC"), &json!(1_000_001.0)));
}

#[tokio::test]
async fn flags_change_what_a_frame_looks_like() {
    let mut setting = Setting::new().await;
    let mut socket = setting.socket().await;
    socket.send(&json!({"event": "conf", "flags": 65_536})).await;
    assert_eq!(socket.expect("the answer", |value| value["event"] == "conf").await["status"], "OK");
    socket.send(&login(setting.nonce(), SECRET)).await;
    let first = socket.expect("the first frame", |value| value[0] == 0).await;
    assert_eq!((&first[3], &first[4]), (&json!(1), &json!(1)));
    socket.send(&json!({"event": "conf", "flags": 1})).await;
    assert_eq!(socket.expect("the refusal", |value| value["event"] == "error").await["code"], 10050);
}

#[tokio::test]
async fn public_channels_are_limited() {
    let setting = Setting::new().await;
    let mut socket = setting.socket().await;
    for minutes in 1..=25 {
        let key = format!("trade:{minutes}m:tBTCUSD");
        socket.send(&json!({"event": "subscribe", "channel": "candles", "key": key})).await;
        socket.expect("the subscription", |value| value["event"] == "subscribed").await;
    }
    socket.send(&json!({"event": "subscribe", "channel": "ticker", "symbol": "tBTCUSD"})).await;
    assert_eq!(socket.expect("the refusal", |value| value["event"] == "error").await["code"], 10305);
    socket.send(&json!({"event": "ping", "cid": 9})).await;
    assert_eq!(socket.expect("the pong", |value| value["event"] == "pong").await["cid"], 9);
}

#[tokio::test]
async fn a_batch_is_all_its_operations() {
    let mut setting = Setting::new().await;
    let mut socket = setting.logged_in(&json!({})).await;
    let order = json!({"type": "EXCHANGE LIMIT", "symbol": "tBTCUSD", "amount": "1", "price": "100", "gid": 5});
    socket.send(&json!([0, "ox_multi", null, [["on", order], ["on", order], ["oc_multi", {"gid": [5]}]]])).await;
    for kind in ["on-req", "on-req", "oc_multi-req"] {
        let told = socket.expect("the notification", |value| is_kind(value, "n")).await;
        assert_eq!(told[2][1], kind);
    }
    assert_eq!(setting.simulator.exchange().orders_placed(KEY), 2);
    assert!(setting.simulator.exchange().open_orders(KEY).is_empty());
}

#[tokio::test]
async fn money_moves_only_with_the_permission_and_tokens_are_noted() {
    let mut setting = Setting::new().await;
    let step = setting.nonce();
    let (status, error) = setting.post("auth/w/withdraw", step, r#"{"amount":"1"}"#).await;
    assert_eq!((status, error), (500, json!(["error", 10001, "api_key: permission invalid"])));
    assert_eq!(setting.simulator.exchange().withdrawals(KEY), 0);
    let step = setting.nonce();
    let (_, token) = setting.post("auth/w/token", step, r#"{"scope":"api"}"#).await;
    assert!(token[0].as_str().is_some_and(|token| token.starts_with("pub:api:")));
    assert_eq!(setting.simulator.record().tokens_minted(), 1);
    let noted = setting.simulator.record().wait_for(|entry| entry.text().contains("bearer credential"), LIMIT).await;
    assert!(noted.is_some());
}
