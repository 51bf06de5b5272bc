//! The upgrade, and all the ways in which it can go wrong.

use super::*;
use http::HeaderName;
use http::header::{COOKIE, SEC_WEBSOCKET_PROTOCOL};
use std::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

fn dial() -> Dial {
    Dial { path: "/v2?depth=10".parse().unwrap(), headers: Vec::new() }
}

async fn open(target: &Target) -> Result<Opened, NotOpened> {
    open_websocket(target, &dial(), &DialLimits::default(), &nobody()).await
}

/// A correct answer to a request's head, with more lines after the necessary ones.
fn accepted(head: &str, more: &str) -> String {
    let accept = derive_accept_key(header(head, "sec-websocket-key").unwrap().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn frames_that_came_with_the_101_are_not_lost() {
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        let head = read_head(&mut stream).await;
        let answer = accepted(&head, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        stream.write_all(&[answer.as_bytes(), b"\x81\x02hi"].concat()).await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(b"later").await.unwrap();
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).await.unwrap();
        (head, reply)
    });
    let mut opened = open(&target).await.unwrap();
    assert!(opened.read_ahead.starts_with(b"\x81\x02hi"));
    let mut all = opened.read_ahead.to_vec();
    while all.len() < b"\x81\x02hilater".len() {
        all.push(opened.stream.read_u8().await.unwrap());
    }
    assert_eq!(all, b"\x81\x02hilater");
    assert_eq!(opened.date, Some(UnixMillis::from_seconds(784_111_777)));
    opened.stream.write_all(b"hello").await.unwrap();

    let (head, reply) = played.await.unwrap();
    assert_eq!(&reply, b"hello");
    assert!(head.starts_with("GET /v2?depth=10 HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "host"), Some(format!("{HOST}:{}", target.port).as_str()));
    assert_eq!(header(&head, "sec-websocket-version"), Some("13"));
    assert_eq!(header(&head, "sec-websocket-extensions"), None);
}

#[tokio::test]
async fn the_venues_headers_are_sent_and_those_of_the_handshake_are_ours() {
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        let head = read_head(&mut stream).await;
        stream.write_all(accepted(&head, "Sec-WebSocket-Protocol: json\r\n").as_bytes()).await.unwrap();
        head
    });
    let mut dial = dial();
    let mut with = |name: HeaderName, value: &'static str| dial.headers.push((name, value.parse().unwrap()));
    with(COOKIE, "a=b");
    with(COOKIE, "c=d");
    with(http::header::USER_AGENT, "venue");
    with(http::header::HOST, "elsewhere.example");
    with(http::header::SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate");
    with(http::header::SEC_WEBSOCKET_KEY, "mine");
    with(SEC_WEBSOCKET_PROTOCOL, "binary, json");
    open_websocket(&target, &dial, &DialLimits::default(), &nobody()).await.unwrap();
    let head = played.await.unwrap();
    assert!(head.contains("cookie: a=b\r\n") && head.contains("cookie: c=d\r\n"), "{head}");
    assert_eq!((header(&head, "user-agent"), head.matches("user-agent: ").count()), (Some("venue"), 1));
    assert_eq!(header(&head, "sec-websocket-protocol"), Some("binary, json"));
    assert_eq!(head.matches("host: ").count(), 1);
    for absent in ["elsewhere", "permessage-deflate", "mine"] {
        assert!(!head.contains(absent), "{head}");
    }
}

#[tokio::test]
async fn every_other_status_is_reported_and_not_followed() {
    let long = "x".repeat(1 << 20);
    for (status, headers, body, wait) in [
        (401, "", "", None),
        (403, "", long.as_str(), None),
        (429, "Retry-After: 7\r\n", "", Some(7)),
        (429, "Retry-After: 99999999\r\n", "", Some(3600)),
        (429, "Retry-After: soon\r\n", "", None),
        (301, "Location: https://elsewhere.example/\r\n", "", None),
        (200, "", "<html>", None),
        (503, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n", "", Some(30)),
    ] {
        let answer = format!("HTTP/1.1 {status} No\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len());
        let (target, played) = Exchange::new().await.play(async move |mut stream| {
            read_head(&mut stream).await;
            let _the_client_may_leave = stream.write_all(answer.as_bytes()).await;
        });
        let expected = NotOpened::Status {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: wait.map(Duration::from_secs),
        };
        assert_eq!(open(&target).await.unwrap_err(), expected);
        played.await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_is_not_a_handshake_is_refused() {
    type Answer = fn(&str) -> String;
    let answers: [(Answer, BadAnswer); 8] = [
        (|_| "junk ".repeat(20_000), BadAnswer::NotHttp),
        (|_| format!("HTTP/1.1 101 Yes\r\nX: {}", "x".repeat(100_000)), BadAnswer::NotHttp),
        (|head| accepted(head, "").replace("Upgrade: WebSocket\r\n", ""), BadAnswer::Upgrade),
        (|head| accepted(head, "Upgrade: websocket\r\n"), BadAnswer::Upgrade),
        (|head| accepted(head, "").replace("keep-alive, Upgrade", "keep-alive"), BadAnswer::Connection),
        (|_| accepted("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", ""), BadAnswer::Accept),
        (|head| accepted(head, "Sec-WebSocket-Extensions: permessage-deflate\r\n"), BadAnswer::Extension),
        (|head| accepted(head, "Sec-WebSocket-Protocol: json\r\n"), BadAnswer::Subprotocol),
    ];
    for (answer, expected) in answers {
        let (target, played) = Exchange::new().await.play(async move |mut stream| {
            let head = read_head(&mut stream).await;
            let _the_client_may_leave = stream.write_all(answer(&head).as_bytes()).await;
            // Stays, so that only the answer can be what ended it.
            let _until_the_client_leaves = stream.read_u8().await;
        });
        assert_eq!(open(&target).await.unwrap_err(), NotOpened::BadHandshake(expected));
        played.await.unwrap();
    }
}

#[tokio::test]
async fn an_exchange_that_hangs_up_is_told_apart_from_one_that_is_silent() {
    let (target, _played) = Exchange::new().await.play(async |mut stream| {
        read_head(&mut stream).await;
    });
    assert_eq!(open(&target).await.unwrap_err(), NotOpened::Closed);

    let (target, _played) = Exchange::new().await.play(async |mut stream| {
        read_head(&mut stream).await;
        let _until_the_client_leaves = stream.read_u8().await;
    });
    let silent = open_websocket(&target, &dial(), &short(), &nobody()).await.unwrap_err();
    assert_eq!(silent, NotOpened::HandshakeTimeout);
}

#[tokio::test]
async fn a_server_that_accepts_and_never_speaks_tls_is_given_up() {
    let exchange = Exchange::new().await;
    let silent = open_websocket(&exchange.target, &dial(), &short(), &nobody()).await.unwrap_err();
    assert_eq!(silent, NotOpened::HandshakeTimeout);
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_costs_no_byte_above_tls() {
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let long_ago = UnixMillis(now().0 - 2 * u64::try_from(year.as_millis()).unwrap());
    let mut stranger = Exchange::new().await;
    stranger.target.connector = Connector::with_roots(&ClientRoots::WebPki).unwrap();
    for (exchange, expected) in [
        (Exchange::named("api.other.example", now()).await, HandshakeFailed::WrongName),
        (Exchange::named(HOST, long_ago).await, HandshakeFailed::Expired),
        (Exchange::named(HOST, now().plus(year)).await, HandshakeFailed::NotYetValid),
        (stranger, HandshakeFailed::UnknownAuthority),
    ] {
        let (target, counted) = exchange.count();
        let refused = open(&target).await.unwrap_err();
        assert_eq!(refused, NotOpened::Tls(expected));
        assert_eq!(counted.await.unwrap(), None);
        assert!(!refused.to_string().contains("other.example"));
    }
}

#[tokio::test]
async fn a_port_that_does_not_speak_tls_is_named() {
    let exchange = Exchange::new().await;
    let target = exchange.target.clone();
    let plain = tokio::spawn(async move {
        let (mut socket, _) = exchange.listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        socket
    });
    assert_eq!(open(&target).await.unwrap_err(), NotOpened::Tls(HandshakeFailed::NotTls));
    drop(plain.await.unwrap());
}

#[tokio::test]
async fn a_port_where_nobody_listens_refuses() {
    let exchange = Exchange::new().await;
    drop(exchange.listener);
    assert_eq!(open(&exchange.target).await.unwrap_err(), NotOpened::Refused);
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_does_not_answer() {
    let mut exchange = Exchange::new().await;
    // Nobody listens at 127.0.0.2 on this port.
    let port = exchange.target.port;
    exchange.target.addresses.insert(0, (Ipv4Addr::new(127, 0, 0, 2), port).into());
    let (target, played) = exchange.play(async |mut stream| {
        let head = read_head(&mut stream).await;
        stream.write_all(accepted(&head, "").as_bytes()).await.unwrap();
    });
    open(&target).await.unwrap();
    played.await.unwrap();
}

#[tokio::test]
async fn a_host_that_swallows_packets_is_given_up_within_the_limit() {
    // A full backlog drops what comes after it, as a firewall does.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(socket)) =
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await
    {
        waiting.push(socket);
        // Some systems keep no such limit on loopback; there is nothing to find out there.
        if waiting.len() > 64 {
            return;
        }
    }
    let mut target = Exchange::new().await.target;
    target.addresses = vec![address];
    let started = Instant::now();
    assert_eq!(open_websocket(&target, &dial(), &short(), &nobody()).await.unwrap_err(), NotOpened::ConnectTimeout);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_dial_does_not_print_its_secrets() {
    let dial = Dial { path: "/hub?access_token=canary".parse().unwrap(), headers: Vec::new() };
    assert_eq!(format!("{dial:?}"), "Dial(…)");
}
