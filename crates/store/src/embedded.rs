//! The engine over an embedded database: index, draft, durable write, and recovery from a failed write.
//!
//! After a failed write the database is closed, opened again and compared with the index. If it stands where it
//! stood, or exactly where the failed batch would have brought it, the state is proven and the store goes on.
//! Only lack of space is recovered from; after any other failure what the page cache shows is no proof of what
//! the disk holds, so the store refuses writes until a restart. Start at [`Embedded::commit`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::backend::{Backend, BackendError};
use crate::draft::Draft;
use crate::engine::{Committed, Engine};
use crate::error::{StoreError, StoreState};
use crate::index::Index;
use crate::record::{Change, HistoryId, Loaded, Record, Revision};
use crate::transaction::Transaction;

/// Where the database of an engine lives, and how to get it back.
pub(crate) trait Site: Send {
    /// Open the database again.
    fn reopen(&mut self) -> Result<Box<dyn Backend>, BackendError>;
    /// Whether there is space for a write of some MiB.
    fn has_space(&mut self) -> bool;
    /// Note that `revision` is durable.
    fn reached(&mut self, revision: u64);
    /// The directory to name in messages.
    fn dir(&self) -> &Path;
}

pub(crate) struct Embedded<S> {
    // Closed before the site gives the directory free.
    backend: Option<Box<dyn Backend>>,
    site: S,
    /// What the revisions count in; the index knows only the history the store began with.
    history: HistoryId,
    index: Index,
    health: Health,
    /// A batch that failed, until it is known whether it happened.
    in_doubt: Option<Draft>,
    /// The records read at the opening, until they are asked for or a commit makes them old.
    opened: Option<Vec<Record>>,
}

enum Health {
    Ready,
    Full,
    Stopped(Arc<str>),
}

/// What the database turned out to hold after a failed write.
enum Found {
    Before,
    After(Draft),
}

impl<S: Site> Embedded<S> {
    /// An engine over a database that was just read.
    pub(crate) fn new(
        backend: Box<dyn Backend>,
        site: S,
        history: HistoryId,
        (index, records): (Index, Vec<Record>),
    ) -> Self {
        let opened = Some(records);
        Self { backend: Some(backend), site, history, index, health: Health::Ready, in_doubt: None, opened }
    }

    /// Whether a write can be tried. After a full disk: is there space, and what became of the last write?
    fn make_ready(&mut self, changes: &mut Vec<Arc<Change>>) -> Result<(), StoreError> {
        match &self.health {
            Health::Ready => return Ok(()),
            Health::Stopped(detail) => return Err(StoreError::Stopped { detail: Arc::clone(detail) }),
            Health::Full if !self.site.has_space() => return Err(self.disk_full()),
            Health::Full => (),
        }
        if self.backend.is_none() {
            self.recover(changes).map_err(|error| match error {
                BackendError::Full(_) => self.disk_full(),
                error => StoreError::Stopped { detail: self.stop(&error) },
            })?;
        }
        self.health = Health::Ready;
        tracing::info!(dir = %self.site.dir().display(), "the store takes writes again");
        Ok(())
    }

    fn disk_full(&self) -> StoreError {
        StoreError::DiskFull { dir: self.site.dir().to_owned() }
    }

    fn stop(&mut self, error: &BackendError) -> Arc<str> {
        let detail: Arc<str> = error.to_string().into();
        tracing::error!(dir = %self.site.dir().display(), error = %detail, "the store takes no more writes");
        self.health = Health::Stopped(Arc::clone(&detail));
        detail
    }

    /// Open the database again and find out what the failed batch did. If it did happen, it is written once
    /// more, so that it is durable before anybody hears of it.
    fn recover(&mut self, changes: &mut Vec<Arc<Change>>) -> Result<(), BackendError> {
        self.close()?;
        let mut backend = guarded(|| self.site.reopen())?;
        let (found, _) = guarded(|| Index::read(&mut *backend))?;
        match judge(&self.index, &found, self.in_doubt.take())? {
            Found::Before => (),
            Found::After(draft) => {
                if let Err(error) = guarded(|| backend.apply(&draft.writes)) {
                    self.in_doubt = Some(draft);
                    return Err(error);
                }
                self.settle(draft, changes);
            }
        }
        self.backend = Some(backend);
        Ok(())
    }

    fn close(&mut self) -> Result<(), BackendError> {
        self.backend.take().map_or(Ok(()), |backend| guarded(|| backend.close()))
    }

    /// A draft is durable: take it over.
    fn settle(&mut self, draft: Draft, changes: &mut Vec<Arc<Change>>) {
        self.index.absorb(&draft.entries, draft.revision);
        self.site.reached(draft.revision);
        changes.extend(draft.changes);
    }

    /// Write a draft; on failure find out what is left of it. `Ok` means durable.
    fn write(&mut self, draft: Draft, changes: &mut Vec<Arc<Change>>) -> Result<(), StoreError> {
        let Some(backend) = &mut self.backend else { return Err(self.disk_full()) };
        let error = match guarded(|| backend.apply(&draft.writes)) {
            Ok(()) => {
                self.settle(draft, changes);
                return Ok(());
            }
            Err(error) => error,
        };
        tracing::error!(dir = %self.site.dir().display(), %error, "a write to the store failed");
        let wanted = draft.revision;
        self.in_doubt = Some(draft);
        if !matches!(error, BackendError::Full(_)) {
            if let Err(error) = self.close() {
                tracing::warn!(dir = %self.site.dir().display(), %error, "closing the database failed as well");
            }
            return Err(StoreError::InDoubt { detail: self.stop(&error) });
        }
        self.health = Health::Full;
        match self.recover(changes) {
            Ok(()) if self.index.revision() == wanted => Ok(()),
            Ok(()) => Err(self.disk_full()),
            Err(BackendError::Full(detail)) => Err(StoreError::InDoubt { detail: detail.into() }),
            Err(error) => Err(StoreError::InDoubt { detail: self.stop(&error) }),
        }
    }
}

impl<S: Site> Engine for Embedded<S> {
    fn revision(&self) -> Revision {
        Revision { history: self.history, number: self.index.revision() }
    }

    fn load(&mut self) -> Result<Loaded, StoreError> {
        let revision = self.revision();
        if let Some(records) = self.opened.take() {
            return Ok(Loaded { records, revision });
        }
        let Some(backend) = &mut self.backend else {
            return Err(StoreError::Read { detail: "it is closed after a failed write".into() });
        };
        match guarded(|| Index::read(&mut **backend)) {
            Ok((index, records)) if index == self.index => Ok(Loaded { records, revision }),
            Ok(_) => Err(StoreError::Read { detail: "they are not what was acknowledged".into() }),
            Err(error) => Err(StoreError::Read { detail: error.to_string().into() }),
        }
    }

    fn commit(&mut self, batch: Vec<Transaction>) -> Committed {
        let count = batch.len();
        let mut changes = Vec::new();
        let refuse = |changes, error: &StoreError| {
            let answers = (0..count).map(|_| Err(error.clone())).collect();
            Committed { changes, answers }
        };
        if let Err(error) = self.make_ready(&mut changes) {
            return refuse(changes, &error);
        }
        let mut draft = Draft::decide(&self.index, batch);
        let verdicts = std::mem::take(&mut draft.verdicts);
        if !draft.changes.is_empty() {
            self.opened = None;
            // On failure the conflicts are withheld too: they may rest on a transaction that did not happen.
            if let Err(error) = self.write(draft, &mut changes) {
                return refuse(changes, &error);
            }
        }
        Committed { changes, answers: verdicts.into_iter().map(Ok).collect() }
    }

    fn state(&self) -> StoreState {
        match &self.health {
            Health::Ready => StoreState::Ready,
            Health::Full => StoreState::DiskFull,
            Health::Stopped(detail) => StoreState::Stopped(Arc::clone(detail)),
        }
    }
}

/// Compare what was found with what it was before the failed batch and what it would be after it.
fn judge(before: &Index, found: &Index, in_doubt: Option<Draft>) -> Result<Found, BackendError> {
    if found == before {
        return Ok(Found::Before);
    }
    if let Some(draft) = in_doubt {
        let mut after = before.clone();
        after.absorb(&draft.entries, draft.revision);
        if *found == after {
            return Ok(Found::After(draft));
        }
    }
    let (stands, stood) = (found.revision(), before.revision());
    Err(BackendError::Damaged(format!("after a failed write at revision {stood} it stands at {stands}")))
}

/// Run a call of a database; sled and redb panic where they do not expect to fail.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(BackendError::Failed(format!("the database panicked: {text}")))
    })
}

#[cfg(test)]
mod tests;
