//! A process that a trusted caller names by its number: held, attested, looked at again, and known to have ended.
//!
//! The number is taken once. From then on a pidfd holds the process, or its open directory where the proc file system has
//! other numbers than we, so that a number that is reused is never taken for it. Who may name processes is decided by those
//! who ask. Start at [`Callers::attest_by_number`].

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use spindle_attest::{AttestedCaller, Caller, CallerError};
use spindle_spiffe_core::Selectors;
use tokio::net::unix::pipe;
use tracing::warn;

use super::{CallerFault, Callers};

/// How often a process is looked at that has no pidfd to tell of its end.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An attested process that did not call by itself.
pub(crate) struct ByNumber {
    callers: Callers,
    caller: Arc<AttestedCaller>,
    /// Turns readable when the process ends; none without a pidfd.
    end: Option<Arc<pipe::Receiver>>,
}

impl Callers {
    /// What the process with the number `pid` shows, a number in the proc file system that the agent looks into.
    ///
    /// # Errors
    /// [`spindle_spiffe_core::Reason::CallerGone`] when there is no such process; else that it cannot be attested.
    pub(crate) async fn attest_by_number(&self, pid: i32) -> Result<ByNumber, CallerFault> {
        // Looks that hang are charged to the user of the process, not to the one who asks.
        let owner = self.root.owner_of(pid).ok_or(CallerError::Gone { pid })?;
        let callers = self.clone();
        let attest = move || callers.ask_attestors(Caller::of_pid(&callers.root, pid)?);
        let caller = self.on_thread(owner, pid, attest).await?;
        let end = caller.caller().pidfd().and_then(|pidfd| end_of(pid, pidfd));
        Ok(ByNumber { callers: self.clone(), caller, end })
    }
}

impl ByNumber {
    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        self.caller.caller().pid()
    }

    /// What it shows.
    pub(crate) fn selectors(&self) -> &Selectors {
        self.caller.selectors()
    }

    /// Looks at the process again. True when it has changed and was attested anew, so that it may show other selectors.
    /// Cancel-safe: until a new attestation is complete the old one stays.
    ///
    /// # Errors
    /// When it has ended, or cannot be attested any more.
    pub(crate) async fn look_again(&mut self) -> Result<bool, CallerFault> {
        if self.caller.is_plainly_same() {
            return Ok(false);
        }
        let (callers, known) = (self.callers.clone(), self.caller.clone());
        let look = move || match known.recheck() {
            Ok(()) => Ok(None),
            Err(CallerError::Changed { .. }) => callers.ask_attestors(known.caller().anew()?).map(Some),
            Err(error) => Err(error.into()),
        };
        let caller = self.caller.caller();
        let changed = self.callers.on_thread(caller.uid(), caller.pid(), look).await?;
        let has_changed = changed.is_some();
        if let Some(caller) = changed {
            self.caller = caller;
        }
        Ok(has_changed)
    }

    /// Returns once the process has ended. Cancel-safe, and independent of what else is done with this value.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let (end, caller) = (self.end.clone(), self.caller.caller().clone());
        async move {
            match end {
                Some(end) => drop(end.readable().await),
                None => {
                    while caller.is_running() {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                }
            }
        }
    }
}

/// A pidfd in the one wrapper for foreign descriptors that tokio has without `unsafe`: nothing is read from it, its readiness
/// alone is waited for.
fn end_of(pid: i32, pidfd: OwnedFd) -> Option<Arc<pipe::Receiver>> {
    pipe::Receiver::from_owned_fd_unchecked(pidfd)
        .map(Arc::new)
        .inspect_err(|error| warn!(pid, %error, "the end of a process is seen only by looking at it"))
        .ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use spindle_attest::{ProcRoot, UnixAttestor, UnixConfig, WorkloadAttestor};
    use spindle_spiffe_core::Reason;

    use super::*;

    /// A process that runs until it is told to end.
    struct Running(Child);

    impl Running {
        fn start() -> Self {
            Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
        }

        fn pid(&self) -> i32 {
            i32::try_from(self.0.id()).unwrap()
        }

        fn end(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.end();
        }
    }

    fn callers(root: ProcRoot) -> Callers {
        let config = UnixConfig { discover_workload_path: true, workload_size_limit: -1 };
        Callers::new(vec![Box::new(UnixAttestor::new(config)) as Box<dyn WorkloadAttestor>], root)
    }

    #[tokio::test]
    async fn a_process_is_attested_by_its_number_and_its_end_is_told() {
        let mut running = Running::start();
        let mut process = callers(ProcRoot::default()).attest_by_number(running.pid()).await.unwrap();
        let exe = std::fs::read_link(format!("/proc/{}/exe", running.pid())).unwrap();
        assert!(process.selectors().contains(&format!("unix:path:{}", exe.display()).parse().unwrap()));
        assert!(!process.look_again().await.unwrap());
        tokio::select! {
            biased;
            () = process.ended() => panic!("it runs"),
            () = tokio::task::yield_now() => {}
        }
        running.end();
        process.ended().await;
        assert_eq!(process.look_again().await.unwrap_err().reason(), Reason::CallerGone);
    }

    #[tokio::test]
    async fn a_number_that_nobody_has_is_told_as_gone() {
        for pid in [0, -1, i32::MAX] {
            let fault = callers(ProcRoot::default()).attest_by_number(pid).await.err().unwrap();
            assert_eq!(fault.reason(), Reason::CallerGone, "{pid}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_process_that_no_pidfd_holds_is_seen_by_looking() {
        let elsewhere = tempfile::tempdir().unwrap();
        let mut running = Running::start();
        let link = elsewhere.path().join(running.pid().to_string());
        std::os::unix::fs::symlink(format!("/proc/{}", running.pid()), link).unwrap();
        let process = callers(ProcRoot::new(elsewhere.path())).attest_by_number(running.pid()).await.unwrap();
        assert!(process.end.is_none());
        tokio::select! {
            biased;
            () = process.ended() => panic!("it runs"),
            () = tokio::task::yield_now() => {}
        }
        running.end();
        process.ended().await;
    }

    #[tokio::test]
    async fn a_process_that_runs_another_program_is_attested_anew() {
        use std::io::{BufRead, BufReader, Write};
        let script = "echo up; read line; exec cat";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stdin = child.stdin.take().unwrap();
        let running = Running(child);
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        let mut process = callers(ProcRoot::default()).attest_by_number(running.pid()).await.unwrap();
        let before = process.selectors().clone();
        let exe = format!("/proc/{}/exe", running.pid());
        let shell = std::fs::read_link(&exe).unwrap();
        stdin.write_all(b"go\n").unwrap();
        while std::fs::read_link(&exe).unwrap() == shell {}
        assert!(process.look_again().await.unwrap());
        assert_ne!(*process.selectors(), before);
        assert!(!process.look_again().await.unwrap());
    }
}
