//! A venue where everything hangs on one bearer token, over real TLS: what a bot logs in with and gets, what the
//! exchange gets in its place, what happens when that is refused, and that none of it is seen by anybody else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod bearer_stage;
mod house;

use bearer_stage::exchange::{KEY, USER};
use bearer_stage::venue::{API, HUBS};
use bearer_stage::{Stage, logged};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

// ---- Logging in ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_bot_logs_in_with_its_local_key_and_the_exchange_sees_the_real_one() {
    let stage = Stage::open("stem-login").await;
    let (user, key) = stage.local_key("bot-a");
    let token = stage.log_in("bot-a").await;
    let told = stage.post(API, "/api/order", &token, r#"{"price":0.10000000000000000001}"#).await;
    assert_eq!((told.status, told.header("countersign-upstream")), (200, Some("answered")), "{told:?}");
    let sent = &stage.exchange.requests("/api/order")[0];
    assert!(sent.contains("authorization: Bearer stem-login+1/&=?#"), "{sent}");
    assert!(sent.ends_with(r#"{"price":0.10000000000000000001}"#), "{sent}");
    let everything = stage.exchange.everything();
    for shown in [&user, &key, &token] {
        assert!(!everything.contains(shown.as_str()), "the client's own went out: {everything}");
    }
}

#[tokio::test]
async fn a_login_with_anything_else_is_refused_and_nothing_is_sent() {
    let stage = Stage::open("stem-refused").await;
    let (user, key) = stage.local_key("bot-a");
    let (other_user, other_key) = stage.local_key("bot-b");
    for (user, key) in [
        (user.as_str(), other_key.as_str()),
        (other_user.as_str(), key.as_str()),
        (user.as_str(), ""),
        ("", ""),
        (USER, KEY),
    ] {
        let told = stage.log_in_with(user, key).await;
        assert_eq!((told.status, told.said()), (401, ("auth_required", "not-sent")), "{told:?}");
    }
    assert!(stage.exchange.everything().is_empty());
    // The real key in a bot is an alarm.
    assert!(logged().contains("foreign_key"));
}

#[tokio::test]
async fn a_placeholder_lives_for_seven_days_and_a_validation_does_not_prolong_it() {
    let stage = Stage::open("stem-seven").await;
    let token = stage.log_in("bot-a").await;
    stage.clock.advance(6 * DAY);
    let told = stage.call("/api/validate", &token).await;
    assert_eq!((told.status, &told.json()["lives_s"]), (200, &86_400.into()), "{told:?}");
    let validated = told.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(stage.call("/api/accounts", &validated).await.status, 200);
    stage.clock.advance(DAY);
    for token in [&token, &validated] {
        let told = stage.call("/api/accounts", token).await;
        assert_eq!((told.status, told.said()), (401, ("auth_required", "not-sent")), "an expired one");
        assert_eq!(stage.call("/api/validate", token).await.status, 401);
        let refused = stage.socket(&format!("?access_token={token}"), "").await.err();
        assert_eq!(refused, Some((401, "auth_invalid".to_owned())));
    }
    // The key is what renews it.
    let token = stage.log_in("bot-a").await;
    assert_eq!(stage.call("/api/accounts", &token).await.status, 200);
}

#[tokio::test]
async fn a_logout_of_what_a_validation_answered_is_of_what_was_validated_and_the_other_way_round() {
    let stage = Stage::open("stem-validated").await;
    for gives_up_first in [true, false] {
        let token = stage.log_in("bot-a").await;
        let told = stage.call("/api/validate", &token).await;
        let validated = told.json()["token"].as_str().unwrap().to_owned();
        let (given_up, other) = if gives_up_first { (&token, &validated) } else { (&validated, &token) };
        assert_eq!(stage.call("/api/logout", given_up).await.status, 200);
        assert_eq!(stage.call("/api/accounts", other).await.status, 401);
    }
}

#[tokio::test]
async fn a_login_gives_another_placeholder_whatever_is_shown_beside_it() {
    let stage = Stage::open("stem-anew").await;
    let (user, key) = stage.local_key("bot-a");
    let token = stage.log_in("bot-a").await;
    stage.clock.advance(DAY);
    let told = stage.post(API, "/api/login", &token, &serde_json::json!({"user": user, "key": key}).to_string()).await;
    assert_eq!(told.json()["lives_s"], 7 * 86_400, "{told:?}");
    assert_ne!(told.json()["token"].as_str(), Some(token.as_str()));
    // A token of ours is a proof as well, with an end of its own.
    let told = stage.call("/api/validate", &stage.jwt("desk")).await;
    let lives_s = told.json()["lives_s"].as_u64().unwrap();
    assert!(told.status == 200 && lives_s < 1000, "{told:?}");
}

#[tokio::test]
async fn a_logout_is_of_one_placeholder_and_the_exchange_hears_nothing_of_it() {
    let stage = Stage::open("stem-logout").await;
    let (token, other) = (stage.log_in("bot-a").await, stage.log_in("bot-a").await);
    assert_eq!(stage.call("/api/accounts", &token).await.status, 200);
    let told = stage.call("/api/logout", &token).await;
    assert_eq!((told.status, told.json()["success"].as_bool()), (200, Some(true)));
    for path in ["/api/accounts", "/api/order", "/api/validate", "/api/logout"] {
        assert_eq!(stage.call(path, &token).await.status, 401, "{path}");
    }
    assert_eq!(stage.socket(&format!("?access_token={token}"), "").await.err().map(|(status, _)| status), Some(401));
    assert_eq!(stage.call("/api/accounts", &other).await.status, 200);
    assert!(stage.exchange.requests("logout").is_empty());
}

#[tokio::test]
async fn a_token_of_ours_is_a_proof_in_the_header() {
    let stage = Stage::open("stem-jwt").await;
    let jwt = stage.jwt("desk");
    assert_eq!(stage.call("/api/accounts", &jwt).await.status, 200);
    assert_eq!(stage.call("/api/accounts", &stage.jwt("stranger")).await.status, 403);
    assert!(stage.socket("", &jwt).await.is_ok());
    assert!(!stage.exchange.everything().contains("eyJ"), "a token of ours went out");
    assert_eq!(stage.call("/api/accounts", "").await.status, 401);
    assert_eq!(stage.call("/api/accounts", "nonsense").await.status, 401);
}

#[tokio::test]
async fn a_grant_narrows_what_a_placeholder_opens_and_is_asked_at_each_use() {
    let stage = Stage::open("stem-grant").await;
    let token = stage.log_in("reader").await;
    assert_eq!(stage.call("/api/accounts", &token).await.status, 200);
    let told = stage.call("/api/order", &token).await;
    assert_eq!((told.status, told.said()), (200, ("scope_denied", "not-sent")), "never 401 for a denial");
    stage.revoke_grants();
    assert_eq!(stage.call("/api/accounts", &token).await.status, 401);
    assert!(stage.exchange.requests("/api/order").is_empty());
}

#[tokio::test]
async fn answers_are_narrowed_to_the_trading_accounts_of_the_grant() {
    let stage = Stage::open("stem-narrow").await;
    let token = stage.log_in("narrow").await;
    assert_eq!(stage.call("/api/accounts", &token).await.text(), r#"{"accounts":[7]}"#);
    let token = stage.log_in("bot-a").await;
    assert_eq!(stage.call("/api/accounts", &token).await.json()["said"], "ok");
}

// ---- When the exchange refuses our token -----------------------------------------------------------------------------

#[tokio::test]
async fn a_read_whose_token_is_refused_goes_once_more_with_another() {
    let stage = Stage::open("stem-healed").await;
    let token = stage.log_in("bot-a").await;
    assert_eq!(stage.call("/api/accounts", &token).await.status, 200);
    stage.exchange.revoke();
    let told = stage.call("/api/accounts", &token).await;
    assert_eq!((told.status, told.json()["said"].as_str()), (200, Some("ok")), "{told:?}");
    assert_eq!((stage.exchange.requests("/api/accounts").len(), stage.exchange.tokens_sold()), (3, 2));
}

#[tokio::test]
async fn an_order_whose_token_is_refused_is_told_so_and_not_repeated() {
    let stage = Stage::open("stem-order").await;
    let token = stage.log_in("bot-a").await;
    assert_eq!(stage.call("/api/order", &token).await.status, 200);
    stage.exchange.revoke();
    let told = stage.call("/api/order", &token).await;
    assert_eq!((told.status, told.said()), (401, ("upstream_auth_failed", "answered")), "{told:?}");
    // Another token is bought all the same, and the next order goes with it.
    stage.exchange.has_sold(2).await;
    assert_eq!(stage.exchange.requests("/api/order").len(), 2, "it was sent again");
    assert_eq!(stage.call("/api/order", &token).await.status, 200);
}

#[tokio::test]
async fn an_exchange_that_takes_no_token_is_unavailable_and_no_fault_of_the_client() {
    let stage = Stage::open("stem-none").await;
    let token = stage.log_in("bot-a").await;
    stage.exchange.refuse_all();
    let told = stage.call("/api/accounts", &token).await;
    assert_eq!((told.status, told.said()), (503, ("upstream_auth_failed", "answered")), "{told:?}");
    assert_eq!(stage.exchange.requests("/api/accounts").len(), 2);
    let (status, reason) = stage.socket(&format!("?access_token={token}"), "").await.err().unwrap();
    assert_eq!(status, 503, "{reason}");
}

#[tokio::test]
async fn a_hub_that_takes_no_token_costs_no_order_and_few_logins() {
    let stage = Stage::open("stem-hub").await;
    let token = stage.log_in("bot-a").await;
    stage.exchange.refuse_for("/hubs");
    let query = format!("?access_token={token}");
    // A bot that comes back as fast as it can, beside one that trades.
    for second in 0..400 {
        let (told, socket) = tokio::join!(stage.call("/api/order", &token), stage.socket(&query, ""));
        assert_eq!((told.status, told.json()["said"].as_str()), (200, Some("ok")), "after {second} s: {told:?}");
        assert_eq!(socket.err(), Some((503, "upstream_auth_failed".to_owned())), "after {second} s");
        stage.clock.advance(Duration::from_secs(1));
    }
    assert!(stage.exchange.tokens_sold() <= 7, "{} logins in seven minutes", stage.exchange.tokens_sold());
    // That the token had ended is another matter, and mended at once.
    stage.exchange.revoke();
    assert_eq!(stage.call("/api/accounts", &token).await.status, 200);
}

#[tokio::test]
async fn a_read_that_takes_no_token_costs_no_order_and_few_logins() {
    let stage = Stage::open("stem-read").await;
    let token = stage.log_in("bot-a").await;
    stage.exchange.refuse_for("/api/accounts");
    for seconds in [11; 100] {
        let read = stage.call("/api/accounts", &token).await;
        assert_eq!((read.status, read.said()), (503, ("upstream_auth_failed", "answered")), "{read:?}");
        let order = stage.call("/api/order", &token).await;
        assert_eq!(order.status, 200, "{order:?}");
        stage.clock.advance(Duration::from_secs(seconds));
    }
    let sold = stage.exchange.tokens_sold();
    assert!((3..=9).contains(&sold), "{sold} logins in eighteen minutes");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_maybe_sent_and_not_sent_again() {
    let stage = Stage::open("stem-lost").await;
    let token = stage.log_in("bot-a").await;
    stage.exchange.hang_up_on("/api/order");
    let told = stage.call("/api/order", &token).await;
    assert_eq!((told.status, told.said()), (504, ("upstream_lost", "maybe-sent")), "{told:?}");
    assert_eq!(stage.exchange.requests("/api/order").len(), 1);
}

#[tokio::test]
async fn a_401_at_the_handshake_heals_itself() {
    let stage = Stage::open("stem-dial").await;
    let token = stage.log_in("bot-a").await;
    assert_eq!(stage.call("/api/accounts", &token).await.status, 200);
    stage.exchange.revoke();
    let mut socket = stage.socket(&format!("?access_token={token}"), "").await.unwrap();
    socket.say("hello").await;
    assert_eq!(socket.text().await, "heard hello");
    assert_eq!((stage.exchange.requests("/hubs/user").len(), stage.exchange.tokens_sold()), (2, 2));
}

#[tokio::test]
async fn a_socket_whose_token_has_ended_stays_and_the_next_one_has_another() {
    let stage = Stage::open("stem-ended").await;
    let token = stage.log_in("bot-a").await;
    let mut socket = stage.socket(&format!("?access_token={token}"), "").await.unwrap();
    socket.say("log me out").await;
    assert_eq!(socket.text().await, "logged out");
    stage.exchange.has_sold(2).await;
    socket.say("still here").await;
    assert_eq!(socket.text().await, "heard still here");
    assert!(stage.socket(&format!("?access_token={token}"), "").await.is_ok());
    assert_eq!((stage.exchange.requests("/hubs/user").len(), stage.exchange.tokens_sold()), (2, 2));
}

#[tokio::test]
async fn a_dialect_that_wants_to_be_woken_is() {
    let stage = Stage::open("stem-wake").await;
    let token = stage.log_in("bot-a").await;
    let mut socket = stage.socket(&format!("?access_token={token}"), "").await.unwrap();
    for _ in 0..2 {
        socket.say("wake me").await;
        assert_eq!(socket.text().await, "woken");
    }
}

// ---- What stands in a query ------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_placeholder_stands_in_the_query_or_in_the_header_or_in_both() {
    let stage = Stage::open("stem-places").await;
    let (token, other) = (stage.log_in("bot-a").await, stage.log_in("bot-a").await);
    let escaped = token.replace('.', "%2e");
    for (query, header) in [
        (format!("?access_token={token}"), ""),
        (format!("?access_token={escaped}&id=old&id=new"), ""),
        (format!("?id=&access_token={token}"), token.as_str()),
        // A library that has logged in anew reconnects by its first address.
        (format!("?access_token={token}"), other.as_str()),
        (String::new(), token.as_str()),
    ] {
        let mut socket = stage.socket(&query, header).await.unwrap_or_else(|refused| panic!("{refused:?}"));
        socket.say("hello").await;
        assert_eq!(socket.text().await, "heard hello");
    }
    for sent in stage.exchange.requests("/hubs/user") {
        assert!(sent.starts_with("GET /hubs/user?access_token=stem-places%2B1%2F%26%3D%3F%23 HTTP/1.1\r\n"), "{sent}");
        assert!(!sent.contains(&token["desk.".len()..]) && !sent.contains("authorization"), "{sent}");
    }
}

#[tokio::test]
async fn a_query_that_says_anything_else_is_refused_and_nothing_is_dialled() {
    let stage = Stage::open("stem-query").await;
    let (a, b) = (stage.log_in("bot-a").await, stage.log_in("bot-b").await);
    let jwt = stage.jwt("desk");
    for (query, header, status, reason) in [
        (String::new(), "", 401, "auth_token_missing"),
        ("?id=7".to_owned(), "", 401, "auth_token_missing"),
        (format!("?access_token={jwt}"), "", 401, "token_in_url"),
        (format!("?access_token={jwt}"), jwt.as_str(), 401, "token_in_url"),
        ("?access_token=desk.AAAA".to_owned(), "", 401, "auth_invalid"),
        (format!("?access_token={a}&access_token={a}"), "", 400, "bad_query"),
        (format!("?access_token={a}&order=1"), "", 400, "bad_query"),
        (format!("?access_token={a}%"), "", 400, "bad_query"),
        (format!("?access_token={a}"), b.as_str(), 403, "identity_mismatch"),
        (format!("?access_token={a}"), jwt.as_str(), 403, "identity_mismatch"),
        (String::new(), "nonsense", 401, "auth_invalid"),
    ] {
        let refused = stage.socket(&query, header).await.err();
        assert_eq!(refused, Some((status, reason.to_owned())), "{query} {header}");
    }
    let told = stage.call(&format!("/api/accounts?access_token={a}"), &a).await;
    assert_eq!((told.status, told.said().0), (401, "token_in_url"), "no request has one there");
    assert!(stage.exchange.everything().is_empty(), "{}", stage.exchange.everything());
}

#[tokio::test]
async fn a_negotiation_is_answered_here_and_asks_for_no_proof_but_a_good_one() {
    let stage = Stage::open("stem-negotiate").await;
    let token = stage.log_in("bot-a").await;
    let path = "/hubs/user/negotiate?negotiateVersion=1";
    let bad = format!("{path}&access_token=desk.AAAA");
    let mut seen = Vec::new();
    for (path, header) in [(path, ""), (path, token.as_str()), (&format!("{path}&access_token={token}"), "")] {
        let told = stage.post(HUBS, path, header, "").await;
        assert_eq!(told.status, 200, "{told:?}");
        seen.push(told.json()["connectionId"].as_str().unwrap().to_owned());
    }
    seen.dedup();
    assert_eq!(seen.len(), 3, "each has a number of its own");
    assert_eq!(stage.post(HUBS, &bad, "", "").await.status, 401);
    let in_url = format!("{path}&access_token={}", stage.jwt("desk"));
    assert_eq!(stage.post(HUBS, &in_url, "", "").await.said().0, "token_in_url");
    assert!(stage.exchange.everything().is_empty());
}

// ---- What nobody else may see ----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_token_that_the_exchange_repeats_is_overwritten() {
    let stage = Stage::open("stem-repeated").await;
    let token = stage.log_in("bot-a").await;
    stage.call("/api/order", &token).await;
    stage.exchange.revoke();
    for told in [stage.call("/api/order", &token).await, stage.call("/api/accounts", &token).await] {
        let text = told.text();
        assert!(text.contains("****") && !text.contains("stem-repeated") && !text.contains(KEY), "{text}");
    }
    let mut socket = stage.socket(&format!("?access_token={token}"), "").await.unwrap();
    socket.say("repeat my token").await;
    let text = socket.text().await;
    assert!(text.contains("****") && !text.contains("stem-repeated"), "{text}");
}

#[tokio::test]
async fn no_token_and_no_query_is_in_any_log() {
    let stage = Stage::open("stem-logged").await;
    let token = stage.log_in("bot-a").await;
    let (user, key) = stage.local_key("bot-a");
    let jwt = stage.jwt("desk");
    let in_query = format!("?access_token={token}&id=query-of-a-client");
    stage.call("/api/order", &token).await;
    stage.exchange.revoke();
    stage.call("/api/order", &token).await;
    stage.call("/api/accounts", &token).await;
    stage.call(&format!("/api/accounts{in_query}"), &token).await;
    stage.post(HUBS, &format!("/hubs/user/negotiate{in_query}"), "", "").await;
    stage.exchange.revoke();
    let mut socket = stage.socket(&in_query, "").await.unwrap();
    socket.say("hello").await;
    socket.text().await;
    for bad in [format!("{in_query}&x=1"), format!("?access_token={jwt}&id=query-of-a-client"), in_query.clone() + "%"]
    {
        assert!(stage.socket(&bad, "").await.is_err());
    }
    stage.log_in_with(&user, "a wrong secret of a client").await;
    stage.exchange.refuse_all();
    stage.exchange.revoke();
    assert!(stage.socket(&in_query, &token).await.is_err());
    stage.call("/api/logout", &token).await;

    let logged = logged();
    assert!(logged.contains("request refused") && logged.contains("DEBUG"), "nothing was logged");
    let token_body = &token["desk.".len()..];
    for secret in
        [token_body, &key, &jwt, "stem-logged", "query-of-a-client", "access_token", "a wrong secret of a client", KEY]
    {
        let line = logged.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}
