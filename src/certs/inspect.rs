//! What a certificate on disk says about itself.

use super::CertsError;
use super::issue::NAME_PREFIX;
use crate::fresh::UnixMillis;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io;
use std::path::Path;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

/// The parts of a certificate that decide whether it still serves.
pub(super) struct Facts {
    pub(super) der: CertificateDer<'static>,
    /// Its DNS names.
    pub(super) names: Vec<String>,
    pub(super) not_after: UnixMillis,
    /// The DNS names that it may sign for, with all below them. None: it carries no name constraints.
    pub(super) permitted: Option<Vec<String>>,
    /// Its own key identifier, and that of its authority.
    pub(super) key_id: Option<Vec<u8>>,
    pub(super) authority_key_id: Option<Vec<u8>>,
    issuer: String,
    public_key_info: Vec<u8>,
}

impl Facts {
    /// Reads the first certificate of a PEM file. None if there is no file.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, CertsError> {
        let pem = match std::fs::read(path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(crate::tls::NotLoaded::Read { path: path.to_owned(), error }.into()),
        };
        let unreadable = || CertsError::Unreadable { path: path.to_owned(), what: "certificate" };
        let der = CertificateDer::from_pem_slice(&pem).map_err(|_| unreadable())?;
        Self::of_der(&der).map(Some).ok_or_else(unreadable)
    }

    /// Reads a certificate. None if it is not one.
    pub(super) fn of_der(der: &CertificateDer<'static>) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        Some(Self::of(&certificate, der.clone()))
    }

    fn of(certificate: &X509Certificate<'_>, der: CertificateDer<'static>) -> Self {
        let mut facts = Self {
            der,
            names: Vec::new(),
            not_after: UnixMillis::from_seconds(
                u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0),
            ),
            permitted: None,
            key_id: None,
            authority_key_id: None,
            issuer: certificate.issuer().to_string(),
            public_key_info: certificate.public_key().raw.to_vec(),
        };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(san) => facts.names = dns_names(san.general_names.iter()),
                ParsedExtension::NameConstraints(constraints) => {
                    let permitted = constraints.permitted_subtrees.iter().flatten();
                    facts.permitted = Some(dns_names(permitted.map(|subtree| &subtree.base)));
                }
                ParsedExtension::SubjectKeyIdentifier(id) => facts.key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    facts.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
        facts
    }

    /// True if an authority that this module made signed it.
    pub(super) fn is_ours(&self) -> bool {
        self.issuer.strip_prefix("CN=").is_some_and(|name| name.starts_with(NAME_PREFIX))
    }

    /// True if this is the certificate of `key`.
    pub(super) fn belongs_to(&self, key: &KeyPair) -> bool {
        self.public_key_info == key.subject_public_key_info()
    }

    /// True if its name constraints let it sign for `name`.
    pub(super) fn permits(&self, name: &str) -> bool {
        let Some(permitted) = &self.permitted else { return true };
        permitted.iter().any(|subtree| {
            name.strip_suffix(subtree.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

fn dns_names<'a>(names: impl Iterator<Item = &'a GeneralName<'a>>) -> Vec<String> {
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}
