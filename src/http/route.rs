//! Which venue and endpoint a client asks for: by the venue's name, or by a path of ours.
//!
//! Where a client connects picks the endpoint; who it is picks the account, and that is not decided here.

use crate::venue::{Endpoint, EndpointKind, Manner, Route, Venue};
use std::collections::HashSet;

/// The names under which clients find us, and what each leads to.
pub struct Routes {
    venues: Vec<&'static dyn Venue>,
    /// Names and addresses of ours, under which paths pick the endpoint. Lower case, without port.
    own: HashSet<String>,
}

/// Why a request leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// We do not answer to that name.
    Host,
    /// There is no such path under it.
    Path,
}

impl Routes {
    /// Routes to these venues. `own` are further names of this machine, beside `localhost` and loopback addresses.
    pub fn new(venues: Vec<&'static dyn Venue>, own: impl IntoIterator<Item = String>) -> Self {
        let own = own.into_iter().map(|name| name.to_ascii_lowercase());
        let known = ["localhost", "127.0.0.1", "[::1]"].into_iter().map(str::to_owned);
        Self { venues, own: known.chain(own).collect() }
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

    /// Finds the endpoint. `host` is lower case and without port.
    pub fn find(&self, host: &str, path: &str) -> Result<Route, NoRoute> {
        if self.own.contains(host) {
            let all = self.venues.iter().flat_map(|venue| venue.endpoints().iter().map(move |door| (*venue, door)));
            return all
                .filter(|(_, endpoint)| endpoint.kind == EndpointKind::Socket)
                .find(|(_, endpoint)| endpoint.local_path == Some(path))
                .map(|(venue, endpoint)| Route { venue, endpoint, manner: Manner::Path })
                .ok_or(NoRoute::Path);
        }
        let mut no_route = NoRoute::Host;
        for venue in &self.venues {
            let is_venue = host.strip_suffix(".localhost") == Some(venue.name());
            for endpoint in venue.endpoints() {
                if !is_venue && !names_of(endpoint).iter().any(|name| name == host) {
                    continue;
                }
                no_route = NoRoute::Path;
                if endpoint.kind == EndpointKind::Socket && endpoint.path == path {
                    return Ok(Route { venue: *venue, endpoint, manner: Manner::Native });
                }
            }
        }
        Err(no_route)
    }

    /// The paths under our own names, to show to somebody who asked for another.
    pub fn local_paths(&self) -> Vec<&'static str> {
        self.venues.iter().flat_map(|venue| venue.endpoints()).filter_map(|endpoint| endpoint.local_path).collect()
    }
}

/// The endpoint's real name, and the same under `.localhost`: `ws-auth.kraken.com`, `ws-auth.kraken.localhost`.
fn names_of(endpoint: &Endpoint) -> Vec<String> {
    match endpoint.host.rsplit_once('.') {
        Some((stem, _)) => vec![endpoint.host.to_owned(), format!("{stem}.localhost")],
        None => Vec::new(),
    }
}

fn is_address(name: &str) -> bool {
    name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok()
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
        routes().find(host, path).map(|route| (format!("{route:?}"), route.manner))
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
}
