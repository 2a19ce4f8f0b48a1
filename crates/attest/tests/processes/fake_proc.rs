//! Processes as a proc file system shows them that the test writes.

use super::*;

/// A proc file system made of plain files with one process in it.
struct FakeProc {
    dir: TempDir,
}

impl FakeProc {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("77")).unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("77/exe")).unwrap();
        let fake = Self { dir };
        fake.set_start("500");
        fake.set_status(4_294_900_000, "4294900001 4294900002");
        fake
    }

    fn set_start(&self, ticks: &str) {
        let stat = format!("77 (a b) S 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0 0 0 0 7\n");
        fs::write(self.dir.path().join("77/stat"), stat).unwrap();
    }

    fn set_status(&self, id: u32, groups: &str) {
        let status = format!("Name:\tx\nUid:\t1\t{id}\t1\t1\nGid:\t1\t{id}\t1\t1\nGroups:\t{groups}\n");
        fs::write(self.dir.path().join("77/status"), status).unwrap();
    }

    fn open(&self) -> Result<Arc<Caller>, CallerError> {
        let peer = SocketPeer { pid: 77, uid: 4_294_900_000, gid: 4_294_900_000, pidfd: None };
        Caller::open(&ProcRoot::new(self.dir.path()), &peer).map(Arc::new)
    }
}

#[test]
fn a_reused_process_number_is_seen_by_its_start_time() {
    let fake = FakeProc::new();
    let caller = fake.open().unwrap();
    fake.set_start("501");
    has_changed(&caller.recheck().unwrap_err(), Change::StartTime);
    fake.set_start("500");
    caller.recheck().unwrap();
}

#[test]
fn other_supplementary_groups_are_a_change() {
    let fake = FakeProc::new();
    let caller = fake.open().unwrap();
    fake.set_status(4_294_900_000, "4294900001");
    has_changed(&caller.recheck().unwrap_err(), Change::Groups);
}

#[test]
fn another_user_than_the_socket_told_is_another_process() {
    let fake = FakeProc::new();
    fake.set_status(1000, "");
    has_changed(&fake.open().unwrap_err(), Change::Uid);
}

#[test]
fn ids_without_names_have_no_name_selectors() {
    let now = shown(unix(false, 0), FakeProc::new().open().unwrap());
    let expected = [
        "unix:gid:4294900000",
        "unix:supplementary_gid:4294900001",
        "unix:supplementary_gid:4294900002",
        "unix:uid:4294900000",
    ];
    assert_eq!(now, expected);
}

#[test]
fn more_groups_than_a_workload_may_show_are_refused() {
    let fake = FakeProc::new();
    let groups: Vec<String> = (4_294_000_000_u32..4_294_002_000).map(|gid| gid.to_string()).collect();
    fake.set_status(4_294_900_000, &groups.join(" "));
    let error = attest_all(&[unix(false, 0)], fake.open().unwrap()).unwrap_err();
    assert!(matches!(error, AttestError::Selectors { .. }), "{error:?}");
    assert_eq!(error.reason(), Reason::AttestationFailed);
}

#[test]
fn a_damaged_proc_file_is_an_error_that_names_it() {
    let fake = FakeProc::new();
    fs::write(fake.dir.path().join("77/status"), "Uid:\tx\n").unwrap();
    let error = fake.open().unwrap_err();
    assert_eq!(error.to_string(), "cannot read status of process 77");
    assert_eq!(error.reason(), Reason::AttestationFailed);
}

#[test]
fn a_process_that_is_not_visible_says_where_it_was_looked_for() {
    let peer = SocketPeer { pid: 0, uid: 0, gid: 0, pidfd: None };
    let error = open(&peer).unwrap_err();
    assert!(matches!(error, CallerError::NotVisible { .. }));
    assert!(error.to_string().starts_with("the calling process is not visible in /proc"), "{error}");
}

#[test]
fn a_number_that_nobody_has_is_gone() {
    let fake = FakeProc::new();
    let peer = SocketPeer { pid: 78, uid: 0, gid: 0, pidfd: None };
    is_gone(&Caller::open(&ProcRoot::new(fake.dir.path()), &peer).unwrap_err());
}
