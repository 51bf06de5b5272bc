//! The connections of one lane: those that are ready, and those that are about to be.

use super::{BoxFuture, maybe};
use crate::upstream::{Approach, HttpConnection, NotOpened};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::time::{Duration, Instant};

/// How long nothing is dialled after a dial that failed. Whoever waits meanwhile has been told.
const DIAL_PAUSE: Duration = Duration::from_millis(250);

/// A new connection is young for this long, whatever the limit: those who wait would dial without end otherwise.
const YOUNG: Duration = Duration::from_secs(1);

/// What one that waits needs of a connection.
pub(super) struct Need<'a> {
    pub(super) endpoint: &'static str,
    pub(super) approach: &'a Approach,
    /// How long it may have been idle.
    pub(super) idle_max: Duration,
    /// It must not have carried a request before.
    pub(super) is_new: bool,
}

/// A connection that was awaited.
pub(super) struct Arrival {
    pub(super) endpoint: &'static str,
    is_dialled: bool,
    /// None: an idle one that turned out to be closed.
    outcome: Result<Option<HttpConnection>, NotOpened>,
}

#[derive(Default)]
pub(super) struct Connections {
    ready: Vec<(&'static str, HttpConnection)>,
    coming: FuturesUnordered<BoxFuture<Arrival>>,
    /// How many of those were idle, and are asked whether they still live.
    waking: usize,
    /// Resolves when somebody has read an answer to its end.
    returned: Option<BoxFuture<()>>,
    dial_not_before: Option<Instant>,
}

impl Connections {
    /// A ready connection that fits.
    pub(super) fn take(&mut self, need: &Need<'_>) -> Option<HttpConnection> {
        let is_lost = |(_, connection): &(&str, HttpConnection)| !connection.is_open() && !connection.has_served();
        if self.ready.iter().any(is_lost) {
            // An exchange that accepts connections and closes them is not to be dialled as fast as it does so.
            self.dial_not_before = Some(Instant::now() + DIAL_PAUSE);
        }
        self.ready.retain(|(_, connection)| connection.is_ready());
        let at = self.ready.iter().rposition(|ready| need.fits(ready))?;
        Some(self.ready.swap_remove(at).1)
    }

    /// Sees to it that those who wait get connections: idle ones first, else new ones.
    pub(super) fn provide<'a>(&mut self, needs: impl Iterator<Item = Need<'a>>) {
        let mut is_free = vec![true; self.ready.len()];
        let mut lacking = Vec::new();
        for need in needs {
            let fitting = self.ready.iter().zip(&is_free).position(|(ready, is_free)| *is_free && need.fits(ready));
            match fitting {
                Some(at) => is_free[at] = false,
                None => lacking.push(need),
            }
        }
        self.returned = lacking.last().map(|need| Box::pin(need.approach.clone().returned()) as BoxFuture<()>);
        for need in lacking.iter().skip(self.waking) {
            if !need.is_new
                && let Some(idle) = need.approach.idle(need.idle_max)
            {
                self.wake(need.endpoint, idle);
            }
        }
        let wanted = lacking.len().saturating_sub(self.coming.len());
        if self.dials_again_at().is_none() {
            for need in lacking.iter().rev().take(wanted) {
                self.dial(need.endpoint, need.approach.clone());
            }
        }
    }

    /// Nobody waits: what is ready may serve others.
    pub(super) fn release(&mut self) {
        self.returned = None;
        self.ready.drain(..).for_each(|(_, connection)| connection.keep());
    }

    /// Takes in what was awaited. Fails if no connection can be had at its endpoint, and none is on its way.
    pub(super) fn arrived(&mut self, arrival: Arrival) -> Result<(), (&'static str, NotOpened)> {
        let Arrival { endpoint, is_dialled, outcome } = arrival;
        if !is_dialled {
            self.waking -= 1;
        }
        match outcome {
            Ok(connection) => self.ready.extend(connection.map(|connection| (endpoint, connection))),
            Err(error) => {
                self.dial_not_before = Some(Instant::now() + DIAL_PAUSE);
                if self.coming.is_empty() {
                    return Err((endpoint, error));
                }
            }
        }
        Ok(())
    }

    /// When dialling may go on, if it may not now.
    pub(super) fn dials_again_at(&self) -> Option<Instant> {
        self.dial_not_before.filter(|at| *at > Instant::now())
    }

    /// Waits for the next arrival, or, with None, until a connection has come back.
    pub(super) async fn next(&mut self) -> Option<Arrival> {
        let returned = maybe(self.returned.as_mut());
        tokio::select! {
            Some(arrival) = self.coming.next() => Some(arrival),
            () = returned => { self.returned = None; None }
        }
    }

    fn wake(&mut self, endpoint: &'static str, mut connection: HttpConnection) {
        self.waking += 1;
        self.coming.push(Box::pin(async move {
            let is_ready = connection.ready().await.is_ok();
            Arrival { endpoint, is_dialled: false, outcome: Ok(is_ready.then_some(connection)) }
        }));
    }

    fn dial(&mut self, endpoint: &'static str, approach: Approach) {
        self.coming.push(Box::pin(async move {
            let dialled = async {
                let mut connection = approach.dial().await?;
                connection.ready().await.map_err(|_| NotOpened::Closed)?;
                Ok(Some(connection))
            };
            Arrival { endpoint, is_dialled: true, outcome: dialled.await }
        }));
    }
}

impl Need<'_> {
    fn fits(&self, (endpoint, connection): &(&'static str, HttpConnection)) -> bool {
        let is_new = !connection.has_served();
        *endpoint == self.endpoint
            && connection.is_ready()
            && (connection.idle() <= self.idle_max || is_new && connection.idle() <= YOUNG)
            && (is_new || !self.is_new)
    }
}
