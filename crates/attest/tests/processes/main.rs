//! Callers and attestors on real child processes. A child is this very test program, started again to run `child_body`:
//! it connects to a socket of the test and does what single bytes tell it to.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../../../testkit/src/left_out.rs"]
pub mod left_out;

mod fake_proc;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::getsockopt_impl;
use nix::sockopt_impl;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use spindle_attest::{
    AttestError, AttestorError, Caller, CallerError, Change, PidfdSource, ProcRoot, SocketPeer, UnixAttestor,
    UnixConfig, WorkloadAttestor, attest_all,
};
use spindle_spiffe_core::{Reason, Selector};
use tempfile::TempDir;

const SOCKET_VAR: &str = "SPINDLE_ATTEST_TEST_SOCKET";

sockopt_impl!(
    /// A handle on the peer.
    PeerPidfd,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_PEERPIDFD,
    OwnedFd
);

/// What the child does; a test without work when it runs as part of the suite.
#[test]
fn child_body() {
    let Some(path) = std::env::var_os(SOCKET_VAR) else { return };
    let mut socket = UnixStream::connect(path).unwrap();
    let mut command = [0];
    while socket.read(&mut command).unwrap() == 1 {
        match command[0] {
            b'u' => setresuid(4321.into(), 4321.into(), 4321.into()).unwrap(),
            b'e' => setresuid(Uid::from_raw(u32::MAX), 4322.into(), Uid::from_raw(u32::MAX)).unwrap(),
            b'g' => setresgid(4323.into(), 4323.into(), 4323.into()).unwrap(),
            b's' => setgroups(&[Gid::from_raw(4324), Gid::from_raw(4325)]).unwrap(),
            // `cat` answers with what the test writes to its input.
            b'x' => panic!("{}", Command::new("cat").exec()),
            other => panic!("{other}"),
        }
        socket.write_all(b"k").unwrap();
    }
}

/// A running child and the test's end of its connection.
struct Running {
    child: Child,
    socket: UnixStream,
    _dir: TempDir,
}

impl Running {
    fn start() -> Self {
        Self::start_program(&std::env::current_exe().unwrap())
    }

    fn start_program(program: &Path) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let child = Command::new(program)
            .args(["child_body", "--exact", "--nocapture", "--quiet"])
            .env(SOCKET_VAR, &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (socket, _) = listener.accept().unwrap();
        Self { child, socket, _dir: dir }
    }

    fn peer(&self) -> SocketPeer {
        let credentials = getsockopt(&self.socket, sockopt::PeerCredentials).unwrap();
        assert_eq!(credentials.pid() as u32, self.child.id());
        let socket = self.socket.try_clone().unwrap();
        let open = move || Ok(getsockopt(&socket, PeerPidfd)?);
        let pidfd = open().is_ok().then(|| PidfdSource::new(open));
        SocketPeer { pid: credentials.pid(), uid: credentials.uid(), gid: credentials.gid(), pidfd }
    }

    fn peer_without_pidfd(&self) -> SocketPeer {
        SocketPeer { pidfd: None, ..self.peer() }
    }

    /// As the kernel of this machine gives it, and as an older one would.
    fn peers(&self) -> [SocketPeer; 2] {
        [self.peer(), self.peer_without_pidfd()]
    }

    fn caller(&self) -> Arc<Caller> {
        open(&self.peer()).unwrap()
    }

    fn tell(&mut self, command: u8) {
        self.socket.write_all(&[command]).unwrap();
        let mut answer = [0];
        self.socket.read_exact(&mut answer).unwrap();
    }

    fn exec_cat(&mut self) {
        self.socket.write_all(b"x").unwrap();
        self.child.stdin.as_mut().unwrap().write_all(b"\x00").unwrap();
        let output = self.child.stdout.as_mut().unwrap();
        let mut byte = [1];
        // The test runner may have printed before.
        while byte != [0] {
            output.read_exact(&mut byte).unwrap();
        }
    }

    /// Ends the child but leaves it to be reaped.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        // The socket closes when the process ends.
        assert_eq!(self.socket.read(&mut [0]).unwrap_or(0), 0);
        let stat = format!("/proc/{}/stat", self.child.id());
        while !fs::read_to_string(&stat).unwrap().contains(") Z ") {}
    }

    fn kill_and_reap(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_and_reap();
    }
}

fn open(peer: &SocketPeer) -> Result<Arc<Caller>, CallerError> {
    Caller::open(&ProcRoot::default(), peer).map(Arc::new)
}

/// Whether the program of these tests, which is also the child's, lies where nothing is waited for.
fn is_on_a_local_disk() -> bool {
    use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, statfs};
    let found = statfs(&std::env::current_exe().unwrap()).unwrap().filesystem_type();
    [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC].contains(&found)
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        left_out::left_out("callers that change their user or groups", "that needs root");
    }
    is_root
}

fn unix(discover_workload_path: bool, workload_size_limit: i64) -> Box<dyn WorkloadAttestor> {
    Box::new(UnixAttestor::new(UnixConfig { discover_workload_path, workload_size_limit }))
}

fn shown(attestor: Box<dyn WorkloadAttestor>, caller: Arc<Caller>) -> Vec<String> {
    let attested = attest_all(&[attestor], caller).unwrap();
    attested.selectors().iter().map(ToString::to_string).collect()
}

/// The values of one kind of selector.
fn values(shown: &[String], key: &str) -> Vec<String> {
    shown.iter().filter_map(|one| one.strip_prefix(&format!("unix:{key}:"))).map(ToOwned::to_owned).collect()
}

#[track_caller]
fn is_gone(error: &CallerError) {
    assert!(matches!(error, CallerError::Gone { .. }), "{error:?}");
    assert_eq!(error.reason(), Reason::CallerGone);
}

#[track_caller]
fn has_changed(error: &CallerError, expected: Change) {
    assert!(matches!(error, CallerError::Changed { what, .. } if *what == expected), "{error:?}");
    assert_eq!(error.reason(), Reason::CallerChanged);
}

#[test]
fn a_caller_that_lives_on_unchanged_passes_every_recheck() {
    let running = Running::start();
    for peer in running.peers() {
        let is_pinned = peer.pidfd.is_some();
        let caller = open(&peer).unwrap();
        for _ in 0..3 {
            caller.recheck().unwrap();
        }
        if is_pinned && is_on_a_local_disk() {
            assert!(caller.is_plainly_same());
        }
        assert!(is_pinned || !caller.is_plainly_same(), "without a pidfd nothing is plain");
        assert_eq!(caller.pid() as u32, running.child.id());
        assert_eq!(caller.is_pinned(), is_pinned);
        let exe = fs::metadata(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(caller.exe().map(|id| (id.dev, id.ino)), Some((exe.dev(), exe.ino())));
    }
}

#[test]
fn a_caller_that_ended_is_gone_reaped_or_not() {
    let mut running = Running::start();
    let callers = running.peers().map(|peer| open(&peer).unwrap());
    let peers = running.peers();
    running.kill();
    assert!(!callers.iter().any(|caller| caller.is_plainly_same()));
    callers.iter().for_each(|caller| is_gone(&caller.recheck().unwrap_err()));
    peers.into_iter().for_each(|peer| is_gone(&open(&peer).unwrap_err()));
    let peers = running.peers();
    running.kill_and_reap();
    callers.iter().for_each(|caller| is_gone(&caller.recheck().unwrap_err()));
    peers.into_iter().for_each(|peer| is_gone(&open(&peer).unwrap_err()));
}

#[test]
fn a_caller_that_runs_another_program_has_changed() {
    let mut running = Running::start();
    let callers = running.peers().map(|peer| open(&peer).unwrap());
    running.exec_cat();
    assert!(!callers.iter().any(|caller| caller.is_plainly_same()));
    callers.iter().for_each(|caller| has_changed(&caller.recheck().unwrap_err(), Change::Executable));
    // Attested anew it is taken for what it is now.
    let exe = fs::read_link(format!("/proc/{}/exe", running.child.id())).unwrap();
    let anew = shown(unix(true, -1), running.caller());
    assert_eq!(values(&anew, "path"), [exe.to_str().unwrap()]);
    assert_ne!(exe, std::env::current_exe().unwrap());
}

/// Looks at so many other processes that those looked at before are no longer held.
fn look_at_others(root: &ProcRoot, running: &Running) {
    for _ in 0..100 {
        Caller::open(root, &running.peer()).unwrap().recheck().unwrap();
    }
}

#[test]
fn a_caller_that_is_no_longer_held_is_found_again_as_it_was_changed_or_gone() {
    let (other, root) = (Running::start(), ProcRoot::default());
    let mut running = Running::start();
    if running.peer().pidfd.is_none() {
        left_out::left_out("callers that are not held", "below Linux 6.5 they always are");
        return;
    }
    let caller = Caller::open(&root, &running.peer()).unwrap();
    look_at_others(&root, &other);
    caller.recheck().unwrap();
    look_at_others(&root, &other);
    assert!(caller.is_plainly_same() || !is_on_a_local_disk());
    look_at_others(&root, &other);
    running.exec_cat();
    has_changed(&caller.recheck().unwrap_err(), Change::Executable);
    look_at_others(&root, &other);
    running.kill();
    is_gone(&caller.recheck().unwrap_err());
    look_at_others(&root, &other);
    running.kill_and_reap();
    is_gone(&caller.recheck().unwrap_err());
    look_at_others(&root, &other);
    assert!(!caller.is_plainly_same() && caller.path_for_log().is_none());
}

#[test]
fn a_caller_whose_connection_has_gone_is_gone() {
    let (other, root) = (Running::start(), ProcRoot::default());
    let open = || Err(std::io::ErrorKind::NotConnected.into());
    let peer = SocketPeer { pidfd: Some(PidfdSource::new(open)), ..other.peer() };
    is_gone(&Caller::open(&root, &peer).unwrap_err());
}

#[test]
fn a_caller_that_gave_up_its_rights_has_changed_and_shows_the_effective_ids() {
    if !is_root() {
        return;
    }
    for (command, change, key, id) in [
        (b'e', Change::Uid, "uid", "4322"),
        (b'u', Change::Uid, "uid", "4321"),
        (b'g', Change::Gid, "gid", "4323"),
    ] {
        let mut running = Running::start();
        let before = running.caller();
        running.tell(command);
        assert!(!before.is_plainly_same());
        has_changed(&before.recheck().unwrap_err(), change);
        let now = shown(unix(false, 0), running.caller());
        assert_eq!(values(&now, key), [id]);
        // Without a pidfd other ids than at connect can only mean another process.
        has_changed(&open(&running.peer_without_pidfd()).unwrap_err(), change);
    }
}

#[test]
fn supplementary_groups_are_shown_with_and_without_names() {
    if !is_root() {
        return;
    }
    let mut running = Running::start();
    running.tell(b's');
    let now = shown(unix(false, 0), running.caller());
    assert_eq!(values(&now, "supplementary_gid"), ["4324", "4325"]);
    assert!(values(&now, "supplementary_group").is_empty());
}

#[test]
fn the_selectors_of_this_user_are_those_that_id_prints() {
    let running = Running::start();
    let now = shown(unix(false, 0), running.caller());
    let id = |flag: &str| {
        let output = Command::new("id").arg(flag).output().unwrap().stdout;
        String::from_utf8(output).unwrap().trim().to_owned()
    };
    assert_eq!(values(&now, "uid"), [id("-u")]);
    assert_eq!(values(&now, "gid"), [id("-g")]);
    assert_eq!(values(&now, "user"), [id("-un")]);
    assert_eq!(values(&now, "group"), [id("-gn")]);
    assert!(values(&now, "path").is_empty() && values(&now, "sha256").is_empty());
}

/// A copy of this program, so that it can be deleted or grown.
fn copied_program(dir: &TempDir) -> PathBuf {
    let copy = dir.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    copy
}

fn sha256sum(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap().stdout;
    String::from_utf8(output).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn path_and_digest_are_those_of_the_program_that_runs() {
    let running = Running::start();
    let exe = std::env::current_exe().unwrap();
    let bytes = i64::try_from(fs::metadata(&exe).unwrap().len()).unwrap();
    for limit in [0, bytes, i64::MAX] {
        let now = shown(unix(true, limit), running.caller());
        assert_eq!(values(&now, "path"), [exe.to_str().unwrap()]);
        assert_eq!(values(&now, "sha256"), [sha256sum(&exe)], "limit {limit}");
    }
    let now = shown(unix(true, -1), running.caller());
    assert_eq!(values(&now, "path").len(), 1);
    assert!(values(&now, "sha256").is_empty());
}

#[test]
fn a_deleted_program_shows_that_it_is_deleted_and_its_old_digest() {
    let dir = TempDir::new().unwrap();
    let program = copied_program(&dir);
    let digest = sha256sum(&program);
    let running = Running::start_program(&program);
    fs::remove_file(&program).unwrap();
    fs::write(&program, "something else").unwrap();
    let now = shown(unix(true, 0), running.caller());
    assert_eq!(values(&now, "path"), [format!("{} (deleted)", program.display())]);
    assert_eq!(values(&now, "sha256"), [digest]);
}

#[test]
fn a_program_over_the_limit_fails_the_attestor_and_names_both_sizes() {
    let running = Running::start();
    let bytes = fs::metadata(std::env::current_exe().unwrap()).unwrap().len();
    let error = attest_all(&[unix(true, 1000)], running.caller()).unwrap_err();
    assert_eq!(error.reason(), Reason::AttestationFailed);
    let AttestError::AllFailed { failures, .. } = error else { panic!("{error}") };
    assert!(matches!(failures[0].error, AttestorError::TooLarge { bytes: b, limit: 1000, .. } if b == bytes));
}

#[test]
fn one_failing_attestor_loses_only_its_own_selectors() {
    let running = Running::start();
    let attested = attest_all(&[unix(true, 1000), unix(false, 0)], running.caller()).unwrap();
    assert_eq!(attested.failures().len(), 1);
    assert_eq!(attested.failures()[0].attestor, "unix");
    assert!(attested.selectors().iter().any(|one| one.as_str().starts_with("unix:uid:")));
    attested.recheck().unwrap();
}

#[test]
fn without_attestors_nothing_is_attested() {
    let running = Running::start();
    let error = attest_all(&[], running.caller()).unwrap_err();
    assert_eq!(error.reason(), Reason::AttestationFailed);
}

/// Does something to the child in the middle of an attestation.
struct Meddling<F>(Mutex<F>);

impl<F: FnMut() + Send> WorkloadAttestor for Meddling<F> {
    fn name(&self) -> &str {
        "meddling"
    }

    fn attest(&self, _: &Caller) -> Result<Vec<Selector>, AttestorError> {
        (self.0.lock().unwrap())();
        Ok(vec!["meddling:done:yes".parse().unwrap()])
    }
}

fn meddling(work: impl FnMut() + Send + 'static) -> Box<dyn WorkloadAttestor> {
    Box::new(Meddling(Mutex::new(work)))
}

#[test]
fn a_caller_that_ends_during_attestation_is_gone() {
    for pick in 0..2 {
        let mut running = Running::start();
        let caller = open(&running.peers()[pick]).unwrap();
        let error =
            attest_all(&[meddling(move || running.kill_and_reap()), unix(true, 0)], caller).unwrap_err();
        assert_eq!(error.reason(), Reason::CallerGone, "{error:?}");
    }
}

#[test]
fn a_caller_that_runs_another_program_during_attestation_is_not_attested() {
    let mut running = Running::start();
    let caller = running.caller();
    let error = attest_all(&[unix(true, 0), meddling(move || running.exec_cat())], caller).unwrap_err();
    // The child lives until the attestor is dropped.
    assert_eq!(error.reason(), Reason::CallerChanged, "{error:?}");
}
