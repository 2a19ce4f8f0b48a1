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

/// A backup without its history and what follows from it: two of one state differ in nothing else.
fn state(file: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(file).unwrap();
    [&file[..16], &file[32..40], &file[44..]].map(<[u8]>::to_vec).to_vec()
}

#[test]
fn a_backup_is_taken_while_others_write_and_brings_everything_back() {
    for (kind, other) in [("sled", "redb"), ("redb", "sled")] {
        let mut domain = Domain::new(kind);
        let mut server = domain.start_server();
        (1..=4).for_each(|n| assert!(domain.create_entry(n).ok, "entry {n}"));
        domain.server_done(&["token", "generate"]);
        let (bundle, backup) = (domain.server_done(&["bundle", "show"]), domain.text("backup"));
        let (done, written) = std::thread::scope(|scope| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            let domain = &domain;
            let (began, begun) = std::sync::mpsc::channel();
            let writer = scope.spawn(move || {
                let mut n = 100;
                // Until the other end of the channel is gone.
                while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                    assert!(domain.create_entry(n).ok, "entry {n}");
                    n += 1;
                    let _ = began.send(());
                }
                n - 100
            });
            begun.recv().unwrap();
            let done = domain.server_done(&["backup", "-to", &backup]);
            drop(stop);
            (done, writer.join().unwrap())
        });
        server.kill();
        assert!(done.starts_with("Wrote ") && done.contains("Keys are not in it"), "{done}");

        let mut restored = Domain::new(other);
        let place = format!("{other}:{}", restored.store().display());
        let said = done_server(&["restore", "-from", &backup, "-to", &place]);
        assert!(said.starts_with("Restored "), "{said}");
        let again = restored.text("again");
        done_server(&["store", "export", "-from", &place, "-to", &again]);
        assert_eq!(state(Path::new(&again)), state(Path::new(&backup)), "every record at its revision");
        fs::copy(domain.store().with_file_name("keys.json"), restored.store().with_file_name("keys.json"))
            .unwrap();
        let _server = restored.start_server();
        let entries = restored.entries();
        // The four from before, and of the writer's all up to some moment of the backup.
        let from_writer = entries.len() - 4;
        assert!((1..=usize::try_from(written).unwrap()).contains(&from_writer), "{from_writer} of {written}");
        for n in (1..=4).chain(100..100 + from_writer as u64) {
            assert!(entries.contains(&crate::domain::entry_id(n)), "entry {n} of {entries:?}");
        }
        assert_eq!(restored.server_done(&["bundle", "show"]), bundle, "with its keys the authority goes on");
        assert!(restored.create_entry(999).ok);
    }
}

fn done_server(words: &[&str]) -> String {
    done("spindle-server", words)
}

#[test]
fn a_backup_writes_over_nothing_and_leaves_nothing_half_done() {
    let mut domain = Domain::new("redb");
    let backup = domain.text("backup");
    let none = domain.server(&["backup", "-to", &backup]);
    assert!(!none.ok && none.err.contains("there is no socket"), "{}", none.err);
    let mut server = domain.start_server();
    let unnamed = domain.server(&["backup"]);
    assert!(!unnamed.ok && unnamed.err.contains("a file is required"), "{}", unnamed.err);
    domain.server_done(&["backup", "-to", &backup]);
    let first = fs::read(&backup).unwrap();
    let taken = domain.server(&["backup", "-to", &backup]);
    assert!(!taken.ok && taken.err.contains("exists"), "{}", taken.err);
    assert_eq!(fs::read(&backup).unwrap(), first);
    let config = domain.text("server.conf");
    let running = run("spindle-server", &["restore", "-from", &backup, "-config", &config]);
    let (stop, aside) = (
        running.err.find("stop that server first"),
        running.err.find("  Try: once no server uses it, move "),
    );
    assert!(!running.ok && stop.is_some() && stop < aside, "{}", running.err);
    let second = run("spindle-server", &["run", "-config", &config]);
    assert!(!second.ok && second.err.contains("stop that server first"), "{}", second.err);
    assert!(!second.err.contains("damaged"), "{}", second.err);
    let json = domain.server_done(&["backup", "-to", &domain.text("second"), "-output", "json"]);
    assert!(json.contains("\"records\":") && json.contains("\"history\":"), "{json}");
    server.kill();
    let names: Vec<_> = fs::read_dir(domain.file("backup").parent().unwrap())
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("tmp"))
        .collect();
    assert!(names.is_empty(), "{names:?}");

    let occupied = run("spindle-server", &["restore", "-from", &backup, "-config", &config]);
    let aside = format!("move {} away, or name another place with -to", domain.store().display());
    assert!(!occupied.ok && occupied.err.contains(&aside), "{}", occupied.err);
    fs::write(domain.file("half"), &first[..first.len() / 2]).unwrap();
    fs::remove_dir_all(domain.store()).unwrap();
    let half = run("spindle-server", &["restore", "-from", &domain.text("half"), "-config", &config]);
    assert!(!half.ok && half.err.contains("ends too early"), "{}", half.err);
    assert!(!domain.store().join("store").exists(), "half a backup makes no store");
    done_server(&["restore", "-from", &backup, "-config", &config]);
    let _server = domain.start_server();
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
