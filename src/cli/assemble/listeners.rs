//! The listeners that the configuration asks for, bound: the main one, `[[ports]]` and `[connect]`.

use super::{Exit, venue_of};
use crate::admin;
use crate::cli::run_secret;
use crate::config::Config;
use crate::connect::Gate;
use crate::http::Entrance;
use crate::server::{Listener, Speaks};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Everything that clients can connect to.
pub(super) struct Bound {
    pub(super) listeners: Vec<Listener>,
    /// The main one.
    pub(super) address: SocketAddr,
    /// Those of `[[ports]]`, in the order of the configuration.
    pub(super) ports: Vec<SocketAddr>,
    pub(super) connect_address: Option<SocketAddr>,
}

/// Binds them all, or says which cannot be.
pub(super) async fn bind_all(config: &Config) -> Result<Bound, Exit> {
    let socket = bind("listen.address", config.listen.address).await?;
    let address = socket.local_addr().map_err(Exit::failed)?;
    let mut listeners = vec![Listener { socket, speaks: Speaks::Tls(Entrance::Names) }];
    let mut ports = Vec::new();
    for (index, port) in config.ports.iter().enumerate() {
        let socket = bind(&format!("ports[{index}].address"), port.address).await?;
        ports.push(socket.local_addr().map_err(Exit::failed)?);
        let venue = venue_of(port.venue);
        let endpoint = port.endpoint.and_then(|name| venue.endpoints().iter().find(|door| door.name == name));
        listeners.push(Listener { socket, speaks: Speaks::Tls(Entrance::Port { venue, endpoint }) });
    }
    let mut connect_address = None;
    if let Some(address) = config.connect_address {
        let is_secret = run_secret::secret_check(config)?;
        let socket = bind("connect.address", address).await?;
        connect_address = Some(socket.local_addr().map_err(Exit::failed)?);
        listeners.push(Listener { socket, speaks: Speaks::Connect(Gate { is_secret }) });
    }
    Ok(Bound { listeners, address, ports, connect_address })
}

/// The ports as the admin listener tells of them.
pub(super) fn told(config: &Config, addresses: &[SocketAddr]) -> Vec<admin::Port> {
    let told = std::iter::zip(&config.ports, addresses).map(|(port, address)| admin::Port {
        address: address.to_string(),
        venue: port.venue,
        endpoint: port.endpoint,
    });
    told.collect()
}

pub(super) async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, Exit> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another program listens there; end it, or choose another port",
            std::io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose a higher one",
            _ => "choose an address of this machine",
        };
        Exit::configuration(format!("{key}: {address}: {error}; {hint}"))
    })
}
