//! The exchange of the benchmark of calls: gives every request over TLS the same answer, and looks at none.

use super::http;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// As Kraken answers an order, with the headers that are read on the way.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Date: Sun, 27 Jul 2025 12:00:00 GMT\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 108\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: no-store\r\n\
    Strict-Transport-Security: max-age=15552000\r\n\
    X-Content-Type-Options: nosniff\r\n\
    \r\n\
    {\"error\":[],\"result\":{\"descr\":{\"order\":\"buy 0.0125 XBTUSD @ limit 26500.4\"},\"txid\":[\"OUF4EM-FRGI2-MQMWZD\"]}}";

pub(super) async fn converse(mut stream: TlsStream<TcpStream>) -> io::Result<()> {
    let mut read = Vec::with_capacity(4096);
    loop {
        while let Some(length) = http::message_length(&read) {
            read.drain(..length);
            stream.write_all(ANSWER).await?;
            stream.flush().await?;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}
