//! The directory of a store on disk: its lock, its layout, and a first start that can stop anywhere.
//!
//! ```text
//! DIR/lock                   who holds the directory
//! DIR/mark                   which store is in it, in which history, and how far it had come
//! DIR/first-start/           a store being made; left over only if that was interrupted, then removed
//! DIR/store/store-identity   which store this is
//! DIR/store/reached          the last acknowledged revision
//! DIR/store/sled/            the database: a directory for sled,
//! DIR/store/store.redb       a file for redb
//! ```
//!
//! A new store is made whole in `first-start`: database, `reached`, identity, each synced, then the directories. Then the
//! mark is written, one rename to `store` publishes, and `DIR` is synced. A mark that speaks of what lies in
//! `first-start` is therefore part of an interrupted first start, which leaves nothing that counts; any other mark
//! without its store, an identity without a database, or the reverse, can only mean that something was lost.

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
use crate::identity::Identity;
use crate::mark::{MARK, Mark, NEW_MARK};

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
const LOCK_BYTES: usize = 16;

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
            Ok(()) => {
                place.sign(&std::process::id().to_string());
                Ok(place)
            }
            Err(fs::TryLockError::WouldBlock) => {
                Err(OpenError::Held { dir: dir.to_owned(), pid: place.holder() })
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
                LOCK | MARK | NEW_MARK | STAGING | PROBE | LOST_AND_FOUND => (),
                other => return Err(OpenError::NotEmpty { dir: self.dir.clone(), name: other.into() }),
            }
        }
        if !found {
            self.forget_unfinished()?;
        }
        Ok(found)
    }

    /// Without a store, a mark is part of an interrupted first start, or the store is gone.
    fn forget_unfinished(&self) -> Result<(), OpenError> {
        let Some(mark) = Mark::read(&self.dir)? else { return Ok(()) };
        let staged = Identity::read(&self.dir.join(STAGING)).ok().flatten();
        if staged.is_some_and(|staged| staged.id == mark.store) {
            return self.remove_mark();
        }
        Err(OpenError::StoreGone { dir: self.dir.clone(), history: mark.history })
    }

    /// Remove the mark before anything else of an unfinished store, so that it never outlives it.
    fn remove_mark(&self) -> Result<(), OpenError> {
        let path = self.dir.join(MARK);
        fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
        sync_dir(&self.dir)
    }

    /// Put a mark in place for good.
    pub(crate) fn set_mark(&self, mark: &Mark) -> Result<(), OpenError> {
        mark.write(&self.dir)?;
        sync_dir(&self.dir)
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
        let staging = self.dir.join(STAGING);
        if !staging.exists() {
            return; // it was published
        }
        let unmarked = if self.dir.join(MARK).exists() { self.remove_mark() } else { Ok(()) };
        let removed =
            unmarked.and_then(|()| fs::remove_dir_all(&staging).map_err(OpenError::io("remove", &staging)));
        if let Err(error) = removed {
            tracing::warn!(dir = %self.dir.display(), %error, "could not remove an unfinished store");
        }
    }

    /// Turn the finished folder of [`Self::stage`] into the store.
    pub(crate) fn publish(&self, mark: &Mark) -> Result<(), OpenError> {
        let staging = self.dir.join(STAGING);
        sync_tree(&staging)?;
        self.set_mark(mark)?;
        fs::rename(&staging, self.store()).map_err(OpenError::io("rename to `store`", &staging))?;
        sync_dir(&self.dir)
    }

    /// Note in the lock file who holds the directory. Only a message depends on it, so a failure does not matter.
    fn sign(&self, holder: &str) {
        let note = format!("{holder:<width$}\n", width = LOCK_BYTES - 1);
        if let Err(error) = self.lock.write_all_at(note.as_bytes(), 0) {
            tracing::warn!(dir = %self.dir.display(), %error, "could not write the lock file");
        }
    }

    fn holder(&self) -> Option<u32> {
        let mut note = [0; LOCK_BYTES];
        let length = self.lock.read_at(&mut note, 0).unwrap_or(0);
        str::from_utf8(&note[..length]).ok()?.trim().parse().ok()
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
        self.sign("");
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
    fn the_holder_is_named_from_the_moment_it_holds_the_directory() {
        let dir = tempfile::tempdir().expect("tempdir");
        // What a server leaves that was killed.
        fs::write(dir.path().join(LOCK), "4000000000     \n").expect("write");
        let place = Place::hold(dir.path()).expect("free");
        let refused = Place::hold(dir.path()).err().expect("held");
        assert!(
            matches!(refused, OpenError::Held { pid, .. } if pid == Some(std::process::id())),
            "{refused}"
        );
        drop(place);
        assert_eq!(Place::hold(dir.path()).expect("free").holder(), Some(std::process::id()));
    }

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
