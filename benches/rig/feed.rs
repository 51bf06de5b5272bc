//! What the exchange of the benchmark does when it is told to: send messages of its own, or say how sessions began.

use super::frames::{self, BINARY};
use rustls::HandshakeKind;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// `feed 10000 128`: so many messages a second of so many bytes. `feed 0 128`: as fast as it can.
pub(super) const FEED: &str = "feed";
/// `handshakes`: how many were full, and how many resumed, as `12 34`.
pub(super) const HANDSHAKES: &str = "handshakes";
/// Between two messages of a slow feed. Long enough to sleep, short enough that they do not go in heaps.
const BREATH: Duration = Duration::from_micros(50);

static FULL: AtomicU32 = AtomicU32::new(0);
static RESUMED: AtomicU32 = AtomicU32::new(0);

pub(super) fn count_handshake(stream: &TlsStream<TcpStream>) {
    let counter = match stream.get_ref().1.handshake_kind() {
        Some(HandshakeKind::Resumed) => &RESUMED,
        _ => &FULL,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Does what it is told, until the client leaves.
pub(super) async fn obey(stream: TlsStream<TcpStream>, order: &str) -> io::Result<()> {
    match order.split(' ').collect::<Vec<_>>()[..] {
        [FEED, rate, length] => {
            let number = |text: &str| text.parse::<u32>().map_err(io::Error::other);
            feed(stream, number(rate)?, &vec![b'x'; length.parse().map_err(io::Error::other)?]).await
        }
        [HANDSHAKES] => count(stream).await,
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

// Each message goes by itself, as an exchange sends what has happened: a record and a system call.
async fn feed(mut stream: TlsStream<TcpStream>, rate: u32, payload: &[u8]) -> io::Result<()> {
    let mut frame = Vec::new();
    frames::write(&mut frame, BINARY, None, payload);
    let began = Instant::now();
    for number in 0.. {
        if rate > 0 {
            // Tokio's timers count milliseconds. This thread has nothing else to do meanwhile.
            while began.elapsed() < Duration::from_secs(1) * number / rate {
                std::thread::sleep(BREATH);
                tokio::task::yield_now().await;
            }
        }
        stream.write_all(&frame).await?;
        stream.flush().await?;
    }
    Ok(())
}

async fn count(mut stream: TlsStream<TcpStream>) -> io::Result<()> {
    loop {
        let text = format!("{} {}", FULL.load(Ordering::Relaxed), RESUMED.load(Ordering::Relaxed));
        let mut frame = Vec::new();
        frames::write(&mut frame, BINARY, None, text.as_bytes());
        stream.write_all(&frame).await?;
        stream.flush().await?;
        // Whatever comes next asks again.
        if stream.read_buf(&mut Vec::with_capacity(1024)).await? == 0 {
            return Ok(());
        }
    }
}
