//! What tests of the commands share: a folder's configuration changed, a client token, TLS to what a command started.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by test programs that use a part each")]

use crate::program::run;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Stands where a value stands that may not be seen.
pub(crate) const CANARY: &str = "hunter2-canary";

/// Changes the first place of proxy.toml that reads like this.
pub(crate) fn edit(folder: &Path, from: &str, to: &str) {
    let file = folder.join("proxy.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "proxy.toml has no {from}");
    fs::write(&file, text.replacen(from, to, 1)).unwrap();
}

/// The token that `countersign token` prints.
pub(crate) fn token(folder: &Path, arguments: &[&str]) -> String {
    let minted = run(folder, &[&["token"], arguments].concat());
    assert_eq!((minted.code, minted.stderr.as_str()), (Some(0), ""));
    let token = minted.stdout.strip_suffix('\n').unwrap();
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{token}");
    token.to_owned()
}

/// TLS to an address, trusting one authority.
pub(crate) async fn tls(authority: &Path, address: std::net::SocketAddr) -> TlsStream<tokio::net::TcpStream> {
    countersign::tls::install_crypto();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}
