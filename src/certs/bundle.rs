//! The roots that a bot should trust: those of the system, and our own authority.
//!
//! `SSL_CERT_FILE` takes the place of the system's roots in most programs, so a file with our authority alone would cut
//! a bot off from everything else. Certificates alone are copied: what else stands in a file of roots stays there.

use super::CertsError;
use super::files::{Mode, place};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Where systems keep their roots as one PEM file: Debian and Alpine, RHEL and Fedora, SUSE, macOS.
const WELL_KNOWN: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Largest file of roots that is read; Mozilla's are 220 KiB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Files of a folder of roots that are looked at.
const FILES_MAX: usize = 2_000;

/// Where the system's roots are looked for.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// `SSL_CERT_FILE`: one PEM file.
    pub file: Option<OsString>,
    /// `SSL_CERT_DIR`: folders with a PEM file for each root, separated by colons.
    pub directories: Option<OsString>,
}

impl Roots {
    /// As this process's environment says.
    pub fn from_environment() -> Self {
        let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self { file: named("SSL_CERT_FILE"), directories: named("SSL_CERT_DIR") }
    }
}

/// A file of roots that is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Where it is.
    pub path: PathBuf,
    /// How many roots of the system are in it. None were found: bots that trust it can reach nobody but us.
    pub system_roots: usize,
}

/// Writes the system's roots and those in `own` to `path`, unless that is what stands there. A reader sees the old
/// file or the new one.
pub fn ensure(path: &Path, own: &Path, roots: &Roots) -> Result<Bundle, CertsError> {
    let ours = certificates(own).map_err(|error| crate::tls::NotLoaded::Read { path: own.to_owned(), error })?;
    let mut all = system(path, roots);
    // In a second bundle that begins with the first, our own would be counted as the system's.
    all.retain(|root| !ours.contains(root));
    let system_roots = all.len();
    all.extend(ours);
    let text: String = all.iter().map(|root| pem(root)).collect();
    if fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(Bundle { path: path.to_owned(), system_roots });
    }
    place(path, text.as_bytes(), Mode::Public)?;
    Ok(Bundle { path: path.to_owned(), system_roots })
}

/// What the environment names; else what is at the first well-known place that has any. Each root once.
fn system(bundle: &Path, roots: &Roots) -> Vec<CertificateDer<'static>> {
    // A bot that we started may start us: its SSL_CERT_FILE is our bundle, with roots that may be gone by now.
    let is_bundle = |file: &Path| match (fs::canonicalize(file), fs::canonicalize(bundle)) {
        (Ok(file), Ok(bundle)) => file == bundle,
        _ => false,
    };
    let mut found = Vec::new();
    if let Some(file) = roots.file.as_deref().map(Path::new).filter(|file| !is_bundle(file)) {
        found.extend(certificates(file).unwrap_or_default());
    }
    for directory in roots.directories.as_deref().map(std::env::split_paths).into_iter().flatten() {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|file| !is_bundle(file));
        let mut files: Vec<PathBuf> = files.take(FILES_MAX).collect();
        files.sort();
        found.extend(files.iter().flat_map(|file| certificates(file).unwrap_or_default()));
    }
    if found.is_empty() {
        let places = WELL_KNOWN.iter().map(|place| certificates(Path::new(place)).unwrap_or_default());
        found = places.into_iter().find(|roots| !roots.is_empty()).unwrap_or_default();
    }
    let mut seen = HashSet::new();
    found.retain(|root| seen.insert(root.as_ref().to_vec()));
    found
}

/// The certificates in a PEM file, in order.
fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let mut text = Vec::new();
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file"));
    }
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect())
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let encoded = BASE64.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::{Wanted, ensure as make};
    use crate::fresh::UnixMillis;
    use std::os::unix::fs::PermissionsExt as _;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("countersign-bundle-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let wanted = Wanted { directory: folder.clone(), names: Vec::new(), clients: Vec::new(), is_forced: false };
        make(&wanted, UnixMillis(1_750_000_000_000)).expect("set up");
        folder
    }

    fn named(file: &Path) -> Roots {
        Roots { file: Some(file.into()), directories: None }
    }

    #[test]
    fn the_bundle_holds_the_system_s_roots_and_ours_and_no_key() {
        let folder = folder("both");
        let system = folder.join("system.pem");
        let mut text = fs::read(folder.join("client-ca.pem")).expect("set up");
        text.extend(fs::read(folder.join("client-ca.key")).expect("set up"));
        fs::write(&system, text).expect("set up");
        let bundle = ensure(&folder.join("bundle.pem"), &folder.join("ca.pem"), &named(&system)).expect("written");
        assert_eq!(bundle.system_roots, 1);
        let written = fs::read_to_string(&bundle.path).expect("a text");
        assert_eq!(written.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!written.contains("PRIVATE"));
        let whole: Vec<_> =
            ["client-ca.pem", "ca.pem"].iter().flat_map(|name| certificates(&folder.join(name))).collect();
        assert_eq!(certificates(&bundle.path).expect("readable"), whole.concat());
        assert_eq!(fs::metadata(&bundle.path).expect("there").permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_bundle_is_made_again_only_when_a_root_has_changed() {
        let folder = folder("again");
        let (path, own, system) = (folder.join("bundle.pem"), folder.join("ca.pem"), folder.join("client-ca.pem"));
        ensure(&path, &own, &named(&system)).expect("written");
        let first = fs::metadata(&path).expect("there").modified().expect("a time");
        ensure(&path, &own, &named(&system)).expect("kept");
        assert_eq!(fs::metadata(&path).expect("there").modified().expect("a time"), first);
        let before = fs::read(&path).expect("there");
        ensure(&path, &own, &named(&folder.join("server.pem"))).expect("written");
        assert_ne!(fs::read(&path).expect("there"), before);
    }

    #[test]
    fn a_bundle_that_is_named_as_the_system_s_roots_does_not_grow() {
        let folder = folder("nested");
        let (path, own) = (folder.join("bundle.pem"), folder.join("ca.pem"));
        let roots = Roots { file: None, directories: Some(folder.clone().into()) };
        let bundle = ensure(&path, &own, &roots).expect("written");
        let before = fs::read(&path).expect("there");
        let again = ensure(&path, &own, &roots).expect("kept");
        assert_eq!((again, fs::read(&path).expect("there")), (bundle, before));
    }

    #[test]
    fn without_our_own_authority_there_is_no_bundle() {
        let folder = folder("none");
        let error = ensure(&folder.join("bundle.pem"), &folder.join("gone.pem"), &Roots::default());
        assert!(matches!(error, Err(CertsError::Read(_))));
        assert!(!folder.join("bundle.pem").exists());
    }
}
