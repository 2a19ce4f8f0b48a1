//! Opening: what is refused and with which words, and that a first start may stop anywhere.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use spindle_store::{OpenError, Store, StoreConfig, StoreKind, accept_restored};

use crate::restored::{put_back, renewed};
use crate::support::{HISTORY, Home, ON_DISK, Rng, commit, contents, put};

/// A closed store with a few records.
fn filled(kind: StoreKind) -> Home {
    let home = Home::new(kind);
    let store = home.open();
    (0..50).for_each(|n| {
        commit(&store, put(&format!("name {n}"), &[n; 100]));
    });
    store.close();
    home
}

pub(crate) fn on_disk(check: impl Fn(&Home)) {
    ON_DISK.into_iter().for_each(|kind| check(&filled(kind)));
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy_tree(&entry.path(), &to.join(entry.file_name()));
    }
}

pub(crate) fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

#[test]
fn a_store_opened_again_keeps_records_revision_and_history() {
    on_disk(|home| {
        let other = StoreConfig { history: [9; 16], ..home.config() };
        let store = Store::open(&other).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!((loaded.records.len(), loaded.revision.number), (50, 50));
        assert_eq!(loaded.revision.history.0, HISTORY, "the id of a first start is not used again");
        assert_eq!(commit(&store, put("more", b"v")), 51);
    });
}

#[test]
fn a_second_server_is_refused_and_told_who_holds_the_directory() {
    on_disk(|home| {
        let store = home.open();
        let refused = home.refused().to_string();
        let holder = format!("is in use by process {}: stop that server first", std::process::id());
        assert!(refused.ends_with(&holder), "{refused}");
        commit(&store, put("still", b"works"));
        drop(store);
        assert_eq!(home.open().load().unwrap().records.len(), 51);
    });
}

#[test]
fn a_watch_does_not_hold_the_directory() {
    let home = filled(StoreKind::Sled);
    let watch = home.open().watch(50).unwrap();
    assert_eq!(home.open().revision().number, 50);
    assert_eq!(watch.count(), 0);
}

#[test]
fn a_new_directory_is_readable_by_its_owner_only() {
    on_disk(|home| {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&home.dir()), mode(&home.file(""))), (0o700, 0o700));
        assert_eq!(mode(&home.file("store-identity")), 0o600);
    });
}

#[test]
fn an_identity_without_a_database_is_refused() {
    on_disk(|home| {
        remove(&home.database());
        let refused = home.refused();
        assert!(matches!(refused, OpenError::MissingDatabase { .. }), "{refused}");
        assert!(refused.to_string().ends_with("is missing or empty: restore the database from a backup"));
        home.refused();
    });
}

#[test]
fn a_database_without_an_identity_is_refused() {
    on_disk(|home| {
        remove(&home.file("store-identity"));
        let refused = home.refused();
        assert!(matches!(refused, OpenError::MissingIdentity { .. }), "{refused}");
        assert!(refused.to_string().ends_with("although a database is beside it: restore it from a backup"));
    });
}

#[test]
fn an_empty_store_where_there_was_one_is_refused() {
    on_disk(|home| {
        remove(&home.file(""));
        let refused = home.refused();
        let history = "6120686973746f7279206f6620313662";
        assert!(refused.to_string().starts_with(&format!("the store {history} that was in ")), "{refused}");
        fs::remove_file(home.dir().join("mark")).unwrap();
        assert_eq!(home.open().revision().number, 0, "a wholly empty directory is a first start");
    });
}

#[test]
fn an_empty_database_directory_or_file_is_refused() {
    on_disk(|home| {
        remove(&home.database());
        match home.kind {
            StoreKind::Sled => fs::create_dir(home.database()).unwrap(),
            _ => fs::write(home.database(), b"").unwrap(),
        }
        let refused = home.refused();
        assert!(matches!(refused, OpenError::Damaged { .. } | OpenError::Backend { .. }), "{refused}");
        assert!(refused.to_string().contains(&home.database().display().to_string()));
    });
}

#[test]
fn a_fresh_database_under_an_old_identity_is_refused() {
    on_disk(|home| {
        let other = Home::new(home.kind);
        Store::open(&StoreConfig { history: [9; 16], ..other.config() }).unwrap().close();
        remove(&home.database());
        copy_tree(&other.database(), &home.database());
        let refused = home.refused();
        assert!(matches!(refused, OpenError::IdentityMismatch { .. }), "{refused}");
    });
}

#[test]
fn an_older_copy_of_the_database_is_refused() {
    on_disk(|home| {
        let older = home.dir().parent().unwrap().join("older");
        copy_tree(&home.database(), &older);
        let store = home.open();
        commit(&store, put("later", b"v"));
        store.close();
        put_back(&older, &home.database());
        for refused in [home.refused(), accept_restored(&renewed(home)).expect_err("not one backup")] {
            assert!(matches!(refused, OpenError::WentBack { found: 50, reached: 51, .. }), "{refused}");
        }
    });
}

#[test]
fn a_first_start_interrupted_between_mark_and_rename_begins_again() {
    on_disk(|home| {
        let made = home.dir().join("first-start");
        fs::rename(home.file(""), &made).unwrap();
        assert_eq!(home.open().revision().number, 0, "the mark speaks of what was never published");
        home.open();

        // The same, interrupted once more while the remains are removed.
        let other = filled(home.kind);
        fs::rename(other.file(""), other.dir().join("first-start")).unwrap();
        remove(&other.dir().join("mark"));
        remove(&other.dir().join("first-start").join("store-identity"));
        assert_eq!(other.open().revision().number, 0);
    });
}

#[test]
fn damaged_small_files_are_named() {
    on_disk(|home| {
        for name in ["store-identity", "reached"] {
            let whole = fs::read(home.file(name)).unwrap();
            for garbage in [&b""[..], b"garbage", &whole[..whole.len() - 3], &[0xff; 4000]] {
                fs::write(home.file(name), garbage).unwrap();
                let refused = home.refused();
                assert!(matches!(refused, OpenError::BadFile { .. }), "{refused}");
                assert!(refused.to_string().contains(name), "{refused}");
            }
            fs::write(home.file(name), whole).unwrap();
        }
        home.open();
    });
}

#[test]
fn a_store_of_another_kind_is_refused() {
    for (kind, asked) in [(StoreKind::Sled, StoreKind::Redb), (StoreKind::Redb, StoreKind::Sled)] {
        let home = filled(kind);
        let refused = Store::open(&StoreConfig { kind: asked, ..home.config() }).err().expect("refused");
        let said = refused.to_string();
        assert!(said.contains(&format!("holds a {kind} store, not a {asked} store")), "{said}");
    }
}

#[test]
fn a_directory_with_other_things_in_it_is_no_first_start() {
    for kind in ON_DISK {
        let home = Home::new(kind);
        fs::create_dir_all(home.dir()).unwrap();
        fs::write(home.dir().join("keys.json"), b"{}").unwrap();
        assert!(home.refused().to_string().contains("`keys.json` is in it"));
        fs::remove_file(home.dir().join("keys.json")).unwrap();
        fs::create_dir(home.dir().join("lost+found")).unwrap();
        home.open();
    }
}

#[test]
fn a_path_that_cannot_be_a_directory_is_named() {
    let home = Home::new(StoreKind::Sled);
    fs::write(home.dir().parent().unwrap(), b"a file").unwrap();
    let refused = home.refused();
    assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
    assert!(refused.source().is_some() && refused.to_string().contains("data"), "{refused}");
}

/// Damage the database files in many places; each time the store opens with every record, or is refused with
/// the database named. Never does it open with less.
fn survives_or_names(home: &Home, damage: impl Fn(&Path, &mut Rng)) {
    let whole = home.dir().parent().unwrap().join("whole");
    copy_tree(&home.file(""), &whole);
    let store = home.open();
    let expected = contents(&store);
    store.close();
    let file = match home.kind {
        StoreKind::Sled => home.database().join("db"),
        _ => home.database(),
    };
    let mut rng = Rng(7);
    let mut refused = 0;
    for round in 0..25 {
        remove(&home.file(""));
        copy_tree(&whole, &home.file(""));
        damage(&file, &mut rng);
        match home.try_open() {
            Ok(store) => assert_eq!(contents(&store), expected, "round {round}"),
            Err(error) => {
                refused += 1;
                let named = error.to_string().contains(&home.database().display().to_string());
                assert!(named, "round {round}: {error}");
            }
        }
    }
    assert!(refused > 0, "no round hit anything that counts");
}

#[test]
fn a_truncated_database_is_refused_or_whole() {
    on_disk(|home| {
        survives_or_names(home, |file, rng| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..rng.below(bytes.len() as u64) as usize]).unwrap();
        });
    });
}

#[test]
fn garbage_in_a_database_is_refused_or_without_effect() {
    on_disk(|home| {
        survives_or_names(home, |file, rng| {
            let mut bytes = fs::read(file).unwrap();
            // Where the data is: sled fills its file from the start, redb is smaller than this bound.
            let used = (bytes.len() as u64).min(64 * 1024);
            for _ in 0..20 {
                let at = rng.below(used) as usize;
                let end = bytes.len().min(at + 16);
                bytes[at..end].fill(rng.below(256) as u8);
            }
            fs::write(file, bytes).unwrap();
        });
    });
}

#[test]
fn a_snapshot_that_sled_did_not_finish_does_not_matter() {
    let home = filled(StoreKind::Sled);
    for garbage in [&b""[..], b"half a snapshot"] {
        fs::write(home.database().join("snap.FFFFFFFFFFFFFFFF.generating"), garbage).unwrap();
        assert_eq!(home.open().load().unwrap().records.len(), 50);
    }
}

#[test]
fn a_first_start_that_stopped_half_way_begins_again() {
    for kind in ON_DISK {
        let whole = filled(kind);
        let names = ["sled", "store.redb", "reached", "store-identity"];
        // Everything up to the rename lies in `first-start`: any part of it, whole or cut off.
        for made in 0..=names.len() {
            let home = Home::new(kind);
            let staging = home.dir().join("first-start");
            fs::create_dir_all(&staging).unwrap();
            for name in &names[..made] {
                if whole.file(name).exists() {
                    copy_tree(&whole.file(name), &staging.join(name));
                }
            }
            fs::write(staging.join("half a file"), b"").unwrap();
            assert_eq!(home.open().revision().number, 0);
            assert!(!staging.exists());
        }
    }
}

#[test]
fn a_first_start_that_cannot_write_leaves_nothing_that_counts() {
    for kind in ON_DISK {
        let home = Home::new(kind);
        fs::create_dir_all(home.dir()).unwrap();
        // In the way of the staging folder, and not removable as a folder.
        fs::write(home.dir().join("first-start"), b"a file").unwrap();
        assert!(matches!(home.refused(), OpenError::Io { .. }));
        fs::remove_file(home.dir().join("first-start")).unwrap();
        assert_eq!(home.open().revision().number, 0);
    }
}
