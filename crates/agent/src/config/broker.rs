//! `experimental.broker`: who may fetch identities on behalf of workloads, and where.

use std::net::SocketAddr;
use std::path::PathBuf;

use spindle_spiffe_core::SpiffeId;

/// The type URL that stands for every type of reference.
pub const ANY_REFERENCE_TYPE: &str = "*";

/// The broker endpoint: at least one of the two places is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// A Unix socket.
    pub socket_path: Option<PathBuf>,
    /// A TCP address.
    pub bind_address: Option<SocketAddr>,
    /// Who may call, each named once.
    pub brokers: Vec<AllowedBroker>,
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedBroker {
    /// Its SPIFFE ID, of any trust domain.
    pub id: SpiffeId,
    /// How it may name a workload, at least one way.
    pub allowed_reference_types: Vec<AllowedReferenceType>,
}

/// One way to name a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedReferenceType {
    /// The type URL as it stands in the call, or [`ANY_REFERENCE_TYPE`], which then is the only one.
    pub type_url: String,
    /// Whether it may be used over TCP as well.
    pub allow_over_tcp: bool,
}
