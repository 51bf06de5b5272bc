//! Runs against a folder, and what independent tools say of the outcome.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use super::*;
use crate::tls::tests::{Scratch, meet, now};
use crate::tls::{Certificates, ClientRoots, Connector, ServerSettings};
use rcgen::{CertificateParams, Issuer};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn wanted(scratch: &Scratch) -> Wanted {
    Wanted {
        directory: scratch.path().to_owned(),
        names: vec!["api.kraken.com".to_owned(), "kraken.localhost".to_owned()],
        clients: vec![DEFAULT_CLIENT.to_owned()],
        is_forced: false,
    }
}

fn steps(made: &Made) -> Vec<Step> {
    made.items.iter().map(|item| item.step).collect()
}

fn step_of(made: &Made, role: &Role) -> Step {
    made.items.iter().find(|item| item.role == *role).unwrap().step
}

fn text(scratch: &Scratch, name: &str) -> String {
    fs::read_to_string(scratch.path().join(name)).unwrap()
}

#[test]
fn the_first_run_makes_everything_and_the_second_nothing() {
    let scratch = Scratch::new();
    let made = ensure(&wanted(&scratch), now()).unwrap();
    assert_eq!(steps(&made), [Step::Created; 6]);
    let files =
        ["ca", "server", "client-ca", "bot-a"].iter().flat_map(|stem| [format!("{stem}.pem"), format!("{stem}.key")]);
    let files: Vec<_> = files.chain(["client-jwt.key".to_owned(), "local-keys.key".to_owned()]).collect();
    let before: Vec<_> = files.iter().map(|name| text(&scratch, name)).collect();

    let made = ensure(&wanted(&scratch), now()).unwrap();
    assert_eq!(steps(&made), [Step::Kept; 6]);
    assert_eq!(files.iter().map(|name| text(&scratch, name)).collect::<Vec<_>>(), before);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), files.len());
}

#[test]
fn only_the_owner_reads_what_is_secret() {
    let scratch = Scratch::new();
    for is_forced in [false, true] {
        ensure(&Wanted { is_forced, ..wanted(&scratch) }, now()).unwrap();
        for entry in fs::read_dir(scratch.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            let is_key = entry.path().extension().unwrap() == "key";
            assert_eq!(mode & 0o077 == 0, is_key, "{}", entry.path().display());
        }
    }
}

#[test]
fn the_secrets_are_long_enough_for_hmac_sha256_and_new_each_time() {
    let (one, other) = (Scratch::new(), Scratch::new());
    ensure(&wanted(&one), now()).unwrap();
    ensure(&wanted(&other), now()).unwrap();
    for name in ["client-jwt.key", "local-keys.key"] {
        let secret = text(&one, name);
        assert_eq!(secret.len(), 64);
        assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert_ne!(secret, text(&other, name));
    }
    assert_ne!(text(&one, "client-jwt.key"), text(&one, "local-keys.key"));
}

#[test]
fn a_name_that_the_authority_permits_renews_the_certificate_under_the_same_key() {
    let scratch = Scratch::new();
    ensure(&wanted(&scratch), now()).unwrap();
    let key = text(&scratch, "server.key");
    let names = vec!["api.kraken.com".to_owned(), "bitfinex.localhost".to_owned()];
    let made = ensure(&Wanted { names, ..wanted(&scratch) }, now()).unwrap();
    assert_eq!(step_of(&made, &Role::Server), Step::Renewed(Reason::Names));
    assert_eq!(step_of(&made, &Role::ServerAuthority), Step::Kept);
    assert_eq!(text(&scratch, "server.key"), key);
}

#[test]
fn a_name_outside_the_authority_is_refused_until_forced() {
    let scratch = Scratch::new();
    ensure(&wanted(&scratch), now()).unwrap();
    let before = text(&scratch, "server.pem");
    // The end of a permitted name is not enough: it has to end at a dot.
    for name in ["api.bitfinex.com", "evilapi.kraken.com", "kraken.com"] {
        let names = vec![name.to_owned()];
        let refused = ensure(&Wanted { names, ..wanted(&scratch) }, now()).unwrap_err();
        assert!(matches!(&refused, CertsError::NotPermitted { names, .. } if names == &[name]), "{refused}");
        assert!(refused.to_string().contains("countersign certs --force"));
    }
    assert_eq!(text(&scratch, "server.pem"), before);

    let names = vec!["api.bitfinex.com".to_owned()];
    let made = ensure(&Wanted { names, is_forced: true, ..wanted(&scratch) }, now()).unwrap();
    assert_eq!(steps(&made), [Step::Renewed(Reason::Forced); 6]);
}

#[test]
fn certificates_near_their_end_are_renewed_as_others() {
    let scratch = Scratch::new();
    ensure(&wanted(&scratch), now()).unwrap();
    let before = text(&scratch, "server.pem");
    assert_eq!(steps(&ensure(&wanted(&scratch), now().plus(366 * DAY)).unwrap()), [Step::Kept; 6]);
    let made = ensure(&wanted(&scratch), now().plus(368 * DAY)).unwrap();
    assert_eq!(step_of(&made, &Role::Server), Step::Renewed(Reason::Expiry));
    assert_eq!(step_of(&made, &Role::Client(DEFAULT_CLIENT.to_owned())), Step::Renewed(Reason::Expiry));
    assert_eq!(step_of(&made, &Role::ServerAuthority), Step::Kept);
    assert_ne!(text(&scratch, "server.pem"), before);
    let over = ensure(&wanted(&scratch), now().plus(3640 * DAY)).unwrap_err();
    assert!(matches!(over, CertsError::AuthorityExpires { .. }));
}

#[test]
fn the_authoritys_key_is_needed_only_to_sign() {
    let scratch = Scratch::new();
    ensure(&wanted(&scratch), now()).unwrap();
    fs::remove_file(scratch.path().join("ca.key")).unwrap();
    assert_eq!(steps(&ensure(&wanted(&scratch), now()).unwrap()), [Step::Kept; 6]);

    fs::remove_file(scratch.path().join("server.pem")).unwrap();
    let refused = ensure(&wanted(&scratch), now()).unwrap_err();
    assert!(matches!(&refused, CertsError::NoAuthorityKey { path } if path.ends_with("ca.key")));
}

#[test]
fn a_certificate_of_a_lost_authority_is_signed_by_the_new_one() {
    let scratch = Scratch::new();
    ensure(&wanted(&scratch), now()).unwrap();
    let key = text(&scratch, "server.key");
    for name in ["ca.pem", "ca.key"] {
        fs::remove_file(scratch.path().join(name)).unwrap();
    }
    let made = ensure(&wanted(&scratch), now()).unwrap();
    assert_eq!(step_of(&made, &Role::ServerAuthority), Step::Created);
    assert_eq!(step_of(&made, &Role::Server), Step::Renewed(Reason::Authority));
    assert_eq!(text(&scratch, "server.key"), key);
}

#[test]
fn keys_that_do_not_belong_to_their_certificates_are_noticed() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    ensure(&wanted(&scratch), now()).unwrap();
    ensure(&wanted(&other), now()).unwrap();
    fs::copy(other.path().join("server.key"), scratch.path().join("server.key")).unwrap();
    let made = ensure(&wanted(&scratch), now()).unwrap();
    assert_eq!(step_of(&made, &Role::Server), Step::Renewed(Reason::Key));
    assert_eq!(text(&scratch, "server.key"), text(&other, "server.key"));

    fs::copy(other.path().join("ca.key"), scratch.path().join("ca.key")).unwrap();
    assert!(matches!(ensure(&wanted(&scratch), now()), Err(CertsError::AuthorityMismatch { .. })));
}

#[test]
fn a_certificate_of_another_authority_is_left_alone() {
    let scratch = Scratch::new();
    let key = issue::new_key().unwrap();
    let own = CertificateParams::new(vec!["proxy.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    scratch.write("server.pem", &own.pem(), 0o644);
    scratch.write("server.key", &key.serialize_pem(), 0o600);
    let made = ensure(&wanted(&scratch), now()).unwrap();
    assert_eq!(step_of(&made, &Role::Server), Step::LeftAlone);
    assert_eq!(text(&scratch, "server.pem"), own.pem());
    assert!(!scratch.path().join("ca.key").exists());
}

#[test]
fn a_link_in_the_place_of_a_key_is_not_written_through() {
    let (scratch, elsewhere) = (Scratch::new(), Scratch::new());
    let target = elsewhere.path().join("stolen.key");
    symlink(&target, scratch.path().join("ca.key")).unwrap();
    assert!(matches!(ensure(&wanted(&scratch), now()), Err(CertsError::KeyAppeared { .. })));
    assert!(!target.exists());
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let scratch = Scratch::new();
    ensure(&wanted(&scratch), now()).unwrap();
    fs::set_permissions(scratch.path().join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = ensure(&wanted(&scratch), now()).unwrap_err();
    assert!(refused.to_string().contains("chmod 600"), "{refused}");
}

#[test]
fn names_that_would_leave_the_folder_or_the_alphabet_are_refused() {
    let scratch = Scratch::new();
    for client in ["", "../bot", "a/b", ".hidden", "ca", "Server", "client-jwt", "local-keys", "bot a", "b*"] {
        let clients = vec![client.to_owned()];
        assert!(matches!(ensure(&Wanted { clients, ..wanted(&scratch) }, now()), Err(CertsError::BadClient(_))));
    }
    for name in ["", "*.localhost", "a b", "127.0.0.1", "kraken.com.", "https://kraken.com"] {
        let names = vec![name.to_owned()];
        assert!(matches!(ensure(&Wanted { names, ..wanted(&scratch) }, now()), Err(CertsError::BadName(_))), "{name}");
    }
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

fn settings(scratch: &Scratch) -> ServerSettings {
    ServerSettings {
        certificates: Certificates::Directory(scratch.path().to_owned()),
        client_authority: Some(scratch.path().join("client-ca.pem")),
        client_revocations: None,
    }
}

fn connector(scratch: &Scratch) -> Connector {
    Connector::with_roots(&ClientRoots::Pem(text(scratch, "ca.pem").into_bytes())).unwrap()
}

#[tokio::test]
async fn our_own_tls_accepts_them_by_every_name() {
    let scratch = Scratch::new();
    ensure(&wanted(&scratch), now()).unwrap();
    let acceptor = settings(&scratch).load(now()).unwrap();
    for name in ["localhost", "127.0.0.1", "::1", "api.kraken.com", "kraken.localhost"] {
        assert!(meet(&acceptor, &connector(&scratch), name).await.1.is_ok(), "{name}");
    }
    assert_eq!(meet(&acceptor, &connector(&scratch), "api.bitfinex.com").await.1.unwrap_err(), "WrongName");
}

#[tokio::test]
async fn the_authority_cannot_vouch_for_the_rest_of_the_internet() {
    let scratch = Scratch::new();
    ensure(&wanted(&scratch), now()).unwrap();
    let authority = KeyPair::from_pem(&text(&scratch, "ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&text(&scratch, "ca.pem"), authority).unwrap();
    for name in ["bank.example", "10.0.0.1"] {
        let key = KeyPair::from_pem(&text(&scratch, "server.key")).unwrap();
        let forged = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        scratch.write("server.pem", &forged.pem(), 0o644);
        let acceptor = settings(&scratch).load(now()).unwrap();
        assert_eq!(meet(&acceptor, &connector(&scratch), name).await.1.unwrap_err(), "BadCertificate");
    }
}

#[test]
fn openssl_accepts_them_at_its_strictest() {
    let scratch = Scratch::new();
    ensure(&wanted(&scratch), now()).unwrap();
    for (authority, leaf, purpose) in
        [("ca.pem", "server.pem", "sslserver"), ("client-ca.pem", "bot-a.pem", "sslclient")]
    {
        let run = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile", authority, leaf])
            .current_dir(scratch.path())
            .output();
        // Machines without the tool rely on those that have it.
        let Ok(run) = run else { return };
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
}

/// A handshake in memory with the flag that Python sets by default from 3.13 on.
const STRICT_PYTHON: &str = r#"
import ssl, sys
def handshake(name):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain("server.pem", "server.key")
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    server.load_verify_locations("client-ca.pem")
    client = ssl.create_default_context(cafile="ca.pem")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_cert_chain("bot-a.pem", "bot-a.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server, server_hostname=name), server.wrap_bio(to_server, to_client, server_side=True)]
    waiting = list(ends)
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    return ends[1].getpeercert()["subjectAltName"]
for name in ("localhost", "127.0.0.1", "::1", "api.kraken.com", "kraken.localhost"):
    assert handshake(name) == (("DNS", "bot-a"),)
try:
    handshake("api.bitfinex.com")
    sys.exit("a wrong name was accepted")
except ssl.SSLCertVerificationError:
    print("accepted")
"#;

#[test]
fn python_accepts_them_at_its_strictest() {
    let scratch = Scratch::new();
    ensure(&wanted(&scratch), now()).unwrap();
    let run = Command::new("python3").args(["-c", STRICT_PYTHON]).current_dir(scratch.path()).output();
    // Machines without the tool rely on those that have it.
    let Ok(run) = run else { return };
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(run.stdout, b"accepted\n");
}
