//! Makes handles for metrics: full names, the labels that all have, what is filtered out.

use std::fmt;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use tokio::time::Instant;

use crate::config::TelemetryConfig;
use crate::fan;
use crate::filter::Filter;
use crate::names::sanitized;

/// Parts of a name stand apart by this; Prometheus makes `_` of it.
const SEPARATOR: char = '.';

static METADATA: Metadata<'static> = Metadata::new("spindle", Level::INFO, None);

/// What a sink makes its handles of.
pub(crate) type Sink = Box<dyn Recorder + Send + Sync>;

/// Makes handles; off, all of them are empty. Cheap to clone.
#[derive(Clone, Default)]
pub struct Telemetry(Option<Arc<Emitter>>);

struct Emitter {
    prefix: String,
    common: Vec<Label>,
    filter: Filter,
    recorders: Vec<Sink>,
    /// Times of calls count from here.
    epoch: Instant,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Telemetry(on)" } else { "Telemetry(off)" })
    }
}

impl Telemetry {
    /// Without sinks: every handle is empty.
    pub fn off() -> Self {
        Self::default()
    }

    /// Into `recorders`, under `prefix` unless the configuration has another. `host` is this machine's name.
    pub(crate) fn new(
        config: &TelemetryConfig,
        prefix: &str,
        trust_domain: &str,
        host: Option<String>,
        recorders: Vec<Sink>,
    ) -> Self {
        let filter = Filter::new(config);
        let mut common = Vec::new();
        if config.trust_domain_label {
            common.push(Label::new("trust_domain", sanitized(trust_domain)));
        }
        if let Some(host) = host.filter(|_| config.host_label) {
            common.push(Label::new("host", host));
        }
        common.retain(|label| filter.passes_label(label.key()));
        let prefix = config.prefix.clone().unwrap_or_else(|| prefix.to_owned());
        Self(Some(Arc::new(Emitter { prefix, common, filter, recorders, epoch: Instant::now() })))
    }

    /// Whether there is a sink.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A counter. `key` has dots between its parts.
    pub fn counter(&self, key: &str, labels: &[(&str, &str)]) -> Counter {
        fan::counter(self.each(key, labels, |sink, key| sink.register_counter(key, &METADATA)))
    }

    /// A gauge, which keeps the value that it was set to last.
    pub fn gauge(&self, key: &str, labels: &[(&str, &str)]) -> Gauge {
        fan::gauge(self.each(key, labels, |sink, key| sink.register_gauge(key, &METADATA)))
    }

    /// Samples, of which sum, number and quantiles are told.
    pub fn samples(&self, key: &str, labels: &[(&str, &str)]) -> Histogram {
        fan::histogram(self.each(key, labels, |sink, key| sink.register_histogram(key, &METADATA)))
    }

    /// Microseconds since the start; 0 when off.
    pub(crate) fn now_us(&self) -> u64 {
        let Some(emitter) = &self.0 else { return 0 };
        u64::try_from(emitter.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A handle of each sink; none when the metric is not emitted.
    fn each<T>(
        &self,
        key: &str,
        labels: &[(&str, &str)],
        register: impl Fn(&dyn Recorder, &Key) -> T,
    ) -> Vec<T> {
        let Some(emitter) = self.0.as_deref() else { return Vec::new() };
        let name = match emitter.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}{SEPARATOR}{key}"),
        };
        if !emitter.filter.passes(&name) {
            return Vec::new();
        }
        let own = labels.iter().map(|(name, value)| Label::new(sanitized(name), sanitized(value)));
        let mut all: Vec<Label> = own.filter(|label| emitter.filter.passes_label(label.key())).collect();
        all.extend(emitter.common.iter().cloned());
        let key = Key::from_parts(name, all);
        emitter.recorders.iter().map(|sink| register(sink.as_ref(), &key)).collect()
    }
}
