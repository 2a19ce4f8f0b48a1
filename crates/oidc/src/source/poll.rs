//! Asking again and again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use spindle_runtime::Shutdown;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{Health, SourceError};
use crate::keys::WebKey;
use crate::published::{Heard, Publisher};

/// How often to ask, and what cuts a pause short.
pub(super) struct Pace {
    pub(super) interval: Duration,
    pub(super) again: Arc<Notify>,
    pub(super) shutdown: Shutdown,
}

impl Pace {
    /// Waits for the next turn; false when there is none. Cancel-safe.
    pub(super) async fn rest(&self, pause: Duration) -> bool {
        // All arms are cancel-safe: they only wait.
        tokio::select! {
            () = sleep(pause) => true,
            () = self.again.notified() => true,
            () = self.shutdown.begun() => false,
        }
    }
}

/// A source that has to be asked.
pub(super) trait Ask: Send + Sync {
    /// The keys now.
    fn ask(&self) -> impl Future<Output = Result<Vec<WebKey>, SourceError>> + Send;
}

/// Asks once, and then once an interval.
pub(super) async fn run(pace: Pace, mut publisher: Publisher, source: impl Ask) {
    let mut health = Health::default();
    loop {
        // A question that the shutdown cuts off leaves nothing behind.
        let answer = tokio::select! {
            answer = source.ask() => answer,
            () = pace.shutdown.begun() => return,
        };
        match answer {
            Ok(keys) => {
                health.good();
                let count = keys.len();
                if publisher.publish(keys, Heard::At(Instant::now())) {
                    info!(keys = count, "clients are shown new keys");
                }
            }
            Err(error) => health.failed(&error),
        }
        if !pace.rest(pace.interval).await {
            return;
        }
    }
}
