//! Records under one revision: load, commit, watch.
//!
//! Keeps records `(kind, key) -> bytes` and an ordered log of changes to them. Promises that an accepted
//! transaction is durable before its caller hears so, that revisions never fall within a history, and that a
//! watch leaves nothing out. Knows nothing of SPIFFE. Start at [`Store`]; a new backend starts at [`Engine`].

mod backend;
mod codec;
mod draft;
mod embedded;
mod engine;
mod error;
mod export;
mod identity;
mod index;
mod log;
mod mark;
mod open;
mod owner;
mod place;
mod record;
mod small_file;
mod store;
mod transaction;
mod transfer;

pub use backend::{StoreKind, StoreKindError};
pub use engine::{CommitResult, Committed, Engine};
pub use error::{OpenError, StoreError, StoreState, WatchError};
pub use export::{ExportError, ExportParts, Exported, ImportError, check_export, export, import};
pub use log::{RETAINED_BYTES_MAX, RETAINED_CHANGES_MAX, Waited, Watch};
pub use open::accept_restored;
pub use record::{Change, HistoryId, HistoryIdError, Kind, Loaded, Record, RecordKey, Revision};
pub use store::{QUEUE_MAX, Store, StoreConfig};
pub use transaction::{
    Conflict, InvalidTransaction, KEY_BYTES_MAX, Precondition, TRANSACTION_BYTES_MAX, TRANSACTION_ITEMS_MAX,
    Transaction, VALUE_BYTES_MAX,
};
pub use transfer::{Copied, CopyError, copy};
