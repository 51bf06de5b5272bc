//! TCP and TLS to a target: which addresses may be called, in what order, and for how long.

use super::{DialLimits, NotOpened, NotResolved, Resolver, Target};
use crate::tls;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// TLS to the target, from the first address that accepts.
pub(super) async fn tls(socket: TcpStream, target: &Target) -> Result<tls::Stream, NotOpened> {
    Ok(target.connector.connect(target.server_name.clone(), socket).await?)
}

/// A TCP connection to the first address that accepts one. Each gets its part of the time that is left, so
/// that one that swallows packets does not use up all of it.
pub(super) async fn tcp(target: &Target, limits: &DialLimits, resolver: &Resolver) -> Result<TcpStream, NotOpened> {
    let deadline = Instant::now() + limits.connect;
    let addresses = match target.addresses.as_slice() {
        [] => {
            let found = timeout_at(deadline, resolved(target, resolver)).await.map_err(|_| NotResolved::NoAnswer)??;
            found.into_iter().map(|address| SocketAddr::new(address, target.port)).collect()
        }
        configured => configured.to_vec(),
    };
    let may_be_local = target.is_local_allowed || !target.addresses.is_empty();

    let mut failure = NotOpened::Dns(NotResolved::Unknown);
    let mut untried = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let now = Instant::now();
        let part = deadline.saturating_duration_since(now) / untried;
        untried -= 1;
        match timeout_at(now + part, TcpStream::connect(address)).await {
            Err(_elapsed) => failure = NotOpened::ConnectTimeout,
            Ok(Err(error)) => failure = why(&error),
            Ok(Ok(socket)) => {
                if !may_be_local && is_to_ourselves(&socket) {
                    return Err(NotOpened::SelfDial);
                }
                tune(&socket, limits).map_err(|error| NotOpened::Unreachable(error.kind()))?;
                return Ok(socket);
            }
        }
    }
    Err(failure)
}

/// The addresses that DNS gives and that may be called. Where a public and a local one are given, the public
/// one is meant: a DNS server that reads the hosts file overrides one family and passes the other on.
async fn resolved(target: &Target, resolver: &Resolver) -> Result<Vec<IpAddr>, NotOpened> {
    let found = match target.host.parse() {
        Ok(address) => vec![address],
        Err(_) => resolver.addresses(&target.host).await?,
    };
    if target.is_local_allowed {
        return Ok(found);
    }
    let mut refused = NotOpened::Dns(NotResolved::Unknown);
    let mut allowed = Vec::new();
    for address in found {
        match reach(address) {
            Reach::Public => allowed.push(address),
            Reach::ThisMachine => refused = NotOpened::SelfDial,
            Reach::Private if refused != NotOpened::SelfDial => refused = NotOpened::PrivateAddress,
            Reach::Private => {}
        }
    }
    if allowed.is_empty() { Err(refused) } else { Ok(allowed) }
}

/// How far an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    ThisMachine,
    Private,
    Public,
}

pub(super) fn reach(address: IpAddr) -> Reach {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() {
        return Reach::ThisMachine;
    }
    let is_private = match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_broadcast() || is_shared(v4),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    if is_private || address.is_multicast() { Reach::Private } else { Reach::Public }
}

/// 100.64.0.0/10: a provider's or an overlay's own network (RFC 6598).
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && second & 0b1100_0000 == 64
}

/// True if the other end is this machine, by whatever address: the system then gives both ends the same one.
pub(super) fn is_to_ourselves(socket: &TcpStream) -> bool {
    match (socket.local_addr(), socket.peer_addr()) {
        (Ok(local), Ok(peer)) => local.ip() == peer.ip(),
        _ => false,
    }
}

fn tune(socket: &TcpStream, limits: &DialLimits) -> io::Result<()> {
    tls::tune(socket)?;
    let below = SockRef::from(socket);
    below.set_tcp_keepalive(&TcpKeepalive::new().with_time(limits.keepalive).with_interval(limits.keepalive / 3))?;
    // Without it Linux goes on sending into a black hole for a quarter of an hour.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    below.set_tcp_user_timeout(Some(limits.unacknowledged))?;
    Ok(())
}

fn why(error: &io::Error) -> NotOpened {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => NotOpened::Refused,
        io::ErrorKind::TimedOut => NotOpened::ConnectTimeout,
        kind => NotOpened::Unreachable(kind),
    }
}
