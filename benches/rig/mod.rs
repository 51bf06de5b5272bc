//! What the benchmarks of sessions and of calls are made of: a server and the proxy, each a process of its own, and
//! clients.
#![allow(dead_code, reason = "shared by programs that use a part each")]

mod answers;
pub(crate) mod caller;
pub(crate) mod certificates;
mod echo;
mod feed;
pub(crate) mod figures;
mod frames;
mod http;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod role;
mod server;
pub(crate) mod usage;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::Path;
use std::sync::Arc;

/// TLS 1.3 alone, so that both legs of a proxied session and the direct one cost the same.
const TLS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// What the ends of a benchmark offer in TLS.
#[derive(Clone, Copy)]
pub(crate) enum Offer {
    /// What our library offers by itself.
    Everything,
    /// X25519 and AES-256 alone, and a full handshake each time: whatever stands in between, it has the same to do.
    OneOfEach,
}

impl Offer {
    fn provider(self) -> Arc<CryptoProvider> {
        let everything = aws_lc_rs::default_provider();
        Arc::new(match self {
            Self::Everything => everything,
            Self::OneOfEach => CryptoProvider {
                cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
                kx_groups: vec![aws_lc_rs::kx_group::X25519],
                ..everything
            },
        })
    }
}

/// Trusts one authority, and offers HTTP/1.1 as every WebSocket client does.
pub(crate) fn trusting(authority: &Path) -> tokio_rustls::TlsConnector {
    trusting_with(Offer::Everything, authority)
}

/// The same, with this offer.
pub(crate) fn trusting_with(offer: Offer, authority: &Path) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority).expect("the authority was made a moment ago");
    roots.add(certificate).expect("the authority is one");
    let mut config = rustls::ClientConfig::builder_with_provider(offer.provider())
        .with_protocol_versions(TLS)
        .expect("the library has TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if let Offer::OneOfEach = offer {
        config.resumption = Resumption::disabled();
    }
    tokio_rustls::TlsConnector::from(Arc::new(config))
}
