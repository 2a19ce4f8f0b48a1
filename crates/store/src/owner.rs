//! The one thread that owns the engine: it drains the queue, commits all that wait as one batch, publishes the
//! changes and only then answers.
//!
//! Order for each batch: durable, then the log for watchers, then the callbacks, then the replies. Messages
//! take effect in the order they were sent. Start at [`Owner::run`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::engine::{CommitResult, Engine};
use crate::error::{StoreError, StoreState};
use crate::log::Log;
use crate::record::{Change, Loaded, Revision};
use crate::transaction::Transaction;

/// Most transactions of one batch, so that the first caller does not wait for ever more to join.
const BATCH_TRANSACTIONS_MAX: usize = 1024;
/// A batch takes in no more once it has this many bytes.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Answers one caller exactly once; a message that is never reached answers that the store is closed.
pub(crate) struct Reply(Option<Box<dyn FnOnce(CommitResult) + Send>>);

impl Reply {
    pub(crate) fn new(reply: impl FnOnce(CommitResult) + Send + 'static) -> Self {
        Self(Some(Box::new(reply)))
    }

    pub(crate) fn send(mut self, result: CommitResult) {
        self.give(result);
    }

    fn give(&mut self, result: CommitResult) {
        let Some(reply) = self.0.take() else { return };
        if catch_unwind(AssertUnwindSafe(|| reply(result))).is_err() {
            tracing::error!("a reply to a commit panicked");
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.give(Err(StoreError::Closed));
    }
}

pub(crate) type Callback = Box<dyn FnMut(Arc<Change>) + Send>;

pub(crate) enum Message {
    Commit(Transaction, Reply),
    Load(SyncSender<Result<Loaded, StoreError>>),
    OnChange(u64, Callback, SyncSender<Result<(), StoreError>>),
    Close,
}

/// What handles may read without asking the owner.
pub(crate) struct Public {
    pub(crate) log: Arc<Log>,
    pub(crate) facts: Mutex<Facts>,
}

#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) revision: Revision,
    pub(crate) state: StoreState,
}

impl Public {
    pub(crate) fn new(engine: &dyn Engine) -> Self {
        let revision = engine.revision();
        let facts = Mutex::new(Facts { revision, state: engine.state() });
        Self { log: Arc::new(Log::new(revision.number)), facts }
    }

    pub(crate) fn facts(&self) -> Facts {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) struct Owner {
    engine: Box<dyn Engine>,
    queue: Receiver<Message>,
    public: Arc<Public>,
    callbacks: Vec<Callback>,
    /// Set when a callback panicked: its view of the records may lack a change, so nothing more is written.
    broken: Option<Arc<str>>,
}

impl Owner {
    pub(crate) fn new(engine: Box<dyn Engine>, queue: Receiver<Message>, public: Arc<Public>) -> Self {
        Self { engine, queue, public, callbacks: Vec::new(), broken: None }
    }

    /// Work until the store is closed or its last handle is gone.
    pub(crate) fn run(mut self) {
        let _closed = CloseOnDrop(Arc::clone(&self.public));
        let mut held = None;
        while let Some(message) = held.take().or_else(|| self.queue.recv().ok()) {
            match message {
                Message::Commit(transaction, reply) => held = self.commit(transaction, reply),
                Message::Load(reply) => {
                    // The asker may have gone; nothing to do then.
                    let _ = reply.send(self.engine.load());
                }
                Message::OnChange(after, callback, reply) => {
                    let _ = reply.send(self.register(after, callback));
                }
                Message::Close => return,
            }
        }
    }

    /// Commit one transaction and all that wait behind it; gives back the first message of another sort.
    fn commit(&mut self, first: Transaction, reply: Reply) -> Option<Message> {
        let mut bytes = first.bytes();
        let (mut batch, mut replies) = (vec![first], vec![reply]);
        let mut held = None;
        while batch.len() < BATCH_TRANSACTIONS_MAX && bytes < BATCH_BYTES_MAX {
            match self.queue.try_recv() {
                Ok(Message::Commit(transaction, reply)) => {
                    bytes += transaction.bytes();
                    batch.push(transaction);
                    replies.push(reply);
                }
                Ok(other) => {
                    held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        self.commit_batch(batch, replies);
        held
    }

    fn commit_batch(&mut self, batch: Vec<Transaction>, replies: Vec<Reply>) {
        if let Some(detail) = &self.broken {
            let error = StoreError::Stopped { detail: Arc::clone(detail) };
            return replies.into_iter().for_each(|reply| reply.send(Err(error.clone())));
        }
        let committed = self.engine.commit(batch);
        self.public.log.append(&committed.changes);
        committed.changes.iter().for_each(|change| self.call(change));
        self.note_facts();
        replies.into_iter().zip(committed.answers).for_each(|(reply, answer)| reply.send(answer));
    }

    fn register(&mut self, after: u64, mut callback: Callback) -> Result<(), StoreError> {
        for change in self.public.log.after(after)? {
            if !survives(&mut callback, &change) {
                return Err(self.break_down(change.revision));
            }
        }
        self.callbacks.push(callback);
        Ok(())
    }

    fn call(&mut self, change: &Arc<Change>) {
        let before = self.callbacks.len();
        self.callbacks.retain_mut(|callback| survives(callback, change));
        if self.callbacks.len() < before {
            self.break_down(change.revision);
        }
    }

    fn break_down(&mut self, revision: u64) -> StoreError {
        let detail: Arc<str> = format!("a change callback panicked at revision {revision}").into();
        tracing::error!(revision, "a change callback panicked, the store takes no more writes");
        self.broken = Some(Arc::clone(&detail));
        self.note_facts();
        StoreError::Stopped { detail }
    }

    fn note_facts(&self) {
        let state = match &self.broken {
            Some(detail) => StoreState::Stopped(Arc::clone(detail)),
            None => self.engine.state(),
        };
        let facts = Facts { revision: self.engine.revision(), state };
        *self.public.facts.lock().unwrap_or_else(PoisonError::into_inner) = facts;
    }
}

fn survives(callback: &mut Callback, change: &Arc<Change>) -> bool {
    catch_unwind(AssertUnwindSafe(|| callback(Arc::clone(change)))).is_ok()
}

/// Ends the watchers, and says that no more is written, however the owner ends.
struct CloseOnDrop(Arc<Public>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let why = if thread::panicking() { "its thread panicked" } else { "it was closed" };
        self.0.facts.lock().unwrap_or_else(PoisonError::into_inner).state = StoreState::Stopped(why.into());
        self.0.log.close();
    }
}
