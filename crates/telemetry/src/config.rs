//! What telemetry needs to know, as ready values. Files are parsed elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where metrics go, and how they are called. The default is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// A port to be scraped.
    pub prometheus: Option<PrometheusConfig>,
    /// Collectors that are sent each event.
    pub push: Vec<PushConfig>,
    /// Whether SIGUSR1 writes all values into the log.
    pub in_memory: bool,
    /// The first part of each name, instead of the process's own.
    pub prefix: Option<String>,
    /// Whether each metric has the label `trust_domain`.
    pub trust_domain_label: bool,
    /// Whether each metric has the label `host`.
    pub host_label: bool,
    /// Prefixes of names, dots between the parts, that are emitted although a shorter one is blocked.
    pub allowed_prefixes: Vec<String>,
    /// Prefixes of names that are not emitted.
    pub blocked_prefixes: Vec<String>,
    /// The labels that are emitted; empty for all.
    pub allowed_labels: Vec<String>,
    /// Labels that are not emitted.
    pub blocked_labels: Vec<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            prometheus: None,
            push: Vec::new(),
            in_memory: false,
            prefix: None,
            trust_domain_label: false,
            host_label: true,
            allowed_prefixes: Vec::new(),
            blocked_prefixes: Vec::new(),
            allowed_labels: Vec::new(),
            blocked_labels: Vec::new(),
        }
    }
}

/// A port that Prometheus scrapes. Any path is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusConfig {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// None for plain HTTP.
    pub tls: Option<PrometheusTls>,
}

/// The certificate of the port, in PEM files that are read at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusTls {
    /// The certificate, and after it those that vouch for it.
    pub certificate: PathBuf,
    /// Its private key.
    pub private_key: PathBuf,
    /// Which clients may scrape.
    pub clients: ClientTrust,
}

/// Which clients may scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientTrust {
    /// All.
    Anyone,
    /// Those with a certificate under one of the authorities in this PEM file.
    Authorities(PathBuf),
}

/// A collector that is sent each event over UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    /// Where it is.
    pub address: PushAddress,
    /// What it understands.
    pub dialect: PushDialect,
}

/// Host and port of a collector. The name is looked up when the first event is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushAddress {
    /// A name, or an address, an IPv6 one without brackets.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

/// What a collector understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushDialect {
    /// StatsD: values of labels become parts of the name.
    Statsd,
    /// DogStatsD: labels become tags.
    DogStatsd,
}
