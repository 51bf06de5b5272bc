//! Where state lives that must survive a restart: how far the nonces of a key are reserved, and tokens.
//!
//! Not the judge of what is next (that is `supply`) and not a cache. Every operation blocks, down to the disk:
//! whoever owns a store calls it through `spawn_blocking`, never on a task that serves a socket.

mod file;
mod folder;

pub use file::{ADMIN_SECRET, FileStore};

use crate::fresh::{NonceUnit, UnixMillis};
use crate::names::AccountName;
use crate::secret::Secret;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which of the places state lives in.
#[derive(Debug)]
pub enum Store {
    /// A folder of this process.
    File(FileStore),
    /// Nowhere: gone with the process. For tests and simulators.
    Memory(MemoryStore),
}

/// How far the nonces of one key are reserved. No number up to it may be handed out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// What the numbers count.
    pub unit: NonceUnit,
    /// The highest number reserved.
    pub reserved: u64,
}

/// An exchange's token as it is kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// The text that the exchange expects.
    pub secret: Secret,
    /// When it was obtained.
    pub minted_at: UnixMillis,
    /// When the exchange stops taking it.
    pub expires_at: UnixMillis,
}

/// The first bytes of a hash of the API key: says that a token belongs to a key without naming the key.
pub type KeyFingerprint = [u8; 8];

/// Why state was not read or written. Names files, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the folder. Two writers would hand out the same nonce.
    #[error("another countersign runs on the state of {lock}: stop it, or give this one a `store.path` of its own")]
    Locked {
        /// The lock file.
        lock: PathBuf,
    },
    /// A symbolic link, a pipe or the like, where a folder or a file belongs.
    #[error(
        "{path} is a symbolic link or otherwise not a plain file or folder: put the real one in its place, or change `store.path`"
    )]
    NotPlain {
        /// What was found.
        path: PathBuf,
    },
    /// Somebody else owns it, and could replace it at any time.
    #[error(
        "{path} belongs to another user: run countersign as its owner, or `chown` it to the user that runs countersign"
    )]
    ForeignOwner {
        /// What was found.
        path: PathBuf,
    },
    /// Group or others have rights on it.
    #[error("{path} is open to other users: run `chmod {mode} {path}`, and renew what they may have read")]
    OpenToOthers {
        /// What was found.
        path: PathBuf,
        /// The mode that it should have.
        mode: &'static str,
    },
    /// The nonce state is there and cannot be read. Never started over: a key that gets a nonce below its last is
    /// refused until it is replaced.
    #[error(
        "nonce state {path} is damaged: restore it, or write the line \
         {{\"version\":1,\"unit\":\"…\",\"reserved\":…}} into it, with the account's nonce unit (ms, us, ns) and a number \
         not below any nonce that the key has used; the time since 1970 in that unit will do if the clock was never wrong"
    )]
    Damaged {
        /// The state file.
        path: PathBuf,
    },
    /// A higher mark, or one of another unit, is there already: this write came late.
    #[error("nonce state of account {account} already stands higher or in another unit: reserve above it")]
    MarkWouldFall {
        /// Whose mark.
        account: AccountName,
    },
    /// The system refused.
    #[error("cannot {doing} {path}: check the disk's space, and that the folder can be written to")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// The exit code of a process that cannot start because of this: 75 if another one has the state, else 73.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Locked { .. } => 75,
            Self::NotPlain { .. }
            | Self::ForeignOwner { .. }
            | Self::OpenToOthers { .. }
            | Self::Damaged { .. }
            | Self::MarkWouldFall { .. }
            | Self::Io { .. } => 73,
        }
    }
}

impl Store {
    /// How far an account's nonces are reserved; `None` if its key was never used.
    pub fn read_mark(&self, account: &AccountName) -> Result<Option<Mark>, StoreError> {
        match self {
            Self::File(store) => store.read_mark(account),
            Self::Memory(store) => Ok(store.memory().marks.get(account).copied()),
        }
    }

    /// Makes a mark durable: once this returns, no crash brings the one before back. After an error it may or may
    /// not be in place. A mark never falls.
    pub fn write_mark(&self, account: &AccountName, mark: &Mark) -> Result<(), StoreError> {
        match self {
            Self::File(store) => store.write_mark(account, mark),
            Self::Memory(store) => store.write_mark(account, mark),
        }
    }

    /// The token of an account, if one is kept that was obtained with this key. One that is past its end is given
    /// out too; the caller has the time.
    pub fn read_token(&self, account: &AccountName, key: &KeyFingerprint) -> Result<Option<StoredToken>, StoreError> {
        match self {
            Self::File(store) => store.read_token(account, key),
            Self::Memory(store) => Ok(store
                .memory()
                .tokens
                .get(account)
                .filter(|(made_by, _)| made_by == key)
                .map(|(_, token)| token.clone())),
        }
    }

    /// Keeps a token in place of the one before.
    pub fn write_token(
        &self,
        account: &AccountName,
        key: &KeyFingerprint,
        token: &StoredToken,
    ) -> Result<(), StoreError> {
        match self {
            Self::File(store) => store.write_token(account, key, token),
            Self::Memory(store) => {
                store.writable()?.tokens.insert(account.clone(), (*key, token.clone()));
                Ok(())
            }
        }
    }

    /// Forgets an account's token, if there is one.
    pub fn forget_token(&self, account: &AccountName) -> Result<(), StoreError> {
        match self {
            Self::File(store) => store.forget_token(account),
            Self::Memory(store) => {
                store.writable()?.tokens.remove(account);
                Ok(())
            }
        }
    }
}

/// State in memory, with a disk that can be made to fail.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    marks: HashMap<AccountName, Mark>,
    tokens: HashMap<AccountName, (KeyFingerprint, StoredToken)>,
    is_full: bool,
}

impl MemoryStore {
    /// From now on, every write fails as on a full disk; or succeeds again.
    pub fn set_full(&self, is_full: bool) {
        self.memory().is_full = is_full;
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every change is one assignment or insertion: a panic elsewhere cannot leave half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self) -> Result<MutexGuard<'_, Memory>, StoreError> {
        let memory = self.memory();
        if memory.is_full {
            let source = io::ErrorKind::StorageFull.into();
            return Err(StoreError::Io { doing: "write", path: "memory".into(), source });
        }
        Ok(memory)
    }

    fn write_mark(&self, account: &AccountName, mark: &Mark) -> Result<(), StoreError> {
        let mut memory = self.writable()?;
        refuse_fall(account, memory.marks.get(account), mark)?;
        memory.marks.insert(account.clone(), *mark);
        Ok(())
    }
}

/// A write that hung, was given up and then lands after a later one must not take the mark back.
fn refuse_fall(account: &AccountName, present: Option<&Mark>, next: &Mark) -> Result<(), StoreError> {
    match present {
        Some(mark) if mark.unit != next.unit || mark.reserved > next.reserved => {
            Err(StoreError::MarkWouldFall { account: account.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_refuses_writes_and_keeps_what_it_has() {
        let memory = MemoryStore::default();
        let account = AccountName::parse("kraken_main").expect("a name");
        let mark = |reserved| Mark { unit: NonceUnit::Nanoseconds, reserved };
        memory.write_mark(&account, &mark(1000)).expect("room");
        memory.set_full(true);
        assert!(memory.write_mark(&account, &mark(2000)).is_err());
        memory.set_full(false);
        let store = Store::Memory(memory);
        assert_eq!(store.read_mark(&account).expect("readable"), Some(mark(1000)));
        store.write_mark(&account, &mark(2000)).expect("room again");
    }

    #[test]
    fn only_a_locked_state_asks_to_be_tried_again() {
        let locked = StoreError::Locked { lock: "state/lock".into() };
        let damaged = StoreError::Damaged { path: "state/a.nonce".into() };
        assert_eq!((locked.exit_code(), damaged.exit_code()), (75, 73));
    }
}
