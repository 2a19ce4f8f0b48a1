//! Decides a batch of transactions in order, and merges what passed into one write.
//!
//! Pure: it reads the index and changes nothing. Each transaction sees the effects of those before it in the
//! batch. A draft takes effect only once its write is durable; if that fails, dropping it undoes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::Write;
use crate::codec;
use crate::index::{Entry, Index};
use crate::record::{Change, Record, RecordKey};
use crate::transaction::{Conflict, Transaction};

pub(crate) struct Draft {
    /// One answer for each transaction, in order.
    pub(crate) verdicts: Vec<Result<u64, Conflict>>,
    /// What the accepted ones do, in order.
    pub(crate) changes: Vec<Arc<Change>>,
    /// Where the store stands afterwards.
    pub(crate) revision: u64,
    /// What the index takes over afterwards.
    pub(crate) entries: Vec<(RecordKey, Option<Entry>)>,
    /// The write that makes all this durable, with the summary that goes with it.
    pub(crate) writes: Vec<Write>,
}

/// The effects of the batch so far; `None` is a removed record.
type Overlay = BTreeMap<RecordKey, Option<Record>>;

impl Draft {
    pub(crate) fn decide(index: &Index, batch: Vec<Transaction>) -> Self {
        let mut overlay = Overlay::new();
        let mut revision = index.revision();
        let mut verdicts = Vec::with_capacity(batch.len());
        let mut changes = Vec::with_capacity(batch.len());
        for transaction in batch {
            let verdict = check(index, &overlay, &transaction);
            verdicts.push(verdict.map(|()| {
                revision += 1;
                changes.push(Arc::new(perform(index, &mut overlay, transaction, revision)));
                revision
            }));
        }
        let (entries, mut writes): (Vec<_>, Vec<_>) = overlay.into_iter().map(seal).unzip();
        let (key, value) = codec::raw_summary(&index.summary_after(&entries, revision));
        writes.push(Write { key, value: Some(value) });
        Self { verdicts, changes, revision, entries, writes }
    }
}

fn find(index: &Index, overlay: &Overlay, key: &RecordKey) -> Option<u64> {
    match overlay.get(key) {
        Some(record) => record.as_ref().map(|record| record.revision),
        None => index.find(key),
    }
}

fn check(index: &Index, overlay: &Overlay, transaction: &Transaction) -> Result<(), Conflict> {
    for (place, precondition) in transaction.preconditions.iter().enumerate() {
        let found = find(index, overlay, precondition.key());
        if !precondition.holds(found) {
            return Err(Conflict { index: place, precondition: precondition.clone(), found });
        }
    }
    Ok(())
}

fn perform(index: &Index, overlay: &mut Overlay, transaction: Transaction, revision: u64) -> Change {
    let Transaction { puts, mut deletes, .. } = transaction;
    deletes.retain(|key| find(index, overlay, key).is_some());
    for key in &deletes {
        overlay.insert(key.clone(), None);
    }
    let put = |(key, value)| {
        let record = Record { key, value, revision };
        overlay.insert(record.key.clone(), Some(record.clone()));
        record
    };
    let puts = puts.into_iter().map(put).collect();
    Change { revision, puts, deletes }
}

/// The index entry and the stored bytes of a record after the batch.
fn seal((key, record): (RecordKey, Option<Record>)) -> ((RecordKey, Option<Entry>), Write) {
    let raw_key = codec::raw_key(&key);
    let Some(Record { value, revision, .. }) = record else {
        return ((key, None), Write { key: raw_key, value: None });
    };
    let (raw_value, crc) = codec::raw_value(&raw_key, revision, &value);
    ((key, Some(Entry { revision, crc })), Write { key: raw_key, value: Some(raw_value) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{HistoryId, Kind};
    use crate::transaction::Precondition;

    fn key(name: &str) -> RecordKey {
        RecordKey::new(Kind(1), name)
    }

    fn decide(batch: Vec<Transaction>) -> Draft {
        Draft::decide(&Index::new(HistoryId([1; 16]), 10), batch)
    }

    #[test]
    fn a_transaction_sees_those_before_it_in_the_batch() {
        let take = || Transaction::new().absent(key("a")).put(key("a"), *b"mine");
        let draft = decide(vec![
            take(),
            take(),
            Transaction::new().at_revision(key("a"), 11).delete(key("a")),
            take(),
        ]);
        let conflict = Conflict { index: 0, precondition: Precondition::Absent(key("a")), found: Some(11) };
        assert_eq!(draft.verdicts, [Ok(11), Err(conflict), Ok(12), Ok(13)]);
        assert_eq!(draft.revision, 13);
    }

    #[test]
    fn a_refused_transaction_changes_nothing_and_takes_no_revision() {
        let both = Transaction::new().exists(key("missing")).put(key("a"), *b"1");
        let draft = decide(vec![both, Transaction::new().put(key("b"), *b"2")]);
        assert_eq!(draft.verdicts[1], Ok(11));
        assert_eq!(draft.entries.len(), 1);
        assert_eq!(draft.changes.len(), 1);
    }

    #[test]
    fn the_first_failed_precondition_is_named() {
        let asked = Transaction::new().absent(key("a")).exists(key("b")).exists(key("c"));
        let draft = decide(vec![asked]);
        let conflict = draft.verdicts[0].clone().expect_err("conflict");
        assert_eq!((conflict.index, conflict.precondition), (1, Precondition::Exists(key("b"))));
    }

    #[test]
    fn the_last_write_of_a_record_wins_and_a_vain_delete_is_not_a_change() {
        let put = |value: &[u8]| Transaction::new().put(key("a"), value);
        let draft = decide(vec![put(b"1"), put(b"2"), Transaction::new().delete(key("gone"))]);
        assert_eq!(draft.entries.len(), 1);
        assert_eq!(draft.entries[0].1.expect("kept").revision, 12);
        assert_eq!(draft.writes.len(), 2, "the record and the summary");
        assert_eq!(draft.changes[2].deletes, []);
    }
}
