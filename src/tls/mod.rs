//! TLS on both sides: [`Acceptor`] for those who connect to us, [`Connector`] for exchanges.
//!
//! The only module that names `tokio_rustls`: everyone else sees [`Stream`]. It does not decide who a client
//! is; it hands out the certificates that the peer proved to hold.

mod client;
mod server;
#[cfg(test)]
pub(crate) mod tests;

pub use client::{BadRoots, ClientRoots, Connector, HandshakeFailed};
pub use server::{
    Acceptor, BadIdentity, Certificates, NotLoaded, PemPair, ServerIdentity, ServerSettings, read_private,
};

use crate::buffer::Buffer;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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

/// The provider that all settings here are built with.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// One TLS connection over TCP, whichever side of it we are.
#[derive(Debug)]
pub struct Stream(Box<tokio_rustls::TlsStream<TcpStream>>, Buffer, bool);

impl Stream {
    pub(crate) fn new(stream: tokio_rustls::TlsStream<TcpStream>) -> Self {
        Self(Box::new(stream), Buffer::new(), false)
    }

    /// Reads what has come, once, and gives it to `take`.
    pub fn poll_records(&mut self, cx: &mut Context<'_>, mut take: impl FnMut(&[u8])) -> Poll<io::Result<usize>> {
        let mut scratch = Buffer::new();
        let mut room = ReadBuf::new(scratch.space(1));
        std::task::ready!(Pin::new(&mut *self.0).poll_read(cx, &mut room))?;
        if !room.filled().is_empty() {
            take(room.filled());
        }
        Poll::Ready(Ok(room.filled().len()))
    }

    /// Puts these bytes behind those that wait to be sent.
    pub fn seal(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.1.push(plaintext);
        Ok(())
    }

    /// Bytes that the socket has not taken yet.
    pub fn sealed_bytes(&self) -> usize {
        self.1.len() + usize::from(self.2)
    }

    /// Writes what is sealed.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.1.is_empty() {
            self.2 = true;
            let count = std::task::ready!(Pin::new(&mut *self.0).poll_write(cx, self.1.bytes()))?;
            self.1.consume(count);
        }
        std::task::ready!(Pin::new(&mut *self.0).poll_flush(cx))?;
        self.2 = false;
        Poll::Ready(Ok(()))
    }

    /// The TCP socket below.
    pub fn tcp(&self) -> &TcpStream {
        self.0.get_ref().0
    }

    /// The name that the client asked for (SNI), where we are the server.
    pub fn server_name(&self) -> Option<&str> {
        match &*self.0 {
            tokio_rustls::TlsStream::Server(stream) => stream.get_ref().1.server_name(),
            tokio_rustls::TlsStream::Client(_) => None,
        }
    }

    /// The certificates that the peer proved to hold, its own first.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.0.get_ref().1.peer_certificates().unwrap_or_default()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
