//! The exchange of the benchmark: a WebSocket server over TLS that sends back what it gets, as cheaply as it can.

use super::frames;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Serves until the process ends. Says on standard output where.
#[allow(clippy::print_stdout, reason = "the process that started this one reads it")]
pub(crate) async fn serve(certificates: &Path) {
    let chain = vec![CertificateDer::from_pem_file(certificates.join("server.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(certificates.join("server.key")).expect("a key");
    let mut config = rustls::ServerConfig::builder_with_protocol_versions(super::TLS)
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("certificate and key were made together");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    println!("{}", listener.local_addr().expect("a bound socket has an address"));
    loop {
        let (socket, _) = listener.accept().await.expect("the limit of open files was raised");
        let acceptor = acceptor.clone();
        // A client that leaves ends its own task alone.
        tokio::spawn(async move { drop(converse(acceptor, socket).await) });
    }
}

async fn converse(acceptor: TlsAcceptor, socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut stream = acceptor.accept(socket).await?;
    let mut read = Vec::with_capacity(4096);
    let head_end = loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let accept = derive_accept_key(websocket_key(&read[..head_end]).as_bytes());
    read.drain(..head_end);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;

    let mut written = Vec::new();
    loop {
        let mut done = 0;
        while let Some(frame) = frames::parse(&read[done..]) {
            let payload = &mut read[done..][frame.payload.clone()];
            if let Some(mask) = frame.mask {
                frames::apply(mask, payload);
            }
            if frame.first == frames::CLOSE {
                return stream.shutdown().await;
            }
            let first = if frame.first == frames::PING { frames::PONG } else { frame.first };
            frames::write(&mut written, first, None, payload);
            done += frame.payload.end;
        }
        read.drain(..done);
        if !written.is_empty() {
            stream.write_all(&written).await?;
            stream.flush().await?;
            written.clear();
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}

fn websocket_key(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let key = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    key.map(|(_, key)| key.trim().to_owned()).unwrap_or_default()
}
