//! A stopped server's store as one file, the way back, and taking a restored store folder for the store.
//!
//! Each makes a new history, except the export, which changes nothing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use spindle_spiffe_core::Entropy;
use spindle_store::{OpenError, Store, StoreKind, accept_restored, export, import};

use crate::config::StoreSettings;
use crate::copy::{is_used, with_history};

/// Why a backup was not written, read or accepted.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is nothing to work on; opening it would have made an empty store.
    #[error("there is no store in {}", .0.display())]
    NothingThere(PathBuf),
    /// A memory store ends with its process.
    #[error("a memory store ends with its process")]
    Memory,
    /// The store cannot be opened, for example because its server still runs.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The export stopped half way; its file was removed.
    #[error(transparent)]
    Export(#[from] spindle_store::ExportError),
    /// The file makes no store; none was left behind.
    #[error(transparent)]
    Import(#[from] spindle_store::ImportError),
}

impl BackupError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

/// Writes every record of `from` into a new file that only its owner may read, and syncs it. Returns how many.
///
/// # Errors
/// When the store is not there or in use, or the file exists or cannot be written.
pub fn export_store(from: &StoreSettings, to: &Path, entropy: &dyn Entropy) -> Result<u64, BackupError> {
    check(from)?;
    let store = Store::open(&with_history(from, entropy))?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let file = file.map_err(BackupError::file("make", to))?;
    let written = write(&store, &file, to);
    if written.is_err() {
        // Half an export must not pass for one. If it cannot be removed, an import still refuses it.
        let _ = fs::remove_file(to);
    }
    store.close();
    written
}

fn write(store: &Store, file: &File, path: &Path) -> Result<u64, BackupError> {
    let exported = export(store, file)?;
    file.sync_all().map_err(BackupError::file("sync", path))?;
    Ok(exported.records)
}

/// Makes a store from an export, in an empty or missing directory. Returns how many records it has.
///
/// # Errors
/// When the file is not a whole export, or the directory is not empty.
pub fn import_store(from: &Path, to: &StoreSettings, entropy: &dyn Entropy) -> Result<u64, BackupError> {
    if to.kind == StoreKind::Memory {
        return Err(BackupError::Memory);
    }
    let file = File::open(from).map_err(BackupError::file("open", from))?;
    let imported = import(file, &with_history(to, entropy))?;
    imported.store.close();
    Ok(imported.records)
}

/// Takes the store folder that lies in the directory for its store, although it is older than what was there or comes from
/// elsewhere. Returns the revision it stands at.
///
/// # Errors
/// When there is no whole store, or it is in use.
pub fn accept_restored_store(store: &StoreSettings, entropy: &dyn Entropy) -> Result<u64, BackupError> {
    check(store)?;
    Ok(accept_restored(&with_history(store, entropy))?.number)
}

fn check(store: &StoreSettings) -> Result<(), BackupError> {
    match store.kind {
        StoreKind::Memory => Err(BackupError::Memory),
        _ if !is_used(&store.directory) => Err(BackupError::NothingThere(store.directory.clone())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use spindle_runtime::SystemEntropy;
    use spindle_store::{HistoryId, Kind, RecordKey, StoreConfig, Transaction};

    struct Shelf(tempfile::TempDir);

    impl Shelf {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn store(&self, kind: StoreKind, name: &str) -> StoreSettings {
            StoreSettings { kind, directory: self.file(name) }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
    }

    fn open(at: &StoreSettings) -> Store {
        Store::open(&StoreConfig { kind: at.kind, dir: at.directory.clone(), history: [7; 16] }).unwrap()
    }

    fn put(at: &StoreSettings, name: &str) {
        let store = open(at);
        let key = RecordKey::new(Kind(9), name);
        store.commit_wait(Transaction::new().put(key, b"value".as_slice())).unwrap().unwrap();
        store.close();
    }

    fn history(at: &StoreSettings) -> HistoryId {
        open(at).history()
    }

    #[test]
    fn an_export_comes_back_as_a_store_of_another_kind_and_history() {
        let shelf = Shelf::new();
        let (from, file) = (shelf.store(StoreKind::Sled, "from"), shelf.file("backup"));
        put(&from, "name");
        assert_eq!(export_store(&from, &file, &SystemEntropy).unwrap(), 1);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let to = shelf.store(StoreKind::Redb, "to");
        assert_eq!(import_store(&file, &to, &SystemEntropy).unwrap(), 1);
        assert_eq!(&*open(&to).load().unwrap().records[0].value, b"value");
        assert_ne!(history(&to), history(&from));
    }

    #[test]
    fn an_export_never_writes_over_a_file_and_needs_a_store_that_is_free() {
        let shelf = Shelf::new();
        let (from, file) = (shelf.store(StoreKind::Redb, "from"), shelf.file("backup"));
        let refused = export_store(&from, &file, &SystemEntropy).expect_err("no store");
        assert!(matches!(refused, BackupError::NothingThere(_)), "{refused}");
        assert!(!from.directory.exists() && !file.exists());
        put(&from, "name");
        let held = open(&from);
        let refused = export_store(&from, &file, &SystemEntropy).expect_err("in use");
        assert!(matches!(refused, BackupError::Open(OpenError::Held { .. })), "{refused}");
        held.close();
        fs::write(&file, b"mine").unwrap();
        let refused = export_store(&from, &file, &SystemEntropy).expect_err("the file exists");
        assert!(matches!(refused, BackupError::File { .. }), "{refused}");
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn half_an_export_makes_no_store() {
        let shelf = Shelf::new();
        let (from, file) = (shelf.store(StoreKind::Redb, "from"), shelf.file("backup"));
        put(&from, "name");
        export_store(&from, &file, &SystemEntropy).unwrap();
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        let to = shelf.store(StoreKind::Sled, "to");
        let refused = import_store(&file, &to, &SystemEntropy).expect_err("cut off");
        assert!(matches!(refused, BackupError::Import(_)), "{refused}");
        assert!(!to.directory.join("store").exists());
    }

    #[test]
    fn a_restored_folder_is_accepted_under_a_new_history() {
        let shelf = Shelf::new();
        let (from, to) = (shelf.store(StoreKind::Redb, "from"), shelf.store(StoreKind::Redb, "to"));
        put(&from, "name");
        fs::create_dir(&to.directory).unwrap();
        fs::rename(from.directory.join("store"), to.directory.join("store")).unwrap();
        assert_eq!(accept_restored_store(&to, &SystemEntropy).unwrap(), 1);
        assert_ne!(history(&to), HistoryId([7; 16]));
        let refused = accept_restored_store(&from, &SystemEntropy).expect_err("nothing is left there");
        assert!(matches!(refused, BackupError::Open(OpenError::NothingThere { .. })), "{refused}");
    }

    #[test]
    fn memory_stores_are_refused() {
        let shelf = Shelf::new();
        let memory = shelf.store(StoreKind::Memory, "x");
        let refused = [
            export_store(&memory, &shelf.file("a"), &SystemEntropy),
            import_store(&shelf.file("a"), &memory, &SystemEntropy),
            accept_restored_store(&memory, &SystemEntropy),
        ];
        assert!(refused.iter().all(|refused| matches!(refused, Err(BackupError::Memory))), "{refused:?}");
    }
}
