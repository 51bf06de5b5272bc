//! How a hub is reached: negotiation, ids, bearers, and what a proxy has no need of.

use super::*;

async fn negotiate(setting: &Setting, token: &str, query: &str) -> (u16, Value) {
    let path = format!("/hubs/user/negotiate?access_token={token}{query}");
    setting.tls.post(&setting.simulator, &path, &[], "").await
}

#[tokio::test]
async fn both_versions_of_a_negotiation_lead_to_a_socket_once() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let (_, first) = negotiate(&setting, &token, "&negotiateVersion=1").await;
    let (_, zeroth) = negotiate(&setting, &token, "").await;
    assert_eq!((&first["negotiateVersion"], &zeroth["negotiateVersion"]), (&json!(1), &json!(0)));
    assert!(zeroth["connectionToken"].is_null());
    let transports = json!([{"transport": "WebSockets", "transferFormats": ["Text"]}]);
    assert_eq!((&first["availableTransports"], &zeroth["availableTransports"]), (&transports, &transports));
    let refused = async |id: &str| {
        let path = format!("/hubs/user?access_token={token}&id={id}");
        setting.tls.refused_socket(&setting.simulator, "localhost", &path).await
    };
    // In version 1 the public id opens nothing.
    assert_eq!(refused(first["connectionId"].as_str().unwrap()).await, 404);
    for id in [&first["connectionToken"], &zeroth["connectionId"]] {
        let id = id.as_str().unwrap();
        let path = format!("/hubs/user?access_token={token}&id={id}");
        let socket = setting.tls.socket(&setting.simulator, "localhost", &path).await;
        assert_eq!(refused(id).await, 409);
        socket.close().await;
        assert_eq!(refused(id).await, 404);
    }
}

#[tokio::test]
async fn a_hub_takes_a_good_bearer_alone() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    assert_eq!(setting.tls.post(&setting.simulator, "/hubs/user/negotiate", &[], "").await.0, 401);
    assert_eq!(negotiate(&setting, "a.b.c", "").await.0, 401);
    let refused = async |path: &str| setting.tls.refused_socket(&setting.simulator, "localhost", path).await;
    assert_eq!(refused("/hubs/user").await, 401);
    assert_eq!(refused("/hubs/user?access_token=a.b.c").await, 401);
    assert_eq!(refused(&format!("/hubs/admin?access_token={token}")).await, 404);
    assert_eq!(setting.post(&token, "/hubs/user", &json!({})).await.0, 400);
    setting.hub("user", &token).await;
    setting.hub("MARKET", &token).await;
    setting.exchange().revoke_all_tokens();
    assert_eq!(refused(&format!("/hubs/user?access_token={token}")).await, 401);
}

#[tokio::test]
async fn the_venue_s_hosts_are_two() {
    let setting = Setting::new().await;
    let token = setting.log_in().await;
    let hub = format!("/hubs/user?access_token={token}");
    assert_eq!(setting.tls.refused_socket(&setting.simulator, "api.topstepx.com", &hub).await, 404);
    setting.tls.socket(&setting.simulator, "rtc.topstepx.com", &hub).await;
}

#[tokio::test]
async fn a_proxy_that_behaves_like_a_client_is_found_out() {
    let setting = Setting::with(|options| options.expects_a_proxy = true).await;
    let token = setting.log_in().await;
    setting.hub("user", &token).await;
    assert_eq!(setting.verdicts(), [""; 0]);
    let (_, agreed) = negotiate(&setting, &token, "&negotiateVersion=1").await;
    let id = agreed["connectionToken"].as_str().unwrap();
    setting.tls.socket(&setting.simulator, "localhost", &format!("/hubs/user?access_token={token}&id={id}")).await;
    setting.tls.post(&setting.simulator, "/api/Status/none", &[("cookie", "a=b")], "").await;
    let verdicts = setting.verdicts();
    for wanted in [
        "negotiate: a proxy dials at once",
        "proxy: negotiateVersion in the query",
        "proxy: id in the query",
        "proxy: header cookie",
    ] {
        assert!(verdicts.iter().any(|verdict| verdict == wanted), "{wanted}: {verdicts:?}");
    }
}
