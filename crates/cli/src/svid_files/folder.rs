//! The directory with its generations: the only place that writes, and it writes only into a directory of its own.
//!
//! A generation is written and synced whole before the link `current` is renamed over, so that a reader, a kill and a power cut
//! all find an old or a new one. Plain names such as `tls.crt` are links through `current`. One process at a time: it holds
//! a lock on the marker. Start at [`Folder::open`].

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use spindle_spiffe_core::Timestamp;
use zeroize::Zeroizing;

use super::generations::{self, Generations};
use crate::error::Failure;
use crate::files::Readable;

/// The link to the newest generation.
pub(crate) const CURRENT: &str = "current";

/// The link while it is made.
const CURRENT_NEW: &str = ".current.new";

/// Says that a directory is kept by this program, and is locked by the process that keeps it.
pub(crate) const MARKER: &str = ".spindle-files";

/// What stands in the marker, for people.
const MARKER_TEXT: &[u8] = b"The files here are kept by Spindle. Do not change or add any.\n";

/// One file of a generation.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NamedFile {
    /// A plain file name.
    pub(crate) name: String,
    /// Wiped when dropped: it may be a key.
    pub(crate) content: Zeroizing<Vec<u8>>,
    /// Everyone, or only those that [`Access`] names.
    pub(crate) readable: Readable,
}

/// Whose the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    /// Mode of the directory when it has to be made, and of its generations.
    pub(crate) dir_mode: u32,
    /// Mode of private files: 0600, 0640 or stricter.
    pub(crate) key_mode: u32,
    /// The owner of the files; this user without one.
    pub(crate) owner: Option<u32>,
    /// The group of the files; this user's without one.
    pub(crate) group: Option<u32>,
}

/// A directory that this process keeps.
pub(crate) struct Folder {
    dir: PathBuf,
    access: Access,
    generations: Generations,
    /// Locked for as long as this lives.
    _marker: File,
}

impl Folder {
    /// Takes the directory, makes it when it is missing, and removes what a killed run left half done.
    ///
    /// # Errors
    /// When it holds other files, everyone may write there, another process keeps it, or the system refuses.
    pub(crate) fn open(dir: &Path, access: Access, grace_secs: i64, now: Timestamp) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::because(format!("cannot keep files in {}", dir.display()), &error)
                .try_this("name a directory that this user may write, with -dir")
        };
        make_dir(dir, access.dir_mode).map_err(failed)?;
        check_writers(dir)?;
        let marker = take_marker(dir)?;
        let (generations, leftovers) = found(dir, grace_secs, now).map_err(failed)?;
        remove_if_there(&dir.join(CURRENT_NEW)).map_err(failed)?;
        for number in leftovers {
            fs::remove_dir_all(dir.join(generations::name(number))).map_err(failed)?;
        }
        Ok(Self { dir: dir.into(), access, generations, _marker: marker })
    }

    /// Shows these files to readers, and no others any more: persisted before it returns. Generations whose grace is over go.
    ///
    /// # Errors
    /// When the disk refuses; readers see what they saw before, or all that is new.
    pub(crate) fn publish(&mut self, files: &[NamedFile], now: Timestamp) -> Result<u64, Failure> {
        let number = self.generations.next();
        let generation = self.dir.join(generations::name(number));
        let shown = self.write_generation(&generation, files).and_then(|()| self.show(number, files));
        if let Err(error) = shown {
            // What is half written was never shown; the next attempt begins it anew.
            let _ = fs::remove_dir_all(&generation);
            return Err(self.unwritable(&error));
        }
        self.generations.on_published(number, now);
        let settled = self.sync().and_then(|()| self.remove_stale_links(files));
        settled.map_err(|error| self.unwritable(&error))?;
        self.tidy(now);
        Ok(number)
    }

    /// Shows nothing any more, and removes what was shown at once: it must not be used.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn withdraw(&mut self, now: Timestamp) -> Result<(), Failure> {
        self.publish(&[], now)?;
        let past = self.generations.take_all_past();
        self.remove_all(&past);
        Ok(())
    }

    /// Removes generations whose grace is over.
    pub(crate) fn tidy(&mut self, now: Timestamp) {
        let due = self.generations.take_due(now);
        self.remove_all(&due);
    }

    /// When [`Folder::tidy`] has work; none when it has none for now.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.generations.next_due()
    }

    fn remove_all(&self, numbers: &[u64]) {
        for number in numbers {
            let path = self.dir.join(generations::name(*number));
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove old files");
            }
        }
    }

    fn write_generation(&self, generation: &Path, files: &[NamedFile]) -> io::Result<()> {
        match fs::remove_dir_all(generation) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(generation)?;
        for file in files {
            self.write_file(&generation.join(&file.name), file)?;
        }
        let dir = File::open(generation)?;
        self.give(&dir, self.access.dir_mode)?;
        dir.sync_all()
    }

    /// A private file has its last mode and owner before it has any content.
    fn write_file(&self, path: &Path, named: &NamedFile) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mode = match named.readable {
            Readable::Private => self.access.key_mode,
            Readable::Public => 0o644,
        };
        self.give(&file, mode)?;
        file.write_all(&named.content)?;
        file.sync_all()
    }

    /// Sets owner, group and mode, whatever the umask is.
    fn give(&self, file: &File, mode: u32) -> io::Result<()> {
        if self.access.owner.is_some() || self.access.group.is_some() {
            fchown(file, self.access.owner, self.access.group)?;
        }
        file.set_permissions(Permissions::from_mode(mode))
    }

    /// Links of new names come first, and lead nowhere for a moment: the rename is the one moment of change.
    fn show(&self, number: u64, files: &[NamedFile]) -> io::Result<()> {
        for file in files {
            self.link_plain_name(&file.name)?;
        }
        let new = self.dir.join(CURRENT_NEW);
        remove_if_there(&new)?;
        symlink(generations::name(number), &new)?;
        fs::rename(&new, self.dir.join(CURRENT))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn link_plain_name(&self, name: &str) -> io::Result<()> {
        let (path, target) = (self.dir.join(name), Path::new(CURRENT).join(name));
        match fs::read_link(&path) {
            Ok(found) if found == target => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => symlink(target, path),
            _ => Err(io::Error::other(format!("{} is in the way", path.display()))),
        }
    }

    /// Removes links of ours whose files are gone.
    fn remove_stale_links(&self, files: &[NamedFile]) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_ours =
                fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(CURRENT).join(&name));
            if is_ours && !files.iter().any(|file| name == file.name.as_str()) {
                remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    }

    fn unwritable(&self, error: &io::Error) -> Failure {
        Failure::because(format!("cannot write the files in {}", self.dir.display()), error)
            .try_this("look for room on the disk, and at the directory's owner and mode")
    }
}

fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(mode).create(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(mode))
}

/// Where everyone may write, anyone could put a link in the place of a key.
fn check_writers(dir: &Path) -> Result<(), Failure> {
    let mode = fs::metadata(dir).map_or(0, |metadata| metadata.mode());
    if mode & 0o002 == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("everyone may write in {}", dir.display()))
        .try_this("name a directory below it, which is made for you, with -dir"))
}

/// The marker, locked: the directory is ours and nobody else keeps it.
fn take_marker(dir: &Path) -> Result<File, Failure> {
    let (path, shown) = (dir.join(MARKER), dir.display());
    let failed = |error: io::Error| {
        Failure::because(format!("cannot use {}", path.display()), &error)
            .try_this("name a directory that this user may write, with -dir")
    };
    if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        if fs::read_dir(dir).map_err(failed)?.next().is_some() {
            return Err(Failure::new(format!("{shown} holds files of others"))
                .try_this("name an empty directory, or one that does not exist yet, with -dir"));
        }
        let mut marker =
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path).map_err(failed)?;
        marker.write_all(MARKER_TEXT).map_err(failed)?;
    }
    let marker = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
    match marker.try_lock() {
        Ok(()) => Ok(marker),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(format!("another process keeps the files in {shown}"))
                .try_this("stop it, or name another directory with -dir"))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// What lies in the directory, and what of it nobody was shown.
fn found(dir: &Path, grace_secs: i64, now: Timestamp) -> io::Result<(Generations, Vec<u64>)> {
    let number = |name: &Path| name.to_str().and_then(generations::number_of);
    let current = fs::read_link(dir.join(CURRENT)).ok().and_then(|target| number(&target));
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        numbers.extend(number(Path::new(&entry?.file_name())));
    }
    Ok(Generations::found(current, numbers, grace_secs, now))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests;
