//! Asks DNS where an exchange is, and never the system's resolver: the hosts file and Kubernetes'
//! `hostAliases` that point bots at this proxy would point the proxy at itself.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The system's list of DNS servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where systemd-resolved keeps the servers that it asks itself (systemd-resolved.service(8)).
const SYSTEMD_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// The addresses at which systemd-resolved listens. It reads the hosts file, so it is passed by.
const SYSTEMD_STUBS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// How long one question may wait. Two fit into the limit of a connect.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotResolved {
    /// This machine has no list of DNS servers.
    #[error("no DNS server is known, /etc/resolv.conf names none; configure `addresses`")]
    NoServers,
    /// DNS says that there is no such name.
    #[error("DNS does not know the name; check its spelling")]
    Unknown,
    /// No DNS server answered in time.
    #[error("no DNS server answered; check the servers in /etc/resolv.conf, or configure `addresses`")]
    NoAnswer,
}

/// Asks DNS. Answers are kept for as long as they say.
///
/// Reads its list of servers when it is first asked and whenever that list changed, so that a machine without
/// one can start, and a laptop that changes networks goes on.
pub struct Resolver {
    servers: Servers,
    current: Mutex<Option<(Stamp, TokioResolver)>>,
}

enum Servers {
    OfSystem { resolv_conf: PathBuf, behind_systemd: PathBuf },
    These(Vec<SocketAddr>),
}

/// Which version of which file a resolver was made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Stamp(Vec<(PathBuf, Option<SystemTime>)>);

impl Default for Resolver {
    fn default() -> Self {
        Self::of_system(RESOLV_CONF, SYSTEMD_RESOLV_CONF)
    }
}

impl Resolver {
    /// Asks these servers and no others.
    pub fn with_servers(servers: Vec<SocketAddr>) -> Self {
        Self { servers: Servers::These(servers), current: Mutex::default() }
    }

    pub(super) fn of_system(resolv_conf: impl Into<PathBuf>, behind_systemd: impl Into<PathBuf>) -> Self {
        let servers = Servers::OfSystem { resolv_conf: resolv_conf.into(), behind_systemd: behind_systemd.into() };
        Self { servers, current: Mutex::default() }
    }

    /// All addresses of `host`, IPv4 first. Has no limit of its own: wrap it in one.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NotResolved> {
        // RFC 6761, section 6.3: these names never leave the machine.
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        // The dot keeps the search list out: `api.kraken.com.corp.example` is somebody else.
        let answer = self.current()?.lookup_ip(format!("{host}.")).await.map_err(|error| match error {
            NetError::Dns(_) if error.is_no_records_found() => NotResolved::Unknown,
            _ => NotResolved::NoAnswer,
        })?;
        Ok(answer.iter().map(|address| address.to_canonical()).collect())
    }

    fn current(&self) -> Result<TokioResolver, NotResolved> {
        let stamp = self.stamp();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_of, resolver)) = &*current
            && *made_of == stamp
        {
            return Ok(resolver.clone());
        }
        let servers = self.servers();
        if servers.is_empty() {
            return Err(NotResolved::NoServers);
        }
        let resolver = build(&servers)?;
        *current = Some((stamp, resolver.clone()));
        Ok(resolver)
    }

    fn stamp(&self) -> Stamp {
        match &self.servers {
            Servers::These(_) => Stamp::default(),
            Servers::OfSystem { resolv_conf, behind_systemd } => {
                let changed = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
                Stamp([resolv_conf, behind_systemd].map(|path| (path.clone(), changed(path))).into())
            }
        }
    }

    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        match &self.servers {
            Servers::These(servers) => servers.clone(),
            Servers::OfSystem { resolv_conf, behind_systemd } => {
                let listed = name_servers(resolv_conf);
                let is_stub = !listed.is_empty() && listed.iter().all(|server| SYSTEMD_STUBS.contains(&server.ip()));
                let real = if is_stub { name_servers(behind_systemd) } else { Vec::new() };
                if real.is_empty() { listed } else { real }
            }
        }
    }
}

/// The `nameserver` lines of a file in the form of resolv.conf(5). A file that cannot be read has none.
fn name_servers(path: &Path) -> Vec<SocketAddr> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    });
    addresses.map(|address: IpAddr| SocketAddr::new(address, 53)).collect()
}

fn build(servers: &[SocketAddr]) -> Result<TokioResolver, NotResolved> {
    let servers = servers.iter().map(|server| {
        let mut config = NameServerConfig::udp_and_tcp(server.ip());
        for connection in &mut config.connections {
            connection.port = server.port();
        }
        config
    });
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = QUESTION_TIMEOUT;
    builder.build().map_err(|_| NotResolved::NoServers)
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}
