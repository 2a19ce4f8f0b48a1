//! What long-running commands share: the runtime, the end by signal, and notes on the configuration.

use std::future::Future;

use spindle_runtime::Shutdown;
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

/// Waits for `work`; SIGINT and SIGTERM begin `shutdown`, after which `work` is given the time it takes to end.
///
/// # Errors
/// When signals cannot be watched.
pub async fn until_signal<T>(work: impl Future<Output = T>, shutdown: &Shutdown) -> Result<T, Failure> {
    let mut work = Box::pin(work);
    // Both arms are cancel-safe: `work` is only borrowed, and the other only waits.
    tokio::select! {
        ended = &mut work => Ok(ended),
        signal = shutdown.on_signal() => {
            signal.map_err(|error| Failure::because("cannot watch for signals", &error))?;
            Ok(work.await)
        }
    }
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
