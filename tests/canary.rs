//! Known secrets are planted wherever a secret can be, a real process is run and mistreated, and everything that left
//! it is searched for them.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by where it panics")]

mod house;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use countersign::certs::{self, Wanted};
use countersign::identity::jwt::{self, JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, Mint};
use countersign::names::ClientName;
use countersign::secret::Secret;
use countersign::simulator::kraken::Kraken;
use countersign::simulator::{Direction, MintFault, Options, Running, SimKey, SocketAction, kraken};
use countersign::tls::{Certificates, ServerSettings};
use futures_util::{SinkExt as _, StreamExt as _};
use house::{Folder, PATIENCE, now};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const API_KEY: &str = "CANARYuDqV5oF8mCh3TbLzA1eRwXn7Ks2Jg4Pi6Yt9Qv0aMdNcHf";
/// 64 bytes in base64, as Kraken hands it out.
const API_SECRET: &str = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==";

/// What must not be seen, under the name that a failure may say.
#[derive(Default)]
struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    /// A secret in every spelling in which it could come out.
    fn plant(&mut self, name: &str, secret: &[u8]) {
        // Padding and the last character depend on what follows.
        let base64 = STANDARD_NO_PAD.encode(secret);
        let mut forms = vec![
            ("plain", secret.to_vec()),
            ("base64", base64.as_bytes()[..base64.len() - 2].to_vec()),
            ("base64url", URL_SAFE_NO_PAD.encode(secret).as_bytes()[..base64.len() - 2].to_vec()),
            ("hex", hex::encode(secret).into_bytes()),
            ("HEX", hex::encode_upper(secret).into_bytes()),
            ("debug", format!("{secret:?}").trim_matches(['[', ']']).as_bytes().to_vec()),
        ];
        if let Ok(text) = std::str::from_utf8(secret) {
            forms.push(("escaped", text.replace('/', "\\/").into_bytes()));
            forms.push(("URL", url_encoded(text).into_bytes()));
            forms.push(("url", url_encoded(text).replace("%2F", "%2f").replace("%2B", "%2b").into_bytes()));
        }
        self.0.extend(forms.into_iter().map(|(form, bytes)| (format!("{name}, {form}"), bytes)));
    }

    /// The names of those that are in there.
    fn seen_in(&self, haystack: &[u8]) -> Vec<&str> {
        let seen = |needle: &[u8]| memchr::memmem::find(haystack, needle).is_some();
        self.0.iter().filter(|(_, needle)| seen(needle)).map(|(name, _)| name.as_str()).collect()
    }

    fn assert_not_in(&self, place: &str, haystack: &[u8]) {
        assert_eq!(self.seen_in(haystack), Vec::<&str>::new(), "{place}");
    }
}

fn url_encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[test]
fn the_search_finds_a_planted_secret_in_every_spelling() {
    let secret = "a/secret+that is=planted";
    let mut secrets = Secrets::default();
    secrets.plant("it", secret.as_bytes());
    for spelling in [
        secret.to_owned(),
        STANDARD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        hex::encode(secret),
        hex::encode_upper(secret),
        secret.replace('/', "\\/"),
        "a%2Fsecret%2Bthat%20is%3Dplanted".to_owned(),
        "a%2fsecret%2bthat%20is%3Dplanted".to_owned(),
        format!("{:?}", secret.as_bytes()),
    ] {
        assert!(!secrets.seen_in(format!("before{spelling}behind").as_bytes()).is_empty(), "{spelling}");
    }
    assert_eq!(secrets.seen_in(b"a/secret+that is=planned"), Vec::<&str>::new());
}

/// What came out of a pipe so far, and the thread that reads it to its end.
struct Printed {
    name: &'static str,
    text: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Printed {
    fn collect(name: &'static str, mut pipe: impl std::io::Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&text);
        let reading = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut piece) {
                to.lock().unwrap().extend_from_slice(&piece[..count]);
            }
        });
        Self { name, text, reading }
    }

    fn into_all(self) -> (&'static str, Vec<u8>) {
        self.reading.join().unwrap();
        let text = std::mem::take(&mut *self.text.lock().unwrap());
        (self.name, text)
    }
}

/// The program, running, with everything that it prints.
struct Proxy {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    printed: [Printed; 2],
    folder: Folder,
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Proxy {
    async fn start(format: &str, exchange: &Exchange) -> Self {
        let folder = Folder::new();
        let file = folder.path().join("proxy.toml");
        std::fs::write(&file, exchange.config(folder.path())).unwrap();
        let arguments = ["serve", "--log-format", format, "--log-level", "trace", "--config"];
        let mut child = program().args(arguments).arg(&file).spawn().unwrap();
        let stdout = Printed::collect("stdout", child.stdout.take().unwrap());
        let stderr = Printed::collect("stderr", child.stderr.take().unwrap());
        let (address, admin) = listening(&stderr.text, &mut child).await;
        let printed = [stdout, stderr];
        Self { child, address, admin, printed, folder }
    }

    fn jwt_secret(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("certs/client-jwt.key")).unwrap()
    }

    fn token(&self, subject: &str, secret: &[u8], lifetime: Duration) -> String {
        let key = JwtKey::new(None, JwtAlgorithm::HS256, &Secret::new(secret.to_vec())).unwrap();
        let keys = JwtKeys::new(JwtSettings { keys: vec![key], ..JwtSettings::default() }).unwrap();
        let subject = ClientName::parse(subject).unwrap();
        let token = keys.mint(&Mint { subject: &subject, scope: None, lifetime, random: [7; 16] }, now()).unwrap();
        String::from_utf8(token.expose().to_vec()).unwrap()
    }

    async fn tls(&self) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.folder.path().join("certs/ca.pem")).unwrap()).unwrap();
        let settings = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(settings)).connect(name, tcp).await.unwrap()
    }

    async fn socket(&self) -> WebSocketStream<TlsStream<TcpStream>> {
        let request = "wss://localhost/kraken/v2".into_client_request().unwrap();
        tokio_tungstenite::client_async(request, self.tls().await).await.unwrap().0
    }

    /// Says all of this on a new socket, and gives back everything that was told, close reason included: until the
    /// end, or until an answer has this in it.
    async fn talk(&self, said: &[String], until: &str) -> Vec<u8> {
        let mut told = Vec::new();
        let talking = tokio::time::timeout(PATIENCE, self.talk_into(&mut told, said, until)).await;
        assert!(talking.is_ok(), "{said:?} was answered by {}", String::from_utf8_lossy(&told));
        told
    }

    async fn talk_into(&self, told: &mut Vec<u8>, said: &[String], until: &str) {
        let mut socket = self.socket().await;
        for text in said {
            socket.send(Message::text(text.clone())).await.unwrap();
        }
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Text(text) => {
                    told.extend_from_slice(text.as_bytes());
                    told.push(b'\n');
                    if text.contains(until) {
                        // Whoever has been told more than it waited for still closes in good order.
                        let _ = socket.close(None).await;
                        return;
                    }
                }
                Message::Close(frame) => told.extend_from_slice(format!("{frame:?}").as_bytes()),
                other => told.extend_from_slice(&other.into_data()),
            }
        }
    }

    /// Sends a raw request, and gives back the whole answer.
    async fn request(&self, request: &str) -> Vec<u8> {
        let mut stream = self.tls().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the proxy hangs");
        answer
    }

    async fn admin(&self, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the proxy hangs");
        answer
    }

    fn command_line(&self) -> Vec<u8> {
        std::fs::read(format!("/proc/{}/cmdline", self.child.id())).unwrap()
    }

    /// Ends it with SIGTERM, and gives back what it printed.
    fn stop(mut self) -> (Vec<(&'static str, Vec<u8>)>, Folder) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        (self.printed.map(Printed::into_all).into(), self.folder)
    }
}

/// Waits for the line that says where it listens: `address` and `admin`, in whichever format.
async fn listening(stderr: &Mutex<Vec<u8>>, child: &mut Child) -> (SocketAddr, SocketAddr) {
    let started = Instant::now();
    loop {
        let text = String::from_utf8_lossy(&stderr.lock().unwrap()).into_owned();
        let mut whole_lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        if let Some(line) = whole_lines.find(|line| line.contains("listening")) {
            let is_of_address = |letter: char| letter.is_ascii_digit() || ".:".contains(letter);
            let mut addresses = line.match_indices("127.0.0.1:").filter_map(|(at, _)| {
                let text = &line[at..];
                text[..text.find(|letter| !is_of_address(letter)).unwrap_or(text.len())].parse().ok()
            });
            if let (Some(address), Some(admin)) = (addresses.next(), addresses.next()) {
                return (address, admin);
            }
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended: {text}");
        assert!(started.elapsed() < PATIENCE, "it does not listen: {text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A Kraken beside it, whose key is the canary.
struct Exchange {
    running: Running<Kraken>,
    folder: Folder,
}

impl Exchange {
    async fn open() -> Self {
        countersign::tls::install_crypto();
        jwt::install_crypto();
        let folder = Folder::new();
        let names = ["api.kraken.com", "ws.kraken.com", "ws-auth.kraken.com"].map(str::to_owned).to_vec();
        let directory = folder.path().to_owned();
        certs::ensure(&Wanted { directory: directory.clone(), names, clients: Vec::new(), is_forced: false }, now())
            .unwrap();
        let certificates = Certificates::Directory(directory);
        let settings = ServerSettings { certificates, client_authority: None, client_revocations: None };
        let keys = vec![SimKey::new(API_KEY, API_SECRET)];
        let running = kraken::start(Options::kraken(settings.load(now()).unwrap(), keys)).await.unwrap();
        Self { running, folder }
    }

    fn config(&self, folder: &Path) -> String {
        write_secret(&folder.join("api.key"), API_KEY);
        write_secret(&folder.join("api.secret"), API_SECRET);
        format!(
            r#"
[listen]
address = "127.0.0.1:0"
[clients.jwt]
secret = {{ file = "certs/client-jwt.key" }}
[accounts.kraken_main]
venue = "kraken"
key = {{ file = "api.key" }}
secret = {{ file = "api.secret" }}
upstream = {{ roots = "{}", addresses = ["{}"] }}
[[grants]]
client = "jwt:bot-a"
account = "kraken_main"
scope = ["read", "trade"]
max_sessions = 64
[[grants]]
client = "jwt:viewer"
account = "kraken_main"
scope = ["read"]
[admin]
address = "127.0.0.1:0"
"#,
            self.folder.path().join("ca.pem").display(),
            self.running.address()
        )
    }

    /// The tokens that it has sold, as they stand in its answers.
    fn tokens(&self) -> Vec<String> {
        let entries = self.running.record().snapshot();
        let answers = entries.iter().filter(|entry| entry.direction == Direction::Sent);
        let bodies = answers.filter_map(|entry| serde_json::from_slice::<serde_json::Value>(&entry.bytes).ok());
        bodies.filter_map(|body| body["result"]["token"].as_str().map(str::to_owned)).collect()
    }

    /// The signatures that came in.
    fn signatures(&self) -> Vec<String> {
        let entries = self.running.record().snapshot();
        let received = entries.iter().filter(|entry| entry.direction == Direction::Received);
        let heads = received.map(|entry| entry.text().into_owned());
        heads
            .flat_map(|head| {
                head.lines().filter_map(|line| line.strip_prefix("api-sign: ").map(str::to_owned)).collect::<Vec<_>>()
            })
            .collect()
    }
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Every file below, but for the tokens that are kept for the next start.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if path.extension().is_none_or(|extension| extension != "token") {
            found.push(path);
        }
    }
    found
}

fn login(token: &str) -> String {
    format!(r#"{{"type":"auth","token":"{token}"}}"#)
}

fn with_id(id: u32, method: &str, parameters: &str) -> String {
    format!(r#"{{"method":"{method}","params":{{{parameters}}},"req_id":{id}}}"#)
}

const ORDER: &str = r#""order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":1.0,"limit_price":100.1"#;

/// Good sessions and bad ones, and an exchange that does everything wrong. What clients were told comes back.
async fn mistreat(proxy: &Proxy, exchange: &Exchange, secrets: &mut Secrets) -> Vec<Vec<u8>> {
    let quarter = Duration::from_secs(900);
    let good = proxy.token("bot-a", &proxy.jwt_secret(), quarter);
    let viewer = proxy.token("viewer", &proxy.jwt_secret(), quarter);
    let nobody = proxy.token("nobody", &proxy.jwt_secret(), quarter);
    let forged = proxy.token("bot-a", b"a secret of at least thirty-two bytes, not ours", quarter);
    for (name, token) in [("good", &good), ("viewer's", &viewer), ("nobody's", &nobody), ("forged", &forged)] {
        secrets.plant(&format!("{name} client token"), token.as_bytes());
        exchange.running.record().forbid(token);
        let signature = token.rsplit('.').next().unwrap();
        secrets.plant(&format!("{name} client token's signature"), signature.as_bytes());
        exchange.running.record().forbid(signature);
    }
    let faults = exchange.running.faults();
    let mut told = Vec::new();

    faults.set(|switches| switches.mint = MintFault::Error("EAPI:Invalid key".to_owned() + API_KEY));
    told.push(proxy.talk(&[login(&good)], "connected").await);
    faults.clear();
    // The proxy waits a second at most before it asks the exchange again.
    let started = Instant::now();
    loop {
        let session =
            [login(&good), with_id(1, "add_order", ORDER), with_id(2, "subscribe", r#""channel":"executions""#)];
        let answer = proxy.talk(&session, r#""req_id":2"#).await;
        let is_in = String::from_utf8_lossy(&answer).contains("connected");
        told.push(answer);
        if is_in {
            break;
        }
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    told.push(proxy.talk(&[login(&viewer), with_id(3, "add_order", ORDER)], r#""req_id":3"#).await);
    for bad in [&nobody, &forged] {
        told.push(proxy.talk(&[login(bad)], "connected").await);
    }
    for first in [
        format!(r#"{{"type":"login","token":"{good}"}}"#),
        format!(r#"{{"type":"auth","token":"{good}","token":"{good}"}}"#),
        format!(r#"{{"type":"auth","token":["{good}"]}}"#),
        format!(r#"{{"type":"auth","token":"{good}x"}}"#),
        good.clone(),
    ] {
        told.push(proxy.talk(&[first], "connected").await);
    }
    // A client's own token where the exchange's has its place, and where nothing of the kind has one.
    let mine = format!(r#""channel":"executions","token":"{good}""#);
    told.push(proxy.talk(&[login(&good), with_id(4, "subscribe", &mine)], r#""req_id":4"#).await);
    for said in [
        format!(r#"{{"method":"ping","token":"{good}","req_id":5}}"#),
        format!(r#"{{"method":"{good}","req_id":5}}"#),
        format!(r#"{{"method":"ping","req_id":5,"req_id":"{good}"}}"#),
        format!(r#"{{"method":"ping","req_id":5}}{good}"#),
        format!(r#"{{"method":"subscribe","params":{{"channel":"{good}"}},"req_id":5}}"#),
    ] {
        told.push(proxy.talk(&[login(&good), said], "countersign").await);
    }
    exchange.running.exchange().invalidate_tokens();
    let again = [login(&good), with_id(6, "subscribe", r#""channel":"balances""#)];
    told.push(proxy.talk(&again, r#""req_id":6"#).await);
    exchange.running.exchange().invalidate_tokens();
    told.push(proxy.talk(&[login(&good), with_id(7, "add_order", ORDER)], r#""req_id":7"#).await);

    faults.set(|switches| switches.echo = true);
    // The first echo is plain, the second has its slashes escaped.
    let echoed = proxy.talk(&[login(&good), with_id(8, "subscribe", r#""channel":"executions","x":"/""#)], r"\/").await;
    assert_eq!(
        echoed.split(|byte| *byte == b'\n').filter(|line| line.windows(8).any(|it| it == b"********")).count(),
        2
    );
    told.push(echoed);
    faults.clear();
    for action in [SocketAction::InvalidUtf8, SocketAction::Close { code: 4008, reason: API_KEY.to_owned() }] {
        let mut socket = proxy.socket().await;
        socket.send(Message::text(login(&good))).await.unwrap();
        let mut heard = Vec::new();
        while let Some(Ok(message)) = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
            if message.to_text().is_ok_and(|text| text.contains("connected")) {
                faults.act(action.clone());
            }
            heard.extend_from_slice(format!("{message:?}").as_bytes());
        }
        told.push(heard);
    }

    let upgrade = |path: &str, header: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n\r\n"
        )
    };
    for request in [
        upgrade("/kraken/v2", &format!("Authorization: Bearer {forged}")),
        upgrade("/kraken/v2", &format!("Authorization: Bearer {nobody}")),
        upgrade("/kraken/v2", &format!("Authorization: Basic {good}")),
        upgrade(&format!("/kraken/v2?token={good}"), "X-Nothing: 1"),
        upgrade(&format!("/{good}"), "X-Nothing: 1"),
        upgrade("/kraken/v2", &format!("Countersign-Account: {good}\r\nAuthorization: Bearer {good}")),
        upgrade("/kraken/v2", &format!("Origin: https://{good}")),
        format!("GET /kraken/v2 HTTP/1.1\r\nHost: {good}\r\n\r\n"),
        format!("{good} / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /kraken/v2 HTTP/1.1\r\nHost: localhost\r\n{good} bad header\r\n\r\n"),
    ] {
        let answer = proxy.request(&request).await;
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{request}\n{}", String::from_utf8_lossy(&answer));
        told.push(answer);
    }
    for path in ["/readyz", "/healthz", "/metrics", "/status"] {
        told.push(proxy.admin(path).await);
    }
    told
}

async fn nothing_secret_leaves_a_process_that_logs_as(format: &str) {
    let exchange = Exchange::open().await;
    let proxy = Proxy::start(format, &exchange).await;
    let mut secrets = Secrets::default();
    secrets.plant("API key", API_KEY.as_bytes());
    secrets.plant("API secret", API_SECRET.as_bytes());
    secrets.plant("API secret decoded", &STANDARD.decode(API_SECRET).unwrap());
    let jwt_secret = proxy.jwt_secret();
    secrets.plant("secret of client tokens", jwt_secret.trim_ascii());
    let told = mistreat(&proxy, &exchange, &mut secrets).await;

    let (tokens, signatures) = (exchange.tokens(), exchange.signatures());
    assert!(tokens.len() >= 3, "{} tokens were sold", tokens.len());
    assert_eq!(tokens.len() as u64, exchange.running.record().tokens_minted());
    assert!(signatures.len() >= tokens.len());
    for token in &tokens {
        secrets.plant("exchange's token", token.as_bytes());
    }
    for signature in &signatures {
        secrets.plant("signature", signature.as_bytes());
    }
    secrets.assert_not_in("the command line", &proxy.command_line());
    let (printed, folder) = proxy.stop();
    for answer in &told {
        secrets.assert_not_in(&format!("what a client was told: {}", String::from_utf8_lossy(answer)), answer);
    }
    let closed = |text: &[u8]| memchr::memmem::find_iter(text, "session closed").count();
    for (name, text) in &printed {
        secrets.assert_not_in(&format!("{name}\n{}", String::from_utf8_lossy(text)), text);
    }
    assert!(printed.iter().map(|(_, text)| closed(text)).sum::<usize>() >= 20, "the log was not searched");
    let state = files_below(&folder.path().join("state"));
    assert!(!state.is_empty(), "the state folder was not searched");
    for path in state {
        secrets.assert_not_in(&path.display().to_string(), &std::fs::read(&path).unwrap());
    }
    assert_eq!(exchange.running.record().leaks(), 0, "{:?}", exchange.running.record().verdicts());
}

#[tokio::test]
async fn nothing_secret_leaves_a_process_that_logs_json() {
    nothing_secret_leaves_a_process_that_logs_as("json").await;
}

#[tokio::test]
async fn nothing_secret_leaves_a_process_that_logs_text() {
    nothing_secret_leaves_a_process_that_logs_as("text").await;
}

fn check(arguments: &[&str], variables: &[(&str, &str)], toml: &str) -> Output {
    let folder = Folder::new();
    let file = folder.path().join("proxy.toml");
    std::fs::write(&file, toml).unwrap();
    let mut command = program();
    command.args(["check", "--config"]).arg(&file).args(arguments).envs(variables.iter().copied());
    command.output().unwrap()
}

#[test]
fn a_mistake_with_a_secret_in_it_is_told_without_the_secret() {
    let mut secrets = Secrets::default();
    secrets.plant("API secret", API_SECRET.as_bytes());
    secrets.plant("digits", b"12345678901234567890");
    let account = "[accounts.kraken_main]\nvenue = \"kraken\"\n";
    let key = "COUNTERSIGN__ACCOUNTS__KRAKEN_MAIN__SECRET";
    let cases: Vec<Output> = [
        format!("{account}secret = \"{API_SECRET}\"\n"),
        format!("{account}secret = \"{API_SECRET}\n"),
        format!("{account}secret = {API_SECRET}\n"),
        format!("{account}secret = {{ value = \"{API_SECRET}\" }}\n"),
        format!("{account}secret = {{ env = \"{API_SECRET}\" }}\n"),
        format!("{account}secret = {{ file = \"{API_SECRET}\" }}\n"),
        format!("{account}secret = 12345678901234567890\n"),
        format!("{account}token = \"{API_SECRET}\"\n"),
        format!("{account}upstream = \"{API_SECRET}\"\n"),
        format!("{account}upstream = {{ ws = \"wss://user:{API_SECRET}@host/?{API_SECRET}\" }}\n"),
        format!("{account}nonce_unit = \"{API_SECRET}\"\n"),
        format!("{account}\"{API_SECRET}\" = 1\n"),
        format!("[accounts.\"{API_SECRET}\"]\nvenue = \"kraken\"\n"),
        format!("[listen]\naddress = \"{API_SECRET}\"\n"),
        format!("[[grants]]\nclient = \"{API_SECRET}\"\naccount = \"{API_SECRET}\"\nscope = [\"{API_SECRET}\"]\n"),
        format!("[clients.jwt]\nsecret = \"{API_SECRET}\"\nleeway = \"{API_SECRET}\"\n"),
        format!("[limits]\nping_interval = \"{API_SECRET}\"\nhead_bytes_max = 12345678901234567890\n"),
        API_SECRET.to_owned(),
    ]
    .iter()
    .map(|toml| check(&[], &[], toml))
    .chain([
        check(&[], &[(key, API_SECRET)], account),
        check(&[], &[(key, "12345678901234567890")], account),
        check(&["--set", &format!("accounts.kraken_main.secret={API_SECRET}")], &[], account),
        check(&["--set", &format!("listen.address={API_SECRET}")], &[], account),
        check(&["--set", API_SECRET.trim_end_matches('=')], &[], account),
    ])
    .collect();
    for (index, output) in cases.iter().enumerate() {
        assert_eq!(output.status.code(), Some(64), "case {index}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stderr.is_empty(), "case {index} says nothing");
        for printed in [&output.stdout, &output.stderr] {
            secrets.assert_not_in(&format!("case {index}: {}", String::from_utf8_lossy(printed)), printed);
        }
    }
}
