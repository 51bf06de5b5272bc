//! What one place at an exchange is remembered by: the connections that are open there and idle, and whether it
//! asked us to stay away.

use super::{NotOpened, rest::HttpConnection};
use http::StatusCode;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The memory of a place.
pub(super) struct Home {
    idle: Mutex<Idle>,
    idle_max: usize,
    idle_time_max: Duration,
    /// Told each time that a connection comes back.
    returned: Notify,
    /// Until when the exchange asked us to stay away (`Retry-After`), and with which status.
    away: Mutex<Option<(Instant, StatusCode)>>,
}

/// In the order in which they came back: the last one is the likeliest to live.
#[derive(Default)]
struct Idle {
    connections: Vec<HttpConnection>,
    /// True while a task waits for the first one to grow too old.
    is_watched: bool,
}

impl Home {
    /// A place that keeps so many idle connections, each for so long.
    pub(super) fn new(idle_max: usize, idle_time_max: Duration) -> Arc<Self> {
        let (idle, returned, away) = (Mutex::default(), Notify::new(), Mutex::default());
        Arc::new(Self { idle, idle_max, idle_time_max, returned, away })
    }

    /// Of the open connections that were not idle for longer, the one that came back last.
    pub(super) fn take(&self, idle_time_max: Duration) -> Option<HttpConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.connections.retain(HttpConnection::is_open);
        // Not always the last one: who took it to see whether it lives may have given it back unused.
        let at = idle.connections.iter().rposition(|connection| connection.idle() <= idle_time_max)?;
        Some(idle.connections.remove(at))
    }

    /// Keeps a connection for the next request. Where there are enough, the one that came back first is closed: by the
    /// others an order may go, by that one soon not even a read.
    pub(super) fn keep(self: &Arc<Self>, connection: HttpConnection) {
        if !connection.is_open() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.connections.push(connection);
        let surplus = idle.connections.len().saturating_sub(self.idle_max);
        idle.connections.drain(..surplus);
        if !idle.is_watched {
            idle.is_watched = true;
            tokio::spawn(close_idle(Arc::downgrade(self), self.idle_time_max));
        }
        drop(idle);
        self.returned.notify_one();
    }

    /// Waits until a connection comes back, or has come back since the last wait.
    pub(super) async fn returned(&self) {
        self.returned.notified().await;
    }

    /// Fails while the exchange has asked us to stay away: going on would make it longer, for all accounts.
    pub(super) fn check(&self) -> Result<(), NotOpened> {
        match *self.away.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((until, status)) if Instant::now() < until => {
                Err(NotOpened::Status { status, retry_after: Some(until - Instant::now()) })
            }
            _ => Ok(()),
        }
    }

    /// Remembers what an upgrade was refused with.
    pub(super) fn note(&self, error: &NotOpened) {
        if let NotOpened::Status { status, retry_after: Some(wait) } = error {
            self.stay_away(*status, *wait);
        }
    }

    /// Remembers how long an answer to a request asks us to wait. Only of statuses that mean everybody: another one
    /// with this header speaks of its own request.
    pub(super) fn note_answer(&self, status: StatusCode, wait: Duration) {
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            self.stay_away(status, wait);
        }
    }

    fn stay_away(&self, status: StatusCode, wait: Duration) {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now() + wait, status));
    }
}

/// Closes connections that nobody has used for too long, until there are none. Weak: it keeps no place alive.
async fn close_idle(home: Weak<Home>, idle_time_max: Duration) {
    let mut wait = idle_time_max;
    loop {
        tokio::time::sleep(wait).await;
        let Some(home) = home.upgrade() else { return };
        let mut idle = home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.connections.retain(|connection| connection.is_open() && connection.idle() < idle_time_max);
        let Some(oldest) = idle.connections.iter().map(HttpConnection::idle).max() else {
            idle.is_watched = false;
            return;
        };
        wait = idle_time_max.saturating_sub(oldest).max(Duration::from_millis(1));
    }
}
