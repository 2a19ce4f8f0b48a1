//! A store as one file: the backup format, from which a store of any kind can be made again.
//!
//! Layout, numbers big-endian, each part ended by the crc32 of its own bytes:
//!
//! ```text
//! head    "SPINDLE-STORE-01"  history(16)  revision(8)  crc(4)
//! record  01  kind(1)  revision(8)  key length(4)  value length(4)  key  value  crc(4)
//! end     FF  number of records(8)  sum of their checksums(8)  crc(4)
//! ```
//!
//! Records are in ascending order of their keys. Nothing follows the end. The file holds what the store holds,
//! secrets included: protect it likewise. Start at [`export`], [`import`] and, for a store in use, [`ExportParts`].

use std::io::{self, BufReader, BufWriter, Read, Write};

use crate::error::{OpenError, StoreError};
use crate::open::create;
use crate::record::{HistoryId, Kind, Loaded, Record, RecordKey, Revision};
use crate::store::{Store, StoreConfig};
use crate::transaction::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::transfer::Copied;

const MAGIC: &[u8; 16] = b"SPINDLE-STORE-01";
const RECORD: u8 = 1;
const END: u8 = 0xff;

/// What an export wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Records in the file.
    pub records: u64,
    /// The revision they stand at.
    pub revision: Revision,
}

/// Why an export failed; what was written must be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store could not be read.
    #[error("could not read the store to export")]
    Store(#[from] StoreError),
    /// The file could not be written.
    #[error("could not write the export")]
    Write(#[from] io::Error),
}

/// Why an import failed; no store was made.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store could not be made.
    #[error(transparent)]
    Target(#[from] OpenError),
    /// The made store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file could not be read.
    #[error("could not read the export")]
    Read(#[source] io::Error),
    /// The file does not start as an export does.
    #[error("this is not an export of a store, or one of a version that is not known here")]
    NotAnExport,
    /// The file ends too early.
    #[error("the export ends too early, after {records} records")]
    CutOff {
        /// Whole records that were read.
        records: u64,
    },
    /// A part of the file is not as it was written.
    #[error("the export is damaged after {records} records: {detail}")]
    Damaged {
        /// Whole records that were read.
        records: u64,
        /// What is wrong.
        detail: &'static str,
    },
    /// The new store was to have the history id of the exported one.
    #[error("an imported store needs a history id of its own, {0} is that of the export")]
    SameHistory(HistoryId),
}

/// Write every record of `store` to `writer` and flush it. A caller that writes a file must sync it.
pub fn export(store: &Store, writer: impl Write) -> Result<Exported, ExportError> {
    let parts = ExportParts::of(store.load()?);
    let exported = parts.exported();
    let mut out = BufWriter::new(writer);
    for part in parts {
        out.write_all(&part?)?;
    }
    out.flush()?;
    Ok(exported)
}

/// The parts of an export in order, each whole: the head, one for each record, the end. Written behind one another they
/// are the file. Made from records that were loaded before, so that it may take as long as its reader needs.
pub struct ExportParts {
    revision: Revision,
    next: Next,
    records: std::vec::IntoIter<Record>,
    count: u64,
    sum: u64,
}

/// Which part comes next.
enum Next {
    Head,
    Record,
    Nothing,
}

impl ExportParts {
    /// The export of what was loaded.
    pub fn of(loaded: Loaded) -> Self {
        let Loaded { mut records, revision } = loaded;
        records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let count = records.len() as u64;
        Self { revision, next: Next::Head, records: records.into_iter(), count, sum: 0 }
    }

    /// What the whole file holds.
    pub fn exported(&self) -> Exported {
        Exported { records: self.count, revision: self.revision }
    }

    fn head(&mut self) -> Vec<u8> {
        self.next = Next::Record;
        let mut head = MAGIC.to_vec();
        head.extend(self.revision.history.0);
        head.extend(self.revision.number.to_be_bytes());
        sealed(head).0
    }

    fn record(&mut self, record: &Record) -> io::Result<Vec<u8>> {
        let (part, crc) = sealed(record_part(record)?);
        self.sum = self.sum.wrapping_add(u64::from(crc));
        Ok(part)
    }

    fn end(&mut self) -> Vec<u8> {
        self.next = Next::Nothing;
        let mut end = vec![END];
        end.extend(self.count.to_be_bytes());
        end.extend(self.sum.to_be_bytes());
        sealed(end).0
    }
}

impl Iterator for ExportParts {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next {
            Next::Head => Some(Ok(self.head())),
            Next::Record => match self.records.next() {
                Some(record) => Some(self.record(&record)),
                None => Some(Ok(self.end())),
            },
            Next::Nothing => None,
        }
    }
}

/// Read a whole export without making a store of it, and tell what it holds.
pub fn check_export(reader: impl Read) -> Result<Exported, ImportError> {
    let mut source = Import::start(BufReader::new(reader))?;
    while source.read()?.is_some() {}
    Ok(Exported { records: source.count, revision: source.revision })
}

/// Make a store from an export, in the empty directory of `config` and under the history id of `config`.
/// It is published only after the whole file was read and found good.
pub fn import(reader: impl Read, config: &StoreConfig) -> Result<Copied, ImportError> {
    let mut source = Import::start(BufReader::new(reader))?;
    if source.revision.history.0 == config.history {
        return Err(ImportError::SameHistory(source.revision.history));
    }
    let store = create(config, source.revision.number, &mut source)?;
    let revision = store.revision();
    Ok(Copied { store, records: source.count, revision })
}

fn record_part(record: &Record) -> io::Result<Vec<u8>> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
    let mut part = vec![RECORD, record.key.kind.0];
    part.extend(record.revision.to_be_bytes());
    part.extend(length(&record.key.key)?.to_be_bytes());
    part.extend(length(&record.value)?.to_be_bytes());
    part.extend_from_slice(&record.key.key);
    part.extend_from_slice(&record.value);
    Ok(part)
}

/// The part with its checksum behind it, and the checksum.
fn sealed(mut part: Vec<u8>) -> (Vec<u8>, u32) {
    let crc = crc32fast::hash(&part);
    part.extend(crc.to_be_bytes());
    (part, crc)
}

/// Reads the records of an export one by one; ends after a good end mark.
struct Import<R> {
    reader: R,
    revision: Revision,
    count: u64,
    sum: u64,
    last: Option<RecordKey>,
    /// The part being read, for its checksum.
    part: Vec<u8>,
}

impl<R: Read> Import<R> {
    fn start(reader: R) -> Result<Self, ImportError> {
        let revision = Revision { history: HistoryId([0; 16]), number: 0 };
        let mut import = Self { reader, revision, count: 0, sum: 0, last: None, part: Vec::new() };
        match import.array::<16>() {
            Ok(magic) if magic == *MAGIC => (),
            Ok(_) | Err(ImportError::CutOff { .. }) => return Err(ImportError::NotAnExport),
            Err(error) => return Err(error),
        }
        let history = HistoryId(import.array()?);
        let number = u64::from_be_bytes(import.array()?);
        import.check_part()?;
        import.revision = Revision { history, number };
        Ok(import)
    }

    /// The next record, or `None` at the end.
    fn read(&mut self) -> Result<Option<Record>, ImportError> {
        match self.array()? {
            [RECORD] => self.record().map(Some),
            [END] => self.end().map(|()| None),
            _ => Err(self.damaged("it has a part of an unknown sort")),
        }
    }

    fn record(&mut self) -> Result<Record, ImportError> {
        let [kind] = self.array()?;
        let revision = u64::from_be_bytes(self.array()?);
        let key_bytes = u32::from_be_bytes(self.array()?) as usize;
        let value_bytes = u32::from_be_bytes(self.array()?) as usize;
        if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            return Err(self.damaged("a record is longer than a record can be"));
        }
        let key = self.bytes(key_bytes)?;
        let value = self.bytes(value_bytes)?;
        let crc = self.check_part()?;
        let record = Record { key: RecordKey::new(Kind(kind), key), value: value.into(), revision };
        if revision > self.revision.number {
            return Err(self.damaged("a record is newer than the export"));
        }
        if self.last.as_ref().is_some_and(|last| *last >= record.key) {
            return Err(self.damaged("the records are out of order"));
        }
        self.last = Some(record.key.clone());
        self.count += 1;
        self.sum = self.sum.wrapping_add(u64::from(crc));
        Ok(record)
    }

    fn end(&mut self) -> Result<(), ImportError> {
        let count = u64::from_be_bytes(self.array()?);
        let sum = u64::from_be_bytes(self.array()?);
        self.check_part()?;
        if (count, sum) != (self.count, self.sum) {
            return Err(self.damaged("the number of records or their checksum is not what the end says"));
        }
        match self.reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged("there is more after the end")),
            Err(error) => Err(ImportError::Read(error)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ImportError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        self.part.extend(bytes);
        Ok(bytes)
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, ImportError> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes)?;
        self.part.extend_from_slice(&bytes);
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ImportError> {
        self.reader.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ImportError::CutOff { records: self.count },
            _ => ImportError::Read(error),
        })
    }

    /// Compare the part read so far with the checksum that follows, and begin the next.
    fn check_part(&mut self) -> Result<u32, ImportError> {
        let crc = crc32fast::hash(&self.part);
        let mut wanted = [0; 4];
        self.fill(&mut wanted)?;
        self.part.clear();
        if u32::from_be_bytes(wanted) == crc {
            Ok(crc)
        } else {
            Err(self.damaged("a checksum does not match"))
        }
    }

    fn damaged(&self, detail: &'static str) -> ImportError {
        ImportError::Damaged { records: self.count, detail }
    }
}

impl<R: Read> Iterator for Import<R> {
    type Item = Result<Record, ImportError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
