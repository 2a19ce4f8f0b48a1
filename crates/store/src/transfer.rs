//! Copies a store into a new one of any kind.
//!
//! Record revisions are kept and the new store stands at the old one's revision, but under a new history id:
//! both may go on from there. Nothing is published unless all of it was written.

use crate::error::{OpenError, StoreError};
use crate::open::create;
use crate::record::{HistoryId, Loaded, Record, Revision};
use crate::store::{Store, StoreConfig};

/// A new store made from another.
pub struct Copied {
    /// The new store, open.
    pub store: Store,
    /// Records in it.
    pub records: u64,
    /// Where it stands, in its own history.
    pub revision: Revision,
}

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source could not be read.
    #[error("could not read the store to copy")]
    Source(#[source] StoreError),
    /// The new store could not be made.
    #[error(transparent)]
    Target(#[from] OpenError),
    /// The new store was to have the history id of the old one.
    #[error("a copy needs a history id of its own, {0} is that of the source")]
    SameHistory(HistoryId),
    /// What was read back from the new store is not what was written. It must not be used.
    #[error("the copy in {0} does not read back as the source: remove it")]
    Differs(String),
}

/// Copy every record of `from` into the empty directory of `to`, read it back and compare.
///
/// Commits to `from` that are sent meanwhile are not in the copy.
pub fn copy(from: &Store, to: &StoreConfig) -> Result<Copied, CopyError> {
    if from.history().0 == to.history {
        return Err(CopyError::SameHistory(from.history()));
    }
    let Loaded { mut records, revision } = from.load().map_err(CopyError::Source)?;
    let mut source = records.iter().cloned().map(Ok::<Record, CopyError>);
    let store = create(to, revision.number, &mut source)?;
    let mut written = store.load().map_err(CopyError::Source)?;
    records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    written.records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    if written.records != records || written.revision.number != revision.number {
        return Err(CopyError::Differs(to.dir.display().to_string()));
    }
    Ok(Copied { store, records: records.len() as u64, revision: written.revision })
}
