//! Copies a stopped server's store into an empty one of any kind, for a move from one embedded store to another.

use std::path::{Path, PathBuf};

use spindle_spiffe_core::Entropy;
use spindle_store::{Store, StoreConfig, StoreKind, copy};

use crate::config::StoreSettings;

/// Why a store was not copied. The source is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CopyStoreError {
    /// There is nothing to copy; opening it would have made an empty store.
    #[error("there is no store in {}", .0.display())]
    NothingThere(PathBuf),
    /// A memory store ends with its process.
    #[error("a memory store cannot be copied: it ends with its process")]
    Memory,
    /// The source cannot be opened, for example because its server still runs.
    #[error("cannot open the store to copy")]
    Open(#[from] spindle_store::OpenError),
    /// The copy failed or does not read back as the source.
    #[error(transparent)]
    Copy(#[from] spindle_store::CopyError),
}

/// Copies every record of `from` into `to`, whose directory must be empty or missing, reads it back and compares. Returns
/// how many records there are. The copy starts a history of its own, so agents take a full snapshot from it.
///
/// # Errors
/// When there is nothing to copy, the source is in use, the target is not empty, or a record differs afterwards.
pub fn copy_store(
    from: &StoreSettings,
    to: &StoreSettings,
    entropy: &dyn Entropy,
) -> Result<u64, CopyStoreError> {
    if from.kind == StoreKind::Memory || to.kind == StoreKind::Memory {
        return Err(CopyStoreError::Memory);
    }
    if !is_used(&from.directory) {
        return Err(CopyStoreError::NothingThere(from.directory.clone()));
    }
    let source = Store::open(&with_history(from, entropy))?;
    let copied = copy(&source, &with_history(to, entropy))?;
    copied.store.close();
    source.close();
    Ok(copied.records)
}

/// Whether there is anything in a directory: opening an empty one would make an empty store.
pub(crate) fn is_used(directory: &Path) -> bool {
    directory.read_dir().is_ok_and(|mut files| files.next().is_some())
}

/// The settings with a history id of its own for what is made from them.
pub(crate) fn with_history(settings: &StoreSettings, entropy: &dyn Entropy) -> StoreConfig {
    let mut history = [0; 16];
    entropy.fill(&mut history);
    StoreConfig { kind: settings.kind, dir: settings.directory.clone(), history }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_runtime::SystemEntropy;
    use spindle_store::{Kind, RecordKey, Transaction};

    fn settings(kind: StoreKind, folder: &tempfile::TempDir, name: &str) -> StoreSettings {
        StoreSettings { kind, directory: folder.path().join(name) }
    }

    #[test]
    fn every_record_arrives_and_the_copy_has_a_history_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) =
            (settings(StoreKind::Sled, &folder, "from"), settings(StoreKind::Redb, &folder, "to"));
        let open = |at: &StoreSettings| {
            Store::open(&StoreConfig { kind: at.kind, dir: at.directory.clone(), history: [7; 16] }).unwrap()
        };
        let source = open(&from);
        let key = RecordKey::new(Kind(9), "name");
        source.commit_wait(Transaction::new().put(key.clone(), b"value".as_slice())).unwrap().unwrap();
        source.close();
        assert_eq!(copy_store(&from, &to, &SystemEntropy).unwrap(), 1);
        let copied = open(&to).load().unwrap();
        assert_eq!((&copied.records[0].key, &*copied.records[0].value), (&key, b"value".as_slice()));
        assert_ne!(copied.revision.history.0, [7; 16]);
    }

    #[test]
    fn a_missing_source_is_refused_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) =
            (settings(StoreKind::Sled, &folder, "from"), settings(StoreKind::Redb, &folder, "to"));
        let refused = copy_store(&from, &to, &SystemEntropy).expect_err("nothing to copy");
        assert!(matches!(refused, CopyStoreError::NothingThere(_)), "{refused}");
        assert!(!from.directory.exists() && !to.directory.exists());
    }

    #[test]
    fn a_target_that_holds_something_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) =
            (settings(StoreKind::Sled, &folder, "from"), settings(StoreKind::Sled, &folder, "to"));
        for at in [&from, &to] {
            Store::open(&StoreConfig { kind: at.kind, dir: at.directory.clone(), history: [1; 16] })
                .unwrap()
                .close();
        }
        assert!(matches!(copy_store(&from, &to, &SystemEntropy), Err(CopyStoreError::Copy(_))));
    }
}
