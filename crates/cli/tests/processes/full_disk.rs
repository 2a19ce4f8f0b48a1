//! A server whose disk is full: a status with a reason, nothing half done, and the next call works once there is space.
//! Needs root, for a small tmpfs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use spindle_testkit::left_out;

use crate::domain::{Domain, entry_id};

/// A small file system, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(at).status();
        assert!(mounted.unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a killed server may just be letting go of it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn full_disk(kind: &'static str) {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return left_out(&format!("a server with {kind} on a full disk"), "mounting needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&dir.path().join("disk"));
    let ballast = disk.0.join("ballast");
    let mut domain = Domain::with_data(kind, disk.0.join("server"));
    let mut server = domain.start_server();
    let mut created: Vec<u64> = (1..=3).filter(|n| domain.create_entry(*n).ok).collect();
    assert_eq!(created, [1, 2, 3]);

    fs::write(&ballast, vec![0; 32 << 20]).expect_err("the disk is smaller");
    let refused = (4..).map(|n| (n, domain.create_entry(n))).find(|(n, ended)| {
        if ended.ok {
            created.push(*n); // it still fitted into what the database had
        }
        !ended.ok
    });
    let (next, refused) = refused.expect("the disk is full");
    for part in ["the change could not be stored", "Try: look at the server's log: disk full"] {
        assert!(refused.err.contains(part), "{}", refused.err);
    }
    server
        .wait_for(|line| line.contains("reason=store_failed").then_some(()))
        .expect("the decision is logged");
    assert!(!server.has_ended(), "the server goes on: {}", server.log());
    let read: Vec<_> = created.iter().map(|n| entry_id(*n)).collect();
    let sorted = |mut ids: Vec<String>| {
        ids.sort_unstable_by_key(|id| (id.len(), id.clone()));
        ids
    };
    assert_eq!(sorted(domain.entries()), read, "what was accepted is served, and nothing else");

    fs::remove_file(&ballast).unwrap();
    let again = domain.create_entry(next);
    // The refused write may have been in doubt, and told so; if it did happen, this is a repetition.
    let in_doubt =
        refused.err.contains("may or may not have happened") && again.err.contains("AlreadyExists");
    assert!(again.ok || in_doubt, "the next correct call: {}", again.err);
    let all = [read, vec![entry_id(next)]].concat();
    assert_eq!(sorted(domain.entries()), all);
    server.kill();
    let _server = domain.start_server();
    assert_eq!(sorted(domain.entries()), all, "also after a restart");
}

#[test]
fn a_server_on_sled_survives_a_full_disk() {
    full_disk("sled");
}

#[test]
fn a_server_on_redb_survives_a_full_disk() {
    full_disk("redb");
}
