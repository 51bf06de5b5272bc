//! What the simulators' own tests share: a certificate made on the spot, and a client that believes it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use super::{Running, SimClock};
use crate::tls;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long a test waits for what must come.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Both ends of TLS, with a certificate for `localhost`.
pub(super) struct Certified {
    pub(super) acceptor: tls::Acceptor,
    connector: tls::Connector,
}

impl Certified {
    pub(super) fn new() -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { acceptor: tls::Acceptor::new(Arc::new(server)), connector: tls::Connector::new(Arc::new(client)) }
    }

    async fn connect<E>(&self, simulator: &Running<E>) -> tls::Stream {
        let socket = tokio::net::TcpStream::connect(simulator.address()).await.unwrap();
        self.connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap()
    }

    /// Opens a WebSocket at `host` and `path`.
    pub(super) async fn socket<E>(&self, simulator: &Running<E>, host: &str, path: &str) -> Client {
        let stream = self.connect(simulator).await;
        let (socket, _) = tokio_tungstenite::client_async(format!("wss://{host}{path}"), stream).await.unwrap();
        Client(socket)
    }

    /// Asks for a WebSocket that is refused, and returns the status.
    pub(super) async fn refused_socket<E>(&self, simulator: &Running<E>, host: &str, path: &str) -> u16 {
        let stream = self.connect(simulator).await;
        match tokio_tungstenite::client_async(format!("wss://{host}{path}"), stream).await {
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => response.status().as_u16(),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Sends one request, and returns status and body; status 0 where the connection ended without an answer.
    pub(super) async fn post<E>(
        &self,
        simulator: &Running<E>,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, Value) {
        self.request(simulator, "POST", path, headers, body).await
    }

    /// The same with another method.
    pub(super) async fn request<E>(
        &self,
        simulator: &Running<E>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, Value) {
        let mut stream = self.connect(simulator).await;
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        if stream.read_to_end(&mut answer).await.is_err() {
            return (0, Value::Null);
        }
        let answer = String::from_utf8(answer).unwrap();
        let Some((head, body)) = answer.split_once("\r\n\r\n") else { return (0, Value::Null) };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

/// A client's socket.
pub(super) struct Client(WebSocketStream<tls::Stream>);

impl Client {
    pub(super) async fn send(&mut self, value: &Value) {
        self.send_text(&value.to_string()).await;
    }

    pub(super) async fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next text message that fits; everything before it is dropped.
    pub(super) async fn expect(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let message = self.0.next().await.expect("the socket is open").expect("the frame is whole");
                if let Message::Text(text) = message {
                    let value: Value = serde_json::from_str(&text).unwrap();
                    if fits(&value) {
                        return value;
                    }
                }
            }
        };
        tokio::time::timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("{what} did not come"))
    }

    /// The next message of any kind; none at the end; an error where the peer broke the protocol.
    pub(super) async fn next(&mut self) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
        tokio::time::timeout(LIMIT, self.0.next()).await.unwrap()
    }

    pub(super) async fn close(mut self) {
        self.0.close(None).await.unwrap();
        while let Some(Ok(_)) = self.next().await {}
    }
}

/// A nonce that grows, in the unit of the real clock's milliseconds.
pub(super) fn nonce(clock: &SimClock, step: u64) -> u64 {
    clock.now().0 * 1000 + step
}
