//! One token that ends everything, and the signals that pull it.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

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

    /// Waits for SIGINT or SIGTERM and then begins the shutdown.
    ///
    /// # Errors
    /// When the signals cannot be watched.
    pub async fn on_signal(&self) -> std::io::Result<()> {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        // All three arms are cancel-safe: they only wait.
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            () = self.begun() => return Ok(()),
        };
        tracing::info!(signal = name, "stopping");
        self.begin();
        Ok(())
    }
}
