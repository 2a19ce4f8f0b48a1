//! Everything the server knows, in memory, over a store that makes it durable.
//!
//! Readers take [`Directory::view`], an immutable snapshot, and hold no lock. Writers go through
//! [`Directory::commit`]: the store makes the transaction durable, its owner thread applies the change to the view, and
//! only then the writer is answered. Nothing else changes the view, so its revision never falls.

mod agent;
mod authorized;
mod bundle_record;
mod federation;
mod history;
mod records;
mod role_holder;
mod view;

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use spindle_spiffe_core::{ErrorChain, SpiffeId, TrustDomain};
use spindle_store::{Change, Conflict, ExportParts, QUEUE_MAX, Store, StoreError, StoreState, Transaction};
use tokio::sync::Semaphore;

pub(crate) use agent::AgentRow;
pub(crate) use authorized::{
    Ancestor, Ancestors, authorized_entries, formerly_authorized, is_authorized, moves_others,
};
pub(crate) use bundle_record::encode as encode_bundle;
pub(crate) use federation::Unlinking;
pub(crate) use history::{History, Since};
pub(crate) use records::{
    agent_key, bundle_key, encode_entry, encode_relationship, entry_key, join_token_key, journal_key,
    power_key, reference_key, relationship_key, roles_key, similarity_key, token_journal_key, unlinking_key,
};
pub(crate) use role_holder::RoleHolder;
pub(crate) use view::{EntryRow, JoinToken, Touched, View};

/// Why the directory cannot be loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// A stored record cannot be read: written by a newer version, or damaged.
    #[error("stored {key} cannot be read: {why}")]
    Record {
        /// Which record.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store was made for another trust domain; taking it up would mix two.
    #[error(
        "the store belongs to trust domain {found:?}, not to {wanted:?}: use its trust domain, or an empty directory"
    )]
    OtherTrustDomain {
        /// A trust domain whose bundle is there.
        found: TrustDomain,
        /// The trust domain as configured.
        wanted: TrustDomain,
    },
}

/// Why a commit changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// A precondition did not hold any more; the caller knows what that means for the thing it writes.
    #[error("a precondition failed: {0}")]
    Conflict(Conflict),
    /// The store failed or is closed; nothing is known to be durable.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Commits that are with the store at a time. Its queue has room for more, so that sending one never holds up a thread of
/// the async runtime; whoever comes later waits here, in order.
const COMMITS_MAX: usize = QUEUE_MAX / 2;

/// Is told of each change after it was applied, on the store's owner thread: must be quick and must not commit.
pub(crate) type Listener = Box<dyn Fn(&Arc<View>, &Touched) + Send + Sync>;

/// A cheap handle on the state of the trust domain.
#[derive(Clone)]
pub(crate) struct Directory {
    store: Store,
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
}

struct Shared {
    view: ArcSwap<View>,
    history: Mutex<History>,
    listeners: Mutex<Vec<Listener>>,
}

impl Directory {
    /// Loads all records of `store` and follows its changes from there on.
    pub(crate) fn open(store: Store, trust_domain: &TrustDomain) -> Result<Self, DirectoryError> {
        let loaded = store.load()?;
        let (history_id, revision) = (loaded.revision.history, loaded.revision.number);
        let view = View::load(trust_domain, history_id, revision, loaded.records)?;
        // A server's first commit stores its own bundle, so a store with bundles but not ours is somebody else's.
        if let (Some(other), None) = (view.bundles().next(), view.bundle(trust_domain)) {
            let found = other.trust_domain.clone();
            return Err(DirectoryError::OtherTrustDomain { found, wanted: trust_domain.clone() });
        }
        let shared = Arc::new(Shared {
            view: ArcSwap::from_pointee(view),
            history: Mutex::new(History::starting_at(revision)),
            listeners: Mutex::new(Vec::new()),
        });
        let applier = shared.clone();
        store.on_change(revision, move |change| applier.apply(&change))?;
        Ok(Self { store, shared, room: Arc::new(Semaphore::new(COMMITS_MAX)) })
    }

    /// The newest snapshot.
    pub(crate) fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// What changed for `agent` since `revision`, as far as it is remembered.
    pub(crate) fn since(&self, revision: u64, agent: &SpiffeId) -> Since {
        lock(&self.shared.history).since(revision, agent)
    }

    /// Whether changes can be stored now.
    pub(crate) fn takes_changes(&self) -> bool {
        self.store.state() == StoreState::Ready
    }

    /// Adds a listener for changes that are applied from now on.
    pub(crate) fn listen(&self, listener: Listener) {
        lock(&self.shared.listeners).push(listener);
    }

    /// Makes `transaction` durable and applies it; returns the revision at which it stands.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<u64, CommitError> {
        // Unconstrained: the runtime's own fairness would let later items of a batch overtake earlier ones.
        let room = tokio::task::unconstrained(self.room.clone().acquire_owned());
        let room = room.await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.store.commit(transaction, move |outcome| {
            // Held until now also when the caller has gone, as its transaction was still in the queue.
            drop(room);
            // A caller that has gone away does not undo what is durable.
            let _ = reply.send(outcome);
        });
        match answer.await {
            Ok(Ok(Ok(revision))) => Ok(revision),
            Ok(Ok(Err(conflict))) => Err(CommitError::Conflict(conflict)),
            Ok(Err(error)) => Err(CommitError::Store(error)),
            Err(_) => Err(CommitError::Store(StoreError::Closed)),
        }
    }

    /// The whole store at one revision, as the parts of its export. Waits for the disk, behind the commits already sent;
    /// commits sent meanwhile wait behind it.
    pub(crate) async fn export_parts(&self) -> Result<ExportParts, StoreError> {
        let store = self.store.clone();
        let parts = tokio::task::spawn_blocking(move || Ok(ExportParts::of(store.load()?)));
        parts.await.map_err(|_| StoreError::Closed)?
    }

    /// Flushes and closes the store; later commits fail.
    pub(crate) fn close(&self) {
        self.store.close();
    }
}

impl Shared {
    /// # Panics
    /// When the change cannot be read. We wrote it ourselves a moment ago, so only a bug gets here. The store takes a panic
    /// for what it is: the view lacks a change, and nothing more may be written on the strength of it.
    fn apply(&self, change: &Change) {
        let mut view = View::clone(&self.view.load());
        let touched = view.apply(change).unwrap_or_else(|error| {
            panic!("cannot apply the change of revision {}: {}", change.revision, ErrorChain(&error))
        });
        let view = Arc::new(view);
        lock(&self.history).remember(&view, &touched);
        self.view.store(view.clone());
        for listener in lock(&self.listeners).iter() {
            listener(&view, &touched);
        }
    }
}

/// Our locks guard plain data that is valid at every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use spindle_store::{StoreConfig, StoreKind};

    use super::*;
    use crate::fixtures::{create, entry, id, trust_domain};

    fn open() -> (Store, Directory) {
        let config = StoreConfig { kind: StoreKind::Memory, dir: "unused".into(), history: [7; 16] };
        let store = Store::open(&config).unwrap();
        (store.clone(), Directory::open(store, &trust_domain()).unwrap())
    }

    #[tokio::test]
    async fn after_a_change_that_cannot_be_read_nothing_more_is_written() {
        let (store, directory) = open();
        create(&directory, entry(&id("/node"), "/web", &["a:1"])).await;
        let before = directory.view();
        let garbage = Transaction::new().put(agent_key(&id("/spire/agent/x/1")), b"\xff".as_slice());
        let _ = store.commit_wait(garbage);
        assert!(!directory.takes_changes());
        let later = directory.commit(Transaction::new().put(join_token_key("x"), b"".as_slice())).await;
        assert!(matches!(later, Err(CommitError::Store(_))), "{later:?}");
        assert_eq!(directory.view().revision, before.revision, "reading goes on");
    }

    #[tokio::test]
    async fn more_commits_than_there_is_room_for_wait_their_turn() {
        let (_, directory) = open();
        let commits = (0..3 * QUEUE_MAX).map(|n| {
            let key = bundle_key(&format!("d{n}.example").parse().unwrap());
            // A key that is not there: each is refused, which is as good as done.
            directory.commit(Transaction::new().exists(key))
        });
        let outcomes = futures_util::future::join_all(commits).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(CommitError::Conflict(_)))));
        assert_eq!(directory.room.available_permits(), COMMITS_MAX);
    }
}
