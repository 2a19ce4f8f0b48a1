//! Two small files beside a database: which store it is, and how far it had come.
//!
//! The identity never changes after the first start. `reached` is overwritten in place after each durable
//! batch, without a sync of its own: a power cut may leave it behind the database, but it is never ahead, so a
//! database that stands before it has lost acknowledged commits. Both carry a checksum, and are restored together
//! with the database; what a restored folder lacks shows the mark above it ([`crate::mark`]).

use std::fs::{self, OpenOptions};
use std::path::Path;

use crate::StoreKind;
use crate::error::OpenError;
use crate::record::HistoryId;
use crate::small_file::{self, Notes, with_checksum, write_synced};

/// File name of the identity.
pub(crate) const IDENTITY: &str = "store-identity";
const REACHED: &str = "reached";
const IDENTITY_HEAD: &str = "spindle-store 1";
/// An identity has about 90 bytes; anything longer is not ours.
const IDENTITY_BYTES_MAX: usize = 256;

/// Which store a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The history the store began with. It names the store for good, whatever history it counts in now.
    pub(crate) id: HistoryId,
    pub(crate) kind: StoreKind,
}

impl Identity {
    /// Write the file into a folder that is not yet published; the publisher syncs the folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), OpenError> {
        write_synced(OpenOptions::new().create_new(true), &folder.join(IDENTITY), &self.text())
    }

    /// Read the file of a folder; `None` if there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, OpenError> {
        let path = folder.join(IDENTITY);
        let Some(bytes) = small_file::read(&path)? else { return Ok(None) };
        match Self::parse(&bytes) {
            Ok(identity) => Ok(Some(identity)),
            Err(what) => Err(OpenError::BadFile { path, detail: what.into() }),
        }
    }

    fn text(&self) -> String {
        with_checksum(&format!("{IDENTITY_HEAD}\nhistory {}\nkind {}\n", self.id, self.kind))
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let text = str::from_utf8(bytes).map_err(|_| "it is not text")?;
        if text.len() > IDENTITY_BYTES_MAX {
            return Err("it is too long");
        }
        let mut lines = text.lines();
        let head = lines.next().ok_or("it is empty")?;
        if head != IDENTITY_HEAD {
            return Err("it does not start with `spindle-store 1`; a later version may have written it");
        }
        let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name));
        let id = field("history ").and_then(|id| id.parse().ok()).ok_or("its history is wrong")?;
        let kind = field("kind ").and_then(|kind| kind.parse().ok()).ok_or("its kind is wrong")?;
        let identity = Self { id, kind };
        if identity.text() == text { Ok(identity) } else { Err("it does not match its checksum") }
    }
}

/// The open `reached` file of a store.
pub(crate) struct Reached(Notes);

impl Reached {
    pub(crate) fn create(folder: &Path, revision: u64) -> Result<(), OpenError> {
        write_synced(OpenOptions::new().create_new(true), &folder.join(REACHED), &reached_text(revision))
    }

    /// Open the file and read it.
    pub(crate) fn open(folder: &Path) -> Result<(Self, u64), OpenError> {
        let path = folder.join(REACHED);
        let bytes = fs::read(&path).map_err(OpenError::io("read", &path))?;
        let number = str::from_utf8(&bytes).ok().and_then(|text| text.split(' ').next()?.parse().ok());
        let number = number.filter(|number| reached_text(*number).as_bytes() == bytes);
        match number {
            Some(number) => Ok((Self(Notes::open(path)?), number)),
            None => Err(OpenError::BadFile { path, detail: "it does not match its checksum".into() }),
        }
    }

    /// Note a durable revision.
    pub(crate) fn note(&self, revision: u64) {
        self.0.note(&reached_text(revision));
    }
}

/// Always 30 bytes, so that overwriting it needs no space.
fn reached_text(revision: u64) -> String {
    let number = format!("{revision:020}");
    format!("{number} {:08x}\n", crc32fast::hash(number.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { id: HistoryId([0xab; 16]), kind: StoreKind::Redb }
    }

    #[test]
    fn an_identity_reads_back_as_written() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert_eq!(Identity::read(dir.path()).expect("no file"), None);
        identity().write(dir.path()).expect("write");
        assert_eq!(Identity::read(dir.path()).expect("file"), Some(identity()));
        identity().write(dir.path()).expect_err("it is never overwritten");
    }

    #[test]
    fn an_identity_with_any_byte_changed_or_missing_is_refused() {
        let text = identity().text();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert!(Identity::parse(&changed).is_err(), "byte {at}");
            assert!(Identity::parse(&text.as_bytes()[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(Identity::parse(b""), Err("it is empty"));
        assert_eq!(Identity::parse(&[b'x'; 300]), Err("it is too long"));
    }

    #[test]
    fn the_revision_reached_reads_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().expect("tempdir");
        Reached::create(dir.path(), 5).expect("create");
        let (reached, number) = Reached::open(dir.path()).expect("open");
        assert_eq!(number, 5);
        reached.note(u64::MAX);
        assert_eq!(Reached::open(dir.path()).expect("open").1, u64::MAX);
        fs::write(dir.path().join(REACHED), "00000000000000000007 00000000\n").expect("write");
        assert!(matches!(Reached::open(dir.path()), Err(OpenError::BadFile { .. })));
    }
}
