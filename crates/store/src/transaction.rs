//! A transaction: what must hold, and what then changes, all or nothing.
//!
//! Sizes are checked here, on the caller's thread; whether the preconditions hold is decided by the
//! engine, in commit order. Start at [`Transaction`].

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::record::RecordKey;

/// Longest key in bytes: a SPIFFE ID has at most 2048, and a key may put something before it.
pub const KEY_BYTES_MAX: usize = 2304;
/// Longest value in bytes. A large trust bundle has about 100 KiB; more than this is a mistake.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Most puts, deletes and preconditions of one transaction, so that one caller cannot hold up the rest.
pub const TRANSACTION_ITEMS_MAX: usize = 4096;
/// Most bytes of keys and values of one transaction.
pub const TRANSACTION_BYTES_MAX: usize = 4 << 20;

/// Something that must be true of a record at the moment of the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// There is no such record.
    Absent(RecordKey),
    /// The record is there and was last put by this commit.
    AtRevision(RecordKey, u64),
    /// The record is there.
    Exists(RecordKey),
}

impl Precondition {
    /// The record it speaks of.
    pub fn key(&self) -> &RecordKey {
        match self {
            Self::Absent(key) | Self::AtRevision(key, _) | Self::Exists(key) => key,
        }
    }

    /// Whether it holds, given the record's revision if there is such a record.
    pub fn holds(&self, found: Option<u64>) -> bool {
        match self {
            Self::Absent(_) => found.is_none(),
            Self::AtRevision(_, wanted) => found == Some(*wanted),
            Self::Exists(_) => found.is_some(),
        }
    }
}

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(key) => write!(f, "{key} must not exist"),
            Self::AtRevision(key, revision) => write!(f, "{key} must stand at revision {revision}"),
            Self::Exists(key) => write!(f, "{key} must exist"),
        }
    }
}

/// A precondition did not hold, and nothing of the transaction changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{precondition}, but {}", found_text(*.found))]
pub struct Conflict {
    /// Its place in [`Transaction::preconditions`]; the first that failed.
    pub index: usize,
    /// The one that failed.
    pub precondition: Precondition,
    /// The revision of the record that was found instead, if there is one.
    pub found: Option<u64>,
}

fn found_text(found: Option<u64>) -> String {
    found.map_or_else(|| "it does not exist".into(), |revision| format!("it stands at revision {revision}"))
}

/// The sizes or the shape of a transaction are wrong; a fault of the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTransaction {
    /// A key is too long.
    #[error("the key of record {key} has {bytes} bytes, the most is {KEY_BYTES_MAX}")]
    KeyTooLong {
        /// The key, cut when printed.
        key: RecordKey,
        /// Its length.
        bytes: usize,
    },
    /// A value is too long.
    #[error("the value of record {key} has {bytes} bytes, the most is {VALUE_BYTES_MAX}")]
    ValueTooLong {
        /// The record.
        key: RecordKey,
        /// Its length.
        bytes: usize,
    },
    /// Too many puts, deletes and preconditions.
    #[error(
        "the transaction has {items} puts, deletes and preconditions, the most is {TRANSACTION_ITEMS_MAX}"
    )]
    TooManyItems {
        /// How many there are.
        items: usize,
    },
    /// Too many bytes in all.
    #[error("the transaction has {bytes} bytes, the most is {TRANSACTION_BYTES_MAX}")]
    TooLarge {
        /// How many there are.
        bytes: usize,
    },
    /// One record is written twice.
    #[error("the transaction puts or deletes record {key} more than once")]
    Repeated {
        /// The record.
        key: RecordKey,
    },
}

/// Puts and deletes that happen together, under one new revision, if every precondition holds.
///
/// The builder methods read as a sentence:
/// `Transaction::new().absent(name.clone()).put(name, value)`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold, checked in this order.
    pub preconditions: Vec<Precondition>,
    /// Records to write, with their new values.
    pub puts: Vec<(RecordKey, Arc<[u8]>)>,
    /// Records to remove; removing one that is not there is allowed.
    pub deletes: Vec<RecordKey>,
}

impl Transaction {
    /// A transaction that asks and changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuse unless there is no record `key`.
    #[must_use]
    pub fn absent(mut self, key: RecordKey) -> Self {
        self.preconditions.push(Precondition::Absent(key));
        self
    }

    /// Refuse unless record `key` was last put by commit `revision`.
    #[must_use]
    pub fn at_revision(mut self, key: RecordKey, revision: u64) -> Self {
        self.preconditions.push(Precondition::AtRevision(key, revision));
        self
    }

    /// Refuse unless there is a record `key`.
    #[must_use]
    pub fn exists(mut self, key: RecordKey) -> Self {
        self.preconditions.push(Precondition::Exists(key));
        self
    }

    /// Write a record.
    #[must_use]
    pub fn put(mut self, key: RecordKey, value: impl Into<Arc<[u8]>>) -> Self {
        self.puts.push((key, value.into()));
        self
    }

    /// Remove a record.
    #[must_use]
    pub fn delete(mut self, key: RecordKey) -> Self {
        self.deletes.push(key);
        self
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        let puts: usize = self.puts.iter().map(|(key, value)| key.key.len() + value.len()).sum();
        let asked = self.preconditions.iter().map(Precondition::key);
        puts + asked.chain(&self.deletes).map(|key| key.key.len()).sum::<usize>()
    }

    /// Check every bound. [`crate::Store::commit`] does so by itself.
    pub fn check(&self) -> Result<(), InvalidTransaction> {
        let items = self.preconditions.len() + self.puts.len() + self.deletes.len();
        if items > TRANSACTION_ITEMS_MAX {
            return Err(InvalidTransaction::TooManyItems { items });
        }
        let asked = self.preconditions.iter().map(Precondition::key);
        let written = || self.puts.iter().map(|(key, _)| key).chain(&self.deletes);
        if let Some(key) = asked.chain(written()).find(|key| key.key.len() > KEY_BYTES_MAX) {
            return Err(InvalidTransaction::KeyTooLong { key: key.clone(), bytes: key.key.len() });
        }
        if let Some((key, value)) = self.puts.iter().find(|(_, value)| value.len() > VALUE_BYTES_MAX) {
            return Err(InvalidTransaction::ValueTooLong { key: key.clone(), bytes: value.len() });
        }
        let bytes = self.bytes();
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(InvalidTransaction::TooLarge { bytes });
        }
        let mut seen = HashSet::new();
        match written().find(|key| !seen.insert(*key)) {
            Some(key) => Err(InvalidTransaction::Repeated { key: key.clone() }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let puts: Vec<_> = self.puts.iter().map(|(key, value)| (key, value.len())).collect();
        f.debug_struct("Transaction")
            .field("preconditions", &self.preconditions)
            .field("puts", &puts)
            .field("deletes", &self.deletes)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Kind;

    fn key(name: &str) -> RecordKey {
        RecordKey::new(Kind(1), name)
    }

    fn check(transaction: &Transaction, expected: &str) {
        assert_eq!(transaction.check().expect_err("refused").to_string(), expected);
    }

    #[test]
    fn a_transaction_at_every_bound_is_accepted() {
        let long = RecordKey::new(Kind(1), [b'k'; KEY_BYTES_MAX]);
        let value = vec![0; VALUE_BYTES_MAX];
        assert_eq!(Transaction::new().absent(long.clone()).put(long, value).check(), Ok(()));
    }

    #[test]
    fn a_key_that_is_too_long_is_refused_wherever_it_stands() {
        let long = RecordKey::new(Kind(1), [b'k'; KEY_BYTES_MAX + 1]);
        for transaction in [
            Transaction::new().absent(long.clone()),
            Transaction::new().put(long.clone(), *b"v"),
            Transaction::new().delete(long.clone()),
        ] {
            let text = format!("the key of record 1:{}... has 2305 bytes, the most is 2304", "k".repeat(64));
            check(&transaction, &text);
        }
    }

    #[test]
    fn a_value_that_is_too_long_is_refused() {
        let transaction = Transaction::new().put(key("a"), vec![0; VALUE_BYTES_MAX + 1]);
        check(&transaction, "the value of record 1:a has 1048577 bytes, the most is 1048576");
    }

    #[test]
    fn too_many_bytes_in_all_are_refused() {
        let value: Arc<[u8]> = vec![0; VALUE_BYTES_MAX].into();
        let transaction =
            (0..4).fold(Transaction::new(), |all, n| all.put(key(&n.to_string()), Arc::clone(&value)));
        check(&transaction, "the transaction has 4194308 bytes, the most is 4194304");
    }

    #[test]
    fn too_many_items_are_refused() {
        let transaction = (0..=4096).fold(Transaction::new(), |all, _| all.exists(key("a")));
        check(&transaction, "the transaction has 4097 puts, deletes and preconditions, the most is 4096");
    }

    #[test]
    fn a_record_written_twice_is_refused() {
        let text = "the transaction puts or deletes record 1:a more than once";
        check(&Transaction::new().put(key("a"), *b"1").put(key("a"), *b"2"), text);
        check(&Transaction::new().put(key("a"), *b"1").delete(key("a")), text);
        check(&Transaction::new().delete(key("a")).delete(key("a")), text);
    }

    #[test]
    fn a_conflict_says_what_was_asked_and_what_was_found() {
        let precondition = Precondition::AtRevision(key("a"), 3);
        let conflict = Conflict { index: 0, precondition, found: Some(5) };
        assert_eq!(conflict.to_string(), "1:a must stand at revision 3, but it stands at revision 5");
    }
}
