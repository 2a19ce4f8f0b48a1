//! sled 0.34, with the durability it lacks.
//!
//! One tree, one merged batch per commit, then sled's flush, then our own `fdatasync` of its `db` file: sled
//! itself stops at `sync_file_range`, which loses acknowledged data in a power cut. sled moves a page larger
//! than a quarter segment (128 KiB) into a separate blob file that it never syncs, so no page may grow that
//! large: keys and values over a few KiB are cut into pieces. A page holds about 16 pairs.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use super::{Backend, BackendError, Visit, Write};
use crate::embedded::guarded;

/// Longest raw key stored as it is: 256 of them fill an index page to half the limit.
const KEY_WHOLE_MAX: usize = 200;
/// Longest raw value stored as it is, and the size of a piece.
const PIECE_BYTES: usize = 4096;
/// sled uses two to three times this; all reads are served from the memory of the layer above.
const CACHE_BYTES: u64 = 8 << 20;

/// How long sled's threads may take to finish after a close; a write to a slow disk takes a second.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

const WHOLE: u8 = 0;
const PIECE: u8 = 1;

pub(crate) struct SledBackend {
    /// Always there; an option so that `shut` can close the database before it waits for its lock.
    db: Option<sled::Db>,
    /// Our own handle of sled's file, for `fdatasync`.
    file: File,
    path: PathBuf,
    /// Pairs that were cut into pieces.
    cut: HashMap<Vec<u8>, Cut>,
    next_id: u64,
}

/// Where the pieces of a large pair are.
#[derive(Clone, Copy)]
struct Cut {
    id: u64,
    pieces: u32,
}

impl SledBackend {
    /// Make a new database in the directory `path`, which must not exist.
    pub(crate) fn create(path: &Path) -> Result<Self, BackendError> {
        fs::create_dir(path).map_err(|e| BackendError::io("create the database directory", &e))?;
        Self::open_any(path)
    }

    /// Open the database in `path`. A missing or empty one is refused, because sled would make a fresh one.
    pub(crate) fn open(path: &Path) -> Result<Self, BackendError> {
        for name in ["db", "conf"] {
            let found = fs::metadata(path.join(name));
            if !found.is_ok_and(|found| found.is_file() && found.len() > 0) {
                return Err(BackendError::Damaged(format!("its file `{name}` is missing or empty")));
            }
        }
        remove_unfinished_snapshots(path)
            .map_err(|e| BackendError::io("remove an unfinished snapshot", &e))?;
        Self::open_any(path)
    }

    fn open_any(path: &Path) -> Result<Self, BackendError> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let db = config.open().map_err(|e| failed("open", e))?;
        let file = OpenOptions::new().read(true).write(true).open(path.join("db"));
        let file = file.map_err(|e| BackendError::io("open the file `db`", &e))?;
        let path = path.to_owned();
        let mut backend = Self { db: Some(db), file, path, cut: HashMap::new(), next_id: 0 };
        backend.sync_names()?;
        backend.find_cut()?;
        Ok(backend)
    }

    /// sled renames its snapshot files without syncing the directory, and syncs none after creation.
    fn sync_names(&self) -> Result<(), BackendError> {
        let sync = || -> io::Result<()> {
            for entry in fs::read_dir(&self.path)? {
                File::open(entry?.path())?.sync_all()?;
            }
            File::open(&self.path)?.sync_all()
        };
        sync().map_err(|e| BackendError::io("sync the database directory", &e))
    }

    fn db(&self) -> Result<&sled::Db, BackendError> {
        self.db.as_ref().ok_or_else(|| BackendError::Failed("the database is closed".into()))
    }

    /// sled syncs its file when the last handle goes, and panics if it cannot. Its threads let go of the file a moment
    /// later: waiting for its lock makes "closed" mean that nobody writes any more and that it can be opened again.
    fn shut(&mut self) -> Result<(), BackendError> {
        let Some(db) = self.db.take() else { return Ok(()) };
        guarded(|| {
            drop(db);
            Ok(())
        })?;
        if let Err(error) = wait_until_free(&self.file) {
            tracing::warn!(path = %self.path.display(), %error, "sled still holds its file after the close");
        }
        Ok(())
    }

    fn find_cut(&mut self) -> Result<(), BackendError> {
        let mut cut = HashMap::new();
        let mut next_id = 0;
        each_cut(self.db()?, &mut |key, _, place| {
            next_id = place.id + 1;
            cut.insert(key.to_vec(), place);
            Ok(())
        })?;
        (self.cut, self.next_id) = (cut, next_id);
        Ok(())
    }

    fn put(&mut self, batch: &mut sled::Batch, key: &[u8], value: &[u8]) {
        if key.len() <= KEY_WHOLE_MAX && value.len() <= PIECE_BYTES {
            batch.insert(whole_key(key), value);
            return;
        }
        let mut joined = Vec::with_capacity(4 + key.len() + value.len());
        joined.extend(u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
        joined.extend_from_slice(key);
        joined.extend_from_slice(value);
        let id = self.next_id;
        self.next_id += 1;
        let mut pieces = 0;
        for piece in joined.chunks(PIECE_BYTES) {
            batch.insert(&piece_key(id, pieces)[..], piece);
            pieces += 1;
        }
        self.cut.insert(key.to_vec(), Cut { id, pieces });
    }

    /// Remove what is stored under `key`, in whichever form.
    fn clear(&mut self, batch: &mut sled::Batch, key: &[u8]) {
        match self.cut.remove(key) {
            Some(Cut { id, pieces }) => {
                (0..pieces).for_each(|piece| batch.remove(&piece_key(id, piece)[..]));
            }
            None if key.len() <= KEY_WHOLE_MAX => batch.remove(whole_key(key)),
            None => (),
        }
    }
}

impl Backend for SledBackend {
    fn scan(&mut self, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        let db = self.db()?;
        for pair in db.scan_prefix([WHOLE]) {
            let (key, value) = pair.map_err(|e| failed("read", e))?;
            visit(&key[1..], &value)?;
        }
        each_cut(db, &mut |key, value, _| visit(key, value))
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), BackendError> {
        let mut batch = sled::Batch::default();
        for Write { key, value } in writes {
            // The batch keeps one write per key, the last: a put after the removal wins.
            self.clear(&mut batch, key);
            if let Some(value) = value {
                self.put(&mut batch, key, value);
            }
        }
        let db = self.db()?;
        db.apply_batch(batch).map_err(|e| failed("write", e))?;
        db.flush().map_err(|e| failed("flush", e))?;
        self.file.sync_data().map_err(|e| BackendError::io("sync the file `db`", &e))
    }

    fn close(mut self: Box<Self>) -> Result<(), BackendError> {
        self.shut()
    }
}

impl Drop for SledBackend {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            tracing::error!(path = %self.path.display(), %error, "could not close the database in order");
        }
    }
}

/// Wait for the lock of sled's file and leave it; not for ever, because a failed write may have hung sled.
fn wait_until_free(file: &File) -> io::Result<()> {
    if file.try_lock().is_ok() {
        return file.unlock();
    }
    let file = file.try_clone()?;
    let (done, free) = sync_channel(1);
    let wait = move || {
        let result = file.lock().and_then(|()| file.unlock());
        // Nobody listens any more if it took too long.
        let _ = done.send(result);
    };
    thread::Builder::new().name("store-close".into()).spawn(wait)?;
    free.recv_timeout(CLOSE_PATIENCE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// sled writes `snap.N.generating` and renames it, but at its next start takes an unfinished one for the real one
/// and gives up. The real one is removed only after the rename, so the unfinished one is never needed.
fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn whole_key(key: &[u8]) -> Vec<u8> {
    [&[WHOLE], key].concat()
}

fn piece_key(id: u64, piece: u32) -> [u8; 13] {
    let mut key = [PIECE; 13];
    key[1..9].copy_from_slice(&id.to_be_bytes());
    key[9..].copy_from_slice(&piece.to_be_bytes());
    key
}

type VisitCut<'a> = dyn FnMut(&[u8], &[u8], Cut) -> Result<(), BackendError> + 'a;

/// Put the pieces of each large pair together again, in order of their numbers.
fn each_cut(db: &sled::Db, visit: &mut VisitCut<'_>) -> Result<(), BackendError> {
    let mut joined = Vec::new();
    let mut place = Cut { id: 0, pieces: 0 };
    for pair in db.scan_prefix([PIECE]) {
        let (key, value) = pair.map_err(|e| failed("read", e))?;
        let (id, piece) = place_of(&key)?;
        if id != place.id || piece == 0 {
            give(&joined, place, visit)?;
            (joined, place) = (Vec::new(), Cut { id, pieces: 0 });
        }
        if piece != place.pieces {
            return Err(BackendError::Damaged(format!(
                "piece {} of large record {id} is missing",
                place.pieces
            )));
        }
        joined.extend_from_slice(&value);
        place.pieces += 1;
    }
    give(&joined, place, visit)
}

fn give(joined: &[u8], place: Cut, visit: &mut VisitCut<'_>) -> Result<(), BackendError> {
    if place.pieces == 0 {
        return Ok(());
    }
    let parts = joined
        .split_first_chunk::<4>()
        .and_then(|(length, rest)| rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?));
    let Some((key, value)) = parts else {
        return Err(BackendError::Damaged(format!("large record {} is too short", place.id)));
    };
    visit(key, value, place)
}

fn place_of(key: &[u8]) -> Result<(u64, u32), BackendError> {
    let parts = key.get(1..).and_then(|rest| {
        let (id, piece) = rest.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*id), u32::from_be_bytes(piece.try_into().ok()?)))
    });
    parts.ok_or_else(|| BackendError::Damaged(format!("there is an unknown key {}", key.escape_ascii())))
}

fn failed(what: &str, error: sled::Error) -> BackendError {
    match error {
        sled::Error::Io(error) => BackendError::io(what, &error),
        sled::Error::Corruption { .. } => BackendError::Damaged(format!("{what}: {error}")),
        error => BackendError::Failed(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(backend: &mut SledBackend) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        };
        backend.scan(&mut visit).expect("scan");
        found.sort();
        found
    }

    fn write(key: &[u8], value: Option<&[u8]>) -> Write {
        Write { key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
    }

    #[test]
    fn pairs_of_every_size_read_back_and_replace_each_other() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("db");
        let mut backend = SledBackend::create(&path).expect("create");
        let long_key = [b'k'; 2306];
        let sizes = [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 1 << 20];
        for size in sizes.into_iter().chain(sizes.into_iter().rev()) {
            for key in [&b"short"[..], &long_key[..], &[b'k'; KEY_WHOLE_MAX]] {
                let value = vec![size as u8; size];
                backend.apply(&[write(key, Some(&value))]).expect("apply");
                assert!(pairs(&mut backend).contains(&(key.to_vec(), value)), "{size}");
            }
        }
        drop(backend);
        let mut backend = SledBackend::open(&path).expect("open");
        assert_eq!(pairs(&mut backend).len(), 3);
        backend.apply(&[write(b"short", None), write(&long_key, None)]).expect("apply");
        assert_eq!(pairs(&mut backend).len(), 1);
        assert_eq!(backend.db().expect("open").len(), 1, "no piece is left behind");
    }

    #[test]
    fn a_large_load_leaves_no_blob_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("db");
        let mut backend = SledBackend::create(&path).expect("create");
        for round in 0..20_u32 {
            let name = |n: u32| [&n.to_be_bytes()[..], &[b'x'; KEY_WHOLE_MAX - 4]].concat();
            let writes = (0..64).map(|n| write(&name(n * 20 + round), Some(&[7; PIECE_BYTES])));
            backend.apply(&writes.collect::<Vec<_>>()).expect("apply");
        }
        let blobs = fs::read_dir(path.join("blobs")).expect("blobs").count();
        assert_eq!((blobs, pairs(&mut backend).len()), (0, 1280));
    }
}
