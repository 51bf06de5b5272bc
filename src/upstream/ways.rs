//! The ways to the exchanges: which host, address and trust each account's endpoints have.
//!
//! Opening one needs evidence: a [`Permit`] for a client's socket, an [`Upkeep`] for the house's own request.

use super::{
    BadHost, Dial, DialLimits, HttpConnection, NotOpened, Opened, Resolver, Target, connect_http, home::Home,
    open_websocket,
};
use crate::names::AccountName;
use crate::policy::{Permit, Upkeep};
use crate::secret::Secret;
use crate::tls::Connector;
use crate::venue::{Endpoint, EndpointKind, Venue};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
    /// Of what goes there with a credential.
    home: Arc<Home>,
    /// Of public requests. What the exchange limits among those must not keep an account from trading.
    public_home: Arc<Home>,
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
        self.accounts.insert(account.clone(), places(venue, way, &self.limits)?);
        self.add_venue(venue, way)
    }

    /// Adds the way of those who have no account at a venue.
    pub fn add_venue(&mut self, venue: &'static dyn Venue, way: &Way) -> Result<(), BadWay> {
        if !self.venues.contains_key(venue.name()) {
            self.venues.insert(venue.name(), places(venue, way, &self.limits)?);
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
            place.home.check()?;
            open_websocket(&place.target, &dial, &limits, &resolver).await.inspect_err(|error| place.home.note(error))
        }
    }

    /// A connection for a client's public request: one that is idle, unless it has to be new. It is
    /// [ready](HttpConnection::ready).
    ///
    /// It is of no use to an account, and an exchange that limits public requests limits no account's.
    pub fn connect_for(
        &self,
        permit: &Permit,
        door: Door,
        must_be_new: bool,
    ) -> impl Future<Output = Result<HttpConnection, NotOpened>> + Send + use<> {
        let approach = self.approach_to(self.find(permit.account(), door), |place| &place.public_home);
        async move { approach?.connect(must_be_new).await }
    }

    /// What a client's requests need to get their connections one by one.
    pub fn approach_for(&self, permit: &Permit, door: Door) -> Result<Approach, NotOpened> {
        self.approach_to(self.find(permit.account(), door), |place| &place.home)
    }

    /// What the house's own requests need to get their connections one by one.
    pub fn approach(&self, upkeep: &Upkeep, door: Door) -> Result<Approach, NotOpened> {
        self.approach_to(self.find(Some(upkeep.account()), door), |place| &place.home)
    }

    fn approach_to(&self, place: Option<Arc<Place>>, home: fn(&Place) -> &Arc<Home>) -> Result<Approach, NotOpened> {
        let place = place.ok_or(NotOpened::NoWay)?;
        let home = Arc::clone(home(&place));
        Ok(Approach { place, home, limits: self.limits, resolver: Arc::clone(&self.resolver) })
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

/// The way to the requests' side of one door, opened by evidence.
#[derive(Clone)]
pub struct Approach {
    place: Arc<Place>,
    home: Arc<Home>,
    limits: DialLimits,
    resolver: Arc<Resolver>,
}

impl Approach {
    /// Fails while the exchange has asked us to stay away (`Retry-After`).
    pub fn check(&self) -> Result<(), NotOpened> {
        self.home.check()
    }

    /// The connection that came back last, if there is one that was idle for no longer than this. The caller has to
    /// wait until it is [ready](HttpConnection::ready).
    pub fn idle(&self, idle_time_max: Duration) -> Option<HttpConnection> {
        self.home.take(idle_time_max)
    }

    /// Opens a new connection, even if the exchange asked us to stay away: that is the caller's to
    /// [check](Self::check).
    pub async fn dial(self) -> Result<HttpConnection, NotOpened> {
        let connection = connect_http(&self.place.target, &self.limits, &self.resolver).await?;
        Ok(connection.at_home(Arc::downgrade(&self.home)))
    }

    /// Waits until a connection comes back.
    pub async fn returned(self) {
        self.home.returned().await;
    }

    /// An idle connection that is ready, else a new one.
    async fn connect(self, must_be_new: bool) -> Result<HttpConnection, NotOpened> {
        self.check()?;
        while !must_be_new && let Some(mut connection) = self.idle(self.limits.idle) {
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        self.dial().await
    }
}

fn places(venue: &dyn Venue, way: &Way, limits: &DialLimits) -> Result<Places, BadWay> {
    venue.endpoints().iter().map(|endpoint| Ok((endpoint.name, Arc::new(place(endpoint, way, limits)?)))).collect()
}

fn place(endpoint: &Endpoint, way: &Way, limits: &DialLimits) -> Result<Place, BadWay> {
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
    let home = || Home::new(limits.idle_connections_max, limits.idle);
    Ok(Place { target, path, home: home(), public_home: home() })
}
