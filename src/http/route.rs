//! Which venue and endpoint a client asks for: by the venue's name, by a path of ours, or by the port it came to.
//!
//! Where a client connects picks the endpoint; who it is picks the account, and that is not decided here.

use crate::venue::{Endpoint, EndpointKind, Manner, Route, Venue};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

/// The names under which clients find us, and what each leads to.
pub struct Routes {
    venues: Vec<&'static dyn Venue>,
    /// Names and addresses of ours, under which paths pick the endpoint. Lower case, without port.
    own: HashSet<String>,
}

/// By which of our listeners a connection came in.
#[derive(Clone, Copy)]
pub enum Entrance {
    /// One that leads everywhere: the name that the client asks for picks the venue.
    Names,
    /// A tunnel that was opened for the one name that the client then asks for.
    Tunnel,
    /// One that leads to one venue, whatever the client calls us.
    Port {
        /// The venue.
        venue: &'static dyn Venue,
        /// Narrows it to the doors under this one's host name, as if the client had asked for that name. `None`: all
        /// doors of the venue; where two sockets share a path, the one that the venue lists first, which is the
        /// private one.
        endpoint: Option<&'static Endpoint>,
    },
}

/// Why a request leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// We do not answer to that name.
    Host,
    /// There is no such path under it.
    Path,
    /// There is a socket under that path, and the request is no upgrade.
    NotUpgraded,
}

impl Routes {
    /// Routes to these venues. `own` are further names of this machine, beside `localhost` and loopback addresses.
    pub fn new(venues: Vec<&'static dyn Venue>, own: impl IntoIterator<Item = String>) -> Self {
        let own = own.into_iter().map(|name| name.to_ascii_lowercase());
        Self { venues, own: ["localhost".to_owned()].into_iter().chain(own).collect() }
    }

    /// Every name that the server's certificate has to carry.
    pub fn names(&self) -> Vec<String> {
        let hosts = self.venues.iter().flat_map(|venue| {
            let own = format!("{}.localhost", venue.name());
            venue.endpoints().iter().flat_map(names_of).chain([own])
        });
        let mut names: Vec<String> = hosts.chain(self.own.iter().filter(|name| !is_address(name)).cloned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// True for the exchange's own name of a door that is served here: `api.kraken.com`, and not `kraken.localhost`.
    /// `host` is lower case and without port.
    pub fn is_venue_host(&self, host: &str) -> bool {
        self.venues.iter().flat_map(|venue| venue.endpoints()).any(|door| !host.is_empty() && door.host == host)
    }

    /// Finds the endpoint: for an upgrade the socket with exactly this path, for a request the venue's REST API, whatever
    /// the path below it; where the venue has several, the one of the path. `host` is lower case and without port.
    ///
    /// Under names of ours there are sockets alone: client libraries drop the prefix that would tell one venue's
    /// requests from another's.
    pub fn find(&self, entrance: &Entrance, host: &str, path: &str, is_upgrade: bool) -> Result<Route, NoRoute> {
        match *entrance {
            Entrance::Names | Entrance::Tunnel if self.is_own(host) => self.by_local_path(path, is_upgrade),
            Entrance::Names | Entrance::Tunnel => self.by_name(host, path, is_upgrade),
            Entrance::Port { venue, endpoint } => {
                let is_venue = is_name_of(venue, host);
                if !is_venue && !self.is_own(host) {
                    return Err(NoRoute::Host);
                }
                let narrowed_to = match endpoint {
                    Some(door) => Some(door.host),
                    None => venue.endpoints().iter().find(|door| is_door(door, host)).map(|door| door.host),
                };
                let doors = venue.endpoints().iter().filter(|door| narrowed_to.is_none_or(|host| door.host == host));
                pick(venue, doors, path, is_upgrade)
            }
        }
    }

    /// The paths under our own names, to show to somebody who asked for another.
    pub fn local_paths(&self) -> Vec<&'static str> {
        self.venues.iter().flat_map(|venue| venue.endpoints()).filter_map(|endpoint| endpoint.local_path).collect()
    }

    fn is_own(&self, host: &str) -> bool {
        self.own.contains(host) || is_loopback(host)
    }

    fn by_local_path(&self, path: &str, is_upgrade: bool) -> Result<Route, NoRoute> {
        let all = self.venues.iter().flat_map(|venue| venue.endpoints().iter().map(move |door| (*venue, door)));
        let (venue, endpoint) = all
            .filter(|(_, endpoint)| endpoint.kind == EndpointKind::Socket)
            .find(|(_, endpoint)| endpoint.local_path == Some(path))
            .ok_or(NoRoute::Path)?;
        if is_upgrade { Ok(Route { venue, endpoint, manner: Manner::Path }) } else { Err(NoRoute::NotUpgraded) }
    }

    fn by_name(&self, host: &str, path: &str, is_upgrade: bool) -> Result<Route, NoRoute> {
        let venue = *self.venues.iter().find(|venue| is_name_of(**venue, host)).ok_or(NoRoute::Host)?;
        let is_whole_venue = host.strip_suffix(".localhost") == Some(venue.name());
        let doors = venue.endpoints().iter().filter(|door| is_whole_venue || is_door(door, host));
        pick(venue, doors, path, is_upgrade)
    }
}

/// Picks one of a venue's doors for an unmodified bot.
fn pick(
    venue: &'static dyn Venue,
    doors: impl Iterator<Item = &'static Endpoint> + Clone,
    path: &str,
    is_upgrade: bool,
) -> Result<Route, NoRoute> {
    let socket = doors.clone().find(|door| door.kind == EndpointKind::Socket && is_path_of(door, path));
    let rest = rest_door(doors.filter(|door| door.kind == EndpointKind::Rest), path);
    let endpoint = match (is_upgrade, socket, rest) {
        (true, Some(door), _) | (false, _, Some(door)) => door,
        (false, Some(_), None) => return Err(NoRoute::NotUpgraded),
        (true, None, _) | (false, None, None) => return Err(NoRoute::Path),
    };
    Ok(Route { venue, endpoint, manner: Manner::Native })
}

/// The REST API, whatever the path below it; of several with paths of their own, the one that the path is of.
fn rest_door(mut doors: impl Iterator<Item = &'static Endpoint> + Clone, path: &str) -> Option<&'static Endpoint> {
    let first = doors.clone().next()?;
    if doors.clone().all(|door| door.path == first.path) {
        return Some(first);
    }
    doors.find(|door| is_below(door.path, path))
}

/// True for `/api` and what stands below it, in whatever case: there are exchanges that do not tell them apart, and the
/// venue's own table judges the path again.
fn is_below(base: &str, path: &str) -> bool {
    let begins = path.get(..base.len()).is_some_and(|start| start.eq_ignore_ascii_case(base));
    begins && matches!(path.as_bytes().get(base.len()), None | Some(b'/'))
}

/// A server of one's own has no path of its own: it is found at the root of its port.
fn is_path_of(door: &Endpoint, path: &str) -> bool {
    door.path == path || (door.path.is_empty() && (path == "/" || door.local_path == Some(path)))
}

/// True for the names of a venue: those of its doors, and `kraken.localhost`.
fn is_name_of(venue: &dyn Venue, host: &str) -> bool {
    host.strip_suffix(".localhost") == Some(venue.name()) || venue.endpoints().iter().any(|door| is_door(door, host))
}

fn is_door(door: &Endpoint, host: &str) -> bool {
    names_of(door).iter().any(|name| name == host)
}

/// The endpoint's real name, and the same under `.localhost`: `ws-auth.kraken.com`, `ws-auth.kraken.localhost`.
fn names_of(endpoint: &Endpoint) -> Vec<String> {
    match endpoint.host.rsplit_once('.') {
        Some((stem, _)) => vec![endpoint.host.to_owned(), format!("{stem}.localhost")],
        None => Vec::new(),
    }
}

fn is_address(name: &str) -> bool {
    name.starts_with('[') || name.parse::<IpAddr>().is_ok()
}

fn is_loopback(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        None => host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue;

    fn routes() -> Routes {
        let venues = ["kraken", "bitfinex"].map(|name| venue::by_name(name).expect("in the table"));
        Routes::new(venues.to_vec(), ["bots.internal".to_owned()])
    }

    fn found(host: &str, path: &str) -> Result<(String, Manner), NoRoute> {
        routes().find(&Entrance::Names, host, path, true).map(|route| (format!("{route:?}"), route.manner))
    }

    fn requested(host: &str, path: &str) -> Result<String, NoRoute> {
        routes().find(&Entrance::Names, host, path, false).map(|route| format!("{route:?}"))
    }

    fn at_port(
        venue: &str,
        endpoint: Option<&str>,
        host: &str,
        path: &str,
        is_upgrade: bool,
    ) -> Result<String, NoRoute> {
        let venue = venue::by_name(venue).expect("in the table");
        let door = |name| venue.endpoints().iter().find(|door| door.name == name).expect("in the table");
        let entrance = Entrance::Port { venue, endpoint: endpoint.map(door) };
        let route = routes().find(&entrance, host, path, is_upgrade)?;
        assert_eq!(route.manner, Manner::Native);
        Ok(format!("{route:?}"))
    }

    #[test]
    fn a_venue_s_own_name_leads_to_its_endpoint() {
        assert_eq!(found("ws-auth.kraken.com", "/v2"), Ok(("kraken/private".to_owned(), Manner::Native)));
        assert_eq!(found("ws.kraken.com", "/v2"), Ok(("kraken/public".to_owned(), Manner::Native)));
        assert_eq!(found("ws-auth.kraken.localhost", "/v2"), Ok(("kraken/private".to_owned(), Manner::Native)));
        assert_eq!(found("kraken.localhost", "/v2"), Ok(("kraken/private".to_owned(), Manner::Native)));
        assert_eq!(found("api.bitfinex.com", "/ws/2"), Ok(("bitfinex/private".to_owned(), Manner::Native)));
        assert_eq!(found("api-pub.bitfinex.com", "/ws/2"), Ok(("bitfinex/public".to_owned(), Manner::Native)));
    }

    #[test]
    fn a_name_of_ours_leads_on_by_path() {
        assert_eq!(found("localhost", "/kraken/v2"), Ok(("kraken/private".to_owned(), Manner::Path)));
        assert_eq!(found("bots.internal", "/bitfinex/v2"), Ok(("bitfinex/private".to_owned(), Manner::Path)));
        assert_eq!(found("localhost", "/v2"), Err(NoRoute::Path));
        assert_eq!(found("localhost", "/plain"), Err(NoRoute::Path), "a venue without an account has no route");
    }

    #[test]
    fn a_foreign_name_leads_nowhere() {
        for host in ["evil.example", "kraken.com", "ws-auth.kraken.com.evil.example", "localhost.evil.example", ""] {
            assert_eq!(found(host, "/v2"), Err(NoRoute::Host), "{host}");
        }
        assert_eq!(found("ws-auth.kraken.com", "/v2/"), Err(NoRoute::Path));
    }

    #[test]
    fn a_request_leads_to_the_venue_s_rest_api_whatever_its_path() {
        assert_eq!(requested("api.kraken.com", "/0/private/Balance"), Ok("kraken/rest".to_owned()));
        assert_eq!(requested("kraken.localhost", "/0/public/Time"), Ok("kraken/rest".to_owned()));
        assert_eq!(requested("api.bitfinex.com", "/v2/auth/r/wallets"), Ok("bitfinex/rest".to_owned()));
        assert_eq!(requested("ws-auth.kraken.com", "/v2"), Err(NoRoute::NotUpgraded));
        assert_eq!(requested("ws-auth.kraken.com", "/0/private/Balance"), Err(NoRoute::Path));
        assert_eq!(requested("evil.example", "/0/private/Balance"), Err(NoRoute::Host));
        assert_eq!(found("api.kraken.com", "/0/private/Balance"), Err(NoRoute::Path), "no socket there");
    }

    #[test]
    fn a_request_to_a_name_of_ours_leads_nowhere() {
        assert_eq!(requested("localhost", "/0/private/Balance"), Err(NoRoute::Path));
        assert_eq!(requested("localhost", "/kraken/v2"), Err(NoRoute::NotUpgraded));
    }

    #[test]
    fn a_port_leads_to_its_venue_whatever_we_are_called() {
        for host in ["localhost", "127.0.0.1", "127.0.0.9", "[::1]", "bots.internal", "ws-auth.kraken.com"] {
            assert_eq!(at_port("kraken", None, host, "/v2", true), Ok("kraken/private".to_owned()), "{host}");
        }
        assert_eq!(at_port("kraken", None, "localhost", "/", true), Ok("kraken/private-v1".to_owned()));
        assert_eq!(at_port("kraken", None, "localhost", "/0/private/Balance", false), Ok("kraken/rest".to_owned()));
        assert_eq!(at_port("bitfinex", None, "localhost", "/ws/2", true), Ok("bitfinex/private".to_owned()));
        assert_eq!(at_port("bitfinex", None, "localhost", "/v2/auth/r/wallets", false), Ok("bitfinex/rest".to_owned()));
        assert_eq!(at_port("plain", None, "localhost", "/", true), Ok("plain/ws".to_owned()));
        assert_eq!(at_port("plain", None, "localhost", "/other", true), Err(NoRoute::Path));
    }

    #[test]
    fn a_port_of_one_venue_does_not_answer_for_another() {
        for host in ["api.bitfinex.com", "bitfinex.localhost", "evil.example", "192.0.2.1", "[2001:db8::1]", ""] {
            assert_eq!(at_port("kraken", None, host, "/v2", true), Err(NoRoute::Host), "{host}");
        }
        assert_eq!(at_port("kraken", None, "localhost", "/ws/2", true), Err(NoRoute::Path));
        assert_eq!(at_port("kraken", None, "localhost", "/kraken/v2", true), Err(NoRoute::Path));
    }

    #[test]
    fn a_port_that_names_an_endpoint_leads_to_the_doors_of_that_host_alone() {
        assert_eq!(at_port("kraken", Some("public"), "localhost", "/v2", true), Ok("kraken/public".to_owned()));
        assert_eq!(at_port("kraken", Some("public"), "localhost", "/", true), Ok("kraken/public-v1".to_owned()));
        assert_eq!(at_port("kraken", Some("public"), "localhost", "/v2", false), Err(NoRoute::NotUpgraded));
        assert_eq!(at_port("kraken", Some("rest"), "localhost", "/v2", true), Err(NoRoute::Path));
        assert_eq!(
            at_port("kraken", Some("public"), "ws-auth.kraken.com", "/v2", true),
            Ok("kraken/public".to_owned())
        );
        assert_eq!(
            at_port("kraken", None, "ws.kraken.com", "/v2", true),
            Ok("kraken/public".to_owned()),
            "by its name"
        );
    }

    #[test]
    fn of_several_rest_apis_the_path_picks_one() {
        const fn door(name: &'static str, kind: EndpointKind, path: &'static str) -> Endpoint {
            Endpoint { name, kind, host: "", path, local_path: None }
        }
        static DOORS: [Endpoint; 3] = [
            door("rest", EndpointKind::Rest, "/api"),
            door("user", EndpointKind::Socket, "/hubs/user"),
            door("negotiate", EndpointKind::Rest, "/hubs"),
        ];
        let picked = |path: &str, is_upgrade| {
            let venue = venue::by_name("kraken").expect("in the table");
            pick(venue, DOORS.iter(), path, is_upgrade).map(|route| route.endpoint.name)
        };
        assert_eq!(picked("/api/Order/place", false), Ok("rest"));
        assert_eq!(picked("/API/order/place", false), Ok("rest"));
        assert_eq!(picked("/hubs/user/negotiate", false), Ok("negotiate"));
        assert_eq!(picked("/hubs/user", true), Ok("user"));
        for path in ["/apis/Order/place", "/", "/ap", "/other"] {
            assert_eq!(picked(path, false), Err(NoRoute::Path), "{path}");
        }
        assert_eq!(picked("/hubs/user/negotiate", true), Err(NoRoute::Path));
    }

    #[test]
    fn only_real_names_of_configured_venues_are_hosts_of_venues() {
        assert!(routes().is_venue_host("api.kraken.com"));
        for host in ["kraken.localhost", "localhost", "", "api.kraken.com.evil.example"] {
            assert!(!routes().is_venue_host(host), "{host}");
        }
    }
}
