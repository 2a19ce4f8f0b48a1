//! Opening a store, and making a new one from a stream of records.
//!
//! A first start is a new store without records; a copy and an import are new stores with some. All three go
//! through [`create`], which leaves nothing behind unless it succeeds. Opening checks identity, every record
//! and the mark of the directory before the store is handed out.

use std::path::{Path, PathBuf};

use crate::backend::memory::MemoryBackend;
use crate::backend::{Backend, BackendError, StoreKind, Write};
use crate::codec;
use crate::embedded::{Embedded, Site, guarded};
use crate::error::OpenError;
use crate::identity::{IDENTITY, Identity, Reached};
use crate::index::{Entry, Index};
use crate::mark::{Mark, OpenMark};
use crate::place::{Place, create_database, database, open_database};
use crate::record::{HistoryId, Record, Revision};
use crate::store::{Store, StoreConfig};

/// A new store is written in batches of about this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Open a store, or make an empty one.
pub(crate) fn open(config: &StoreConfig) -> Result<Store, OpenError> {
    if config.kind == StoreKind::Memory {
        return create(config, 0, &mut std::iter::empty());
    }
    let place = Place::hold(&config.dir)?;
    if !place.has_store()? {
        build(&place, config, 0, &mut std::iter::empty())?;
    }
    open_existing(place, config)
}

/// Records for a new store. An error among them ends its making.
pub(crate) type Source<'a, E> = dyn Iterator<Item = Result<Record, E>> + 'a;

/// Make a store where there is none, that stands at `revision` with `records` in it, and open it.
pub(crate) fn create<E: From<OpenError>>(
    config: &StoreConfig,
    revision: u64,
    records: &mut Source<'_, E>,
) -> Result<Store, E> {
    if config.kind != StoreKind::Memory {
        let place = Place::hold(&config.dir)?;
        if place.has_store()? {
            return Err(OpenError::Occupied { dir: config.dir.clone() }.into());
        }
        build(&place, config, revision, records)?;
        return Ok(open_existing(place, config)?);
    }
    let path = Path::new("in memory");
    let mut backend: Box<dyn Backend> = Box::new(MemoryBackend::default());
    let history = HistoryId(config.history);
    fill(&mut *backend, path, history, revision, records)?;
    let content = read(&mut *backend, path)?;
    Ok(Store::start(Box::new(Embedded::new(backend, MemorySite, history, content)))?)
}

/// Make a store in the staging folder and publish it; on failure leave an empty directory.
fn build<E: From<OpenError>>(
    place: &Place,
    config: &StoreConfig,
    revision: u64,
    records: &mut Source<'_, E>,
) -> Result<(), E> {
    let built = build_staged(place, config, revision, records);
    if built.is_err() {
        place.unstage();
    }
    built
}

fn build_staged<E: From<OpenError>>(
    place: &Place,
    config: &StoreConfig,
    revision: u64,
    records: &mut Source<'_, E>,
) -> Result<(), E> {
    let staging = place.stage()?;
    let path = database(&staging, config.kind);
    let history = HistoryId(config.history);
    let mut backend = create_database(&path, config.kind).map_err(|e| explain(&path, e))?;
    fill(&mut *backend, &path, history, revision, records)?;
    drop(backend);
    Reached::create(&staging, revision)?;
    Identity { id: history, kind: config.kind }.write(&staging)?;
    Ok(place.publish(&Mark { store: history, history, reached: revision })?)
}

/// Write records and the summary into an empty database.
fn fill<E: From<OpenError>>(
    backend: &mut dyn Backend,
    path: &Path,
    history: HistoryId,
    revision: u64,
    records: &mut Source<'_, E>,
) -> Result<(), E> {
    let mut index = Index::new(history, revision);
    let (mut writes, mut bytes) = (Vec::new(), 0);
    for record in records {
        let record = record?;
        let key = codec::raw_key(&record.key);
        let (value, crc) = codec::raw_value(&key, record.revision, &record.value);
        bytes += key.len() + value.len();
        index.absorb(&[(record.key, Some(Entry { revision: record.revision, crc }))], revision);
        writes.push(Write { key, value: Some(value) });
        if bytes >= BATCH_BYTES {
            guarded(|| backend.apply(&writes)).map_err(|e| explain(path, e))?;
            (writes, bytes) = (Vec::new(), 0);
        }
    }
    let (key, value) = codec::raw_summary(&index.summary());
    writes.push(Write { key, value: Some(value) });
    Ok(guarded(|| backend.apply(&writes)).map_err(|e| explain(path, e))?)
}

fn open_existing(place: Place, config: &StoreConfig) -> Result<Store, OpenError> {
    let Found { identity, path, reached, backend, content } = find(&place, config)?;
    let mark = expect_mark(&place, identity, content.0.revision())?;
    let history = mark.history;
    let mark = OpenMark::open(place.dir(), mark)?;
    let site = DiskSite { place, path, kind: identity.kind, reached, mark };
    Store::start(Box::new(Embedded::new(backend, site, history, content)))
}

/// Take the store folder that lies in `config.dir` for the store, although it is older than what was there or comes
/// from elsewhere. It goes on under the history id of `config`, so nobody compares its revisions with those of before.
///
/// Every record is read first; one rename makes the change. Where it stands, in its new history, is returned.
pub fn accept_restored(config: &StoreConfig) -> Result<Revision, OpenError> {
    let place = Place::hold(&config.dir)?;
    if !place.store().exists() {
        return Err(OpenError::NothingThere { dir: config.dir.clone() });
    }
    let Found { identity, backend, content, .. } = find(&place, config)?;
    drop(backend);
    let (history, number) = (HistoryId(config.history), content.0.revision());
    place.set_mark(&Mark { store: identity.id, history, reached: number })?;
    Ok(Revision { history, number })
}

/// A store folder that is whole in itself.
struct Found {
    identity: Identity,
    path: PathBuf,
    reached: Reached,
    backend: Box<dyn Backend>,
    content: (Index, Vec<Record>),
}

fn find(place: &Place, config: &StoreConfig) -> Result<Found, OpenError> {
    let store = place.store();
    let identity = identify(place, config, &store)?;
    let path = database(&store, identity.kind);
    let (reached, acknowledged) = Reached::open(&store)?;
    let mut backend = open_database(&path, identity.kind).map_err(|e| explain(&path, e))?;
    let content = read(&mut *backend, &path)?;
    let (expected, found) = (identity.id, content.0.history());
    if found != expected {
        return Err(OpenError::IdentityMismatch { identity: store.join(IDENTITY), expected, found });
    }
    if content.0.revision() < acknowledged {
        return Err(OpenError::WentBack { path, found: content.0.revision(), reached: acknowledged });
    }
    Ok(Found { identity, path, reached, backend, content })
}

/// The mark of the directory, if it speaks of this store and has not seen more of it.
fn expect_mark(place: &Place, identity: Identity, found: u64) -> Result<Mark, OpenError> {
    let (dir, Identity { id: store, kind }) = (place.dir().to_owned(), identity);
    match Mark::read(&dir)? {
        None => Err(OpenError::Unmarked { dir, store, kind }),
        Some(mark) if mark.store != store => {
            Err(OpenError::Replaced { dir, expected: mark.store, found: store, kind })
        }
        Some(Mark { reached, .. }) if found < reached => {
            Err(OpenError::Restored { dir, kind, found, reached })
        }
        Some(mark) => Ok(mark),
    }
}

/// The identity of a store folder that is whole and of the wanted kind.
fn identify(place: &Place, config: &StoreConfig, store: &Path) -> Result<Identity, OpenError> {
    let file = store.join(IDENTITY);
    let Some(identity) = Identity::read(store)? else {
        return Err(OpenError::MissingIdentity { identity: file });
    };
    let database = database(store, identity.kind);
    if !database.exists() {
        return Err(OpenError::MissingDatabase { identity: file, database, kind: identity.kind });
    }
    if identity.kind != config.kind {
        let dir = place.dir().to_owned();
        return Err(OpenError::WrongKind { dir, found: identity.kind, asked: config.kind });
    }
    Ok(identity)
}

fn read(backend: &mut dyn Backend, path: &Path) -> Result<(Index, Vec<Record>), OpenError> {
    guarded(|| Index::read(backend)).map_err(|e| explain(path, e))
}

fn explain(path: &Path, error: BackendError) -> OpenError {
    let path = path.to_owned();
    match error {
        BackendError::Damaged(detail) => OpenError::Damaged { path, detail },
        error => OpenError::Backend { path, detail: error.to_string() },
    }
}

/// A database on disk. The directory stays held as long as this is alive.
struct DiskSite {
    place: Place,
    path: PathBuf,
    kind: StoreKind,
    reached: Reached,
    mark: OpenMark,
}

impl Site for DiskSite {
    fn reopen(&mut self) -> Result<Box<dyn Backend>, BackendError> {
        open_database(&self.path, self.kind)
    }

    fn has_space(&mut self) -> bool {
        self.place.has_space()
    }

    fn reached(&mut self, revision: u64) {
        self.reached.note(revision);
        self.mark.note(revision);
    }

    fn dir(&self) -> &Path {
        self.place.dir()
    }
}

/// Nowhere: a database in memory does not fail, and could not be opened again.
struct MemorySite;

impl Site for MemorySite {
    fn reopen(&mut self) -> Result<Box<dyn Backend>, BackendError> {
        Err(BackendError::Failed("a store in memory cannot be opened again".into()))
    }

    fn has_space(&mut self) -> bool {
        true
    }

    fn reached(&mut self, _revision: u64) {}

    fn dir(&self) -> &Path {
        Path::new("in memory")
    }
}
