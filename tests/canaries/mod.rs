//! The harness of the canary tests: secrets in every spelling, the real program with everything that it prints, and an
//! exchange beside it whose keys are the canaries.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by test programs that use a part each, and say what went wrong by where they panic"
)]

use crate::house::{Folder, PATIENCE, now};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use countersign::certs::{self, Wanted};
use countersign::identity::jwt::{self, JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, Mint};
use countersign::names::ClientName;
use countersign::secret::Secret;
use countersign::simulator::kraken::Kraken;
use countersign::simulator::{Direction, Options, Running, SimKey, kraken};
use countersign::tls::{Certificates, ServerSettings};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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

pub(crate) const API_KEY: &str = "CANARYuDqV5oF8mCh3TbLzA1eRwXn7Ks2Jg4Pi6Yt9Qv0aMdNcHf";
/// 64 bytes in base64, as Kraken hands it out.
pub(crate) const API_SECRET: &str =
    "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==";

/// What must not be seen, under the name that a failure may say.
#[derive(Default)]
pub(crate) struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    /// A secret in every spelling in which it could come out.
    pub(crate) fn plant(&mut self, name: &str, secret: &[u8]) {
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
    pub(crate) fn seen_in(&self, haystack: &[u8]) -> Vec<&str> {
        let seen = |needle: &[u8]| memchr::memmem::find(haystack, needle).is_some();
        self.0.iter().filter(|(_, needle)| seen(needle)).map(|(name, _)| name.as_str()).collect()
    }

    pub(crate) fn assert_not_in(&self, place: &str, haystack: &[u8]) {
        assert_eq!(self.seen_in(haystack), Vec::<&str>::new(), "{place}");
    }
}

pub(crate) fn url_encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// What came out of a pipe so far, and the thread that reads it to its end.
pub(crate) struct Printed {
    name: &'static str,
    text: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Printed {
    pub(crate) fn collect(name: &'static str, mut pipe: impl std::io::Read + Send + 'static) -> Self {
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

    pub(crate) fn into_all(self) -> (&'static str, Vec<u8>) {
        self.reading.join().unwrap();
        let text = std::mem::take(&mut *self.text.lock().unwrap());
        (self.name, text)
    }
}

/// The program, running, with everything that it prints.
pub(crate) struct Proxy {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    printed: [Printed; 2],
    folder: Folder,
}

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Proxy {
    pub(crate) async fn start(format: &str, exchange: &Exchange) -> Self {
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

    pub(crate) fn jwt_secret(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("certs/client-jwt.key")).unwrap()
    }

    pub(crate) fn token(&self, subject: &str, secret: &[u8], lifetime: Duration) -> String {
        let key = JwtKey::new(None, JwtAlgorithm::HS256, &Secret::new(secret.to_vec())).unwrap();
        let keys = JwtKeys::new(JwtSettings { keys: vec![key], ..JwtSettings::default() }).unwrap();
        let subject = ClientName::parse(subject).unwrap();
        let token = keys.mint(&Mint { subject: &subject, scope: None, lifetime, random: [7; 16] }, now()).unwrap();
        String::from_utf8(token.expose().to_vec()).unwrap()
    }

    pub(crate) async fn tls(&self) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.folder.path().join("certs/ca.pem")).unwrap()).unwrap();
        let settings = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(settings)).connect(name, tcp).await.unwrap()
    }

    pub(crate) async fn socket(&self) -> WebSocketStream<TlsStream<TcpStream>> {
        let request = "wss://localhost/kraken/v2".into_client_request().unwrap();
        tokio_tungstenite::client_async(request, self.tls().await).await.unwrap().0
    }

    /// Says all of this on a new socket, and gives back everything that was told, close reason included: until the
    /// end, or until an answer has this in it.
    pub(crate) async fn talk(&self, said: &[String], until: &str) -> Vec<u8> {
        let mut told = Vec::new();
        let talking = tokio::time::timeout(PATIENCE, self.talk_into(&mut told, said, until)).await;
        assert!(talking.is_ok(), "{said:?} was answered by {}", String::from_utf8_lossy(&told));
        told
    }

    pub(crate) async fn talk_into(&self, told: &mut Vec<u8>, said: &[String], until: &str) {
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
    pub(crate) async fn request(&self, request: &str) -> Vec<u8> {
        let mut stream = self.tls().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the proxy hangs");
        answer
    }

    pub(crate) async fn admin(&self, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the proxy hangs");
        answer
    }

    pub(crate) fn command_line(&self) -> Vec<u8> {
        std::fs::read(format!("/proc/{}/cmdline", self.child.id())).unwrap()
    }

    /// Ends it with SIGTERM, and gives back what it printed.
    pub(crate) fn stop(mut self) -> (Vec<(&'static str, Vec<u8>)>, Folder) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        (self.printed.map(Printed::into_all).into(), self.folder)
    }
}

/// Waits for the line that says where it listens: `address` and `admin`, in whichever format.
pub(crate) async fn listening(stderr: &Mutex<Vec<u8>>, child: &mut Child) -> (SocketAddr, SocketAddr) {
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
pub(crate) struct Exchange {
    pub(crate) running: Running<Kraken>,
    folder: Folder,
}

impl Exchange {
    pub(crate) async fn open() -> Self {
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

    pub(crate) fn config(&self, folder: &Path) -> String {
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
    pub(crate) fn tokens(&self) -> Vec<String> {
        let entries = self.running.record().snapshot();
        let answers = entries.iter().filter(|entry| entry.direction == Direction::Sent);
        let bodies = answers.filter_map(|entry| serde_json::from_slice::<serde_json::Value>(&entry.bytes).ok());
        bodies.filter_map(|body| body["result"]["token"].as_str().map(str::to_owned)).collect()
    }

    /// The signatures that came in.
    pub(crate) fn signatures(&self) -> Vec<String> {
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

pub(crate) fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Every file below, but for the tokens that are kept for the next start.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
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
