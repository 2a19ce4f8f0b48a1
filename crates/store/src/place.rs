//! The directory of a store on disk: its lock, its layout, and a first start that can stop anywhere.
//!
//! ```text
//! DIR/lock                   who holds the directory, and which store was in it
//! DIR/first-start/           a store being made; left over only if that was interrupted, then removed
//! DIR/store/store-identity   which store this is
//! DIR/store/reached          the last acknowledged revision
//! DIR/store/sled/            the database: a directory for sled,
//! DIR/store/store.redb       a file for redb
//! ```
//!
//! A new store is made whole in `first-start`: database, `reached`, identity, each synced, then the directories.
//! One rename to `store` publishes it, then `DIR` is synced. So an interrupted first start leaves nothing that
//! counts, and an identity without a database, or the reverse, can only mean that something was lost.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::StoreKind;
use crate::backend::redb::RedbBackend;
use crate::backend::sled::SledBackend;
use crate::backend::{Backend, BackendError};
use crate::embedded::guarded;
use crate::error::OpenError;
use crate::record::HistoryId;

const LOCK: &str = "lock";
const STAGING: &str = "first-start";
const STORE: &str = "store";
/// Left by the probe for space if that is interrupted; harmless.
const PROBE: &str = "space-probe";
/// Found at the top of a fresh ext4 file system, so it may be in an empty directory.
const LOST_AND_FOUND: &str = "lost+found";
/// Space that must be there before writes go on after a full disk. sled grows by segments of 512 KiB.
const PROBE_BYTES: usize = 2 << 20;
/// The lock file always has this length, so that writing it needs no space on a full disk.
const LOCK_BYTES: usize = 64;

/// A directory that this process holds until the value is dropped.
pub(crate) struct Place {
    dir: PathBuf,
    lock: File,
}

impl Place {
    /// Make the directory if need be (readable by its owner only) and take its lock.
    pub(crate) fn hold(dir: &Path) -> Result<Self, OpenError> {
        make_dir(dir)?;
        let path = dir.join(LOCK);
        let mut options = OpenOptions::new();
        let lock = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(OpenError::io("open the lock file", &path))?;
        let place = Self { dir: dir.to_owned(), lock };
        match place.lock.try_lock() {
            Ok(()) => Ok(place),
            Err(fs::TryLockError::WouldBlock) => {
                Err(OpenError::Held { dir: dir.to_owned(), pid: place.lock_note().0 })
            }
            Err(fs::TryLockError::Error(source)) => {
                Err(OpenError::Io { action: "lock the file", path, source })
            }
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of the published store.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.join(STORE)
    }

    /// Whether there is a store. What is neither a store nor an empty directory is an error.
    pub(crate) fn has_store(&self) -> Result<bool, OpenError> {
        let mut found = false;
        let entries = fs::read_dir(&self.dir).map_err(OpenError::io("read the directory", &self.dir))?;
        for entry in entries {
            let name = entry.map_err(OpenError::io("read the directory", &self.dir))?.file_name();
            match name.to_string_lossy().as_ref() {
                STORE => found = true,
                LOCK | STAGING | PROBE | LOST_AND_FOUND => (),
                other => return Err(OpenError::NotEmpty { dir: self.dir.clone(), name: other.into() }),
            }
        }
        match self.lock_note().1 {
            Some(history) if !found => Err(OpenError::StoreGone { dir: self.dir.clone(), history }),
            _ => Ok(found),
        }
    }

    /// An empty folder to make a new store in.
    pub(crate) fn stage(&self) -> Result<PathBuf, OpenError> {
        let staging = self.dir.join(STAGING);
        match fs::remove_dir_all(&staging) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::io("remove", &staging)(e));
            }
            _ => (),
        }
        DirBuilder::new().mode(0o700).create(&staging).map_err(OpenError::io("make", &staging))?;
        Ok(staging)
    }

    /// Remove what was staged. If that fails, the next start removes it.
    pub(crate) fn unstage(&self) {
        if let Err(error) = fs::remove_dir_all(self.dir.join(STAGING)) {
            tracing::warn!(dir = %self.dir.display(), %error, "could not remove an unfinished store");
        }
    }

    /// Turn the finished folder of [`Self::stage`] into the store.
    pub(crate) fn publish(&self) -> Result<(), OpenError> {
        let staging = self.dir.join(STAGING);
        sync_tree(&staging)?;
        fs::rename(&staging, self.store()).map_err(OpenError::io("rename to `store`", &staging))?;
        sync_dir(&self.dir)
    }

    /// Note in the lock file who holds the directory and what is in it. Only messages depend on it, so a
    /// failure does not matter.
    pub(crate) fn sign(&self, history: HistoryId) {
        let note = format!("pid {}\nhistory {history}\n", std::process::id());
        let note = format!("{note:<width$}\n", width = LOCK_BYTES - 1);
        if let Err(error) = self.lock.write_all_at(note.as_bytes(), 0) {
            tracing::warn!(dir = %self.dir.display(), %error, "could not write the lock file");
        }
    }

    fn lock_note(&self) -> (Option<u32>, Option<HistoryId>) {
        let mut note = [0; LOCK_BYTES];
        let length = self.lock.read_at(&mut note, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&note[..length]);
        let word = |name| text.lines().find_map(|line| line.strip_prefix(name));
        (word("pid ").and_then(|pid| pid.parse().ok()), word("history ").and_then(|id| id.parse().ok()))
    }

    /// Whether there is space for some MiB.
    pub(crate) fn has_space(&self) -> bool {
        let path = self.dir.join(PROBE);
        let probe = || {
            let file = File::create(&path)?;
            file.write_all_at(&vec![0; PROBE_BYTES], 0)?;
            file.sync_data()
        };
        let room = probe().is_ok();
        fs::remove_file(&path).is_ok() && room
    }
}

impl Drop for Place {
    /// Unlock, rather than leave it to the close: a child that this process is just starting holds a copy of
    /// the descriptor until its `exec`, and with it a lock that was not given back.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(dir = %self.dir.display(), %error, "could not unlock the store directory");
        }
    }
}

/// The database in a store folder.
pub(crate) fn database(store: &Path, kind: StoreKind) -> PathBuf {
    store.join(if kind == StoreKind::Redb { "store.redb" } else { "sled" })
}

/// Open a database that must be there.
pub(crate) fn open_database(path: &Path, kind: StoreKind) -> Result<Box<dyn Backend>, BackendError> {
    guarded(|| {
        Ok(match kind {
            StoreKind::Redb => Box::new(RedbBackend::open(path)?) as Box<dyn Backend>,
            _ => Box::new(SledBackend::open(path)?),
        })
    })
}

/// Make a database that must not be there.
pub(crate) fn create_database(path: &Path, kind: StoreKind) -> Result<Box<dyn Backend>, BackendError> {
    guarded(|| {
        Ok(match kind {
            StoreKind::Redb => Box::new(RedbBackend::create(path)?) as Box<dyn Backend>,
            _ => Box::new(SledBackend::create(path)?),
        })
    })
}

/// Make a directory and what is missing above it, each durable.
fn make_dir(dir: &Path) -> Result<(), OpenError> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dir(parent)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(OpenError::io("make the directory", dir)(e))
        }
        _ => sync_dir(parent),
    }
}

fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(OpenError::io("sync the directory", dir))
}

fn sync_tree(dir: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(dir).map_err(OpenError::io("read the directory", dir))? {
        let path = entry.map_err(OpenError::io("read the directory", dir))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(OpenError::io("sync the file", &path))?;
        }
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_ends_with_its_holder_although_a_child_has_a_copy_of_the_descriptor() {
        let dir = tempfile::tempdir().expect("tempdir");
        let place = Place::hold(dir.path()).expect("first");
        let copy = place.lock.try_clone().expect("copy");
        assert!(matches!(Place::hold(dir.path()), Err(OpenError::Held { .. })));
        drop(place);
        Place::hold(dir.path()).expect("free again");
        drop(copy);
    }
}
