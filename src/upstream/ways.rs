//! The ways to the exchanges: which host, address and trust each account's endpoints have.
//!
//! Opening one needs evidence: a [`Permit`] for a client's socket, an [`Upkeep`] for the house's own request.

use super::{
    BadHost, Dial, DialLimits, HttpConnection, NotOpened, Opened, Resolver, Target, connect_http, open_websocket,
};
use crate::names::AccountName;
use crate::policy::{Permit, Upkeep};
use crate::secret::Secret;
use crate::tls::Connector;
use crate::venue::{Endpoint, EndpointKind, Venue};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// One door of a venue.
#[derive(Clone, Copy)]
pub struct Door {
    /// The venue.
    pub venue: &'static dyn Venue,
    /// The name of its endpoint.
    pub endpoint: &'static str,
}

/// How an account's exchange is reached, where that differs from the venue's own hosts.
#[derive(Clone)]
pub struct Way {
    /// Host of the REST endpoints.
    pub rest: Option<Base>,
    /// Host of the sockets, and their path for a venue that has none of its own.
    pub socket: Option<Base>,
    /// Where the hosts are: tried in this order, instead of what DNS says.
    pub addresses: Vec<SocketAddr>,
    /// Whom we trust to vouch for the hosts.
    pub connector: Connector,
    /// Lets DNS lead to this machine or a private network.
    pub is_local_allowed: bool,
}

/// A host, and what stands behind it in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path; empty for the venue's own.
    pub path: String,
}

/// Why a way cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadWay {
    /// The host is none.
    #[error("the host {0}")]
    Host(#[from] BadHost),
    /// The venue has no host of its own, and none is configured.
    #[error("the venue has no host of its own; configure `upstream.ws`")]
    NoHost,
    /// The path is none.
    #[error("the path cannot stand in a URL")]
    Path,
}

struct Place {
    target: Target,
    path: PathAndQuery,
    /// Until when the exchange asked us to stay away (`Retry-After`), and with which status.
    away: Mutex<Option<(Instant, StatusCode)>>,
}

impl Place {
    /// Fails while the exchange has asked us to stay away: dialling on would make it longer, for all accounts.
    fn check(&self) -> Result<(), NotOpened> {
        match *self.away.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((until, status)) if Instant::now() < until => {
                Err(NotOpened::Status { status, retry_after: Some(until - Instant::now()) })
            }
            _ => Ok(()),
        }
    }

    fn note(&self, error: &NotOpened) {
        if let NotOpened::Status { status, retry_after: Some(wait) } = error {
            *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now() + *wait, *status));
        }
    }
}

type Places = BTreeMap<&'static str, Arc<Place>>;

/// All ways, ready to be taken.
pub struct Upstream {
    limits: DialLimits,
    resolver: Arc<Resolver>,
    accounts: BTreeMap<AccountName, Places>,
    venues: BTreeMap<&'static str, Places>,
}

impl Upstream {
    /// No ways yet.
    pub fn new(limits: DialLimits, resolver: Resolver) -> Self {
        Self { limits, resolver: Arc::new(resolver), accounts: BTreeMap::new(), venues: BTreeMap::new() }
    }

    /// Adds the way of an account. Clients of no account reach the venue as its first account does.
    pub fn add_account(&mut self, account: &AccountName, venue: &'static dyn Venue, way: &Way) -> Result<(), BadWay> {
        self.accounts.insert(account.clone(), places(venue, way)?);
        self.add_venue(venue, way)
    }

    /// Adds the way of those who have no account at a venue.
    pub fn add_venue(&mut self, venue: &'static dyn Venue, way: &Way) -> Result<(), BadWay> {
        if !self.venues.contains_key(venue.name()) {
            self.venues.insert(venue.name(), places(venue, way)?);
        }
        Ok(())
    }

    /// Opens a client's socket to the exchange.
    pub fn open(
        &self,
        permit: &Permit,
        door: Door,
        headers: Vec<(&'static str, Secret)>,
    ) -> impl Future<Output = Result<Opened, NotOpened>> + Send + use<> {
        let place = self.find(permit.account(), door);
        let (limits, resolver) = (self.limits, Arc::clone(&self.resolver));
        async move {
            let place = place.ok_or(NotOpened::NoWay)?;
            let mut dial = Dial { path: place.path.clone(), headers: Vec::with_capacity(headers.len()) };
            for (name, value) in headers {
                let mut value = HeaderValue::from_bytes(value.expose()).map_err(|_| NotOpened::BadHeader)?;
                value.set_sensitive(true);
                dial.headers.push((HeaderName::from_static(name), value));
            }
            place.check()?;
            open_websocket(&place.target, &dial, &limits, &resolver).await.inspect_err(|error| place.note(error))
        }
    }

    /// Opens a connection for the house's own requests.
    pub fn connect(
        &self,
        upkeep: &Upkeep,
        door: Door,
    ) -> impl Future<Output = Result<HttpConnection, NotOpened>> + Send + use<> {
        let place = self.find(Some(upkeep.account()), door);
        let (limits, resolver) = (self.limits, Arc::clone(&self.resolver));
        async move {
            let place = place.ok_or(NotOpened::NoWay)?;
            connect_http(&place.target, &limits, &resolver).await
        }
    }

    /// True if the permit's account has this door where clients of no account have it.
    pub fn is_where_nobody_is(&self, permit: &Permit, door: Door) -> bool {
        match (self.find(permit.account(), door), self.find(None, door)) {
            (Some(one), Some(other)) => one.target.is_same_place(&other.target) && one.path == other.path,
            _ => false,
        }
    }

    fn find(&self, account: Option<&AccountName>, door: Door) -> Option<Arc<Place>> {
        let places = match account {
            Some(account) => self.accounts.get(account)?,
            None => self.venues.get(door.venue.name())?,
        };
        places.get(door.endpoint).cloned()
    }
}

fn places(venue: &dyn Venue, way: &Way) -> Result<Places, BadWay> {
    venue.endpoints().iter().map(|endpoint| Ok((endpoint.name, Arc::new(place(endpoint, way)?)))).collect()
}

fn place(endpoint: &Endpoint, way: &Way) -> Result<Place, BadWay> {
    let base = match endpoint.kind {
        EndpointKind::Rest => way.rest.as_ref(),
        EndpointKind::Socket => way.socket.as_ref(),
    };
    let (host, port, own_path) = match base {
        Some(base) => (base.host.as_str(), base.port, base.path.as_str()),
        None if endpoint.host.is_empty() => return Err(BadWay::NoHost),
        None => (endpoint.host, 443, ""),
    };
    let mut target = Target::new(host, port, way.connector.clone())?;
    target.is_local_allowed = way.is_local_allowed;
    // The name stays the exchange's, in TLS and in `Host`: only the place is another.
    target.addresses.clone_from(&way.addresses);
    let path = if endpoint.path.is_empty() { own_path } else { endpoint.path };
    let path = if path.is_empty() { "/" } else { path };
    let path = PathAndQuery::try_from(path).map_err(|_| BadWay::Path)?;
    Ok(Place { target, path, away: Mutex::default() })
}
