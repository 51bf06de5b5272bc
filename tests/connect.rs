//! The CONNECT listener, over real TLS in real tunnels: who may open one, and where it leads.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod house;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use countersign::identity::local::{LocalGrants, LocalKeys};
use countersign::secret::Secret;
use house::{House, PATIENCE, Socket, status_of};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const CONNECT: &str = r#"
[connect]
address = "127.0.0.1:0"
[clients.local_keys]
master = { file = "certs/local-keys.key" }
[limits]
auth_failure_delay = "1ms"
"#;

#[tokio::test]
async fn a_tunnel_to_a_venue_s_name_ends_in_our_own_tls() {
    let house = House::with(CONNECT).await;
    for (client, token) in [(Some("bot-a"), None), (None, Some(house.token("bot-a")))] {
        let mut socket = upgrade(&house, client, token).await;
        socket.say(r#"{"method":"subscribe","params":{"channel":"balances"},"req_id":7}"#).await;
        let told = socket.json_where(|told| told["req_id"] == 7).await;
        assert_eq!(told["success"], true, "{told}");
    }
}

#[tokio::test]
async fn a_tunnel_is_no_proof_of_who_the_client_is() {
    let house = House::with(CONNECT).await;
    let _socket = upgrade(&house, None, None).await;
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn python_s_older_form_of_the_request_is_taken() {
    let house = House::with(CONNECT).await;
    let head = format!("CONNECT api.kraken.com:443 HTTP/1.0\r\nProxy-Authorization: {}\r\n\r\n", secret(&house));
    let (mut tcp, status) = ask(&house, &head).await;
    assert_eq!(status, 200);
    assert!(in_tls(&house, &mut tcp, "api.kraken.com").await);
}

#[tokio::test]
async fn without_the_secret_there_is_no_tunnel() {
    let house = House::with(CONNECT).await;
    let good = secret(&house);
    let mut other = good.clone();
    other.replace_range(good.len() - 6..good.len() - 4, "AA");
    let wrong_user = format!("Basic {}", BASE64.encode("root:x"));
    for shown in [None, Some("Basic"), Some("Basic cnVuOg=="), Some("Bearer x"), Some(&other), Some(&wrong_user)] {
        let shown = shown.map_or_else(String::new, |shown| format!("Proxy-Authorization: {shown}\r\n"));
        let answer = refused(&house, &format!("{}{shown}\r\n", request("api.kraken.com:443"))).await;
        assert_eq!(status_of(answer.as_bytes()), 407, "{answer}");
        assert!(answer.to_ascii_lowercase().contains("proxy-authenticate: basic"), "{answer}");
    }
    // A doubled secret is no secret, even if both are good.
    let doubled =
        format!("{0}Proxy-Authorization: {good}\r\nProxy-Authorization: {good}\r\n\r\n", request("api.kraken.com:443"));
    assert_eq!(status_of(refused(&house, &doubled).await.as_bytes()), 400);
}

#[tokio::test]
async fn wrong_secrets_count_as_failed_logins() {
    let house = House::with(&CONNECT.replace("\"1ms\"", "\"300ms\"\nauth_failures_max = 1")).await;
    let wrong = format!("{}Proxy-Authorization: Basic cnVuOng=\r\n\r\n", request("api.kraken.com:443"));
    refused(&house, &wrong).await;
    let began = std::time::Instant::now();
    refused(&house, &wrong).await;
    assert!(began.elapsed() >= std::time::Duration::from_millis(300), "the second was answered at once");
}

#[tokio::test]
async fn nothing_but_names_of_configured_venues_at_443_is_reached() {
    let house = House::with(CONNECT).await;
    for target in [
        "example.com:443",
        "api.kraken.com:80",
        "api.kraken.com:8443",
        "localhost:443",
        "127.0.0.1:443",
        "[::1]:443",
        "kraken.localhost:443",
        "api.kraken.com.evil.example:443",
        "kraken.com:443",
    ] {
        let answer = refused(&house, &good(&house, target)).await;
        assert_eq!(status_of(answer.as_bytes()), 403, "{target}: {answer}");
        assert!(answer.contains("not served here; only names of configured venues"), "{answer}");
    }
}

#[tokio::test]
async fn a_venue_without_an_account_is_not_served() {
    let toml = house::STANDARD.split("[[grants]]").next().unwrap().replace(
        "[accounts.bitfinex_main]\nvenue = \"bitfinex\"\nupstream = \"simulator\"\n",
        "[[grants]]\nclient = \"jwt:bot-a\"\naccount = \"kraken_main\"\nscope = [\"read\"]\n",
    );
    let house = House::from(&format!("{toml}[admin]\naddress = \"127.0.0.1:0\"\n{CONNECT}")).await;
    assert_eq!(status_of(refused(&house, &good(&house, "api.bitfinex.com:443")).await.as_bytes()), 403);
    assert_eq!(ask(&house, &good(&house, "api.kraken.com:443")).await.1, 200);
}

#[tokio::test]
async fn nothing_but_a_plain_connect_is_answered() {
    let house = House::with(CONNECT).await;
    let proof = format!("Proxy-Authorization: {}\r\n\r\n", secret(&house));
    for (head, status) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n", 405),
        ("GET http://api.kraken.com/ HTTP/1.1\r\nHost: api.kraken.com\r\n", 405),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n", 405),
        ("CONNECT api.kraken.com HTTP/1.1\r\nHost: api.kraken.com\r\n", 400),
        ("CONNECT api.kraken.com:443 HTTP/1.1\r\n", 400),
        ("CONNECT api.kraken.com:443 HTTP/1.1\r\nHost: example.com:443\r\n", 400),
        ("CONNECT api.kraken.com:443 HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        ("CONNECT u@api.kraken.com:443 HTTP/1.1\r\nHost: u@api.kraken.com:443\r\n", 400),
        ("CONNECT api.kraken.com:443 HTTP/1.1\r\nHost: api.kraken.com:443\r\nContent-Length: 5\r\n", 400),
        ("CONNECT api.kraken.com:443 HTTP/1.1\r\nHost: api.kraken.com:443\r\nTransfer-Encoding: chunked\r\n", 400),
    ] {
        let answer = refused(&house, &format!("{head}{proof}")).await;
        assert_eq!(status_of(answer.as_bytes()), status, "{head}\n{answer}");
    }
    let many: String = (0..40).map(|number| format!("x-{number}: y\r\n")).collect();
    let answer = refused(&house, &format!("{}{many}{proof}", request("api.kraken.com:443"))).await;
    assert_eq!(status_of(answer.as_bytes()), 431, "{answer}");
    let long = format!("{}x: {}\r\n{proof}", request("api.kraken.com:443"), "y".repeat(9000));
    assert_eq!(status_of(refused(&house, &long).await.as_bytes()), 431);
}

#[tokio::test]
async fn a_tunnel_takes_tls_for_its_own_name_alone() {
    let house = House::with(CONNECT).await;
    for other in ["api.kraken.com", "localhost", "api.bitfinex.com", "127.0.0.1"] {
        let (mut tcp, status) = ask(&house, &good(&house, "ws-auth.kraken.com:443")).await;
        assert_eq!(status, 200);
        assert!(!in_tls(&house, &mut tcp, other).await, "{other} was served in a tunnel to another name");
    }
    let (mut tcp, _) = ask(&house, &good(&house, "WS-Auth.Kraken.com:443")).await;
    assert!(in_tls(&house, &mut tcp, "ws-auth.kraken.com").await, "case says nothing");
}

#[tokio::test]
async fn what_comes_before_our_answer_ends_the_tunnel() {
    let house = House::with(CONNECT).await;
    let mut tcp = TcpStream::connect(house.running.connect_address.unwrap()).await.unwrap();
    let mut early = good(&house, "api.kraken.com:443").into_bytes();
    // TLS that read this would send an alert.
    early.extend(b"GET / HTTP/1.1\r\n\r\n");
    tcp.write_all(&early).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("it is closed");
    let text = String::from_utf8_lossy(&answer);
    assert!(!answer.contains(&0x15) && text.matches("HTTP/1.1").count() <= 1, "no TLS, no second answer: {text}");
}

#[tokio::test]
async fn plain_http_in_a_tunnel_is_not_answered() {
    let house = House::with(CONNECT).await;
    let (mut tcp, status) = ask(&house, &good(&house, "api.kraken.com:443")).await;
    assert_eq!(status, 200);
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: api.kraken.com\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("it is closed");
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_client_that_asks_for_nothing_is_let_go() {
    let house = House::with(&format!("{CONNECT}request_head = \"50ms\"\n")).await;
    for begun in ["", "CONNECT api.kra"] {
        let mut tcp = TcpStream::connect(house.running.connect_address.unwrap()).await.unwrap();
        tcp.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("it is closed");
        assert_ne!(status_of(&answer), 200);
    }
}

#[tokio::test]
async fn the_main_listener_takes_no_connect() {
    let house = House::with(CONNECT).await;
    let answer = house.raw(good(&house, "api.kraken.com:443").as_bytes()).await;
    assert!(matches!(status_of(&answer), 400 | 405), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_tunnel_drains_with_the_house() {
    let house = House::with(CONNECT).await;
    let mut socket = upgrade(&house, Some("bot-a"), None).await;
    let waiting = TcpStream::connect(house.running.connect_address.unwrap()).await.unwrap();
    let stopping = tokio::spawn(house.running.stop());
    assert_eq!(socket.closed().await.0, 1001);
    drop(socket);
    assert!(stopping.await.unwrap(), "a client that had asked for nothing held the house up");
    drop(waiting);
}

/// A Kraken socket through a tunnel.
async fn upgrade(house: &House, client: Option<&str>, token: Option<String>) -> Socket {
    let (tcp, status) = ask(house, &good(house, "ws-auth.kraken.com:443")).await;
    assert_eq!(status, 200);
    let connector = TlsConnector::from(Arc::new(house.client_config(client)));
    let name = ServerName::try_from("ws-auth.kraken.com").unwrap();
    let stream = connector.connect(name, tcp).await.unwrap();
    let mut request = "wss://ws-auth.kraken.com/v2".into_client_request().unwrap();
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    Socket(socket)
}

/// True if TLS for that name is served: a request in it is answered.
async fn in_tls(house: &House, tcp: &mut TcpStream, name: &str) -> bool {
    let connector = TlsConnector::from(Arc::new(house.client_config(None)));
    let Ok(mut stream) = connector.connect(ServerName::try_from(name.to_owned()).unwrap(), tcp).await else {
        return false;
    };
    let request = format!("GET /nowhere HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the house hangs");
    status_of(&answer) != 0
}

fn request(target: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n")
}

fn good(house: &House, target: &str) -> String {
    format!("{}Proxy-Authorization: {}\r\n\r\n", request(target), secret(house))
}

/// Sends a head, and reads the head of the answer and nothing behind it.
async fn ask(house: &House, head: &str) -> (TcpStream, u16) {
    let mut tcp = TcpStream::connect(house.running.connect_address.unwrap()).await.unwrap();
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, tcp.read_u8()).await.expect("the house hangs");
        answer.push(byte.unwrap_or_else(|_| panic!("closed after {}", String::from_utf8_lossy(&answer))));
    }
    let text = String::from_utf8(answer).unwrap();
    (tcp, text.split(' ').nth(1).unwrap().parse().unwrap())
}

/// Sends a head that is refused, and reads everything.
async fn refused(house: &House, head: &str) -> String {
    let mut tcp = TcpStream::connect(house.running.connect_address.unwrap()).await.unwrap();
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("a refusal ends the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A secret as `countersign run` makes one.
fn secret(house: &House) -> String {
    let master = Secret::new(std::fs::read(house.certs().join("local-keys.key")).unwrap());
    let local = LocalKeys::new(&master, LocalGrants::default(), PATIENCE, house::now()).unwrap();
    let made = String::from_utf8(local.run_secret([7; 16]).expose().to_vec()).unwrap();
    format!("Basic {}", BASE64.encode(format!("run:{made}")))
}
