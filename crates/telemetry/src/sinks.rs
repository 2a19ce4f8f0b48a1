//! Opens the sinks of a configuration, and runs them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use metrics::Gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use spindle_runtime::{HttpPort, Shutdown, TaskSet};
use tokio::time::{Instant, interval};
use tracing::info;

use crate::config::TelemetryConfig;
use crate::emitter::{Sink, Telemetry};
use crate::prometheus::{self, Scraped};
use crate::statsd::Pusher;
use crate::tls::{self, TlsFault};

/// How often the time since the start is told, and samples are summed up so that they take no more room.
const UPKEEP: Duration = Duration::from_secs(10);

/// Where Linux tells this machine's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Why a sink cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The port cannot be had.
    #[error("cannot listen on {address} for Prometheus")]
    Port {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate of the port cannot be used.
    #[error("cannot use TLS for Prometheus")]
    Tls(#[from] TlsFault),
    /// A bug of ours.
    #[error("the metrics cannot be kept: {0}")]
    Recorder(String),
}

/// Sinks that have what they need and wait to be run.
#[derive(Default)]
pub struct Sinks {
    kept: Option<PrometheusHandle>,
    scraped: Option<Scraped>,
    is_dumped: bool,
    pushers: Vec<Pusher>,
    uptime: Option<Uptime>,
}

/// Tells how long the process has been at work.
#[derive(Clone)]
pub(crate) struct Uptime {
    gauge: Gauge,
    since: Instant,
}

impl Uptime {
    pub(crate) fn tell(&self) {
        // Whole milliseconds, as SPIRE has them.
        self.gauge.set((self.since.elapsed().as_secs_f64() * 1000.0).floor());
    }
}

impl Sinks {
    /// Opens the sinks of `config` and makes what feeds them; without any, telemetry is off. `prefix` is the first part of
    /// names unless the configuration has another. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When the port is taken or not allowed, or its certificate cannot be used.
    pub fn open(
        config: &TelemetryConfig,
        prefix: &str,
        trust_domain: &str,
    ) -> Result<(Telemetry, Self), SinkError> {
        let (mut sinks, mut recorders) = (Self::default(), Vec::<Sink>::new());
        if config.prometheus.is_some() || config.in_memory {
            let recorder = prometheus::recorder()?;
            sinks.kept = Some(recorder.handle());
            recorders.push(Box::new(recorder));
        }
        if let Some(port) = &config.prometheus {
            let tls = port.tls.as_ref().map(tls::acceptor).transpose()?;
            let address = port.address;
            let port = HttpPort::bind(address).map_err(|source| SinkError::Port { address, source })?;
            sinks.scraped = Some(Scraped { port, tls });
        }
        for push in &config.push {
            let (pusher, recorder) = Pusher::new(push.clone());
            sinks.pushers.push(pusher);
            recorders.push(Box::new(recorder));
        }
        if recorders.is_empty() {
            return Ok((Telemetry::off(), sinks));
        }
        sinks.is_dumped = config.in_memory;
        let telemetry = Telemetry::new(config, prefix, trust_domain, host_name(), recorders);
        sinks.uptime = Some(Uptime { gauge: telemetry.gauge("uptime_in_ms", &[]), since: Instant::now() });
        Ok((telemetry, sinks))
    }

    /// Where Prometheus is answered, with the real port; none when nowhere.
    pub fn prometheus_addr(&self) -> Option<SocketAddr> {
        self.scraped.as_ref().map(|scraped| scraped.port.address())
    }

    /// Runs the sinks as tasks until the shutdown begins.
    pub fn spawn(self, tasks: &mut TaskSet, shutdown: &Shutdown) {
        let Self { kept, scraped, is_dumped, pushers, uptime } = self;
        let Some(uptime) = uptime else { return };
        for pusher in pushers {
            tasks.spawn_infallible("metrics push", pusher.run(shutdown.clone()));
        }
        if let (Some(scraped), Some(values)) = (scraped, kept.clone()) {
            info!(address = %scraped.port.address(), "Starting prometheus exporter");
            let serve = scraped.serve(values, uptime.clone(), shutdown.clone());
            tasks.spawn_infallible("Prometheus", serve);
        }
        if let Some(values) = kept.clone().filter(|_| is_dumped) {
            tasks.spawn("metrics dump", prometheus::dump_on_signal(values, uptime.clone(), shutdown.clone()));
        }
        tasks.spawn_infallible("metrics upkeep", keep_up(kept, uptime, shutdown.clone()));
    }
}

async fn keep_up(kept: Option<PrometheusHandle>, uptime: Uptime, shutdown: Shutdown) {
    let mut ticks = interval(UPKEEP);
    loop {
        // Cancel-safe: both only wait.
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.begun() => return,
        }
        uptime.tell();
        if let Some(kept) = &kept {
            kept.run_upkeep();
        }
    }
}

/// This machine's name; none where it cannot be told.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string(HOST_NAME).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
pub(crate) mod tests;
