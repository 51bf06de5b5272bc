//! Clients that send a message, wait for its echo, and note how long that took.

use super::feed::{FEED, HANDSHAKES};
use super::figures::Run;
use super::frames::{self, BINARY, TEXT};
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

/// Orders to the exchange.
impl Client {
    async fn order(&mut self, order: &str) -> io::Result<()> {
        let mut frame = Vec::new();
        frames::write(&mut frame, TEXT, Some(MASK), order.as_bytes());
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    /// Has the exchange send so many messages a second of this length. 0: as fast as it can.
    pub(crate) async fn ask_for_feed(&mut self, rate: u32, length: usize) -> io::Result<()> {
        self.order(&format!("{FEED} {rate} {length}")).await
    }

    /// Counts the messages that come within a time, all of this length. How many, and how long it took.
    pub(crate) async fn count(&mut self, length: usize, lasts: Duration) -> io::Result<(usize, Duration)> {
        let (began, mut messages) = (Instant::now(), 0);
        while began.elapsed() < lasts {
            self.fill().await?;
            let mut done = 0;
            while let Some(frame) = frames::parse(&self.read[done..]) {
                if frame.is_data() && frame.payload.len() != length {
                    return Err(io::Error::other(format!("{} bytes came instead of {length}", frame.payload.len())));
                }
                messages += usize::from(frame.is_data());
                done += frame.payload.end;
            }
            self.read.drain(..done);
        }
        Ok((messages, began.elapsed()))
    }

    /// How many TLS handshakes the exchange has made in full, and how many it has resumed.
    pub(crate) async fn handshakes(&mut self) -> io::Result<(u32, u32)> {
        self.order(HANDSHAKES).await?;
        let text = loop {
            if let Some(frame) = frames::parse(&self.read) {
                let text = String::from_utf8_lossy(&self.read[frame.payload.clone()]).into_owned();
                self.read.drain(..frame.payload.end);
                break text;
            }
            self.fill().await?;
        };
        let number = |text: &str| text.parse().map_err(io::Error::other);
        let (full, resumed) = text.split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
        Ok((number(full)?, number(resumed)?))
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

/// Opens sessions for a while and leaves each at once, a few at a time. How many, and how long it took.
pub(crate) async fn open_and_leave(way: &Way, lasts: Duration) -> (usize, Duration) {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..OPENED_AT_ONCE {
        let way = way.clone();
        tasks.spawn(async move {
            let mut opened = 0;
            while began.elapsed() < lasts {
                drop(Client::open(&way).await.expect("a session opens"));
                opened += 1;
            }
            opened
        });
    }
    let opened: Vec<usize> = tasks.join_all().await;
    (opened.into_iter().sum(), began.elapsed())
}

/// Lets every client make one round trip, one after another.
pub(crate) async fn once_each(clients: &mut [Client], length: usize) {
    let frame = message(length);
    for client in clients {
        client.round_trip(&frame, length).await.expect("the echo comes back");
    }
}
