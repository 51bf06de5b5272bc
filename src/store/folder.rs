//! A folder that is ours alone: files in it are read only if nobody else could have written them, and replaced whole.
//!
//! Knows nothing of nonces or tokens. Everything goes through a handle of the folder, so a folder that is swapped
//! for another after the check is never written to.

use super::StoreError;
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The file whose lock says that a process has the folder.
const LOCK: &str = "lock";

/// A folder with mode 0700, held by this process until dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    handle: File,
    /// The lock ends when this closes: with the process, however it ends.
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing, checks it, takes its lock, and clears away what a crash left half written.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        // `components` drops a trailing slash, which would let a symbolic link pass for the folder behind it.
        let path: PathBuf = path.components().collect();
        create(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(handle) => File::from(handle),
            // Linux calls a symbolic link that must be a folder "not a directory", others call it a loop.
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(StoreError::NotPlain { path }),
            Err(error) => return Err(failed("open", &path, error)),
        };
        check(&handle, &path, Kind::Folder)?;
        let lock = lock(&handle, &path.join(LOCK))?;
        let folder = Self { path, handle, _lock: lock };
        folder.remove_leftovers()?;
        Ok(folder)
    }

    /// Where a file of the folder is, for messages.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file's content, cut after `bytes_max`; `None` if there is no such file.
    pub(super) fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let path = self.path_of(name);
        // NONBLOCK: a pipe planted under the name must be refused, not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.handle, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(StoreError::NotPlain { path }),
            Err(error) => return Err(failed("open", &path, error)),
        };
        check(&file, &path, Kind::File)?;
        // All the room at once: a buffer that grows leaves copies behind that are not wiped.
        let length = file.metadata().map_err(|error| failed("read", &path, error))?.len().min(bytes_max);
        let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
        file.take(length).read_to_end(&mut content).map_err(|error| failed("read", &path, error))?;
        Ok(Some(content))
    }

    /// Replaces a file whole. When this returns, the new content survives a loss of power; at no moment is there
    /// half of it under the name.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let temporary = format!(".{name}.tmp");
        let path = self.path_of(&temporary);
        // What a failed write left is removed rather than reused: EXCL then proves that the file is new and ours.
        self.unlink(&temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.handle, &temporary, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(|error| failed("create", &path, error))?);
        file.write_all(content).and_then(|()| file.sync_all()).map_err(|error| failed("write", &path, error))?;
        renameat(&self.handle, &temporary, &self.handle, name).map_err(|error| failed("rename", &path, error))?;
        self.sync()
    }

    /// Removes a file for good, if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.unlink(name)?;
        self.sync()
    }

    fn unlink(&self, name: &str) -> Result<(), StoreError> {
        match unlinkat(&self.handle, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("remove", &self.path_of(name), error)),
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.handle.sync_all().map_err(|error| failed("write", &self.path, error))
    }

    /// A half-written token of an account that is no longer configured would lie here for ever.
    fn remove_leftovers(&self) -> Result<(), StoreError> {
        let entries = Dir::read_from(&self.handle).map_err(|error| failed("list", &self.path, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed("list", &self.path, error))?;
            let name = entry.file_name().to_string_lossy();
            if name.starts_with('.') && name.ends_with(".tmp") {
                self.unlink(&name)?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Folder,
}

/// Refuses what somebody else could have put there, or could read.
fn check(handle: &File, path: &Path, kind: Kind) -> Result<(), StoreError> {
    let facts = handle.metadata().map_err(|error| failed("inspect", path, error))?;
    let (is_kind, mode) = match kind {
        Kind::File => (facts.is_file(), "600"),
        Kind::Folder => (facts.is_dir(), "700"),
    };
    if !is_kind {
        return Err(StoreError::NotPlain { path: path.into() });
    }
    // The effective user: the one whom files made by this process belong to.
    if facts.uid() != rustix::process::geteuid().as_raw() {
        return Err(StoreError::ForeignOwner { path: path.into() });
    }
    if facts.mode() & 0o077 != 0 {
        return Err(StoreError::OpenToOthers { path: path.into(), mode });
    }
    Ok(())
}

/// Makes a folder and those above it, each written down in the one that holds it.
fn create(path: &Path) -> Result<(), StoreError> {
    let above = match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => return Ok(()),
    };
    let mut made = DirBuilder::new().mode(0o700).create(path);
    if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) && above != Path::new(".") {
        create(above)?;
        made = DirBuilder::new().mode(0o700).create(path);
    }
    match made {
        Ok(()) => File::open(above).and_then(|above| above.sync_all()).map_err(|error| failed("write", above, error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("create", path, error)),
    }
}

fn lock(folder: &File, path: &Path) -> Result<File, StoreError> {
    // CLOEXEC: a bot that we start must not keep the lock when we are gone.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder, LOCK, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(StoreError::NotPlain { path: path.into() }),
        Err(error) => return Err(failed("open", path, error)),
    };
    check(&file, path, Kind::File)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(StoreError::Locked { lock: path.into() }),
        Err(error) => Err(failed("lock", path, error)),
    }
}

fn failed(doing: &'static str, path: &Path, error: impl Into<io::Error>) -> StoreError {
    StoreError::Io { doing, path: path.into(), source: error.into() }
}
