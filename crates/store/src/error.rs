//! The errors of opening a store and of using it, and the state it reports.
//!
//! Every `Display` names the object concerned and, where a person must act, what to do. Conflicts are not
//! errors: see [`crate::Conflict`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::StoreKind;
use crate::record::{HistoryId, RecordKey};
use crate::transaction::InvalidTransaction;

/// Why a store could not be opened, created or filled.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused a file operation.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another server works on this directory.
    #[error("the store directory {} is in use by {}: stop that server first", dir.display(), holder(*pid))]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The process that holds it, where it wrote its number down.
        pid: Option<u32>,
    },
    /// There is no store, yet the directory is not empty.
    #[error("{} holds no store, but `{name}` is in it: give an empty directory for a first start", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// One thing that was found.
        name: String,
    },
    /// A new store was to be written where there is one.
    #[error("{} already holds a store: give an empty directory", dir.display())]
    Occupied {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory remembers a store that is no longer there.
    #[error(
        "the store {history} that was in {} is gone: restore the folder `store` from a backup, or remove the file \
         `mark` to start with an empty store",
        dir.display()
    )]
    StoreGone {
        /// The directory.
        dir: PathBuf,
        /// What was in it.
        history: HistoryId,
    },
    /// There is a store that was not made in this directory.
    #[error(
        "{} has no mark of the store {store} that lies in it, so that store was copied or restored: {}",
        dir.display(), acceptance(*kind, dir)
    )]
    Unmarked {
        /// The directory.
        dir: PathBuf,
        /// The store in it.
        store: HistoryId,
        /// Its kind.
        kind: StoreKind,
    },
    /// The store in the directory is not the one that was there.
    #[error(
        "{} held the store {expected}, and now holds {found}: restore the right one from a backup; or, {}",
        dir.display(), acceptance(*kind, dir)
    )]
    Replaced {
        /// The directory.
        dir: PathBuf,
        /// The store that was there.
        expected: HistoryId,
        /// The store that is there.
        found: HistoryId,
        /// Its kind.
        kind: StoreKind,
    },
    /// The mark of a directory does not read as it should.
    #[error(
        "{} is damaged: {detail}; if the store beside it is whole, go on from it with `spindle-server store \
         accept-restored`", path.display()
    )]
    BadMark {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: &'static str,
    },
    /// A restored store was to be accepted where there is none.
    #[error("there is no store in {}: put the folder `store` of a backup there first", dir.display())]
    NothingThere {
        /// The directory.
        dir: PathBuf,
    },
    /// The identity file is there, the database is not.
    #[error(
        "{} names a {kind} store, but its database {} is missing or empty: restore the database from a backup",
        identity.display(), database.display()
    )]
    MissingDatabase {
        /// The identity file.
        identity: PathBuf,
        /// The database that should be beside it.
        database: PathBuf,
        /// What kind it should be.
        kind: StoreKind,
    },
    /// The database is there, the identity file is not.
    #[error("the identity file {} is missing although a database is beside it: restore it from a backup", identity.display())]
    MissingIdentity {
        /// The identity file.
        identity: PathBuf,
    },
    /// A small file of ours beside the database does not read as it should.
    #[error("{} is damaged: {detail}; restore it from a backup", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The store in the directory is of another kind than asked for.
    #[error("{} holds a {found} store, not a {asked} store: change the configuration or copy the store", dir.display())]
    WrongKind {
        /// The directory.
        dir: PathBuf,
        /// What is there.
        found: StoreKind,
        /// What was asked for.
        asked: StoreKind,
    },
    /// Identity file and database do not belong together.
    #[error(
        "{} belongs to store {expected}, but the database beside it is store {found}: restore both from one backup",
        identity.display()
    )]
    IdentityMismatch {
        /// The identity file.
        identity: PathBuf,
        /// Its history.
        expected: HistoryId,
        /// The history in the database.
        found: HistoryId,
    },
    /// The database opened, but its content is not what was acknowledged.
    #[error("the database {} is damaged: {detail}; restore it from a backup", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// Which record or file, and what is wrong.
        detail: String,
    },
    /// Acknowledged commits are missing at the end of the database.
    #[error(
        "the database {} stands at revision {found}, but revision {reached} was acknowledged: acknowledged \
         writes are lost, restore it from a backup",
        path.display()
    )]
    WentBack {
        /// The database.
        path: PathBuf,
        /// Where it stands.
        found: u64,
        /// Where it stood.
        reached: u64,
    },
    /// The store folder is whole, but older than what was there: it was restored.
    #[error(
        "the store in {} is an older one, which was restored: it stands at revision {found}, and revision {reached} \
         was acknowledged there; {}",
        dir.display(), acceptance(*kind, dir)
    )]
    Restored {
        /// The directory.
        dir: PathBuf,
        /// The kind of the store in it.
        kind: StoreKind,
        /// Where it stands.
        found: u64,
        /// Where its predecessor stood.
        reached: u64,
    },
    /// The database engine refused to open it.
    #[error("the database {} does not open: {detail}", path.display())]
    Backend {
        /// The database.
        path: PathBuf,
        /// What the engine said.
        detail: String,
    },
}

impl OpenError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

fn acceptance(kind: StoreKind, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "to go on from what is there, under a new history, run `spindle-server store accept-restored -store {kind}:{dir}`"
    )
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

/// Why a call on an open store failed. A clone goes to every caller of a failed batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The transaction breaks a bound.
    #[error(transparent)]
    Invalid(#[from] InvalidTransaction),
    /// No space: nothing of the transaction was changed. Writes go on by themselves once there is space.
    #[error("the disk with the store is full: nothing was changed; free space in {}", dir.display())]
    DiskFull {
        /// Where space is needed.
        dir: PathBuf,
    },
    /// The write failed in a way that leaves open whether it happened. Readers of the store see it only if
    /// it did: then it comes as a change once the store works again or after a restart.
    #[error("the write to the store failed and may or may not have happened: {detail}")]
    InDoubt {
        /// What failed.
        detail: Arc<str>,
    },
    /// An earlier failure left the state on disk unproven, so nothing more is written.
    #[error("the store takes no more writes since an earlier failure ({detail}): restart the server")]
    Stopped {
        /// What failed.
        detail: Arc<str>,
    },
    /// The records could not be read back.
    #[error("the records of the store could not be read: {detail}")]
    Read {
        /// What failed.
        detail: Arc<str>,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A call that waits for the owner thread was made on the owner thread, from a callback.
    #[error("a change callback or a reply must not wait for the store")]
    OwnThread,
    /// A callback asked for changes that are not retained.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// Why a watch cannot go on; the watcher must load everything again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Changes between what the watcher has seen and what is retained are gone.
    #[error(
        "changes after revision {after} are no longer retained, the oldest kept follows revision {oldest}"
    )]
    TooOld {
        /// What the watcher has seen.
        after: u64,
        /// The oldest revision that can be watched from.
        oldest: u64,
    },
    /// The watcher has seen a revision that does not exist.
    #[error("revision {after} is ahead of the store, which stands at {latest}")]
    Ahead {
        /// What the watcher says it has seen.
        after: u64,
        /// Where the store stands.
        latest: u64,
    },
}

/// Whether the store takes writes; for a readiness probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// It does.
    Ready,
    /// The disk is full; the next write after space is freed works.
    DiskFull,
    /// It does not until a restart, because of this failure or because it was closed.
    Stopped(Arc<str>),
}

/// A record or the database itself is not as it was written; the text names it.
pub(crate) fn bad_record(key: &RecordKey, what: &str) -> String {
    format!("record {key} {what}")
}
