//! The proxy that runs beside this command, as its admin listener tells of it.

use super::Exit;
use crate::admin::SECRET_HEADER;
use crate::config::Config;
use crate::secret::Secret;
use serde_json::Value;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Shorter than the health check of an image may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Longer than the admin listener gives an action.
const ACTION_LIMIT: Duration = Duration::from_secs(25);

/// Longest answer that is read: a hundred ports or accounts fit.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// A proxy that runs.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Where it listens.
    pub(super) listening: Listening,
    /// Its process, by its own account.
    pub(super) pid: i32,
    /// True once it is on its way out.
    pub(super) is_draining: bool,
    /// How many clients came to it so far.
    pub(super) connections: u64,
}

/// Where a proxy listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listening {
    /// The main listener.
    pub(super) main: SocketAddr,
    /// The listeners that lead to one venue.
    pub(super) ports: Vec<ListeningPort>,
    /// The CONNECT listener.
    pub(super) connect: Option<SocketAddr>,
}

/// A listener that leads to one venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListeningPort {
    pub(super) address: SocketAddr,
    pub(super) venue: String,
    pub(super) endpoint: Option<String>,
}

impl Listening {
    /// Where it will listen by its configuration.
    pub(super) fn configured(config: &Config) -> Self {
        let ports = config.ports.iter().map(|port| ListeningPort {
            address: port.address,
            venue: port.venue.to_owned(),
            endpoint: port.endpoint.map(str::to_owned),
        });
        Self { main: config.listen.address, ports: ports.collect(), connect: config.connect_address }
    }
}

/// Asks at the configuration's admin address. `None`: nobody is there. An error: somebody else is.
pub(super) fn find(config: &Config) -> Result<Option<Found>, Exit> {
    if config.admin_address.port() == 0 {
        return Ok(None);
    }
    let address = reachable(config.admin_address);
    let stranger = || {
        Exit::configuration(format!(
            "admin.address: another program answers at {address}; end it, or choose another port"
        ))
    };
    let body = match ask(address, "/readyz") {
        Ok((_, body)) => body,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        // It was on its way out just as we came.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        Err(_) => return Err(stranger()),
    };
    let told: Value = serde_json::from_str(&body).map_err(|_| stranger())?;
    read(&told).map(Some).ok_or_else(stranger)
}

fn read(told: &Value) -> Option<Found> {
    told["countersign"].as_str()?;
    let address = |value: &Value| value.as_str().and_then(|text| text.parse::<SocketAddr>().ok());
    let port = |port: &Value| {
        Some(ListeningPort {
            address: address(&port["address"])?,
            venue: port["venue"].as_str()?.to_owned(),
            endpoint: port["endpoint"].as_str().map(str::to_owned),
        })
    };
    let listening = Listening {
        main: address(&told["listening_on"])?,
        ports: told["ports"].as_array()?.iter().map(port).collect::<Option<_>>()?,
        connect: address(&told["connect"]),
    };
    Some(Found {
        listening,
        pid: i32::try_from(told["pid"].as_i64()?).ok()?,
        is_draining: told["draining"].as_bool()?,
        connections: told["connections"].as_u64()?,
    })
}

/// A listener on every address is asked on loopback.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Nobody answers where the admin listener should be.
pub(super) fn not_there(address: SocketAddr, error: &io::Error) -> Exit {
    Exit::failed(format!("{address}: {error}; is `countersign serve` running with admin.address = \"{address}\"?"))
}

/// The status and body of a page of the admin listener.
pub(super) fn ask(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    exchange(address, format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(), LIMIT)
}

/// Has an action done by the admin listener, which is proved by its secret.
pub(super) fn order(address: SocketAddr, path: &str, secret: &Secret) -> io::Result<(u16, String)> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n");
    let header = format!("{SECRET_HEADER}: ");
    let request = Secret::new([head.as_bytes(), header.as_bytes(), secret.expose(), b"\r\n\r\n"].concat());
    exchange(address, request.expose(), ACTION_LIMIT)
}

fn exchange(address: SocketAddr, request: &[u8], limit: Duration) -> io::Result<(u16, String)> {
    let mut socket = TcpStream::connect_timeout(&address, LIMIT)?;
    socket.set_read_timeout(Some(limit))?;
    socket.set_write_timeout(Some(LIMIT))?;
    socket.write_all(request)?;
    let mut answer = Vec::with_capacity(1024);
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let not_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    Ok((status.ok_or_else(not_http)?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_answer_of_a_countersign_is_one() {
        let told = json!({
            "countersign": "0.1.0", "ready": true, "draining": false, "pid": 7, "listening_on": "127.0.0.1:8443",
            "ports": [{"address": "127.0.0.1:8601", "venue": "kraken", "endpoint": null}],
            "connect": "127.0.0.1:8444", "connections": 3, "accounts": [],
        });
        let found = read(&told).expect("it is one");
        assert_eq!((found.pid, found.connections, found.is_draining), (7, 3, false));
        assert_eq!(found.listening.connect, Some(SocketAddr::from(([127, 0, 0, 1], 8444))));
        assert_eq!(found.listening.ports[0].venue, "kraken");
        for key in ["countersign", "pid", "listening_on", "ports", "connections", "draining"] {
            let mut other = told.clone();
            other.as_object_mut().expect("an object").remove(key);
            assert!(read(&other).is_none(), "without {key}");
        }
        assert!(read(&json!({"ready": true})).is_none());
    }
}
