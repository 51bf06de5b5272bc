//! The other end of a connection, in an implementation that is not ours.

use super::{Authority, provider};
use crate::tls::{Acceptor, Connector, Stream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, Connection, RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsStream;

pub(super) const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(30);

/// Waits no longer than a test may.
pub(super) async fn within<F: Future>(waiting: F) -> F::Output {
    tokio::time::timeout(LIMIT, waiting).await.expect("what must come did not")
}

/// Which side we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum We {
    Call,
    AreCalled,
}

/// Settings for both sides, with one certificate for `localhost`.
pub(super) struct Settings {
    pub(super) server: ServerConfig,
    pub(super) client: ClientConfig,
}

impl Settings {
    pub(super) fn new(versions: &[&'static SupportedProtocolVersion]) -> Self {
        let authority = Authority::new();
        let leaf = authority.leaf(&["localhost"]);
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(leaf.chain.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { server, client }
    }

    pub(super) fn acceptor(&self) -> Acceptor {
        Acceptor::new(Arc::new(self.server.clone()))
    }

    pub(super) fn connector(&self) -> Connector {
        Connector::new(Arc::new(self.client.clone()))
    }

    /// One connection: our end, and that of tokio-rustls.
    pub(super) async fn meet(&self, we: We) -> (Stream, TlsStream<TcpStream>) {
        let (calling, called) = sockets().await;
        match we {
            We::Call => {
                let theirs = tokio_rustls::TlsAcceptor::from(Arc::new(self.server.clone()));
                let connector = self.connector();
                let (ours, theirs) =
                    within(async { tokio::join!(connector.connect(localhost(), calling), theirs.accept(called)) })
                        .await;
                (ours.unwrap(), TlsStream::Server(theirs.unwrap()))
            }
            We::AreCalled => {
                let theirs = tokio_rustls::TlsConnector::from(Arc::new(self.client.clone()));
                let acceptor = self.acceptor();
                let (ours, theirs) =
                    within(async { tokio::join!(acceptor.accept(called), theirs.connect(localhost(), calling)) }).await;
                (ours.unwrap(), TlsStream::Client(theirs.unwrap()))
            }
        }
    }

    /// One connection whose other end is moved by hand.
    pub(super) async fn meet_by_hand(&self, we: We) -> (Stream, ByHand) {
        let (ours, theirs) = self.meet(we).await;
        let (socket, connection) = match theirs {
            TlsStream::Client(stream) => {
                let (socket, connection) = stream.into_inner();
                (socket, Connection::Client(connection))
            }
            TlsStream::Server(stream) => {
                let (socket, connection) = stream.into_inner();
                (socket, Connection::Server(connection))
            }
        };
        (ours, ByHand { socket, connection })
    }
}

/// Both ends of a TCP connection: who called, and who was called.
pub(super) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let calling = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (called, _) = listener.accept().await.unwrap();
    calling.set_nodelay(true).unwrap();
    called.set_nodelay(true).unwrap();
    (calling, called)
}

pub(super) fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// Bytes that differ from their neighbours, so that a mix-up shows.
pub(super) fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect()
}

/// rustls' buffered connection, whose records this test cuts and sends itself.
pub(super) struct ByHand {
    pub(super) socket: TcpStream,
    pub(super) connection: Connection,
}

impl ByHand {
    /// The records of these bytes, and of whatever else waits.
    pub(super) fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.connection.writer().write_all(plaintext).unwrap();
        let mut records = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut records).unwrap();
        }
        records
    }

    pub(super) async fn send(&mut self, records: &[u8]) {
        self.socket.write_all(records).await.unwrap();
    }

    /// The next plaintext, or the error that the other side's bytes were.
    pub(super) async fn read(&mut self) -> Result<Vec<u8>, rustls::Error> {
        loop {
            let mut plaintext = vec![0; 64 * 1024];
            match self.connection.reader().read(&mut plaintext) {
                Ok(count) => {
                    plaintext.truncate(count);
                    return Ok(plaintext);
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            let mut received = vec![0; 64 * 1024];
            let count = within(self.socket.read(&mut received)).await.unwrap();
            assert_ne!(count, 0, "it ended");
            let mut received = &received[..count];
            while !received.is_empty() {
                self.connection.read_tls(&mut received).unwrap();
                self.connection.process_new_packets()?;
            }
        }
    }
}

/// Looks once whether there is plaintext, after the socket has got something.
pub(super) async fn look(ours: &mut Stream, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
    within(ours.tcp().readable()).await.unwrap();
    std::future::poll_fn(|cx| Poll::Ready(ours.poll_records(cx, &mut |plaintext| into.extend_from_slice(plaintext))))
        .await
}

/// The next plaintext.
pub(super) async fn read(ours: &mut Stream) -> io::Result<Vec<u8>> {
    let mut plaintext = Vec::new();
    let take = &mut |bytes: &[u8]| plaintext.extend_from_slice(bytes);
    let count = within(std::future::poll_fn(|cx| ours.poll_records(cx, take))).await?;
    assert_eq!(count, plaintext.len());
    Ok(plaintext)
}

pub(super) async fn send(ours: &mut Stream, plaintext: &[u8]) -> io::Result<()> {
    ours.seal(plaintext)?;
    within(std::future::poll_fn(|cx| ours.poll_send(cx))).await
}
