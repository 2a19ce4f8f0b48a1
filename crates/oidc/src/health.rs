//! What supervisors are told: whether the keys are fresh.
//!
//! Pure but for the answers' form. Fresh means: the source was heard within the threshold. A stream that stands is fresh.

use std::time::Duration;

use http::request::Parts;
use http::{Method, StatusCode};
use spindle_spiffe_core::Reason;
use tokio::time::Instant;

use crate::answers::{self, Answer, Response};
use crate::config::Health;
use crate::published::{Heard, Reader};
use crate::serve::From;

/// A source that was asked this often without an answer is lost ...
const POLLS: u32 = 5;

/// ... but not before three minutes have gone by.
const THRESHOLD_MIN: Duration = Duration::from_secs(180);

/// How old the last answer of a source may be: five poll intervals, three minutes at least, as SPIRE documents it.
pub fn threshold(poll_interval: Duration) -> Duration {
    poll_interval.saturating_mul(POLLS).max(THRESHOLD_MIN)
}

/// Answers supervisors.
pub(crate) struct HealthAnswers {
    settings: Health,
    threshold: Duration,
    started: Instant,
    reader: Reader,
}

impl HealthAnswers {
    pub(crate) fn new(settings: Health, threshold: Duration, reader: Reader) -> Self {
        Self { settings, threshold, started: Instant::now(), reader }
    }

    fn is_ready(&self, now: Instant) -> bool {
        match self.reader.borrow().heard {
            Heard::Never => false,
            Heard::At(then) => now.duration_since(then) < self.threshold,
            Heard::Now => true,
        }
    }

    /// A provider that waits for its first keys is alive for as long as a source may be silent.
    fn is_live(&self, now: Instant) -> bool {
        let waits = self.reader.borrow().heard == Heard::Never;
        if waits { now.duration_since(self.started) < self.threshold } else { self.is_ready(now) }
    }
}

impl Answer for HealthAnswers {
    fn answer(&self, request: &Parts, _: &From) -> Response {
        let (path, now) = (request.uri.path(), Instant::now());
        let is_well = if path == self.settings.ready_path {
            self.is_ready(now)
        } else if path == self.settings.live_path {
            self.is_live(now)
        } else {
            return answers::not_found();
        };
        if request.method != Method::GET {
            return answers::only_get();
        }
        if is_well {
            return answers::empty(StatusCode::OK);
        }
        let what = "the source of keys has not answered lately";
        answers::refused(StatusCode::INTERNAL_SERVER_ERROR, what, Reason::Unreachable)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Request;
    use spindle_testkit::ManualClock;
    use tokio::time::advance;

    use super::*;
    use crate::ListenAddress;
    use crate::keys::tests::web_key;
    use crate::published::{Publisher, channel};

    fn health() -> (Publisher, HealthAnswers) {
        let clock = Arc::new(ManualClock::at(spindle_spiffe_core::Timestamp::from_unix_secs(0)));
        let (publisher, reader) = channel(false, clock);
        let settings =
            Health { address: ListenAddress::all(0), ready_path: "/ready".into(), live_path: "/live".into() };
        (publisher, HealthAnswers::new(settings, threshold(Duration::from_secs(10)), reader))
    }

    fn ask(health: &HealthAnswers, path: &str) -> u16 {
        let (parts, ()) = Request::get(path).body(()).unwrap().into_parts();
        health.answer(&parts, &From::default()).status().as_u16()
    }

    fn both(health: &HealthAnswers) -> (u16, u16) {
        (ask(health, "/ready"), ask(health, "/live"))
    }

    const LIMIT: Duration = Duration::from_secs(180);

    #[test]
    fn the_threshold_is_five_polls_and_three_minutes_at_least() {
        for (poll, expected) in [(1, 180), (10, 180), (36, 180), (37, 185), (600, 3000)] {
            assert_eq!(threshold(Duration::from_secs(poll)), Duration::from_secs(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_first_keys_a_provider_is_live_for_a_while_and_not_ready() {
        let (_publisher, health) = health();
        assert_eq!(both(&health), (500, 200));
        advance(LIMIT).await;
        assert_eq!(both(&health), (500, 500));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_keep_it_ready_until_they_are_old() {
        let (mut publisher, health) = health();
        publisher.publish(vec![web_key("a")], Heard::At(Instant::now()));
        advance(LIMIT - Duration::from_millis(1)).await;
        assert_eq!(both(&health), (200, 200));
        advance(Duration::from_millis(1)).await;
        assert_eq!(both(&health), (500, 500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stands_is_fresh_however_long_nothing_changed() {
        let (mut publisher, health) = health();
        publisher.publish(vec![web_key("a")], Heard::Now);
        advance(LIMIT * 10).await;
        assert_eq!(both(&health), (200, 200));
        publisher.lost();
        assert_eq!(both(&health), (200, 200));
        advance(LIMIT).await;
        assert_eq!(both(&health), (500, 500));
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let (_publisher, health) = health();
        assert_eq!((ask(&health, "/"), ask(&health, "/keys")), (404, 404));
        let (parts, ()) = Request::post("/ready").body(()).unwrap().into_parts();
        assert_eq!(health.answer(&parts, &From::default()).status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
