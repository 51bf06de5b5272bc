//! Accepts connections, hands each to TLS and HTTP, and lets the house empty when it closes.

mod threads;

pub use threads::Threads;

use crate::connect::{self, Gate, Tunnel};
use crate::http::{self, Door, Entrance};
use crate::tls;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use threads::{Carried, Seat, Seats};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

/// The first wait after an accept that failed; it doubles up to [`ACCEPT_BACKOFF_MAX`]. Without it, a process that
/// is out of file descriptors would spin.
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long a client's TCP may be silent before the kernel asks whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The times and sizes of the listeners.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many connections may be open at all listeners together; one more is closed at accept.
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

/// A socket that takes connections, and what they have to speak first.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// What they speak.
    pub speaks: Speaks,
}

/// What the connections of a listener begin with.
#[derive(Clone)]
pub enum Speaks {
    /// TLS, and HTTP in it.
    Tls(Entrance),
    /// A CONNECT, and TLS behind it.
    Connect(Gate),
}

/// How many clients came as far as HTTP, since the start.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Arc<AtomicU64>);

impl Arrivals {
    /// The count. It only grows.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves on these threads until `draining` becomes true, then until everything has ended or the limit is over. True: all
/// ended.
pub async fn serve(
    listeners: Vec<Listener>,
    acceptor: tls::Acceptor,
    door: Arc<Door>,
    arrivals: Arrivals,
    draining: watch::Receiver<bool>,
    limits: Limits,
    threads: Threads,
) -> bool {
    let drain_timeout = limits.drain_timeout;
    let hall = Arc::new(Hall {
        slots: Arc::new(Semaphore::new(limits.connections_max)),
        connections: TaskTracker::new(),
        acceptor,
        door,
        arrivals,
        draining,
        tls_handshake: limits.tls_handshake,
        seats: threads.seats(),
    });
    let accepting = TaskTracker::new();
    for listener in listeners {
        accepting.spawn(accept(Arc::clone(&hall), listener));
    }
    accepting.close();
    accepting.wait().await;
    hall.connections.close();
    hall.door.sessions.close();
    // One after the other: a connection that is being answered may still become a session. The threads live until then.
    let emptied = async {
        hall.connections.wait().await;
        hall.door.sessions.wait().await;
    };
    let has_emptied = tokio::time::timeout(drain_timeout, emptied).await.is_ok();
    drop(threads);
    has_emptied
}

/// What the listeners share.
struct Hall {
    slots: Arc<Semaphore>,
    connections: TaskTracker,
    acceptor: tls::Acceptor,
    door: Arc<Door>,
    arrivals: Arrivals,
    draining: watch::Receiver<bool>,
    tls_handshake: Duration,
    seats: Arc<Seats>,
}

/// What a connection holds for as long as it, or its session, lives.
struct Slot {
    _of_all: OwnedSemaphorePermit,
    _on_its_thread: Seat,
}

/// Accepts at one listener until the house closes.
async fn accept(hall: Arc<Hall>, listener: Listener) {
    let mut draining = hall.draining.clone();
    let mut backoff = ACCEPT_BACKOFF_MIN;
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
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
        let Ok(of_all) = Arc::clone(&hall.slots).try_acquire_owned() else {
            warn!(%peer, reason = "connection_limit", "connection refused");
            continue;
        };
        let seat = hall.seats.take();
        let runtime = seat.runtime().clone();
        let carried = match tune(&socket).and_then(|()| seat.carry(socket)) {
            Ok(carried) => carried,
            Err(error) => {
                debug!(%peer, %error, "connection ended at once");
                continue;
            }
        };
        let slot = Slot { _of_all: of_all, _on_its_thread: seat };
        let receiving = Arc::clone(&hall).receive(listener.speaks.clone(), carried, peer, slot);
        hall.connections.spawn_on(receiving, &runtime);
    }
}

impl Hall {
    /// Serves one connection to its end.
    async fn receive(self: Arc<Self>, speaks: Speaks, carried: Carried, peer: SocketAddr, slot: Slot) {
        let socket = match carried.arrive() {
            Ok(socket) => socket,
            Err(error) => return warn!(%peer, %error, "connection refused"),
        };
        let (socket, entrance, only_name) = match speaks {
            Speaks::Tls(entrance) => (socket, entrance, None),
            Speaks::Connect(gate) => {
                let mut draining = self.draining.clone();
                let tunnel = tokio::select! {
                    tunnel = connect::receive(&gate, &self.door, socket, peer) => tunnel,
                    () = http::drained(&mut draining) => None,
                };
                let Some(Tunnel { socket, name }) = tunnel else { return };
                (socket, Entrance::Tunnel, Some(name))
            }
        };
        let mut stream = match tokio::time::timeout(self.tls_handshake, self.acceptor.accept(socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                info!(%peer, reason = "tls_failed", %error, "connection refused");
                return;
            }
            Err(_) => {
                info!(%peer, reason = "tls_timeout", "connection refused");
                return;
            }
        };
        // A tunnel leads to the name that it was opened for: the check of that name must not be bypassed in TLS.
        if only_name.is_some_and(|name| !stream.server_name().is_some_and(|sni| sni.eq_ignore_ascii_case(&name))) {
            warn!(%peer, reason = "tunnel_name", "connection refused");
            // To say goodbye is a courtesy: whoever does not take it is dropped all the same.
            let _ = tokio::time::timeout(self.tls_handshake, stream.shutdown()).await;
            return;
        }
        self.arrivals.0.fetch_add(1, Ordering::Relaxed);
        http::serve(Arc::clone(&self.door), entrance, stream, peer, slot).await;
    }
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    tls::tune(socket)?;
    SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}
