//! The simulated ProjectX over its real doors, against a client that knows nothing of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod hubs;
mod negotiating;
mod rest;

use super::*;
use crate::simulator::testing::{Certified, Client};
use serde_json::Value;
use std::collections::VecDeque;
use tokio_tungstenite::tungstenite::Message;

const USER: &str = "simulated-user";
const KEY: &str = "c2ltdWxhdGVkIGFwaSBrZXk=";
const CONTRACT: &str = "CON.F.US.EP.Z26";
const JSON: (&str, &str) = ("content-type", "application/json");

struct Setting {
    tls: Certified,
    simulator: Running<ProjectX>,
    clock: SimClock,
}

impl Setting {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let tls = Certified::new();
        let keys = vec![SimKey::new(USER, KEY), SimKey::new("somebody-else", "another key")];
        let mut options = Options::projectx(tls.acceptor.clone(), keys);
        change(&mut options);
        let clock = options.clock.clone();
        Self { tls, simulator: start(options).await.unwrap(), clock }
    }

    fn exchange(&self) -> &ProjectX {
        self.simulator.exchange()
    }

    fn verdicts(&self) -> Vec<String> {
        self.simulator.record().verdicts()
    }

    /// The user's first account.
    fn account(&self) -> i64 {
        self.exchange().accounts(USER)[0]
    }

    async fn log_in(&self) -> String {
        let login = json!({"userName": USER, "apiKey": KEY}).to_string();
        let (status, answer) = self.tls.post(&self.simulator, "/api/Auth/loginKey", &[JSON], &login).await;
        assert_eq!((status, &answer["success"]), (200, &json!(true)), "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    async fn post(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let headers = [JSON, ("authorization", &*bearer)];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.tls.post(&self.simulator, path, &headers, &body).await
    }

    /// A hub connection with its handshake done.
    async fn hub(&self, name: &str, token: &str) -> HubClient {
        let path = format!("/hubs/{name}?access_token={token}");
        let mut hub = HubClient::new(self.tls.socket(&self.simulator, "localhost", &path).await);
        hub.send(&json!({"protocol": "json", "version": 1})).await;
        assert_eq!(hub.next().await, Some(json!({})));
        hub
    }

    async fn place(&self, token: &str, more: &Value) -> u64 {
        let mut order = json!({"accountId": self.account(), "contractId": CONTRACT, "side": 0, "size": 1});
        for (name, value) in more.as_object().into_iter().flatten() {
            order[name] = value.clone();
        }
        let (_, answer) = self.post(token, "/api/Order/place", &order).await;
        assert_eq!(answer["success"], true, "{answer}");
        answer["orderId"].as_u64().unwrap()
    }
}

/// A client of a hub, record by record.
struct HubClient {
    socket: Client,
    records: VecDeque<Value>,
}

impl HubClient {
    fn new(socket: Client) -> Self {
        Self { socket, records: VecDeque::new() }
    }

    async fn send(&mut self, record: &Value) {
        self.socket.send_text(&format!("{record}\u{1e}")).await;
    }

    async fn invoke(&mut self, target: &str, arguments: &Value) -> Value {
        self.send(&json!({"type": 1, "invocationId": "7", "target": target, "arguments": arguments})).await;
        self.expect("the completion", |record| record["type"] == 3).await
    }

    /// The records of the next text message; none once the socket is closed.
    async fn message(&mut self) -> Option<Vec<Value>> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Text(text) => {
                    let records = text.strip_suffix('\u{1e}').expect("a message ends with its last record");
                    return Some(records.split('\u{1e}').map(|it| serde_json::from_str(it).unwrap()).collect());
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    async fn next(&mut self) -> Option<Value> {
        while self.records.is_empty() {
            let records = self.message().await?;
            self.records.extend(records);
        }
        self.records.pop_front()
    }

    async fn expect(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        while let Some(record) = self.next().await {
            if fits(&record) {
                return record;
            }
        }
        panic!("{what} did not come before the end")
    }

    async fn event(&mut self, target: &str) -> Value {
        let event = self.expect(target, |record| record["type"] == 1 && record["target"] == target).await;
        event["arguments"].clone()
    }
}
