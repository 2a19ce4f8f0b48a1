//! Backup and restore with the commands of `store`, between runs of a real server.

use std::fs;
use std::path::Path;

use crate::domain::Domain;
use crate::process::{done, run};

fn copy_tree(from: &Path, to: &Path) {
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

fn server_with_entries(domain: &mut Domain, entries: std::ops::RangeInclusive<u64>) -> String {
    let mut server = domain.start_server();
    entries.for_each(|n| assert!(domain.create_entry(n).ok, "entry {n}"));
    let bundle = domain.server_done(&["bundle", "show"]);
    server.kill();
    bundle
}

#[test]
fn an_export_is_imported_into_the_other_kind_and_the_server_goes_on() {
    let mut domain = Domain::new("sled");
    let bundle = server_with_entries(&mut domain, 1..=3);
    let (from, backup) = (format!("sled:{}", domain.store().display()), domain.text("backup"));
    let said = done("spindle-server", &["store", "export", "-from", &from, "-to", &backup]);
    assert!(
        said.starts_with("Exported ") && said.trim().ends_with(&format!("records to {backup}.")),
        "{said}"
    );
    let again = run("spindle-server", &["store", "export", "-from", &from, "-to", &backup]);
    assert!(!again.ok && again.err.contains("must not exist yet"), "{}", again.err);

    let mut restored = Domain::new("redb");
    let to = format!("redb:{}", restored.store().display());
    let said = done("spindle-server", &["store", "import", "-from", &backup, "-to", &to]);
    assert!(said.starts_with("Imported "), "{said}");
    fs::copy(domain.store().with_file_name("keys.json"), restored.store().with_file_name("keys.json"))
        .unwrap();
    let _server = restored.start_server();
    assert_eq!(restored.entries().len(), 3);
    assert_eq!(restored.server_done(&["bundle", "show"]), bundle, "with its keys the authority goes on");
    let occupied = run("spindle-server", &["store", "import", "-from", &backup, "-to", &from]);
    assert!(!occupied.ok && occupied.err.contains("empty directory"), "{}", occupied.err);
}

#[test]
fn a_restored_folder_is_refused_with_the_command_that_accepts_it() {
    let mut domain = Domain::new("redb");
    server_with_entries(&mut domain, 1..=2);
    let (folder, backup) = (domain.store().join("store"), domain.file("backup"));
    copy_tree(&folder, &backup);
    server_with_entries(&mut domain, 3..=4);
    fs::remove_dir_all(&folder).unwrap();
    copy_tree(&backup, &folder);

    let place = format!("redb:{}", domain.store().display());
    let mut refused = domain.spawn_server();
    let command = format!("spindle-server store accept-restored -store {place}");
    assert!(refused.wait_for(|line| line.contains(&command).then_some(())).is_some(), "{}", refused.log());
    let said = done("spindle-server", &["store", "accept-restored", "-store", &place]);
    assert!(said.contains("under a new history"), "{said}");
    let _server = domain.start_server();
    assert_eq!(domain.entries().len(), 2);
    assert!(domain.create_entry(3).ok);
    let held = run("spindle-server", &["store", "accept-restored", "-store", &place]);
    assert!(!held.ok && held.err.contains("stop the server"), "{}", held.err);
}

#[test]
fn without_a_store_nothing_is_exported_or_accepted_or_made() {
    let domain = Domain::new("sled");
    let (place, backup) = (format!("sled:{}", domain.store().display()), domain.text("backup"));
    for words in [
        &["store", "export", "-from", &place, "-to", &backup][..],
        &["store", "accept-restored", "-store", &place],
        &["store", "import", "-from", &backup, "-to", &place],
    ] {
        let refused = run("spindle-server", words);
        assert!(!refused.ok && refused.err.contains("Try: "), "{words:?}: {}", refused.err);
    }
    assert!(!domain.store().exists() && !domain.file("backup").exists());
}
