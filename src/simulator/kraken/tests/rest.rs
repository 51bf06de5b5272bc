//! The REST methods that client libraries call beside orders.

use super::*;
use crate::simulator::Permissions;

/// Private methods that only look (docs.kraken.com, "Spot REST API").
const QUERIES: [&str; 28] = [
    "Balance",
    "BalanceEx",
    "TradeBalance",
    "CreditLines",
    "OpenOrders",
    "ClosedOrders",
    "QueryOrders",
    "OrderAmends",
    "TradesHistory",
    "QueryTrades",
    "OpenPositions",
    "Ledgers",
    "QueryLedgers",
    "TradeVolume",
    "GetApiKeyInfo",
    "ListWalletAccounts",
    "AddExport",
    "ExportStatus",
    "RemoveExport",
    "DepositMethods",
    "DepositStatus",
    "WithdrawMethods",
    "WithdrawInfo",
    "WithdrawStatus",
    "Earn/Strategies",
    "Earn/Allocations",
    "Earn/AllocateStatus",
    "Earn/DeallocateStatus",
];
/// Private methods that move money, or make users and keys.
const MOVES: [&str; 8] = [
    "Withdraw",
    "WithdrawCancel",
    "WalletTransfer",
    "AccountTransfer",
    "Earn/Allocate",
    "Earn/Deallocate",
    "CreateSubaccount",
    "CreatePrimeApiUserKey",
];

#[tokio::test]
async fn every_method_that_looks_answers() {
    let mut setting = Setting::new().await;
    for method in QUERIES {
        let answer = setting.call(method, "").await;
        assert_eq!(answer["error"], json!([]), "{method}");
        assert!(answer.get("result").is_some(), "{method}");
    }
    assert_eq!(setting.call("Nonsense", "").await["error"][0], "EGeneral:Unknown method");
}

#[tokio::test]
async fn a_key_that_may_not_move_money_does_not_and_one_that_may_is_counted() {
    let mut setting = Setting::new().await;
    for method in MOVES {
        assert_eq!(setting.call(method, "").await["error"][0], "EGeneral:Permission denied", "{method}");
    }
    assert_eq!(setting.simulator.exchange().withdrawals(KEY), 0);

    let tls = Certified::new();
    let all = Permissions { read: true, trade: true, websocket: true, transfer: true };
    let key = SimKey { permissions: all, ..SimKey::new(KEY, SECRET) };
    let options = Options::kraken(tls.acceptor.clone(), vec![key]);
    let clock = options.clock.clone();
    let mut setting = Setting { tls, simulator: start(options).await.unwrap(), clock, step: 0 };
    for method in MOVES {
        assert_eq!(setting.call(method, "").await["error"], json!([]), "{method}");
    }
    assert_eq!(setting.simulator.exchange().withdrawals(KEY), 5);
}

#[tokio::test]
async fn trades_are_found_again_in_the_ledger() {
    let mut setting = Setting::new().await;
    let order = "pair=XBTUSD&type=buy&ordertype=limit&price=100&volume=2";
    let id = setting.call("AddOrder", order).await["result"]["txid"][0].as_str().unwrap().to_owned();
    assert!(setting.simulator.exchange().fill(&id, 2.0));
    let ledger = setting.call("Ledgers", "").await["result"]["ledger"].clone();
    let entries: Vec<_> = ledger.as_object().unwrap().iter().collect();
    let amounts: Vec<_> = entries.iter().map(|(_, entry)| (&entry["asset"], &entry["amount"])).collect();
    assert_eq!(amounts, [(&json!("XXBT"), &json!("2")), (&json!("ZUSD"), &json!("-200"))]);
    let one = setting.call("QueryLedgers", &format!("id={}", entries[0].0)).await;
    assert_eq!(one["result"], json!({entries[0].0: entries[0].1}));
    assert_eq!(setting.call("QueryLedgers", "id=LNONE").await["result"], json!({}));
}

#[tokio::test]
async fn an_order_may_be_nested_in_brackets() {
    let mut setting = Setting::new().await;
    let order = "pair=XBTUSD&type=buy&ordertype=limit&price=100&volume=2";
    let told = setting.call("AddOrder", &format!("{order}&close[ordertype]=limit&close%5Bprice%5D=110")).await;
    assert_eq!(told["result"]["descr"]["close"], "close position @ limit 110");
    let batch = "pair=XBTUSD&orders[0][ordertype]=limit&orders[0][type]=buy&orders[0][price]=100&orders[0][volume]=1\
                 &orders[1][ordertype]=market&orders[1][type]=nonsense&orders[1][volume]=1";
    let told = setting.call("AddOrderBatch", batch).await;
    assert!(told["result"]["orders"][0]["txid"].is_string(), "{told}");
    assert_eq!(told["result"]["orders"][1]["error"], "EGeneral:Invalid arguments:type");
    assert_eq!(setting.simulator.exchange().open_orders(KEY).len(), 2);
    let told = setting.call("AddOrder", &format!("{order}&close[price]=1&close[price]=2")).await;
    assert!(told["error"][0].as_str().unwrap().starts_with("EGeneral:Invalid arguments"), "{told}");
}

#[tokio::test]
async fn a_body_that_is_neither_a_form_nor_json_is_not_read() {
    let setting = Setting::new().await;
    for (kind, is_read) in
        [("application/x-www-form-urlencoded; charset=utf-8", true), ("text/plain", false), ("application/json", false)]
    {
        let headers = [("api-key", KEY), ("api-sign", "AAAA"), ("content-type", kind)];
        let (_, answer) = setting.tls.post(&setting.simulator, "/0/private/Balance", &headers, "nonce=1").await;
        let error = answer["error"][0].as_str().unwrap();
        assert_eq!(error == "EAPI:Invalid signature", is_read, "{kind}: {error}");
    }
}

#[tokio::test]
async fn market_data_is_for_every_pair_that_is_asked_for() {
    let setting = Setting::new().await;
    let ask = async |method: &str, path: &str| {
        setting.tls.request(&setting.simulator, method, &format!("/0/public/{path}"), &[], "").await
    };
    for (path, pairs) in
        [("Ticker", 6), ("Ticker?pair=XBTUSD,ETHUSD", 2), ("AssetPairs", 6), ("AssetPairs?pair=XBTUSD", 1)]
    {
        assert_eq!(ask("GET", path).await.1["result"].as_object().unwrap().len(), pairs, "{path}");
    }
    for path in ["Trades", "Spread", "OHLC", "Depth"] {
        let (_, answer) = ask("GET", &format!("{path}?pair=XBTUSD&count=2")).await;
        assert!(answer["result"]["XXBTZUSD"].is_array() || answer["result"]["XXBTZUSD"].is_object(), "{path}");
        assert_eq!(ask("GET", path).await.1["error"][0], "EGeneral:Invalid arguments:pair", "{path}");
        assert_eq!(ask("GET", &format!("{path}?pair=NONE")).await.1["error"][0], "EQuery:Unknown asset pair");
    }
    let (_, book) = ask("GET", "Depth?pair=XBTUSD&count=2").await;
    let book = &book["result"]["XXBTZUSD"];
    assert_eq!((book["bids"].as_array().unwrap().len(), &book["asks"][1][0]), (2, &json!("60000.2")));
    assert_eq!(ask("HEAD", "Time").await, (200, Value::Null));
    assert_eq!(ask("POST", "Time").await.0, 405);
}
