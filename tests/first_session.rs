//! The first session, end to end over real TLS: bots without credentials trade on both venues.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod house;

use house::House;

#[tokio::test]
async fn a_bot_without_credentials_trades_on_kraken() {
    let house = House::open().await;
    let token = house.token("bot-a");
    house.kraken().forbid(&token);
    let mut bot = house.socket("/kraken/v2").await;
    bot.log_in(&token).await;
    let connected = bot.json().await;
    assert_eq!(connected["type"], "connected");
    assert_eq!(connected["client_id"], "bot-a");
    assert_eq!(connected["account"], "kraken_main");
    assert_eq!(connected["venue"], "kraken");
    assert_eq!(connected["permissions"], serde_json::json!(["public", "read", "trade"]));
    assert!(
        connected["session_id"].is_string() && connected["server_time"].is_u64() && connected["expires_at"].is_u64()
    );

    bot.say(r#"{"method":"subscribe","params":{"channel":"executions"},"req_id":1}"#).await;
    bot.json_where(|it| it["req_id"] == 1 && it["success"] == true).await;
    bot.say(
        r#"{"method":"add_order","params":{"order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":1.0,"limit_price":100.10},"req_id":2}"#,
    )
    .await;
    let placed = bot.json_where(|it| it["req_id"] == 2).await;
    assert_eq!(placed["success"], true, "{placed}");
    let order = placed["result"]["order_id"].as_str().unwrap().to_owned();
    bot.json_where(|it| it["channel"] == "executions" && it["data"][0]["order_id"] == order.as_str()).await;
    bot.say(format!(r#"{{"method":"cancel_order","params":{{"order_id":["{order}"]}},"req_id":3}}"#)).await;
    bot.json_where(|it| it["req_id"] == 3 && it["success"] == true).await;

    assert!(house.kraken().frames_received().iter().any(|frame| frame.contains(r#""limit_price":100.10"#)));
    assert_eq!(house.kraken().verdicts(), Vec::<String>::new());
    assert_eq!(house.kraken().leaks(), 0);
}

#[tokio::test]
async fn a_bot_without_credentials_trades_on_bitfinex() {
    let house = House::open().await;
    let mut bot = house.logged_in("/bitfinex/v2", "bot-a").await;
    bot.json_where(|it| it["event"] == "auth" && it["status"] == "OK").await;
    bot.say(r#"[0,"on",null,{"cid":12345,"type":"EXCHANGE LIMIT","symbol":"tBTCUSD","price":"100","amount":"1"}]"#)
        .await;
    let told = bot.json_where(|it| it[1] == "n" && it[2][1] == "on-req").await;
    assert_eq!(told[2][6], "SUCCESS", "{told}");
    let order = bot.json_where(|it| it[1] == "on").await[2][0].as_u64().unwrap();
    bot.say(format!(r#"[0,"oc",null,{{"id":{order}}}]"#)).await;
    bot.json_where(|it| it[1] == "oc").await;
    assert_eq!(house.bitfinex().verdicts(), Vec::<String>::new());
}

#[tokio::test]
async fn a_client_certificate_does_the_same_without_a_message() {
    let house = House::open().await;
    let mut bot = house.upgrade("/kraken/v2", &[], Some("bot-a")).await.unwrap();
    let connected = bot.json().await;
    assert_eq!(connected["type"], "connected");
    assert_eq!(connected["client_id"], "bot-a");
    bot.say(r#"{"method":"cancel_all","req_id":1}"#).await;
    bot.json_where(|it| it["req_id"] == 1 && it["success"] == true).await;
}

#[tokio::test]
async fn an_unmodified_bot_under_the_venue_s_own_name_sees_nothing_but_the_venue() {
    let house = House::open().await;
    let mut bot = house.upgrade_at("ws-auth.kraken.com", "/v2", &[], Some("bot-a")).await.unwrap();
    assert_eq!(bot.json().await["channel"], "status");
    bot.say(r#"{"method":"subscribe","params":{"channel":"balances","token":"local"},"req_id":1}"#).await;
    bot.json_where(|it| it["req_id"] == 1 && it["success"] == true).await;

    let mut bot = house.upgrade_at("api.bitfinex.com", "/ws/2", &[], Some("bot-a")).await.unwrap();
    assert_eq!(bot.json().await["event"], "info");
    bot.say(
        r#"{"event":"auth","apiKey":"local","authSig":"00","authNonce":1,"authPayload":"AUTH1","filter":["wallet"]}"#,
    )
    .await;
    let told = bot.json_where(|it| it["event"] == "auth").await;
    assert_eq!(told["status"], "OK", "{told}");
    assert_eq!(house.bitfinex().verdicts(), Vec::<String>::new());
}

#[tokio::test]
async fn ten_sessions_at_once_cost_one_token() {
    let house = House::with("").await;
    let logins = (0..8).map(|_| house.logged_in("/kraken/v2", "bot-a"));
    let bots = futures_util::future::join_all(logins).await;
    assert_eq!(bots.len(), 8);
    assert_eq!(house.kraken().tokens_minted(), 1);
}

#[tokio::test]
async fn a_bot_that_speaks_kraken_v1_trades_too() {
    let house = House::open().await;
    house.kraken_exchange().faults().set(|switches| switches.echo_token = true);
    let mut bot = house.logged_in("/kraken/v1", "bot-a").await;
    bot.say(r#"{"event":"subscribe","reqid":1,"subscription":{"name":"openOrders"}}"#).await;
    let told = bot.json_where(|it| it["event"] == "subscriptionStatus").await;
    assert_eq!(told["status"], "subscribed", "{told}");
    let echoed = told["subscription"]["token"].as_str().unwrap();
    assert!(echoed.bytes().all(|byte| byte == b'*'), "the exchange echoed the token, and it came through: {echoed}");
    bot.say(
        r#"{"event":"addOrder","reqid":2,"ordertype":"limit","pair":"XBT/USD","price":"9000","type":"buy","volume":"1"}"#,
    )
    .await;
    let placed = bot.json_where(|it| it["event"] == "addOrderStatus").await;
    assert_eq!(placed["status"], "ok", "{placed}");
    bot.say(r#"{"event":"cancelAll","reqid":3}"#).await;
    assert_eq!(bot.json_where(|it| it["event"] == "cancelAllStatus").await["count"], 1);
    assert_eq!(house.kraken().verdicts(), Vec::<String>::new());
}

#[tokio::test]
async fn sessions_on_several_threads_share_one_lane_and_one_way_out() {
    const BOTS: u64 = 6;
    let house = House::from(&house::STANDARD.replace("[listen]", "[listen]\nthreads = 3")).await;
    let mut bots = Vec::new();
    for _ in 0..BOTS {
        bots.push(house.logged_in("/bitfinex/v2", "bot-a").await);
    }
    for (cid, bot) in (1..).zip(&mut bots) {
        bot.say(format!(
            r#"[0,"on",null,{{"cid":{cid},"type":"EXCHANGE LIMIT","symbol":"tBTCUSD","price":"100","amount":"1"}}]"#
        ))
        .await;
    }
    for bot in &mut bots {
        let told = bot.json_where(|it| it[1] == "n" && it[2][1] == "on-req").await;
        assert_eq!(told[2][6], "SUCCESS", "{told}");
    }
    assert_eq!((house.bitfinex().nonce_errors(), house.bitfinex().verdicts()), (0, Vec::new()));
    assert!(house.running.stop().await, "the sessions of other threads did not end");
    assert_eq!(bots[1].closed().await.0, 1001);
}

#[tokio::test]
async fn a_session_that_is_quiet_hears_of_every_reload() {
    // Nothing else wakes it.
    let house = House::with("[limits]\nping_interval = \"1h\"\npong_timeout = \"1h\"\nmessage_idle = \"1h\"").await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    let file = house.folder.path().join("proxy.toml");
    let regrant = |toml: &str| {
        std::fs::write(&file, toml).unwrap();
        house.running.regrant(&countersign::cli::assemble::read(Some(&file), &[]).unwrap()).unwrap();
    };
    let toml = std::fs::read_to_string(&file).unwrap();
    for _ in 0..2 {
        regrant(&toml);
        bot.say(r#"{"method":"ping","req_id":1}"#).await;
        bot.json_where(|it| it["req_id"] == 1).await;
        regrant(&toml);
        // Until the session has heard of it, and sleeps again.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    regrant(&toml.replace("client = \"jwt:bot-a\"", "client = \"jwt:bot-z\""));
    let ended = tokio::time::timeout(std::time::Duration::from_secs(8), bot.closed()).await;
    assert_eq!(ended.expect("nobody told the session"), (1008, "grant_removed".to_owned()));
}
