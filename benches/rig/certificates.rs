//! Certificates for `localhost`, ECDSA P-256, as `ca.pem`, `server.pem` and `server.key` in a folder.

use super::process::now;
use countersign::certs::{self, Wanted};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::fs;
use std::path::Path;

/// Those that a proxy has to show: the same as Countersign makes for itself.
pub(crate) fn of_a_proxy(directory: &Path) {
    let wanted = Wanted { directory: directory.to_owned(), names: Vec::new(), clients: Vec::new(), is_forced: false };
    certs::ensure(&wanted, now()).expect("certificates are made in an empty folder");
}

/// Those of an exchange. Its authority has no name constraints: BoringSSL, which Envoy has, verifies none of addresses.
pub(super) fn of_an_exchange(directory: &Path) {
    let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key is made");
    let mut authority = CertificateParams::default();
    // By itself rcgen gives both the same name, and OpenSSL then takes the server's for one that signed itself.
    authority.distinguished_name.push(DnType::CommonName, "Exchange authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = key();
    let authority_pem = authority.self_signed(&authority_key).expect("an authority signs itself").pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut server = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    server.distinguished_name.push(DnType::CommonName, "Exchange");
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = key();
    let server_pem = server.signed_by(&server_key, &issuer).expect("an authority signs").pem();
    for (name, text) in
        [("ca.pem", authority_pem), ("server.pem", server_pem), ("server.key", server_key.serialize_pem())]
    {
        fs::write(directory.join(name), text).expect("the folder can be written");
    }
}
