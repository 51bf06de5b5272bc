//! The exchange of the benchmark: a WebSocket server over TLS that sends back what it gets, as cheaply as it can.
//! What comes as text is an order, and the clients of the benchmark alone give one.

use super::{feed, frames};
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(super) async fn converse(mut stream: TlsStream<TcpStream>) -> io::Result<()> {
    feed::count_handshake(&stream);
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
            if frame.first == frames::TEXT {
                let order = String::from_utf8_lossy(payload).into_owned();
                return feed::obey(stream, &order).await;
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
