//! What our certificates look like, and signing them.
//!
//! The shape is what the strictest clients ask for: Python 3.13 sets `VERIFY_X509_STRICT`, which wants key
//! identifiers and key usage; Apple wants at most 398 days and the purpose `serverAuth`.

use super::CertsError;
use super::inspect::Facts;
use crate::fresh::UnixMillis;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

/// How the names of all our authorities begin. Tells our certificates from an operator's own.
pub(super) const NAME_PREFIX: &str = "Countersign development ";

/// Life of a certificate. One day less than Apple's limit.
const LEAF_DAYS: i64 = 397;

/// Life of an authority.
const AUTHORITY_DAYS: i64 = 3650;

/// Bytes of the secret that signs client tokens, and of the master of local keys. HS256 asks for 32 at least (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 48;

/// Whom a certificate is for.
pub(super) enum Subject<'a> {
    ServerAuthority { names: &'a [String] },
    Server { names: &'a [String] },
    ClientAuthority,
    Client { name: &'a str },
}

impl Subject<'_> {
    /// The DNS names that the certificate has to carry.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let (many, one) = match self {
            Self::Server { names } => (*names, None),
            Self::Client { name } => (Default::default(), Some(*name)),
            Self::ServerAuthority { .. } | Self::ClientAuthority => (Default::default(), None),
        };
        many.iter().map(String::as_str).chain(one)
    }

    fn params(&self, now: UnixMillis) -> Result<CertificateParams, CertsError> {
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial_number()?);
        params.use_authority_key_identifier_extension = true;
        // An hour back, for bots in virtual machines whose clock is behind.
        params.not_before = date(now) - Duration::HOUR;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.common_name()?);
        params.subject_alt_names =
            self.names().map(|name| Ok(SanType::DnsName(name.try_into()?))).collect::<Result<_, rcgen::Error>>()?;
        match self {
            Self::ServerAuthority { names } => {
                authority(&mut params);
                params.name_constraints = Some(local_names_alone(names));
            }
            Self::ClientAuthority => authority(&mut params),
            Self::Server { .. } => {
                leaf(&mut params, ExtendedKeyUsagePurpose::ServerAuth);
                params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
                params.subject_alt_names.push(SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)));
            }
            Self::Client { .. } => leaf(&mut params, ExtendedKeyUsagePurpose::ClientAuth),
        }
        Ok(params)
    }

    fn common_name(&self) -> Result<String, CertsError> {
        // Two authorities of one name confuse the stores that look them up by name.
        let mark = || Ok::<_, CertsError>(hex::encode(random::<4>()?));
        Ok(match self {
            Self::ServerAuthority { .. } => format!("{NAME_PREFIX}authority {}", mark()?),
            Self::ClientAuthority => format!("{NAME_PREFIX}client authority {}", mark()?),
            Self::Server { .. } => "Countersign".to_owned(),
            Self::Client { name } => (*name).to_owned(),
        })
    }
}

fn authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_after = params.not_before + Duration::days(AUTHORITY_DAYS);
}

fn leaf(params: &mut CertificateParams, purpose: ExtendedKeyUsagePurpose) {
    // Written out, it brings the subject key identifier with it.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.not_after = params.not_before + Duration::days(LEAF_DAYS);
}

/// A bot that trusts this authority trusts it for these names and addresses, not for the rest of the internet:
/// its key lies in a developer's folder.
fn local_names_alone(names: &[String]) -> NameConstraints {
    let addresses = [
        CidrSubnet::from_v4_prefix(Ipv4Addr::new(127, 0, 0, 0).octets(), 8),
        CidrSubnet::from_v6_prefix(Ipv6Addr::LOCALHOST.octets(), 128),
    ];
    let names = names.iter().cloned().map(GeneralSubtree::DnsName);
    NameConstraints {
        permitted_subtrees: names.chain(addresses.map(GeneralSubtree::IpAddress)).collect(),
        excluded_subtrees: Vec::new(),
    }
}

/// An authority: its certificate, and its key where that is here.
pub(super) struct Authority {
    facts: Facts,
    issuer: Option<Issuer<'static, KeyPair>>,
    path: PathBuf,
    key_path: PathBuf,
}

impl Authority {
    /// Makes a new certificate for `key`. The second part is its PEM.
    pub(super) fn make(key: KeyPair, subject: &Subject<'_>, now: UnixMillis) -> Result<(Self, String), CertsError> {
        let certificate = subject.params(now)?.self_signed(&key)?;
        let facts = Facts::of_der(certificate.der()).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        Ok((Self::of(facts, Some(key))?, certificate.pem()))
    }

    /// An authority as it is.
    pub(super) fn of(facts: Facts, key: Option<KeyPair>) -> Result<Self, CertsError> {
        let issuer = key.map(|key| Issuer::from_ca_cert_der(&facts.der, key)).transpose()?;
        Ok(Self { facts, issuer, path: PathBuf::new(), key_path: PathBuf::new() })
    }

    /// Says where it lies, for messages.
    pub(super) fn at(self, path: PathBuf, key_path: PathBuf) -> Self {
        Self { path, key_path, ..self }
    }

    /// True if it signed that certificate, by the identifiers of their keys.
    pub(super) fn signed(&self, leaf: &Facts) -> bool {
        self.facts.key_id.is_some() && self.facts.key_id == leaf.authority_key_id
    }

    /// Checks that the key is here and that the name constraints allow `subject`.
    pub(super) fn may_issue(&self, subject: &Subject<'_>) -> Result<&Issuer<'static, KeyPair>, CertsError> {
        let issuer = self.issuer.as_ref().ok_or_else(|| CertsError::NoAuthorityKey { path: self.key_path.clone() })?;
        let names: Vec<_> = subject.names().filter(|name| !self.facts.permits(name)).map(str::to_owned).collect();
        if !names.is_empty() {
            return Err(CertsError::NotPermitted { path: self.path.clone(), names });
        }
        Ok(issuer)
    }

    /// Signs a certificate for `key` and gives it as PEM.
    pub(super) fn issue(&self, key: &KeyPair, subject: &Subject<'_>, now: UnixMillis) -> Result<String, CertsError> {
        let issuer = self.may_issue(subject)?;
        Ok(subject.params(now)?.signed_by(key, issuer)?.pem())
    }
}

/// A new private key. ECDSA P-256: every client library has it.
pub(super) fn new_key() -> Result<KeyPair, CertsError> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}

/// A new secret, as base64url text: it passes through shells and environment files unharmed.
pub(super) fn secret() -> Result<Secret, CertsError> {
    let bytes = Zeroizing::new(random::<SECRET_BYTES>()?);
    Ok(Secret::from(URL_SAFE_NO_PAD.encode(*bytes)))
}

/// Random, so that a certificate that is renewed with the same key is another certificate.
fn serial_number() -> Result<SerialNumber, CertsError> {
    let mut bytes = random::<16>()?;
    // Positive and of full length whatever the dice say.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn random<const N: usize>() -> Result<[u8; N], CertsError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(CertsError::Random)?;
    Ok(bytes)
}

fn date(now: UnixMillis) -> OffsetDateTime {
    let seconds = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
