//! What the runs of one configuration share: the proxy that one of them started, and who may end it.
//!
//! Each run holds the lock `run.lock` of the state folder shared. A run that ends tries to take it for itself alone:
//! who succeeds is the last, and ends the proxy that a run has started. So a run never waits for others to end, and one
//! that is killed leaves nothing that the next cannot clear up. A second lock, `run.start`, lets one at a time look for
//! a proxy and start it.

use crate::cli::Exit;
use crate::cli::proxy::Found;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::fs::{DirBuilder, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a run waits for another one that starts or ends a proxy.
const TURN: Duration = Duration::from_secs(60);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

/// A run's part in the state folder.
pub(super) struct Shared {
    folder: PathBuf,
    lock: File,
}

/// While it is held, no other run looks for a proxy or starts one.
pub(super) struct Turn {
    _lock: File,
}

impl Shared {
    /// Takes part; waits while the last of earlier runs ends its proxy. The turn is for looking and starting.
    pub(super) async fn join(folder: &Path) -> Result<(Self, Turn), Exit> {
        // As the store makes it, which comes second.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| failed(folder, &error))?;
        let start = open(folder, "run.start", OFlags::empty())?;
        wait_for(&start, FlockOperation::NonBlockingLockExclusive, folder).await?;
        let lock = open(folder, "run.lock", OFlags::empty())?;
        wait_for(&lock, FlockOperation::NonBlockingLockShared, folder).await?;
        Ok((Self { folder: folder.to_owned(), lock }, Turn { _lock: start }))
    }

    /// A new file for the log of a proxy, and where it is.
    pub(super) fn log(&self) -> Result<(File, PathBuf), Exit> {
        Ok((open(&self.folder, "run.log", OFlags::TRUNC | OFlags::APPEND)?, self.folder.join("run.log")))
    }

    /// Writes down that this proxy was started by a run, and may be ended by one.
    pub(super) fn started(&self, pid: i32) -> Result<(), Exit> {
        let mut file = open(&self.folder, "run.pid", OFlags::TRUNC)?;
        writeln!(file, "{pid}").map_err(|error| failed(&self.folder, &error))
    }

    /// True if a run started that proxy. Its own word for its number is compared: a number alone may have passed to
    /// another process.
    pub(super) fn is_ours(&self, found: &Found) -> bool {
        let mut text = String::new();
        let file = open(&self.folder, "run.pid", OFlags::empty());
        file.is_ok_and(|mut file| file.read_to_string(&mut text).is_ok()) && text.trim() == found.pid.to_string()
    }

    /// True if no other run takes part; none can from now on, as long as this is not dropped.
    pub(super) fn is_last(&self) -> bool {
        flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    }
}

async fn wait_for(lock: &File, operation: FlockOperation, folder: &Path) -> Result<(), Exit> {
    let end = Instant::now() + TURN;
    loop {
        match flock(lock, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => sleep(LOOK).await,
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                let what = "another `countersign run` has been starting or ending the proxy for a minute; end it";
                return Err(Exit::failed(format!("{}: {what}", folder.display())));
            }
            Err(error) => return Err(failed(folder, &error.into())),
        }
    }
}

fn open(folder: &Path, name: &str, more: OFlags) -> Result<File, Exit> {
    let path = folder.join(name);
    // CLOEXEC: neither the proxy nor the program may keep the lock when we are gone.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
    file.map(File::from).map_err(|error| failed(&path, &error.into()))
}

fn failed(path: &Path, error: &std::io::Error) -> Exit {
    Exit::State(73, format!("{}: {error}; `store.path` must be a folder that you may write to", path.display()))
}
