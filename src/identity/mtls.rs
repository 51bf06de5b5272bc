//! Client certificates: which name one carries, and for how long.
//!
//! Not whether to trust it: rustls has verified its chain, and CRLs where configured, before this is asked.

use super::{NotAuthenticated, proved_name};
use crate::fresh::UnixMillis;
use crate::names::ClientName;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// A client certificate, read. Says nothing until [`authenticate`](super::authenticate) has looked at the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateProof {
    name: ClientName,
    begins_at: UnixMillis,
    ends_at: UnixMillis,
}

impl CertificateProof {
    /// Reads the first certificate of a chain that the TLS handshake has verified, as DER.
    ///
    /// Its name is its one SPIFFE URI; else its one DNS name, in lower case; else, where it has no subject alternative
    /// name at all, its one common name. Two of a kind are refused: a grant to one would be a grant to the other.
    pub fn from_verified_leaf(der: &[u8]) -> Result<Self, NotAuthenticated> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NotAuthenticated::Certificate)?;
        if !rest.is_empty() {
            return Err(NotAuthenticated::Certificate);
        }
        let text = name_of(&certificate)?;
        let name = proved_name(&text).ok_or(NotAuthenticated::CertificateName)?;
        let validity = certificate.validity();
        // A time before 1970 becomes 1970: a certificate that ended then has ended.
        let moment = |seconds: i64| UnixMillis::from_seconds(u64::try_from(seconds).unwrap_or(0));
        Ok(Self {
            name,
            begins_at: moment(validity.not_before.timestamp()),
            ends_at: moment(validity.not_after.timestamp()),
        })
    }

    /// The name, if the certificate is valid at this moment. No leeway: rustls has given none either.
    pub(super) fn name_at(&self, now: UnixMillis) -> Result<&ClientName, NotAuthenticated> {
        if now >= self.ends_at {
            return Err(NotAuthenticated::Expired);
        }
        if now < self.begins_at {
            return Err(NotAuthenticated::NotYetValid);
        }
        Ok(&self.name)
    }

    /// `notAfter`, to the second.
    pub(super) fn ends_at(&self) -> UnixMillis {
        self.ends_at
    }
}

fn name_of(certificate: &X509Certificate<'_>) -> Result<String, NotAuthenticated> {
    let alternatives = certificate.subject_alternative_name().map_err(|_| NotAuthenticated::Certificate)?;
    let Some(alternatives) = alternatives else {
        return common_name(certificate);
    };
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    for name in &alternatives.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(dns_name) => dns_names.push(*dns_name),
            GeneralName::Invalid(..) => return Err(NotAuthenticated::Certificate),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_) => {}
        }
    }
    // X509-SVID section 2: with more than one URI, whatever their schemes, the certificate is refused.
    if uris.len() > 1 {
        return Err(NotAuthenticated::CertificateAmbiguous);
    }
    if let Some(uri) = uris.first().filter(|uri| has_spiffe_scheme(uri)) {
        return if is_spiffe_id(uri) { Ok((*uri).to_owned()) } else { Err(NotAuthenticated::CertificateName) };
    }
    one_plain_name(&dns_names).map(str::to_ascii_lowercase)
}

fn common_name(certificate: &X509Certificate<'_>) -> Result<String, NotAuthenticated> {
    let names: Vec<&str> = certificate
        .subject()
        .iter_common_name()
        .map(|name| name.as_str().map_err(|_| NotAuthenticated::CertificateName))
        .collect::<Result<_, _>>()?;
    one_plain_name(&names).map(str::to_owned)
}

/// The only name there is. It may not look like a URI: an authority that checks URIs and lets its users choose their
/// DNS or common name would let them choose each other's.
fn one_plain_name<'a>(names: &[&'a str]) -> Result<&'a str, NotAuthenticated> {
    match names {
        [] => Err(NotAuthenticated::CertificateName),
        [name] if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte)) => Ok(name),
        [_] => Err(NotAuthenticated::CertificateName),
        [_, _, ..] => Err(NotAuthenticated::CertificateAmbiguous),
    }
}

fn has_spiffe_scheme(uri: &str) -> bool {
    uri.get(..9).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe://"))
}

/// True for a workload's id as SPIFFE-ID section 2 writes it: one spelling only, so that equal text is equal identity.
fn is_spiffe_id(uri: &str) -> bool {
    let Some((domain, path)) = uri.strip_prefix("spiffe://").and_then(|id| id.split_once('/')) else {
        return false;
    };
    let is_domain_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    !domain.is_empty() && domain.bytes().all(is_domain_byte) && path.split('/').all(is_segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Method, Proof, TrustedKeys, authenticate};
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType, date_time_ymd};

    const YEAR_2030: UnixMillis = UnixMillis(1_893_456_000_000);

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("is ASCII"))
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().expect("is ASCII"))
    }

    /// A certificate valid from 2029-01-01 to 2031-01-01.
    fn leaf(names: &[SanType], common_names: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2029, 1, 1);
        params.not_after = date_time_ymd(2031, 1, 1);
        params.subject_alt_names = names.to_vec();
        params.distinguished_name = DistinguishedName::new();
        for (index, name) in common_names.iter().enumerate() {
            // rcgen keeps one value for each type; a second common name needs the type under its number.
            let kind = if index == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3]) };
            params.distinguished_name.push(kind, *name);
        }
        let key = KeyPair::generate().expect("a key pair can be made");
        params.self_signed(&key).expect("the certificate can be signed").der().to_vec()
    }

    fn name(names: &[SanType], common_names: &[&str]) -> Result<String, NotAuthenticated> {
        CertificateProof::from_verified_leaf(&leaf(names, common_names)).map(|proof| proof.name.as_str().to_owned())
    }

    #[test]
    fn one_spiffe_uri_is_the_name_whatever_else_there_is() {
        let names = [dns("bot.desk.test"), dns("other.desk.test"), uri("spiffe://desk.test/bot/a")];
        assert_eq!(name(&names, &["someone"]).as_deref(), Ok("spiffe://desk.test/bot/a"));
    }

    #[test]
    fn two_uris_are_ambiguous_even_if_one_is_not_spiffe() {
        for other in ["spiffe://desk.test/bot/b", "https://desk.test/b"] {
            let names = [uri("spiffe://desk.test/bot/a"), uri(other)];
            assert_eq!(name(&names, &[]), Err(NotAuthenticated::CertificateAmbiguous));
        }
    }

    #[test]
    fn a_spiffe_uri_in_another_spelling_is_no_name_and_nothing_else_stands_in() {
        for bad in [
            "SPIFFE://desk.test/bot/a",
            "spiffe://Desk.test/bot/a",
            "spiffe://desk.test",
            "spiffe://desk.test/",
            "spiffe://desk.test/bot//a",
            "spiffe://desk.test/bot/../a",
            "spiffe://desk.test/bot/%61",
            "spiffe://desk.test:443/bot",
            "spiffe://desk.test/bot?a",
            "spiffe:///bot",
        ] {
            assert_eq!(name(&[uri(bad), dns("bot.desk.test")], &[]), Err(NotAuthenticated::CertificateName), "{bad}");
        }
    }

    #[test]
    fn one_dns_name_is_the_name_and_several_are_ambiguous() {
        assert_eq!(name(&[dns("Bot.Desk.test")], &["someone"]).as_deref(), Ok("bot.desk.test"));
        assert_eq!(name(&[uri("https://desk.test/a"), dns("bot.desk.test")], &[]).as_deref(), Ok("bot.desk.test"));
        let two = [dns("bot.desk.test"), dns("other.desk.test")];
        assert_eq!(name(&two, &[]), Err(NotAuthenticated::CertificateAmbiguous));
    }

    #[test]
    fn the_common_name_counts_only_without_any_alternative_name() {
        assert_eq!(name(&[], &["bot-a"]).as_deref(), Ok("bot-a"));
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        assert_eq!(name(&[address], &["bot-a"]), Err(NotAuthenticated::CertificateName));
        assert_eq!(name(&[], &[]), Err(NotAuthenticated::CertificateName));
        assert_eq!(name(&[], &["bot-a", "bot-b"]), Err(NotAuthenticated::CertificateAmbiguous));
    }

    #[test]
    fn a_dns_or_common_name_cannot_pose_as_a_spiffe_id_a_wildcard_or_nobody() {
        for posing in ["spiffe://desk.test/bot/a", "*.desk.test", "anonymous", "bot a"] {
            assert_eq!(name(&[dns(posing)], &[]), Err(NotAuthenticated::CertificateName), "{posing}");
            assert_eq!(name(&[], &[posing]), Err(NotAuthenticated::CertificateName), "{posing}");
        }
    }

    #[test]
    fn a_certificate_counts_from_its_first_second_until_its_last() {
        let proof = CertificateProof::from_verified_leaf(&leaf(&[dns("bot.desk.test")], &[])).expect("has one name");
        let at = |now| authenticate(&Proof::Certificate(proof.clone()), now, &TrustedKeys::default());
        let principal = at(YEAR_2030).expect("is valid in 2030");
        assert_eq!((principal.method(), principal.scope()), (Method::Certificate, None));
        assert_eq!(principal.name().as_str(), "bot.desk.test");
        let ends_at = principal.ends_at().expect("a certificate has an end");
        assert_eq!(ends_at, UnixMillis(1_924_992_000_000));
        assert!(at(UnixMillis(ends_at.0 - 1)).is_ok());
        assert_eq!(at(ends_at), Err(NotAuthenticated::Expired));
        assert!(at(UnixMillis(1_861_920_000_000)).is_ok());
        assert_eq!(at(UnixMillis(1_861_919_999_999)), Err(NotAuthenticated::NotYetValid));
    }

    #[test]
    fn bytes_that_are_not_exactly_one_certificate_are_refused() {
        let mut der = leaf(&[dns("bot.desk.test")], &[]);
        assert!(CertificateProof::from_verified_leaf(&der).is_ok());
        der.push(0);
        assert_eq!(CertificateProof::from_verified_leaf(&der), Err(NotAuthenticated::Certificate));
        assert_eq!(CertificateProof::from_verified_leaf(&der[..100]), Err(NotAuthenticated::Certificate));
        assert_eq!(CertificateProof::from_verified_leaf(b""), Err(NotAuthenticated::Certificate));
    }
}
