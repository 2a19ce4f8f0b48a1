//! A process that commits numbered transactions until it is killed, and what must be found afterwards.
//!
//! The test binary starts itself again as the writer. Transaction `n` is commit number `n`: it writes two
//! records that belong together, moves a counter, and removes the two of `n - KEPT`. So the whole content at
//! revision `n` is known, and a half-done, lost or reordered transaction shows.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::sync_channel;

use spindle_store::{Store, StoreConfig, StoreKind, Transaction};

use crate::support::{Contents, HISTORY, contents, key};

/// Set for the writer process, to `kind directory`.
const ROLE: &str = "SPINDLE_TEST_WRITER";
const PLAIN_SLED: &str = "plain-sled";
const KEPT: u64 = 150;
/// Transactions that the writer has in flight, so that batches form.
const IN_FLIGHT: usize = 12;

fn config(kind: StoreKind, dir: &Path) -> StoreConfig {
    StoreConfig { kind, dir: dir.to_owned(), history: HISTORY }
}

/// Mostly small; some larger than a page of the databases, a few larger than a segment of sled.
fn value(n: u64) -> Vec<u8> {
    let size = match n {
        _ if n.is_multiple_of(61) => 700_000,
        _ if n.is_multiple_of(11) => 3000 + n * 131 % 20_000,
        _ => n * 37 % 600,
    };
    n.to_be_bytes().into_iter().cycle().take(size as usize).collect()
}

fn transaction(n: u64) -> Transaction {
    let transaction = if n == 1 {
        Transaction::new().absent(key("counter"))
    } else {
        Transaction::new().at_revision(key("counter"), n - 1)
    };
    let transaction = transaction
        .put(key("counter"), n.to_be_bytes())
        .put(key(format!("record {n}")), value(n))
        .put(key(format!("mirror {n}")), n.to_be_bytes());
    match n.checked_sub(KEPT) {
        Some(old) if old > 0 => {
            transaction.delete(key(format!("record {old}"))).delete(key(format!("mirror {old}")))
        }
        _ => transaction,
    }
}

fn expected(revision: u64) -> Contents {
    let mut expected = Contents::new();
    if revision > 0 {
        expected.insert(key("counter"), (revision, revision.to_be_bytes().to_vec()));
    }
    for n in revision.saturating_sub(KEPT - 1).max(1)..=revision {
        expected.insert(key(format!("record {n}")), (n, value(n)));
        expected.insert(key(format!("mirror {n}")), (n, n.to_be_bytes().to_vec()));
    }
    expected
}

/// Open what a killed writer left: it must hold every acknowledged transaction, and each one whole.
pub(crate) fn check(kind: StoreKind, dir: &Path, acknowledged: u64) -> u64 {
    let store = Store::open(&config(kind, dir)).unwrap_or_else(|error| panic!("it does not open: {error:?}"));
    let revision = store.revision().number;
    assert!(revision >= acknowledged, "{acknowledged} was acknowledged, the store stands at {revision}");
    assert!(contents(&store) == expected(revision), "the content at revision {revision} is another");
    revision
}

/// Does nothing unless this process was started as the writer.
#[test]
fn writer_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (kind, dir) = role.split_once(' ').expect("kind and directory");
    if kind == PLAIN_SLED {
        return write_plain_sled(Path::new(dir), |n| println!("ack {n}"));
    }
    let store = Store::open(&config(kind.parse().unwrap(), Path::new(dir))).unwrap();
    let (enter, leave) = sync_channel(IN_FLIGHT);
    let leave = std::sync::Arc::new(std::sync::Mutex::new(leave));
    for n in store.revision().number + 1.. {
        enter.send(()).unwrap();
        let leave = std::sync::Arc::clone(&leave);
        store.commit(transaction(n), move |result| {
            match result {
                Ok(Ok(revision)) if revision == n => println!("ack {n}"),
                other => {
                    println!("wrong answer to {n}: {other:?}");
                    std::process::exit(1);
                }
            }
            leave.lock().unwrap().recv().unwrap();
        });
    }
}

/// The same transactions on sled alone, each acknowledged after its flush.
fn write_plain_sled(dir: &Path, acknowledge: impl Fn(u64)) {
    let db = sled::Config::new().path(dir).flush_every_ms(None).open().unwrap();
    for n in 1_u64.. {
        let mut batch = sled::Batch::default();
        batch.insert(b"counter", &n.to_be_bytes());
        batch.insert(&n.to_be_bytes(), value(n));
        db.apply_batch(batch).unwrap();
        db.flush().unwrap();
        acknowledge(n);
    }
}

/// The last transaction that sled alone has; `None` if it does not even open.
pub(crate) fn check_plain_sled(dir: &Path) -> Option<u64> {
    let db = std::panic::catch_unwind(|| sled::Config::new().path(dir).open()).ok()?.ok()?;
    let counter = db.get("counter").ok()?;
    Some(counter.map_or(0, |n| u64::from_be_bytes((*n).try_into().unwrap())))
}

/// A running writer, killed when dropped.
pub(crate) struct Writer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    acknowledged: u64,
}

impl Writer {
    pub(crate) fn start(kind: StoreKind, dir: &Path) -> Self {
        Self::start_as(&format!("{kind} {}", dir.display()))
    }

    /// A writer that uses sled as it is shipped.
    pub(crate) fn start_plain_sled(dir: &Path) -> Self {
        Self::start_as(&format!("{PLAIN_SLED} {}", dir.display()))
    }

    fn start_as(role: &str) -> Self {
        let program: PathBuf = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .args(["--exact", "writer::writer_process", "--nocapture"])
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, acknowledged: 0 }
    }

    fn read(&mut self) -> bool {
        let Some(line) = self.lines.next() else { return false };
        let line = line.unwrap();
        assert!(!line.contains("wrong answer"), "{line}");
        if let Some(n) = line.strip_prefix("ack ") {
            let n: u64 = n.parse().unwrap();
            assert!(self.acknowledged == 0 || n == self.acknowledged + 1, "acknowledged out of order: {n}");
            self.acknowledged = n;
        }
        true
    }

    /// Whether it has not ended by itself.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Wait until `count` transactions were acknowledged since the start.
    pub(crate) fn wait_for(&mut self, count: u64) {
        for _ in 0..count {
            let before = self.acknowledged;
            while self.acknowledged == before {
                assert!(self.read(), "the writer ended by itself");
            }
        }
    }

    /// Kill it with SIGKILL; the number of the last transaction it acknowledged, 0 for none.
    pub(crate) fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        while self.read() {}
        self.acknowledged
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Fails when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
