//! Programs as processes, and waiting for conditions.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far beyond any healthy answer: reaching it is a failure, not a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn agent() -> Command {
    Command::new(env!("CARGO_BIN_EXE_spindle-agent"))
}

pub(crate) fn spindle() -> Command {
    Command::new(env!("CARGO_BIN_EXE_spindle"))
}

/// A running program whose output is kept in a file; killed when dropped.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let file = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log: log.into() }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        wait_for("the program's end", || self.child.try_wait().unwrap())
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for a line of its output; fails when it ends without one.
    pub(crate) fn says(&mut self, words: &str) {
        wait_for(words, || {
            let log = self.log();
            assert!(log.contains(words) || !self.has_ended(), "it ended without {words:?}:\n{log}");
            log.contains(words).then_some(())
        });
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let patience = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(tokio::time::Instant::now() < patience, "{what} did not come");
        // Gives the processor to those that are waited for.
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// The number of the generation that is shown.
pub(crate) fn generation(dir: &Path) -> Option<u64> {
    fs::read_link(dir.join("current")).ok()?.to_str()?.strip_prefix("gen-")?.parse().ok()
}

/// A directory in memory where there is such a place: nothing here is about the speed of a disk.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    if memory.is_dir() { builder.tempdir_in(memory).unwrap() } else { builder.tempdir().unwrap() }
}

/// A program of this machine, by its name or in one of the places where packages put it.
pub(crate) fn find(name: &str, places: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(places.iter().cloned())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// `spindle-agent files` on that socket and directory.
pub(crate) fn files<S: AsRef<OsStr>>(socket: &Path, dir: &Path, more: &[S]) -> Command {
    let mut command = agent();
    command.args(["files", "-socketPath"]).arg(socket).arg("-dir").arg(dir).args(more);
    command
}
