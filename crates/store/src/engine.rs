//! The seam between the owner thread and whatever decides and keeps commits.
//!
//! [`Embedded`](crate::embedded::Embedded) is the engine of the embedded databases: one writer, so it decides
//! preconditions against its own index. A store shared by many servers, such as PostgreSQL, is an engine of
//! its own and changes nothing for callers of [`crate::Store`]:
//!
//! - `commit` takes the revision row's lock, checks the preconditions in SQL, writes rows and change table in
//!   one transaction, and returns in `changes` what other servers committed in between, before its own.
//! - a listener thread that hears a notification sends the owner an empty batch; `commit` of an empty batch
//!   reads the change table and returns the news. The table is the truth, the notification only wakes.
//! - `load` reads all rows in one snapshot; `revision` is the last change it has returned or loaded.

use std::sync::Arc;

use crate::error::{StoreError, StoreState};
use crate::record::{Change, Loaded, Revision};
use crate::transaction::{Conflict, Transaction};

/// The answer to one transaction: its revision number, the precondition that failed, or why the store could
/// not decide.
pub type CommitResult = Result<Result<u64, Conflict>, StoreError>;

/// What a batch led to.
#[derive(Debug, Default)]
pub struct Committed {
    /// All changes since the last batch, in order of revision, durable. They are those of the accepted
    /// transactions, and before them any that became certain or came from elsewhere meanwhile.
    pub changes: Vec<Arc<Change>>,
    /// One answer for each transaction, in order.
    pub answers: Vec<CommitResult>,
}

/// Decides transactions and makes them durable. Used by one thread, the owner.
pub trait Engine: Send {
    /// Where the store stands: the last change returned, or where it was opened.
    fn revision(&self) -> Revision;

    /// Every record at [`Self::revision`].
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Decide `batch` in order and make all that passes durable before returning.
    fn commit(&mut self, batch: Vec<Transaction>) -> Committed;

    /// Whether it takes writes.
    fn state(&self) -> StoreState;
}
