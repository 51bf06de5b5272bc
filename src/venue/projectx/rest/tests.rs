use super::*;
use crate::venue::Venue as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

fn request(method: Method, path: &str, body: &str) -> RestRequest {
    let endpoint = ProjectX.endpoints().iter().find(|endpoint| endpoint.name == "rest").expect("in the table");
    RestRequest {
        endpoint,
        method,
        path: path.to_owned(),
        query: None,
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn post(path: &str, body: &str) -> RestRequest {
    request(Method::POST, path, body)
}

fn borne(request: &RestRequest) -> SignedRequest {
    let reading = ProjectX.read(request).expect("in the table");
    assert_eq!(reading.handling, Handling::Bearer);
    ProjectX.bear(request, &reading, &Secret::from("REAL.JWT.x".to_owned()))
}

#[test]
fn nothing_of_the_clients_headers_leaves() {
    let mut request = post("/api/Order/search", r#"{"accountId":1}"#);
    for name in ["cookie", "x-forwarded-for", "authorization", "user-agent", "x-api-key", "accept-encoding", "origin"] {
        request.headers.insert(name, HeaderValue::from_static("Bearer canary"));
    }
    let sent = borne(&request);
    let names: Vec<_> = sent.headers.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["authorization", "content-type", "accept", "user-agent"]);
    assert!(sent.headers.iter().all(|(_, value)| !value.expose().ends_with(b"canary")));
}

#[test]
fn the_path_leaves_as_the_venue_spells_it() {
    assert_eq!(borne(&post("/API/ORDER/V2/QUERY", r#"{"filter":{"accountId":1}}"#)).path, "/api/Order/v2/query");
    assert_eq!(ProjectX.pass(&request(Method::GET, "/api/status/PING", "")).path, "/api/Status/ping");
}

#[test]
fn a_401_alone_is_a_refused_token() {
    assert_eq!(ProjectX.outcome(401, b""), LoginOutcome::Refused);
    for status in [200, 400, 403, 404, 429, 500, 503] {
        assert_eq!(ProjectX.outcome(status, br#"{"success":false,"errorCode":3}"#), LoginOutcome::Accepted, "{status}");
    }
}

#[test]
fn every_operation_refuses_without_a_401_in_the_venues_envelope() {
    for (path, code) in [
        ("/api/Order/place", 2),
        ("/api/Order/modify", 3),
        ("/api/Order/cancel", 3),
        ("/api/Position/closeContract", 5),
        ("/api/Position/partialCloseContract", 6),
        ("/api/Account/search", 1),
        ("/api/Trade/search", 1),
    ] {
        for why in [Refusal::NotPermitted(Right::Trade), Refusal::CredentialField, Refusal::Replayed] {
            let answer = ProjectX.refuse(Some(&post(path, "{}")), Unanswered::Refused(why));
            let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
            assert_eq!((answer.status, &body["errorCode"]), (200, &code.into()), "{path}");
            assert_eq!((&body["success"], &body["errorMessage"]), (&false.into(), &"denied by local policy".into()));
        }
    }
    for (why, status) in [
        (Unanswered::Refused(Refusal::NotAuthenticated), 401),
        (Unanswered::Refused(Refusal::Unknown), 404),
        (Unanswered::Refused(Refusal::Malformed), 400),
        (Unanswered::Withdrawn, 200),
        (Unanswered::Busy, 503),
        (Unanswered::Unavailable, 503),
        (Unanswered::MaybeSent, 504),
    ] {
        let answer = ProjectX.refuse(None, why);
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!((answer.status, &body["success"]), (status, &false.into()), "{why:?}");
        assert!(body["errorCode"].as_u64().is_some_and(|code| code > 0), "{why:?}");
    }
}

#[test]
fn a_house_token_is_no_placeholder_and_two_headers_are_none() {
    let mut request = post("/api/Order/search", r#"{"accountId":1}"#);
    request.headers.insert("authorization", HeaderValue::from_static("Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln"));
    assert!(ProjectX.read(&request).expect("in the table").shown.is_none());
    request.headers.append("authorization", HeaderValue::from_static("Bearer other"));
    assert_eq!(ProjectX.read(&request).expect_err("two of them"), Refusal::NotAuthenticated);
}

#[test]
fn both_accounts_that_a_request_names_are_judged() {
    let request = post("/api/Order/v2/query", r#"{"accountId":1,"filter":{"accountId":2}}"#);
    assert_eq!(ProjectX.read(&request).expect("in the table").sub_accounts, [1, 2]);
    let request = post("/api/Account/search", r#"{"accountId":7}"#);
    assert_eq!(ProjectX.read(&request).expect("in the table").sub_accounts, [7]);
}

proptest! {
    #[test]
    fn a_body_leaves_byte_for_byte(
        members in prop::collection::vec("\"[a-e]{6}\" ?: ?(0\\.[0-9]{1,20}|\"[ -!#-Z\u{e4}]{0,6}\"|\\[1, ?\\{\\}\\]|null)", 0..6),
    ) {
        let mut text = format!("{{ \"accountId\" :9 ,{}", members.join(" ,\t"));
        if members.is_empty() {
            text.pop();
        }
        text.push('}');
        let request = post("/api/Order/place", &text);
        match ProjectX.read(&request) {
            Ok(reading) => {
                prop_assert_eq!(&reading.sub_accounts, &[9]);
                prop_assert_eq!(borne(&request).body, text.into_bytes());
            }
            // Two members of one name.
            Err(why) => prop_assert_eq!(why, Refusal::Malformed),
        }
    }
}
