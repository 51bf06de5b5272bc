//! `countersign healthcheck`: asks the admin listener of a running proxy whether it is ready.

use super::{ConfigArgs, Exit, assemble};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Shorter than the health check of an image may take.
const LIMIT: Duration = Duration::from_secs(2);

pub(super) fn run(args: &ConfigArgs) -> Result<(), Exit> {
    let config = assemble::load(args)?;
    let address = reachable(config.admin_address);
    let hint = format!("is `countersign serve` running with admin.address = \"{address}\"?");
    let status = ask(address).map_err(|error| Exit::failed(format!("{address}: {error}; {hint}")))?;
    match status {
        200 => {
            super::say("ready");
            Ok(())
        }
        status => Err(Exit::failed(format!("not ready: {address} answered with status {status}"))),
    }
}

/// A listener on every address is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr) -> std::io::Result<u16> {
    let mut socket = TcpStream::connect_timeout(&address, LIMIT)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    socket.write_all(format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut head = Vec::with_capacity(256);
    socket.take(4096).read_to_end(&mut head)?;
    let status =
        head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok());
    status.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "the answer is not HTTP"))
}
