//! Ports that lead to one venue, over real TLS: unmodified bots that take a base URL and nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod house;

use house::{House, PATIENCE, STANDARD, Socket, status_of};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const PORTS: &str = r#"
[[ports]]
address = "127.0.0.1:0"
venue = "kraken"
[[ports]]
address = "127.0.0.1:0"
venue = "kraken"
endpoint = "public"
[[ports]]
address = "127.0.0.1:0"
venue = "bitfinex"
"#;

const KRAKEN: usize = 0;
const KRAKEN_PUBLIC: usize = 1;
const BITFINEX: usize = 2;

#[tokio::test]
async fn a_bot_with_a_base_url_reaches_the_private_socket_of_its_venue() {
    let house = House::with(PORTS).await;
    for host in ["localhost", "127.0.0.1"] {
        let mut socket = upgrade(&house, KRAKEN, host, "/v2").await.unwrap();
        assert_native_kraken(&mut socket).await;
    }
    let mut socket = upgrade(&house, BITFINEX, "localhost", "/ws/2").await.unwrap();
    assert_eq!(socket.json().await["event"], "info", "Bitfinex greets, and nothing of ours comes before it");
    assert_eq!(house.kraken().tcp_connections(), 2 + 1, "two sockets, and one token for both");
}

#[tokio::test]
async fn a_port_that_names_the_public_endpoint_leads_to_the_public_socket() {
    let house = House::with(PORTS).await;
    let mut socket = upgrade(&house, KRAKEN_PUBLIC, "localhost", "/v2").await.unwrap();
    socket.say(r#"{"method":"ping","req_id":1}"#).await;
    socket.json_where(|told| told["method"] == "pong").await;
    socket.say(r#"{"method":"add_order","params":{"symbol":"BTC/USD"},"req_id":2}"#).await;
    let told = socket.json_where(|told| told["req_id"] == 2).await;
    assert_eq!(told["success"], false, "there are no orders on the public socket: {told}");
}

#[tokio::test]
async fn a_port_answers_to_its_venue_s_names_and_to_no_other_s() {
    let house = House::with(PORTS).await;
    let mut socket = upgrade(&house, KRAKEN, "ws-auth.kraken.com", "/v2").await.unwrap();
    assert_native_kraken(&mut socket).await;
    for (port, host, path) in [
        (KRAKEN, "api.bitfinex.com", "/ws/2"),
        (BITFINEX, "ws-auth.kraken.com", "/v2"),
        (KRAKEN, "evil.example", "/v2"),
    ] {
        assert_eq!(refused(&house, port, host, path).await, 421, "{host}");
    }
    assert_eq!(refused(&house, KRAKEN, "localhost", "/ws/2").await, 404, "a path of another venue");
    assert_eq!(refused(&house, KRAKEN, "localhost", "/kraken/v2").await, 404, "a path of the main listener");
}

#[tokio::test]
async fn a_port_asks_for_proof_as_the_main_listener_does() {
    let house = House::with(PORTS).await;
    // A native client that shows nothing gets its socket, and no exchange hears of it.
    let stream = tls(&house, house.running.ports[KRAKEN], "localhost", None).await;
    let request = "wss://localhost/v2".into_client_request().unwrap();
    let (_socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    house.assert_nothing_upstream();
    let stream = tls(&house, house.running.ports[KRAKEN], "localhost", None).await;
    let mut request = "wss://localhost/v2".into_client_request().unwrap();
    request.headers_mut().insert("authorization", "Bearer nonsense".parse().unwrap());
    let Err(Error::Http(answer)) = tokio_tungstenite::client_async(request, stream).await else {
        panic!("a bad token was taken");
    };
    assert_eq!(answer.status(), 401);
    house.assert_nothing_upstream();
}

#[tokio::test]
async fn connections_are_counted_over_all_listeners() {
    let toml = format!("{}{PORTS}", STANDARD.replacen("[clients.jwt]", "connections_max = 2\n[clients.jwt]", 1));
    let house = House::from(&toml).await;
    let _first = house.tls().await;
    let _second = tls(&house, house.running.ports[KRAKEN], "localhost", None).await;
    for address in [house.address(), house.running.ports[BITFINEX]] {
        let mut refused = TcpStream::connect(address).await.unwrap();
        let mut nothing = Vec::new();
        let read =
            tokio::time::timeout(PATIENCE, refused.read_to_end(&mut nothing)).await.expect("it is closed at once");
        assert!(matches!(read, Ok(0) | Err(_)), "one connection too many was served");
    }
}

#[tokio::test]
async fn sessions_of_a_port_are_told_1001_when_the_house_closes() {
    let house = House::with(PORTS).await;
    let mut socket = upgrade(&house, KRAKEN, "localhost", "/v2").await.unwrap();
    assert_native_kraken(&mut socket).await;
    let port = house.running.ports[KRAKEN];
    let stopping = tokio::spawn(house.running.stop());
    assert_eq!(socket.closed().await.0, 1001);
    drop(socket);
    assert!(stopping.await.unwrap());
    assert!(TcpStream::connect(port).await.is_err());
}

/// Kraken's own protocol and no word of ours: balances need the account's token.
async fn assert_native_kraken(socket: &mut Socket) {
    socket.say(r#"{"method":"subscribe","params":{"channel":"balances"},"req_id":7}"#).await;
    let told = socket.json_where(|told| told["req_id"] == 7 || told["type"] == "connected").await;
    assert_eq!((&told["success"], &told["type"]), (&true.into(), &serde_json::Value::Null), "{told}");
}

/// A socket at a port, proved by certificate.
async fn upgrade(house: &House, port: usize, host: &str, path: &str) -> Result<Socket, Error> {
    let stream = tls(house, house.running.ports[port], host, Some("bot-a")).await;
    let request = format!("wss://{host}:{}{path}", house.running.ports[port].port()).into_client_request()?;
    tokio_tungstenite::client_async(request, stream).await.map(|(socket, _)| Socket(socket))
}

async fn refused(house: &House, port: usize, host: &str, path: &str) -> u16 {
    // By address, as a page does whose name was bent to loopback: the name is in the Host alone.
    let mut stream = tls(house, house.running.ports[port], "127.0.0.1", Some("bot-a")).await;
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the house hangs");
    status_of(&answer)
}

async fn tls(
    house: &House,
    address: SocketAddr,
    name: &str,
    client: Option<&str>,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(house.client_config(client)));
    connector.connect(ServerName::try_from(name.to_owned()).unwrap(), tcp).await.unwrap()
}
