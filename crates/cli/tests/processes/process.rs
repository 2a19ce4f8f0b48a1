//! One of our binaries as a process, and the lines it logs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Far beyond any healthy answer: reaching it is a failure, not a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn binary(name: &str) -> &'static str {
    match name {
        "spindle-server" => env!("CARGO_BIN_EXE_spindle-server"),
        "spindle" => env!("CARGO_BIN_EXE_spindle"),
        _ => env!("CARGO_BIN_EXE_spindle-agent"),
    }
}

/// A running binary; killed with SIGKILL when dropped, which is how all of them end here.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        Self::start_with(name, args, &[])
    }

    /// With these variables beside those of the test.
    pub(crate) fn start_with(name: &str, args: &[&str], vars: &[(&str, &str)]) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new(binary(name));
        command.args(args).envs(vars.iter().copied()).stdin(Stdio::null());
        let child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
        let (line, lines) = channel();
        // Reads on to the end, so that the process never waits for a reader. Nobody may listen any more.
        thread::spawn(move || {
            BufReader::new(reader).lines().map_while(Result::ok).all(|text| line.send(text).is_ok())
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Wait for a line that `find` knows; `None` if the process ends without one.
    pub(crate) fn wait_for<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                assert!(self.has_ended(), "silent for too long, after:\n{}", self.log());
                return None;
            };
            let found = find(&line);
            self.seen.push(line);
            if found.is_some() {
                return found;
            }
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Wait until the process ends by itself, for the reason that stands in its last words.
    pub(crate) fn ends_with(&mut self, last_words: &str) {
        let said = self.wait_for(|line| line.contains(last_words).then_some(()));
        assert!(said.is_some(), "it ended without {last_words:?}:\n{}", self.log());
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself; returns its exit status.
    pub(crate) fn end(&mut self) -> Option<i32> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap().code(),
                Err(RecvTimeoutError::Timeout) => panic!("silent for too long, after:\n{}", self.log()),
            }
        }
    }

    /// What was logged and looked at so far.
    pub(crate) fn log(&self) -> String {
        self.seen.join("\n")
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command that ended printed.
pub(crate) struct Ended {
    pub(crate) ok: bool,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn run(name: &str, args: &[&str]) -> Ended {
    let Output { status, stdout, stderr } = Command::new(binary(name)).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { ok: status.success(), code: status.code(), out: text(stdout), err: text(stderr) }
}

/// [`run`] that must succeed.
pub(crate) fn done(name: &str, args: &[&str]) -> String {
    let ended = run(name, args);
    assert!(ended.ok, "{name} {args:?}: {}{}", ended.out, ended.err);
    ended.out
}

/// Rounds of a long test: an environment variable, or a default that suits every `cargo test`.
pub(crate) fn rounds(default: u64) -> u64 {
    std::env::var("SPINDLE_KILL_ROUNDS").map_or(default, |text| text.parse().expect("a number of rounds"))
}
