//! Processes that somebody names by their number, on real children.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use spindle_attest::{Caller, CallerError, Change, ProcRoot, UnixAttestor, UnixConfig, attest_all};
use spindle_spiffe_core::Reason;

/// A shell that becomes `cat` when it is given a line, and then echoes.
struct Running {
    child: Child,
    stdin: ChildStdin,
}

impl Running {
    fn start() -> Self {
        let mut child = Command::new("sh")
            .args(["-c", "echo up; read line; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut running = Self { child, stdin };
        running.expect("up\n");
        running
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn expect(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        self.child.stdout.as_mut().unwrap().read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, text.as_bytes());
    }

    fn exec_cat(&mut self) {
        let exe = format!("/proc/{}/exe", self.pid());
        let shell = std::fs::read_link(&exe).unwrap();
        self.stdin.write_all(b"go\n").unwrap();
        // The shell may read ahead, so the line that comes back is written once `cat` runs.
        while std::fs::read_link(&exe).unwrap() == shell {}
        self.stdin.write_all(b"cat\n").unwrap();
        self.expect("cat\n");
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

fn of_pid(pid: i32) -> Result<Caller, CallerError> {
    Caller::of_pid(&ProcRoot::default(), pid)
}

#[track_caller]
fn is_gone(error: &CallerError) {
    assert!(matches!(error, CallerError::Gone { .. }), "{error:?}");
    assert_eq!(error.reason(), Reason::CallerGone);
}

#[test]
fn a_process_is_held_by_its_number_and_shows_its_selectors() {
    let running = Running::start();
    let caller = Arc::new(of_pid(running.pid()).unwrap());
    assert!(caller.is_pinned() && caller.pidfd().is_some());
    assert_eq!(caller.pid(), running.pid());
    caller.recheck().unwrap();
    let unix = UnixAttestor::new(UnixConfig { discover_workload_path: true, workload_size_limit: -1 });
    let attested = attest_all(&[Box::new(unix)], caller).unwrap();
    let exe = std::fs::read_link(format!("/proc/{}/exe", running.pid())).unwrap();
    let path = format!("unix:path:{}", exe.display()).parse().unwrap();
    assert!(attested.selectors().contains(&path), "{:?}", attested.selectors());
}

#[test]
fn a_process_that_runs_another_program_has_changed_and_is_the_same_process_anew() {
    let mut running = Running::start();
    let before = of_pid(running.pid()).unwrap();
    running.exec_cat();
    let error = before.recheck().unwrap_err();
    assert!(matches!(error, CallerError::Changed { what: Change::Executable, .. }), "{error:?}");
    let anew = before.anew().unwrap();
    anew.recheck().unwrap();
    assert_eq!((anew.pid(), anew.is_pinned()), (running.pid(), true));
}

#[test]
fn a_process_that_ended_is_gone_and_its_handle_turns_readable() {
    let mut running = Running::start();
    let caller = of_pid(running.pid()).unwrap();
    assert!(caller.is_running());
    let pid = running.pid();
    running.child.kill().unwrap();
    let pidfd = caller.pidfd().unwrap();
    let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&pidfd), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::NONE), Ok(1));
    // Not reaped yet: its number is still there.
    assert!(!caller.is_running());
    is_gone(&caller.recheck().unwrap_err());
    is_gone(&caller.anew().unwrap_err());
    is_gone(&of_pid(pid).unwrap_err());
    running.kill_and_reap();
    is_gone(&of_pid(pid).unwrap_err());
}

#[test]
fn what_is_no_number_of_a_process_is_told() {
    for pid in [0, -1, i32::MIN] {
        let error = of_pid(pid).unwrap_err();
        assert_eq!(error.to_string(), format!("{pid} is not the number of a process"));
    }
    is_gone(&of_pid(i32::MAX).unwrap_err());
}

#[test]
fn a_thread_is_no_process() {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw()).unwrap();
        let _ = ended.recv();
    });
    let tid = told.recv().unwrap();
    assert!(matches!(of_pid(tid).unwrap_err(), CallerError::NotAProcess { pid } if pid == tid));
    drop(end);
    thread.join().unwrap();
}

#[test]
fn where_numbers_are_those_of_another_namespace_the_open_directory_holds_the_process() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut running = Running::start();
    let root = ProcRoot::new(elsewhere.path());
    let link = elsewhere.path().join(running.pid().to_string());
    std::os::unix::fs::symlink(format!("/proc/{}", running.pid()), link).unwrap();
    let caller = Caller::of_pid(&root, running.pid()).unwrap();
    assert!(!caller.is_pinned(), "nothing says that the numbers are the same ones");
    assert_eq!(root.owner_of(running.pid()), Some(nix::unistd::geteuid().as_raw()));
    caller.recheck().unwrap();
    assert!(caller.is_running());
    running.kill_and_reap();
    assert!(!caller.is_running());
    is_gone(&caller.recheck().unwrap_err());
    assert_eq!(root.owner_of(running.pid()), None);
}
