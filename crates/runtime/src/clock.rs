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

/// Sleeps towards `deadline`, but no longer than one nap, and not at all once it is reached. For those who decide anew
/// after each nap: a clock that was set back makes a deadline say nothing any more, which only they can tell. Cancel-safe.
pub async fn nap_until(clock: &dyn Clock, deadline: Timestamp) {
    let left_secs = deadline.secs_since(clock.now());
    if left_secs > 0 {
        let nap_secs = u64::try_from(left_secs.min(NAP_SECS_MAX)).unwrap_or(1);
        tokio::time::sleep(Duration::from_secs(nap_secs)).await;
    }
}

/// Sleeps until the wall clock shows `deadline` or later, however often it is set meanwhile. Cancel-safe.
pub async fn sleep_until(clock: &dyn Clock, deadline: Timestamp) {
    while clock.now() < deadline {
        nap_until(clock, deadline).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    /// Shows the given times one after the other, and then the last of them for ever.
    struct Script(Mutex<Vec<i64>>);

    impl Clock for Script {
        fn now(&self) -> Timestamp {
            let mut times = self.0.lock().unwrap();
            let now = times[0];
            if times.len() > 1 {
                times.remove(0);
            }
            Timestamp::from_unix_secs(now)
        }
    }

    fn clock(times: &[i64]) -> Script {
        Script(Mutex::new(times.to_vec()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_nap_ends_although_the_clock_was_set_back_behind_the_deadline() {
        let began = Instant::now();
        nap_until(&clock(&[1000, -5000]), Timestamp::from_unix_secs(2000)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_nap_never_passes_the_deadline_and_is_skipped_after_it() {
        let began = Instant::now();
        nap_until(&clock(&[1998]), Timestamp::from_unix_secs(2000)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        nap_until(&clock(&[2000]), Timestamp::from_unix_secs(2000)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_goes_on_until_the_clock_shows_the_deadline() {
        let began = Instant::now();
        sleep_until(&clock(&[100, 100, 50, 50, 200]), Timestamp::from_unix_secs(110)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(10 + 15));
    }
}
