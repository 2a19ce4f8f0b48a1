//! The owner thread: batching, order, and callers that misbehave. Uses an engine of its own.

use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};

use spindle_store::{
    Change, Committed, Engine, HistoryId, Loaded, Revision, Store, StoreError, StoreKind, StoreState,
    Transaction,
};

use crate::support::{Home, commit, put};

/// Accepts everything, and tells the sizes of the batches it was given.
struct Counting {
    revision: u64,
    batches: Sender<usize>,
    /// Each batch waits for one word.
    go: Receiver<()>,
}

impl Engine for Counting {
    fn revision(&self) -> Revision {
        Revision { history: HistoryId([0; 16]), number: self.revision }
    }

    fn load(&mut self) -> Result<Loaded, StoreError> {
        Ok(Loaded { records: Vec::new(), revision: self.revision() })
    }

    fn commit(&mut self, batch: Vec<Transaction>) -> Committed {
        self.batches.send(batch.len()).unwrap();
        self.go.recv().unwrap();
        let mut committed = Committed::default();
        for _ in batch {
            self.revision += 1;
            let change = Change { revision: self.revision, puts: Vec::new(), deletes: Vec::new() };
            committed.changes.push(Arc::new(change));
            committed.answers.push(Ok(Ok(self.revision)));
        }
        committed
    }

    fn state(&self) -> StoreState {
        StoreState::Ready
    }
}

fn counting() -> (Store, Receiver<usize>, Sender<()>) {
    let (batches, sizes) = channel();
    let (word, go) = channel();
    (Store::start(Box::new(Counting { revision: 0, batches, go })).unwrap(), sizes, word)
}

#[test]
fn all_that_wait_are_committed_as_one_batch_and_answered_in_order() {
    let (store, sizes, word) = counting();
    let (answer, answers) = channel();
    let send = |count: usize| {
        for _ in 0..count {
            let answer = answer.clone();
            store.commit(put("a", b"v"), move |result| answer.send(result.unwrap().unwrap()).unwrap());
        }
    };
    send(1);
    assert_eq!(sizes.recv(), Ok(1));
    send(100); // while the first batch is held up
    word.send(()).unwrap();
    assert_eq!(sizes.recv(), Ok(100));
    word.send(()).unwrap();
    assert_eq!(answers.iter().take(101).collect::<Vec<_>>(), (1..=101).collect::<Vec<_>>());
}

#[test]
fn a_batch_is_bounded_in_transactions_and_in_bytes() {
    let (store, sizes, word) = counting();
    store.commit(put("a", b"v"), |_| ());
    assert_eq!(sizes.recv(), Ok(1));
    (0..1500).for_each(|_| store.commit(put("a", b"v"), |_| ()));
    (0..8).for_each(|_| store.commit(put("a", &[0; 1 << 20]), |_| ()));
    (0..4).for_each(|_| word.send(()).unwrap());
    let batches: Vec<_> = (0..3).map(|_| sizes.recv().unwrap()).collect();
    assert_eq!(batches, [1024, 480, 4]);
}

#[test]
fn a_load_is_answered_in_its_turn() {
    let (store, sizes, word) = counting();
    store.commit(put("a", b"v"), |_| ());
    assert_eq!(sizes.recv(), Ok(1));
    (0..2).for_each(|_| store.commit(put("a", b"v"), |_| ()));
    (0..2).for_each(|_| word.send(()).unwrap());
    assert_eq!(store.load().unwrap().revision.number, 3);
}

#[test]
fn a_close_finishes_what_was_sent_before_and_refuses_what_comes_after() {
    let (store, sizes, word) = counting();
    let (answer, answers) = channel();
    let send = |name: &'static str| {
        let answer = answer.clone();
        store.commit(put("a", b"v"), move |result| answer.send((name, result)).unwrap());
    };
    send("first");
    assert_eq!(sizes.recv(), Ok(1));
    send("second");
    (0..2).for_each(|_| word.send(()).unwrap());
    store.close();
    send("late");
    let told: Vec<_> = answers.try_iter().collect();
    assert_eq!(told, [("first", Ok(Ok(1))), ("second", Ok(Ok(2))), ("late", Err(StoreError::Closed))]);
}

#[test]
fn messages_left_behind_a_close_are_answered_too() {
    let (store, sizes, word) = counting();
    let (answer, answers) = channel();
    let closer = store.clone();
    store.commit(put("a", b"v"), move |_| closer.close());
    assert_eq!(sizes.recv(), Ok(1));
    // These wait behind the first batch. The close follows them, sent by the first reply.
    for _ in 0..10 {
        let answer = answer.clone();
        store.commit(put("a", b"v"), move |result| answer.send(result.is_ok()).unwrap());
    }
    (0..2).for_each(|_| word.send(()).unwrap());
    store.close();
    drop(answer);
    assert_eq!(answers.iter().collect::<Vec<_>>(), [true; 10]);
}

#[test]
fn the_owner_thread_never_waits_for_itself() {
    let store = Home::new(StoreKind::Memory).open();
    let (told, results) = channel();
    let inner = store.clone();
    store
        .on_change(0, move |change| {
            if change.revision == 1 {
                let waited = inner.commit_wait(put("b", b"v"));
                told.send((waited.err(), inner.load().err(), inner.on_change(0, |_| ()).err())).unwrap();
                inner.commit(put("b", b"v"), |result| assert_eq!(result, Ok(Ok(2))));
            }
        })
        .unwrap();
    commit(&store, put("a", b"v"));
    let own = || Some(StoreError::OwnThread);
    assert_eq!(results.recv(), Ok((own(), own(), own())));
    assert_eq!(store.load().unwrap().revision.number, 2, "a commit from a callback is queued");
    store.close();
}

#[test]
fn a_callback_that_panics_stops_the_store_but_not_the_answer_of_what_is_durable() {
    let store = Home::new(StoreKind::Memory).open();
    store.on_change(0, |change| assert!(change.revision < 2, "a fault in the view")).unwrap();
    assert_eq!(commit(&store, put("a", b"v")), 1);
    assert_eq!(commit(&store, put("a", b"v")), 2);
    let refused = store.commit_wait(put("a", b"v")).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the store takes no more writes since an earlier failure (a change callback panicked at revision 2): \
         restart the server"
    );
    assert!(matches!(store.state(), StoreState::Stopped(_)));
}

#[test]
fn after_its_thread_has_ended_the_store_says_that_it_takes_no_writes() {
    let (store, _, word) = counting();
    drop(word); // the engine panics when it waits for one
    assert_eq!(store.commit_wait(put("a", b"v")), Err(StoreError::Closed));
    store.close();
    assert_eq!(store.state(), StoreState::Stopped("its thread panicked".into()));

    let store = Home::new(StoreKind::Memory).open();
    store.close();
    assert_eq!(store.state(), StoreState::Stopped("it was closed".into()));
}

#[test]
fn a_reply_that_panics_harms_nobody_else() {
    let store = Home::new(StoreKind::Memory).open();
    store.commit(put("a", b"v"), |_| panic!("a fault in a caller"));
    assert_eq!(commit(&store, put("a", b"v")), 2);
}

#[test]
fn the_last_handle_closes_the_store_even_from_its_own_thread() {
    let home = Home::new(StoreKind::Redb);
    let (done, closed) = sync_channel(1);
    let store = home.open();
    let watch = store.watch(0).unwrap();
    let cell = Arc::new(Mutex::new(Some(store.clone())));
    let last = Arc::clone(&cell);
    store.commit(put("a", b"v"), move |_| {
        drop(last.lock().unwrap().take());
        done.send(()).unwrap();
    });
    drop(store);
    closed.recv().unwrap();
    assert_eq!(watch.count(), 1, "the watch ends");
}
