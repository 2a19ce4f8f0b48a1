//! The command as a child: started when its files are there, told of changes, ended with us and we with it.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Watched, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use super::tied;
use crate::duration;
use crate::error::Failure;
use crate::svid_files::keeper::{Keeper, Shown};

/// As a shell shows a program that a signal ended: this and the signal's number.
const EXIT_SIGNAL: u8 = 128;

/// What a change of the files does to the command.
#[derive(Debug, Clone, Copy)]
pub(super) enum OnChange {
    /// It looks by itself.
    Nothing,
    /// It gets a signal.
    Signal(Signal),
    /// It is stopped, killed when that takes longer than this, and started again.
    Restart(Duration),
}

/// The command.
pub(super) struct Program {
    pub(super) words: Vec<OsString>,
    pub(super) vars: Vec<(&'static str, OsString)>,
    pub(super) on_change: OnChange,
}

/// Waits for the files, runs the command to its end and keeps the files current meanwhile; returns the exit status. A command
/// that cannot be run has said so, and its status is that of [`tied`].
///
/// # Errors
/// When no identity came, or no child can be started.
pub(super) async fn run(program: &Program, mut keeper: Keeper, patience: Duration) -> Result<u8, Failure> {
    // Before the command runs, so that no signal is lost or ends us alone.
    let mut signals =
        Signals::watch().map_err(|error| Failure::because("cannot watch for signals", &error))?;
    // Both arms are cancel-safe: whoever loses is not needed any more.
    tokio::select! {
        first = first(&mut keeper, patience) => first?,
        signal = signals.next_end() => return Ok(EXIT_SIGNAL.saturating_add(number(signal))),
    };
    let mut running = Running { child: program.spawn()?, stopping: None };
    let mut keeps = true;
    loop {
        // All arms are cancel-safe: they wait, or take from a channel.
        tokio::select! {
            ended = running.child.wait() => {
                let ended = ended.map_err(|error| Failure::because("cannot wait for the command", &error))?;
                match running.stopping.take() {
                    Some(_) => running.child = program.spawn()?,
                    None => return Ok(status(ended)),
                }
            }
            signal = signals.next() => {
                // Whoever wants the end does not want a new start.
                if ENDS.contains(&signal) {
                    running.stopping = None;
                }
                running.send(signal);
            }
            shown = keeper.next(), if keeps => match shown {
                Ok(Some(shown)) => running.tell(program.on_change, &shown),
                // Workloads that others name end; we name none.
                Ok(None) => keeps = false,
                Err(failure) => {
                    tracing::error!(error = %failure, "the files are not kept current any more");
                    keeps = false;
                }
            },
            () = at(running.stopping) => {
                tracing::warn!("the command did not stop in time: killing it");
                running.send(Signal::SIGKILL);
                // Waits for its end alone.
                running.stopping = Some(Instant::now() + Duration::from_secs(3600));
            }
        }
    }
}

async fn first(keeper: &mut Keeper, patience: Duration) -> Result<(), Failure> {
    match patience {
        Duration::ZERO => keeper.next().await.map(|_| ()),
        patience => match timeout(patience, keeper.next()).await {
            Ok(first) => first.map(|_| ()),
            Err(_) => Err(Failure::new(format!("no identity came within {}", duration::print(patience)))
                .try_this("register an entry for this process, and look at the agent's log")),
        },
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Program {
    /// Has to run on the thread that waits for the end: the command ends with it.
    fn spawn(&self) -> Result<Child, Failure> {
        let command = tied::command().map_err(|error| Failure::because("cannot start the command", &error));
        let mut command = Command::from(command?);
        command
            .args(&self.words)
            .envs(self.vars.iter().map(|(name, value)| (name, value)))
            .kill_on_drop(true);
        command.spawn().map_err(|error| Failure::because("cannot start the command", &error))
    }
}

struct Running {
    child: Child,
    /// When the child is killed that was told to stop for a new start.
    stopping: Option<Instant>,
}

impl Running {
    /// A child that has ended is not waited for yet, so its number is still its own.
    fn send(&self, signal: Signal) {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        if let Err(error) = kill(Pid::from_raw(pid), signal) {
            tracing::warn!(%signal, error = error.desc(), "cannot send a signal to the command");
        }
    }

    fn tell(&mut self, on_change: OnChange, shown: &Shown) {
        if !shown.is_news {
            return;
        }
        match on_change {
            OnChange::Nothing => {}
            OnChange::Signal(signal) => self.send(signal),
            OnChange::Restart(limit) if self.stopping.is_none() => {
                self.stopping = Some(Instant::now() + limit);
                self.send(Signal::SIGTERM);
            }
            // It starts with the newest files anyway.
            OnChange::Restart(_) => {}
        }
    }
}

fn status(ended: ExitStatus) -> u8 {
    match (ended.code(), ended.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, Some(signal)) => EXIT_SIGNAL.saturating_add(u8::try_from(signal).unwrap_or(0)),
        (None, None) => u8::MAX,
    }
}

fn number(signal: Signal) -> u8 {
    u8::try_from(signal as i32).unwrap_or(0)
}

/// Those after which a command is not started again.
const ENDS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// Signals that we pass on.
struct Signals {
    terminate: Watched,
    interrupt: Watched,
    quit: Watched,
    hangup: Watched,
    user1: Watched,
    user2: Watched,
    window: Watched,
    /// A terminal sends its own signals to the command as well.
    at_terminal: bool,
}

impl Signals {
    fn watch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            window: signal(SignalKind::window_change())?,
            at_terminal: std::io::stdin().is_terminal(),
        })
    }

    /// The next one that the command has not got from elsewhere. Cancel-safe.
    async fn next(&mut self) -> Signal {
        loop {
            let signal = self.any().await;
            let came_already = matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGWINCH);
            if !(self.at_terminal && came_already) {
                return signal;
            }
        }
    }

    /// The next one that ends a program. Cancel-safe.
    async fn next_end(&mut self) -> Signal {
        loop {
            let signal = self.any().await;
            if ENDS.contains(&signal) || signal == Signal::SIGHUP {
                return signal;
            }
        }
    }

    async fn any(&mut self) -> Signal {
        // All arms are cancel-safe: they only wait.
        tokio::select! {
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.quit.recv() => Signal::SIGQUIT,
            _ = self.hangup.recv() => Signal::SIGHUP,
            _ = self.user1.recv() => Signal::SIGUSR1,
            _ = self.user2.recv() => Signal::SIGUSR2,
            _ = self.window.recv() => Signal::SIGWINCH,
        }
    }
}
