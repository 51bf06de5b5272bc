//! The REST API: who comes in, what operations answer, what they refuse.

use super::*;

#[tokio::test]
async fn a_login_that_fails_is_http_200_with_a_code() {
    let setting = Setting::new().await;
    let log_in = async |user: &str, key: &str| {
        let login = json!({"userName": user, "apiKey": key}).to_string();
        setting.tls.post(&setting.simulator, "/api/Auth/loginKey", &[JSON], &login).await
    };
    let refused = |code: u32| json!({"token": null, "success": false, "errorCode": code, "errorMessage": null});
    assert_eq!(log_in("nobody", KEY).await, (200, refused(1)));
    assert_eq!(log_in(USER, "another key").await, (200, refused(3)));
    assert_eq!((setting.exchange().logins(), setting.simulator.record().signature_errors()), (0, 2));
    let (status, answer) = log_in(USER, KEY).await;
    assert_eq!((status, &answer["errorCode"], &answer["errorMessage"]), (200, &json!(0), &Value::Null));
    assert_eq!((setting.exchange().logins(), setting.simulator.record().tokens_minted()), (1, 1));
    assert_eq!(setting.exchange().live_tokens(), 1);
}

#[tokio::test]
async fn a_bearer_is_asked_for_everywhere_but_at_the_ping() {
    let setting = Setting::with(|options| options.token_lifetime = Duration::from_secs(3)).await;
    let search = "/api/Account/search";
    assert_eq!(setting.tls.request(&setting.simulator, "GET", "/api/Status/ping", &[], "").await.0, 200);
    assert_eq!(setting.tls.post(&setting.simulator, search, &[JSON], "{}").await, (401, Value::Null));
    assert_eq!(setting.post("a.b.c", search, &json!({})).await.0, 401);
    let token = setting.log_in().await;
    assert_eq!(setting.post(&token, search, &json!({})).await.0, 200);
    setting.clock.advance(Duration::from_secs(5));
    assert_eq!(setting.post(&token, search, &json!({})).await.0, 401);
    assert_eq!(setting.post(&token, "/api/Auth/validate", &Value::Null).await.0, 401);
    assert_eq!(setting.verdicts(), ["bearer: missing", "bearer: unknown", "bearer: expired", "bearer: expired"]);
}

#[tokio::test]
async fn validate_makes_a_new_token_and_ends_the_old_one_only_if_told() {
    let setting = Setting::new().await;
    let ping = async |token: &str| setting.post(token, "/api/Contract/available", &json!({"live": false})).await.0;
    let first = setting.log_in().await;
    let (_, answer) = setting.post(&first, "/api/Auth/validate", &Value::Null).await;
    let second = answer["newToken"].as_str().unwrap().to_owned();
    assert_eq!((ping(&first).await, ping(&second).await), (200, 200));
    setting.simulator.faults().set(|switches| switches.revoke_validated = true);
    let (_, answer) = setting.post(&second, "/api/auth/VALIDATE", &Value::Null).await;
    let third = answer["newToken"].as_str().unwrap().to_owned();
    assert_eq!((ping(&second).await, ping(&third).await), (401, 200));
    let (status, answer) = setting.post(&third, "/api/Auth/logout", &Value::Null).await;
    assert_eq!((status, answer), (200, json!({"success": true, "errorCode": 0, "errorMessage": null})));
    assert_eq!(ping(&third).await, 401);
    assert_eq!((setting.exchange().validations(), setting.simulator.record().tokens_minted()), (2, 3));
    setting.exchange().revoke_all_tokens();
    assert_eq!((ping(&first).await, setting.exchange().live_tokens()), (401, 0));
}

#[tokio::test]
async fn an_order_lives_from_place_to_cancel() {
    let setting = Setting::new().await;
    let (token, account) = (setting.log_in().await, setting.account());
    let id = setting.place(&token, &json!({"type": 1, "limitPrice": 6400.25, "customTag": "mine"})).await;
    assert_eq!(setting.exchange().open_orders(account), [id]);
    let open = setting.post(&token, "/api/Order/searchOpen", &json!({"accountId": account})).await.1;
    let order = &open["orders"][0];
    let told = ["id", "accountId", "status", "type", "side", "size", "fillVolume"].map(|name| order[name].as_i64());
    assert_eq!(told, [i64::try_from(id).ok(), Some(account), Some(1), Some(1), Some(0), Some(1), Some(0)]);
    assert_eq!((&order["limitPrice"], &order["customTag"]), (&json!(6400.25), &json!("mine")));

    let modify = json!({"accountId": account, "orderId": id, "size": 2});
    assert_eq!(setting.post(&token, "/api/Order/modify", &modify).await.1["success"], true);
    let found = setting.post(&token, "/api/Order/searchById", &json!({"orderId": id})).await.1;
    assert_eq!(found["order"]["size"], 2);
    let cancel = json!({"accountId": account, "orderId": id});
    assert_eq!(setting.post(&token, "/API/order/CANCEL", &cancel).await.1["success"], true);
    assert_eq!(setting.post(&token, "/api/Order/cancel", &cancel).await.1["errorCode"], 2);
    assert!(setting.exchange().open_orders(account).is_empty());
    let query = json!({"filter": {"accountId": account, "statuses": [3]}, "includeTotalCount": true});
    let page = setting.post(&token, "/api/Order/v2/query", &query).await.1;
    assert_eq!((&page["totalCount"], &page["orders"][0]["status"]), (&json!(1), &json!(3)));
    assert_eq!(setting.verdicts(), [""; 0]);
}

#[tokio::test]
async fn an_order_that_does_not_fit_is_refused_with_the_venue_s_code() {
    let setting = Setting::new().await;
    let (token, accounts) = (setting.log_in().await, setting.exchange().accounts(USER));
    setting.place(&token, &json!({"type": 1, "limitPrice": 1, "customTag": "taken"})).await;
    for (change, code) in [
        (json!({"accountId": 1}), 1),
        (json!({"accountId": setting.exchange().accounts("somebody-else")[0]}), 1),
        (json!({"accountId": accounts[2]}), 10),
        (json!({"contractId": "CON.F.US.NO.Z26"}), 8),
        (json!({"contractId": "CON.F.US.MNQ.U26"}), 9),
        (json!({"size": 0}), 2),
        (json!({"limitPrice": null}), 2),
        (json!({"customTag": "taken"}), 2),
    ] {
        let mut order = json!({
            "accountId": accounts[0], "contractId": CONTRACT, "type": 1, "side": 0, "size": 1, "limitPrice": 6400,
        });
        order.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, answer) = setting.post(&token, "/api/Order/place", &order).await;
        assert_eq!((status, &answer["errorCode"], &answer["orderId"]), (200, &json!(code), &Value::Null), "{change}");
    }
    assert_eq!(setting.exchange().orders_placed(accounts[0]), 1);
    let without_side = json!({"accountId": accounts[0], "contractId": CONTRACT, "type": 2, "size": 1});
    let (status, answer) = setting.post(&token, "/api/Order/place", &without_side).await;
    assert_eq!(status, 400);
    assert!(answer["errors"]["side"].is_array(), "{answer}");
}

#[tokio::test]
async fn a_position_is_opened_made_smaller_and_closed() {
    let setting = Setting::new().await;
    let (token, account) = (setting.log_in().await, setting.account());
    setting.place(&token, &json!({"type": 2, "size": 3})).await;
    let positions = async || {
        let told = setting.post(&token, "/api/Position/searchOpen", &json!({"accountId": account})).await.1;
        told["positions"].as_array().unwrap().iter().map(|it| it["size"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(positions().await, [3]);
    let close = |size: i64| json!({"accountId": account, "contractId": CONTRACT, "size": size});
    let partial = "/api/Position/partialCloseContract";
    assert_eq!(setting.post(&token, partial, &close(4)).await.1["errorCode"], 5);
    assert_eq!(setting.post(&token, partial, &close(1)).await.1["success"], true);
    assert_eq!(positions().await, [2]);
    assert_eq!(setting.post(&token, "/api/Position/closeContract", &close(0)).await.1["success"], true);
    assert_eq!(positions().await, [0; 0]);
    assert_eq!(setting.post(&token, "/api/Position/closeContract", &close(0)).await.1["errorCode"], 2);
    let since = json!({"accountId": account, "startTimestamp": "2020-01-01T00:00:00Z"});
    assert_eq!(setting.post(&token, "/api/Trade/search", &since).await.1["trades"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn every_operation_that_looks_answers_with_its_list() {
    let setting = Setting::new().await;
    let (token, account) = (setting.log_in().await, setting.account());
    let span = json!({"accountId": account, "startTimestamp": "2020-01-01T00:00:00Z"});
    let bars = json!({
        "contractId": CONTRACT, "live": false, "startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-01T01:00:00Z",
        "unit": 2, "unitNumber": 1, "limit": 10, "includePartialBar": false,
    });
    for (path, body, list, count) in [
        ("Account/search", json!({"onlyActiveAccounts": true}), "accounts", 2),
        ("Account/search", json!({"onlyActiveAccounts": false}), "accounts", 3),
        ("Contract/available", json!({"live": false}), "contracts", 4),
        ("Contract/search", json!({"live": false, "searchText": "mnq"}), "contracts", 2),
        ("History/retrieveBars", bars.clone(), "bars", 10),
        ("Order/search", span.clone(), "orders", 0),
        ("Order/searchOpen", json!({"accountId": account}), "orders", 0),
        ("Order/v2/query", json!({"filter": {"accountId": account}}), "orders", 0),
        ("Position/searchOpen", json!({"accountId": account}), "positions", 0),
        ("Trade/search", span, "trades", 0),
    ] {
        let (status, answer) = setting.post(&token, &format!("/api/{path}"), &body).await;
        let found = answer[list].as_array().map(Vec::len);
        assert_eq!((status, &answer["success"], found), (200, &json!(true), Some(count)), "{path}: {answer}");
    }
    let found = setting.post(&token, "/api/Contract/searchById", &json!({"contractId": CONTRACT})).await.1;
    assert_eq!(found["contract"]["tickSize"], 0.25);
    for (name, wrong, code) in [
        ("contractId", json!("no"), 1),
        ("unit", json!(9), 2),
        ("unitNumber", json!(0), 3),
        ("limit", json!(20_001), 4),
    ] {
        let mut bars = bars.clone();
        bars[name] = wrong;
        assert_eq!(setting.post(&token, "/api/History/retrieveBars", &bars).await.1["errorCode"], code, "{name}");
    }
    assert_eq!(setting.post(&token, "/api/Order/searchOpen", &json!({"accountId": 1})).await.1["errorCode"], 1);
    assert_eq!(setting.post(&token, "/api/Order/searchById", &json!({"orderId": 1})).await.1["errorCode"], 1);
    assert_eq!(setting.verdicts(), [""; 0]);
}

#[tokio::test]
async fn a_rate_is_kept_only_when_asked_for() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let bars = async || setting.post(&token, "/api/History/retrieveBars", &json!({})).await.0;
    for _ in 0..51 {
        assert_eq!(bars().await, 400);
    }
    setting.simulator.faults().set(|switches| switches.keeps_rates = true);
    for _ in 0..50 {
        assert_eq!(bars().await, 400);
    }
    assert_eq!(bars().await, 429);
    setting.clock.advance(Duration::from_secs(30));
    assert_eq!(bars().await, 400);
    setting.simulator.faults().set(|switches| switches.rate_limited = true);
    assert_eq!(bars().await, 429);
}

#[tokio::test]
async fn a_bearer_or_a_key_in_a_wrong_place_is_a_leak() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let search = json!({"onlyActiveAccounts": true});
    setting.post(&token, &format!("/api/Account/search?access_token={token}"), &search).await;
    setting.post(&token, "/api/Account/search", &json!({"token": token})).await;
    setting.post(&token, "/api/Account/search", &json!({"apiKey": KEY})).await;
    let verdicts = setting.verdicts();
    assert_eq!(verdicts, ["leak: a bearer in the query", "leak: a bearer in the body", "leak: an API key in the body"]);
    assert_eq!(setting.simulator.record().leaks(), 3);
}

#[tokio::test]
async fn a_member_twice_is_a_verdict_in_whatever_case() {
    let setting = Setting::new().await;
    let bearer = format!("Bearer {}", setting.log_in().await);
    let headers = [JSON, ("authorization", &*bearer)];
    for body in [r#"{"accountId":1,"accountId":2}"#, r#"{"accountId":1,"AccountId":2}"#] {
        setting.tls.post(&setting.simulator, "/api/Order/searchOpen", &headers, body).await;
    }
    assert_eq!(setting.verdicts(), ["duplicate member", "duplicate member"]);
}

#[tokio::test]
async fn what_is_no_operation_is_not_found_and_noted() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    for path in ["/api/Risk/metrics", "/api/Order/place/", "/api", "/"] {
        assert_eq!(setting.post(&token, path, &json!({})).await.0, 404, "{path}");
    }
    let app = json!({"userName": "u", "password": "p", "deviceId": "d", "appId": "a", "verifyKey": "v"});
    assert_eq!(setting.post("", "/api/Auth/loginApp", &app).await.1["errorCode"], 4);
    assert_eq!(setting.tls.request(&setting.simulator, "GET", "/api/Order/place", &[], "").await.0, 405);
    let plain = [("authorization", &*format!("Bearer {token}"))].map(|(name, value)| (name, value.to_owned()));
    let plain = [(plain[0].0, &*plain[0].1)];
    assert_eq!(setting.tls.post(&setting.simulator, "/api/Account/search", &plain, "{}").await.0, 415);
    let verdicts = setting.verdicts();
    assert_eq!(verdicts.iter().filter(|text| text.contains("no such operation")).count(), 4, "{verdicts:?}");
    assert!(verdicts.iter().any(|text| text.starts_with("loginApp")));
}

#[tokio::test]
async fn a_minting_fault_is_told_in_the_venue_s_shape() {
    use crate::simulator::MintFault;
    let setting = Setting::new().await;
    let login = json!({"userName": USER, "apiKey": KEY}).to_string();
    for (fault, status, code) in [
        (MintFault::Unavailable, 503, None),
        (MintFault::Html, 200, None),
        (MintFault::Error("9".to_owned()), 200, Some(9)),
        (MintFault::Error("on holiday".to_owned()), 200, Some(8)),
        (MintFault::EmptyToken, 200, Some(0)),
    ] {
        setting.simulator.faults().set(|switches| switches.mint = fault.clone());
        let answer = setting.tls.post(&setting.simulator, "/api/Auth/loginKey", &[JSON], &login).await;
        assert_eq!((answer.0, answer.1["errorCode"].as_u64()), (status, code), "{fault:?}");
    }
    assert_eq!(setting.exchange().live_tokens(), 0);
}
