//! Simulated exchanges on loopback: they verify every signature, nonce and token, and keep a record of
//! every byte that came in.
//!
//! Not a client of the proxy's own code: what is checked here is checked a second time, from the venue's
//! documentation. So nothing below `simulator` may import `venue`, `credential`, `supply`, `identity`,
//! `policy` or `session`; an error made twice the same way would otherwise pass. And not an exchange: orders
//! rest until a test fills them, prices never move.

pub mod bitfinex;
pub mod clock;
pub mod faults;
pub mod kraken;
pub mod projectx;
pub mod record;

mod forbidden;
mod frame;
mod json;
mod nonces;
mod server;
mod socket;
mod tls;

#[cfg(test)]
mod testing;

pub use clock::SimClock;
pub use faults::{Faults, Flood, MintFault, SocketAction, Switches};
pub use record::{Direction, Entry, Kind, Record};

use crate::tls::Acceptor;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A running simulator of one exchange. Dropping it ends its listener and all of its connections.
pub struct Running<E> {
    address: SocketAddr,
    exchange: Arc<E>,
    record: Record,
    faults: Faults,
    stop: CancellationToken,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl<E> Running<E> {
    /// Where it listens, with the port that the system chose where none was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What came in and what went out.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The exchange's books, to look into and to move.
    pub fn exchange(&self) -> &E {
        &self.exchange
    }

    /// What it should do wrong from now on.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Ends the listener and all connections, and waits for them.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            // It ends by itself; a panic in it has been printed by the runtime.
            let _ = server.await;
        }
    }
}

impl<E> Drop for Running<E> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl<E> fmt::Debug for Running<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({})", self.address)
    }
}

/// A key that the simulated exchange knows. Each key is an account of its own.
#[derive(Clone)]
pub struct SimKey {
    /// The public half, as it stands in requests; the user's name at ProjectX.
    pub api_key: String,
    /// The secret half in the venue's own format: base64 at Kraken, any text at Bitfinex, the API key at ProjectX.
    pub secret: String,
    /// What the key may do.
    pub permissions: Permissions,
    /// How far below the greatest accepted nonce another may lie (Kraken's "nonce window", in the nonce's own
    /// unit). Zero: strictly increasing. A nonce is never taken twice.
    pub nonce_window: u64,
}

impl SimKey {
    /// A key that may read, trade and open sockets, but not move money, with strict nonces.
    pub fn new(api_key: impl Into<String>, secret: impl Into<String>) -> Self {
        let permissions = Permissions { read: true, trade: true, websocket: true, transfer: false };
        Self { api_key: api_key.into(), secret: secret.into(), permissions, nonce_window: 0 }
    }
}

impl fmt::Debug for SimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimKey({:?})", self.permissions)
    }
}

/// What a key may do at the simulated exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// Look at balances, orders and trades.
    pub read: bool,
    /// Place, change and cancel orders.
    pub trade: bool,
    /// Obtain a token for private sockets (Kraken).
    pub websocket: bool,
    /// Move money out, or manage keys and users.
    pub transfer: bool,
}

/// How a simulator is started.
#[derive(Clone)]
pub struct Options {
    /// Where to listen. Anything but loopback is refused.
    pub address: SocketAddr,
    /// Ends TLS.
    pub tls: Acceptor,
    /// The keys that the exchange knows.
    pub keys: Vec<SimKey>,
    /// The exchange's clock.
    pub clock: SimClock,
    /// How old a WebSocket token may be when it is first used on a connection (Kraken; 900 s at the venue), or how long
    /// a bearer lives (ProjectX; 24 h at the venue, whole seconds).
    pub token_lifetime: Duration,
    /// A socket that sent nothing for this long is closed (Kraken: about a minute; ProjectX: 30 s, subscribed or not).
    pub idle_close: Duration,
    /// How often a subscribed, silent socket gets a heartbeat (Kraken 1 s, Bitfinex 15 s), or a hub a ping
    /// (ProjectX 15 s).
    pub heartbeat: Duration,
    /// Whether the proxy dials, so that what only a client does is wrong: negotiating, cookies, `headers` in a hub's
    /// records (ProjectX).
    pub expects_a_proxy: bool,
    /// What to do wrong from the first connection on. Shared with [`Running::faults`].
    pub faults: Faults,
}

impl Options {
    /// Kraken's published times (docs.kraken.com, "WebSocket introduction" and "Get WebSockets token"), any free port of
    /// 127.0.0.1, the real clock, no faults.
    pub fn kraken(tls: Acceptor, keys: Vec<SimKey>) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls,
            keys,
            clock: SimClock::real(),
            token_lifetime: Duration::from_secs(900),
            idle_close: Duration::from_secs(60),
            heartbeat: Duration::from_secs(1),
            expects_a_proxy: false,
            faults: Faults::none(),
        }
    }

    /// Bitfinex' published times (docs.bitfinex.com, "General"): heartbeats every 15 s, and no idle limit is documented,
    /// so a day stands in for it.
    pub fn bitfinex(tls: Acceptor, keys: Vec<SimKey>) -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self { heartbeat: Duration::from_secs(15), idle_close: day, ..Self::kraken(tls, keys) }
    }

    /// ProjectX's published token lifetime (gateway.docs.projectx.com, "Validate session"), and the times of the framework
    /// that its hubs are made with (learn.microsoft.com, "ASP.NET Core SignalR configuration": KeepAliveInterval,
    /// ClientTimeoutInterval). Each key is a user: its name, and its API key as the secret.
    pub fn projectx(tls: Acceptor, keys: Vec<SimKey>) -> Self {
        Self {
            token_lifetime: Duration::from_secs(24 * 60 * 60),
            heartbeat: Duration::from_secs(15),
            idle_close: Duration::from_secs(30),
            ..Self::kraken(tls, keys)
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({}, {} keys)", self.address, self.keys.len())
    }
}

/// Starts the listener for `exchange`.
async fn run<E: server::Exchange>(options: Options, record: Record, exchange: Arc<E>) -> io::Result<Running<E>> {
    if !options.address.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a simulator listens on loopback alone"));
    }
    let listener = tokio::net::TcpListener::bind(options.address).await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let faults = options.faults.clone();
    let shop = server::Shop { exchange: exchange.clone(), record: record.clone(), options, stop: stop.clone() };
    let server = tokio::spawn(server::serve(listener, Arc::new(shop)));
    Ok(Running { address, exchange, record, faults, stop, server: Some(server) })
}
