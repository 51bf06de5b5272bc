//! The checks of a request's head that hyper leaves to its user, and of the WebSocket upgrade.
//!
//! Source: RFC 9112 sections 2 to 6, RFC 6455 section 4.2.1.

use crate::venue::wire::path;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Version};

/// A request that is refused: with this status, this slug in the log, and this advice in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadHead {
    pub(super) status: StatusCode,
    pub(super) slug: &'static str,
    pub(super) advice: &'static str,
}

const fn bad(status: StatusCode, slug: &'static str, advice: &'static str) -> BadHead {
    BadHead { status, slug, advice }
}

/// Checks what holds for every request, and gives the host that it names: lower case, without port.
pub(super) fn check(parts: &Parts, origins: &[String]) -> Result<String, BadHead> {
    // 505 would be wrong: it speaks of the major version (RFC 9110 section 15.6.6), and hyper reads no other than 1.
    if parts.version != Version::HTTP_11 {
        return Err(bad(StatusCode::BAD_REQUEST, "http_version", "speak HTTP/1.1"));
    }
    if parts.headers.keys().any(|name| name.as_str().contains('_')) {
        return Err(bad(StatusCode::BAD_REQUEST, "header_name", "a header name holds an underscore"));
    }
    if parts.headers.contains_key(TRANSFER_ENCODING) && parts.headers.contains_key(CONTENT_LENGTH) {
        return Err(bad(StatusCode::BAD_REQUEST, "ambiguous_length", "send Content-Length or Transfer-Encoding"));
    }
    let host = host(parts)?;
    if !matches!(parts.method, Method::GET | Method::POST) {
        return Err(METHOD);
    }
    if parts.method == Method::GET && has_body(&parts.headers) {
        return Err(bad(StatusCode::BAD_REQUEST, "unexpected_body", "a GET carries no body"));
    }
    let mut named = parts.headers.get_all(ORIGIN).iter();
    if named.any(|origin| !origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes())) {
        return Err(bad(
            StatusCode::FORBIDDEN,
            "origin_rejected",
            "a browser page may not connect; list its origin in `listen.origins` if it may",
        ));
    }
    Ok(host)
}

/// What a method is told that has no meaning here.
pub(super) const METHOD: BadHead =
    bad(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "use GET for sockets, GET and POST for requests");

/// Checks what holds for every upgrade. `has_query`: the venue's own protocol has one, which somebody else reads.
pub(super) fn check_upgrade(parts: &Parts, has_query: bool) -> Result<(), BadHead> {
    if parts.method != Method::GET {
        return Err(METHOD);
    }
    if parts.uri.query().is_some() && !has_query {
        return Err(bad(
            StatusCode::BAD_REQUEST,
            "query_not_allowed",
            "no query here: a token goes into the first message or the Authorization header, never into a URL",
        ));
    }
    Ok(())
}

/// Checks what holds for every request to a REST API, its body aside.
pub(super) fn check_request(parts: &Parts, body_bytes_max: usize) -> Result<(), BadHead> {
    if !path::is_canonical(parts.uri.path()) {
        return Err(bad(
            StatusCode::BAD_REQUEST,
            "path_not_canonical",
            "write the path plainly: no escapes, no empty or dotted segments, no `;`",
        ));
    }
    if !parts.uri.query().is_none_or(path::query_is_plain) {
        return Err(bad(
            StatusCode::BAD_REQUEST,
            "query_not_plain",
            "the query holds a control character or a broken escape",
        ));
    }
    if parts.headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body_encoded", "send the body without Content-Encoding"));
    }
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > body_bytes_max as u64) {
        return Err(TOO_LARGE);
    }
    Ok(())
}

/// What a request is told whose body is too long.
pub(super) const TOO_LARGE: BadHead = bad(
    StatusCode::PAYLOAD_TOO_LARGE,
    "body_too_large",
    "the body is longer than `limits.request_body_bytes_max`; send less at once",
);

fn host(parts: &Parts) -> Result<String, BadHead> {
    const ADVICE: &str = "send one Host header with a plain host name";
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(bad(StatusCode::BAD_REQUEST, "bad_host", ADVICE));
    };
    let text = host.to_str().map_err(|_| bad(StatusCode::BAD_REQUEST, "bad_host", ADVICE))?;
    let name = without_port(text).ok_or(bad(StatusCode::BAD_REQUEST, "bad_host", ADVICE))?.to_ascii_lowercase();
    let is_named_alike = match parts.uri.authority() {
        Some(authority) => authority.as_str().eq_ignore_ascii_case(text),
        None => true,
    };
    if is_named_alike { Ok(name) } else { Err(bad(StatusCode::BAD_REQUEST, "bad_host", ADVICE)) }
}

/// `localhost:8443` without its port. `None`: not a host at all.
fn without_port(text: &str) -> Option<&str> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            let is_address = text[1..end - 1].parse::<std::net::Ipv6Addr>().is_ok();
            if !is_address {
                return None;
            }
            (&text[..end], text[end..].strip_prefix(':').or(text[end..].is_empty().then_some(""))?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let is_name = name.starts_with('[')
        || (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)));
    let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_name && is_port && !text.ends_with(':')).then_some(name)
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).map(http::HeaderValue::as_bytes);
    headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != b"0")
}

/// What a request without an upgrade is told where a socket stands.
pub(super) const NO_UPGRADE: BadHead =
    bad(StatusCode::UPGRADE_REQUIRED, "no_upgrade", "connect with a WebSocket client (wss://…)");

/// True if the request asks for a WebSocket, rightly or not: [`websocket_key`] checks how.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let wants = |name: HeaderName, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    wants(UPGRADE, "websocket") && wants(CONNECTION, "upgrade")
}

/// Checks the upgrade, and gives the key that the answer proves to have seen.
pub(super) fn websocket_key(headers: &HeaderMap) -> Result<&[u8], BadHead> {
    if !is_upgrade(headers) {
        return Err(NO_UPGRADE);
    }
    let mut versions = headers.get_all(SEC_WEBSOCKET_VERSION).iter();
    if versions.next().map(http::HeaderValue::as_bytes) != Some(b"13") || versions.next().is_some() {
        return Err(bad(StatusCode::UPGRADE_REQUIRED, "websocket_version", "speak WebSocket version 13"));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16) => Ok(key.as_bytes()),
        _ => Err(bad(StatusCode::BAD_REQUEST, "websocket_key", "send one Sec-WebSocket-Key of 16 bytes in base64")),
    }
}

/// The bearer token of the `Authorization` header.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, BadHead> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.get(AUTHORIZATION) {
            None => Ok(None),
            Some(_) => Err(bad(StatusCode::BAD_REQUEST, "bad_authorization", "send one Authorization header")),
        };
    };
    let bytes = value.as_bytes();
    match bytes.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(Some(bytes[7..].trim_ascii())),
        _ => Err(bad(StatusCode::UNAUTHORIZED, "bad_authorization", "send `Authorization: Bearer <JWT>`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn checked(edit: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Result<String, &'static str> {
        let request = edit(Request::get("/kraken/v2")).body(()).expect("a request");
        check(&request.into_parts().0, &["https://desk.example".to_owned()]).map_err(|bad| bad.slug)
    }

    #[test]
    fn one_plain_host_is_taken_and_its_port_is_dropped() {
        for (host, name) in [
            ("localhost", "localhost"),
            ("LOCALHOST:8443", "localhost"),
            ("127.0.0.1:8443", "127.0.0.1"),
            ("[::1]:8443", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(checked(|request| request.header("host", host)), Ok(name.to_owned()));
        }
    }

    #[test]
    fn a_host_that_is_missing_doubled_or_no_plain_name_is_refused() {
        assert_eq!(checked(|request| request), Err("bad_host"));
        assert_eq!(checked(|request| request.header("host", "a").header("host", "a")), Err("bad_host"));
        for host in
            ["user@localhost", "localhost/path", "", "a,b", "a:b", "a:", "[::1", "[x]", "a b", "localhost:123456"]
        {
            assert_eq!(checked(|request| request.header("host", host)), Err("bad_host"), "{host}");
        }
        let other =
            |request: http::request::Builder| request.uri("https://other/kraken/v2").header("host", "localhost");
        assert_eq!(checked(other), Err("bad_host"));
    }

    #[test]
    fn a_page_of_a_browser_is_refused_unless_its_origin_is_listed() {
        let from = |origin: &'static str| checked(move |it| it.header("host", "localhost").header("origin", origin));
        for origin in ["null", "https://localhost:8443", "https://evil.example", "https://desk.example.evil"] {
            assert_eq!(from(origin), Err("origin_rejected"), "{origin}");
        }
        assert!(from("https://desk.example").is_ok());
    }

    #[test]
    fn a_get_without_a_body_passes_and_a_post() {
        let with = |name: &'static str, value: &'static str| {
            checked(move |it| it.header("host", "localhost").header(name, value))
        };
        assert_eq!(with("content-length", "5"), Err("unexpected_body"));
        assert!(with("content-length", "0").is_ok());
        assert_eq!(with("x_y", "1"), Err("header_name"));
        let both = |it: http::request::Builder| {
            it.header("host", "a").header("content-length", "1").header("transfer-encoding", "chunked")
        };
        assert_eq!(checked(both), Err("ambiguous_length"));
        for method in ["CONNECT", "TRACE", "OPTIONS", "PUT", "get", "BREW"] {
            assert_eq!(checked(|it| it.method(method).header("host", "a")), Err("method_not_allowed"), "{method}");
        }
        assert!(checked(|it| it.method("POST").header("host", "a").header("content-length", "5")).is_ok());
        assert_eq!(checked(|it| it.version(Version::HTTP_10).header("host", "a")), Err("http_version"));
    }

    fn parts(edit: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Parts {
        edit(Request::get("/kraken/v2")).body(()).expect("a request").into_parts().0
    }

    #[test]
    fn an_upgrade_is_a_get_and_has_no_query() {
        let upgraded = |edit: fn(http::request::Builder) -> http::request::Builder| {
            check_upgrade(&parts(edit), false).map_err(|bad| bad.slug)
        };
        assert!(upgraded(|it| it).is_ok());
        assert_eq!(upgraded(|it| it.method("POST")), Err("method_not_allowed"));
        assert_eq!(upgraded(|it| it.uri("/kraken/v2?token=x")), Err("query_not_allowed"));
        assert!(check_upgrade(&parts(|it| it.uri("/hubs/user?token=x")), true).is_ok());
    }

    #[test]
    fn a_request_has_one_reading_and_a_body_as_it_is() {
        let asked = |uri: &str, header: (&'static str, &str)| {
            check_request(&parts(|it| it.method("POST").uri(uri).header(header.0, header.1)), 1000)
                .map_err(|bad| (bad.status.as_u16(), bad.slug))
        };
        let plain = ("content-length", "1000");
        assert!(asked("/0/private/Balance", plain).is_ok());
        assert!(asked("/v2/auth/r/order/tTESTBTC:TESTUSD:1/trades?limit=5", plain).is_ok());
        assert!(asked("/0/private/Balance", ("content-encoding", "Identity")).is_ok());
        assert_eq!(asked("/0/private/Balance", ("content-length", "1001")), Err((413, "body_too_large")));
        assert_eq!(asked("/0/private/Balance", ("content-encoding", "gzip")), Err((415, "body_encoded")));
        for path in ["/0/public/../private/Withdraw", "/0/%2e%2e/private/Withdraw", "//0/private/Balance", "/0/a;b"] {
            assert_eq!(asked(path, plain), Err((400, "path_not_canonical")), "{path}");
        }
        for query in ["a=%0d%0aX", "a=%", "a=%00"] {
            assert_eq!(asked(&format!("/0/public/Ticker?{query}"), plain), Err((400, "query_not_plain")), "{query}");
        }
    }

    #[test]
    fn an_upgrade_is_taken_only_whole() {
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let headers = |changes: &[(&'static str, Option<&'static str>)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in good {
                headers.append(name, value.parse().expect("a value"));
            }
            for (name, value) in changes {
                match value {
                    Some(value) => drop(headers.insert(*name, value.parse().expect("a value"))),
                    None => drop(headers.remove(*name)),
                }
            }
            websocket_key(&headers).map(<[u8]>::to_vec).map_err(|bad| bad.status.as_u16())
        };
        assert!(headers(&[]).is_ok());
        assert_eq!(headers(&[("connection", Some("keep-alive"))]), Err(426));
        assert_eq!(headers(&[("upgrade", None)]), Err(426));
        assert_eq!(headers(&[("sec-websocket-version", Some("8"))]), Err(426));
        assert_eq!(headers(&[("sec-websocket-key", None)]), Err(400));
        assert_eq!(headers(&[("sec-websocket-key", Some("AAAA"))]), Err(400));
        let mut doubled = HeaderMap::new();
        for (name, value) in good.into_iter().chain([good[3]]) {
            doubled.append(name, value.parse().expect("a value"));
        }
        assert!(websocket_key(&doubled).is_err());
    }
}
