//! Files that commands write: keys for the owner alone, certificates for everyone, each complete or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::Failure;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// A private file that is written bit by bit and appears under its name when it is whole. Until then it is a neighbour of
/// that name, which goes when this is dropped.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl NewFile {
    /// Begins the file.
    ///
    /// # Errors
    /// When a file of that name exists, or the directory is missing or cannot be written.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        if path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        let temporary = neighbour(path);
        let begin = || {
            // A file left by an earlier run that was killed must not lend its mode to this one.
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary)
        };
        let file = begin().map_err(|error| unwritable(path, &error))?;
        Ok(Self { path: path.into(), temporary, file })
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// When the disk is full, or fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| unwritable(&self.path, &error))
    }

    /// The file from its start, once all of it is on the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn synced(&mut self) -> Result<&File, Failure> {
        let synced = self.file.sync_all().and_then(|()| self.file.rewind());
        synced.map_err(|error| unwritable(&self.path, &error))?;
        Ok(&self.file)
    }

    /// Gives the file its name, for good: the directory is synced, too.
    ///
    /// # Errors
    /// When a file of that name has come meanwhile, or the disk fails.
    pub fn publish(self) -> Result<(), Failure> {
        // A link is refused where a rename would replace what is there.
        fs::hard_link(&self.temporary, &self.path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&self.path),
            _ => unwritable(&self.path, &error),
        })?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced =
            File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all());
        synced.map_err(|error| unwritable(&self.path, &error))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Gone or not: the next run of this process id removes it.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn exists(path: &Path) -> Failure {
    Failure::new(format!("{} exists", path.display()))
        .try_this("choose a name that is free; nothing is written over")
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::because(format!("cannot write {}", path.display()), error)
        .try_this("name a directory that exists, that this user may write and that has room")
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
    fn a_new_file_appears_whole_and_private_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let mut file = NewFile::create(&path).unwrap();
        file.write(b"one ").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "what was begun is gone");
        let mut file = NewFile::create(&path).unwrap();
        file.write(b"one ").unwrap();
        file.write(b"two").unwrap();
        assert_eq!(io::read_to_string(file.synced().unwrap()).unwrap(), "one two");
        file.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_new_file_never_takes_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let late = NewFile::create(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert!(NewFile::create(&path).expect_err("it exists").what().ends_with("exists"));
        assert!(late.publish().expect_err("it came meanwhile").what().ends_with("exists"));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert!(NewFile::create(Path::new("/nonexistent/x")).is_err());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let fault = write(Path::new("/nonexistent/x.pem"), b"", Readable::Public).expect_err("no directory");
        assert!(fault.what().contains("/nonexistent/x.pem"));
    }
}
