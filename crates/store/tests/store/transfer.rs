//! Copies between every two kinds, and the export format.

use std::fs;

use spindle_store::{
    CopyError, ExportError, ImportError, OpenError, Store, StoreConfig, StoreKind, Transaction, copy, export,
    import,
};

use crate::support::{ALL, Contents, Home, ON_DISK, commit, contents, key, put};

const NEW: [u8; 16] = [7; 16];

fn filled(home: &Home) -> Store {
    let store = home.open();
    for n in 0..40 {
        commit(&store, put(&format!("name {n}"), &vec![n as u8; n * 500]));
    }
    commit(&store, Transaction::new().delete(key("name 3")).put(key([b'l'; 2304]), vec![1; 1 << 20]));
    store
}

fn target(home: &Home) -> StoreConfig {
    StoreConfig { history: NEW, ..home.config() }
}

fn exported(kind: StoreKind) -> (Contents, Vec<u8>) {
    let home = Home::new(kind);
    let store = filled(&home);
    let mut file = Vec::new();
    let done = export(&store, &mut file).unwrap();
    assert_eq!((done.records, done.revision), (40, store.revision()));
    (contents(&store), file)
}

#[test]
fn a_copy_between_every_two_kinds_has_all_records_and_a_history_of_its_own() {
    for from in ALL {
        for to in ALL {
            let (source, home) = (Home::new(from), Home::new(to));
            let original = filled(&source);
            let copied = copy(&original, &target(&home)).unwrap();
            assert_eq!((copied.records, copied.revision.number), (40, 41));
            assert_eq!(copied.store.history().0, NEW);
            assert_eq!(contents(&copied.store), contents(&original), "{from} to {to}");
            assert_eq!(commit(&copied.store, put("more", b"v")), 42);
            copied.store.close();
            if to != StoreKind::Memory {
                assert_eq!(home.open().revision().number, 42);
            }
        }
    }
}

#[test]
fn a_copy_never_touches_a_store_that_is_there() {
    for kind in ON_DISK {
        let (source, home) = (Home::new(StoreKind::Memory), Home::new(kind));
        let original = filled(&source);
        commit(&home.open(), put("mine", b"v"));
        let refused = copy(&original, &target(&home)).err().expect("refused");
        assert!(matches!(refused, CopyError::Target(OpenError::Occupied { .. })), "{refused}");
        assert_eq!(home.open().revision().number, 1);
        let held = home.open();
        let refused = copy(&original, &target(&home)).err().expect("refused");
        assert!(matches!(refused, CopyError::Target(OpenError::Held { .. })), "{refused}");
        drop(held);
    }
}

#[test]
fn a_copy_under_the_same_history_is_refused() {
    let (source, home) = (Home::new(StoreKind::Memory), Home::new(StoreKind::Redb));
    let refused = copy(&filled(&source), &home.config()).err().expect("refused");
    assert!(matches!(refused, CopyError::SameHistory(_)), "{refused}");
    assert!(!home.dir().exists());
}

#[test]
fn an_export_of_any_kind_imports_into_any_kind() {
    for from in ALL {
        let (expected, file) = exported(from);
        for to in ALL {
            let home = Home::new(to);
            let imported = import(&file[..], &target(&home)).unwrap();
            assert_eq!((imported.records, imported.revision.number), (40, 41));
            assert_eq!(contents(&imported.store), expected, "{from} to {to}");
        }
    }
}

#[test]
fn exports_of_equal_stores_are_equal_bytes() {
    assert_eq!(exported(StoreKind::Sled).1, exported(StoreKind::Redb).1);
}

#[test]
fn an_export_of_an_empty_store_imports() {
    let mut file = Vec::new();
    export(&Home::new(StoreKind::Memory).open(), &mut file).unwrap();
    let home = Home::new(StoreKind::Sled);
    assert_eq!(import(&file[..], &target(&home)).unwrap().records, 0);
}

#[test]
fn an_export_cut_off_or_changed_anywhere_leaves_no_store() {
    let store = Home::new(StoreKind::Memory).open();
    (0..3).for_each(|n| {
        commit(&store, put(&format!("name {n}"), b"value"));
    });
    let mut file = Vec::new();
    export(&store, &mut file).unwrap();
    let home = Home::new(StoreKind::Redb);
    let refuse = |bytes: &[u8], what: &str| {
        let refused = import(bytes, &target(&home)).err().unwrap_or_else(|| panic!("{what} was accepted"));
        assert!(!home.file("").exists() && !home.dir().join("first-start").exists(), "{what}: {refused}");
        refused
    };
    for at in 0..file.len() {
        refuse(&file[..at], &format!("cut at {at}"));
        let mut changed = file.clone();
        changed[at] ^= 0x41;
        refuse(&changed, &format!("changed at {at}"));
    }
    let longer = [&file[..], b"x"].concat();
    assert_eq!(
        refuse(&longer, "longer").to_string(),
        "the export is damaged after 3 records: there is more after the end"
    );
    assert!(matches!(refuse(b"not this", "garbage"), ImportError::NotAnExport));
    assert!(matches!(refuse(&file[..90], "cut off"), ImportError::CutOff { records: 1 }));
    assert_eq!(
        import(&file[..], &target(&home)).unwrap().records,
        3,
        "the directory is still good for a start"
    );
}

#[test]
fn an_import_never_touches_a_store_that_is_there_and_needs_a_history_of_its_own() {
    let (_, file) = exported(StoreKind::Memory);
    let home = Home::new(StoreKind::Sled);
    let same = import(&file[..], &home.config()).err().expect("refused");
    assert!(matches!(same, ImportError::SameHistory(_)), "{same}");
    commit(&home.open(), put("mine", b"v"));
    let refused = import(&file[..], &target(&home)).err().expect("refused");
    assert!(matches!(refused, ImportError::Target(OpenError::Occupied { .. })), "{refused}");
}

#[test]
fn an_export_that_cannot_be_written_says_so() {
    let store = filled(&Home::new(StoreKind::Memory));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert!(matches!(export(&store, full), Err(ExportError::Write(_))));
}
