//! A running house for tests: real TLS, real sockets, a temporary folder, simulated exchanges.
//!
//! Limits are configured small where a test waits for one; nothing sleeps to let time pass.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "shared by test programs that use a part each"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use countersign::cli::assemble::{self, Running};
use countersign::credential::{SecretFormat, Signer, sha256};
use countersign::fresh::UnixMillis;
use countersign::identity::jwt::{self, JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, Mint};
use countersign::identity::local::{LocalGrants, LocalKeyFor, LocalKeys};
use countersign::names::{AccountName, ClientName};
use countersign::scope::{Right, Scope};
use countersign::secret::Secret;
use countersign::server::Threads;
use countersign::simulator::{Record, bitfinex::Bitfinex, kraken::Kraken};
use countersign::venue;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// How long anything may take before a test is said to hang. No test waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A folder that goes when the test ends.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("countersign-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The configuration that most tests use: both venues simulated, `bot-a` by token and certificate, `viewer` may read.
pub const STANDARD: &str = r#"
[listen]
address = "127.0.0.1:0"
[clients.jwt]
secret = { file = "certs/client-jwt.key" }
[clients.mtls]
authority = { file = "certs/client-ca.pem" }
[accounts.kraken_main]
venue = "kraken"
upstream = "simulator"
[accounts.bitfinex_main]
venue = "bitfinex"
upstream = "simulator"
[[grants]]
client = "jwt:bot-a"
account = "kraken_main"
scope = ["read", "trade"]
max_sessions = 8
[[grants]]
client = "jwt:bot-a"
account = "bitfinex_main"
scope = ["read", "trade"]
[[grants]]
client = "cert:bot-a"
account = "kraken_main"
scope = ["read", "trade"]
[[grants]]
client = "cert:bot-a"
account = "bitfinex_main"
scope = ["read", "trade"]
[[grants]]
client = "jwt:viewer"
account = "kraken_main"
scope = ["read"]
max_sessions = 2
[[grants]]
client = "jwt:viewer"
account = "bitfinex_main"
scope = ["read"]
[admin]
address = "127.0.0.1:0"
"#;

/// Behind [`STANDARD`]: unmodified bots with local keys, and public data for everybody.
pub const LOCAL: &str = r#"
[clients.local_keys]
master = { file = "certs/local-keys.key" }
[[grants]]
client = "key:bot-a"
account = "kraken_main"
scope = ["read", "trade"]
[[grants]]
client = "key:bot-a"
account = "bitfinex_main"
scope = ["read", "trade"]
[[grants]]
client = "key:bot-b"
account = "kraken_main"
scope = ["read", "trade"]
[[grants]]
client = "key:viewer"
account = "kraken_main"
scope = ["read"]
[[grants]]
client = "anonymous"
venues = ["kraken", "bitfinex"]
scope = ["public"]
"#;

/// A running house and its folder.
pub struct House {
    pub running: Running,
    pub folder: Folder,
    pub jwt_secret: Vec<u8>,
}

impl House {
    /// The standard configuration.
    pub async fn open() -> Self {
        Self::with("").await
    }

    /// The standard configuration with more TOML behind it: `[limits]` and its keys, or further grants.
    pub async fn with(more: &str) -> Self {
        Self::from(&format!("{STANDARD}\n{more}")).await
    }

    /// A configuration of its own.
    pub async fn from(toml: &str) -> Self {
        countersign::tls::install_crypto();
        jwt::install_crypto();
        let folder = Folder::new();
        let file = folder.path().join("proxy.toml");
        std::fs::write(&file, toml).unwrap();
        let config = assemble::read(Some(&file), &[]).unwrap_or_else(|errors| panic!("{errors}"));
        let threads = Threads::start(config.listen.threads).unwrap();
        let running = assemble::start(&config, threads).await.unwrap_or_else(|exit| panic!("{exit:?}"));
        // Without clients of tokens nobody makes one.
        let jwt_secret = match std::fs::read(folder.path().join("certs/client-jwt.key")) {
            Ok(secret) => secret,
            // A house with certificates of its own makes none.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("the secret of client tokens cannot be read: {error}"),
        };
        Self { running, folder, jwt_secret }
    }

    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// The local key of a client, as `countersign key` prints it: API key and secret.
    pub fn local_key(&self, client: &str, account: &str) -> (String, String) {
        let master = Secret::new(std::fs::read(self.certs().join("local-keys.key")).unwrap());
        let local = LocalKeys::new(&master, LocalGrants::default(), Duration::from_secs(60), now()).unwrap();
        let venue = venue::by_name(account.split('_').next().unwrap()).unwrap();
        let (client, account) = (ClientName::parse(client).unwrap(), AccountName::parse(account).unwrap());
        let pair = local.issue(&LocalKeyFor { client, account, venue }).unwrap();
        (pair.api_key, String::from_utf8(pair.secret.expose().to_vec()).unwrap())
    }

    /// Sends one request under a host name and reads its answer. `head` are further lines, each with its line end.
    pub async fn ask(&self, host: &str, client: Option<&str>, line: &str, head: &str, body: &str) -> Told {
        let mut stream = self.tls_as(client, host).await.unwrap();
        let length =
            if line.starts_with("GET") { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{length}{head}\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the house hangs");
        Told::read(&answer)
    }

    /// A private call to Kraken by an unmodified bot: a form with a nonce of its own, signed with these keys.
    pub async fn kraken_call(&self, keys: &(String, String), method: &str, fields: &str) -> Told {
        let path = format!("/0/private/{method}");
        let nonce = fresh_nonce();
        let body = if fields.is_empty() { format!("nonce={nonce}") } else { format!("nonce={nonce}&{fields}") };
        let head = kraken_head(keys, &path, nonce, &body);
        self.ask("api.kraken.com", None, &format!("POST {path}"), &head, &body).await
    }

    /// A private call to Bitfinex by an unmodified bot.
    pub async fn bitfinex_call(&self, keys: &(String, String), path: &str, body: &str) -> Told {
        let nonce = fresh_nonce();
        let signer = signer(keys, SecretFormat::Text);
        let message = format!("/api/v2/{path}{nonce}{body}");
        let signature = hex::encode(signer.hmac_sha384(&[message.as_bytes()]));
        let head = format!(
            "bfx-nonce: {nonce}\r\nbfx-apikey: {}\r\nbfx-signature: {signature}\r\ncontent-type: application/json\r\n",
            keys.0
        );
        self.ask("api.bitfinex.com", None, &format!("POST /v2/{path}"), &head, body).await
    }

    pub fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// What the simulated Kraken saw.
    pub fn kraken(&self) -> &Record {
        self.running.simulators.kraken.as_ref().unwrap().record()
    }

    /// What the simulated Bitfinex saw.
    pub fn bitfinex(&self) -> &Record {
        self.running.simulators.bitfinex.as_ref().unwrap().record()
    }

    pub fn kraken_exchange(&self) -> &countersign::simulator::Running<Kraken> {
        self.running.simulators.kraken.as_ref().unwrap()
    }

    pub fn bitfinex_exchange(&self) -> &countersign::simulator::Running<Bitfinex> {
        self.running.simulators.bitfinex.as_ref().unwrap()
    }

    /// Asserts "U=0": no exchange saw a byte or a connection.
    pub fn assert_nothing_upstream(&self) {
        for record in [self.kraken(), self.bitfinex()] {
            assert_eq!(record.tcp_connections(), 0, "an exchange saw a connection");
            assert_eq!(record.bytes_received(), 0, "an exchange saw a byte");
        }
    }

    /// A good token.
    pub fn token(&self, subject: &str) -> String {
        self.token_for(subject, None, Duration::from_secs(900))
    }

    pub fn token_for(&self, subject: &str, scope: Option<&[Right]>, lifetime: Duration) -> String {
        assert!(!self.jwt_secret.is_empty(), "this house takes no client tokens of ours");
        let key = JwtKey::new(None, JwtAlgorithm::HS256, &Secret::new(self.jwt_secret.clone())).unwrap();
        let keys = JwtKeys::new(JwtSettings { keys: vec![key], ..JwtSettings::default() }).unwrap();
        let subject = ClientName::parse(subject).unwrap();
        let scope = scope.map(|rights| rights.iter().copied().collect::<Scope>());
        let wanted = Mint { subject: &subject, scope, lifetime, random: [7; 16] };
        String::from_utf8(keys.mint(&wanted, now()).unwrap().expose().to_vec()).unwrap()
    }

    /// TLS to the house, trusting its authority.
    pub async fn tls(&self) -> TlsStream<TcpStream> {
        self.tls_as(None, "localhost").await.unwrap()
    }

    /// TLS with a client certificate (`bot-a`), or to another name.
    pub async fn tls_as(&self, client: Option<&str>, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address()).await?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(self.client_config(client)));
        connector.connect(ServerName::try_from(name.to_owned()).unwrap(), tcp).await
    }

    pub fn client_config(&self, client: Option<&str>) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certs().join("ca.pem")).unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        match client {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = vec![CertificateDer::from_pem_file(self.certs().join(format!("{name}.pem"))).unwrap()];
                let key = PrivateKeyDer::from_pem_file(self.certs().join(format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }

    /// Sends bytes over TLS and reads until the house closes, or `PATIENCE` is over.
    pub async fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.tls().await;
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the house hangs");
        answer
    }

    /// The status of the first answer to raw bytes; 0 if there was none.
    pub async fn status(&self, request: &[u8]) -> u16 {
        status_of(&self.raw(request).await)
    }

    /// A socket at a path of ours, not logged in.
    pub async fn socket(&self, path: &str) -> Socket {
        self.upgrade(path, &[], None).await.unwrap()
    }

    /// A socket at a path of ours with further headers and perhaps a client certificate.
    pub async fn upgrade(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        client: Option<&str>,
    ) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
        self.upgrade_at("localhost", path, headers, client).await
    }

    /// A socket under another host name (SNI and `Host`): `ws-auth.kraken.com`, `/v2`.
    pub async fn upgrade_at(
        &self,
        host: &str,
        path: &str,
        headers: &[(&'static str, &str)],
        client: Option<&str>,
    ) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
        let stream = self.tls_as(client, host).await?;
        let mut request = format!("wss://{host}{path}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        Ok(Socket(socket))
    }

    /// A socket that has logged in by its first message and was told `connected`.
    pub async fn logged_in(&self, path: &str, subject: &str) -> Socket {
        let mut socket = self.socket(path).await;
        socket.log_in(&self.token(subject)).await;
        let told = socket.json().await;
        assert_eq!(told["type"], "connected", "{told}");
        socket
    }
}

/// The headers of a form that is signed for Kraken.
pub fn kraken_head(keys: &(String, String), path: &str, nonce: u64, body: &str) -> String {
    let digest = sha256(&[nonce.to_string().as_bytes(), body.as_bytes()]);
    let signature = BASE64.encode(signer(keys, SecretFormat::Base64).hmac_sha512(&[path.as_bytes(), &digest]));
    let kind = "content-type: application/x-www-form-urlencoded";
    format!("api-key: {}\r\napi-sign: {signature}\r\n{kind}\r\n", keys.0)
}

pub fn signer(keys: &(String, String), format: SecretFormat) -> Signer {
    Signer::new(&Secret::from(keys.0.clone()), &Secret::from(keys.1.clone()), format).unwrap()
}

/// Microseconds, each greater than the last.
pub fn fresh_nonce() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let wall = now().0 * 1000;
    LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(wall.max(last + 1))).unwrap();
    LAST.load(Ordering::SeqCst)
}

/// The answer to one request.
#[derive(Debug)]
pub struct Told {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Told {
    pub fn read(answer: &[u8]) -> Self {
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("no whole head came");
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let headers: Vec<(String, String)> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut body = answer[end + 4..].to_vec();
        if headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
            body = dechunked(&body);
        }
        Self { status: status_of(answer), headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Why Countersign refused it, and what became of it: `scope_denied`, `not-sent`.
    pub fn said(&self) -> (&str, &str) {
        let header = |name| self.header(name).unwrap_or("-");
        (header("countersign-reason"), header("countersign-upstream"))
    }
}

fn dechunked(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).unwrap(), 16).unwrap();
        let start = end + 2;
        body.extend_from_slice(&chunks[start..start + size]);
        chunks = &chunks[start + size + 2..];
        if size == 0 {
            break;
        }
    }
    body
}

/// A client's WebSocket.
pub struct Socket(pub WebSocketStream<TlsStream<TcpStream>>);

impl Socket {
    pub async fn say(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }

    pub async fn log_in(&mut self, token: &str) {
        self.say(format!(r#"{{"type":"auth","token":"{token}"}}"#)).await;
    }

    /// The next message, whatever it is; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
        tokio::time::timeout(PATIENCE, self.0.next()).await.expect("nothing came")
    }

    /// The next text. Pings are passed over.
    pub async fn text(&mut self) -> String {
        loop {
            match self.next().await {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("instead of a text came {other:?}"),
            }
        }
    }

    pub async fn json(&mut self) -> serde_json::Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"))
    }

    /// Reads until a JSON message fits.
    pub async fn json_where(&mut self, fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        loop {
            let value = self.json().await;
            if fits(&value) {
                return value;
            }
        }
    }

    /// Reads until the close: its code and reason. (0, "") if the connection ended without one.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
                Some(Ok(Message::Close(None))) => return (1005, String::new()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return (0, String::new()),
            }
        }
    }

    /// Writes raw bytes past the WebSocket, for frames that no library sends.
    pub async fn raw(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.unwrap();
        self.0.get_mut().flush().await.unwrap();
    }
}

/// The status of the first answer in these bytes; 0 if there is none.
pub fn status_of(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(since.as_millis() as u64)
}
