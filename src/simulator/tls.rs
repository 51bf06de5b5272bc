//! The exchange's end of TLS, by tokio-rustls.
//!
//! Not by [`crate::tls::Stream`]: a mistake there must meet an implementation that does not make the same one. Only the
//! settings are shared.

use crate::tls::Acceptor;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// One connection that the exchange was called on.
pub(super) type Stream = tokio_rustls::server::TlsStream<TcpStream>;

/// Shakes hands. Has no limit of its own: wrap it in one.
pub(super) async fn accept(settings: &Acceptor, socket: TcpStream) -> io::Result<Stream> {
    TlsAcceptor::from(Arc::clone(settings.config())).accept(socket).await
}

/// The name that the client asked for (SNI).
pub(super) fn server_name(stream: &Stream) -> Option<&str> {
    stream.get_ref().1.server_name()
}
