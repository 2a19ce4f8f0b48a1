//! The handle that everybody holds: load, commit, watch, close.
//!
//! Cheap to clone. All calls go to one owner thread through a bounded queue. `commit` does not wait for the disk
//! (only for room in the queue); the calls that do say so. Start at [`Store::open`] and [`Store::commit`].

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};

use crate::StoreKind;
use crate::engine::{CommitResult, Engine};
use crate::error::{OpenError, StoreError, StoreState, WatchError};
use crate::log::Watch;
use crate::owner::{Message, Owner, Public, Reply};
use crate::record::{Change, HistoryId, Loaded, Revision};
use crate::transaction::Transaction;

/// Calls that may wait in the queue; a caller beyond it waits for room.
pub const QUEUE_MAX: usize = 4096;

/// Which store to open, and where.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The database to use; must match what is in the directory.
    pub kind: StoreKind,
    /// The directory of the store, used by nothing else. Made if missing. Unused by `Memory`.
    pub dir: PathBuf,
    /// 16 random bytes, the history id if this is a first start.
    pub history: [u8; 16],
}

/// A handle of an open store. When the last one is dropped the store is closed.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    /// Always there until the drop.
    queue: Option<SyncSender<Message>>,
    public: Arc<Public>,
    owner: Mutex<Option<JoinHandle<()>>>,
    owner_id: ThreadId,
}

impl Store {
    /// Open the store in `config.dir`, or make one if the directory is empty. Waits for the disk and reads
    /// every record.
    pub fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        crate::open::open(config)
    }

    /// Run a store on `engine`, on a thread of its own; for engines from outside this crate.
    pub fn start(engine: Box<dyn Engine>) -> Result<Self, OpenError> {
        let (sender, queue) = sync_channel(QUEUE_MAX);
        let public = Arc::new(Public::new(&*engine));
        let owner = Owner::new(engine, queue, Arc::clone(&public));
        let owner = thread::Builder::new().name("store-owner".into()).spawn(move || owner.run());
        let owner = owner.map_err(|source| OpenError::Io {
            action: "start the owner thread for",
            path: "the store".into(),
            source,
        })?;
        let owner_id = owner.thread().id();
        Ok(Self(Arc::new(Shared { queue: Some(sender), public, owner: Mutex::new(Some(owner)), owner_id })))
    }

    /// Where the store stood after the last batch that was answered.
    pub fn revision(&self) -> Revision {
        self.0.public.facts().revision
    }

    /// The history the store's revisions count in.
    pub fn history(&self) -> HistoryId {
        self.revision().history
    }

    /// Whether the store takes writes.
    pub fn state(&self) -> StoreState {
        self.0.public.facts().state
    }

    /// Every record and where they stand. Waits for the disk, behind the commits already sent.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let (sender, reply) = sync_channel(1);
        self.ask(Message::Load(sender), &reply)?
    }

    /// Send a transaction; `reply` is called exactly once: on the owner thread when it is durable and every change
    /// callback has run, or when it was refused; on this thread if it cannot even be sent. A reply must be quick.
    /// Transactions sent by one thread commit in that order.
    ///
    /// Waits only if [`QUEUE_MAX`] calls are ahead. From a callback it never waits: a full queue answers
    /// [`StoreError::OwnThread`].
    pub fn commit(&self, transaction: Transaction, reply: impl FnOnce(CommitResult) + Send + 'static) {
        let reply = Reply::new(reply);
        if let Err(invalid) = transaction.check() {
            return reply.send(Err(invalid.into()));
        }
        let message = Message::Commit(transaction, reply);
        let Some(queue) = &self.0.queue else { return }; // dropping the message answers `Closed`
        if !self.on_owner_thread() {
            drop(queue.send(message)); // as above
        } else if let Err(TrySendError::Full(Message::Commit(_, reply))) = queue.try_send(message) {
            reply.send(Err(StoreError::OwnThread));
        }
    }

    /// [`Self::commit`] that waits for the answer.
    pub fn commit_wait(&self, transaction: Transaction) -> CommitResult {
        if self.on_owner_thread() {
            return Err(StoreError::OwnThread);
        }
        let (sender, reply) = sync_channel(1);
        self.commit(transaction, move |result| {
            // The receiver waits below until this is sent.
            let _ = sender.send(result);
        });
        reply.recv().unwrap_or(Err(StoreError::Closed))
    }

    /// All changes later than revision `after`, such as [`Loaded::revision`], in order, none skipped, none
    /// twice. Refused if `after` is older than what is retained or ahead of the store.
    pub fn watch(&self, after: u64) -> Result<Watch, WatchError> {
        Watch::new(Arc::clone(&self.0.public.log), after)
    }

    /// Call `callback` on the owner thread for every change later than `after`, in order, before the writer of
    /// the change is answered. Waits until the retained changes later than `after` were given to it.
    ///
    /// A callback must be quick and must not wait for the store. If one panics, its view may lack a change:
    /// the store then takes no more writes. A callback that holds a `Store` keeps it open until
    /// [`Self::close`].
    pub fn on_change(
        &self,
        after: u64,
        callback: impl FnMut(Arc<Change>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let (sender, reply) = sync_channel(1);
        self.ask(Message::OnChange(after, Box::new(callback), sender), &reply)?
    }

    /// Finish what was sent before, close the database and give the directory free. Later calls on any handle
    /// fail with [`StoreError::Closed`]; watches end. From a callback it only asks for it.
    pub fn close(&self) {
        let Some(queue) = &self.0.queue else { return };
        if self.on_owner_thread() {
            drop(queue.try_send(Message::Close));
            return;
        }
        drop(queue.send(Message::Close)); // fails if it is closed already
        self.0.join();
    }

    fn on_owner_thread(&self) -> bool {
        thread::current().id() == self.0.owner_id
    }

    fn ask<T>(&self, message: Message, reply: &Receiver<T>) -> Result<T, StoreError> {
        if self.on_owner_thread() {
            return Err(StoreError::OwnThread);
        }
        let queue = self.0.queue.as_ref().ok_or(StoreError::Closed)?;
        queue.send(message).map_err(|_| StoreError::Closed)?;
        reply.recv().map_err(|_| StoreError::Closed)
    }
}

impl Shared {
    fn join(&self) {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = owner.take()
            && owner.join().is_err()
        {
            tracing::error!("the thread of the store panicked");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue = None; // the owner ends when it has drained the queue
        if thread::current().id() != self.owner_id {
            self.join();
        }
    }
}
