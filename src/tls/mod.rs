//! TLS on both sides: [`Acceptor`] for those who connect to us, [`Connector`] for exchanges.
//!
//! Both make a [`Stream`], which drives rustls over buffers that are lent only while bytes are under way. The simulators
//! and the tests speak TLS through tokio-rustls instead, so that this is always held against another's work. It does
//! not decide who a client is; it hands out the certificates that the peer proved to hold.

mod client;
mod records;
mod server;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

pub use client::{BadRoots, ClientRoots, Connector, HandshakeFailed};
pub use server::{
    Acceptor, BadIdentity, Certificates, NotLoaded, PemPair, ServerIdentity, ServerSettings, read_private,
};
pub use stream::Stream;

use rustls::crypto::CryptoProvider;
use std::io;
use std::sync::{Arc, LazyLock};
use tokio::net::TcpStream;

/// The one protocol that both sides speak above TLS. Without it a proxy in between could pick HTTP/2, in which
/// a WebSocket upgrade does not exist.
const ALPN: &[u8] = b"http/1.1";

/// Makes aws-lc-rs the provider of whatever in this process asks rustls for a default one. May be called often.
///
/// Our own settings name the provider and do not need this; libraries that build their own do.
pub fn install_crypto() {
    if CryptoProvider::get_default().is_none() {
        // Fails only if another thread came first, and then with this same provider.
        let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

/// Bytes that the kernel may hold of a socket without having sent them. It would take 4 MiB otherwise: stale data for a
/// client that reads slowly, in front of the close that tells it so; and an exchange's cancel would stand behind all of it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Sets what every TCP socket of ours needs, whoever opened it.
pub fn tune(socket: &TcpStream) -> io::Result<()> {
    // A frame is written whole; to wait for more of it would wait for nothing.
    socket.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok(())
}

/// The provider that all settings here are built with.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
