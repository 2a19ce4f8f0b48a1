//! Stores in temporary directories, and short words for what tests do most.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use spindle_store::{Conflict, Kind, OpenError, RecordKey, Store, StoreConfig, StoreKind, Transaction};

pub(crate) const HISTORY: [u8; 16] = *b"a history of 16b";
pub(crate) const ON_DISK: [StoreKind; 2] = [StoreKind::Sled, StoreKind::Redb];
pub(crate) const ALL: [StoreKind; 3] = [StoreKind::Sled, StoreKind::Redb, StoreKind::Memory];

/// A directory for a store of one kind, removed at the end.
pub(crate) struct Home {
    pub(crate) kind: StoreKind,
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new(kind: StoreKind) -> Self {
        Self { kind, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("data").join("store")
    }

    /// A path inside the folder of the published store.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir().join("store").join(name)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.file(if self.kind == StoreKind::Sled { "sled" } else { "store.redb" })
    }

    pub(crate) fn config(&self) -> StoreConfig {
        StoreConfig { kind: self.kind, dir: self.dir(), history: HISTORY }
    }

    pub(crate) fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Store, OpenError> {
        Store::open(&self.config())
    }

    pub(crate) fn refused(&self) -> OpenError {
        self.try_open().err().expect("the store must not open")
    }
}

pub(crate) fn key(name: impl AsRef<[u8]>) -> RecordKey {
    RecordKey::new(Kind(1), name)
}

pub(crate) fn put(name: &str, value: &[u8]) -> Transaction {
    Transaction::new().put(key(name), value)
}

/// Commit and expect success.
pub(crate) fn commit(store: &Store, transaction: Transaction) -> u64 {
    store.commit_wait(transaction).unwrap().unwrap()
}

pub(crate) fn conflict(store: &Store, transaction: Transaction) -> Conflict {
    store.commit_wait(transaction).unwrap().unwrap_err()
}

pub(crate) type Contents = BTreeMap<RecordKey, (u64, Vec<u8>)>;

pub(crate) fn contents(store: &Store) -> Contents {
    let records = store.load().unwrap().records;
    records.into_iter().map(|record| (record.key, (record.revision, record.value.to_vec()))).collect()
}

/// A small generator, so that a run can be repeated from its seed.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A file system that is unmounted at the end, whatever happens.
pub(crate) struct Mount {
    pub(crate) at: PathBuf,
}

impl Mount {
    /// Why a test that mounts cannot run here, if it cannot.
    pub(crate) fn missing() -> Option<String> {
        use std::os::unix::fs::MetadataExt;
        if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
            return Some("mounting needs root".into());
        }
        ["mount", "umount"].iter().find_map(|tool| missing_tool(tool))
    }

    pub(crate) fn new(options: &[&str], source: &Path, at: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(at).unwrap();
        run(Command::new("mount").args(options).arg(source).arg(at))?;
        Ok(Self { at: at.to_owned() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let plain = run(Command::new("umount").arg(&self.at));
        if plain.is_err() {
            let lazy = run(Command::new("umount").arg("-l").arg(&self.at));
            say(&format!("unmounting {}: {plain:?}, then lazily: {lazy:?}", self.at.display()));
        }
    }
}

pub(crate) fn missing_tool(tool: &str) -> Option<String> {
    Command::new(tool).arg("--version").output().err().map(|error| format!("{tool} does not run: {error}"))
}

pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Tell the person who runs the tests, even when they pass: past the capture of the test harness.
pub(crate) fn say(text: &str) {
    // A closed output is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Rounds of a long test: an environment variable, or a default that suits every `cargo test`.
pub(crate) fn rounds(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number of rounds"))
}
