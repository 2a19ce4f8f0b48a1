//! What long-running commands share: the runtime, the end by signal, and notes on the configuration.

use std::future::Future;

use spindle_runtime::{Logs, Shutdown, Signals};
use tracing::warn;

use crate::console::Console;
use crate::error::Failure;

/// Runs a service on all processors.
///
/// # Errors
/// What the service returns, or that no runtime can be made.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::because("cannot start", &error))?.block_on(work)
}

/// Waits for `work`; SIGINT and SIGTERM begin `shutdown`, after which `work` is given the time it takes to end. SIGUSR2
/// reopens the log file, SIGHUP and SIGUSR1 call `reload`.
///
/// # Errors
/// When signals cannot be watched.
pub async fn until_signal<T>(
    work: impl Future<Output = T>,
    shutdown: &Shutdown,
    logs: &Logs,
    reload: impl AsyncFnMut(),
) -> Result<T, Failure> {
    // Before any work, so that no signal finds the kernel's default in place, which is to kill.
    let mut signals = signals()?;
    let mut work = Box::pin(work);
    // Both arms are cancel-safe: `work` is only borrowed, and the other only waits.
    tokio::select! {
        ended = &mut work => Ok(ended),
        () = signals.obey(shutdown, logs, reload) => Ok(work.await),
    }
}

/// The signals of this process, taken over from the kernel's defaults.
///
/// # Errors
/// When they cannot be watched.
pub fn signals() -> Result<Signals, Failure> {
    Signals::watch().map_err(|error| Failure::because("cannot watch for signals", &error))
}

/// Tells about keys that have no effect.
pub fn log_notes(notes: &[String]) {
    for note in notes {
        warn!(%note, "configuration");
    }
}

/// What `--check-config` says of a good configuration.
///
/// # Errors
/// When the output cannot be written.
pub fn print_checked(console: &mut Console<'_>, who: &str, notes: &[String]) -> Result<(), Failure> {
    for note in notes {
        writeln!(console.out, "Note: {note}")?;
    }
    Ok(writeln!(console.out, "The {who} configuration is valid.")?)
}
