//! Metrics by SPIRE's names and with its labels, and the sinks they go to: Prometheus, StatsD, DogStatsD and the log.
//!
//! Who has something to count keeps a handle ([`Counter`], [`Gauge`], [`Histogram`], [`CallMeter`], [`RpcMeter`]); with
//! telemetry off each handle is empty and costs a comparison. Keys and labels come from the program, never from a caller, so
//! their number is bounded. Nothing is global: each [`Telemetry`] belongs to who started it. Start at [`Sinks::open`].

mod call;
mod codes;
mod config;
mod emitter;
mod fan;
mod filter;
mod names;
mod prometheus;
mod rpc;
mod sinks;
mod statsd;
mod tls;

pub use call::{CallMeter, CallTimer};
pub use config::{
    ClientTrust, PrometheusConfig, PrometheusTls, PushAddress, PushConfig, PushDialect, TelemetryConfig,
};
pub use emitter::Telemetry;
pub use metrics::{Counter, Gauge, Histogram};
pub use names::rpc_key;
pub use rpc::{Call, MeterLayer, Metered, Metering, RpcMeter};
pub use sinks::{SinkError, Sinks};
pub use tls::TlsFault;
