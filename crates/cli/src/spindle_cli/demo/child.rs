//! A workload's process, seen from its parent.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::event::Event;
use crate::error::Failure;

/// A running workload. It is killed when this value goes away.
pub(super) struct Workload {
    name: &'static str,
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Workload {
    /// Starts a program as a workload.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start<S: AsRef<OsStr>>(
        name: &'static str,
        program: &Path,
        args: &[S],
    ) -> Result<Self, Failure> {
        let failed = |error: &std::io::Error| Failure::because(format!("cannot start {name}"), error);
        let mut process = Command::new(program)
            .arg("demo-workload")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let stdout = process.stdout.take().ok_or_else(|| Failure::new(format!("{name} has no output")))?;
        Ok(Self { name, lines: BufReader::new(stdout).lines(), _process: process })
    }

    /// What it says next. Cancel-safe.
    ///
    /// # Errors
    /// When it has ended, or says what is no event.
    pub(super) async fn event(&mut self) -> Result<Event, Failure> {
        let line = self.lines.next_line().await?;
        let line = line.ok_or_else(|| Failure::new(format!("{} ended too early", self.name)))?;
        line.parse().map_err(Failure::new)
    }
}
