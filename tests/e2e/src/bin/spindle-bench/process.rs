//! One of our binaries as a process: started, watched from outside, ended with its owner.
//!
//! CPU time is read from the kernel's clock of that process: user and system time of all its threads, in nanoseconds,
//! where `/proc/PID/stat` counts in hundredths of a second. Start at [`Process::start`].

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use spindle_e2e::PATIENCE;
use tokio::time::{Instant, sleep};

/// Between two looks at something that is about to happen.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running child. It is killed when dropped: what it holds is thrown away.
pub(crate) struct Process {
    child: Child,
    clock: ClockId,
    log_path: PathBuf,
}

/// Memory of a process in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// All its pages in memory, those of the binary included.
    pub(crate) resident: u64,
    /// What no file backs: heap and stacks.
    pub(crate) anonymous: u64,
}

/// The path of a binary that was built together with this one.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

impl Process {
    /// Starts a binary with `arguments`; all it prints goes to `log_path`.
    pub(crate) fn start(name: &str, arguments: &[&str], log_path: &Path) -> Result<Self> {
        let path = program(name)?;
        let log = File::create(log_path)?;
        let child = Command::new(&path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        let pid = Pid::from_raw(child.id().try_into()?);
        let clock = clock_getcpuclockid(pid)?;
        Ok(Self { child, clock, log_path: log_path.to_owned() })
    }

    /// CPU time so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        Ok(self.clock.now()?.into())
    }

    /// Memory now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let bytes = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
            let kibibytes = value.with_context(|| format!("{name} in a process's status"))?.trim();
            Ok::<u64, anyhow::Error>(kibibytes.parse::<u64>()? * 1024)
        };
        Ok(Memory { resident: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")? })
    }

    /// What it has printed so far.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log_path)?)
    }

    /// Looks until `seen` returns something; `what` names it when it does not come, or when the process ends before.
    pub(crate) async fn wait_for<T>(
        &mut self,
        what: &str,
        mut seen: impl AsyncFnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = seen(self).await? {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{what}: the process ended with {status}:\n{}", self.log()?);
            }
            if Instant::now() > deadline {
                bail!("{what}: not in time:\n{}", self.log()?);
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
