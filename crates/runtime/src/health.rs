//! Health probes over HTTP: two paths that answer 200 or 500, with what is wrong as JSON, by SPIRE's names.
//!
//! The checks are made when somebody asks, so an answer is never older than [`FRESH_FOR`]. What a caller can cost is
//! bounded: one request a connection, a few connections at once, one round of checks a second. What is checked is for each
//! process to say. Start at [`HealthChecks`] and [`HealthListener::bind`].

mod listener;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

pub use listener::{BoundHealthListener, HealthListener};

/// How long one round of checks answers all who ask.
pub const FRESH_FOR: Duration = Duration::from_secs(1);

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which of its two questions a supervisor asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether the process is of use at all; it is restarted if not.
    Live,
    /// Whether it can serve now.
    Ready,
}

/// What a fault says of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gravity {
    /// It is of no use as it is: neither alive nor ready.
    Broken,
    /// A part of it cannot serve, which a new start would not mend: alive, not ready.
    Hindered,
    /// It has not started yet: alive, not ready. Its next state is seen at once.
    Starting,
}

/// What one check found: SPIRE's name of it and of its one detail, and the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check's name.
    pub check: &'static str,
    /// The name that the fault has in the answer.
    pub detail: &'static str,
    /// What is wrong; none when all is well.
    pub fault: Option<String>,
    /// What the fault says of the process.
    pub gravity: Gravity,
}

impl Finding {
    /// A check whose fault makes the process useless.
    pub fn new(check: &'static str, detail: &'static str, fault: Option<String>) -> Self {
        Self { check, detail, fault, gravity: Gravity::Broken }
    }

    /// The same with a fault of another gravity.
    #[must_use]
    pub fn of(self, gravity: Gravity) -> Self {
        Self { gravity, ..self }
    }

    fn is_start(&self) -> bool {
        self.fault.is_some() && self.gravity == Gravity::Starting
    }

    fn fault_for(&self, probe: Probe) -> Option<&String> {
        self.fault.as_ref().filter(|_| probe == Probe::Ready || self.gravity == Gravity::Broken)
    }
}

/// The outcome of one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport(pub Vec<Finding>);

impl HealthReport {
    /// Whether all is well.
    pub fn is_well(&self, probe: Probe) -> bool {
        self.0.iter().all(|finding| finding.fault_for(probe).is_none())
    }

    /// An object with each check, empty where all is well.
    fn to_json(&self, probe: Probe) -> String {
        let one = |finding: &Finding| {
            let fault =
                finding.fault_for(probe).map(|fault| (finding.detail.to_owned(), fault.clone().into()));
            (finding.check.to_owned(), Value::Object(Map::from_iter(fault)))
        };
        Value::Object(self.0.iter().map(one).collect()).to_string()
    }
}

/// Makes the checks, and remembers the last round.
pub struct HealthChecks {
    round: Box<dyn Fn() -> BoxFuture<'static, HealthReport> + Send + Sync>,
    last: Mutex<Option<(Instant, Arc<HealthReport>)>>,
}

impl HealthChecks {
    /// Checks of which `round` makes one round.
    pub fn new(round: impl Fn() -> BoxFuture<'static, HealthReport> + Send + Sync + 'static) -> Self {
        Self { round: Box::new(round), last: Mutex::default() }
    }

    /// The state as it is, or was a moment ago. Who asks meanwhile waits for the same round. What a process says that has not
    /// started is not kept, so that its first moment of health is seen at once.
    pub async fn report(&self) -> Arc<HealthReport> {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = last.as_ref()
            && at.elapsed() < FRESH_FOR
        {
            return report.clone();
        }
        let report = Arc::new((self.round)().await);
        log_changes(last.as_ref().map(|(_, report)| report.as_ref()), &report);
        let is_starting = report.0.iter().any(Finding::is_start);
        *last = (!is_starting).then(|| (Instant::now(), report.clone()));
        report
    }
}

/// The fault that `check` finds, or that it takes too long.
pub async fn fault_in_time(check: impl Future<Output = Result<(), String>>) -> Option<String> {
    let late = || Err(format!("no answer within {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, check).await.unwrap_or_else(|_| late()).err()
}

/// Tells once that a check begins to fail, and once that it is well again.
fn log_changes(before: Option<&HealthReport>, now: &HealthReport) {
    for finding in &now.0 {
        let earlier = before.and_then(|report| report.0.iter().find(|other| other.check == finding.check));
        let failed_before = earlier.is_some_and(|earlier| earlier.fault.is_some());
        match (&finding.fault, failed_before) {
            (Some(error), false) => warn!(check = finding.check, error, "Health check failed"),
            (None, true) => info!(check = finding.check, "Health check recovered"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn finding(check: &'static str, fault: Option<&str>) -> Finding {
        Finding::new(check, "some_err", fault.map(Into::into))
    }

    #[test]
    fn each_check_stands_in_the_answer_and_one_fault_is_enough() {
        let well = HealthReport(vec![finding("a", None), finding("b", None)]);
        let ill = HealthReport(vec![finding("a", None), finding("b", Some("no \"disk\""))]);
        for probe in [Probe::Live, Probe::Ready] {
            assert_eq!((well.is_well(probe), well.to_json(probe).as_str()), (true, r#"{"a":{},"b":{}}"#));
            assert!(!ill.is_well(probe));
            assert_eq!(ill.to_json(probe), r#"{"a":{},"b":{"some_err":"no \"disk\""}}"#);
        }
    }

    #[test]
    fn a_process_that_starts_or_is_hindered_is_alive_and_not_ready() {
        for gravity in [Gravity::Starting, Gravity::Hindered] {
            let report = HealthReport(vec![finding("a", Some("not yet")).of(gravity)]);
            assert!(report.is_well(Probe::Live) && !report.is_well(Probe::Ready));
            assert_eq!(report.to_json(Probe::Live), r#"{"a":{}}"#);
            assert_eq!(report.to_json(Probe::Ready), r#"{"a":{"some_err":"not yet"}}"#);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_round_answers_all_who_ask_for_a_while() {
        static ROUNDS: AtomicUsize = AtomicUsize::new(0);
        let checks = HealthChecks::new(|| {
            ROUNDS.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { HealthReport(vec![finding("a", None)]) })
        });
        let first = checks.report().await;
        assert!(Arc::ptr_eq(&first, &checks.report().await));
        assert_eq!(ROUNDS.load(Ordering::SeqCst), 1);
        tokio::time::advance(FRESH_FOR).await;
        checks.report().await;
        assert_eq!(ROUNDS.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_process_says_that_has_not_started_is_not_kept() {
        static ROUNDS: AtomicUsize = AtomicUsize::new(0);
        let checks = HealthChecks::new(|| {
            let is_starting = ROUNDS.fetch_add(1, Ordering::SeqCst) == 0;
            let fault = is_starting.then_some("not yet");
            Box::pin(async move { HealthReport(vec![finding("a", fault).of(Gravity::Starting)]) })
        });
        assert!(!checks.report().await.is_well(Probe::Ready));
        assert!(checks.report().await.is_well(Probe::Ready));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_a_fault() {
        let fault = fault_in_time(std::future::pending()).await;
        assert_eq!(fault.as_deref(), Some("no answer within 10 s"));
        assert_eq!(fault_in_time(async { Ok(()) }).await, None);
    }
}
