//! Tells a program that its files changed: by a signal or by a command, again until it worked, for the newest change alone.

use std::ffi::OsString;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use spindle_renewal::{Backoff, BackoffPolicy, Jitter};
use spindle_runtime::SystemEntropy;
use tokio::process::Command;
use tokio::sync::watch;

use super::process::Target;
use crate::duration;
use crate::error::Failure;

/// Waits after a failed attempt. A new change cuts them short.
pub(crate) const WAITS: BackoffPolicy = BackoffPolicy {
    first: Duration::from_secs(1),
    max: Duration::from_secs(60),
    growth_percent: 200,
    jitter_percent: 10,
};

/// What is done after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing: the program looks by itself.
    Nothing,
    /// A signal to a process.
    Signal(Signal, Target),
    /// A program with its arguments, without a shell; it is killed when it takes longer.
    Command(Vec<OsString>, Duration),
}

impl Action {
    /// Does it once.
    ///
    /// # Errors
    /// What failed.
    async fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Nothing => Ok(()),
            Self::Signal(signal, target) => target.signal(*signal),
            Self::Command(words, limit) => command(words, *limit).await,
        }
    }
}

async fn command(words: &[OsString], limit: Duration) -> Result<(), Failure> {
    let Some((program, args)) = words.split_first() else { return Ok(()) };
    let shown = program.display();
    let mut command = Command::new(program);
    // A group of its own: what it starts ends with it when it takes too long.
    command.args(args).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    let mut child = command.spawn().map_err(|error| {
        Failure::because(format!("cannot start {shown}"), &error).try_this("write the program with its path")
    })?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok());
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            Err(Failure::new(format!("{shown} failed: {status}")).try_this("look at what it printed"))
        }
        Ok(Err(error)) => Err(Failure::because(format!("cannot wait for {shown}"), &error)),
        Err(_) => {
            // Gone when this returns, so that two never run at a time. The group may have ended by now.
            if let Some(group) = group {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            let _ = child.kill().await;
            Err(Failure::new(format!("{shown} took longer than {} and was killed", duration::print(limit)))
                .try_this("give it more time with -reloadTimeout"))
        }
    }
}

/// Does the action after each change that `changes` brings. Several changes meanwhile are one; a failure is told and tried
/// again, at once when another change comes. Never ends by itself.
pub(crate) async fn obey(action: &Action, mut changes: watch::Receiver<u64>, waits: BackoffPolicy) {
    let mut backoff = Backoff::new(waits);
    while changes.changed().await.is_ok() {
        backoff.reset();
        loop {
            let generation = *changes.borrow_and_update();
            match action.run().await {
                Ok(()) => {
                    tracing::info!(generation, "the program was told");
                    break;
                }
                Err(failure) => {
                    tracing::error!(error = %failure, generation, "cannot tell the program: trying again");
                }
            }
            let pause = tokio::time::sleep(backoff.next_pause(Jitter::draw(&SystemEntropy)));
            // Both arms are cancel-safe: they only wait.
            tokio::select! {
                () = pause => {}
                // Whoever sends has gone only when all is over.
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// A signal by its name, with or without `SIG`.
///
/// # Errors
/// When there is none of that name.
pub(crate) fn signal(text: &str) -> Result<Signal, String> {
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    Signal::from_str(&name).map_err(|_| "write a signal like HUP or USR1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str, limit: Duration) -> Action {
        Action::Command(["/bin/sh", "-c", text].map(OsString::from).into(), limit)
    }

    const LIMIT: Duration = Duration::from_secs(60);
    const SHORT: BackoffPolicy = BackoffPolicy { first: Duration::from_millis(1), ..WAITS };

    #[test]
    fn signals_are_read_by_name() {
        for text in ["HUP", "SIGHUP", "hup"] {
            assert_eq!(signal(text), Ok(Signal::SIGHUP));
        }
        assert!(signal("NOSUCH").is_err() && signal("").is_err());
    }

    #[tokio::test]
    async fn a_command_is_run_without_a_shell_and_its_failure_is_told() {
        let fault = async |action: Action| action.run().await.unwrap_err().what().to_owned();
        shell("true", LIMIT).run().await.unwrap();
        assert!(fault(shell("exit 3", LIMIT)).await.contains("exit status: 3"));
        assert!(
            fault(Action::Command(vec!["/nonexistent".into()], LIMIT))
                .await
                .contains("cannot start /nonexistent")
        );
        let late = fault(shell("sleep 600", Duration::from_millis(1))).await;
        assert!(late.contains("took longer than 1ms and was killed"), "{late}");
        let words = ["/usr/bin/test", "a b; exit 1", "=", "a b; exit 1"];
        Action::Command(words.map(OsString::from).into(), LIMIT).run().await.unwrap();
    }

    /// Fails until the third call; each call adds a line.
    #[tokio::test]
    async fn a_failure_is_tried_again_until_it_worked_and_then_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let calls = dir.path().join("calls");
        let text = format!("echo x >> {0}; test $(wc -l < {0}) -ge 3", calls.display());
        let action = shell(&text, LIMIT);
        let (sender, receiver) = watch::channel(0);
        sender.send_replace(7);
        let done = async {
            while std::fs::read_to_string(&calls).unwrap_or_default().lines().count() < 3 {
                tokio::task::yield_now().await;
            }
            drop(sender);
        };
        tokio::join!(obey(&action, receiver, SHORT), done);
        assert_eq!(std::fs::read_to_string(&calls).unwrap(), "x\nx\nx\n");
    }

    #[tokio::test]
    async fn changes_while_it_runs_are_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let (calls, go) = (dir.path().join("calls"), dir.path().join("go"));
        let text =
            format!("echo x >> {}; until test -e {}; do sleep 0.01; done", calls.display(), go.display());
        let action = shell(&text, LIMIT);
        let (sender, receiver) = watch::channel(0);
        sender.send_replace(1);
        let lines = || std::fs::read_to_string(&calls).unwrap_or_default().lines().count();
        let changes = async {
            while lines() < 1 {
                tokio::task::yield_now().await;
            }
            for number in 2..50 {
                sender.send_replace(number);
            }
            std::fs::write(&go, "").unwrap();
            while lines() < 2 {
                tokio::task::yield_now().await;
            }
            drop(sender);
        };
        tokio::join!(obey(&action, receiver, SHORT), changes);
        assert_eq!(lines(), 2, "one for the first, one for the 48 that came meanwhile");
    }
}
