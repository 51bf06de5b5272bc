//! Stands between the proxy and a simulated exchange, passes everything on, and repeats in its answers what it heard.

use super::certified;
use crate::house::Folder;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The headers that hold a credential.
const CREDENTIALS: &[&str] = &["api-key: ", "api-sign: ", "bfx-apikey: ", "bfx-signature: "];

/// What becomes of the answers to requests. Those that sell tokens always come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// They are passed on.
    Faithful,
    /// Instead of them comes everything that was heard, over and over, in both spellings.
    Repeats { status: u16, bytes_min: usize, is_chunked: bool },
    /// It is repeated in headers.
    RepeatsInHeaders,
    /// The connection ends in the middle of what is repeated.
    Cuts { bytes_min: usize },
    /// The connection ends instead.
    HangsUp,
    /// Nothing comes any more.
    FallsSilent,
}

/// The bird.
#[derive(Clone)]
pub(crate) struct Parrot {
    pub(crate) address: SocketAddr,
    mind: Arc<Mutex<Mind>>,
}

struct Mind {
    manner: Manner,
    /// The tokens that were sold, and the keys that were shown.
    known: Vec<String>,
    requests: usize,
}

impl Parrot {
    /// In front of the exchange at this address, under these names, with certificates of the exchange's folder.
    pub(crate) async fn before(exchange: SocketAddr, folder: &Folder, names: &[&str]) -> Self {
        let acceptor = certified(folder.path(), names);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.path().join("ca.pem")).unwrap()).unwrap();
        let settings = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(settings));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mind = Mind { manner: Manner::Faithful, known: Vec::new(), requests: 0 };
        let parrot = Self { address, mind: Arc::new(Mutex::new(mind)) };
        let listening = parrot.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, connector, parrot) = (acceptor.clone(), connector.clone(), listening.clone());
                tokio::spawn(async move {
                    let Ok(proxy) = acceptor.accept(socket).await else { return };
                    let name = ServerName::try_from(proxy.server_name().unwrap().to_owned()).unwrap();
                    let tcp = TcpStream::connect(exchange).await.unwrap();
                    let exchange = connector.connect(name, tcp).await.unwrap();
                    // Whoever hangs up first: both have said what they wanted.
                    let _ = parrot.converse(proxy, exchange).await;
                });
            }
        });
        parrot
    }

    pub(crate) fn be(&self, manner: Manner) {
        self.mind.lock().unwrap().manner = manner;
    }

    /// How many requests came in.
    pub(crate) fn requests(&self) -> usize {
        self.mind.lock().unwrap().requests
    }

    async fn converse(
        &self,
        mut proxy: countersign::tls::Stream,
        mut exchange: TlsStream<TcpStream>,
    ) -> std::io::Result<()> {
        while let Some(request) = read_message(&mut proxy).await {
            exchange.write_all(&request).await?;
            let text = String::from_utf8_lossy(&request).into_owned();
            if text.to_ascii_lowercase().contains("upgrade: websocket") {
                tokio::io::copy_bidirectional(&mut proxy, &mut exchange).await?;
                return Ok(());
            }
            let Some(answer) = read_message(&mut exchange).await else { return Ok(()) };
            let manner = if self.notice_token(&text, &answer) { Manner::Faithful } else { self.notice(&text) };
            let repeated = |bytes_min| self.repeated(&text, bytes_min);
            match manner {
                Manner::Faithful => proxy.write_all(&answer).await?,
                Manner::Repeats { status, bytes_min, is_chunked: false } => {
                    let body = repeated(bytes_min);
                    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
                    proxy.write_all(&[head, body].concat().into_bytes()).await?;
                }
                Manner::Repeats { status, bytes_min, is_chunked: true } => {
                    let head = format!("HTTP/1.1 {status} X\r\ntransfer-encoding: chunked\r\n\r\n");
                    proxy.write_all(head.as_bytes()).await?;
                    // Chunks of a size that cuts every secret somewhere.
                    for piece in repeated(bytes_min).as_bytes().chunks(37) {
                        proxy.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                        proxy.write_all(&[piece, b"\r\n"].concat()).await?;
                    }
                    proxy.write_all(b"0\r\n\r\n").await?;
                }
                Manner::RepeatsInHeaders => {
                    let headers: String =
                        ["content-type", "content-disposition", "set-cookie", "location", "etag", "x-echo"]
                            .map(|name| format!("{name}: {}\r\n", repeated(0)))
                            .concat();
                    proxy
                        .write_all(format!("HTTP/1.1 200 X\r\n{headers}content-length: 2\r\n\r\n{{}}").as_bytes())
                        .await?;
                }
                Manner::Cuts { bytes_min } => {
                    let body = repeated(bytes_min);
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len() * 2);
                    proxy.write_all(&[head, body].concat().into_bytes()).await?;
                    return proxy.shutdown().await;
                }
                Manner::HangsUp => return proxy.shutdown().await,
                Manner::FallsSilent => std::future::pending().await,
            }
            proxy.flush().await?;
        }
        Ok(())
    }

    fn notice(&self, request: &str) -> Manner {
        let mut mind = self.mind.lock().unwrap();
        mind.requests += 1;
        let keys = request
            .lines()
            .filter_map(|line| line.strip_prefix("api-key: ").or(line.strip_prefix("bfx-apikey: ")).map(str::to_owned));
        let new: Vec<String> = keys.filter(|key| !mind.known.contains(key)).collect();
        mind.known.extend(new);
        mind.manner
    }

    /// True if this was a sale of a token.
    fn notice_token(&self, request: &str, answer: &[u8]) -> bool {
        if !request.starts_with("POST /0/private/GetWebSocketsToken ") {
            return false;
        }
        let body = &answer[memchr::memmem::find(answer, b"\r\n\r\n").unwrap() + 4..];
        let told: serde_json::Value = serde_json::from_slice(body).unwrap();
        self.mind.lock().unwrap().known.extend(told["result"]["token"].as_str().map(str::to_owned));
        true
    }

    /// What this request showed, and the keys and tokens that are known anyway: plain, and as PHP writes slashes.
    fn repeated(&self, request: &str, bytes_min: usize) -> String {
        let shown = request.lines().filter_map(|line| CREDENTIALS.iter().find_map(|name| line.strip_prefix(name)));
        let shown: Vec<String> = shown.map(str::to_owned).chain(self.mind.lock().unwrap().known.clone()).collect();
        assert!(!shown.is_empty(), "there is nothing to repeat: {request}");
        let mut text = r#"{"error":["EGeneral:Internal error"],"said":["#.to_owned();
        for number in 0.. {
            for secret in &shown {
                text.push_str(&format!(r#""{number} {secret} {}","#, secret.replace('/', "\\/")));
            }
            if text.len() >= bytes_min {
                break;
            }
        }
        text + "0]}"
    }
}

/// One whole request or answer; none at the end of the connection.
async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if bytes.len() >= end + 4 + length.map_or(0, |length| length.parse().unwrap()) {
                return Some(bytes);
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
}
