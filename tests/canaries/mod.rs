//! The harness of the canary tests: secrets in every spelling, the real program with everything that it prints, and an
//! exchange beside it whose keys are the canaries.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by test programs that use a part each, and say what went wrong by where they panic"
)]

pub(crate) mod market;
pub(crate) mod parrot;

use crate::house::{Folder, PATIENCE, now};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use countersign::certs::{self, Wanted};
use countersign::identity::jwt::{self, JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, Mint};
use countersign::names::ClientName;
use countersign::secret::Secret;
use countersign::simulator::kraken::Kraken;
use countersign::simulator::{Direction, Options, Running, SimKey, kraken};
use countersign::tls::{Acceptor, Certificates, ServerSettings};
use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
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

/// How a spelling begins, by which it is looked for: there are thousands, and megabytes to search.
const START_BYTES: usize = 8;

/// What must not be seen, under the name that a failure may say: every spelling, by its start.
#[derive(Default)]
pub(crate) struct Secrets(HashMap<[u8; START_BYTES], Vec<(String, Vec<u8>)>>);

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
        for (form, bytes) in forms {
            let start = *bytes.first_chunk().expect("shorter ones are found by accident");
            self.0.entry(start).or_default().push((format!("{name}, {form}"), bytes));
        }
    }

    /// The names of those that are in there.
    pub(crate) fn seen_in(&self, haystack: &[u8]) -> Vec<&str> {
        let mut seen = Vec::new();
        for (at, start) in haystack.windows(START_BYTES).enumerate() {
            let Some(spellings) = self.0.get(start) else { continue };
            let there = spellings.iter().filter(|(_, bytes)| haystack[at..].starts_with(bytes));
            seen.extend(there.map(|(name, _)| name.as_str()));
        }
        seen
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

    /// Waits for so many lines that fit, among all that came.
    async fn lines_where(&self, count: usize, fits: impl Fn(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let text = String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned();
            let whole_lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some(line) = whole_lines.filter(|line| fits(line)).nth(count - 1) {
                return line.to_owned();
            }
            assert!(!self.reading.is_finished(), "it ended: {text}");
            assert!(started.elapsed() < PATIENCE, "the line does not come: {text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn into_all(self) -> (&'static str, Vec<u8>) {
        self.reading.join().unwrap();
        let text = std::mem::take(&mut *self.text.lock().unwrap());
        (self.name, text)
    }
}

/// The program, running, with everything that it prints.
pub(crate) struct Proxy {
    process: Process,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    printed: [Printed; 2],
    pub(crate) folder: Folder,
}

/// A process that ends with its test, however that ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Proxy {
    pub(crate) async fn start(format: &str, exchange: &Exchange) -> Self {
        Self::serve(format, |folder| exchange.config(folder)).await
    }

    /// Starts it in a folder of its own, with this configuration.
    pub(crate) async fn serve(format: &str, config: impl FnOnce(&Path) -> String) -> Self {
        let folder = Folder::new();
        let file = folder.path().join("proxy.toml");
        std::fs::write(&file, config(folder.path())).unwrap();
        let arguments = ["serve", "--log-format", format, "--log-level", "trace", "--config"];
        let mut process = Process(program().args(arguments).arg(&file).spawn().unwrap());
        let stdout = Printed::collect("stdout", process.0.stdout.take().unwrap());
        let stderr = Printed::collect("stderr", process.0.stderr.take().unwrap());
        let line = stderr.lines_where(1, |line| line.contains("listening")).await;
        let [address, admin] = addresses(&line).try_into().unwrap();
        let printed = [stdout, stderr];
        Self { process, address, admin, printed, folder }
    }

    /// Waits for a line of the log that fits.
    pub(crate) async fn line_where(&self, fits: impl Fn(&str) -> bool) -> String {
        self.lines_where(1, fits).await
    }

    /// Waits for so many lines of the log that fit, and gives back the last of them.
    pub(crate) async fn lines_where(&self, count: usize, fits: impl Fn(&str) -> bool) -> String {
        self.printed[1].lines_where(count, fits).await
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
        self.tls_over(TcpStream::connect(self.address).await.unwrap(), "localhost").await
    }

    /// TLS to it under a host name, over a connection that is there.
    pub(crate) async fn tls_over(&self, tcp: TcpStream, name: &str) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.folder.path().join("certs/ca.pem")).unwrap()).unwrap();
        let settings = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
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
        whole_answer(self.tls().await, request).await
    }

    /// The same under a host name.
    pub(crate) async fn request_at(&self, host: &str, request: &str) -> Vec<u8> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        whole_answer(self.tls_over(tcp, host).await, request).await
    }

    pub(crate) async fn admin(&self, path: &str) -> Vec<u8> {
        let stream = TcpStream::connect(self.admin).await.unwrap();
        whole_answer(stream, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }

    pub(crate) fn command_line(&self) -> Vec<u8> {
        std::fs::read(format!("/proc/{}/cmdline", self.process.0.id())).unwrap()
    }

    /// Its environment. None: the kernel shows it to nobody but root, since the process is not dumpable.
    pub(crate) fn environment(&self) -> Option<Vec<u8>> {
        match std::fs::read(format!("/proc/{}/environ", self.process.0.id())) {
            Ok(environment) => Some(environment),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.0), signal).unwrap();
    }

    /// Ends it with SIGTERM, and gives back what it printed.
    pub(crate) fn stop(self) -> (Vec<(&'static str, Vec<u8>)>, Folder) {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits for its end, which was asked for, and gives back what it printed.
    pub(crate) fn ended(mut self) -> (Vec<(&'static str, Vec<u8>)>, Folder) {
        assert_eq!(self.process.0.wait().unwrap().code(), Some(0));
        (self.printed.map(Printed::into_all).into(), self.folder)
    }
}

/// The addresses in a line of the log, in whichever format.
pub(crate) fn addresses(line: &str) -> Vec<SocketAddr> {
    let is_of_address = |letter: char| letter.is_ascii_digit() || ".:".contains(letter);
    let found = line.match_indices("127.0.0.1:").filter_map(|(at, _)| {
        let text = &line[at..];
        text[..text.find(|letter| !is_of_address(letter)).unwrap_or(text.len())].parse().ok()
    });
    found.collect()
}

/// Sends a request, and reads to the end of the connection.
pub(crate) async fn whole_answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Vec<u8> {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the proxy hangs");
    answer
}

/// A Kraken beside it, whose key is the canary.
pub(crate) struct Exchange {
    pub(crate) running: Running<Kraken>,
    folder: Folder,
}

impl Exchange {
    pub(crate) async fn open() -> Self {
        let folder = Folder::new();
        let keys = vec![SimKey::new(API_KEY, API_SECRET)];
        let options = Options::kraken(certified(folder.path(), KRAKEN_NAMES), keys);
        let running = kraken::start(options).await.unwrap();
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

/// The hosts of Kraken.
pub(crate) const KRAKEN_NAMES: &[&str] = &["api.kraken.com", "ws.kraken.com", "ws-auth.kraken.com"];

/// TLS under these names, with a certificate and an authority that are made in a folder.
pub(crate) fn certified(folder: &Path, names: &[&str]) -> Acceptor {
    countersign::tls::install_crypto();
    jwt::install_crypto();
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let directory = folder.to_owned();
    certs::ensure(&Wanted { directory: directory.clone(), names, clients: Vec::new(), is_forced: false }, now())
        .unwrap();
    let certificates = Certificates::Directory(directory);
    ServerSettings { certificates, client_authority: None, client_revocations: None }.load(now()).unwrap()
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
