//! Failed writes, on a disk that fails on command.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use crate::backend::{Visit, Write};
use crate::codec;
use crate::record::{HistoryId, Kind, RecordKey};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    FullBefore,
    FullAfter,
    /// As `FullAfter`, and one more record is lost.
    FullAndLost,
    Io,
    Panic,
    /// As `FullBefore`, and the close panics, as sled's does when it cannot sync.
    FullAndPanicAtClose,
    /// As `Io`, and the same.
    IoAndPanicAtClose,
}

#[derive(Clone)]
struct Disk(Arc<Mutex<State>>);

struct State {
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
    fault: Fault,
    opens: bool,
    space: bool,
    applied: usize,
    reached: u64,
}

impl Disk {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }
}

impl Backend for Disk {
    fn scan(&mut self, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        self.0.lock().unwrap().pairs.iter().try_for_each(|(key, value)| visit(key, value))
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), BackendError> {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.applied += 1;
        match state.fault {
            Fault::FullBefore | Fault::FullAndPanicAtClose => return Err(BackendError::Full("test".into())),
            Fault::Io | Fault::IoAndPanicAtClose => {
                return Err(BackendError::Failed("input/output error".into()));
            }
            Fault::Panic => {
                drop(state);
                panic!("the tree is upside down");
            }
            Fault::None | Fault::FullAfter | Fault::FullAndLost => (),
        }
        for Write { key, value } in writes {
            match value {
                Some(value) => state.pairs.insert(key.clone(), value.clone()),
                None => state.pairs.remove(key),
            };
        }
        match state.fault {
            Fault::None => return Ok(()),
            Fault::FullAndLost => state.pairs.pop_last(),
            _ => None,
        };
        Err(BackendError::Full("test".into()))
    }

    fn close(self: Box<Self>) -> Result<(), BackendError> {
        let fault = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fault;
        match fault {
            Fault::FullAndPanicAtClose | Fault::IoAndPanicAtClose => panic!("sync failed"),
            _ => Ok(()),
        }
    }
}

impl Site for Disk {
    fn reopen(&mut self) -> Result<Box<dyn Backend>, BackendError> {
        let mut state = self.0.lock().unwrap();
        if !state.opens {
            return Err(BackendError::Full("no space to open".into()));
        }
        // Faults last until the disk is opened again.
        state.fault = Fault::None;
        drop(state);
        Ok(Box::new(self.clone()))
    }

    fn has_space(&mut self) -> bool {
        self.0.lock().unwrap().space
    }

    fn reached(&mut self, revision: u64) {
        self.0.lock().unwrap().reached = revision;
    }

    fn dir(&self) -> &Path {
        Path::new("/data")
    }
}

fn key(name: &str) -> RecordKey {
    RecordKey::new(Kind(1), name)
}

fn put(name: &str) -> Transaction {
    Transaction::new().put(key(name), *b"value")
}

/// A store with one record, at revision 1.
fn engine() -> (Embedded<Disk>, Disk) {
    let index = Index::new(HistoryId([1; 16]), 0);
    let (summary, value) = codec::raw_summary(&index.summary());
    let pairs = BTreeMap::from([(summary, value)]);
    let state = State { pairs, fault: Fault::None, opens: true, space: true, applied: 0, reached: 0 };
    let disk = Disk(Arc::new(Mutex::new(state)));
    let mut engine =
        Embedded::new(Box::new(disk.clone()), disk.clone(), HistoryId([2; 16]), (index, Vec::new()));
    assert_eq!(answers(engine.commit(vec![put("first")])), ["1"]);
    (engine, disk)
}

fn answers(committed: Committed) -> Vec<String> {
    let text = |answer: crate::CommitResult| match answer {
        Ok(Ok(revision)) => revision.to_string(),
        Ok(Err(conflict)) => conflict.to_string(),
        Err(StoreError::DiskFull { .. }) => "full".into(),
        Err(StoreError::InDoubt { .. }) => "in doubt".into(),
        Err(StoreError::Stopped { .. }) => "stopped".into(),
        Err(other) => other.to_string(),
    };
    committed.answers.into_iter().map(text).collect()
}

fn names(engine: &mut Embedded<Disk>) -> Vec<String> {
    let records = engine.load().expect("load").records;
    records.iter().map(|record| String::from_utf8_lossy(&record.key.key).into_owned()).collect()
}

#[test]
fn a_full_disk_changes_nothing_and_writes_go_on_with_space() {
    let (mut engine, disk) = engine();
    disk.set(|disk| (disk.fault, disk.space) = (Fault::FullBefore, false));
    assert_eq!(answers(engine.commit(vec![put("a"), put("b")])), ["full", "full"]);
    assert_eq!(engine.state(), StoreState::DiskFull);
    assert_eq!(names(&mut engine), ["first"]);
    disk.set(|disk| disk.space = true);
    assert_eq!(answers(engine.commit(vec![put("c")])), ["2"]);
    assert_eq!(engine.state(), StoreState::Ready);
    assert_eq!(names(&mut engine), ["c", "first"]);
}

#[test]
fn without_space_the_database_is_not_touched() {
    let (mut engine, disk) = engine();
    disk.set(|disk| (disk.fault, disk.space) = (Fault::FullBefore, false));
    engine.commit(vec![put("a")]);
    let before = disk.0.lock().unwrap().applied;
    assert_eq!(answers(engine.commit(vec![put("a")])), ["full"]);
    assert_eq!(disk.0.lock().unwrap().applied, before);
}

#[test]
fn a_write_that_failed_but_happened_is_made_durable_and_accepted() {
    let (mut engine, disk) = engine();
    disk.set(|disk| disk.fault = Fault::FullAfter);
    let committed = engine.commit(vec![put("a")]);
    assert_eq!(committed.changes.len(), 1);
    assert_eq!(answers(committed), ["2"]);
    let state = disk.0.lock().unwrap();
    assert_eq!((state.reached, state.applied), (2, 3), "written once more after the disk was opened again");
}

#[test]
fn a_write_in_doubt_that_happened_comes_as_a_change_before_the_next_one() {
    let (mut engine, disk) = engine();
    disk.set(|disk| (disk.fault, disk.opens, disk.space) = (Fault::FullAfter, false, false));
    let committed = engine.commit(vec![put("a")]);
    assert_eq!(committed.changes.len(), 0);
    assert_eq!(answers(committed), ["in doubt"]);
    assert_eq!(answers(engine.commit(vec![put("b")])), ["full"]);
    disk.set(|disk| (disk.opens, disk.space) = (true, true));
    let committed = engine.commit(vec![put("c")]);
    let revisions: Vec<_> = committed.changes.iter().map(|change| change.revision).collect();
    assert_eq!(revisions, [2, 3]);
    assert_eq!(answers(committed), ["3"]);
    assert_eq!(names(&mut engine), ["a", "c", "first"]);
}

#[test]
fn a_write_in_doubt_that_did_not_happen_leaves_its_revision_to_the_next_one() {
    let (mut engine, disk) = engine();
    disk.set(|disk| (disk.fault, disk.opens, disk.space) = (Fault::FullBefore, false, false));
    assert_eq!(answers(engine.commit(vec![put("a")])), ["in doubt"]);
    disk.set(|disk| (disk.opens, disk.space) = (true, true));
    let committed = engine.commit(vec![put("b")]);
    assert_eq!(committed.changes.len(), 1);
    assert_eq!(answers(committed), ["2"]);
    assert_eq!(names(&mut engine), ["b", "first"]);
}

#[test]
fn after_a_failure_other_than_space_nothing_more_is_written() {
    for (fault, said) in
        [(Fault::Io, "input/output error"), (Fault::Panic, "the database panicked: the tree is upside down")]
    {
        let (mut engine, disk) = engine();
        disk.set(|disk| disk.fault = fault);
        assert_eq!(answers(engine.commit(vec![put("a")])), ["in doubt"]);
        let applied = disk.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).applied;
        assert_eq!(answers(engine.commit(vec![put("b")])), ["stopped"]);
        assert_eq!(engine.state(), StoreState::Stopped(said.into()));
        assert_eq!(disk.0.lock().unwrap().applied, applied, "{fault:?}");
    }
}

#[test]
fn a_database_that_cannot_even_be_closed_stops_the_store_and_nothing_else() {
    for (fault, said) in [
        (Fault::FullAndPanicAtClose, "the database panicked: sync failed"),
        (Fault::IoAndPanicAtClose, "input/output error"),
    ] {
        let (mut engine, disk) = engine();
        disk.set(|disk| disk.fault = fault);
        assert_eq!(answers(engine.commit(vec![put("a")])), ["in doubt"]);
        assert_eq!(engine.state(), StoreState::Stopped(said.into()));
        assert_eq!(answers(engine.commit(vec![put("b")])), ["stopped"]);
    }
}

#[test]
fn a_disk_that_lost_an_acknowledged_record_stops_the_store() {
    let (mut engine, disk) = engine();
    disk.set(|disk| disk.fault = Fault::FullAndLost);
    assert_eq!(answers(engine.commit(vec![put("a")])), ["in doubt"]);
    assert_eq!(answers(engine.commit(vec![put("b")])), ["stopped"]);
    let StoreState::Stopped(said) = engine.state() else { panic!("stopped") };
    assert_eq!(&*said, "it has 1 records that do not match its summary of 2 records");
}

#[test]
fn a_conflict_that_rests_on_a_failed_transaction_is_not_told() {
    let (mut engine, disk) = engine();
    disk.set(|disk| disk.fault = Fault::FullBefore);
    let take = || put("a").absent(key("a"));
    assert_eq!(answers(engine.commit(vec![take(), take()])), ["full", "full"]);
}

#[test]
fn a_batch_of_conflicts_writes_nothing() {
    let (mut engine, disk) = engine();
    let refused = answers(engine.commit(vec![put("first").absent(key("first"))]));
    assert_eq!(refused, ["1:first must not exist, but it stands at revision 1"]);
    assert_eq!(disk.0.lock().unwrap().applied, 1);
}
