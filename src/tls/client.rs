//! TLS to exchanges: whom we trust, and what went wrong in words that hold nothing of the peer's.

use super::records::Connection;
use super::{ALPN, Stream, provider};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, RootCertStore};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

/// The authorities that may vouch for an exchange.
#[derive(Debug, Clone)]
pub enum ClientRoots {
    /// Mozilla's list, compiled in: the same on every machine, also where there are no system certificates.
    WebPki,
    /// These alone, as PEM.
    Pem(Vec<u8>),
}

/// Why roots were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRoots {
    /// There is no certificate in the text.
    #[error("holds no certificate; a PEM file with `BEGIN CERTIFICATE` is needed")]
    Empty,
    /// A certificate is damaged or cannot be an authority.
    #[error("holds a certificate that cannot be read; export it again as PEM")]
    Unreadable,
}

/// Why TLS to an exchange was not set up. Nothing was sent above TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFailed {
    /// The certificate is for another name: a wrong host or address, or somebody in between.
    #[error("its certificate is for another name; check host and addresses")]
    WrongName,
    /// The certificate's time is over.
    #[error("its certificate has expired; check this machine's clock, then ask the exchange")]
    Expired,
    /// The certificate's time has not begun.
    #[error("its certificate is not valid yet; check this machine's clock")]
    NotYetValid,
    /// No authority that we trust vouches for it.
    #[error("its certificate is from an authority that is not trusted here; set `roots` if that authority is meant")]
    UnknownAuthority,
    /// Anything else about the certificate.
    #[error("its certificate cannot be accepted; inspect it with `openssl s_client`")]
    BadCertificate,
    /// No version or cipher in common: it speaks TLS 1.0 or 1.1 at best.
    #[error("it has no TLS version or cipher in common with us; TLS 1.2 is the least")]
    NothingInCommon,
    /// It refused us.
    #[error("it ended the TLS handshake with an alert")]
    Alert(AlertDescription),
    /// It does not speak TLS, or badly.
    #[error("it does not answer in TLS; check the port")]
    NotTls,
    /// The connection broke in the middle.
    #[error("the connection broke during the TLS handshake; try again")]
    Broken,
}

impl From<&io::Error> for HandshakeFailed {
    fn from(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Self::from(error),
            None => Self::Broken,
        }
    }
}

impl From<&rustls::Error> for HandshakeFailed {
    fn from(error: &rustls::Error) -> Self {
        use rustls::Error;
        match error {
            Error::InvalidCertificate(why) => match why {
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
                CertificateError::UnknownIssuer => Self::UnknownAuthority,
                _ => Self::BadCertificate,
            },
            Error::NoCertificatesPresented | Error::UnsupportedNameType => Self::BadCertificate,
            Error::PeerIncompatible(_)
            | Error::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure) => {
                Self::NothingInCommon
            }
            Error::AlertReceived(alert) => Self::Alert(*alert),
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord => Self::NotTls,
            _ => Self::Broken,
        }
    }
}

/// Opens TLS to others. Cloning shares the memory of past sessions, which saves a round trip when one resumes.
#[derive(Clone)]
pub struct Connector(Arc<rustls::ClientConfig>);

impl Connector {
    /// A connector with these settings.
    pub fn new(config: Arc<rustls::ClientConfig>) -> Self {
        Self(config)
    }

    /// A connector that trusts `roots` alone: TLS 1.2 or 1.3, HTTP/1.1, no early data.
    pub fn with_roots(roots: &ClientRoots) -> Result<Self, BadRoots> {
        let mut store = RootCertStore::empty();
        match roots {
            ClientRoots::WebPki => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            ClientRoots::Pem(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|_| BadRoots::Unreadable)?;
                    store.add(certificate).map_err(|_| BadRoots::Unreadable)?;
                }
            }
        }
        if store.is_empty() {
            return Err(BadRoots::Empty);
        }
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs serves TLS 1.2 and 1.3")
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self::new(Arc::new(config)))
    }

    /// Shakes hands, and checks that the peer is `name`. Has no limit of its own: wrap it in one.
    pub async fn connect(&self, name: ServerName<'static>, socket: TcpStream) -> Result<Stream, HandshakeFailed> {
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.0), name)
            .map_err(|error| HandshakeFailed::from(&error))?;
        let opened = Stream::open(socket, Connection::Client(connection)).await;
        opened.map_err(|error| HandshakeFailed::from(&error))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}
