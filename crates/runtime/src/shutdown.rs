//! One token that ends everything, and the signals that a process obeys.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::Logs;

/// A cheap handle on "stop now". Cloned handles share the state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A handle that nobody has pulled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle that ends with this one, and can be ended alone.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Ends everything that waits. Calling it again changes nothing.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether the end has begun.
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the end. Cancel-safe.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }
}

/// What a signal asks of a running service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGINT or SIGTERM: stop in order.
    Stop(&'static str),
    /// SIGUSR2: the log file was renamed, go on in a new one.
    ReopenLog,
    /// SIGHUP: read the configuration again, and take over what can change while the service runs.
    Reload,
    /// SIGUSR1: SPIRE configures plugins anew whose `plugin_data_file` changed. Here it is the same as SIGHUP.
    ReloadPlugins,
}

/// The signals of a running service. From its making on none of them ends the process by itself, and none is lost.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Takes the signals over from the kernel's defaults, for the rest of the process's life.
    ///
    /// # Errors
    /// When the signals cannot be watched.
    pub fn watch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal. Cancel-safe.
    pub async fn next(&mut self) -> Wish {
        // All arms are cancel-safe: they only wait. The log comes first, so that the end is written to the new file.
        tokio::select! {
            biased;
            _ = self.user2.recv() => Wish::ReopenLog,
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.user1.recv() => Wish::ReloadPlugins,
            _ = self.interrupt.recv() => Wish::Stop("SIGINT"),
            _ = self.terminate.recv() => Wish::Stop("SIGTERM"),
        }
    }

    /// Does what signals ask until one asks to stop, which begins `shutdown`, or `shutdown` begins otherwise; SIGHUP and
    /// SIGUSR1 call `reload`. Cancel-safe if `reload` is.
    pub async fn obey(&mut self, shutdown: &Shutdown, logs: &Logs, mut reload: impl AsyncFnMut()) {
        loop {
            // Both arms are cancel-safe: they only wait.
            let wish = tokio::select! {
                wish = self.next() => wish,
                () = shutdown.begun() => return,
            };
            match wish {
                Wish::ReopenLog => logs.reopen(),
                Wish::Reload | Wish::ReloadPlugins => reload().await,
                Wish::Stop(signal) => {
                    tracing::info!(signal, "stopping");
                    return shutdown.begin();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    /// One test for all: signals reach every watcher of the process.
    #[tokio::test]
    async fn user_signals_end_nothing_and_each_signal_says_what_it_wants() {
        let mut signals = Signals::watch().unwrap();
        for (signal, wish) in [
            (Signal::SIGHUP, Wish::Reload),
            (Signal::SIGUSR1, Wish::ReloadPlugins),
            (Signal::SIGUSR2, Wish::ReopenLog),
            (Signal::SIGINT, Wish::Stop("SIGINT")),
            (Signal::SIGTERM, Wish::Stop("SIGTERM")),
        ] {
            raise(signal).unwrap();
            assert_eq!(signals.next().await, wish);
        }
        let shutdown = Shutdown::new();
        raise(Signal::SIGUSR2).unwrap();
        raise(Signal::SIGHUP).unwrap();
        raise(Signal::SIGUSR1).unwrap();
        raise(Signal::SIGTERM).unwrap();
        let mut reloads = 0;
        signals.obey(&shutdown, &Logs::default(), async || reloads += 1).await;
        assert!(shutdown.has_begun() && reloads == 2);
    }
}
