//! Puts a file in its place: whole or not at all, and a private key only where none is.

use super::CertsError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Who may read a file, and whether one may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Everybody reads; the old one is replaced.
    Public,
    /// The owner alone reads; there must be none.
    Private,
    /// The owner alone reads; the old one is replaced.
    PrivateOver,
}

/// Writes `bytes` to `path`.
pub(super) fn place(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), CertsError> {
    let placed = match mode {
        Mode::Private => create(path, bytes, 0o600),
        Mode::PrivateOver => replace(path, bytes, 0o600),
        Mode::Public => replace(path, bytes, 0o644),
    };
    placed.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => CertsError::KeyAppeared { path: path.to_owned() },
        _ => CertsError::Write { path: path.to_owned(), error },
    })
}

/// `create_new` is O_EXCL: neither an existing file nor a link that somebody laid there is written through.
fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    write_all(file, bytes).inspect_err(|_| {
        // Half a key is worse than none: the next run would stop at it.
        let _best_effort = fs::remove_file(path);
    })
}

fn write_all(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// A reader sees the old file or the new one, never a part.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut extension = path.extension().unwrap_or_default().to_owned();
    extension.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_extension(extension);
    create(&fresh, bytes, mode)?;
    fs::rename(&fresh, path).inspect_err(|_| {
        let _best_effort = fs::remove_file(&fresh);
    })
}
