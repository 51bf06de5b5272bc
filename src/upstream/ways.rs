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

    /// What a client's public requests need to get their connections one by one.
    ///
    /// These are of no use to an account, and an exchange that limits public requests limits no account's.
    pub fn public_approach_for(&self, permit: &Permit, door: Door) -> Result<Approach, NotOpened> {
        self.approach_to(self.find(permit.account(), door), |place| &place.public_home)
    }

    /// What a client needs to open a socket, or to get connections for its requests one by one.
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

/// What the upgrade request shows the exchange beside what every WebSocket has. Holds secrets, so it does not print.
#[derive(Clone, Default)]
pub struct Shown {
    /// Headers: name and value.
    pub headers: Vec<(&'static str, Secret)>,
    /// A parameter of the query, name and value, for venues that take their token there.
    pub parameter: Option<(&'static str, Secret)>,
}

/// The way to one door, opened by evidence.
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

    /// Opens a socket to the exchange.
    pub async fn open(&self, shown: Shown) -> Result<Opened, NotOpened> {
        let path = match &shown.parameter {
            Some((name, value)) => with_parameter(&self.place.path, name, value)?,
            None => self.place.path.clone(),
        };
        let mut dial = Dial { path, headers: Vec::with_capacity(shown.headers.len()) };
        for (name, value) in shown.headers {
            let mut value = HeaderValue::from_bytes(value.expose()).map_err(|_| NotOpened::BadHeader)?;
            value.set_sensitive(true);
            dial.headers.push((HeaderName::from_static(name), value));
        }
        self.check()?;
        let opened = open_websocket(&self.place.target, &dial, &self.limits, &self.resolver).await;
        opened.inspect_err(|error| self.home.note(error))
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

    /// An idle connection that is ready and was idle for no longer than this, else a new one; `None`: a new one. Even if
    /// the exchange asked us to stay away, as [`Approach::dial`] does.
    pub async fn connect(self, idle_time_max: Option<Duration>) -> Result<HttpConnection, NotOpened> {
        while let Some(idle_time_max) = idle_time_max
            && let Some(mut connection) = self.idle(idle_time_max.min(self.limits.idle))
        {
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        self.dial().await
    }
}

/// The path with one parameter more. The result holds a secret: it may be written to the exchange, and nowhere else.
fn with_parameter(path: &PathAndQuery, name: &str, value: &Secret) -> Result<PathAndQuery, NotOpened> {
    let separator = if path.query().is_some() { '&' } else { '?' };
    let escaped = percent_encoded(value);
    let escaped = std::str::from_utf8(escaped.expose()).expect("an escaped text is ASCII");
    // What is wrong with it must not be told: the text would be in the error.
    PathAndQuery::try_from(format!("{path}{separator}{name}={escaped}")).map_err(|_| NotOpened::BadHeader)
}

/// The text as a value of a query: everything but RFC 3986's unreserved characters is escaped.
pub fn percent_encoded(text: &Secret) -> Secret {
    let mut escaped = Vec::with_capacity(text.len());
    for byte in text.expose() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            escaped.push(*byte);
        } else {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    Secret::new(escaped)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_in_a_query_with_nothing_that_could_end_it() {
        let token = Secret::from("aZ09-._~ &=+/?#%\r\u{e4}".to_owned());
        let path = PathAndQuery::from_static("/hubs/user");
        let with = with_parameter(&path, "access_token", &token).expect("a query");
        let query = "access_token=aZ09-._~%20%26%3D%2B%2F%3F%23%25%0D%C3%A4";
        assert_eq!((with.path(), with.query()), ("/hubs/user", Some(query)));
        let more = with_parameter(&with, "b", &Secret::from("c".to_owned())).expect("a query");
        assert_eq!(more.query(), Some(format!("{query}&b=c").as_str()));
    }
}
