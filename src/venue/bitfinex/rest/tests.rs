#![allow(clippy::unwrap_used)]

use super::*;
use crate::credential::SecretFormat;
use crate::scope::Right;
use crate::venue::Venue;
use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

const NONCE: Nonce = Nonce(1_616_492_376_594_000);

fn signer() -> Signer {
    let text = |text: &str| Secret::from(text.to_owned());
    Signer::new(&text("real-key"), &text("dummysecret"), SecretFormat::Text).unwrap()
}

fn request_at(endpoint: &str, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> RestRequest {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query.to_owned())));
    RestRequest {
        endpoint: Bitfinex.endpoints().iter().find(|known| known.name == endpoint).unwrap(),
        method,
        path: path.to_owned(),
        query,
        headers: map,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> RestRequest {
    request_at("rest", method, path, headers, body)
}

fn post(path: &str, body: &str) -> RestRequest {
    request(Method::POST, &format!("/v2/{path}"), &[("content-type", "application/json")], body)
}

fn read(request: &RestRequest) -> Result<RestReading, Refusal> {
    Bitfinex.read(request)
}

fn acts(path: &str, body: &str) -> Vec<Act> {
    read(&post(path, body)).unwrap_or_else(|why| panic!("{path} {body}: {why:?}")).acts.iter().collect()
}

/// The sheet's table of scopes, row by row, with symbols, currencies and ids as clients write them.
const SCOPES: &[(Right, &str)] = &[
    (Right::Read, "auth/r/wallets auth/r/wallets/hist"),
    (Right::Read, "auth/r/orders auth/r/orders/tBTCUSD auth/r/orders/hist auth/r/orders/tBTCUSD/hist"),
    (Right::Read, "auth/r/orders/otc/tBTCUSD/hist auth/r/order/tTESTBTC:TESTUSD:123/trades"),
    (Right::Read, "auth/r/trades/hist auth/r/trades/tBTCUSD/hist auth/r/trades/calc"),
    (Right::Read, "auth/r/ledgers/hist auth/r/ledgers/USD/hist"),
    (Right::Read, "auth/r/positions auth/r/positions/hist auth/r/positions/audit auth/r/positions/snap"),
    (Right::Read, "auth/r/position/increase/info"),
    (Right::Read, "auth/r/info/margin/base auth/r/info/margin/sym_all auth/r/info/margin/tBTCUSD"),
    (Right::Read, "auth/r/info/funding/fUSD"),
    (Right::Read, "auth/r/funding/offers auth/r/funding/offers/fUSD auth/r/funding/offers/hist"),
    (Right::Read, "auth/r/funding/offers/fUSD/hist auth/r/funding/loans auth/r/funding/loans/fUSD"),
    (Right::Read, "auth/r/funding/loans/hist auth/r/funding/loans/fUSD/hist auth/r/funding/credits"),
    (Right::Read, "auth/r/funding/credits/fUSD auth/r/funding/credits/hist auth/r/funding/credits/fUSD/hist"),
    (Right::Read, "auth/r/funding/trades/hist auth/r/funding/trades/fUSD/hist"),
    (Right::Read, "auth/r/summary auth/r/stats/perf:1D/hist auth/r/alerts auth/r/pulse/hist auth/r/settings"),
    (Right::Read, "auth/r/settings/core auth/r/movements/hist auth/r/movements/BTC/hist auth/r/movements/info"),
    (Right::Read, "auth/r/info/user auth/r/logins/hist auth/r/audit/hist auth/r/deposit/address/all"),
    (Right::Read, "auth/r/ext/invoice/payments auth/r/ext/wallets/transfers/free/count"),
    (Right::Read, "auth/r/ext/recurring-ao/list auth/r/ext/recurring-ao/detail/7 auth/r/ext/recurring-ao/order/list"),
    (Right::Read, "auth/calc/order/avail auth/calc/deriv/collateral/limit auth/calc/deriv/collateral/limits"),
    (Right::Read, "auth/w/deriv/collateral/limits auth/w/deriv/collateral/limit"),
    (Right::Trade, "auth/w/order/submit auth/w/order/update auth/w/order/cancel auth/w/order/cancel/multi"),
    (Right::Trade, "auth/w/order/multi auth/w/position/claim auth/w/position/increase"),
    (Right::Trade, "auth/w/position/update/funding/type auth/w/deriv/collateral/set"),
    (Right::Trade, "auth/w/funding/offer/submit auth/w/funding/offer/cancel auth/w/funding/offer/cancel/all"),
    (Right::Trade, "auth/w/funding/close auth/w/funding/auto auth/w/funding/keep"),
    (Right::Trade, "auth/w/ext/recurring-ao/create auth/w/ext/recurring-ao/update/7 auth/w/ext/recurring-ao/cancel/7"),
    (Right::Transfer, "auth/w/transfer auth/w/withdraw auth/w/deposit/address auth/w/deposit/invoice"),
    (Right::Transfer, "auth/w/ext/wallets/deposits/request auth/w/ext/wallets/withdrawals/request"),
    (Right::Admin, "auth/r/permissions auth/w/alert/set auth/w/alert/del auth/w/alert/price:tBTCUSD:600.5/del"),
    (Right::Admin, "auth/w/pulse/add auth/w/pulse/del auth/w/settings/set auth/w/settings/del"),
];

#[test]
fn every_path_needs_the_right_that_the_sheet_names() {
    let mut rows = std::collections::BTreeSet::new();
    for (right, paths) in SCOPES {
        for path in paths.split(' ') {
            let body = if path.ends_with("/multi") { r#"{"all":1,"ops":[["oc",{"id":1}]]}"# } else { "{}" };
            let reading = read(&post(path, body)).unwrap_or_else(|why| panic!("{path}: {why:?}"));
            let rights: Vec<_> = reading.acts.iter().map(Act::right).collect();
            assert_eq!((rights, reading.handling), (vec![*right], Handling::Signed), "{path}");
            rows.insert(reading.operation);
        }
    }
    let missing: Vec<_> = crate::venue::bitfinex::acts::rest_paths().filter(|path| !rows.contains(path)).collect();
    assert_eq!(missing, [""; 0], "the table has rows that the sheet has not");
}

#[test]
fn a_private_path_is_reached_by_post_at_its_own_host_alone() {
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let refused = read(&request(method, "/v2/auth/r/wallets", &[], "")).unwrap_err();
        assert_eq!(refused, Refusal::Unknown);
    }
    let elsewhere = request_at("rest-public", Method::POST, "/v2/auth/r/wallets", &[], "");
    assert_eq!(read(&elsewhere).unwrap_err(), Refusal::Unknown);
    assert!(read(&request(Method::POST, "/v2/auth/r/wallets", &[], "")).is_ok());
}

#[test]
fn what_is_not_in_a_table_is_unknown() {
    for path in [
        "/v2/auth/w/token",
        "/v2/auth/w/token/del",
        "/v2/auth/w/order",
        "/v2/auth/r/wallets/x",
        "/v2/auth/w/order/submit/x",
        "/v2/authx/w/withdraw",
        "/v1/order/new",
        "/v1/balances",
        "/api/v2/auth/r/wallets",
        "/v2/calc/other",
        "/v2",
    ] {
        assert_eq!(read(&request(Method::POST, path, &[], "{}")).unwrap_err(), Refusal::Unknown, "{path}");
        assert_eq!(read(&request(Method::GET, path, &[], "")).unwrap_err(), Refusal::Unknown, "{path}");
    }
    assert_eq!(read(&request(Method::POST, "/v2/ticker/tBTCUSD", &[], "")).unwrap_err(), Refusal::Unknown);
    assert_eq!(read(&request(Method::GET, "/v2/calc/fx", &[], "")).unwrap_err(), Refusal::Unknown);
    assert_eq!(read(&request(Method::GET, "/v2/secret/tBTCUSD", &[], "")).unwrap_err(), Refusal::Unknown);
}

#[test]
fn public_data_goes_out_as_it_was_asked_for_and_unsigned() {
    // bitfinex-api-py signs these too; a part of a signature is not looked at either.
    let headers = [("bfx-apikey", "local"), ("bfx-nonce", "x"), ("bfx-token", "t"), ("authorization", "Bearer x")];
    for (endpoint, path) in [
        ("rest", "/v2/tickers?symbols=tBTCUSD,tTESTBTC:TESTUSD"),
        ("rest-public", "/v2/conf/pub:map:currency:sym,pub:list:pair:exchange"),
        ("rest-public", "/v2/candles/trade:1m:tBTCUSD/hist?limit=5&sort=-1"),
        ("rest-public", "/v2/funding/stats/fUSD/hist"),
    ] {
        let request = request_at(endpoint, Method::GET, path, &headers, "");
        let reading = read(&request).unwrap();
        assert_eq!((reading.handling, reading.acts), (Handling::Public, Acts::one(Act::Public)), "{path}");
        assert!(reading.shown.is_none());
        let passed = Bitfinex.pass(&request);
        assert_eq!((passed.endpoint, passed.method, passed.path.as_str()), (endpoint, "GET", path));
        assert_eq!(passed.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["user-agent"]);
    }
    let calculation = post("calc/fx", r#"{"ccy1":"BTC","ccy2":"USD"}"#);
    assert_eq!(read(&calculation).unwrap().handling, Handling::Public);
    let passed = Bitfinex.pass(&calculation);
    assert_eq!(
        (passed.method, passed.path.as_str(), &passed.body),
        ("POST", "/v2/calc/fx", &calculation.body.to_vec())
    );
    assert_eq!(passed.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["content-type", "user-agent"]);
}

#[test]
fn what_can_be_read_in_two_ways_is_malformed() {
    for (method, path, body) in [
        (Method::GET, "/v2/book/../auth/w/withdraw", ""),
        (Method::GET, "/v2/ticker/%74BTCUSD", ""),
        (Method::GET, "/v2/ticker//tBTCUSD", ""),
        (Method::GET, "/v2/tickers?symbols=%0aALL", ""),
        (Method::POST, "/v2/auth/w/order/submit?cid=7", "{}"),
        (Method::POST, "/v2/auth/r/order/tTESTBTC%3ATESTUSD:1/trades", "{}"),
        (Method::POST, "/v2/auth/w/order/cancel", r#"{"id":1,"id":2}"#),
        (Method::POST, "/v2/auth/w/order/cancel/multi", r#"{"All":1}"#),
        (Method::POST, "/v2/auth/w/order/cancel", r#"{"i\u0064":1}"#),
        (Method::POST, "/v2/auth/w/order/cancel", "[1]"),
        (Method::POST, "/v2/auth/w/order/cancel", "id=1"),
        (Method::POST, "/v2/auth/w/order/cancel", "\u{feff}{}"),
        (Method::POST, "/v2/calc/fx", r#"{"ccy1":"a","ccy1":"b"}"#),
    ] {
        assert_eq!(read(&request(method, path, &[], body)).unwrap_err(), Refusal::Malformed, "{path} {body}");
    }
    let with_body = request(Method::GET, "/v2/tickers", &[], "{}");
    assert_eq!(read(&with_body).unwrap_err(), Refusal::Unknown);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(read(&request(Method::POST, "/v2/auth/r/wallets", &form, "")).unwrap_err(), Refusal::Malformed);
}

#[test]
fn a_batch_is_judged_operation_by_operation() {
    let multi = "auth/w/order/multi";
    assert_eq!(acts(multi, r#"{"ops":[["on",{"cid":1}]]}"#), [Act::Order]);
    assert_eq!(acts(multi, r#"{"ops":[["oc",{"id":1}],["oc_multi",{"id":[2]}]]}"#), [Act::Cancel]);
    assert_eq!(acts(multi, r#"{"ops":[["oc",{"id":1}],["ou",{"id":2}]]}"#), [Act::Order, Act::Cancel]);
    let too_many = format!(r#"{{"ops":[{}["on",{{}}]]}}"#, r#"["on",{}],"#.repeat(75));
    for (body, why) in [
        (r#"{"ops":[["on",{}],["withdraw",{}]]}"#, Refusal::Unknown),
        (r#"{"ops":[["fon",{}]]}"#, Refusal::Unknown),
        (r#"{"ops":[]}"#, Refusal::Malformed),
        (r#"{"ops":{}}"#, Refusal::Malformed),
        (r#"{"ops":["on"]}"#, Refusal::Malformed),
        (r#"{"ops":[["on",{},["oc"]]]}"#, Refusal::Malformed),
        (r#"{"Ops":[["on",{}]]}"#, Refusal::Malformed),
        (r#"{"ops":[["o\u006e",{}]]}"#, Refusal::Malformed),
        ("{}", Refusal::Malformed),
        ("[]", Refusal::Malformed),
        ("", Refusal::Malformed),
        (&too_many, Refusal::Malformed),
    ] {
        assert_eq!(read(&post(multi, body)).unwrap_err(), why, "{body}");
    }
}

#[test]
fn a_token_of_the_exchange_is_no_proof_here() {
    let headers = [("bfx-token", "pub:api:1"), ("bfx-nonce", "1")];
    let refused = read(&request(Method::POST, "/v2/auth/r/wallets", &headers, "{}")).unwrap_err();
    assert_eq!(refused, Refusal::CredentialField);
}

// Computed with an independent program, the first two with ccxt as well.
#[test]
fn a_signed_request_has_the_signature_of_the_vectors() {
    for (path, body, signature) in [
        (
            "auth/w/order/submit",
            r#"{"type":"EXCHANGE LIMIT","symbol":"tBTCUSD","price":"100","amount":"1"}"#,
            "132788c2e09f4c84032f9998e6b0561f53f85ba4a6b87456aec863c9262505ba274228535542c9df3c0066b79877789d",
        ),
        (
            "auth/r/wallets",
            "{}",
            "85adcdb0000a8ff91d343fdd899010ebb3e8b8752fbf1a05401f890ced9472022b55cfdc2cd0f05b23fec036852ce7f0",
        ),
        (
            "auth/r/wallets",
            "",
            "0f78e45fb8349e4c91379d2bfbf8cc196720d0b71760f98945a9c8c0ca1bf0d64b5db302f82be5aad4d142cb69af5ee7",
        ),
    ] {
        let headers = [("bfx-apikey", "local"), ("bfx-nonce", "7"), ("bfx-signature", "00"), ("cookie", "c")];
        let request = request(Method::POST, &format!("/v2/{path}"), &headers, body);
        let signed = Bitfinex.sign(&request, &read(&request).unwrap(), &signer(), NONCE);
        let told: Vec<_> =
            signed.headers.iter().map(|(name, value)| (*name, std::str::from_utf8(value.expose()).unwrap())).collect();
        assert_eq!(
            told[..4],
            [
                ("bfx-nonce", "1616492376594000"),
                ("bfx-apikey", "real-key"),
                ("bfx-signature", signature),
                ("content-type", "application/json"),
            ]
        );
        assert_eq!((told.len(), told[4].0), (5, "user-agent"));
        assert_eq!((signed.method, signed.endpoint, &signed.path), ("POST", "rest", &request.path));
        assert_eq!(signed.body, body.as_bytes());
    }
}

#[test]
fn a_client_s_own_signature_is_shown_over_what_it_sent() {
    let signature = "85adcdb0000a8ff91d343fdd899010ebb3e8b8752fbf1a05401f890ced9472022b55cfdc2cd0f05b23fec036852ce7f0";
    let shown =
        |body: &str, headers: &[(&str, &str)]| match read(&request(Method::POST, "/v2/auth/r/wallets", headers, body))?
            .shown
        {
            Some(ClientLogin::Signed(login)) => Ok(Some((login.is_by(&signer()), login.api_key, login.nonce))),
            Some(ClientLogin::Token(_) | ClientLogin::Key { .. }) => panic!("no token"),
            None => Ok(None),
        };
    let headers = [("bfx-apikey", "local-key"), ("bfx-nonce", "1616492376594000"), ("bfx-signature", signature)];
    assert_eq!(shown("{}", &headers), Ok(Some((true, "local-key".to_owned(), NONCE.0))));
    assert_eq!(shown("", &headers), Ok(Some((false, "local-key".to_owned(), NONCE.0))));
    assert_eq!(shown("{}", &[]), Ok(None));

    // A part of a credential is none.
    for left_out in 0..3 {
        let mut part = headers.to_vec();
        part.remove(left_out);
        assert_eq!(shown("{}", &part), Err(Refusal::NotAuthenticated), "without {left_out}");
        let mut twice = headers.to_vec();
        twice.push(headers[left_out]);
        assert_eq!(shown("{}", &twice), Err(Refusal::NotAuthenticated), "twice {left_out}");
    }
    for (at, bad) in [(1, ""), (1, "+1"), (1, "1.5"), (1, "18446744073709551616"), (2, "dummy"), (2, "abc")] {
        let mut spoilt = headers;
        spoilt[at].1 = bad;
        assert_eq!(shown("{}", &spoilt), Err(Refusal::NotAuthenticated), "{spoilt:?}");
    }
}

#[test]
fn a_cancel_names_its_orders_by_kind_and_number() {
    let subjects = |path: &str, body: &str| read(&post(path, body)).unwrap().subjects;
    let named = |names: &[&str]| Subjects::Named(names.iter().map(|name| (*name).into()).collect());
    assert_eq!(subjects("auth/w/order/submit", r#"{"cid":12,"gid":3,"price":"9"}"#), named(&["cid:12", "gid:3"]));
    assert_eq!(subjects("auth/w/order/submit", r#"{"price":"9"}"#), Subjects::None);
    assert_eq!(subjects("auth/w/order/update", r#"{"id":1,"price":"9"}"#), named(&["id:1"]));
    assert_eq!(subjects("auth/w/order/cancel", r#"{"id":"1"}"#), named(&["id:1"]));
    assert_eq!(subjects("auth/w/order/cancel", r#"{"cid":12,"cid_date":"2026-01-01"}"#), named(&["cid:12"]));
    let multi = "auth/w/order/cancel/multi";
    let body = r#"{"id":[1,2],"cid":[[12,"2026-01-01"]],"gid":[3]}"#;
    assert_eq!(subjects(multi, body), named(&["id:1", "id:2", "cid:12", "gid:3"]));
    for body in [r#"{"all":1}"#, r#"{"id":[1],"all":true}"#, "{}", "", r#"{"id":{}}"#] {
        assert_eq!(subjects(multi, body), Subjects::All, "{body}");
    }
    let batch = "auth/w/order/multi";
    let body = r#"{"ops":[["on",{"cid":12}],["oc",{"id":1}]]}"#;
    assert_eq!(subjects(batch, body), named(&["cid:12", "id:1"]));
    assert_eq!(subjects(batch, r#"{"ops":[["oc",{"id":1}],["oc_multi",{"all":1}]]}"#), Subjects::All);
    assert_eq!(subjects(batch, r#"{"ops":[["on",{"cid":12}],["oc",{}]]}"#), Subjects::All);

    let offer = subjects("auth/w/funding/offer/submit", r#"{"symbol":"fUSD"}"#);
    assert!(subjects("auth/w/funding/offer/cancel/all", "{}").meet(&offer));
    assert!(!subjects("auth/w/funding/offer/cancel", r#"{"id":1}"#).meet(&offer));
    assert!(!subjects("auth/w/funding/offer/cancel/all", "{}").meet(&named(&["cid:12"])));
}

#[test]
fn a_number_that_is_written_otherwise_does_not_hide_an_order_from_its_cancel() {
    let subjects = |path: &str, body: &str| read(&post(path, body)).unwrap().subjects;
    let order = subjects("auth/w/order/submit", r#"{"cid":1}"#);
    for cid in ["1.0", "10e-1", "\"01\"", "\"1 \"", "\"+1\"", "\"\\u0031\"", "[[1.0,\"2026-01-01\"]]", "true", "{}"] {
        let cancel = subjects("auth/w/order/cancel", &format!(r#"{{"cid":{cid}}}"#));
        assert!(cancel.meet(&order), "{cid} may be the number of the order");
        let other = subjects("auth/w/order/submit", &format!(r#"{{"cid":{cid}}}"#));
        let cancel = subjects("auth/w/order/cancel", r#"{"cid":1}"#);
        assert!(cancel.meet(&other), "{cid} may be the number of the cancel");
    }
    let other = subjects("auth/w/order/cancel", r#"{"cid":"2"}"#);
    assert!(!other.meet(&order), "plain digits are a number of their own, with quotes or without");
}

#[test]
fn an_outcome_is_read_at_the_start_of_an_error_alone() {
    let outcome = |text: &str| Bitfinex.outcome(500, text.as_bytes());
    assert_eq!(outcome(r#"["error",10114,"nonce: small"]"#), LoginOutcome::NonceTooSmall);
    assert_eq!(outcome(" [ \"error\" , 10114 , \"nonce: small\"]"), LoginOutcome::NonceTooSmall);
    assert_eq!(outcome(r#"["error",10100,"apikey: digest invalid"]"#), LoginOutcome::Refused);
    assert_eq!(outcome(r#"["error",10113"#), LoginOutcome::Accepted, "cut off");
    for text in [
        "",
        r#"["error",10001,"api_key: permission invalid"]"#,
        r#"["error",11010,"ratelimit: error"]"#,
        r#"["error",101001,"x"]"#,
        r#"["error","10100"]"#,
        r#"[[1,"error",10100]]"#,
        r#"[1616492376594,"on-req",null,null,["error",10100],null,"ERROR","nonce: small"]"#,
        r#"{"error":10100}"#,
        "<html>10100</html>",
    ] {
        assert_eq!(outcome(text), LoginOutcome::Accepted, "{text}");
    }
}

#[test]
fn a_refusal_is_one_that_libraries_know() {
    for (why, status, code) in [
        (Unanswered::Refused(Refusal::NotPermitted(Right::Trade)), 500, 10_001),
        (Unanswered::Refused(Refusal::Unknown), 500, 10_000),
        (Unanswered::Refused(Refusal::Malformed), 500, 10_020),
        (Unanswered::Refused(Refusal::CredentialField), 500, 10_100),
        (Unanswered::Refused(Refusal::NotAuthenticated), 500, 10_100),
        (Unanswered::Refused(Refusal::Replayed), 500, 10_114),
        (Unanswered::Busy, 500, 11_010),
        (Unanswered::Withdrawn, 500, 10_008),
        (Unanswered::Unavailable, 503, 11_000),
        (Unanswered::MaybeSent, 504, 10_000),
    ] {
        let answer = Bitfinex.refuse(None, why);
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &body[0], &body[1]), (status, &"error".into(), &code.into()), "{why:?}");
        // ccxt takes these words for something else, before it looks at the code.
        let text = body[2].as_str().unwrap();
        for word in ["available balance is only", "not enough exchange balance", "Order not found", "symbol: invalid"] {
            assert!(!text.contains(word), "{text}");
        }
    }
    let denied = Bitfinex.refuse(None, Unanswered::Refused(Refusal::NotAuthenticated));
    assert_eq!(denied.body, r#"["error",10100,"apikey: invalid"]"#);
}

proptest! {
    #[test]
    fn a_body_leaves_byte_for_byte(
        members in prop::collection::vec("\"[a-m]{5}\" ?: ?(0\\.[0-9]{1,20}|\"[ -!#-Z\u{e4}]{0,6}\"|\\[1, ?\\{\\}\\]|null)", 0..6),
    ) {
        let request = post("auth/w/order/submit", &format!("{{{} }}", members.join(" ,\t")));
        if let Ok(reading) = read(&request) {
            let sent = Bitfinex.sign(&request, &reading, &signer(), NONCE);
            prop_assert_eq!(&sent.body[..], &request.body[..]);
        } else {
            let is_json = json::read(&request.body).is_ok();
            prop_assert!(!is_json, "refused {:?}", request.body);
        }
    }
}
