//! A server over TLS that is not the proxy, and as cheap as it can be.

use super::Offer;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Serves until the process ends. Says on standard output where.
#[allow(clippy::print_stdout, reason = "the process that started this one reads it")]
pub(crate) async fn serve<F>(certificates: &Path, offer: Offer, converse: fn(TlsStream<TcpStream>) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let chain = vec![CertificateDer::from_pem_file(certificates.join("server.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(certificates.join("server.key")).expect("a key");
    let mut config = rustls::ServerConfig::builder_with_provider(offer.provider())
        .with_protocol_versions(super::TLS)
        .expect("the library has TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("certificate and key were made together");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if let Offer::OneOfEach = offer {
        // As exchanges do: a ticket that is good for any number of connections. Otherwise each is good for one, and
        // proxies that remember one session alone would rarely resume.
        config.ticketer = Ticketer::new().expect("the library makes tickets");
    }
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    println!("{}", listener.local_addr().expect("a bound socket has an address"));
    loop {
        let (socket, _) = listener.accept().await.expect("the limit of open files was raised");
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let conversation = async {
                socket.set_nodelay(true)?;
                converse(acceptor.accept(socket).await?).await
            };
            // A client that leaves ends its own task alone.
            drop(conversation.await);
        });
    }
}
