//! Handshakes over loopback with certificates made on the spot.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod bytes;
mod ends;
mod handshakes;
mod other_end;
mod over_http;

use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, HandshakeKind, RootCertStore};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fresh::UnixMillis;
use crate::secret::Secret;

/// A folder of this test's own, gone at its end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("countersign-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn now() -> UnixMillis {
    UnixMillis::from_seconds(u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap())
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

struct Leaf {
    chain: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, |_| ())
    }

    fn leaf_with(&self, names: &[&str], adjust: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf { chain: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn connector(&self) -> Connector {
        Connector::with_roots(&ClientRoots::Pem(self.pem.clone().into_bytes())).unwrap()
    }

    /// A connector that shows `leaf` as its own certificate.
    fn connector_as(&self, leaf: &Leaf) -> Connector {
        Connector::new(self.client_config_as(leaf))
    }

    fn client_config(&self) -> Arc<ClientConfig> {
        Arc::new(self.client_builder().with_no_client_auth())
    }

    fn client_config_as(&self, leaf: &Leaf) -> Arc<ClientConfig> {
        let certificate = CertificateDer::from_pem_slice(leaf.chain.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
        Arc::new(self.client_builder().with_client_auth_cert(vec![certificate], key).unwrap())
    }

    fn client_builder(&self) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
    }
}

fn settings(scratch: &Scratch, leaves: &[&Leaf]) -> ServerSettings {
    let pairs = leaves.iter().enumerate().map(|(number, leaf)| PemPair {
        certificate: scratch.write(&format!("{number}.pem"), &leaf.chain, 0o644),
        key: scratch.write(&format!("{number}.key"), &leaf.key, 0o600),
    });
    ServerSettings {
        certificates: Certificates::Pairs(pairs.collect()),
        client_authority: None,
        client_revocations: None,
    }
}

/// One handshake and one byte each way, so that alerts and tickets after the handshake are seen too.
pub(crate) async fn meet(
    acceptor: &Acceptor,
    connector: &Connector,
    name: &str,
) -> (io::Result<Stream>, Result<Stream, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let server = async {
        let mut stream = acceptor.accept(listener.accept().await?.0).await?;
        stream.write_all(b"!").await?;
        stream.read_exact(&mut [0]).await?;
        Ok(stream)
    };
    let client = async {
        let socket = TcpStream::connect(address).await.unwrap();
        let mut stream = connector.connect(name, socket).await.map_err(|why| format!("{why:?}"))?;
        stream.read_exact(&mut [0]).await.map_err(|_| "closed after the handshake".to_owned())?;
        stream.write_all(b"!").await.map_err(|_| "closed after the handshake".to_owned())?;
        Ok(stream)
    };
    tokio::join!(server, client)
}

fn chain(leaf: &Leaf) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(leaf.chain.as_bytes()).collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn the_certificate_follows_the_name_asked_for() {
    let (scratch, authority) = (Scratch::new(), Authority::new());
    let first = authority.leaf(&["localhost", "127.0.0.1"]);
    let kraken = authority.leaf(&["api.kraken.com"]);
    let wild = authority.leaf(&["*.bitfinex.com"]);
    let acceptor = settings(&scratch, &[&first, &kraken, &wild]).load(now()).unwrap();

    for (name, expected) in
        [("localhost", &first), ("api.kraken.com", &kraken), ("api.bitfinex.com", &wild), ("127.0.0.1", &first)]
    {
        let (server, client) = meet(&acceptor, &authority.connector(), name).await;
        assert_eq!(client.unwrap().peer_certificates(), chain(expected), "{name}");
        let is_sent_as_sni = name != "127.0.0.1";
        assert_eq!(server.unwrap().server_name(), is_sent_as_sni.then_some(name));
    }
}

#[tokio::test]
async fn an_unknown_name_fails_at_the_client_by_name() {
    let (scratch, authority) = (Scratch::new(), Authority::new());
    let acceptor = settings(&scratch, &[&authority.leaf(&["localhost"])]).load(now()).unwrap();
    let (server, client) = meet(&acceptor, &authority.connector(), "a.b.localhost").await;
    assert!(server.is_err());
    assert_eq!(client.unwrap_err(), "WrongName");
}

#[tokio::test]
async fn only_a_valid_certificate_of_a_trusted_authority_is_accepted_by_us() {
    let (scratch, authority) = (Scratch::new(), Authority::new());
    let leaf = authority.leaf(&["localhost"]);
    let acceptor = settings(&scratch, &[&leaf]).load(now()).unwrap();
    let (_, client) = meet(&acceptor, &Authority::new().connector(), "localhost").await;
    assert!(["UnknownAuthority", "BadCertificate"].contains(&client.unwrap_err().as_str()));
    let (_, client) = meet(&acceptor, &Connector::with_roots(&ClientRoots::WebPki).unwrap(), "localhost").await;
    assert_eq!(client.unwrap_err(), "UnknownAuthority");
}

#[tokio::test]
async fn client_certificates_are_asked_for_not_demanded() {
    let (scratch, authority, clients) = (Scratch::new(), Authority::new(), Authority::new());
    let mut settings = settings(&scratch, &[&authority.leaf(&["localhost"])]);
    settings.client_authority = Some(scratch.write("client-ca.pem", &clients.pem, 0o644));
    let acceptor = settings.load(now()).unwrap();

    let (server, _) = meet(&acceptor, &authority.connector(), "localhost").await;
    assert!(server.unwrap().peer_certificates().is_empty());

    let bot = clients.leaf(&["bot-a"]);
    let (server, _) = meet(&acceptor, &authority.connector_as(&bot), "localhost").await;
    assert_eq!(server.unwrap().peer_certificates(), chain(&bot));
}

#[tokio::test]
async fn a_client_certificate_that_does_not_hold_ends_the_handshake() {
    let (scratch, authority, clients) = (Scratch::new(), Authority::new(), Authority::new());
    let mut settings = settings(&scratch, &[&authority.leaf(&["localhost"])]);
    settings.client_authority = Some(scratch.write("client-ca.pem", &clients.pem, 0o644));
    let acceptor = settings.load(now()).unwrap();

    let day = Duration::days(1);
    let today = OffsetDateTime::now_utc();
    for (why, leaf) in [
        ("another authority", Authority::new().leaf(&["bot-a"])),
        ("expired", clients.leaf_with(&["bot-a"], |params| params.not_after = today - day)),
        ("not yet valid", clients.leaf_with(&["bot-a"], |params| params.not_before = today + day)),
        (
            "for servers",
            clients
                .leaf_with(&["bot-a"], |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
    ] {
        let (server, client) = meet(&acceptor, &authority.connector_as(&leaf), "localhost").await;
        assert!(server.is_err(), "{why}");
        assert!(client.is_err(), "{why}");
    }
}

#[tokio::test]
async fn a_revoked_client_certificate_ends_the_handshake() {
    let (scratch, authority, clients) = (Scratch::new(), Authority::new(), Authority::new());
    let serial = SerialNumber::from(7);
    let revoked = clients.leaf_with(&["bot-a"], |params| params.serial_number = Some(serial.clone()));
    let today = OffsetDateTime::now_utc();
    let list = CertificateRevocationListParams {
        this_update: today - Duration::days(1),
        next_update: today + Duration::days(1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: serial,
            revocation_time: today,
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&clients.issuer).unwrap().pem().unwrap();

    let mut settings = settings(&scratch, &[&authority.leaf(&["localhost"])]);
    settings.client_authority = Some(scratch.write("client-ca.pem", &clients.pem, 0o644));
    settings.client_revocations = Some(scratch.write("client-crl.pem", &list, 0o644));
    let acceptor = settings.load(now()).unwrap();

    assert!(meet(&acceptor, &authority.connector_as(&revoked), "localhost").await.0.is_err());
    let other = clients.leaf(&["bot-b"]);
    assert!(meet(&acceptor, &authority.connector_as(&other), "localhost").await.0.is_ok());
}

#[tokio::test]
async fn sessions_resume_except_where_client_certificates_are_checked() {
    let (scratch, authority) = (Scratch::new(), Authority::new());
    let mut settings = settings(&scratch, &[&authority.leaf(&["localhost"])]);
    for (client_authority, expected) in
        [(None, HandshakeKind::Resumed), (Some(scratch.write("ca.pem", &authority.pem, 0o644)), HandshakeKind::Full)]
    {
        settings.client_authority = client_authority;
        let (acceptor, connector) = (settings.load(now()).unwrap(), authority.connector());
        meet(&acceptor, &connector, "localhost").await.1.unwrap();
        let (_, client) = meet(&acceptor, &connector, "localhost").await;
        let kind = client.unwrap().handshake_kind();
        assert!(matches!(
            (kind, expected),
            (Some(HandshakeKind::Resumed), HandshakeKind::Resumed)
                | (Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest), HandshakeKind::Full)
        ));
    }
}

#[tokio::test]
async fn a_client_that_speaks_http2_alone_is_refused() {
    let (scratch, authority) = (Scratch::new(), Authority::new());
    let acceptor = settings(&scratch, &[&authority.leaf(&["localhost"])]).load(now()).unwrap();
    let mut config = authority.client_builder().with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (_, client) = meet(&acceptor, &Connector::new(Arc::new(config)), "localhost").await;
    assert_eq!(client.unwrap_err(), "Alert(NoApplicationProtocol)");
}

#[tokio::test]
async fn plain_http_gets_no_http_answer() {
    let (scratch, authority) = (Scratch::new(), Authority::new());
    let acceptor = settings(&scratch, &[&authority.leaf(&["localhost"])]).load(now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert!(acceptor.accept(listener.accept().await.unwrap().0).await.is_err());
    let mut answer = Vec::new();
    let _may_be_reset = socket.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let (scratch, authority) = (Scratch::new(), Authority::new());
    let settings = settings(&scratch, &[&authority.leaf(&["localhost"])]);
    for mode in [0o640, 0o604, 0o644] {
        let key = scratch.path().join("0.key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let message = settings.load(now()).err().unwrap().to_string();
        assert!(message.contains(&format!("chmod 600 {}", key.display())), "{message}");
    }
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let (scratch, authority) = (Scratch::new(), Authority::new());
    let (one, other) = (authority.leaf(&["localhost"]), authority.leaf(&["localhost"]));
    let crossed = Leaf { chain: one.chain.clone(), key: other.key };
    let late =
        authority.leaf_with(&["localhost"], |params| params.not_after = OffsetDateTime::now_utc() - Duration::days(1));
    let early =
        authority.leaf_with(&["localhost"], |params| params.not_before = OffsetDateTime::now_utc() + Duration::days(1));
    let truncated = Leaf { chain: one.chain[..one.chain.len() / 2].to_owned(), key: one.key.clone() };
    let keyless = Leaf { chain: one.chain.clone(), key: String::new() };
    for (leaf, expected) in [
        (&crossed, BadIdentity::Mismatch),
        (&late, BadIdentity::Expired),
        (&early, BadIdentity::NotYetValid),
        (&truncated, BadIdentity::Certificate),
        (&keyless, BadIdentity::Key),
    ] {
        match settings(&scratch, &[leaf]).load(now()) {
            Err(NotLoaded::Identity { why, .. }) => assert_eq!(why, expected),
            other => panic!("{expected:?} became {:?}", other.err()),
        }
    }
    assert!(settings(&scratch, &[&one]).load(now()).is_ok());
}

#[test]
fn an_authority_file_without_certificates_is_refused() {
    let (scratch, authority) = (Scratch::new(), Authority::new());
    let mut settings = settings(&scratch, &[&authority.leaf(&["localhost"])]);
    settings.client_authority = Some(scratch.write("client-ca.pem", "", 0o644));
    assert!(matches!(settings.load(now()), Err(NotLoaded::ClientAuthority { .. })));
    assert_eq!(Connector::with_roots(&ClientRoots::Pem(Vec::new())).err(), Some(BadRoots::Empty));
}

#[test]
fn crypto_can_be_installed_twice() {
    install_crypto();
    install_crypto();
    assert!(CryptoProvider::get_default().is_some());
}

#[test]
fn an_identity_knows_its_names() {
    let leaf = Authority::new().leaf(&["API.kraken.com", "127.0.0.1"]);
    let identity = ServerIdentity::from_pem(leaf.chain.as_bytes(), &Secret::from(leaf.key)).unwrap();
    assert_eq!(identity.names(), ["api.kraken.com"]);
}
