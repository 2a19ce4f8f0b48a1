//! A full disk, on a small tmpfs: a clear error, nothing acknowledged is lost, and writes go on with space.
//! Needs root.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use spindle_store::{Change, Store, StoreConfig, StoreError, StoreKind, StoreState, Transaction};

use crate::left_out::left_out;
use crate::support::{Contents, HISTORY, Mount, commit, contents, key, say};

fn put(n: usize) -> Transaction {
    Transaction::new().put(key(format!("record {n}")), vec![n as u8; 40_000])
}

/// Commit until the disk is full; how many were accepted.
fn fill(store: &Store) -> usize {
    for n in 0.. {
        match store.commit_wait(put(n)) {
            Ok(answer) => assert_eq!(answer, Ok(n as u64 + 1)),
            Err(StoreError::DiskFull { .. } | StoreError::InDoubt { .. }) => return n,
            Err(other) => panic!("commit {n}: {other}"),
        }
    }
    unreachable!("the disk is finite")
}

/// The records as the view of a server would have them.
fn follow(store: &Store) -> Arc<Mutex<Contents>> {
    let view = Arc::new(Mutex::new(Contents::new()));
    let seen = Arc::clone(&view);
    let apply = move |change: Arc<Change>| {
        let records = change.puts.iter().map(|r| (r.key.clone(), (r.revision, r.value.to_vec())));
        seen.lock().unwrap().extend(records);
    };
    store.on_change(0, apply).unwrap();
    view
}

fn full_disk(kind: StoreKind) {
    if let Some(why) = Mount::missing() {
        return left_out(&format!("full disk with {kind}"), &why);
    }
    let dir = tempfile::tempdir().unwrap();
    let disk =
        Mount::new(&["-t", "tmpfs", "-o", "size=24m"], Path::new("none"), &dir.path().join("disk")).unwrap();
    let ballast = disk.at.join("ballast");
    fs::write(&ballast, vec![0; 10 << 20]).unwrap();
    let config = StoreConfig { kind, dir: disk.at.join("store"), history: HISTORY };
    let store = Store::open(&config).unwrap();
    let view = follow(&store);

    let accepted = fill(&store);
    assert!(accepted > 10, "{accepted}");
    for _ in 0..3 {
        let refused = store.commit_wait(put(accepted)).unwrap_err();
        assert!(refused.to_string().starts_with("the disk with the store is full"), "{refused}");
        assert_eq!(store.state(), StoreState::DiskFull);
    }

    fs::remove_file(&ballast).unwrap();
    let revision = commit(&store, put(1000));
    assert_eq!(store.state(), StoreState::Ready);
    let now = contents(&store);
    assert_eq!(now[&key("record 1000")].0, revision);
    for n in 0..accepted {
        assert_eq!(now[&key(format!("record {n}"))], (n as u64 + 1, vec![n as u8; 40_000]));
    }
    assert!(now.len() <= accepted + 2, "only the write in doubt may be there beside the accepted ones");
    assert_eq!(*view.lock().unwrap(), now, "whoever follows the changes saw what the store holds");
    store.close();

    // A start on a full disk refuses in words or works, and harms nothing.
    fs::write(&ballast, vec![0; 32 << 20]).expect_err("fill the disk");
    match Store::open(&config) {
        Ok(store) => store.close(),
        Err(error) => say(&format!("{kind} on a full disk: {error}")),
    }
    fs::remove_file(&ballast).unwrap();
    let store = Store::open(&config).unwrap();
    assert_eq!(contents(&store), now);
    commit(&store, put(1001));
}

#[test]
fn sled_survives_a_full_disk() {
    full_disk(StoreKind::Sled);
}

#[test]
fn redb_survives_a_full_disk() {
    full_disk(StoreKind::Redb);
}
