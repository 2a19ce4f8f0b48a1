//! What a directory remembers of the store in it: which store, in which history, and how far it had come.
//!
//! The mark lies above the folder `store`, so putting an older folder back does not put the mark back. Which store and
//! which history are synced when they change. The revision is overwritten in place after each durable batch, without a
//! sync of its own, as that in the folder is: it may fall behind, but is never ahead. Start at [`Mark`].

use std::fs::{self, OpenOptions};
use std::path::Path;

use crate::error::OpenError;
use crate::record::HistoryId;
use crate::small_file::{self, Notes, with_checksum, write_synced};

/// File name of the mark.
pub(crate) const MARK: &str = "mark";
/// A mark being written; left over only if that was interrupted, and then without meaning.
pub(crate) const NEW_MARK: &str = "mark.new";
const HEAD: &str = "spindle-mark 1";
/// A mark has about 140 bytes, which lie in one sector of a disk; anything longer is not ours.
const MARK_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The id in the identity of the store.
    pub(crate) store: HistoryId,
    /// The history its revisions count in. That of the store's beginning, until a restored store is accepted.
    pub(crate) history: HistoryId,
    /// The last revision known to be acknowledged.
    pub(crate) reached: u64,
}

impl Mark {
    /// Put the mark in place of an older one; the publisher syncs the directory.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), OpenError> {
        let (path, new) = (dir.join(MARK), dir.join(NEW_MARK));
        write_synced(OpenOptions::new().create(true).truncate(true), &new, &self.text())?;
        fs::rename(&new, &path).map_err(OpenError::io("rename to `mark`", &new))
    }

    /// Read the mark of a directory; `None` if there is none.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(MARK);
        let Some(bytes) = small_file::read(&path)? else { return Ok(None) };
        match Self::parse(&bytes) {
            Ok(mark) => Ok(Some(mark)),
            Err(detail) => Err(OpenError::BadMark { path, detail }),
        }
    }

    /// Always of one length, so that overwriting it needs no space.
    fn text(&self) -> String {
        let Self { store, history, reached } = self;
        with_checksum(&format!("{HEAD}\nstore {store}\nhistory {history}\nreached {reached:020}\n"))
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let text = str::from_utf8(bytes).map_err(|_| "it is not text")?;
        if text.len() > MARK_BYTES_MAX {
            return Err("it is too long");
        }
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err("it does not start with `spindle-mark 1`; a later version may have written it");
        }
        let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name));
        let store = field("store ").and_then(|id| id.parse().ok()).ok_or("its store is wrong")?;
        let history = field("history ").and_then(|id| id.parse().ok()).ok_or("its history is wrong")?;
        let reached = field("reached ").and_then(|n| n.parse().ok()).ok_or("its revision is wrong")?;
        let mark = Self { store, history, reached };
        if mark.text() == text { Ok(mark) } else { Err("it does not match its checksum") }
    }
}

/// The mark of an open store.
pub(crate) struct OpenMark {
    notes: Notes,
    mark: Mark,
}

impl OpenMark {
    pub(crate) fn open(dir: &Path, mark: Mark) -> Result<Self, OpenError> {
        Ok(Self { notes: Notes::open(dir.join(MARK))?, mark })
    }

    /// Note a durable revision.
    pub(crate) fn note(&mut self, revision: u64) {
        self.mark.reached = revision;
        self.notes.note(&self.mark.text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark { store: HistoryId([0xab; 16]), history: HistoryId([0xcd; 16]), reached: 5 }
    }

    #[test]
    fn a_mark_reads_back_as_written_and_is_replaced_whole() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert_eq!(Mark::read(dir.path()).expect("no file"), None);
        for reached in [5, 0] {
            let mark = Mark { reached, ..mark() };
            mark.write(dir.path()).expect("write");
            assert_eq!(Mark::read(dir.path()).expect("file"), Some(mark));
        }
        assert!(!dir.path().join(NEW_MARK).exists());
    }

    #[test]
    fn the_revision_reached_is_noted_in_place() {
        let dir = tempfile::tempdir().expect("tempdir");
        mark().write(dir.path()).expect("write");
        let mut open = OpenMark::open(dir.path(), mark()).expect("open");
        for reached in [6, u64::MAX] {
            open.note(reached);
            assert_eq!(Mark::read(dir.path()).expect("file"), Some(Mark { reached, ..mark() }));
        }
    }

    #[test]
    fn a_mark_with_any_byte_changed_or_missing_is_refused() {
        let text = mark().text();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert!(Mark::parse(&changed).is_err(), "byte {at}");
            assert!(Mark::parse(&text.as_bytes()[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(Mark::parse(&[b'x'; 300]), Err("it is too long"));
    }
}
