//! Files that commands write: keys for the owner alone, certificates for everyone, each complete or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::Failure;

/// Who may read a file.
#[derive(Debug, Clone, Copy)]
pub enum Readable {
    /// Only the owner.
    Private,
    /// Everyone.
    Public,
}

/// Writes a file by its temporary neighbour, so that a reader sees the old or the new content, never a part.
///
/// # Errors
/// When the directory is missing or cannot be written.
pub fn write(path: &Path, content: &[u8], readable: Readable) -> Result<(), Failure> {
    replace(path, content, readable).map_err(|error| {
        Failure::because(format!("cannot write {}", path.display()), &error)
            .try_this("name a directory that exists and that this user may write")
    })
}

fn replace(path: &Path, content: &[u8], readable: Readable) -> io::Result<()> {
    let mode = match readable {
        Readable::Private => 0o600,
        Readable::Public => 0o644,
    };
    let temporary = neighbour(path);
    // A file left by an earlier run that was killed must not lend its mode to this one.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let written =
        file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn neighbour(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_for_its_owner_alone_even_when_the_file_was_open_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        fs::write(&path, "old").unwrap();
        write(&path, b"new", Readable::Private).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let fault = write(Path::new("/nonexistent/x.pem"), b"", Readable::Public).expect_err("no directory");
        assert!(fault.what().contains("/nonexistent/x.pem"));
    }
}
