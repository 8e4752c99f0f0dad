//! The store's folder and the lock that keeps a second server out.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use hw_kit::ShardId;

use crate::folder::{make_dir, parent_of};

const LOCK_NAME: &str = "lock";

/// A store's folder, locked while this value lives.
#[derive(Debug)]
pub struct StoreDir {
    path: PathBuf,
    /// Held, not used: the lock ends with it.
    _lock: File,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the store {path} is in use by another server (process {owner})")]
    InUse {
        /// The folder.
        path: PathBuf,
        /// What the other process wrote about itself.
        owner: String,
    },
    /// The folder cannot be made.
    #[error("the folder {path} cannot be made: {error}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The lock cannot be taken.
    #[error("the store {path} cannot be opened: {error}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl StoreDir {
    /// Makes the folder if there is none, and locks it.
    pub fn open(path: &Path) -> Result<StoreDir, LockError> {
        let failed = |error| LockError::Io { path: path.to_owned(), error };
        // Without the name of the folder above, which is made for this one as a rule, everything below is lost.
        let made = make_dir(parent_of(path)).and_then(|()| make_dir(path));
        made.map_err(|error| LockError::Folder { path: path.to_owned(), error })?;
        let lock_path = path.join(LOCK_NAME);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock_path);
        let mut lock = options.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Only for the message: an unreadable owner is no reason for another error.
                let _ = lock.take(64).read_to_string(&mut owner);
                return Err(LockError::InUse { path: path.to_owned(), owner: owner.trim().to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let note = lock.set_len(0).and_then(|()| lock.rewind());
        note.and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(StoreDir { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of one shard.
    pub fn shard_path(&self, shard: ShardId) -> PathBuf {
        self.path.join(format!("shard-{shard}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::tests::scratch;

    #[test]
    fn a_second_server_is_refused_and_told_why() {
        let dir = scratch("lock");
        let first = StoreDir::open(&dir).unwrap();
        let error = StoreDir::open(&dir).unwrap_err();
        assert!(matches!(error, LockError::InUse { .. }));
        let text = error.to_string();
        assert!(text.contains("in use") && text.contains(&std::process::id().to_string()), "{text}");
        drop(first);
        StoreDir::open(&dir).expect("the lock ends with its owner");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
