//! Where a secret stands, and how it is fetched from there.
//!
//! Never the secret itself: a reference may be printed, logged and committed.

use crate::secret::Secret;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest secret or PEM file. A bundle of certificates stays well under it; a log file given by mistake does not.
const BYTES_MAX: u64 = 256 * 1024;

/// Where a secret stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In a file, as it was written: relative paths start at the folder of the configuration.
    File(PathBuf),
    /// In a variable of the process's environment.
    Env(String),
}

/// Where something stands that everybody may read: the public key of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicRef(pub SecretRef);

/// Why a reference gave nothing. Names files and variables, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is no such file.
    #[error("{path} is not there: make it, or change the reference")]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// There is no such variable.
    #[error("environment variable {name} is not set: set it, or change the reference")]
    NoVariable {
        /// The variable.
        name: String,
    },
    /// A folder, a pipe or a device.
    #[error("{path} is not a plain file")]
    NotPlain {
        /// What was found.
        path: PathBuf,
    },
    /// Every user of the machine can read it.
    #[error(
        "{path} can be read by every user: run `chmod 600 {path}` (for a Kubernetes secret, set `defaultMode: 0440` and \
         `fsGroup`), and renew the secret if others use this machine"
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
    },
    /// Nothing in it.
    #[error("{place} is empty")]
    Empty {
        /// The file or variable.
        place: String,
    },
    /// Longer than 256 KiB.
    #[error("{place} is longer than any secret")]
    TooLong {
        /// The file or variable.
        place: String,
    },
    /// The system refused.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SecretRef {
    /// Fetches the secret. `base` is the folder of the configuration. Line ends after it are dropped; an empty secret
    /// and a file that every user can read are refused.
    pub fn resolve(&self, base: &Path) -> Result<Secret, SecretError> {
        self.read(base, true)
    }

    /// Never through figment, which would read `0012` as the number 12 and print the value of a mistake.
    fn read(&self, base: &Path, is_private: bool) -> Result<Secret, SecretError> {
        let mut bytes = match self {
            Self::File(path) => read_file(&base.join(path), is_private)?,
            Self::Env(name) => {
                std::env::var_os(name).ok_or_else(|| SecretError::NoVariable { name: name.clone() })?.into_vec()
            }
        };
        let length = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        // The bytes move into the `Secret`, line ends and all, which wipes them however long the text is.
        bytes.truncate(length);
        let secret = Secret::new(bytes);
        if secret.is_empty() {
            return Err(SecretError::Empty { place: self.place(base) });
        }
        if secret.len() as u64 > BYTES_MAX {
            return Err(SecretError::TooLong { place: self.place(base) });
        }
        Ok(secret)
    }

    fn place(&self, base: &Path) -> String {
        match self {
            Self::File(path) => base.join(path).display().to_string(),
            Self::Env(name) => format!("environment variable {name}"),
        }
    }
}

impl PublicRef {
    /// Fetches the bytes, as [`SecretRef::resolve`] does, from files of any mode.
    pub fn resolve(&self, base: &Path) -> Result<Vec<u8>, SecretError> {
        self.0.read(base, false).map(|bytes| bytes.expose().to_vec())
    }
}

/// Follows symbolic links: Kubernetes mounts its secrets through two of them.
fn read_file(path: &Path, is_private: bool) -> Result<Vec<u8>, SecretError> {
    let failed = |source: io::Error| SecretError::Io { path: path.to_owned(), source };
    // NONBLOCK: a pipe under the name must be refused, not waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Err(SecretError::NoFile { path: path.to_owned() }),
        Err(error) => return Err(failed(error.into())),
    };
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(SecretError::NotPlain { path: path.to_owned() });
    }
    if is_private && facts.mode() & 0o004 != 0 {
        return Err(SecretError::OpenToOthers { path: path.to_owned() });
    }
    // One allocation, so that growing leaves no copy of the secret behind.
    let expected = usize::try_from(facts.len().min(BYTES_MAX)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(expected + 2);
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    const CANARY: &str = "hunter2-canary";

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("countersign-secret-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("set up");
        folder
    }

    fn write(folder: &Path, text: &str, mode: u32) -> SecretRef {
        std::fs::write(folder.join("secret"), text).expect("set up");
        std::fs::set_permissions(folder.join("secret"), Permissions::from_mode(mode)).expect("set up");
        SecretRef::File("secret".into())
    }

    #[test]
    fn a_file_beside_the_configuration_is_read_without_its_line_end() {
        let base = folder("plain");
        for (text, mode) in [("hunter2-canary\n", 0o600), ("hunter2-canary\r\n", 0o640), ("hunter2-canary", 0o400)] {
            let secret = write(&base, text, mode).resolve(&base).expect("set up");
            assert_eq!(secret.expose(), CANARY.as_bytes());
            std::fs::remove_file(base.join("secret")).expect("set up");
        }
    }

    #[test]
    fn a_file_that_every_user_can_read_is_no_secret_but_may_be_a_public_key() {
        let base = folder("mode");
        let reference = write(&base, CANARY, 0o644);
        let refused = reference.resolve(&base).expect_err("refused").to_string();
        assert!(refused.contains("chmod 600") && !refused.contains(CANARY), "{refused}");
        assert_eq!(PublicRef(reference).resolve(&base).expect("set up"), CANARY.as_bytes());
    }

    #[test]
    fn a_link_as_kubernetes_makes_it_is_followed() {
        let base = folder("link");
        write(&base, CANARY, 0o600);
        std::os::unix::fs::symlink("secret", base.join("link")).expect("set up");
        assert_eq!(SecretRef::File("link".into()).resolve(&base).expect("set up").expose(), CANARY.as_bytes());
    }

    #[test]
    fn what_is_empty_missing_too_long_or_no_file_is_refused() {
        let base = folder("refused");
        assert!(matches!(write(&base, "\n", 0o600).resolve(&base), Err(SecretError::Empty { .. })));
        let long = "x".repeat(300 * 1024);
        assert!(matches!(write(&base, &long, 0o600).resolve(&base), Err(SecretError::TooLong { .. })));
        let missing = SecretRef::File("missing".into());
        assert!(matches!(missing.resolve(&base), Err(SecretError::NoFile { .. })));
        assert!(matches!(SecretRef::File(".".into()).resolve(&base), Err(SecretError::NotPlain { .. })));
        let pipe = base.join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR | Mode::WUSR).expect("set up");
        assert!(matches!(SecretRef::File(pipe).resolve(&base), Err(SecretError::NotPlain { .. })));
    }

    #[test]
    fn a_variable_is_read_as_it_is() {
        // Cargo sets this one for every test.
        let secret = SecretRef::Env("CARGO_PKG_NAME".to_owned()).resolve(Path::new("")).expect("set up");
        assert_eq!(secret.expose(), b"countersign");
        let missing = SecretRef::Env("COUNTERSIGN_TEST_UNSET".to_owned()).resolve(Path::new(""));
        assert!(matches!(missing, Err(SecretError::NoVariable { .. })));
    }
}
