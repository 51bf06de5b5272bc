//! TLS for those who connect to us: certificates by name, client certificates on request.
//!
//! A client certificate is asked for and never demanded: who a client is may also be proved later. What it may
//! do is not decided here.

use super::records::Connection;
use super::{ALPN, Stream, provider};
use crate::fresh::UnixMillis;
use crate::secret::Secret;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use x509_parser::extensions::GeneralName;

/// Largest certificate, key or revocation list file that is read. A full authority bundle is under 300 KiB.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Where the certificates for our listeners are.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Our own certificates.
    pub certificates: Certificates,
    /// The authorities whose client certificates are accepted, as one PEM file. None: no certificate is asked for.
    pub client_authority: Option<PathBuf>,
    /// Lists of revoked client certificates, as one PEM file. A list past its `nextUpdate` refuses everybody.
    pub client_revocations: Option<PathBuf>,
}

/// Our own certificates.
#[derive(Debug, Clone)]
pub enum Certificates {
    /// A folder with `server.pem` and `server.key`, as `countersign certs` makes it.
    Directory(PathBuf),
    /// Several pairs, chosen by the name that the client asks for. The first one serves clients that ask for none.
    Pairs(Vec<PemPair>),
}

/// The two files of one certificate.
#[derive(Debug, Clone)]
pub struct PemPair {
    /// The certificate, followed by those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key, unencrypted, with mode 0600.
    pub key: PathBuf,
}

/// Why the listeners' TLS could not be set up. A reload that meets one of these keeps what it had.
#[derive(Debug, thiserror::Error)]
pub enum NotLoaded {
    /// A file is not there or may not be read by us.
    #[error("`{path}` cannot be read ({error}); correct the path, or make development certificates with `countersign certs`", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A private key that other users can read is not private.
    #[error("`{path}` can be read by other users (mode {mode:04o}); run `chmod 600 {path}`", path = path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A certificate and key that do not serve.
    #[error("`{path}`: {why}", path = path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        why: BadIdentity,
    },
    /// The authority for client certificates is not one.
    #[error("`{path}` holds no authority certificates that can be used; give the PEM file of the authority that signs client certificates", path = path.display())]
    ClientAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The revocation lists cannot be used.
    #[error("`{path}` holds no certificate revocation lists that can be used; convert them with `openssl crl -inform DER`", path = path.display())]
    ClientRevocations {
        /// The file.
        path: PathBuf,
    },
    /// No certificate is configured.
    #[error("no certificate is configured; name at least one pair of certificate and key")]
    NoPairs,
}

/// Why a certificate and a key are not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    /// There is no certificate.
    #[error("holds no certificate that can be read; a PEM file with `BEGIN CERTIFICATE` is needed")]
    Certificate,
    /// There is no private key.
    #[error("its key file holds no private key; encrypted keys are not supported, decrypt it with `openssl pkey`")]
    Key,
    /// The key is of a kind that cannot be used, or damaged.
    #[error("its private key cannot be used; ECDSA P-256 and P-384, Ed25519 and RSA from 2048 bits can")]
    KeyKind,
    /// The key belongs to another certificate.
    #[error("its private key belongs to another certificate; replace both files together")]
    Mismatch,
    /// The certificate's time is over.
    #[error("has expired; renew it, or run `countersign certs`")]
    Expired,
    /// The certificate's time has not begun.
    #[error("is not valid yet; check this machine's clock")]
    NotYetValid,
}

impl ServerSettings {
    /// Reads all files and makes an acceptor of them, or says what is wrong with the first that does not serve.
    pub fn load(&self, now: UnixMillis) -> Result<Acceptor, NotLoaded> {
        let identities = match &self.certificates {
            Certificates::Directory(directory) => {
                vec![PemPair { certificate: directory.join("server.pem"), key: directory.join("server.key") }]
            }
            Certificates::Pairs(pairs) => pairs.clone(),
        }
        .iter()
        .map(|pair| ServerIdentity::from_files(pair, now))
        .collect::<Result<Vec<_>, _>>()?;
        if identities.is_empty() {
            return Err(NotLoaded::NoPairs);
        }

        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs serves TLS 1.2 and 1.3");
        let builder = match &self.client_authority {
            None => builder.with_no_client_auth(),
            Some(path) => builder.with_client_cert_verifier(self.client_verifier(path)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName(identities)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        if self.client_authority.is_some() {
            // A resumed session is not checked against the authority or the revocation list again: a client
            // whose certificate was revoked would stay in.
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        Ok(Acceptor::new(Arc::new(config)))
    }

    fn client_verifier(
        &self,
        authority: &Path,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, NotLoaded> {
        let unusable = || NotLoaded::ClientAuthority { path: authority.to_owned() };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&read(authority)?) {
            roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
        }
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).allow_unauthenticated();
        if let Some(path) = &self.client_revocations {
            let unusable = || NotLoaded::ClientRevocations { path: path.clone() };
            let lists = CertificateRevocationListDer::pem_slice_iter(&read(path)?)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| unusable())?;
            if lists.is_empty() {
                return Err(unusable());
            }
            builder = builder.with_crls(lists).enforce_revocation_expiration();
            return builder.build().map_err(|_| unusable());
        }
        builder.build().map_err(|_| unusable())
    }
}

/// One certificate of ours with its key, checked against each other.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    names: Vec<String>,
    not_before: UnixMillis,
    not_after: UnixMillis,
    certified_key: Arc<CertifiedKey>,
}

impl ServerIdentity {
    /// Reads a certificate chain and a key, both PEM.
    pub fn from_pem(chain: &[u8], key: &Secret) -> Result<Self, BadIdentity> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| BadIdentity::Certificate)?;
        let leaf = chain.first().ok_or(BadIdentity::Certificate)?;
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|_| BadIdentity::Certificate)?;
        let names = subject_names(&leaf);
        let not_before = moment(leaf.validity().not_before);
        let not_after = moment(leaf.validity().not_after);

        let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| BadIdentity::Key)?;
        let certified_key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => BadIdentity::Mismatch,
            _ => BadIdentity::KeyKind,
        })?;
        Ok(Self { names, not_before, not_after, certified_key: Arc::new(certified_key) })
    }

    /// Reads both files, and checks that the certificate is valid at `now`.
    pub fn from_files(pair: &PemPair, now: UnixMillis) -> Result<Self, NotLoaded> {
        let bad = |why| NotLoaded::Identity { path: pair.certificate.clone(), why };
        let identity = Self::from_pem(&read(&pair.certificate)?, &read_private(&pair.key)?).map_err(bad)?;
        if now > identity.not_after {
            return Err(bad(BadIdentity::Expired));
        }
        if now < identity.not_before {
            return Err(bad(BadIdentity::NotYetValid));
        }
        Ok(identity)
    }

    /// The DNS names of the certificate, in lower case; `*.` begins one that stands for all names one step below.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    fn covers(&self, name: &str) -> bool {
        let Some((_, parent)) = name.split_once('.') else { return false };
        self.names.iter().filter_map(|own| own.strip_prefix("*.")).any(|own| own.eq_ignore_ascii_case(parent))
    }
}

fn subject_names(leaf: &x509_parser::certificate::X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return Vec::new() };
    let names = &extension.value.general_names;
    names
        .iter()
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(name.to_ascii_lowercase()) } else { None })
        .collect()
}

fn moment(time: x509_parser::time::ASN1Time) -> UnixMillis {
    UnixMillis::from_seconds(u64::try_from(time.timestamp()).unwrap_or(0))
}

/// Chooses by the name that the client asks for; the first one for those who ask for none or for an unknown one.
/// An unknown name is not refused here: the client's own "wrong name" says more than an alert would.
#[derive(Debug)]
struct ByName(Vec<ServerIdentity>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            let exactly = self.0.iter().find(|identity| identity.is_named(name));
            exactly.or_else(|| self.0.iter().find(|identity| identity.covers(name)))
        });
        named.or(self.0.first()).map(|identity| Arc::clone(&identity.certified_key))
    }
}

/// Notes the name that one client asks for, on the way to whoever chooses by it. rustls asks for a certificate in every
/// handshake, resumed ones too, and has no other place where an unbuffered connection shows the name.
#[derive(Debug)]
struct NameNoted {
    certificates: Arc<dyn ResolvesServerCert>,
    // A second hello, after a retry, names the same: rustls ends the handshake otherwise.
    name: OnceLock<Box<str>>,
}

impl ResolvesServerCert for NameNoted {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            self.name.get_or_init(|| name.into());
        }
        self.certificates.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.certificates.only_raw_public_keys()
    }
}

/// Ends TLS for those who connect to us.
#[derive(Clone)]
pub struct Acceptor(Arc<rustls::ServerConfig>);

impl Acceptor {
    /// An acceptor with these settings.
    pub fn new(config: Arc<rustls::ServerConfig>) -> Self {
        Self(config)
    }

    /// Its settings, for those who speak TLS by other means.
    pub fn config(&self) -> &Arc<rustls::ServerConfig> {
        &self.0
    }

    /// Shakes hands. Has no limit of its own: wrap it in one.
    ///
    /// [`io::ErrorKind::InvalidData`] holds a [`rustls::Error`]; the peer has been told, as far as the socket took it.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<Stream> {
        let noted = Arc::new(NameNoted { certificates: Arc::clone(&self.0.cert_resolver), name: OnceLock::new() });
        // A few hundred nanoseconds: what is large in it is shared, sessions to resume among it.
        let mut config = rustls::ServerConfig::clone(&self.0);
        config.cert_resolver = noted.clone();
        let connection = UnbufferedServerConnection::new(Arc::new(config))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = Stream::open(socket, Connection::Server(connection)).await?;
        Ok(stream.with_server_name(noted.name.get().cloned()))
    }
}

/// Reads a private key's file. Refuses one that anybody but its owner can read; of a file that is not ours, as a
/// Kubernetes secret is root's, a group may read it too, since we could not otherwise.
pub fn read_private(path: &Path) -> Result<Secret, NotLoaded> {
    let failed = |error| NotLoaded::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    // Asked of the open file: between two looks at a path another file could take its place.
    let facts = file.metadata().map_err(failed)?;
    let mode = facts.permissions().mode() & 0o7777;
    if !is_private(mode, facts.uid() == rustix::process::geteuid().as_raw()) {
        return Err(NotLoaded::NotPrivate { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(PEM_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Secret::new(bytes))
}

/// True if these permission bits keep a key from other users.
fn is_private(mode: u32, is_ours: bool) -> bool {
    let excess = if is_ours { 0o077 } else { 0o037 };
    mode & excess == 0
}

fn read(path: &Path) -> Result<Vec<u8>, NotLoaded> {
    let failed = |error| NotLoaded::Read { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(PEM_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::is_private;

    #[test]
    fn a_key_of_ours_is_for_us_alone() {
        assert!(is_private(0o600, true) && is_private(0o400, true));
        for mode in [0o640, 0o440, 0o604, 0o620, 0o601, 0o644] {
            assert!(!is_private(mode, true), "{mode:o}");
        }
    }

    #[test]
    fn a_key_that_is_mounted_for_us_may_be_read_by_our_group_and_by_nobody_else() {
        assert!(is_private(0o440, false) && is_private(0o640, false));
        for mode in [0o444, 0o660, 0o404, 0o450, 0o644, 0o777] {
            assert!(!is_private(mode, false), "{mode:o}");
        }
    }
}
