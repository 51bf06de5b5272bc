//! Requests whose exchange answers badly, late or not at all: what the client is told, and that nothing is sent twice.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod house;

use countersign::certs::{self, Wanted};
use countersign::tls::{Acceptor, Certificates, ServerSettings};
use house::{Folder, House, Told};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const API_KEY: &str = "THE/REAL+API/KEY+OF/THE+EXCHANGE";
const KRAKEN: &str = "api.kraken.com";

/// What the exchange does with one request.
enum Script {
    /// Writes this and goes on.
    Say(Vec<u8>),
    /// Writes this and closes.
    SayAndClose(Vec<u8>),
    /// Reads it and says nothing.
    Silence,
}

/// An exchange that follows a script, request by request over all connections.
struct Exchange {
    address: SocketAddr,
    folder: Folder,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Exchange {
    async fn start(script: impl Fn(usize) -> Script + Send + Sync + 'static) -> Self {
        let folder = Folder::new();
        let acceptor = acceptor(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, seen) = (Arc::new(script), Arc::clone(&requests));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, script, seen) = (acceptor.clone(), Arc::clone(&script), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(socket).await else { return };
                    loop {
                        let Some(request) = read_request(&mut stream).await else { return };
                        let number = {
                            let mut seen = seen.lock().unwrap();
                            seen.push(request);
                            seen.len() - 1
                        };
                        match script(number) {
                            Script::Say(bytes) => {
                                if stream.write_all(&bytes).await.is_err() {
                                    return;
                                }
                            }
                            Script::SayAndClose(bytes) => {
                                stream.write_all(&bytes).await.unwrap();
                                let _ = stream.shutdown().await;
                                return;
                            }
                            Script::Silence => std::future::pending().await,
                        }
                    }
                });
            }
        });
        Self { address, folder, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// A house in front of it, whose `bot-a` comes by certificate.
    async fn house(&self, more: &str) -> House {
        let place = self.folder.path().display();
        House::from(&format!(
            r#"
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[clients.mtls]
authority = {{ file = "certs/client-ca.pem" }}
[accounts.kraken_main]
venue = "kraken"
key = {{ file = "{place}/api.key" }}
secret = {{ file = "{place}/api.secret" }}
upstream = {{ rest = "https://{KRAKEN}", roots = "{place}/ca.pem", addresses = ["{}"], local = true }}
[[grants]]
client = "cert:bot-a"
account = "kraken_main"
scope = ["read", "trade", "admin"]
[limits]
{more}
"#,
            self.address
        ))
        .await
    }
}

fn acceptor(folder: &Path) -> Acceptor {
    countersign::tls::install_crypto();
    let names = vec![KRAKEN.to_owned()];
    let wanted = Wanted { directory: folder.to_owned(), names, clients: Vec::new(), is_forced: false };
    certs::ensure(&wanted, house::now()).unwrap();
    for (name, text) in [("api.key", API_KEY), ("api.secret", "c2VjcmV0IG9mIHRoZSBleGNoYW5nZQ==")] {
        std::fs::write(folder.join(name), text).unwrap();
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let certificates = Certificates::Directory(folder.to_owned());
    ServerSettings { certificates, client_authority: None, client_revocations: None }.load(house::now()).unwrap()
}

/// One whole request; none at the end of the connection.
async fn read_request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    }
}

fn answer(headers: &str, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}");
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

const GOOD: &str = r#"{"error":[],"result":{"count":1}}"#;

async fn call(house: &House, method: &str) -> Told {
    house.ask(KRAKEN, Some("bot-a"), &format!("POST /0/private/{method}"), "", "").await
}

fn nonces(requests: &[String]) -> Vec<u64> {
    requests.iter().map(|request| request.rsplit_once("nonce=").unwrap().1.parse().unwrap()).collect()
}

#[tokio::test]
async fn an_answer_that_is_cut_off_says_that_the_outcome_is_unknown() {
    for cut in [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"error\":[]".to_vec(),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n".to_vec(),
        answer("", &"x".repeat(2000)),
    ] {
        let exchange = Exchange::start(move |_| Script::SayAndClose(cut.clone())).await;
        let house = exchange.house("answer_bytes_max = 1000").await;
        let told = call(&house, "CancelAll").await;
        assert_eq!((told.status, told.said()), (502, ("answer_incomplete", "answered")), "{told:?}");
        assert_eq!(told.json()["error"].as_array().unwrap().len(), 1, "the library must not take it for a success");
        assert_eq!(exchange.requests().len(), 1, "nothing is sent twice");
    }
}

#[tokio::test]
async fn a_connection_that_ends_before_the_answer_is_maybe_sent_and_not_sent_again() {
    let exchange = Exchange::start(|_| Script::SayAndClose(Vec::new())).await;
    let house = exchange.house("").await;
    for (number, method) in ["AddOrder", "Balance"].into_iter().enumerate() {
        let told = call(&house, method).await;
        assert_eq!((told.status, told.said()), (504, ("upstream_lost", "maybe-sent")), "{method}: {told:?}");
        assert_eq!(exchange.requests().len(), number + 1, "{method} was sent again");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_maybe_sent() {
    let exchange = Exchange::start(|_| Script::Silence).await;
    let house = exchange.house("answer_timeout = \"200ms\"").await;
    let told = call(&house, "AddOrder").await;
    assert_eq!((told.status, told.said()), (504, ("upstream_timeout", "maybe-sent")), "{told:?}");
    assert_eq!(exchange.requests().len(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_exchange_closed_costs_nothing() {
    let exchange = Exchange::start(|_| Script::SayAndClose(answer("", GOOD))).await;
    let house = exchange.house("").await;
    for _ in 0..5 {
        let told = call(&house, "CancelAll").await;
        assert_eq!((told.status, told.text().as_str()), (200, GOOD), "{told:?}");
    }
    let requests = exchange.requests();
    let nonces = nonces(&requests);
    assert_eq!(nonces.len(), 5, "each was sent once");
    assert!(nonces.windows(2).all(|pair| pair[0] < pair[1]), "{nonces:?}");
}

#[tokio::test]
async fn an_exchange_that_is_not_there_is_not_sent() {
    let exchange = Exchange::start(|_| Script::Silence).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = Exchange { address: nobody.local_addr().unwrap(), ..exchange };
    drop(nobody);
    let house = gone.house("").await;
    let told = call(&house, "AddOrder").await;
    assert_eq!((told.status, told.said()), (503, ("upstream_unavailable", "not-sent")), "{told:?}");
}

#[tokio::test]
async fn an_exchange_with_another_certificate_gets_no_byte_of_a_request() {
    let trusted = Exchange::start(|_| Script::Silence).await;
    let stranger = Exchange::start(|_| Script::Say(answer("", GOOD))).await;
    // Dialled is the stranger, trusted is the authority of the other one.
    let house = Exchange { address: stranger.address, ..trusted }.house("").await;
    let told = call(&house, "AddOrder").await;
    assert_eq!((told.status, told.said()), (503, ("upstream_tls", "not-sent")), "{told:?}");
    assert!(stranger.requests().is_empty());
}

#[tokio::test]
async fn cookies_and_places_to_go_stay_here_and_what_describes_the_body_is_passed_on() {
    let headers = "set-cookie: __cf_bm=x\r\nlocation: https://evil.example/\r\nx-amz: 1\r\nretry-after: 3\r\n";
    let moved = format!("HTTP/1.1 301 Moved\r\n{headers}content-type: text/html\r\ncontent-length: 2\r\n\r\nhi");
    let exchange = Exchange::start(move |_| Script::Say(moved.clone().into_bytes())).await;
    let house = exchange.house("").await;
    let told = call(&house, "Balance").await;
    assert_eq!((told.status, told.text().as_str()), (301, "hi"));
    assert_eq!((told.header("content-type"), told.header("retry-after")), (Some("text/html"), Some("3")));
    for name in ["set-cookie", "location", "x-amz"] {
        assert_eq!(told.header(name), None);
    }
    let request = &exchange.requests()[0];
    assert!(request.contains("\r\naccept-encoding: identity\r\n"), "{request}");
}

#[tokio::test]
async fn a_packed_answer_is_passed_on_unopened_within_the_limit() {
    // A thousand zeros to one byte would be a bomb to whoever opens it.
    let packed = "\u{1f}ABC".repeat(30_000);
    let exchange = Exchange::start(move |_| Script::Say(answer("content-encoding: gzip\r\n", &packed))).await;
    let house = exchange.house("").await;
    let told = call(&house, "RetrieveExport").await;
    assert_eq!((told.status, told.header("content-encoding"), told.body.len()), (200, Some("gzip"), 120_000));
}

#[tokio::test]
async fn a_key_that_the_exchange_repeats_is_overwritten_wherever_the_answer_is_cut() {
    let escaped = API_KEY.replace('/', "\\/");
    // Long enough to be streamed, with keys all over it, so that some lie across two pieces.
    let long: String = (0..6000).map(|number| format!("{number:05}{API_KEY}{escaped}")).collect();
    for body in [format!(r#"{{"error":[],"result":{{"apiKey":"{API_KEY}","b":"{escaped}"}}}}"#), long] {
        let length = body.len();
        let exchange = Exchange::start(move |_| Script::Say(answer("", &body))).await;
        let house = exchange.house("").await;
        let told = call(&house, "GetApiKeyInfo").await;
        assert_eq!((told.status, told.body.len()), (200, length));
        assert!(!told.text().contains("THE/REAL") && !told.text().contains("THE\\/REAL"), "the key came through");
        assert!(!told.text().contains("EXCHANGE"), "the end of a key came through");
    }
}

#[tokio::test]
async fn an_exchange_that_limits_public_requests_does_not_stop_trading_nor_the_other_way_round() {
    for (limited, others) in
        [("GET /0/public/Time", "POST /0/private/AddOrder"), ("POST /0/private/Balance", "GET /0/public/Time")]
    {
        let away = b"HTTP/1.1 429 Too Many\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n";
        let exchange =
            Exchange::start(move |number| Script::Say(if number == 0 { away.to_vec() } else { answer("", GOOD) }));
        let exchange = exchange.await;
        let house = exchange.house("").await;
        let ask = |line: &'static str| house.ask(KRAKEN, Some("bot-a"), line, "", "");
        assert_eq!(ask(limited).await.status, 429);
        assert_eq!(
            ask(limited).await.header("countersign-upstream"),
            Some("not-sent"),
            "{limited}: we were asked to wait"
        );
        assert_eq!(ask(others).await.text(), GOOD, "{others} after a limit of {limited}");
        assert_eq!(exchange.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_refused_nonce_is_told_as_it_is_and_the_next_request_is_above_it() {
    let small = r#"{"error":["EAPI:Invalid nonce"]}"#;
    let exchange = Exchange::start(move |number| Script::Say(answer("", if number == 0 { small } else { GOOD }))).await;
    let house = exchange.house("").await;
    let told = call(&house, "AddOrder").await;
    assert_eq!((told.status, told.text().as_str()), (200, small));
    assert_eq!(told.header("countersign-upstream"), Some("answered"));
    tokio::time::timeout(Duration::from_secs(5), async {
        assert_eq!(call(&house, "AddOrder").await.text(), GOOD);
    })
    .await
    .unwrap();
    let nonces = nonces(&exchange.requests());
    assert!(nonces[0] < nonces[1], "{nonces:?}");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_let_go() {
    // More than the sockets between hold.
    let long = "x".repeat(8_000_000);
    let exchange = Exchange::start(move |_| Script::Say(answer("", &long))).await;
    let house = exchange.house("outbox_stall = \"100ms\"\ndrain_timeout = \"60s\"").await;
    let mut stream = house.tls_as(Some("bot-a"), KRAKEN).await.unwrap();
    let request = format!("POST /0/private/Balance HTTP/1.1\r\nhost: {KRAKEN}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // The answer is on its way, and nobody reads it.
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    let stopping = tokio::time::timeout(house::PATIENCE, house.running.stop());
    assert!(stopping.await.expect("the house waits for a client that does not read"), "it did not end in time");
}
