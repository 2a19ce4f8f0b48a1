//! The revision and checksum of every record, kept in memory beside an embedded database.
//!
//! It answers preconditions without a read from disk, and it is the yardstick for what the database must
//! hold: [`Index::read`] builds it from a scan and refuses anything that does not add up.

use std::collections::HashMap;

use crate::backend::{Backend, BackendError};
use crate::codec::{self, Decoded, Summary};
use crate::record::{HistoryId, Record, RecordKey};

/// What the index knows of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) revision: u64,
    pub(crate) crc: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    entries: HashMap<RecordKey, Entry>,
    history: HistoryId,
    revision: u64,
    sum: u64,
}

impl Index {
    /// The index of a store without records.
    pub(crate) fn new(history: HistoryId, revision: u64) -> Self {
        Self { entries: HashMap::new(), history, revision, sum: 0 }
    }

    /// Scan a database and check it against its own summary. The error names what is wrong.
    pub(crate) fn read(backend: &mut dyn Backend) -> Result<(Self, Vec<Record>), BackendError> {
        let mut summary = None;
        let mut index = Self::new(HistoryId([0; 16]), 0);
        let mut records = Vec::new();
        backend.scan(&mut |key, value| {
            match codec::decode(key, value).map_err(BackendError::Damaged)? {
                Decoded::Summary(read) => summary = Some(read),
                Decoded::Record(record, crc) => {
                    index.set(&record.key, Some(Entry { revision: record.revision, crc }));
                    records.push(record);
                }
            }
            Ok(())
        })?;
        let Some(summary) = summary else {
            let detail = format!("it has {} records but no summary: it lost its content", records.len());
            return Err(BackendError::Damaged(detail));
        };
        (index.history, index.revision) = (summary.history, summary.revision);
        let late = records.iter().find(|record| record.revision > summary.revision);
        if let Some(Record { key, revision, .. }) = late {
            let at = summary.revision;
            let detail = format!("record {key} has revision {revision}, but the store stands at {at}");
            return Err(BackendError::Damaged(detail));
        }
        if index.summary() != summary {
            let (found, wanted) = (index.entries.len(), summary.records);
            let detail = format!("it has {found} records that do not match its summary of {wanted} records");
            return Err(BackendError::Damaged(detail));
        }
        Ok((index, records))
    }

    pub(crate) fn history(&self) -> HistoryId {
        self.history
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision of a record, if there is such a record.
    pub(crate) fn find(&self, key: &RecordKey) -> Option<u64> {
        self.entries.get(key).map(|entry| entry.revision)
    }

    pub(crate) fn summary(&self) -> Summary {
        let records = self.entries.len() as u64;
        Summary { history: self.history, revision: self.revision, records, sum: self.sum }
    }

    /// The summary as it will be after `entries` are set at `revision`; keys must differ.
    pub(crate) fn summary_after(&self, entries: &[(RecordKey, Option<Entry>)], revision: u64) -> Summary {
        let mut summary = Summary { revision, ..self.summary() };
        for (key, entry) in entries {
            if let Some(old) = self.entries.get(key) {
                summary.records -= 1;
                summary.sum = summary.sum.wrapping_sub(u64::from(old.crc));
            }
            if let Some(new) = entry {
                summary.records += 1;
                summary.sum = summary.sum.wrapping_add(u64::from(new.crc));
            }
        }
        summary
    }

    /// Take over `entries` that are now durable at `revision`.
    pub(crate) fn absorb(&mut self, entries: &[(RecordKey, Option<Entry>)], revision: u64) {
        entries.iter().for_each(|(key, entry)| self.set(key, *entry));
        self.revision = revision;
    }

    fn set(&mut self, key: &RecordKey, entry: Option<Entry>) {
        let old = match entry {
            Some(entry) => self.entries.insert(key.clone(), entry),
            None => self.entries.remove(key),
        };
        let removed = old.map_or(0, |old| u64::from(old.crc));
        let added = entry.map_or(0, |new| u64::from(new.crc));
        self.sum = self.sum.wrapping_sub(removed).wrapping_add(added);
    }
}
