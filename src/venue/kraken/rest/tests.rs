#![allow(clippy::unwrap_used)]

use super::*;
use crate::credential::SecretFormat;
use crate::fresh::UnixMillis;
use crate::scope::Right;
use crate::venue::{Endpoint, Venue};
use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// Of docs.kraken.com, "Spot REST authentication".
const NONCE: Nonce = Nonce(1_616_492_376_594);

fn signer() -> Signer {
    let secret = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==";
    let text = |text: &str| Secret::from(text.to_owned());
    Signer::new(&text("real-key"), &text(secret), SecretFormat::Base64).unwrap()
}

fn endpoint() -> &'static Endpoint {
    Kraken.endpoints().iter().find(|endpoint| endpoint.name == "rest").unwrap()
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> RestRequest {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query.to_owned())));
    RestRequest {
        endpoint: endpoint(),
        method,
        path: path.to_owned(),
        query,
        headers: map,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn post(name: &str, media_type: &str, body: &str) -> RestRequest {
    request(Method::POST, &format!("/0/private/{name}"), &[("content-type", media_type)], body)
}

fn read(request: &RestRequest) -> Result<RestReading, Refusal> {
    Rest::read(&Kraken, request)
}

/// What the exchange gets as the body.
fn sent(request: &RestRequest) -> Result<String, Refusal> {
    let reading = read(request)?;
    Ok(String::from_utf8(Piece::render(&reading.body, &request.body, NONCE)).unwrap())
}

fn header<'a>(request: &'a SignedRequest, name: &str) -> &'a str {
    let found: Vec<_> = request.headers.iter().filter(|(known, _)| *known == name).collect();
    assert_eq!(found.len(), 1, "{name}");
    std::str::from_utf8(found[0].1.expose()).unwrap()
}

fn act(name: &str, body: &str) -> Act {
    let acts: Vec<_> = read(&post(name, FORM, body)).unwrap().acts.iter().collect();
    assert_eq!(acts.len(), 1);
    acts[0]
}

/// The sheet's table of scopes, row by row.
const SCOPES: &[(Right, &str)] = &[
    (Right::Read, "Balance BalanceEx CreditLines TradeBalance OpenOrders ClosedOrders QueryOrders OrderAmends"),
    (Right::Read, "TradesHistory QueryTrades OpenPositions Ledgers QueryLedgers TradeVolume"),
    (Right::Read, "AddExport ExportStatus RetrieveExport RemoveExport Level3 ListWalletAccounts GetWebSocketsToken"),
    (Right::Read, "DepositMethods DepositStatus WithdrawMethods WithdrawAddresses WithdrawInfo WithdrawStatus"),
    (Right::Read, "Earn/Strategies Earn/Allocations Earn/AllocateStatus Earn/DeallocateStatus"),
    (Right::Trade, "AddOrder AddOrderBatch AmendOrder EditOrder CancelOrder CancelAll CancelAllOrdersAfter"),
    (Right::Trade, "CancelOrderBatch"),
    (Right::Transfer, "Withdraw WithdrawCancel WalletTransfer AccountTransfer Earn/Allocate Earn/Deallocate"),
    (Right::Admin, "GetApiKeyInfo CreateSubaccount CreatePrimeApiUser GetPrimeApiUser ListPrimeApiUsers"),
    (Right::Admin, "UpdatePrimeApiUser UpdatePrimeApiUserRoles DeletePrimeApiUserKey ListPrimeApiUserKeys"),
    (Right::Admin, "UpdatePrimeApiUserKey"),
];

#[test]
fn every_method_needs_the_right_that_the_sheet_names() {
    let mut count = 0;
    for (right, names) in SCOPES {
        for name in names.split(' ') {
            let reading = read(&post(name, FORM, "nonce=1")).unwrap_or_else(|why| panic!("{name}: {why:?}"));
            let rights: Vec<_> = reading.acts.iter().map(Act::right).collect();
            assert_eq!(rights, [*right], "{name}");
            assert_eq!(reading.operation, name);
            count += 1;
        }
    }
    // `DepositAddresses` is the one that depends on its body.
    assert_eq!(count + 1, acts::rest_rows(), "the table has rows that the sheet has not");
}

#[test]
fn cancels_are_told_from_orders() {
    for name in ["CancelOrder", "CancelOrderBatch", "CancelAll"] {
        assert_eq!(act(name, "txid=O"), Act::Cancel, "{name}");
    }
    for name in ["AddOrder", "AddOrderBatch", "AmendOrder", "EditOrder"] {
        assert_eq!(act(name, "txid=O"), Act::Order, "{name}");
    }
}

#[test]
fn disarming_the_timer_is_an_order_and_arming_it_a_cancel() {
    assert_eq!(act("CancelAllOrdersAfter", "timeout=60"), Act::Cancel);
    for body in ["timeout=0", "timeout=00", "timeout=", "timeout=-1", "timeout=1e1", "timeout=+60", "", "nonce=1"] {
        assert_eq!(act("CancelAllOrdersAfter", body), Act::Order, "{body}");
    }
    let json = |body| read(&post("CancelAllOrdersAfter", JSON, body)).unwrap().acts.iter().next();
    assert_eq!(json(r#"{"timeout":60}"#), Some(Act::Cancel));
    assert_eq!(json(r#"{"timeout":"60"}"#), Some(Act::Cancel));
    for body in [r#"{"timeout":0}"#, r#"{"timeout":0.5}"#, r#"{"timeout":null}"#, r#"{"timeout":[60]}"#, "{}"] {
        assert_eq!(json(body), Some(Act::Order), "{body}");
    }
    assert_eq!(read(&post("CancelAllOrdersAfter", FORM, "timeout[]=60")).unwrap_err(), Refusal::Malformed);
    assert_eq!(read(&post("CancelAllOrdersAfter", FORM, "Timeout=60")).unwrap_err(), Refusal::Malformed);
}

#[test]
fn asking_for_an_address_is_a_read_until_a_new_one_is_asked_for() {
    assert_eq!(act("DepositAddresses", "asset=XBT&method=Bitcoin"), Act::Read);
    for body in ["asset=XBT&new=true", "new=false", "new="] {
        assert_eq!(act("DepositAddresses", body), Act::Transfer, "{body}");
    }
    for body in ["New=true", "new[]=true"] {
        assert_eq!(read(&post("DepositAddresses", FORM, body)).unwrap_err(), Refusal::Malformed, "{body}");
    }
    let json = read(&post("DepositAddresses", JSON, r#"{"asset":"XBT","new":true}"#)).unwrap();
    assert_eq!(json.acts, Acts::one(Act::Transfer));
}

#[test]
fn a_public_method_goes_out_as_it_came_and_without_credentials() {
    let headers =
        [("api-key", "local"), ("api-sign", "not even base64"), ("authorization", "Bearer x"), ("cookie", "c")];
    let request = request(Method::GET, "/0/public/Ticker?pair=XBT/USD", &headers, "");
    let reading = read(&request).unwrap();
    assert_eq!((reading.handling, reading.acts), (Handling::Public, Acts::one(Act::Public)));
    assert!(reading.shown.is_none());
    let passed = Kraken.pass(&request);
    assert_eq!((passed.method, passed.path.as_str(), passed.body.len()), ("GET", "/0/public/Ticker?pair=XBT/USD", 0));
    assert_eq!(passed.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["user-agent"]);
}

#[test]
fn what_is_not_in_the_table_is_unknown() {
    for (method, path) in [
        (Method::POST, "/0/public/Time"),
        (Method::GET, "/0/private/Balance"),
        (Method::PUT, "/0/private/AddOrder"),
        (Method::DELETE, "/0/private/CancelAll"),
        (Method::POST, "/0/private/balance"),
        (Method::POST, "/0/private/Stake"),
        (Method::POST, "/0/private/CreatePrimeApiUserKey"),
        (Method::POST, "/1/private/Balance"),
        (Method::GET, "/0/public/private/Balance"),
        (Method::GET, "/funding/v1/withdrawals"),
        (Method::POST, "/funding/v1/withdrawals"),
        (Method::GET, "/0"),
    ] {
        assert_eq!(read(&request(method.clone(), path, &[], "")).unwrap_err(), Refusal::Unknown, "{method} {path}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_malformed() {
    for (method, path, body) in [
        (Method::GET, "/0/public/../private/Withdraw", ""),
        (Method::GET, "/0/public/%2e%2e/private/Withdraw", ""),
        (Method::GET, "/0//public/Time", ""),
        (Method::GET, "/0/public/Time?a=%0d%0aapi-key:x", ""),
        (Method::GET, "/0/public/Time?a=%", ""),
        (Method::GET, "/0/public/Time", "nonce=1"),
        (Method::POST, "/0/private/CancelAllOrdersAfter?timeout=0", "timeout=60"),
        (Method::POST, "/0/private/AddOrder?", "nonce=1"),
        (Method::POST, "/0/private/AddOrder", "nonce=1&nonce=2"),
        (Method::POST, "/0/private/AddOrder", "nonce=1&price=%"),
        (Method::POST, "/0/private/AddOrder", "{\"nonce\":1}"),
        (Method::POST, "/0/private/AddOrder", "\u{1f}\u{8b}\u{8}"),
    ] {
        assert_eq!(read(&request(method, path, &[], body)).unwrap_err(), Refusal::Malformed, "{path} {body:?}");
    }
    for body in [
        r#"{"nonce":1,"nonce":2}"#,
        r#"{"nonce":1,"Otp":2}"#,
        r#"{"nonce":null}"#,
        r#"{"nonce":[1]}"#,
        r#"{"n\u006fnce":1}"#,
        "[]",
        "\"x\"",
        "nonce=1",
        " ",
    ] {
        assert_eq!(read(&post("AddOrder", JSON, body)).unwrap_err(), Refusal::Malformed, "{body}");
    }
    for media_type in ["text/plain", "multipart/form-data; boundary=x", "application/jsonp", ""] {
        assert_eq!(read(&post("Balance", media_type, "nonce=1")).unwrap_err(), Refusal::Malformed, "{media_type}");
    }
    let twice = request(Method::POST, "/0/private/Balance", &[("content-type", FORM), ("content-type", JSON)], "{}");
    assert_eq!(read(&twice).unwrap_err(), Refusal::Malformed);
}

#[test]
fn the_nonce_of_a_form_is_replaced_or_put_in_front() {
    for (body, wanted) in [
        ("nonce=1&ordertype=limit", "nonce=1616492376594&ordertype=limit"),
        ("pair=XBT%2FUSD&price=0.10&nonce=99999999999999999", "pair=XBT%2FUSD&price=0.10&nonce=1616492376594"),
        ("nonce=", "nonce=1616492376594"),
        ("pair=XBTUSD", "nonce=1616492376594&pair=XBTUSD"),
        ("", "nonce=1616492376594"),
        ("otp=123456", "nonce=1616492376594"),
        ("otp=123456&nonce=1&a=b", "nonce=1616492376594&a=b"),
        ("nonce=1&otp=123456&a=b", "nonce=1616492376594&a=b"),
        ("nonce=1&a=b&otp=%31%32", "nonce=1616492376594&a=b"),
        ("a=b&otp=123456", "nonce=1616492376594&a=b"),
        ("orders[0][price]=1.10&nonce=1", "orders[0][price]=1.10&nonce=1616492376594"),
    ] {
        assert_eq!(sent(&post("AddOrder", FORM, body)).unwrap(), wanted, "{body}");
    }
}

#[test]
fn the_nonce_of_a_json_body_keeps_its_kind() {
    for (body, wanted) in [
        (r#"{"nonce":1,"price":0.10}"#, r#"{"nonce":1616492376594,"price":0.10}"#),
        (r#"{"price": 0.10, "nonce" : "1" }"#, r#"{"price": 0.10, "nonce" : "1616492376594" }"#),
        (r#"{"nonce":"\u0031"}"#, r#"{"nonce":"1616492376594"}"#),
        (r#"{"a":1e400}"#, r#"{"nonce":1616492376594,"a":1e400}"#),
        ("{ }", r#"{"nonce":1616492376594 }"#),
        (r#"{"otp":"1"}"#, r#"{"nonce":1616492376594}"#),
        (r#"{"otp":"1","nonce":"2"}"#, r#"{"nonce":"1616492376594"}"#),
        (r#"{"nonce":"2","otp":{"x":[1]},"a":"b"}"#, r#"{"nonce":"1616492376594","a":"b"}"#),
        (r#"{"nonce":"2","otp":1}"#, r#"{"nonce":"1616492376594"}"#),
        ("", "nonce=1616492376594"),
    ] {
        assert_eq!(sent(&post("AddOrder", "application/json; charset=utf-8", body)).unwrap(), wanted, "{body}");
    }
}

#[test]
fn a_body_is_a_form_where_no_header_says_it() {
    let request = request(Method::POST, "/0/private/Balance", &[], "asset=XBT");
    assert_eq!(sent(&request).unwrap(), "nonce=1616492376594&asset=XBT");
    let signed = Kraken.sign(&request, &read(&request).unwrap(), &signer(), NONCE);
    assert_eq!(header(&signed, "content-type"), FORM);
}

// The first of docs.kraken.com, "Spot REST authentication", the others computed with an independent program.
#[test]
fn a_signed_request_has_the_signature_of_the_vectors() {
    for (name, media_type, body, signature) in [
        (
            "AddOrder",
            "application/x-www-form-urlencoded; charset=utf-8",
            "nonce=1&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25",
            "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ==",
        ),
        (
            "GetWebSocketsToken",
            FORM,
            "",
            "+mRDmY9Ks0Moc1zjv/BjfvYa98buO0x1yHChZR5onlfAzAUbfIYlLggUZzdQ0RsmXm4Sh+Q8iAIZdo2wSeHeiA==",
        ),
        (
            "AddOrder",
            JSON,
            r#"{"nonce":"7","ordertype":"limit","pair":"XBTUSD","price":"37500","type":"buy","volume":"1.25"}"#,
            "r/o+GpKxXjV/mls/r5CKLu5R+yzK5psqvQ4hXxMX1nzdxTBhV+ui82QGgPZMMitpFwCOAdPEZMmXgZxD2chJEg==",
        ),
        (
            "Balance",
            "APPLICATION/JSON",
            "{}",
            "ZVxRwNS9zIRhbpUb8yixCnTByWFw2zyehNjZaXEL5we8API+r8c+DBmgFxxnKoY+TaJXx0NSYhsaAexZm62elg==",
        ),
    ] {
        let request = post(name, media_type, body);
        let signed = Kraken.sign(&request, &read(&request).unwrap(), &signer(), NONCE);
        assert_eq!(header(&signed, "api-sign"), signature, "{name} {body}");
        assert_eq!(header(&signed, "api-key"), "real-key");
        let wanted = if media_type.eq_ignore_ascii_case(JSON) { JSON } else { FORM };
        assert_eq!(header(&signed, "content-type"), wanted);
        assert_eq!((signed.method, signed.endpoint, &signed.path), ("POST", "rest", &request.path));
        assert_eq!(signed.headers.len(), 4);
    }
}

#[test]
fn a_client_s_own_signature_is_shown_over_what_it_sent() {
    let body = "nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25";
    let signature = "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ==";
    let shown = |body: &str, headers: &[(&str, &str)]| {
        let request = request(Method::POST, "/0/private/AddOrder", headers, body);
        match read(&request)?.shown {
            Some(ClientLogin::Signed(login)) => Ok(Some((login.is_by(&signer()), login.api_key, login.nonce))),
            Some(ClientLogin::Token(_) | ClientLogin::Key { .. }) => panic!("no token"),
            None => Ok(None),
        }
    };
    let headers = [("API-Key", "local-key"), ("API-Sign", signature)];
    assert_eq!(shown(body, &headers), Ok(Some((true, "local-key".to_owned(), 1_616_492_376_594))));
    let other = body.replace("1.25", "1.26");
    assert_eq!(shown(&other, &headers), Ok(Some((false, "local-key".to_owned(), 1_616_492_376_594))));
    assert_eq!(shown(body, &[]), Ok(None));

    // Half a credential is none.
    for headers in [
        &headers[..1],
        &headers[1..],
        &[headers[0], headers[0], headers[1]],
        &[headers[0], headers[1], headers[1]],
        &[headers[0], ("API-Sign", "dummy")],
    ] {
        assert_eq!(shown(body, headers), Err(Refusal::NotAuthenticated), "{headers:?}");
    }
    for nonce in ["a=b", "nonce=", "nonce=-1", "nonce=%2B1", "nonce=1.5", "nonce=18446744073709551616"] {
        assert_eq!(shown(nonce, &headers), Err(Refusal::NotAuthenticated), "{nonce}");
    }
}

#[test]
fn a_body_that_another_reader_would_give_up_on_is_refused_before_it_costs_a_nonce() {
    let members = |count: usize| (0..count).map(|number| format!(r#""a{number}":1,"#)).collect::<String>();
    let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    for (body, is_taken) in [
        (format!(r#"{{{}"nonce":1}}"#, members(200)), true),
        (format!(r#"{{{}"nonce":1}}"#, members(2000)), false),
        (format!(r#"{{"x":{},"nonce":1}}"#, nested(6)), true),
        (format!(r#"{{"x":{},"nonce":1}}"#, nested(20)), false),
    ] {
        let reading = read(&post("AddOrder", JSON, &body));
        assert_eq!(reading.is_ok(), is_taken, "{} bytes", body.len());
    }
    let fields = (0..2000).map(|number| format!("a{number}=1&")).collect::<String>();
    assert_eq!(read(&post("AddOrder", FORM, &(fields + "nonce=1"))).err(), Some(Refusal::Malformed));
}

#[test]
fn a_request_for_a_token_is_answered_by_us() {
    let reading = read(&post("GetWebSocketsToken", FORM, "nonce=1")).unwrap();
    assert_eq!(reading.handling, Handling::Local(Local::Token));
    assert_eq!(read(&post("Balance", FORM, "nonce=1")).unwrap().handling, Handling::Signed);
    let placeholder = Secret::from("cs.a/b+c=".to_owned());
    let given = Given::Token { placeholder: &placeholder, ends_at: UnixMillis(1_900_999), now: UnixMillis(1_000_000) };
    let answer = Kraken.answer(&post("GetWebSocketsToken", FORM, "nonce=1"), given);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, r#"{"error":[],"result":{"token":"cs.a/b+c=","expires":900}}"#);
}

#[test]
fn a_cancel_names_its_orders_wherever_they_stand() {
    let subjects = |name: &str, media_type: &str, body: &str| read(&post(name, media_type, body)).unwrap().subjects;
    let named = |names: &[&str]| Subjects::Named(names.iter().map(|name| (*name).into()).collect());
    assert_eq!(subjects("AddOrder", FORM, "nonce=1&userref=42&cl_ord_id=a-b&price=7"), named(&["42", "a-b"]));
    assert_eq!(subjects("CancelOrder", FORM, "txid=42"), named(&["42"]));
    assert_eq!(subjects("CancelOrder", FORM, "cl_ord_id=a-b"), named(&["a-b"]));
    assert_eq!(subjects("CancelOrder", FORM, "txid=OA%2C+OB"), named(&["OA", "OB"]));
    assert_eq!(subjects("CancelOrderBatch", FORM, "orders[0]=OA&orders%5B1%5D=7"), named(&["OA", "7"]));
    assert_eq!(subjects("AddOrderBatch", FORM, "orders[0][userref]=5&orders[0][price]=9&pair=X"), named(&["5"]));
    assert_eq!(subjects("AmendOrder", JSON, r#"{"order_id":"OA","limit_price":"5"}"#), named(&["OA"]));
    assert_eq!(subjects("CancelOrderBatch", JSON, r#"{"orders":["OA",7]}"#), named(&["OA", "7"]));
    let body = r#"{"orders":[{"txid":"OA"},{"cl_ord_id":"c"}],"cl_ord_ids":[{"cl_ord_id":"d"}]}"#;
    assert_eq!(subjects("CancelOrderBatch", JSON, body), named(&["OA", "c", "d"]));
    let body = r#"{"pair":"X","orders":[{"userref":5,"price":"9","close":{"price":"8"}},{"cl_ord_id":"c"}]}"#;
    assert_eq!(subjects("AddOrderBatch", JSON, body), named(&["5", "c"]));
    assert_eq!(subjects("CancelAll", FORM, ""), Subjects::All);
    assert_eq!(subjects("CancelOrder", FORM, "nonce=1"), Subjects::All);
    assert_eq!(subjects("AddOrder", FORM, "price=7"), Subjects::None);
    assert_eq!(subjects("CancelAllOrdersAfter", FORM, "timeout=60"), Subjects::None);
}

#[test]
fn an_outcome_is_read_at_the_top_of_an_answer_alone() {
    let outcome = |text: &str| Kraken.outcome(200, text.as_bytes());
    for text in [
        r#"{"error":["EAPI:Invalid nonce"]}"#,
        " {\n\t\"error\" : [ \"EAPI:Invalid nonce\" ] }",
        r#"{"error":["EGeneral:Invalid arguments","EAPI:Invalid nonce"],"result":{"#,
    ] {
        assert_eq!(outcome(text), LoginOutcome::NonceTooSmall, "{text}");
    }
    for error in CREDENTIAL_ERRORS {
        assert_eq!(outcome(&format!(r#"{{"error":["{error}"]}}"#)), LoginOutcome::Refused, "{error}");
        assert_eq!(outcome(&format!(r#"{{"error":["{error}:detail"]}}"#)), LoginOutcome::Refused, "{error}");
    }
    for text in [
        "",
        "{",
        "<html>EAPI:Invalid nonce</html>",
        r#"{"error":[]}"#,
        r#"{"error":["EGeneral:Permission denied"]}"#,
        r#"{"error":["EAPI:Invalid nonces"]}"#,
        r#"{"error":["EAPI:Invalid nonce"#,
        r#"{"error":[],"result":{"error":["EAPI:Invalid nonce"]}}"#,
        r#"{"result":{"error":["EAPI:Invalid nonce"]},"error":[]}"#,
        r#"{"error":[]} ["EAPI:Invalid key"]"#,
        r#"["EAPI:Invalid key"]"#,
        r#"{"error":"EAPI:Invalid key"}"#,
        r#"{"error":["x" "EAPI:Invalid key"]}"#,
    ] {
        assert_eq!(outcome(text), LoginOutcome::Accepted, "{text}");
    }
    assert_eq!(Kraken.outcome(200, b"{\"error\":[\"EAPI:Invalid key\"],\"x\":\"\xe2\x82"), LoginOutcome::Refused);
}

#[test]
fn a_refusal_is_one_that_libraries_know() {
    for (why, status, error) in [
        (Unanswered::Refused(Refusal::NotPermitted(Right::Trade)), 200, "EGeneral:Permission denied"),
        (Unanswered::Refused(Refusal::Unknown), 200, "EGeneral:Unknown method"),
        (Unanswered::Refused(Refusal::Malformed), 200, "EGeneral:Invalid arguments"),
        (Unanswered::Refused(Refusal::CredentialField), 200, "EGeneral:Invalid arguments"),
        (Unanswered::Refused(Refusal::NotAuthenticated), 200, "EAPI:Invalid key"),
        (Unanswered::Refused(Refusal::Replayed), 200, "EAPI:Invalid nonce"),
        (Unanswered::Busy, 200, "EAPI:Rate limit exceeded"),
        (Unanswered::Withdrawn, 200, "EService:Deadline elapsed"),
        (Unanswered::Unavailable, 503, "EService:Unavailable"),
        (Unanswered::MaybeSent, 504, "EGeneral:Internal error"),
    ] {
        let answer = Kraken.refuse(None, why);
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &body["error"]), (status, &serde_json::json!([error])), "{why:?}");
        assert_eq!(body["countersign"], why.slug());
        assert!(body.get("result").is_none(), "an answer without a result is no success");
    }
}

proptest! {
    #[test]
    fn a_form_keeps_every_other_field(
        fields in prop::collection::vec("[a-z]{4}[0-9]{1,3}(\\[[0-9]\\])?=([a-zA-Z0-9._*!'()/:@,+-]|%[2-7][0-9A-E]){0,8}", 0..6),
        nonce in prop::option::of(0usize..6),
        otp in prop::option::of(0usize..6),
    ) {
        let mut all = fields.clone();
        nonce.into_iter().for_each(|at| all.insert(at.min(all.len()), "nonce=5".to_owned()));
        otp.into_iter().for_each(|at| all.insert(at.min(all.len()), "otp=5".to_owned()));
        if let Ok(sent) = sent(&post("AddOrder", FORM, &all.join("&"))) {
            let mut wanted = all;
            wanted.retain(|field| field != "otp=5");
            match wanted.iter_mut().find(|field| *field == "nonce=5") {
                Some(field) => *field = format!("nonce={NONCE}"),
                None => wanted.insert(0, format!("nonce={NONCE}")),
            }
            prop_assert_eq!(sent, wanted.join("&"));
        } else {
            // Only what is no form by itself, such as one name twice, is refused.
            prop_assert!(crate::venue::wire::form::read(fields.join("&").as_bytes()).is_err());
        }
    }

    #[test]
    fn a_json_body_keeps_every_other_byte(
        members in prop::collection::vec("\"[a-m]{5}\" ?: ?(0\\.[0-9]{1,20}|\"[ -!#-~&&[^\\\\]]{0,6}\"|\\[1, ?\\{\\}\\]|null)", 0..6),
        nonce in prop::option::of((0usize..6, any::<bool>())),
        otp in prop::option::of(0usize..6),
    ) {
        let mut all = members.clone();
        if let Some((at, is_text)) = nonce {
            all.insert(at.min(all.len()), if is_text { "\"nonce\":\"5\"" } else { "\"nonce\":5" }.to_owned());
        }
        otp.into_iter().for_each(|at| all.insert(at.min(all.len()), "\"otp\":\"5\"".to_owned()));
        if let Ok(sent) = sent(&post("AddOrder", JSON, &format!("{{{}}}", all.join(",")))) {
            let mut wanted = all;
            wanted.retain(|member| member != "\"otp\":\"5\"");
            match wanted.iter_mut().find(|member| member.starts_with("\"nonce\":")) {
                Some(member) => *member = member.replace('5', &NONCE.to_string()),
                None => wanted.insert(0, format!("\"nonce\":{NONCE}")),
            }
            prop_assert_eq!(sent, format!("{{{}}}", wanted.join(",")));
        } else {
            let body = format!("{{{}}}", members.join(","));
            let is_json = json::read(body.as_bytes()).is_ok();
            prop_assert!(!is_json, "refused {}", body);
        }
    }
}
