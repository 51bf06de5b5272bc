//! Clients that send a message, wait for its echo, and note how long that took.

use super::figures::Run;
use super::frames::{self, BINARY};
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Any mask but zero: the receiver has to take it off.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x96];
/// Handshakes at a time when many sessions are opened.
const OPENED_AT_ONCE: usize = 8;

/// Where clients connect, and how.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    pub(crate) connector: TlsConnector,
    pub(crate) path: &'static str,
    /// The proof of a client of the proxy, which is then told `connected`. None: nobody asks.
    pub(crate) token: Option<String>,
}

/// A WebSocket client.
pub(crate) struct Client {
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

impl Client {
    pub(crate) async fn open(way: &Way) -> io::Result<Self> {
        let socket = TcpStream::connect(way.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = way.connector.connect(name, socket).await?;
        let mut client = Self { stream, read: Vec::new() };
        let proof = way.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: localhost:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{proof}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            way.path,
            way.address.port()
        );
        client.stream.write_all(request.as_bytes()).await?;
        client.stream.flush().await?;
        let head_end = loop {
            client.fill().await?;
            if let Some(at) = client.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        if !client.read.starts_with(b"HTTP/1.1 101 ") {
            return Err(io::Error::other(String::from_utf8_lossy(&client.read).into_owned()));
        }
        client.read.drain(..head_end);
        if way.token.is_some() {
            client.message().await?;
        }
        Ok(client)
    }

    /// Opens many, a few at a time.
    pub(crate) async fn open_many(way: &Way, count: usize) -> Vec<Self> {
        let mut clients = Vec::with_capacity(count);
        let mut opening = tokio::task::JoinSet::new();
        for number in 0..count + OPENED_AT_ONCE {
            if number < count {
                let way = way.clone();
                opening.spawn(async move { Self::open(&way).await });
            }
            if number >= OPENED_AT_ONCE
                && let Some(opened) = opening.join_next().await
            {
                clients.push(opened.expect("no client panics").expect("a session opens"));
            }
        }
        while let Some(opened) = opening.join_next().await {
            clients.push(opened.expect("no client panics").expect("a session opens"));
        }
        clients
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The length of the next data message. Pings are passed over: whoever never answered one is not dropped for it.
    async fn message(&mut self) -> io::Result<usize> {
        loop {
            while let Some(frame) = frames::parse(&self.read) {
                self.read.drain(..frame.payload.end);
                if frame.is_data() {
                    return Ok(frame.payload.len());
                }
            }
            self.fill().await?;
        }
    }

    /// Sends a frame, and waits until its echo is there.
    pub(crate) async fn round_trip(&mut self, frame: &[u8], length: usize) -> io::Result<()> {
        self.stream.write_all(frame).await?;
        self.stream.flush().await?;
        match self.message().await? {
            echoed if echoed == length => Ok(()),
            other => Err(io::Error::other(format!("{other} bytes came back of {length}"))),
        }
    }
}

/// A masked binary message of this many bytes.
pub(crate) fn message(length: usize) -> Vec<u8> {
    let payload: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
    let mut frame = Vec::new();
    frames::write(&mut frame, BINARY, Some(MASK), &payload);
    frame
}

/// Lets every client send one message after another for a while.
pub(crate) async fn run(clients: Vec<Client>, length: usize, lasts: Duration) -> (Vec<Client>, Run) {
    let frame = std::sync::Arc::new(message(length));
    let began = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let frame = std::sync::Arc::clone(&frame);
            tokio::spawn(async move {
                let mut times = Vec::new();
                while began.elapsed() < lasts {
                    let sent = Instant::now();
                    client.round_trip(&frame, length).await.expect("the echo comes back");
                    times.push(sent.elapsed());
                }
                (client, times)
            })
        })
        .collect();
    let (mut clients, mut times) = (Vec::new(), Vec::new());
    for task in tasks {
        let (client, own) = task.await.expect("no client panics");
        clients.push(client);
        times.extend(own);
    }
    (clients, Run::of(times, began.elapsed()))
}

/// Lets every client make one round trip, one after another.
pub(crate) async fn once_each(clients: &mut [Client], length: usize) {
    let frame = message(length);
    for client in clients {
        client.round_trip(&frame, length).await.expect("the echo comes back");
    }
}
