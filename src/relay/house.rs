//! What the sessions of one house share: who is trusted, who may do what, the accounts, the ways out.

use crate::fresh::{Token, TokenId};
use crate::identity::budget::Source;
use crate::identity::{self, NotAuthenticated, Principal, Proof, TrustedKeys};
use crate::names::AccountName;
use crate::policy::{Permit, Policy};
use crate::secret::Secret;
use crate::session::{End, Rules};
use crate::supply::account::{Account, Unavailable};
use crate::supply::clock::Clock;
use crate::supply::token::{Purpose, RefusedToken};
use crate::upstream::{Approach, Door, NotOpened, Opened, Shown, Upstream, percent_encoded};
use crate::venue::{Bearer, NotMinted, Route};
use http::StatusCode;
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
    ///
    /// Where the venue takes a bearer token with the upgrade, the account's is taken first: one that is valid now. If
    /// the exchange refuses it all the same, another one is bought and the dial repeated, once: an upgrade moves
    /// nothing. An exchange that refuses here whatever it has sold is told of as it is.
    pub fn dial(
        &self,
        permit: &Permit,
        route: &Route,
    ) -> impl Future<Output = Result<Dialled, NotDialled>> + Send + use<> {
        let account = permit.account().and_then(|name| self.accounts.get(name)).cloned();
        let signer = account.as_ref().map(Account::signer);
        let headers = route.venue.dial_headers(signer.as_deref());
        let parameter = route.venue.bearer().map(Bearer::parameter);
        let approach = self.upstream.approach_for(permit, self.door(route));
        let purpose = Purpose::socket(route.endpoint.name);
        let (supply_timeout, healing_timeout) = (self.limits.supply_timeout, self.limits.session.login_timeout);
        async move {
            let dial = Dial { approach: approach?, headers };
            let dialled = match (parameter, &account) {
                (None, _) => dial.open(None).await?,
                (Some(_), None) => return Err(NotDialled::NoAccount),
                (Some(parameter), Some(account)) => {
                    let token = account.token(None, supply_timeout).await?;
                    let refused = RefusedToken { id: token.id, purpose };
                    match dial.open(Some((parameter, token))).await {
                        Err(error @ NotDialled::NotOpened(NotOpened::Status { status, .. }))
                            if status == StatusCode::UNAUTHORIZED =>
                        {
                            warn!(account = %account.name(), "the exchange refused its token at an upgrade");
                            let again = async {
                                match account.token(Some(refused), supply_timeout).await {
                                    Ok(token) => dial.open(Some((parameter, token))).await,
                                    Err(Unavailable::Token(NotMinted::RefusedWhenUsed)) => Err(error),
                                    Err(why) => Err(why.into()),
                                }
                            };
                            // The client waits for its answer all the while.
                            let healed = tokio::time::timeout(healing_timeout, again).await;
                            healed.map_err(|_| NotDialled::NoToken(Unavailable::Busy))??
                        }
                        outcome => outcome?,
                    }
                }
            };
            if let (Some(account), Some(taken)) = (&account, dialled.token) {
                account.note_token_taken(taken);
            }
            if let (Some(account), Some(told)) = (account, dialled.opened.date) {
                account.note_venue_time(told);
            }
            Ok(dialled)
        }
    }
}

/// One way to a socket, as often as it has to be tried.
struct Dial {
    approach: Approach,
    headers: Vec<(&'static str, Secret)>,
}

impl Dial {
    /// Opens the socket, with a token as this parameter of the query.
    async fn open(&self, token: Option<(&'static str, Token)>) -> Result<Dialled, NotDialled> {
        let mut secrets: Vec<Secret> = self.headers.iter().map(|(_, value)| bare(value)).collect();
        let mut shown = Shown { headers: self.headers.clone(), parameter: None };
        let mut token_id = None;
        if let Some((parameter, token)) = token {
            token_id = Some(token.id);
            let escaped = percent_encoded(&token.secret);
            secrets.push(token.secret.clone());
            if escaped != token.secret {
                secrets.push(escaped);
            }
            shown.parameter = Some((parameter, token.secret));
        }
        let opened = self.approach.open(shown).await?;
        Ok(Dialled { opened, secrets, token: token_id })
    }
}

/// An open socket of an exchange, and what its opening told the exchange that nobody else may see.
pub struct Dialled {
    pub(super) opened: Opened,
    pub(super) secrets: Vec<Secret>,
    /// Which of the account's tokens opened it, where it took one.
    pub(super) token: Option<TokenId>,
}

/// Why no socket of the exchange was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDialled {
    /// There is no connection, or the exchange refused the upgrade.
    #[error(transparent)]
    NotOpened(#[from] NotOpened),
    /// The venue's token has to be shown with the upgrade, and there is none.
    #[error("no token for the upgrade: {0}")]
    NoToken(#[from] Unavailable),
    /// The venue's token has to be shown with the upgrade, and the client may use no account that has one.
    #[error("the venue opens its sockets to accounts alone; grant the client one")]
    NoAccount,
}

impl NotDialled {
    /// How a session ends that has no socket for this reason.
    pub fn end(&self) -> End {
        match self {
            Self::NotOpened(error) => end_of(error),
            Self::NoToken(_) => End::TokenUnavailable,
            Self::NoAccount => End::AuthenticationFailed,
        }
    }
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
