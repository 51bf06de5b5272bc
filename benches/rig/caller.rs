//! Clients that make one REST call after another over a connection that stays open, and note how long each took.

use super::figures::Run;
use super::http;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use countersign::credential::{Signer, sha256};
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const ORDER: &str =
    "&ordertype=limit&type=buy&pair=XBTUSD&volume=0.01250000&price=26500.4&oflags=post&cl_ord_id=6d1b345e";
const TICKER: &str = "GET /0/public/Ticker?pair=XBTUSD";

/// Where clients connect.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    pub(crate) connector: TlsConnector,
    /// Its name in TLS and in `Host`.
    pub(crate) host: &'static str,
}

/// What clients ask for.
#[derive(Clone)]
pub(crate) enum Ask {
    /// Market data, which is everybody's.
    Ticker,
    /// What an account holds, signed with these keys as an unmodified bot signs it.
    Balance(Arc<Signer>),
    /// An order, signed in the same way.
    Order(Arc<Signer>),
}

impl Ask {
    /// The bytes of the next request.
    fn request(&self, host: &str) -> Vec<u8> {
        match self {
            Self::Ticker => format!("{TICKER} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\n\r\n").into_bytes(),
            Self::Balance(signer) => signed(host, "/0/private/Balance", "", signer),
            Self::Order(signer) => signed(host, "/0/private/AddOrder", ORDER, signer),
        }
    }
}

fn signed(host: &str, path: &str, fields: &str, signer: &Signer) -> Vec<u8> {
    let nonce = fresh_nonce();
    let body = format!("nonce={nonce}{fields}");
    let digest = sha256(&[nonce.to_string().as_bytes(), body.as_bytes()]);
    let signature = BASE64.encode(signer.hmac_sha512(&[path.as_bytes(), &digest]));
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAPI-Key: {}\r\nAPI-Sign: {signature}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        signer.expose_api_key(),
        body.len()
    )
    .into_bytes()
}

/// One connection.
pub(crate) struct Caller {
    stream: TlsStream<TcpStream>,
    host: &'static str,
    read: Vec<u8>,
}

impl Caller {
    pub(crate) async fn open(way: &Way) -> io::Result<Self> {
        let socket = TcpStream::connect(way.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(way.host).expect("a name");
        let stream = way.connector.connect(name, socket).await?;
        Ok(Self { stream, host: way.host, read: Vec::with_capacity(4096) })
    }

    /// Makes a call. Only the time between request and whole answer counts, not that of the signature.
    async fn call(&mut self, ask: &Ask) -> io::Result<Duration> {
        let request = ask.request(self.host);
        let began = Instant::now();
        self.stream.write_all(&request).await?;
        self.stream.flush().await?;
        let length = loop {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(length) = http::message_length(&self.read) {
                break length;
            }
        };
        let took = began.elapsed();
        let answer = &self.read[..length];
        // Whoever refuses says that in the body, and could be quicker.
        if !answer.starts_with(b"HTTP/1.1 200 ") || memchr::memmem::find(answer, br#""error":[]"#).is_none() {
            return Err(io::Error::other(String::from_utf8_lossy(answer).into_owned()));
        }
        self.read.drain(..length);
        Ok(took)
    }
}

/// Lets every client make one call after another for a while.
pub(crate) async fn run(callers: Vec<Caller>, ask: &Ask, lasts: Duration) -> (Vec<Caller>, Run) {
    let began = Instant::now();
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|mut caller| {
            let ask = ask.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while began.elapsed() < lasts {
                    times.push(caller.call(&ask).await.expect("the answer comes"));
                }
                (caller, times)
            })
        })
        .collect();
    let (mut callers, mut times) = (Vec::new(), Vec::new());
    for task in tasks {
        let (caller, own) = task.await.expect("no client panics");
        callers.push(caller);
        times.extend(own);
    }
    (callers, Run::of(times, began.elapsed()))
}

/// Microseconds, each greater than the last.
fn fresh_nonce() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let wall = u64::try_from(since.as_micros()).expect("it is before the year 500,000");
    let next = |last: u64| wall.max(last + 1);
    let before = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    before.map_or(wall, next)
}
