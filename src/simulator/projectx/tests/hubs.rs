//! The hubs' protocol, and what subscribers are told.

use super::*;
use crate::simulator::SocketAction;
use crate::simulator::testing::LIMIT;

async fn hub_after(setting: &Setting, handshake: &Value) -> HubClient {
    let token = setting.log_in().await;
    let path = format!("/hubs/user?access_token={token}");
    let mut hub = HubClient::new(setting.tls.socket(&setting.simulator, "localhost", &path).await);
    hub.send(handshake).await;
    hub
}

#[tokio::test]
async fn a_handshake_that_does_not_fit_is_refused_and_closed() {
    let setting = Setting::new().await;
    for (is_strict, handshake, is_taken) in [
        (false, json!({"protocol": "json", "version": 1}), true),
        (false, json!({"protocol": "json", "version": 0}), true),
        (true, json!({"protocol": "json", "version": 1}), true),
        (true, json!({"protocol": "json", "version": 0}), false),
        (true, json!({"protocol": "json", "version": 2}), false),
        (false, json!({"protocol": "json"}), false),
        (false, json!({"protocol": "messagepack", "version": 1}), false),
        (false, json!({"type": 6}), false),
    ] {
        setting.simulator.faults().set(|switches| switches.strict_handshake = is_strict);
        let mut hub = hub_after(&setting, &handshake).await;
        let answer = hub.next().await.unwrap();
        assert_eq!(answer == json!({}), is_taken, "{handshake}: {answer}");
        if !is_taken {
            assert!(answer["error"].is_string(), "{answer}");
            assert_eq!(hub.next().await, None);
        }
    }
}

#[tokio::test]
async fn a_handshake_may_be_answered_together_with_an_event() {
    let setting = Setting::new().await;
    setting.simulator.faults().set(|switches| switches.coalesced_handshake = true);
    let mut hub = hub_after(&setting, &json!({"protocol": "json", "version": 1})).await;
    let records = hub.message().await.unwrap();
    assert_eq!((records.len(), &records[0], &records[1]["target"]), (2, &json!({}), &json!("GatewayUserAccount")));
}

#[tokio::test]
async fn an_order_is_told_to_who_subscribed_to_its_account() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let (account, other) = (setting.account(), setting.exchange().accounts(USER)[1]);
    let mut hub = setting.hub("user", &token).await;
    let mut elsewhere = setting.hub("user", &token).await;
    assert_eq!(elsewhere.invoke("SubscribeOrders", &json!([other])).await["result"], Value::Null);
    for method in ["SubscribeOrders", "subscribePOSITIONS", "SubscribeTrades"] {
        let told = hub.invoke(method, &json!([account])).await;
        assert_eq!(told, json!({"type": 3, "invocationId": "7", "result": null}));
    }
    hub.invoke("SubscribeAccounts", &json!([])).await;
    assert_eq!(setting.exchange().subscriptions(), 5);

    let id = setting.place(&token, &json!({"type": 1, "limitPrice": 6400})).await;
    let order = hub.event("GatewayUserOrder").await;
    assert_eq!((&order[0]["action"], &order[0]["data"]["id"]), (&json!(1), &json!(id)));
    assert!(setting.exchange().fill(id, 1));
    assert_eq!(hub.event("GatewayUserOrder").await[0]["data"]["status"], 2);
    assert_eq!(hub.event("GatewayUserPosition").await[0]["data"]["size"], 1);
    assert_eq!(hub.event("GatewayUserTrade").await[0]["data"]["orderId"], id);
    assert_eq!(hub.event("GatewayUserAccount").await[0]["data"]["id"], account);

    setting.simulator.faults().set(|switches| switches.unwrapped_events = true);
    hub.invoke("UnsubscribeTrades", &json!([account])).await;
    setting.place(&token, &json!({"type": 2})).await;
    assert_eq!(hub.event("GatewayUserOrder").await[0]["accountId"], account);
    let next =
        hub.expect("the account", |it| it["target"] != "GatewayUserOrder" && it["target"] != "GatewayUserPosition");
    assert_eq!(next.await["target"], "GatewayUserAccount", "trades were unsubscribed");

    let elsewhere_told = elsewhere.invoke("UnsubscribeOrders", &json!([other])).await;
    assert_eq!(elsewhere_told["type"], 3);
    assert!(elsewhere.records.is_empty());
    assert_eq!(setting.verdicts(), [""; 0]);
}

#[tokio::test]
async fn quotes_are_whole_at_first_and_sparse_after() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let mut hub = setting.hub("market", &token).await;
    assert_eq!(setting.exchange().publish_quote(CONTRACT), 0);
    hub.invoke("SubscribeContractQuotes", &json!([CONTRACT])).await;
    let whole = hub.event("GatewayQuote").await;
    assert_eq!((&whole[0], &whole[1]["bestBid"]), (&json!(CONTRACT), &json!(6500.0)));
    assert_eq!(setting.exchange().publish_quote(CONTRACT), 1);
    let sparse = hub.event("GatewayQuote").await;
    assert_eq!((&sparse[1]["lastPrice"], &sparse[1]["bestBid"]), (&json!(6500.25), &Value::Null));

    hub.invoke("SubscribeContractTrades", &json!([CONTRACT])).await;
    hub.invoke("SubscribeContractMarketDepth", &json!([CONTRACT])).await;
    assert_eq!(setting.exchange().publish_trade(CONTRACT), 1);
    assert_eq!(hub.event("GatewayTrade").await[1][0]["price"], 6500.25);
    assert_eq!(setting.exchange().publish_depth(CONTRACT), 1);
    assert_eq!(hub.event("GatewayDepth").await[1].as_array().unwrap().len(), 2);
    assert_eq!(setting.exchange().publish_coalesced(CONTRACT), 1);
    let targets: Vec<_> = hub.message().await.unwrap().into_iter().map(|record| record["target"].clone()).collect();
    assert_eq!(targets, ["GatewayQuote", "GatewayTrade", "GatewayDepth"]);
    assert_eq!(setting.exchange().publish_quote("CON.F.US.NO.Z26"), 0);
}

#[tokio::test]
async fn what_a_hub_does_not_know_is_an_error_in_the_completion() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let mut hub = setting.hub("user", &token).await;
    let told = hub.invoke("PlaceOrder", &json!([])).await;
    assert_eq!(told["error"], "Unknown hub method 'PlaceOrder'");
    let others = setting.exchange().accounts("somebody-else")[0];
    for (method, arguments) in [
        ("SubscribeOrders", json!([])),
        ("SubscribeOrders", json!([setting.account().to_string()])),
        ("SubscribeOrders", json!([others])),
        ("SubscribeContractQuotes", json!([CONTRACT])),
    ] {
        assert!(hub.invoke(method, &arguments).await["error"].is_string(), "{method} {arguments}");
    }
    // Without an id there is no answer: the next completion is the next one's.
    hub.send(&json!({"type": 1, "target": "Nothing", "arguments": []})).await;
    hub.send(&json!({"type": 4, "invocationId": "8", "target": "SubscribeAccounts", "arguments": []})).await;
    let told = hub.next().await.unwrap();
    assert_eq!(told["invocationId"], "8");
    assert!(told["error"].as_str().unwrap().contains("streaming"), "{told}");
    assert_eq!(setting.exchange().subscriptions(), 0);
}

#[tokio::test]
async fn members_that_a_proxy_should_have_taken_off_are_verdicts() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let mut hub = setting.hub("user", &token).await;
    let bearer = format!("Bearer {token}");
    hub.send(&json!({
        "type": 1, "target": "SubscribeAccounts", "arguments": [], "invocationId": "7",
        "headers": {"Authorization": bearer}, "streamIds": [],
    }))
    .await;
    hub.expect("the completion", |record| record["type"] == 3).await;
    let twice = format!(
        "{}\u{1e}",
        r#"{"type":1,"target":"Nothing","target":"SubscribeOrders","invocationId":"8","arguments":[10001]}"#
    );
    hub.socket.send_text(&twice).await;
    assert_eq!(hub.expect("the completion", |record| record["type"] == 3).await["result"], Value::Null);
    let verdicts = setting.verdicts();
    let wanted =
        ["leak: a bearer in a hub's record", "hub: member headers", "hub: member streamIds", "hub: duplicate member"];
    assert_eq!(verdicts, wanted);
    assert_eq!(setting.exchange().subscriptions(), 2);
}

#[tokio::test]
async fn records_may_share_a_message_and_one_may_come_in_two() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let path = format!("/hubs/user?access_token={token}");
    let mut hub = HubClient::new(setting.tls.socket(&setting.simulator, "localhost", &path).await);
    let subscribe = r#"{"type":1,"target":"SubscribeAccounts","arguments":[],"invocationId":"7"}"#;
    let (start, end) = subscribe.split_at(20);
    hub.socket.send_text(&format!("{{\"protocol\":\"json\",\"version\":1}}\u{1e}{subscribe}\u{1e}{start}")).await;
    assert_eq!(hub.next().await, Some(json!({})));
    assert_eq!(hub.next().await.unwrap()["type"], 3);
    hub.socket.send_text(&format!("{end}\u{1e}")).await;
    assert_eq!(hub.next().await.unwrap()["type"], 3);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_ends_the_connection() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    for broken in ["{", "[]", "{}", r#"{"Type":6}"#, r#"{"type":1,"target":"SubscribeAccounts"}"#] {
        let mut hub = setting.hub("user", &token).await;
        hub.socket.send_text(&format!("{broken}\u{1e}")).await;
        let told = hub.next().await;
        assert_eq!(told, Some(json!({"type": 7, "error": "Connection closed with an error."})), "{broken}");
        assert_eq!(hub.next().await, None);
    }
    let mut hub = setting.hub("user", &token).await;
    hub.socket.send_text(&"x".repeat(32 * 1024 + 1)).await;
    assert_eq!(hub.next().await.unwrap()["type"], 7);
}

#[tokio::test]
async fn a_silent_client_is_closed_and_one_that_pings_is_not() {
    let setting = Setting::with(|options| {
        options.heartbeat = Duration::from_millis(50);
        options.idle_close = Duration::from_millis(1000);
    })
    .await;
    let token = setting.log_in().await;
    let mut silent = setting.hub("market", &token).await;
    let mut lively = setting.hub("market", &token).await;
    // A subscription is no reason to stay, and neither is anything that WebSockets do among themselves.
    silent.invoke("SubscribeContractQuotes", &json!([CONTRACT])).await;
    setting.simulator.faults().act(SocketAction::Ping(bytes::Bytes::from_static(b"?")));
    let mut pings = 0;
    while let Some(record) = silent.next().await {
        pings += usize::from(record == json!({"type": 6}));
        lively.send(&json!({"type": 6})).await;
    }
    assert!(pings > 3, "only {pings} pings");
    assert_eq!(lively.invoke("SubscribeContractQuotes", &json!([CONTRACT])).await["result"], Value::Null);
    assert_eq!(setting.exchange().subscriptions(), 1);
}

#[tokio::test]
async fn the_venue_may_end_a_hub_in_its_own_way() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let mut hub = setting.hub("user", &token).await;
    setting.exchange().close_hubs(None, true);
    assert_eq!(hub.next().await, Some(json!({"type": 7, "allowReconnect": true})));
    assert_eq!(hub.next().await, None);

    let mut hub = setting.hub("user", &token).await;
    setting.exchange().close_hubs(Some("maintenance"), false);
    assert_eq!(hub.next().await, Some(json!({"type": 7, "error": "maintenance"})));

    let mut hub = setting.hub("user", &token).await;
    setting.exchange().logout_everybody();
    assert_eq!(hub.event("GatewayLogout").await, json!([]));
    assert_eq!(setting.exchange().live_tokens(), 0);
}

#[tokio::test]
async fn a_client_that_says_good_bye_is_let_go() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let mut hub = setting.hub("user", &token).await;
    hub.send(&json!({"type": 7})).await;
    assert_eq!(hub.next().await, None);
    assert_eq!(setting.verdicts(), [""; 0]);
}

#[tokio::test]
async fn a_hub_outlives_its_token_unless_told_otherwise() {
    let setting = Setting::with(|options| options.token_lifetime = Duration::from_secs(3)).await;
    let token = setting.log_in().await;
    let mut hub = setting.hub("user", &token).await;
    setting.clock.advance(Duration::from_secs(10));
    assert_eq!(hub.invoke("SubscribeAccounts", &json!([])).await["result"], Value::Null);
    setting.simulator.faults().set(|switches| switches.hubs_end_with_token = true);
    assert_eq!(hub.next().await, Some(json!({"type": 7, "allowReconnect": true})));
    assert_eq!(hub.next().await, None);
    assert!(setting.simulator.record().wait_for(|entry| entry.text().contains("bearer: over"), LIMIT).await.is_some());
}

#[tokio::test]
async fn an_echo_holds_the_bearer_and_a_flood_fills_a_subscriber() {
    use crate::simulator::Flood;
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let mut hub = setting.hub("market", &token).await;
    hub.invoke("SubscribeContractTrades", &json!([CONTRACT])).await;
    setting.simulator.faults().set(|switches| switches.flood = Some(Flood { per_second: 100, bytes: 500 }));
    let filler = hub.event("GatewayTrade").await;
    assert!(filler[1][0]["filler"].as_str().is_some_and(|filler| filler.len() > 400));
    setting.simulator.faults().clear();
    setting.simulator.faults().set(|switches| switches.echo = true);
    hub.send(&json!({"type": 1, "invocationId": "0", "target": "Anything", "arguments": []})).await;
    let echo = hub.expect("the echo", |record| record["type"] == 3).await;
    assert!(echo["error"].as_str().is_some_and(|error| error.contains(&token) && error.contains("Anything")));
    let answer = setting.post(&token, "/api/Account/search", &json!({"onlyActiveAccounts": true})).await.1;
    assert!(answer["errorMessage"].as_str().is_some_and(|text| text.contains(&token)));
}
