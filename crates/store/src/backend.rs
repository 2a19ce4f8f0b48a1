//! What an embedded database must be able to do for us: keep bytes, and change many of them at once.
//!
//! A backend knows neither records nor revisions, and has one user, the owner thread. Preconditions,
//! checksums and recovery are shared code above it. Start at [`Backend`].

use std::fmt;
use std::io;
use std::str::FromStr;

pub(crate) mod memory;
pub(crate) mod redb;
pub(crate) mod sled;

/// Which database keeps the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreKind {
    /// sled, the default embedded database.
    Sled,
    /// redb, the other embedded database.
    Redb,
    /// Nothing on disk: for tests and development.
    Memory,
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
            Self::Memory => "memory",
        })
    }
}

/// The text names no kind of store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no store kind `{0}`: use sled, redb or memory")]
pub struct StoreKindError(String);

impl FromStr for StoreKind {
    type Err = StoreKindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Sled, Self::Redb, Self::Memory]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| StoreKindError(text.into()))
    }
}

/// Why a backend could not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BackendError {
    /// No space: may be tried again when there is some.
    #[error("no space left: {0}")]
    Full(String),
    /// The system or the database failed; what is on disk is not known.
    #[error("{0}")]
    Failed(String),
    /// What was read is not what was written.
    #[error("{0}")]
    Damaged(String),
}

impl BackendError {
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full(format!("{what}: {error}"))
            }
            _ => Self::Failed(format!("{what}: {error}")),
        }
    }
}

/// One change of the bytes under a key; no value removes it.
pub(crate) struct Write {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// Takes each stored pair in turn; an error ends the scan.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), BackendError> + 'a;

/// An ordered or unordered set of byte pairs with one user.
pub(crate) trait Backend: Send {
    /// Show every pair once.
    fn scan(&mut self, visit: &mut Visit<'_>) -> Result<(), BackendError>;

    /// Make all `writes`, whose keys differ, or none of them. When this returns `Ok` they are durable: a
    /// power cut does not undo them. After an error the backend is dropped and opened again.
    fn apply(&mut self, writes: &[Write]) -> Result<(), BackendError>;

    /// Give the database up. After an error nobody knows what of it is on disk. A plain drop does the same without an
    /// answer, and never panics.
    fn close(self: Box<Self>) -> Result<(), BackendError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_back_as_printed_and_others_are_refused() {
        for kind in [StoreKind::Sled, StoreKind::Redb, StoreKind::Memory] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let refused = "SLED".parse::<StoreKind>().expect_err("refused");
        assert_eq!(refused.to_string(), "there is no store kind `SLED`: use sled, redb or memory");
    }

    #[test]
    fn a_full_disk_and_a_quota_are_told_from_other_failures() {
        let full = |kind| BackendError::io("write", &io::Error::from(kind));
        assert!(matches!(full(io::ErrorKind::StorageFull), BackendError::Full(_)));
        assert!(matches!(full(io::ErrorKind::QuotaExceeded), BackendError::Full(_)));
        assert!(matches!(full(io::ErrorKind::PermissionDenied), BackendError::Failed(_)));
    }
}
