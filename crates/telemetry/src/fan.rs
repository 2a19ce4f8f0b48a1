//! One handle for several sinks.

use std::sync::Arc;

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn};

/// Tells all of them the same.
struct Fan<T>(Vec<T>);

/// The one, or one that stands for all; empty without any.
macro_rules! joined {
    ($name:ident, $handle:ty) => {
        pub(crate) fn $name(mut handles: Vec<$handle>) -> $handle {
            match (handles.pop(), handles.is_empty()) {
                (None, _) => <$handle>::noop(),
                (Some(one), true) => one,
                (Some(last), false) => {
                    handles.push(last);
                    <$handle>::from_arc(Arc::new(Fan(handles)))
                }
            }
        }
    };
}

joined!(counter, Counter);
joined!(gauge, Gauge);
joined!(histogram, Histogram);

impl CounterFn for Fan<Counter> {
    fn increment(&self, value: u64) {
        self.0.iter().for_each(|one| one.increment(value));
    }

    fn absolute(&self, value: u64) {
        self.0.iter().for_each(|one| one.absolute(value));
    }
}

impl GaugeFn for Fan<Gauge> {
    fn increment(&self, value: f64) {
        self.0.iter().for_each(|one| one.increment(value));
    }

    fn decrement(&self, value: f64) {
        self.0.iter().for_each(|one| one.decrement(value));
    }

    fn set(&self, value: f64) {
        self.0.iter().for_each(|one| one.set(value));
    }
}

impl HistogramFn for Fan<Histogram> {
    fn record(&self, value: f64) {
        self.0.iter().for_each(|one| one.record(value));
    }
}
