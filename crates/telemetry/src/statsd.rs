//! StatsD and DogStatsD over UDP: each event is a line, lines share packets.
//!
//! Events wait in a queue of fixed length; what does not fit is dropped and counted, so that a collector that is away delays
//! nobody. Start at [`Pusher::new`] for the recorder and [`Pusher::run`] for the task that sends.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use spindle_runtime::Shutdown;
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::config::{PushAddress, PushConfig, PushDialect};

/// Lines that wait to be sent, as many as in SPIRE's library.
const LINES_WAITING: usize = 4096;

/// The largest packet, in bytes: with its headers it fits into one Ethernet frame.
const PACKET_BYTES_MAX: usize = 1400;

/// How long a line waits for others to share its packet.
const PACKET_WAIT: Duration = Duration::from_millis(100);

/// The pause after a failure. Lines that come meanwhile are dropped.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// Sends what its recorder is told.
pub(crate) struct Pusher {
    address: PushAddress,
    lines: mpsc::Receiver<String>,
    dropped: Arc<AtomicU64>,
}

/// Turns events into lines.
pub(crate) struct PushRecorder {
    dialect: PushDialect,
    out: Out,
    /// Values of gauges, which are changed by differences here and told whole.
    gauges: Mutex<HashMap<Key, Arc<GaugeLine>>>,
}

/// The way to the task.
#[derive(Clone)]
struct Out {
    lines: mpsc::Sender<String>,
    dropped: Arc<AtomicU64>,
}

impl Out {
    fn send(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What stands around the value in each line of one metric.
struct Line {
    out: Out,
    name: String,
    tags: String,
}

impl Line {
    fn new(out: &Out, dialect: PushDialect, key: &Key) -> Self {
        let (mut name, mut tags) = (plain(key.name()), String::new());
        for label in key.labels() {
            match dialect {
                PushDialect::Statsd => {
                    let _ = write!(name, ".{}", plain(label.value()));
                }
                PushDialect::DogStatsd => {
                    tags.push_str(if tags.is_empty() { "|#" } else { "," });
                    let _ = write!(tags, "{}:{}", plain(label.key()), plain(label.value()));
                }
            }
        }
        Self { out: out.clone(), name, tags }
    }

    fn send(&self, value: impl std::fmt::Display, kind: &str) {
        self.out.send(format!("{}:{value}|{kind}{}\n", self.name, self.tags));
    }
}

/// Without the characters that end a part of a line.
fn plain(text: &str) -> String {
    text.replace([':', ' ', '|', '\n', '#', ','], "_")
}

impl CounterFn for Line {
    fn increment(&self, value: u64) {
        self.send(value, "c");
    }

    /// Counters are only ever counted up here.
    fn absolute(&self, _: u64) {}
}

impl HistogramFn for Line {
    fn record(&self, value: f64) {
        self.send(value, "ms");
    }
}

struct GaugeLine {
    line: Line,
    value_bits: AtomicU64,
}

impl GaugeLine {
    fn change(&self, change: impl Fn(f64) -> f64) {
        let changed = |bits: u64| Some(change(f64::from_bits(bits)).to_bits());
        // Never refused, so both arms hold the bits before.
        let (Ok(before) | Err(before)) =
            self.value_bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
        self.line.send(change(f64::from_bits(before)), "g");
    }
}

impl GaugeFn for GaugeLine {
    fn increment(&self, value: f64) {
        self.change(|before| before + value);
    }

    fn decrement(&self, value: f64) {
        self.change(|before| before - value);
    }

    fn set(&self, value: f64) {
        self.change(|_| value);
    }
}

impl Recorder for PushRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Line::new(&self.out, self.dialect, key)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let line = Line::new(&self.out, self.dialect, key);
            Arc::new(GaugeLine { line, value_bits: AtomicU64::new(0f64.to_bits()) })
        };
        Gauge::from_arc(gauges.entry(key.clone()).or_insert_with(make).clone())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Line::new(&self.out, self.dialect, key)))
    }
}

impl Pusher {
    /// The task and the recorder that feeds it.
    pub(crate) fn new(config: PushConfig) -> (Self, PushRecorder) {
        let (sender, lines) = mpsc::channel(LINES_WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let out = Out { lines: sender, dropped: dropped.clone() };
        let recorder = PushRecorder { dialect: config.dialect, out, gauges: Mutex::default() };
        (Self { address: config.address, lines, dropped }, recorder)
    }

    /// Sends lines until the shutdown begins, and then those that wait.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let (mut socket, mut failures, mut left_over) = (None, 0u32, None);
        loop {
            let first = match left_over.take() {
                Some(line) => line,
                // Cancel-safe: a line is taken only when it is returned.
                None => tokio::select! {
                    biased;
                    line = self.lines.recv() => match line {
                        Some(line) => line,
                        None => return,
                    },
                    () = shutdown.begun() => return,
                },
            };
            let packet = self.packet(first, &mut left_over, &shutdown).await;
            match self.send(&mut socket, &packet).await {
                Ok(()) if failures > 0 => {
                    let dropped = self.dropped.swap(0, Ordering::Relaxed);
                    info!(address = %self.address, failures, dropped, "metrics reach their collector again");
                    failures = 0;
                }
                Ok(()) => {}
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures.is_power_of_two() {
                        warn!(address = %self.address, %error, failures, "metrics do not reach their collector");
                    }
                    socket = None;
                    // Cancel-safe: both only wait.
                    tokio::select! {
                        () = sleep(FAILURE_PAUSE) => {}
                        () = shutdown.begun() => return,
                    }
                }
            }
        }
    }

    /// As many lines as fit and come in time; one that does not fit is left over.
    async fn packet(&mut self, first: String, left_over: &mut Option<String>, shutdown: &Shutdown) -> String {
        let (mut packet, until) = (first, Instant::now() + PACKET_WAIT);
        loop {
            // Cancel-safe: a line is taken only when it is returned. What waits is taken before the end is seen.
            let next = tokio::select! {
                biased;
                next = timeout_at(until, self.lines.recv()) => next,
                () = shutdown.begun() => return packet,
            };
            match next {
                Ok(Some(line)) if packet.len() + line.len() <= PACKET_BYTES_MAX => packet.push_str(&line),
                Ok(line) => {
                    *left_over = line;
                    return packet;
                }
                Err(_) => return packet,
            }
        }
    }

    async fn send(&self, socket: &mut Option<UdpSocket>, packet: &str) -> io::Result<()> {
        if socket.is_none() {
            *socket = Some(connect(&self.address).await?);
        }
        let Some(socket) = socket.as_ref() else { return Ok(()) };
        socket.send(packet.as_bytes()).await.map(drop)
    }
}

async fn connect(address: &PushAddress) -> io::Result<UdpSocket> {
    let mut found = lookup_host((address.host.as_str(), address.port)).await?;
    let remote = found.next().ok_or_else(|| io::Error::other("the name has no address"))?;
    let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(remote).await?;
    Ok(socket)
}

impl std::fmt::Display for PushAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}
