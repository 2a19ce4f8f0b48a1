//! Small text files beside a database: written whole and synced, or overwritten in place by a text of the same length.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// Write a file that only its owner may read, and sync it; not the directory. `options` say whether it may be there.
pub(crate) fn write_synced(options: &mut OpenOptions, path: &Path, text: &str) -> Result<(), OpenError> {
    let file = options.write(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(OpenError::io("write", path))
}

/// Read a file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some).map_err(OpenError::io("read", path)),
    }
}

/// `body`, and a line with its checksum.
pub(crate) fn with_checksum(body: &str) -> String {
    format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes()))
}

/// An open file that is told each durable revision, without a sync.
pub(crate) struct Notes {
    file: File,
    path: PathBuf,
}

impl Notes {
    pub(crate) fn open(path: PathBuf) -> Result<Self, OpenError> {
        let file = OpenOptions::new().write(true).open(&path).map_err(OpenError::io("open", &path))?;
        Ok(Self { file, path })
    }

    /// Overwrite what is there. Failing to do so only makes the next opening less watchful.
    pub(crate) fn note(&self, text: &str) {
        if let Err(error) = self.file.write_all_at(text.as_bytes(), 0) {
            tracing::warn!(path = %self.path.display(), %error, "could not note the revision reached");
        }
    }
}
