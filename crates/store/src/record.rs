//! The values of the store: record keys, records, revisions and changes.
//!
//! Plain data with public fields. What a record means is the caller's business; the store sees a kind,
//! key bytes and value bytes. Start at [`Record`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Names one history of changes. Every creation, copy, import and restore of a store makes a new one, so that
/// a reader who knows another history cannot take its revision numbers for ours.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HistoryId(pub [u8; 16]);

impl fmt::Display for HistoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for HistoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HistoryId({self})")
    }
}

/// The text is not a history id of 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a history id is 32 lower-case hexadecimal digits")]
pub struct HistoryIdError;

impl FromStr for HistoryId {
    type Err = HistoryIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(HistoryIdError);
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex(pair[0])? << 4 | hex(pair[1])?;
        }
        Ok(Self(id))
    }
}

fn hex(digit: u8) -> Result<u8, HistoryIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(HistoryIdError),
    }
}

/// A point in a history. Numbers of two histories must never be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// The history the number counts in.
    pub history: HistoryId,
    /// Commits so far: 0 is the empty store, each accepted transaction adds one.
    pub number: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.history, self.number)
    }
}

/// What sort of record a key names; the numbers are given out by the layer above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u8);

/// The name of one record, ordered by kind and then by key bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey {
    /// The sort of record.
    pub kind: Kind,
    /// Its name within the kind, at most [`crate::KEY_BYTES_MAX`] bytes.
    pub key: Box<[u8]>,
}

impl RecordKey {
    /// A key of `kind`. The length is checked when it is used in a transaction.
    pub fn new(kind: Kind, key: impl AsRef<[u8]>) -> Self {
        Self { kind, key: key.as_ref().into() }
    }
}

/// Prints the kind and the key, as text where it is text; long keys are cut.
impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.key[..self.key.len().min(64)];
        let cut = if shown.len() < self.key.len() { "..." } else { "" };
        write!(f, "{}:{}{cut}", self.kind.0, shown.escape_ascii())
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({self})")
    }
}

/// One record as it stands. Cloning shares the value. Values may hold secrets, so `Debug` leaves them out.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub key: RecordKey,
    /// Its bytes, at most [`crate::VALUE_BYTES_MAX`].
    pub value: Arc<[u8]>,
    /// The number of the commit that last put it.
    pub revision: u64,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} at {}, {} bytes)", self.key, self.revision, self.value.len())
    }
}

/// What one accepted transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The number of the commit.
    pub revision: u64,
    /// Records it wrote, as they stand after it.
    pub puts: Vec<Record>,
    /// Records it removed. A delete of a record that was not there is not listed.
    pub deletes: Vec<RecordKey>,
}

/// Every record of a store at one revision.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// All records, in no particular order.
    pub records: Vec<Record>,
    /// Where they stand.
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_id_reads_back_what_it_prints() {
        let id = HistoryId(*b"\x00\x01\xfe\xff0123456789ab");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn a_history_id_of_other_digits_or_length_is_refused() {
        for text in ["", "00", "0123456789ABCDEF0123456789ABCDEF", "0123456789abcdef0123456789abcdeg"] {
            assert_eq!(text.parse::<HistoryId>(), Err(HistoryIdError), "{text}");
        }
    }

    #[test]
    fn a_record_prints_no_value() {
        let key = RecordKey::new(Kind(1), "token");
        let record = Record { key, value: b"secret".as_slice().into(), revision: 7 };
        assert_eq!(format!("{record:?}"), "Record(1:token at 7, 6 bytes)");
    }
}
