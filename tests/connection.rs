//! What comes before a session: TCP, TLS, and the head of a request. Rows B1 to B23 of the fault catalogue.
//!
//! The faults come to Kraken's door. At Bitfinex's a canary pings every 10 ms, all the way to the exchange and back:
//! Kraken must see nothing at all of a fault, and the canary must not feel it.

mod house;

use house::{House, PATIENCE, STANDARD, Socket};
use rustls::pki_types::ServerName;
use std::io::Write as _;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_rustls::TlsConnector;

/// How often the canary pings, and how often a slow client sends one byte.
const BEAT: Duration = Duration::from_millis(10);

/// Less than the default limits of 10 s: what the house ends within this, it ends by the limits below.
const SOON: Duration = Duration::from_secs(8);

/// Limits that a test can wait for.
const SHORT: &str = r#"[limits]
tls_handshake = "300ms"
request_head = "300ms"
close_timeout = "200ms"
"#;

/// An upgrade that is in order, but for the empty line at its end.
const UPGRADE: &str = "GET /kraken/v2 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A house with a canary in it.
struct Watched {
    house: House,
    canary: JoinHandle<()>,
    hush: oneshot::Sender<()>,
    connections: u64,
}

impl Deref for Watched {
    type Target = House;

    fn deref(&self) -> &House {
        &self.house
    }
}

impl Watched {
    async fn open() -> Self {
        Self::over(House::with(SHORT).await).await
    }

    async fn over(house: House) -> Self {
        let mut canary = house.logged_in("/bitfinex/v2", "bot-a").await;
        ping(&mut canary, 0).await;
        let (hush, hushed) = oneshot::channel();
        let connections = house.bitfinex().tcp_connections();
        Self { house, canary: tokio::spawn(sing(canary, hushed)), hush, connections }
    }

    /// Asserts that no exchange saw the fault, and that the canary sang through it and sings still.
    async fn assert_unharmed(self) {
        self.hush.send(()).expect("the canary is silent");
        timeout(PATIENCE, self.canary).await.expect("the canary hangs").expect("a ping of the canary failed");
        assert_eq!(self.house.kraken().tcp_connections(), 0, "the exchange saw a connection");
        assert_eq!(self.house.kraken().bytes_received(), 0, "the exchange saw a byte");
        assert_eq!(self.house.bitfinex().tcp_connections(), self.connections, "the other exchange saw a connection");
    }
}

/// Pings until it is hushed, and then once more.
async fn sing(mut canary: Socket, mut hushed: oneshot::Receiver<()>) {
    let mut beat = interval(BEAT);
    for count in 1.. {
        let is_last = tokio::select! {
            _ = beat.tick() => false,
            _ = &mut hushed => true,
        };
        ping(&mut canary, count).await;
        if is_last {
            return;
        }
    }
}

async fn ping(canary: &mut Socket, count: u64) {
    canary.say(format!(r#"{{"event":"ping","cid":{count}}}"#)).await;
    canary.json_where(|it| it["event"] == "pong" && it["cid"] == count).await;
}

/// Everything that comes back until the house closes. Writes and reads at once: an answer may come before the end of
/// what it answers, and then the rest cannot be written.
async fn talk(stream: impl AsyncRead + AsyncWrite, request: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let write = async {
        let _refused = to.write_all(request).await;
        let _refused = to.flush().await;
    };
    let read = async {
        let _reset = from.read_to_end(&mut answer).await;
    };
    timeout(SOON, async { tokio::join!(write, read) }).await.expect("the house hangs");
    answer
}

/// The same, one byte at a time, again and again: without a limit it would never end.
async fn drip(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let write = async {
        let mut beat = interval(BEAT);
        for byte in bytes.iter().cycle() {
            beat.tick().await;
            if to.write_all(&[*byte]).await.is_err() || to.flush().await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let until_closed = async {
        tokio::select! {
            _reset = from.read_to_end(&mut answer) => {}
            () = write => {}
        }
    };
    timeout(SOON, until_closed).await.expect("the house lets it drip");
    answer
}

/// Sends a request with another one behind it, and asserts that there is one answer, of one of these statuses, and
/// then the end of the connection.
async fn assert_refused(house: &House, request: impl AsRef<[u8]>, statuses: &[u16]) -> String {
    let mut bytes = request.as_ref().to_vec();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    bytes.extend_from_slice(UPGRADE.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    let answer = talk(house.tls().await, &bytes).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(statuses.contains(&status_of(&answer)), "{shown}\n--\n{text}");
    assert_eq!(answers_in(&text), 1, "{shown}\n--\n{text}");
    text
}

/// How many answers there are in a text.
fn answers_in(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("HTTP/1.")).count()
}

/// The status of the first answer; 0 if there is none. A client of HTTP/1.0 is answered in its own version.
fn status_of(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let status = text.strip_prefix("HTTP/1.1 ").or(text.strip_prefix("HTTP/1.0 "));
    status.and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// The upgrade with more headers, and a body behind its head.
fn upgrade_with(headers: &str, body: &str) -> String {
    format!("{UPGRADE}{headers}\r\n{body}")
}

async fn tcp(house: &House) -> TcpStream {
    TcpStream::connect(house.address()).await.expect("the house listens")
}

/// The first flight of a client, as rustls writes it.
fn client_hello(house: &House) -> (rustls::ClientConnection, Vec<u8>) {
    let name = ServerName::try_from("localhost").expect("is a name");
    let mut client = rustls::ClientConnection::new(Arc::new(house.client_config(None)), name).expect("is a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a vector takes everything");
    (client, hello)
}

// ---- TCP and TLS

#[tokio::test]
async fn a_client_that_sends_nothing_is_closed_at_the_handshake_limit() {
    let house = Watched::open().await;
    assert_eq!(talk(tcp(&house).await, b"").await, b"");
    house.assert_unharmed().await;
}

#[tokio::test]
async fn plain_http_on_the_tls_port_gets_an_alert_and_no_http() {
    let house = Watched::open().await;
    for bytes in [
        &b"GET /kraken/v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    ] {
        let answer = talk(tcp(&house).await, bytes).await;
        let alert = answer.first().copied();
        assert!(matches!(alert, None | Some(0x15)), "{}", String::from_utf8_lossy(&answer));
    }
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_hello_that_drips_is_closed_at_the_handshake_limit() {
    let house = Watched::open().await;
    // One record as long as records may be, of which no end comes.
    let record = [0x16, 0x03, 0x01, 0x40, 0x00, 0x01, 0x00, 0x3f, 0xfc, 0x03, 0x03];
    let mut hello = record.to_vec();
    hello.resize(4096, 0);
    drip(tcp(&house).await, &hello).await;
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_hello_in_five_hundred_records_is_accepted() {
    let house = Watched::open().await;
    let (mut client, hello) = client_hello(&house);
    let message = &hello[5..];
    let piece = message.len().div_ceil(500);
    let mut fragmented = Vec::new();
    for part in message.chunks(piece) {
        fragmented.extend_from_slice(&[0x16, 0x03, 0x01, 0x00, u8::try_from(part.len()).expect("is short")]);
        fragmented.extend_from_slice(part);
    }
    let address = house.address();
    let shaken = tokio::task::spawn_blocking(move || {
        let mut tcp = std::net::TcpStream::connect(address)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.write_all(&fragmented)?;
        while client.is_handshaking() {
            client.complete_io(&mut tcp)?;
        }
        std::io::Result::Ok(())
    });
    shaken.await.expect("does not panic").expect("a hello in pieces is a hello");
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_hello_in_records_without_end_is_closed() {
    let house = Watched::open().await;
    // A handshake message that promises 16 MiB, in records of one byte each.
    let mut flood = vec![0x16, 0x03, 0x01, 0x00, 0x04, 0x01, 0xff, 0xff, 0xff];
    for _ in 0..100_000 {
        flood.extend_from_slice(&[0x16, 0x03, 0x01, 0x00, 0x01, 0x00]);
    }
    talk(tcp(&house).await, &flood).await;
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_client_without_a_common_version_cipher_or_protocol_gets_an_alert() {
    const HANDSHAKE_FAILURE: u8 = 40;
    const PROTOCOL_VERSION: u8 = 70;
    let house = Watched::open().await;
    for (hello, alert) in [
        (old_hello([3, 1], &[0x00, 0x2f]), PROTOCOL_VERSION),
        (old_hello([3, 2], &[0x00, 0x2f]), PROTOCOL_VERSION),
        (old_hello([3, 3], &[0x00, 0x05]), HANDSHAKE_FAILURE),
    ] {
        let answer = talk(tcp(&house).await, &hello).await;
        assert_eq!(answer.first(), Some(&0x15), "no alert but {answer:?}");
        assert_eq!(answer[5..7], [2, alert]);
    }
    for protocol in ["h3", "h2", "http/1.0"] {
        let mut config = house.client_config(None);
        config.alpn_protocols = vec![protocol.into()];
        let name = ServerName::try_from("localhost").expect("is a name");
        let error = TlsConnector::from(Arc::new(config)).connect(name, tcp(&house).await).await.expect_err(protocol);
        let alert = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let wanted = rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
        assert_eq!(alert, Some(&wanted), "{error}");
    }
    house.assert_unharmed().await;
}

/// A hello of before TLS 1.3, with one cipher suite: RFC 5246 section 7.4.1.2.
fn old_hello(version: [u8; 2], suite: &[u8; 2]) -> Vec<u8> {
    // Groups (P-256), point formats, signature schemes (ECDSA with SHA-256).
    let extensions = [
        &[0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17][..],
        &[0x00, 0x0b, 0x00, 0x02, 0x01, 0x00],
        &[0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03],
    ]
    .concat();
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("is short");
    let body =
        [&version[..], &[7; 32], &[0x00, 0x00, 0x02], suite, &[0x01, 0x00, 0x00, length(&extensions)], &extensions]
            .concat();
    let message = [&[0x01, 0x00, 0x00, length(&body)], &body[..]].concat();
    [&[0x16, 0x03, 0x01, 0x00, length(&message)], &message[..]].concat()
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once_and_the_others_served() {
    const MAX: usize = 20;
    let listen = format!("[listen]\nconnections_max = {MAX}\n");
    // Nobody is closed for being silent.
    let toml = format!("{}\n[limits]\ntls_handshake = \"60s\"\n", STANDARD.replace("[listen]\n", &listen));
    let house = Watched::over(House::from(&toml).await).await;
    let mut served = Vec::new();
    for _ in 1..MAX {
        served.push(house.socket("/kraken/v2").await);
    }
    let others = (0..100).map(|_| async { talk(tcp(&house).await, b"").await });
    for answer in futures_util::future::join_all(others).await {
        assert_eq!(answer, b"");
    }
    for client in &mut served {
        client.say(r#"{"type":"ping"}"#).await;
        assert_eq!(client.json().await["type"], "pong");
    }
    // Who leaves makes room.
    drop(served.pop());
    let enters = async {
        while house.upgrade("/kraken/v2", &[], None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, enters).await.expect("the house stays full");
    house.assert_unharmed().await;
}

// ---- The head of a request

#[tokio::test]
async fn a_head_that_drips_is_closed_at_its_limit() {
    let house = Watched::open().await;
    let head = format!("{UPGRADE}X-Slow: {}", "a".repeat(4096));
    let answer = drip(house.tls().await, head.as_bytes()).await;
    assert!(matches!(status_of(&answer), 0 | 408), "{}", String::from_utf8_lossy(&answer));
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_client_that_shakes_hands_and_asks_for_nothing_is_closed_at_the_limit_of_the_head() {
    let house = Watched::open().await;
    let answer = talk(house.tls().await, b"").await;
    assert!(matches!(status_of(&answer), 0 | 408), "{}", String::from_utf8_lossy(&answer));
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_request_behind_an_upgrade_is_read_as_frames() {
    let house = Watched::open().await;
    let both = upgrade_with("", "GET /kraken/v2 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = talk(house.tls().await, both.as_bytes()).await;
    assert_eq!(status_of(&answer), 101);
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head ends") + 4;
    let close = &answer[end..];
    assert_eq!(close[0], 0x88, "not a close frame: {close:?}");
    assert_eq!(close[2..4], 1002_u16.to_be_bytes());
    assert_eq!(usize::from(close[1]) + 2, close.len(), "something follows the close: {close:?}");
    house.assert_unharmed().await;
}

#[tokio::test]
async fn http_1_0_and_unknown_versions_are_refused() {
    let house = Watched::open().await;
    let http_1_0 = UPGRADE.replace("HTTP/1.1", "HTTP/1.0");
    assert_refused(&house, format!("{http_1_0}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), &[400]).await;
    assert_refused(&house, format!("{http_1_0}\r\n"), &[400]).await;
    for version in ["HTTP/1.2", "HTTP/3.0", "HTTP/0.9", "HTTP/11", "http/1.1", "ICY/1.1"] {
        assert_refused(&house, UPGRADE.replace("HTTP/1.1", version) + "\r\n", &[400, 505]).await;
    }
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_refused_body_is_not_taken_for_a_second_request() {
    let house = Watched::open().await;
    let body = upgrade_with("", "").repeat(7_000);
    assert!(body.len() > 1024 * 1024);
    let post = format!("POST /kraken/v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = assert_refused(&house, post, &[405]).await;
    assert!(answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nallow: get, post\r\n"), "{answer}");
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_length_that_two_readers_could_read_apart_is_refused() {
    let house = Watched::open().await;
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length:  5 5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999\r\n",
    ] {
        assert_refused(&house, upgrade_with(headers, "0\r\n\r\n"), &[400]).await;
    }
    house.assert_unharmed().await;
}

#[tokio::test]
async fn an_unknown_transfer_coding_is_refused() {
    let house = Watched::open().await;
    for header in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        assert_refused(&house, upgrade_with(header, "0\r\n\r\n"), &[400, 501]).await;
    }
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_host_that_is_missing_doubled_or_no_plain_name_is_a_bad_request() {
    let house = Watched::open().await;
    for hosts in [
        "",
        "Host:\r\n",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host: user@localhost\r\n",
        "Host: localhost/kraken/v2\r\n",
        "Host: localhost, evil.example\r\n",
        "Host: localhost:port\r\n",
        "Host: local host\r\n",
        "Host: [localhost]\r\n",
    ] {
        assert_refused(&house, upgrade_with("", "").replace("Host: localhost\r\n", hosts), &[400]).await;
    }
    let absolute = UPGRADE.replace("GET /", "GET https://evil.example/");
    assert_refused(&house, absolute + "\r\n", &[400]).await;
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_host_that_is_not_served_here_is_misdirected() {
    let house = Watched::open().await;
    for host in ["evil.example:8443", "localhost.evil.example", "kraken.com", "ws-auth.kraken.com"] {
        let request = upgrade_with("", "").replace("Host: localhost", &format!("Host: {host}"));
        let answer = assert_refused(&house, &request, &[421]).await;
        assert!(answer.contains("host_rejected"), "{answer}");
    }
    // A page that was rebound to this address asks for no name in TLS, or for one that is not ours.
    let request = upgrade_with("", "").replace("Host: localhost", "Host: evil.example:8443");
    let unnamed = house.tls_as(None, "127.0.0.1").await.expect("the certificate names the address");
    assert_eq!(status_of(&talk(unnamed, request.as_bytes()).await), 421);
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_browser_page_is_forbidden_unless_its_origin_is_listed() {
    let listen = "[listen]\norigins = [\"https://desk.example\"]\n";
    let house = House::from(&format!("{}\n{SHORT}", STANDARD.replace("[listen]\n", listen))).await;
    let house = Watched::over(house).await;
    for origin in
        ["null", "https://localhost", "https://evil.example", "https://desk.example.evil", "http://desk.example"]
    {
        let answer = assert_refused(&house, upgrade_with(&format!("Origin: {origin}\r\n"), ""), &[403]).await;
        assert!(answer.contains("origin_rejected"), "{answer}");
    }
    let two = "Origin: https://desk.example\r\nOrigin: https://evil.example\r\n";
    assert_refused(&house, upgrade_with(two, ""), &[403]).await;
    let listed = house.upgrade("/kraken/v2", &[("origin", "https://desk.example")], None).await;
    assert!(listed.is_ok(), "{:?}", listed.err());
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let house = Watched::open().await;
    let has = UPGRADE.matches("\r\n").count() - 1;
    let many = (has..65).map(|number| format!("X-{number}: 1\r\n")).collect::<String>();
    assert_refused(&house, upgrade_with(&many, ""), &[431]).await;
    assert_refused(&house, upgrade_with(&format!("X-Long: {}\r\n", "a".repeat(17 * 1024)), ""), &[431]).await;
    let long = "a".repeat(100 * 1024);
    assert_refused(&house, UPGRADE.replace("/kraken/v2", &format!("/{long}")) + "\r\n", &[414, 431, 400]).await;
    assert_refused(&house, UPGRADE.replace("GET", &long) + "\r\n", &[414, 431, 400]).await;
    house.assert_unharmed().await;
}

#[tokio::test]
async fn sixty_four_headers_are_not_too_many() {
    let house = Watched::open().await;
    let has = UPGRADE.matches("\r\n").count() - 1;
    let many = (has..64).map(|number| format!("X-{number}: 1\r\n")).collect::<String>();
    let mut stream = house.tls().await;
    assert_eq!(status_of(&head(&mut stream, &upgrade_with(&many, "")).await), 101);
    house.assert_unharmed().await;
}

#[tokio::test]
async fn header_names_and_values_with_other_than_their_characters_are_bad_requests() {
    let house = Watched::open().await;
    for header in [
        &b"X-A: a\rb\r\n"[..],
        b"X-A: a\nb\r\n",
        b"X-A: a\0b\r\n",
        b"X-A: a\x01b\r\n",
        b"X-A: a\x7fb\r\n",
        b"X A: 1\r\n",
        b"X-A : 1\r\n",
        b"X-A\t: 1\r\n",
        b"X_A: 1\r\n",
        b"X-\xc3\xa9: 1\r\n",
        b": 1\r\n",
        b"X-A\r\n",
    ] {
        assert_refused(&house, [UPGRADE.as_bytes(), header, b"\r\n"].concat(), &[400]).await;
    }
    house.assert_unharmed().await;
}

#[tokio::test]
async fn nothing_but_get_and_post_is_a_method_here() {
    let house = Watched::open().await;
    for method in ["TRACE", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "get", "BREW"] {
        let answer = assert_refused(&house, UPGRADE.replace("GET", method) + "\r\n", &[405, 501]).await;
        assert!(answer.to_ascii_lowercase().contains("\r\nallow: get, post\r\n"), "{answer}");
    }
    for line in ["CONNECT localhost:443", "CONNECT api.kraken.com:443", "OPTIONS *", "GET *", "G\u{7f}T /kraken/v2"] {
        assert_refused(&house, UPGRADE.replace("GET /kraken/v2", line) + "\r\n", &[400, 404, 405, 501]).await;
    }
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_chunked_body_is_refused_whatever_its_chunks_say() {
    let house = Watched::open().await;
    let extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(64 * 1024));
    for body in [
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhelloworld0\r\n\r\n",
        &extension,
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: evil.example\r\n\r\n",
        "0\r\nAuthorization: Bearer x\r\n\r\n",
    ] {
        assert_refused(&house, upgrade_with("Transfer-Encoding: chunked\r\n", body), &[400, 413]).await;
    }
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_body_that_never_completes_is_refused_without_waiting_for_it() {
    let house = Watched::open().await;
    for method in ["GET", "POST"] {
        let request = UPGRADE.replace("GET", method) + "Content-Length: 100\r\n\r\nhello";
        let answer = talk(house.tls().await, request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(matches!(status_of(&answer), 400 | 405 | 408), "{text}");
        assert_eq!(answers_in(&text), 1, "{text}");
    }
    house.assert_unharmed().await;
}

#[tokio::test]
async fn a_refused_request_is_not_asked_to_continue() {
    let house = Watched::open().await;
    for method in ["GET", "POST"] {
        let request = UPGRADE.replace("GET", method) + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        let answer = assert_refused(&house, request, &[400, 405, 417]).await;
        assert!(!answer.contains("100 Continue"), "{answer}");
    }
    house.assert_unharmed().await;
}

#[tokio::test]
async fn an_upgrade_that_is_not_whole_is_refused_with_the_version_that_is_spoken() {
    let house = Watched::open().await;
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let whole = upgrade_with("", "");
    for (request, status) in [
        (whole.replace("Version: 13", "Version: 8"), 426),
        (whole.replace("Sec-WebSocket-Version: 13\r\n", ""), 426),
        (whole.replace("Connection: Upgrade\r\n", ""), 426),
        (whole.replace("Connection: Upgrade", "Connection: close"), 426),
        (whole.replace("Upgrade: websocket\r\n", ""), 426),
        (whole.replace("Upgrade: websocket", "Upgrade: h2c"), 426),
        (whole.replace(key, ""), 400),
        (whole.replace("dGhlIHNhbXBsZSBub25jZQ==", "AAAA"), 400),
        (whole.replace("dGhlIHNhbXBsZSBub25jZQ==", "not base64 at all!!!"), 400),
        (whole.replace(key, &key.repeat(2)), 400),
        (whole.replace("GET", "POST"), 405),
        (whole.replace("HTTP/1.1", "HTTP/1.0"), 400),
    ] {
        let answer = assert_refused(&house, request, &[status]).await.to_ascii_lowercase();
        let names_version = answer.contains("\r\nsec-websocket-version: 13\r\n");
        assert!(status != 426 || names_version, "{answer}");
    }
    house.assert_unharmed().await;
}

#[tokio::test]
async fn extensions_and_subprotocols_are_not_negotiated() {
    let house = Watched::open().await;
    let asked = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
                 Sec-WebSocket-Protocol: v1.secret, v2\r\n";
    let mut stream = house.tls().await;
    let answer = head(&mut stream, &upgrade_with(asked, "")).await;
    let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert_eq!(status_of(&answer), 101, "{text}");
    assert!(text.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{text}");
    assert!(!text.contains("sec-websocket-extensions") && !text.contains("sec-websocket-protocol"), "{text}");
    house.assert_unharmed().await;
}

#[tokio::test]
async fn three_hundred_pipelined_requests_get_answers_in_order_or_the_end() {
    let house = Watched::open().await;
    let mut pipeline = String::new();
    for number in 0..300 {
        pipeline.push_str(&format!("GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    let answer = talk(house.tls().await, pipeline.as_bytes()).await;
    let text = String::from_utf8_lossy(&answer);
    // Every refusal closes: the first answer is the only one, and nothing of another is behind it.
    assert_eq!(status_of(&answer), 404, "{text}");
    assert_eq!(answers_in(&text), 1, "{text}");
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a length");
    let body = text.split("\r\n\r\n").nth(1).expect("a body");
    assert_eq!(length, body.len().to_string());
    house.assert_unharmed().await;
}

/// The head of the answer to a request, and nothing behind it.
async fn head(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> Vec<u8> {
    stream.write_all(request.as_bytes()).await.expect("the house reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("the house hangs");
        answer.push(byte.expect("the house closed"));
    }
    answer
}
