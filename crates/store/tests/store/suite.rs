//! What every backend must do alike.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use spindle_store::{
    Change, Precondition, RecordKey, StoreError, StoreKind, StoreState, Transaction, Waited, WatchError,
};

use crate::support::{Home, commit, conflict, contents, key, put};

/// Long enough for any machine; a test that waits this long fails.
const PATIENCE: Duration = Duration::from_secs(60);

macro_rules! on {
    ($($module:ident $kind:ident: $($name:ident)*;)*) => {
        $(mod $module {
            $(#[test]
            fn $name() {
                super::$name(&crate::support::Home::new(spindle_store::StoreKind::$kind));
            })*
        })*
    };
}

macro_rules! every_backend {
    ($($name:ident)*) => {
        on! { sled Sled: $($name)*; redb Redb: $($name)*; memory Memory: $($name)*; }
    };
}

every_backend! {
    a_first_start_is_empty_at_revision_zero
    what_was_put_is_loaded_and_what_was_deleted_is_not
    each_transaction_has_the_next_revision
    absent_refuses_a_record_that_is_there
    exists_refuses_a_record_that_is_not_there
    at_revision_refuses_any_other_revision
    a_refused_transaction_changes_nothing
    the_first_failed_precondition_is_the_one_named
    of_many_that_take_one_name_exactly_one_wins
    values_and_keys_of_every_size_are_kept
    an_invalid_transaction_is_refused_before_it_is_queued
    kinds_with_one_key_are_different_records
    a_transaction_that_only_asks_has_a_revision_too
    a_watch_sees_every_change_in_order
    a_watch_from_the_past_starts_with_what_is_retained
    watchers_beside_many_writers_miss_nothing_and_see_nothing_twice
    a_callback_has_seen_a_change_before_its_writer_is_told
    a_callback_gets_the_changes_since_its_load
    a_closed_store_answers_that_it_is_closed
}

fn a_first_start_is_empty_at_revision_zero(home: &Home) {
    let store = home.open();
    let loaded = store.load().unwrap();
    assert_eq!((loaded.records.len(), loaded.revision.number), (0, 0));
    assert_eq!(loaded.revision.history.0, crate::support::HISTORY);
    assert_eq!(store.state(), StoreState::Ready);
}

fn what_was_put_is_loaded_and_what_was_deleted_is_not(home: &Home) {
    let store = home.open();
    commit(&store, put("a", b"1").put(key("b"), *b"2"));
    commit(&store, put("a", b"3"));
    commit(&store, Transaction::new().delete(key("b")).put(key("c"), *b""));
    let expected = [(key("a"), (2, b"3".to_vec())), (key("c"), (3, Vec::new()))];
    assert_eq!(contents(&store), expected.into());
    assert_eq!(store.revision().number, 3);
}

fn each_transaction_has_the_next_revision(home: &Home) {
    let store = home.open();
    for expected in 1..=20 {
        assert_eq!(commit(&store, put("a", b"v")), expected);
        assert_eq!(store.revision().number, expected);
    }
}

fn absent_refuses_a_record_that_is_there(home: &Home) {
    let store = home.open();
    let take = || put("a", b"v").absent(key("a"));
    assert_eq!(commit(&store, take()), 1);
    let refused = conflict(&store, take());
    assert_eq!((refused.precondition, refused.found), (Precondition::Absent(key("a")), Some(1)));
    commit(&store, Transaction::new().delete(key("a")));
    assert_eq!(commit(&store, take()), 3);
}

fn exists_refuses_a_record_that_is_not_there(home: &Home) {
    let store = home.open();
    let burn = || Transaction::new().exists(key("a")).delete(key("a"));
    assert_eq!(conflict(&store, burn()).found, None);
    commit(&store, put("a", b"token"));
    assert_eq!(commit(&store, burn()), 2);
    assert_eq!(conflict(&store, burn()).precondition, Precondition::Exists(key("a")));
}

fn at_revision_refuses_any_other_revision(home: &Home) {
    let store = home.open();
    let update = |revision| put("a", b"v").at_revision(key("a"), revision);
    assert_eq!(conflict(&store, update(0)).found, None);
    commit(&store, put("a", b"v"));
    commit(&store, put("other", b"v"));
    assert_eq!(conflict(&store, update(0)).found, Some(1));
    assert_eq!(conflict(&store, update(2)).found, Some(1));
    assert_eq!(commit(&store, update(1)), 3);
    assert_eq!(conflict(&store, update(1)).found, Some(3));
}

fn a_refused_transaction_changes_nothing(home: &Home) {
    let store = home.open();
    commit(&store, put("a", b"1"));
    let before = contents(&store);
    conflict(&store, put("a", b"2").put(key("b"), *b"2").absent(key("a")));
    conflict(&store, Transaction::new().delete(key("a")).exists(key("b")));
    assert_eq!((contents(&store), store.revision().number), (before, 1));
}

fn the_first_failed_precondition_is_the_one_named(home: &Home) {
    let store = home.open();
    let refused = conflict(&store, Transaction::new().absent(key("a")).exists(key("b")).exists(key("c")));
    assert_eq!(refused.index, 1);
    assert_eq!(refused.to_string(), "1:b must exist, but it does not exist");
}

fn of_many_that_take_one_name_exactly_one_wins(home: &Home) {
    let store = home.open();
    for round in 0..20 {
        let name = key(format!("name {round}"));
        let (answer, answers) = sync_channel(16);
        std::thread::scope(|scope| {
            for racer in 0..16_u8 {
                let (store, name, answer) = (&store, name.clone(), answer.clone());
                scope.spawn(move || {
                    let take = Transaction::new().absent(name.clone()).put(name, [racer]);
                    store.commit(take, move |result| answer.send(result.unwrap().is_ok()).unwrap());
                });
            }
        });
        drop(answer);
        assert_eq!(answers.iter().filter(|won| *won).count(), 1);
    }
    assert_eq!(store.load().unwrap().records.len(), 20);
}

fn values_and_keys_of_every_size_are_kept(home: &Home) {
    let store = home.open();
    let sizes = [0, 1, 4095, 4096, 4097, 70_000, 1 << 20];
    for (round, size) in sizes.into_iter().chain(sizes.into_iter().rev()).enumerate() {
        for key_bytes in [0, 1, 198, 199, 2304] {
            let name = key(vec![b'k'; key_bytes]);
            commit(&store, Transaction::new().put(name, vec![round as u8; size]));
        }
        let found = contents(&store);
        let wanted = vec![round as u8; size];
        assert!(found.len() == 5 && found.values().all(|(_, value)| *value == wanted), "{size}");
    }
}

fn an_invalid_transaction_is_refused_before_it_is_queued(home: &Home) {
    let store = home.open();
    let refused = store.commit_wait(put("a", b"1").delete(key("a"))).unwrap_err();
    assert!(matches!(refused, StoreError::Invalid(_)), "{refused}");
    assert_eq!(store.revision().number, 0);
}

fn kinds_with_one_key_are_different_records(home: &Home) {
    let store = home.open();
    let of_kind = |kind| RecordKey::new(spindle_store::Kind(kind), "a");
    for kind in [0, 1, 255] {
        commit(&store, Transaction::new().absent(of_kind(kind)).put(of_kind(kind), [kind]));
    }
    commit(&store, Transaction::new().delete(of_kind(1)));
    let left: Vec<_> = contents(&store).into_keys().collect();
    assert_eq!(left, [of_kind(0), of_kind(255)]);
}

fn a_transaction_that_only_asks_has_a_revision_too(home: &Home) {
    let store = home.open();
    assert_eq!(commit(&store, Transaction::new().absent(key("a"))), 1);
    assert_eq!(commit(&store, put("a", b"v")), 2);
}

fn revisions(watch: &mut spindle_store::Watch, count: usize) -> Vec<u64> {
    watch.take(count).map(|change| change.unwrap().revision).collect()
}

fn a_watch_sees_every_change_in_order(home: &Home) {
    let store = home.open();
    let mut watch = store.watch(0).unwrap();
    commit(&store, put("a", b"1").put(key("b"), *b"2"));
    conflict(&store, put("a", b"x").absent(key("a")));
    commit(&store, Transaction::new().delete(key("a")).delete(key("missing")));
    let first: Arc<Change> = watch.next().unwrap().unwrap();
    let puts: Vec<_> =
        first.puts.iter().map(|record| (&record.key, &record.value[..], record.revision)).collect();
    assert_eq!(puts, [(&key("a"), &b"1"[..], 1), (&key("b"), &b"2"[..], 1)]);
    let second = watch.next().unwrap().unwrap();
    assert_eq!((second.revision, &second.deletes[..]), (2, &[key("a")][..]));
    assert_eq!(watch.next_timeout(Duration::ZERO), Ok(Waited::TimedOut));
}

fn a_watch_from_the_past_starts_with_what_is_retained(home: &Home) {
    let store = home.open();
    (0..10).for_each(|_| {
        commit(&store, put("a", b"v"));
    });
    assert_eq!(revisions(&mut store.watch(7).unwrap(), 3), [8, 9, 10]);
    assert_eq!(store.watch(11).err(), Some(WatchError::Ahead { after: 11, latest: 10 }));
    if home.kind != StoreKind::Memory {
        store.close();
        let store = home.open();
        assert_eq!(store.watch(9).err(), Some(WatchError::TooOld { after: 9, oldest: 10 }));
        assert!(store.watch(10).is_ok());
    }
}

fn watchers_beside_many_writers_miss_nothing_and_see_nothing_twice(home: &Home) {
    let store = home.open();
    let (writers, each) = (4, 50);
    let total = writers * each;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mut watch = store.watch(0).unwrap();
            scope.spawn(move || {
                assert_eq!(revisions(&mut watch, total), (1..=total as u64).collect::<Vec<_>>());
            });
        }
        for writer in 0..writers {
            let store = &store;
            scope.spawn(move || {
                for n in 0..each {
                    commit(store, put(&format!("{writer} {n}"), b"v"));
                }
            });
        }
    });
    let mut late = store.watch(0).unwrap();
    store.close();
    assert_eq!(late.by_ref().count(), total);
    assert!(late.next().is_none());
}

fn a_callback_has_seen_a_change_before_its_writer_is_told(home: &Home) {
    let store = home.open();
    let (seen, changes) = std::sync::mpsc::channel();
    store.on_change(0, move |change| seen.send(change.revision).unwrap()).unwrap();
    for _ in 0..50 {
        let revision = commit(&store, put("a", b"v"));
        assert_eq!(changes.try_recv(), Ok(revision), "seen by the time of the answer");
    }
    let (answer, answers) = std::sync::mpsc::channel();
    for _ in 0..50 {
        let answer = answer.clone();
        store.commit(put("a", b"v"), move |result| answer.send(result).unwrap());
    }
    for _ in 0..50 {
        let revision = answers.recv_timeout(PATIENCE).unwrap().unwrap().unwrap();
        assert_eq!(changes.try_recv(), Ok(revision));
    }
}

fn a_callback_gets_the_changes_since_its_load(home: &Home) {
    let store = home.open();
    (0..3).for_each(|_| {
        commit(&store, put("a", b"v"));
    });
    let (seen, changes) = std::sync::mpsc::channel();
    let other = seen.clone();
    store.on_change(1, move |change| seen.send(change.revision).unwrap()).unwrap();
    assert_eq!(changes.try_iter().collect::<Vec<_>>(), [2, 3]);
    let refused = store.on_change(4, move |change| other.send(change.revision).unwrap()).unwrap_err();
    assert_eq!(refused, StoreError::Watch(WatchError::Ahead { after: 4, latest: 3 }));
    commit(&store, put("a", b"v"));
    assert_eq!(changes.try_iter().collect::<Vec<_>>(), [4], "the refused one is not called");
}

fn a_closed_store_answers_that_it_is_closed(home: &Home) {
    let store = home.open();
    let (other, mut watch) = (store.clone(), store.watch(0).unwrap());
    commit(&store, put("a", b"v"));
    store.close();
    store.close();
    assert_eq!(other.commit_wait(put("a", b"v")), Err(StoreError::Closed));
    assert_eq!(other.load().err(), Some(StoreError::Closed));
    assert_eq!(other.on_change(1, |_| ()).err(), Some(StoreError::Closed));
    assert_eq!(revisions(&mut watch, 2), [1], "what came before the close, then the end");
    assert_eq!(other.revision().number, 1);
}
