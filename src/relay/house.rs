//! What the sessions of one house share: who is trusted, who may do what, the accounts, the ways out.

use crate::identity::budget::Source;
use crate::identity::{self, NotAuthenticated, Principal, Proof, TrustedKeys};
use crate::names::AccountName;
use crate::policy::{Permit, Policy};
use crate::secret::Secret;
use crate::session::{End, Rules};
use crate::supply::account::Account;
use crate::supply::clock::Clock;
use crate::upstream::{Door, NotOpened, Opened, Upstream};
use crate::venue::Route;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

/// The times and sizes of the relay.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest message of a client, in bytes.
    pub client_message_bytes_max: usize,
    /// The longest message of an exchange, in bytes.
    pub upstream_message_bytes_max: usize,
    /// Bytes that may wait to be written to one peer.
    pub outbox_bytes_max: usize,
    /// How long an outbox may stay full.
    pub outbox_stall: Duration,
    /// How often each peer is pinged.
    pub ping_interval: Duration,
    /// How long a peer may take to answer a ping.
    pub pong_timeout: Duration,
    /// How long a client may send bytes that make no message.
    pub message_idle: Duration,
    /// How many pings a second a client may send, sustained.
    pub pings_per_second_max: u32,
    /// How long the two farewells may take.
    pub close_timeout: Duration,
    /// What a session waits for its supplies.
    pub supply_timeout: Duration,
    /// What the session itself keeps.
    pub session: crate::session::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            client_message_bytes_max: 256 * 1024,
            upstream_message_bytes_max: 4 * 1024 * 1024,
            outbox_bytes_max: 256 * 1024,
            outbox_stall: Duration::from_secs(5),
            ping_interval: Duration::from_secs(10),
            pong_timeout: Duration::from_secs(20),
            message_idle: Duration::from_secs(60),
            pings_per_second_max: 20,
            close_timeout: Duration::from_secs(2),
            supply_timeout: Duration::from_secs(8),
            session: crate::session::Limits::default(),
        }
    }
}

/// What the sessions of a house share.
pub struct House {
    /// Who signs the proofs of clients.
    pub trusted: Arc<TrustedKeys>,
    /// Who may do what; replaced as a whole.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// True once the house is closing.
    pub draining: watch::Receiver<bool>,
    /// Failures to log in, by source.
    pub budget: Mutex<identity::budget::FailureBudget>,
    /// The accounts, by name.
    pub accounts: BTreeMap<AccountName, Account>,
    /// The ways to the exchanges.
    pub upstream: Arc<Upstream>,
    /// The time.
    pub clock: Clock,
    /// The times and sizes.
    pub limits: Limits,
}

impl House {
    /// What a session that begins now judges by.
    pub fn rules(&self) -> Rules {
        let (policy, trusted) = (Arc::clone(&self.policy.borrow()), Arc::clone(&self.trusted));
        Rules { policy, trusted, limits: self.limits.session.clone() }
    }

    /// Finds out who a client is. A source that failed too often waits for its refusal; a good proof never waits.
    pub async fn authenticate(
        &self,
        proof: &Proof,
        source: Source,
        peer: SocketAddr,
    ) -> Result<Principal, NotAuthenticated> {
        let now = self.clock.now();
        let outcome = identity::authenticate(proof, now, &self.trusted);
        if let Err(why) = &outcome {
            let delay = self.budget.lock().unwrap_or_else(PoisonError::into_inner).failed(source, now);
            warn!(%peer, reason = why.reason(), %why, "login refused");
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
        }
        outcome
    }

    /// The door of the exchange that a route leads to.
    pub fn door(&self, route: &Route) -> Door {
        Door { venue: route.venue, endpoint: route.endpoint.name }
    }

    /// Opens the exchange's socket that a permit and a route lead to.
    pub fn dial(
        &self,
        permit: &Permit,
        route: &Route,
    ) -> impl Future<Output = Result<Dialled, NotOpened>> + Send + use<> {
        let account = permit.account().and_then(|name| self.accounts.get(name)).cloned();
        let signer = account.as_ref().map(Account::signer);
        let headers = route.venue.dial_headers(signer.as_deref());
        let door = self.door(route);
        let secrets = headers.iter().map(|(_, value)| bare(value)).collect();
        let opening = self.upstream.open(permit, door, headers);
        async move {
            let opened = opening.await?;
            if let (Some(account), Some(told)) = (account, opened.date) {
                account.note_venue_time(told);
            }
            Ok(Dialled { opened, secrets })
        }
    }
}

/// An open socket of an exchange, and what its opening told the exchange that nobody else may see.
pub struct Dialled {
    pub(super) opened: Opened,
    pub(super) secrets: Vec<Secret>,
}

/// The credential of a header without its scheme: `Bearer abc` is `abc`.
fn bare(value: &Secret) -> Secret {
    let start = value.expose().iter().rposition(|byte| *byte == b' ').map_or(0, |space| space + 1);
    Secret::new(value.expose()[start..].to_vec())
}

/// How a socket that could not be opened ends a session.
pub fn end_of(error: &NotOpened) -> End {
    match error {
        NotOpened::Tls(_) => End::UpstreamTls,
        NotOpened::Status { status, .. } if matches!(status.as_u16(), 401 | 403) => End::UpstreamAuthFailed,
        _ => End::UpstreamUnavailable,
    }
}
