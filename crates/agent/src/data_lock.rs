//! The lock that keeps a second agent out of a directory: two would overwrite each other's keys and identity.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The name of the lock file. It stays when the agent ends; only the lock counts.
const FILE: &str = "agent.lock";

/// Why a directory cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum DataLockError {
    /// Another agent works in it.
    #[error("another agent uses {}", .directory.display())]
    Held {
        /// The directory.
        directory: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A directory that this agent holds until the value is dropped.
#[derive(Debug)]
pub(crate) struct DataLock {
    path: PathBuf,
    file: File,
}

impl DataLock {
    /// Makes the directory if it is missing, private to the user, and takes its lock.
    pub(crate) fn hold(directory: &Path) -> Result<Self, DataLockError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| io_error("make", directory, source))?;
        let path = directory.join(FILE);
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(|source| io_error("open the lock file", &path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, file }),
            Err(TryLockError::WouldBlock) => Err(DataLockError::Held { directory: directory.to_owned() }),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &path, source)),
        }
    }

    /// Holds each of `directories` once, however they are written.
    pub(crate) fn hold_all(directories: &[&Path]) -> Result<Vec<Self>, DataLockError> {
        let mut held: Vec<(PathBuf, Self)> = Vec::new();
        for directory in directories {
            let known = fs::canonicalize(directory).unwrap_or_default();
            if held.iter().any(|(real, _)| *real == known) {
                continue;
            }
            let lock = Self::hold(directory)?;
            let real = fs::canonicalize(directory).map_err(|source| io_error("find", directory, source))?;
            held.push((real, lock));
        }
        Ok(held.into_iter().map(|(_, lock)| lock).collect())
    }
}

impl Drop for DataLock {
    /// By hand, because a child process may have a copy of the descriptor for a moment.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "the agent's lock was not given back");
        }
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> DataLockError {
    DataLockError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_by_one_and_free_again_after_it_although_a_child_has_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let first = DataLock::hold(&data).unwrap();
        let copy = first.file.try_clone().unwrap();
        let error = DataLock::hold(&data).unwrap_err();
        assert_eq!(error.to_string(), format!("another agent uses {}", data.display()));
        drop(first);
        DataLock::hold(&data).unwrap();
        drop(copy);
    }

    #[test]
    fn one_directory_under_two_names_is_held_once_and_another_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let same = data.join("../data/.");
        let keys = dir.path().join("keys");
        let held = DataLock::hold_all(&[&data, &same, &keys]).unwrap();
        assert_eq!(held.len(), 2);
        for directory in [&data, &keys] {
            assert!(matches!(DataLock::hold(directory), Err(DataLockError::Held { .. })));
        }
    }
}
