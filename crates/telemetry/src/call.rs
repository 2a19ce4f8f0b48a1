//! SPIRE's call counters: how often something was done, how it ended and how long it took.

use std::sync::{Arc, OnceLock};

use metrics::{Counter, Histogram};
use tonic::Code;

use crate::codes::{self, CODES};
use crate::emitter::Telemetry;

/// Counts calls under one key. For each gRPC code there is a counter, and samples of the time taken in milliseconds under the
/// key and `.elapsed_time`; both come into being with the first call that ends so. Cheap to clone.
#[derive(Clone, Default)]
pub struct CallMeter(Option<Arc<Ends>>);

/// What is known of calls that ended, by code.
pub(crate) struct Ends {
    telemetry: Telemetry,
    key: String,
    labels: Vec<(String, String)>,
    by_code: [OnceLock<(Counter, Histogram)>; CODES],
}

/// A call under way. One that is dropped was given up and counts as `Canceled`.
#[must_use]
pub struct CallTimer(Option<(Arc<Ends>, u64)>);

impl CallMeter {
    /// A meter that counts nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// A meter for `key`, with dots between its parts.
    pub fn new(telemetry: &Telemetry, key: &str, labels: &[(&str, &str)]) -> Self {
        Self(telemetry.is_on().then(|| Arc::new(Ends::new(telemetry, key, labels))))
    }

    /// Begins a call.
    pub fn start(&self) -> CallTimer {
        CallTimer(self.0.as_ref().map(|ends| (ends.clone(), ends.telemetry.now_us())))
    }

    /// Counts the call that `work` is; `code_of` says how it ended.
    pub async fn time<T>(&self, work: impl Future<Output = T>, code_of: impl FnOnce(&T) -> Code) -> T {
        let timer = self.start();
        let done = work.await;
        timer.done(code_of(&done));
        done
    }
}

impl CallTimer {
    /// The call has ended like this.
    pub fn done(mut self, code: Code) {
        if let Some((ends, began_us)) = self.0.take() {
            ends.count(code, began_us);
        }
    }

    /// The call is one of those that are not counted.
    pub fn discard(mut self) {
        self.0 = None;
    }
}

impl Drop for CallTimer {
    fn drop(&mut self) {
        if let Some((ends, began_us)) = self.0.take() {
            ends.count(Code::Cancelled, began_us);
        }
    }
}

impl Ends {
    pub(crate) fn new(telemetry: &Telemetry, key: &str, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self {
            telemetry: telemetry.clone(),
            key: key.to_owned(),
            labels: labels.collect(),
            by_code: [const { OnceLock::new() }; CODES],
        }
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.telemetry.now_us()
    }

    pub(crate) fn count(&self, code: Code, began_us: u64) {
        let (calls, elapsed) = self.by_code[codes::index(code)].get_or_init(|| self.handles(code));
        calls.increment(1);
        let elapsed_us = self.now_us().saturating_sub(began_us);
        elapsed.record(std::time::Duration::from_micros(elapsed_us).as_secs_f64() * 1000.0);
    }

    fn handles(&self, code: Code) -> (Counter, Histogram) {
        let own = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let labels: Vec<(&str, &str)> = own.chain([("status", codes::name(code))]).collect();
        let elapsed = format!("{}.elapsed_time", self.key);
        (self.telemetry.counter(&self.key, &labels), self.telemetry.samples(&elapsed, &labels))
    }
}
