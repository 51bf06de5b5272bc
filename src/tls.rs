//! TLS on both sides. The only file that names `tokio_rustls`: everyone else sees [`Stream`].

use rustls::pki_types::{CertificateDer, ServerName};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// One TLS connection over TCP, whichever side of it we are.
#[derive(Debug)]
pub struct Stream(Box<tokio_rustls::TlsStream<TcpStream>>);

impl Stream {
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

/// Ends TLS for those who connect to us.
#[derive(Clone)]
pub struct Acceptor(tokio_rustls::TlsAcceptor);

impl Acceptor {
    /// An acceptor with these settings.
    pub fn new(config: Arc<rustls::ServerConfig>) -> Self {
        Self(tokio_rustls::TlsAcceptor::from(config))
    }

    /// Shakes hands. Has no limit of its own: wrap it in one.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<Stream> {
        let stream = self.0.accept(socket).await?;
        Ok(Stream(Box::new(tokio_rustls::TlsStream::Server(stream))))
    }
}

/// Opens TLS to others.
#[derive(Clone)]
pub struct Connector(tokio_rustls::TlsConnector);

impl Connector {
    /// A connector with these settings.
    pub fn new(config: Arc<rustls::ClientConfig>) -> Self {
        Self(tokio_rustls::TlsConnector::from(config))
    }

    /// Shakes hands, and checks that the peer is `name`. Has no limit of its own: wrap it in one.
    pub async fn connect(&self, name: ServerName<'static>, socket: TcpStream) -> io::Result<Stream> {
        let stream = self.0.connect(name, socket).await?;
        Ok(Stream(Box::new(tokio_rustls::TlsStream::Client(stream))))
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
