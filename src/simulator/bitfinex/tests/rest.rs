//! The REST endpoints that client libraries call beside orders.

use super::*;
use crate::simulator::Permissions;

/// Private endpoints that only look, whatever their path says (docs.bitfinex.com, "Authenticated endpoints").
const QUERIES: [&str; 24] = [
    "auth/r/wallets",
    "auth/r/wallets/hist",
    "auth/r/orders",
    "auth/r/orders/tBTCUSD",
    "auth/r/orders/hist",
    "auth/r/orders/tBTCUSD/hist",
    "auth/r/order/tTESTBTC:TESTUSD:1/trades",
    "auth/r/trades/hist",
    "auth/r/trades/tBTCUSD/hist",
    "auth/r/ledgers/hist",
    "auth/r/ledgers/USD/hist",
    "auth/r/positions",
    "auth/r/positions/hist",
    "auth/r/info/margin/base",
    "auth/r/info/funding/fUSD",
    "auth/r/funding/offers",
    "auth/r/funding/loans/fUSD/hist",
    "auth/r/summary",
    "auth/r/movements/USD/hist",
    "auth/r/permissions",
    "auth/r/info/user",
    "auth/r/logins/hist",
    "auth/calc/order/avail",
    "auth/w/deriv/collateral/limits",
];

#[tokio::test]
async fn every_endpoint_that_looks_answers_with_a_list() {
    let mut setting = Setting::new().await;
    for endpoint in QUERIES {
        let step = setting.nonce();
        let (status, answer) = setting.post(endpoint, step, "{}").await;
        assert!(status == 200 && answer.is_array(), "{endpoint}: {status} {answer}");
    }
    let step = setting.nonce();
    assert_eq!(setting.post("auth/r/nonsense", step, "{}").await, (500, json!(["error", 10020, "path: invalid"])));
}

#[tokio::test]
async fn a_key_that_may_not_move_money_does_not_and_one_that_may_is_counted() {
    let mut setting = Setting::new().await;
    let denied = (500, json!(["error", 10001, "api_key: permission invalid"]));
    for endpoint in ["auth/w/withdraw", "auth/w/transfer", "auth/w/deposit/address"] {
        let step = setting.nonce();
        assert_eq!(setting.post(endpoint, step, "{}").await, denied, "{endpoint}");
    }
    assert_eq!(setting.simulator.exchange().withdrawals(KEY), 0);

    let tls = Certified::new();
    let all = Permissions { read: true, trade: true, websocket: true, transfer: true };
    let key = SimKey { permissions: all, ..SimKey::new(KEY, SECRET) };
    let options = Options::bitfinex(tls.acceptor.clone(), vec![key]);
    let clock = options.clock.clone();
    let mut setting = Setting { tls, simulator: start(options).await.unwrap(), clock, step: 0 };
    let step = setting.nonce();
    assert_eq!(setting.post("auth/w/withdraw", step, "{}").await.1[6], "SUCCESS");
    assert_eq!(setting.simulator.exchange().withdrawals(KEY), 1);
}

#[tokio::test]
async fn an_order_that_is_over_is_history_under_its_symbol() {
    let mut setting = Setting::new().await;
    let order = r#"{"type":"EXCHANGE LIMIT","symbol":"tBTCUSD","amount":"0.5","price":"100"}"#;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let step = setting.nonce();
        ids.push(setting.post("auth/w/order/submit", step, order).await.1[4][0][0].as_u64().unwrap());
    }
    assert!(setting.simulator.exchange().fill(ids[0], 0.5));
    let step = setting.nonce();
    let (_, one) = setting.post("auth/r/orders", step, &format!(r#"{{"id":[{}]}}"#, ids[1])).await;
    assert_eq!((one.as_array().unwrap().len(), &one[0][0]), (1, &json!(ids[1])));
    for (endpoint, rows) in [
        ("auth/r/orders/tBTCUSD/hist", 1),
        ("auth/r/orders/tETHUSD/hist", 0),
        ("auth/r/trades/tBTCUSD/hist", 1),
        ("auth/r/trades/tETHUSD/hist", 0),
        (&format!("auth/r/order/tBTCUSD:{}/trades", ids[0]), 1),
        (&format!("auth/r/order/tBTCUSD:{}/trades", ids[1]), 0),
    ] {
        let step = setting.nonce();
        let (_, told) = setting.post(endpoint, step, "{}").await;
        assert_eq!(told.as_array().map(Vec::len), Some(rows), "{endpoint}: {told}");
    }
}

#[tokio::test]
async fn a_token_that_was_deleted_is_worth_nothing() {
    let mut setting = Setting::new().await;
    let step = setting.nonce();
    let (_, minted) = setting.post("auth/w/token", step, r#"{"scope":"api"}"#).await;
    let token = minted[0].as_str().unwrap().to_owned();
    let use_it = async |setting: &mut Setting| {
        let nonce = setting.nonce().to_string();
        let headers = [("bfx-nonce", nonce.as_str()), ("bfx-token", token.as_str())];
        setting.tls.post(&setting.simulator, "/v2/auth/r/orders", &headers, "{}").await.0
    };
    assert_eq!(use_it(&mut setting).await, 200);
    let step = setting.nonce();
    setting.post("auth/w/token/del", step, &json!({"token": token}).to_string()).await;
    assert_eq!(use_it(&mut setting).await, 500);
}

#[tokio::test]
async fn market_data_is_there_for_the_asking() {
    let setting = Setting::new().await;
    let ask = async |method: &str, path: &str, body: &str| {
        setting.tls.request(&setting.simulator, method, &format!("/v2/{path}"), &[], body).await
    };
    for path in ["platform/status", "conf/pub:list:currency", "tickers?symbols=ALL", "ticker/tTESTBTC:TESTUSD"] {
        assert_eq!(ask("GET", path, "").await.0, 200, "{path}");
    }
    for path in ["trades/tBTCUSD/hist", "candles/trade:1m:tBTCUSD/hist", "candles/trade:1m:tBTCUSD/last"] {
        let (status, told) = ask("GET", path, "").await;
        assert!(status == 200 && told[0] != Value::Null, "{path}: {told}");
    }
    // Raw books tell orders, others tell levels.
    assert_eq!(ask("GET", "book/tBTCUSD/P0", "").await.1[1], json!([60_001.0, 1, -1.0]));
    assert_eq!(ask("GET", "book/tBTCUSD/R0", "").await.1[1], json!([6, 60_001.0, -1.0]));
    for path in ["book/tBTCUSD/X9", "book/tNONE/P0", "ticker/tNONE", "candles/trade:1m:tNONE/hist"] {
        assert_eq!(ask("GET", path, "").await.1[1], 10020, "{path}");
    }
    let average = r#"{"symbol":"tBTCUSD","amount":"2"}"#;
    assert_eq!(ask("POST", "calc/trade/avg", average).await.1, json!([60_000.0, 2.0]));
    assert_eq!(ask("HEAD", "platform/status", "").await, (200, Value::Null));
    assert_eq!((ask("GET", "nonsense", "").await.0, ask("DELETE", "tickers", "").await.0), (404, 404));
}
