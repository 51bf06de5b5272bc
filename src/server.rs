//! Accepts connections, hands each to TLS and HTTP, and lets the house empty when it closes.

use crate::http::{self, Door, Entrance};
use crate::tls;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

/// The first wait after an accept that failed; it doubles up to [`ACCEPT_BACKOFF_MAX`]. Without it, a process that
/// is out of file descriptors would spin.
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long a client's TCP may be silent before the kernel asks whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The times and sizes of the listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many connections may be open; one more is closed at accept.
    pub connections_max: usize,
    /// How long a TLS handshake may take.
    pub tls_handshake: Duration,
    /// How long sessions and connections may take to end once the house closes.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 1000, tls_handshake: Duration::from_secs(10), drain_timeout: Duration::from_secs(20) }
    }
}

/// Serves until `draining` becomes true, then until everything has ended or the limit is over. True: all ended.
pub async fn serve(
    listener: TcpListener,
    acceptor: tls::Acceptor,
    door: Arc<Door>,
    mut draining: watch::Receiver<bool>,
    limits: Limits,
) -> bool {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let connections = TaskTracker::new();
    let mut backoff = ACCEPT_BACKOFF_MIN;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = http::drained(&mut draining) => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
                continue;
            }
        };
        backoff = ACCEPT_BACKOFF_MIN;
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            warn!(%peer, reason = "connection_limit", "connection refused");
            continue;
        };
        if let Err(error) = tune(&socket) {
            debug!(%peer, %error, "connection ended at once");
            continue;
        }
        let (acceptor, door, handshake) = (acceptor.clone(), Arc::clone(&door), limits.tls_handshake);
        connections.spawn(async move {
            match tokio::time::timeout(handshake, acceptor.accept(socket)).await {
                Ok(Ok(stream)) => http::serve(door, Entrance::Names, stream, peer, slot).await,
                Ok(Err(error)) => info!(%peer, reason = "tls_failed", %error, "connection refused"),
                Err(_) => info!(%peer, reason = "tls_timeout", "connection refused"),
            }
        });
    }
    drop(listener);
    connections.close();
    door.sessions.close();
    // One after the other: a connection that is being answered may still become a session.
    let emptied = async {
        connections.wait().await;
        door.sessions.wait().await;
    };
    tokio::time::timeout(limits.drain_timeout, emptied).await.is_ok()
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}
