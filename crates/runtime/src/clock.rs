//! The one place that reads the wall clock, and the bridge from wall-clock deadlines to the runtime's timers.

use std::sync::Arc;
use std::time::Duration;

use spindle_spiffe_core::{Clock, Timestamp};

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// A shared handle on the wall clock.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one real clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let secs = since_epoch.map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX));
        Timestamp::from_unix_secs(secs)
    }
}

/// How long one nap lasts at most. After a nap the wall clock is asked again, so that a machine that slept, or whose
/// clock was set, is late by no more than this.
const NAP_SECS_MAX: i64 = 15;

/// Sleeps until the wall clock shows `deadline` or later. Cancel-safe.
pub async fn sleep_until(clock: &dyn Clock, deadline: Timestamp) {
    loop {
        let left_secs = deadline.secs_since(clock.now());
        if left_secs <= 0 {
            return;
        }
        let nap_secs = u64::try_from(left_secs.min(NAP_SECS_MAX)).unwrap_or(1);
        tokio::time::sleep(Duration::from_secs(nap_secs)).await;
    }
}
