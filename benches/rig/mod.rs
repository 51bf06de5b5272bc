//! What the benchmarks of sessions and of calls are made of: a server and the proxy, each a process of its own, and
//! clients.
#![allow(dead_code, reason = "shared by programs that use a part each")]

mod answers;
pub(crate) mod caller;
mod echo;
pub(crate) mod figures;
mod frames;
mod http;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod role;
mod server;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::Path;
use std::sync::Arc;

/// TLS 1.3 alone, so that both legs of a proxied session and the direct one cost the same.
const TLS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Trusts one authority, and offers HTTP/1.1 as every WebSocket client does.
pub(crate) fn trusting(authority: &Path) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority).expect("the authority was made a moment ago");
    roots.add(certificate).expect("the authority is one");
    let mut config =
        rustls::ClientConfig::builder_with_protocol_versions(TLS).with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tokio_rustls::TlsConnector::from(Arc::new(config))
}
