//! Which files are read: one, standard input, or all of a directory in the order of their names.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{EntryFile, parse};
use crate::error::Failure;
use crate::input::DATA_BYTES_MAX;

/// Files of one directory.
pub const FILES_MAX: usize = 10_000;

const FORM: &str = "compare with the example in `entry apply -h`; SPIRE's {\"entries\": [ … ]} is read, too";

/// Reads a file (`-` for standard input), or every file of a directory. Names that start with a dot are passed over, as
/// ConfigMap volumes have them; anything else must be a file of entries: what is left out in silence would be pruned.
///
/// # Errors
/// The first file that cannot be read, is too large or is malformed, and two trust domains.
pub fn read(path: &str) -> Result<EntryFile, Failure> {
    let mut room = DATA_BYTES_MAX;
    if path == "-" {
        return one("standard input", std::io::stdin().lock(), &mut room);
    }
    let root = Path::new(path);
    let unreadable = |error: std::io::Error| unreadable(root, &error);
    if !std::fs::metadata(root).map_err(unreadable)?.is_dir() {
        return one(path, File::open(root).map_err(unreadable)?, &mut room);
    }
    let mut all: Option<EntryFile> = None;
    for path in files(root)? {
        let file = File::open(&path).map_err(|error| self::unreadable(&path, &error))?;
        if !file.metadata().map_err(|error| self::unreadable(&path, &error))?.is_file() {
            return Err(Failure::new(format!("{} is not a file", path.display()))
                .try_this("keep nothing but files of entries in the directory, or hide it with a dot"));
        }
        let read = one(&path.display().to_string(), file, &mut room)?;
        all = Some(match all {
            Some(all) => together(all, read, &path)?,
            None => read,
        });
    }
    all.ok_or_else(|| {
        Failure::new(format!("there is no file in {path}"))
            .try_this("name the right directory; a file with entries = [] says that there are none")
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::because(format!("cannot read {}", path.display()), error)
        .try_this("name a readable file or directory, or - for standard input")
}

fn files(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for item in std::fs::read_dir(root).map_err(|error| unreadable(root, &error))? {
        let item = item.map_err(|error| unreadable(root, &error))?;
        if item.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        files.push(item.path());
        if files.len() > FILES_MAX {
            return Err(Failure::new(format!("{} has more than {FILES_MAX} files", root.display()))
                .try_this("put more entries into one file"));
        }
    }
    files.sort();
    Ok(files)
}

/// Reads and parses one file within the room that all files share.
fn one(name: &str, source: impl Read, room: &mut u64) -> Result<EntryFile, Failure> {
    let mut text = String::new();
    let bytes = source.take(*room + 1).read_to_string(&mut text);
    let bytes = bytes.map_err(|error| unreadable(Path::new(name), &error))? as u64;
    *room = room.checked_sub(bytes).ok_or_else(|| {
        Failure::new(format!("with {name} the files have more than {DATA_BYTES_MAX} bytes together"))
            .try_this("split them over several sets")
    })?;
    parse(name, &text).map_err(|what| Failure::new(what).try_this(FORM))
}

fn together(mut all: EntryFile, file: EntryFile, path: &Path) -> Result<EntryFile, Failure> {
    match (&all.trust_domain, &file.trust_domain) {
        (Some(first), Some(other)) if first != other => {
            let what = format!(
                "{} is for trust domain {other:?}, files before it are for {first:?}",
                path.display()
            );
            return Err(Failure::new(what).try_this("keep one directory for each trust domain"));
        }
        (None, _) => all.trust_domain = file.trust_domain,
        _ => {}
    }
    all.entries.extend(file.entries);
    all.federation.bundles.extend(file.federation.bundles);
    all.federation.relationships.extend(file.federation.relationships);
    super::once_each(&all.federation).map_err(|fault| {
        Failure::new(format!("{}: {fault}", path.display())).try_this("keep one of the two")
    })?;
    Ok(all)
}
