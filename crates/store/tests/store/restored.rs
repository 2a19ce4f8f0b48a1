//! A store folder from a backup: never a silent going back, and a new history once a person has said yes.

use std::fs;
use std::path::Path;

use spindle_store::{OpenError, Store, StoreConfig, accept_restored};

use crate::damage::{copy_tree, on_disk, remove};
use crate::support::{HISTORY, Home, commit, put};

/// A new history, as the one who restores would draw it.
pub(crate) fn renewed(home: &Home) -> StoreConfig {
    StoreConfig { history: [9; 16], ..home.config() }
}

pub(crate) fn put_back(backup: &Path, at: &Path) {
    remove(at);
    copy_tree(backup, at);
}

#[test]
fn a_restored_store_folder_opens_only_after_it_was_accepted_and_in_a_new_history() {
    on_disk(|home| {
        let backup = home.dir().parent().unwrap().join("backup");
        copy_tree(&home.file(""), &backup);
        let store = home.open();
        commit(&store, put("later", b"v"));
        store.close();
        put_back(&backup, &home.file(""));
        let refused = home.refused();
        assert!(matches!(refused, OpenError::Restored { found: 50, reached: 51, .. }), "{refused}");
        let command = format!("accept-restored -store {}:{}`", home.kind, home.dir().display());
        assert!(refused.to_string().ends_with(&command), "{refused}");

        let accepted = accept_restored(&renewed(home)).unwrap();
        assert_eq!((accepted.history.0, accepted.number), ([9; 16], 50));
        for expected in [51, 52] {
            let store = home.open();
            assert_eq!(store.history().0, [9; 16], "and not that of the configuration");
            assert_eq!(commit(&store, put(&format!("anew {expected}"), b"v")), expected);
            assert_eq!(store.load().unwrap().revision.history.0, [9; 16]);
        }
        put_back(&backup, &home.file(""));
        assert!(matches!(home.refused(), OpenError::Restored { found: 50, reached: 52, .. }));
    });
}

#[test]
fn a_backup_of_where_the_store_stands_restores_by_itself() {
    on_disk(|home| {
        let backup = home.dir().parent().unwrap().join("backup");
        copy_tree(&home.file(""), &backup);
        put_back(&backup, &home.file(""));
        let store = home.open();
        assert_eq!((store.revision().number, store.history().0), (50, HISTORY));
    });
}

#[test]
fn a_store_from_elsewhere_opens_only_after_it_was_accepted() {
    on_disk(|home| {
        let fresh = Home::new(home.kind);
        fs::create_dir_all(fresh.dir()).unwrap();
        copy_tree(&home.file(""), &fresh.file(""));
        let refused = fresh.refused();
        assert!(matches!(refused, OpenError::Unmarked { .. }), "{refused}");
        assert!(refused.to_string().contains("so that store was copied or restored"), "{refused}");
        accept_restored(&renewed(&fresh)).unwrap();
        assert_eq!(fresh.open().revision().number, 50);

        let other = Home::new(home.kind);
        Store::open(&StoreConfig { history: [3; 16], ..other.config() }).unwrap().close();
        put_back(&home.file(""), &other.file(""));
        let refused = other.refused();
        assert!(matches!(refused, OpenError::Replaced { .. }), "{refused}");
        accept_restored(&renewed(&other)).unwrap();
        assert_eq!(other.open().history().0, [9; 16]);
    });
}

#[test]
fn a_restored_store_that_is_not_whole_or_in_use_is_not_accepted() {
    on_disk(|home| {
        let mark = || fs::read(home.dir().join("mark")).unwrap();
        let before = mark();
        let store = home.open();
        assert!(matches!(accept_restored(&renewed(home)), Err(OpenError::Held { .. })));
        store.close();
        remove(&home.database());
        assert!(matches!(accept_restored(&renewed(home)), Err(OpenError::MissingDatabase { .. })));
        remove(&home.file(""));
        let refused = accept_restored(&renewed(home)).expect_err("nothing is there");
        assert!(matches!(refused, OpenError::NothingThere { .. }), "{refused}");
        assert_eq!(mark(), before, "refused attempts change nothing");
    });
}

#[test]
fn a_damaged_mark_is_named_and_a_whole_store_can_be_accepted_beside_it() {
    on_disk(|home| {
        let mark = home.dir().join("mark");
        let whole = fs::read(&mark).unwrap();
        for garbage in [&b""[..], b"garbage", &whole[..whole.len() - 3], &[0xff; 4000]] {
            fs::write(&mark, garbage).unwrap();
            let refused = home.refused();
            assert!(matches!(refused, OpenError::BadMark { .. }), "{refused}");
            assert!(refused.to_string().contains("mark is damaged: "), "{refused}");
        }
        accept_restored(&renewed(home)).unwrap();
        let store = home.open();
        assert_eq!((store.revision().number, store.history().0), (50, [9; 16]));
    });
}
