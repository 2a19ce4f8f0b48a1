//! Random transactions against a plain map, with the store opened again in between.

use std::collections::BTreeMap;

use proptest::prelude::*;
use spindle_store::{Precondition, RecordKey, StoreKind, Transaction};

use crate::support::{Contents, HISTORY, Home, contents, key, rounds};

#[derive(Clone, Debug)]
enum Step {
    Commit(Transaction),
    /// Sent together, so that they may become one batch.
    CommitMany(Vec<Transaction>),
    Reopen,
}

/// Few names, so that they meet often; one is long enough to be kept in pieces by sled.
fn name() -> impl Strategy<Value = RecordKey> {
    (0..6_usize).prop_map(|n| if n == 5 { key([b'n'; 300]) } else { key([b'a' + n as u8]) })
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), prop_oneof![4 => 0..20_usize, 1 => 4000..9000_usize])
        .prop_map(|(byte, size)| vec![byte; size])
}

fn precondition() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        name().prop_map(Precondition::Absent),
        name().prop_map(Precondition::Exists),
        (name(), 0..30_u64).prop_map(|(name, revision)| Precondition::AtRevision(name, revision)),
    ]
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let preconditions = prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(precondition(), 1..3)];
    let writes = prop::collection::btree_map(name(), prop::option::weighted(0.7, value()), 0..4);
    (preconditions, writes).prop_map(|(preconditions, writes)| {
        let mut transaction = Transaction { preconditions, ..Transaction::new() };
        for (name, value) in writes {
            match value {
                Some(value) => transaction.puts.push((name, value.into())),
                None => transaction.deletes.push(name),
            }
        }
        transaction
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => transaction().prop_map(Step::Commit),
        4 => prop::collection::vec(transaction(), 2..8).prop_map(Step::CommitMany),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..25)
}

#[derive(Default)]
struct Model {
    records: Contents,
    revision: u64,
}

impl Model {
    fn commit(&mut self, transaction: &Transaction) -> Result<u64, usize> {
        let holds = |asked: &Precondition| asked.holds(self.records.get(asked.key()).map(|(at, _)| *at));
        if let Some(failed) = transaction.preconditions.iter().position(|asked| !holds(asked)) {
            return Err(failed);
        }
        self.revision += 1;
        transaction.deletes.iter().for_each(|name| drop(self.records.remove(name)));
        for (name, value) in &transaction.puts {
            self.records.insert(name.clone(), (self.revision, value.to_vec()));
        }
        Ok(self.revision)
    }
}

/// The records as a watcher would rebuild them.
fn follow(mut records: Contents, watch: spindle_store::Watch, count: u64) -> Contents {
    for change in watch.take(count as usize) {
        let change = change.unwrap();
        change
            .deletes
            .iter()
            .for_each(|name| drop(records.remove(name).expect("only real deletes are told")));
        for record in &change.puts {
            records.insert(record.key.clone(), (record.revision, record.value.to_vec()));
        }
    }
    records
}

fn agrees_with_a_map(kind: StoreKind, steps: Vec<Step>) {
    let home = Home::new(kind);
    let mut model = Model::default();
    let mut store = home.open();
    let (mut opened_at, mut opened_with) = (0, BTreeMap::new());
    for step in steps {
        match step {
            Step::Commit(transaction) => {
                let got = store.commit_wait(transaction.clone()).unwrap().map_err(|conflict| conflict.index);
                assert_eq!(got, model.commit(&transaction), "{transaction:?}");
            }
            Step::CommitMany(transactions) => {
                let (answer, answers) = std::sync::mpsc::channel();
                for transaction in &transactions {
                    let answer = answer.clone();
                    store.commit(transaction.clone(), move |result| answer.send(result.unwrap()).unwrap());
                }
                let expected: Vec<_> = transactions.iter().map(|one| model.commit(one)).collect();
                let got = answers.iter().take(expected.len());
                assert_eq!(got.map(|result| result.map_err(|c| c.index)).collect::<Vec<_>>(), expected);
            }
            Step::Reopen if kind == StoreKind::Memory => (),
            Step::Reopen => {
                let watch = store.watch(opened_at).unwrap();
                assert_eq!(follow(opened_with, watch, model.revision - opened_at), model.records);
                store.close();
                store = home.open();
                (opened_at, opened_with) = (model.revision, model.records.clone());
            }
        }
        let revision = store.revision();
        assert_eq!((revision.number, revision.history.0), (model.revision, HISTORY));
    }
    assert_eq!(contents(&store), model.records);
    let watch = store.watch(opened_at).unwrap();
    assert_eq!(follow(opened_with, watch, model.revision - opened_at), model.records);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: rounds("PROPTEST_CASES", 32) as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn sled_agrees_with_a_map(steps in steps()) {
        agrees_with_a_map(StoreKind::Sled, steps);
    }

    #[test]
    fn redb_agrees_with_a_map(steps in steps()) {
        agrees_with_a_map(StoreKind::Redb, steps);
    }

    #[test]
    fn memory_agrees_with_a_map(steps in steps()) {
        agrees_with_a_map(StoreKind::Memory, steps);
    }
}
