//! The exchange behind the house: sells tokens, asks for one everywhere, and repeats it wherever it can.

use super::PATIENCE;
use countersign::tls::{Acceptor, Stream};
use futures_util::{SinkExt as _, StreamExt as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

pub const USER: &str = "real-user-of-the-exchange";
pub const KEY: &str = "real-key-of-the-exchange";

#[derive(Clone)]
pub struct Exchange {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    sold: Arc<Notify>,
}

#[derive(Default)]
struct State {
    tokens_sold: usize,
    /// What every token begins with, so that no two exchanges have one in common.
    stem: String,
    /// The only token that is taken; none while all are refused.
    good: Option<String>,
    refuses_all: bool,
    refuses: Option<&'static str>,
    requests: Vec<String>,
    hangs_up_on: Option<&'static str>,
}

impl Exchange {
    pub async fn start(acceptor: Acceptor, stem: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { stem: stem.to_owned(), ..State::default() };
        let exchange = Self { address, state: Arc::new(Mutex::new(state)), sold: Arc::new(Notify::new()) };
        let serving = exchange.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, exchange) = (acceptor.clone(), serving.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        exchange.serve(stream).await;
                    }
                });
            }
        });
        exchange
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Takes none of the tokens that it has sold so far.
    pub fn revoke(&self) {
        self.state().good = None;
    }

    /// Takes no token, whatever it sells.
    pub fn refuse_all(&self) {
        self.state().refuses_all = true;
    }

    /// Takes no token for this path, and for others as before.
    pub fn refuse_for(&self, path: &'static str) {
        self.state().refuses = Some(path);
    }

    /// Closes the connection on requests with this path.
    pub fn hang_up_on(&self, path: &'static str) {
        self.state().hangs_up_on = Some(path);
    }

    pub fn tokens_sold(&self) -> usize {
        self.state().tokens_sold
    }

    /// Waits until so many tokens were sold.
    pub async fn has_sold(&self, count: usize) {
        let enough = async {
            while self.tokens_sold() < count {
                self.sold.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("no token was bought");
    }

    /// Whole requests whose first line holds this.
    pub fn requests(&self, of: &str) -> Vec<String> {
        let is_one = |request: &&String| request.lines().next().is_some_and(|line| line.contains(of));
        self.state().requests.iter().filter(is_one).cloned().collect()
    }

    /// All of what it was sent.
    pub fn everything(&self) -> String {
        self.state().requests.concat()
    }

    async fn serve(&self, mut stream: Stream) {
        while let Some(request) = read_request(&mut stream).await {
            let path = request.split(' ').nth(1).unwrap().split('?').next().unwrap().to_owned();
            let is_dropped = {
                let mut state = self.state();
                state.requests.push(request.clone());
                state.hangs_up_on == Some(path.as_str())
            };
            if is_dropped {
                return;
            }
            if path.starts_with("/hubs") {
                return self.socket(stream, &request).await;
            }
            let answer = if path == "/api/login" { self.sell(&request) } else { self.ask_for_token(&request) };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    fn sell(&self, request: &str) -> String {
        if !request.ends_with(&format!(r#"{{"user":"{USER}","key":"{KEY}"}}"#)) {
            return answer(200, r#"{"token":null}"#);
        }
        let mut state = self.state();
        state.tokens_sold += 1;
        // With everything that has to be escaped in a query.
        let token = format!("{}+{}/&=?#", state.stem, state.tokens_sold);
        state.good = (!state.refuses_all).then(|| token.clone());
        self.sold.notify_one();
        answer(200, &format!(r#"{{"token":"{token}"}}"#))
    }

    fn takes(&self, request: &str, token: &str) -> bool {
        let state = self.state();
        let is_refused = state.refuses.is_some_and(|path| request.split(' ').nth(1).unwrap().starts_with(path));
        !is_refused && state.good.as_deref() == Some(token)
    }

    fn ask_for_token(&self, request: &str) -> String {
        let shown = request.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap_or_default();
        let is_good = self.takes(request, shown);
        let (status, said) = if is_good { (200, "ok") } else { (401, "no") };
        answer(status, &format!(r#"{{"said":"{said}","you":"{shown}","with":"{KEY}"}}"#))
    }

    async fn socket(&self, mut stream: Stream, request: &str) {
        let line = request.lines().next().unwrap();
        let query = line.split(' ').nth(1).unwrap().split_once('?').map_or("", |(_, query)| query);
        let shown = query.strip_prefix("access_token=").map(unescaped).unwrap_or_default();
        if !self.takes(request, &shown) {
            let _ = stream.write_all(answer(401, "").as_bytes()).await;
            return;
        }
        let key = request.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n";
        stream.write_all(format!("{head}sec-websocket-accept: {accept}\r\n\r\n").as_bytes()).await.unwrap();
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            let said = match text.as_str() {
                "repeat my token" => format!("{shown} {query}"),
                "log me out" => "logged out".to_owned(),
                text => format!("heard {text}"),
            };
            if socket.send(Message::text(said)).await.is_err() {
                return;
            }
        }
    }
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let pair = [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn answer(status: u16, body: &str) -> String {
    let kind = "content-type: application/json";
    format!("HTTP/1.1 {status} Said\r\n{kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// One whole request; none at the end of the connection.
async fn read_request(stream: &mut Stream) -> Option<String> {
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
