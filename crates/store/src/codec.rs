//! The bytes of a record and of the summary as backends keep them, and their checksums.
//!
//! Key: `01 kind key`; value: `01 revision(8) bytes crc32(4)`, the checksum running over key and value. The
//! summary under the key `00` says what all records together must be, so a lost record is noticed too.
//! Numbers are big-endian. A new layout gets a new first byte.

use std::sync::Arc;

use crate::error::bad_record;
use crate::record::{HistoryId, Kind, Record, RecordKey};

const FORMAT: u8 = 1;
const SUMMARY_KEY: [u8; 1] = [0];
const RECORD_SPACE: u8 = 1;
const HEAD: usize = 1 + 8;
const CRC: usize = 4;

/// What all records of a database together must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) history: HistoryId,
    pub(crate) revision: u64,
    pub(crate) records: u64,
    /// The wrapping sum of all record checksums.
    pub(crate) sum: u64,
}

/// One key and value as read from a backend.
pub(crate) enum Decoded {
    Summary(Summary),
    /// The record and its checksum.
    Record(Record, u32),
}

pub(crate) fn raw_key(key: &RecordKey) -> Vec<u8> {
    let mut raw = Vec::with_capacity(2 + key.key.len());
    raw.extend([RECORD_SPACE, key.kind.0]);
    raw.extend_from_slice(&key.key);
    raw
}

/// The stored bytes of a record, and its checksum.
pub(crate) fn raw_value(raw_key: &[u8], revision: u64, value: &[u8]) -> (Vec<u8>, u32) {
    let mut raw = Vec::with_capacity(HEAD + value.len() + CRC);
    raw.push(FORMAT);
    raw.extend(revision.to_be_bytes());
    raw.extend_from_slice(value);
    let crc = seal(raw_key, &mut raw);
    (raw, crc)
}

/// Key and stored bytes of the summary.
pub(crate) fn raw_summary(summary: &Summary) -> (Vec<u8>, Vec<u8>) {
    let mut raw = vec![FORMAT];
    raw.extend(summary.history.0);
    for number in [summary.revision, summary.records, summary.sum] {
        raw.extend(number.to_be_bytes());
    }
    seal(&SUMMARY_KEY, &mut raw);
    (SUMMARY_KEY.to_vec(), raw)
}

/// Read one stored pair; the error names the record and what is wrong with it.
pub(crate) fn decode(raw_key: &[u8], raw: &[u8]) -> Result<Decoded, String> {
    if raw_key == SUMMARY_KEY {
        return summary(raw).map(Decoded::Summary).map_err(|what| format!("the summary {what}"));
    }
    let [RECORD_SPACE, kind, key @ ..] = raw_key else {
        return Err(format!("there is an unknown key {}", raw_key.escape_ascii()));
    };
    let key = RecordKey::new(Kind(*kind), key);
    let body = unseal(raw_key, raw).map_err(|what| bad_record(&key, what))?;
    let Some((revision, value)) = body.split_first_chunk::<8>() else {
        return Err(bad_record(&key, "is too short"));
    };
    let crc = crc_of(raw).ok_or_else(|| bad_record(&key, "is too short"))?;
    let revision = u64::from_be_bytes(*revision);
    Ok(Decoded::Record(Record { key, value: Arc::from(value), revision }, crc))
}

fn summary(raw: &[u8]) -> Result<Summary, &'static str> {
    let body = unseal(&SUMMARY_KEY, raw)?;
    let (history, rest) = body.split_first_chunk::<16>().ok_or("is too short")?;
    let (revision, rest) = rest.split_first_chunk::<8>().ok_or("is too short")?;
    let (records, rest) = rest.split_first_chunk::<8>().ok_or("is too short")?;
    let sum: &[u8; 8] = rest.try_into().map_err(|_| "has a wrong length")?;
    Ok(Summary {
        history: HistoryId(*history),
        revision: u64::from_be_bytes(*revision),
        records: u64::from_be_bytes(*records),
        sum: u64::from_be_bytes(*sum),
    })
}

/// Append the checksum over key and value.
fn seal(key: &[u8], raw: &mut Vec<u8>) -> u32 {
    let crc = checksum(key, raw);
    raw.extend(crc.to_be_bytes());
    crc
}

/// The bytes between the format byte and the checksum, once both are right.
fn unseal<'a>(key: &[u8], raw: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let (body, crc) = raw.split_last_chunk::<CRC>().ok_or("is too short")?;
    if checksum(key, body) != u32::from_be_bytes(*crc) {
        return Err("does not match its checksum");
    }
    match body.split_first() {
        Some((&FORMAT, rest)) => Ok(rest),
        Some(_) => Err("has a format this version does not know"),
        None => Err("is too short"),
    }
}

fn crc_of(raw: &[u8]) -> Option<u32> {
    raw.last_chunk::<CRC>().map(|crc| u32::from_be_bytes(*crc))
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> (Vec<u8>, Vec<u8>) {
        let key = raw_key(&RecordKey::new(Kind(3), "name"));
        let (value, _) = raw_value(&key, 9, b"value");
        (key, value)
    }

    fn refused(key: &[u8], value: &[u8]) -> String {
        decode(key, value).err().expect("refused")
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let (key, value) = sealed();
        let Ok(Decoded::Record(record, _)) = decode(&key, &value) else { panic!("a record") };
        assert_eq!(record.key, RecordKey::new(Kind(3), "name"));
        assert_eq!((record.revision, &record.value[..]), (9, &b"value"[..]));
    }

    #[test]
    fn a_summary_reads_back_as_written() {
        let written = Summary { history: HistoryId([7; 16]), revision: 1, records: 2, sum: u64::MAX };
        let (key, value) = raw_summary(&written);
        assert!(matches!(decode(&key, &value), Ok(Decoded::Summary(read)) if read == written));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed_and_the_record_named() {
        let (key, value) = sealed();
        for at in 0..value.len() * 8 {
            let mut damaged = value.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert_eq!(refused(&key, &damaged), "record 3:name does not match its checksum");
        }
    }

    #[test]
    fn a_value_under_another_key_is_noticed() {
        let (_, value) = sealed();
        let other = raw_key(&RecordKey::new(Kind(3), "other"));
        assert_eq!(refused(&other, &value), "record 3:other does not match its checksum");
    }

    #[test]
    fn short_values_unknown_formats_and_unknown_keys_are_refused() {
        let (key, _) = sealed();
        assert_eq!(refused(&key, b"abc"), "record 3:name is too short");
        let mut short = vec![FORMAT, 1];
        seal(&key, &mut short);
        assert_eq!(refused(&key, &short), "record 3:name is too short");
        let mut later = vec![2; 20];
        seal(&key, &mut later);
        assert_eq!(refused(&key, &later), "record 3:name has a format this version does not know");
        assert_eq!(refused(b"\x05key", &later), "there is an unknown key \\x05key");
        let mut long = vec![FORMAT; 1 + 16 + 25];
        seal(&SUMMARY_KEY, &mut long);
        assert_eq!(refused(&SUMMARY_KEY, &long), "the summary has a wrong length");
    }

    proptest::proptest! {
        /// Whatever stands under a right checksum is refused or is exactly what is written for it again.
        #[test]
        fn sealed_bytes_are_refused_or_written_back_as_they_were(
            key in proptest::collection::vec(0_u8..4, 0..6),
            format in 0_u8..3,
            body in proptest::collection::vec(proptest::num::u8::ANY, 0..60),
        ) {
            let mut raw = [&[format][..], &body].concat();
            seal(&key, &mut raw);
            let again = match decode(&key, &raw) {
                Ok(Decoded::Summary(summary)) => raw_summary(&summary),
                Ok(Decoded::Record(record, crc)) => {
                    let key = raw_key(&record.key);
                    let (value, sealed) = raw_value(&key, record.revision, &record.value);
                    proptest::prop_assert_eq!(sealed, crc);
                    (key, value)
                }
                Err(_) => return Ok(()),
            };
            proptest::prop_assert_eq!(again, (key, raw));
        }
    }
}
