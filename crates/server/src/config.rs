//! What a server needs to know before it starts, as ready values. The command line builds one from file and flags.

mod operations;

use std::net::IpAddr;
use std::path::PathBuf;

use spindle_attest::x509pop;
use spindle_ca::CaSubject;
use spindle_keys::KeyType;
use spindle_spiffe_core::{SpiffeId, TrustDomain};
use spindle_store::StoreKind;

use crate::roles::RoleAssignment;
pub use operations::{Operations, PruneAgents};

/// A server's settings. Lifetimes are in seconds.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The one trust domain this server is the authority of.
    pub trust_domain: TrustDomain,
    /// Address of the TLS listener.
    pub bind_address: IpAddr,
    /// Port of the TLS listener; 0 lets the system choose.
    pub bind_port: u16,
    /// Path of the admin Unix socket.
    pub socket_path: PathBuf,
    /// Where state is kept.
    pub store: StoreSettings,
    /// Where the authority's keys are kept.
    pub keys: KeySettings,
    /// Key type of X.509 authorities.
    pub ca_key_type: KeyType,
    /// Lifetime of an X.509 authority; SPIRE's default is 24 hours.
    pub ca_ttl_secs: i64,
    /// Subject of self-signed authorities.
    pub ca_subject: CaSubject,
    /// Lifetime of X509-SVIDs whose entry names none.
    pub default_x509_svid_ttl_secs: i64,
    /// Lifetime of agents' SVIDs.
    pub agent_ttl_secs: i64,
    /// What holds for JWT-SVIDs.
    pub jwt: JwtSettings,
    /// What holds for WIT-SVIDs.
    pub wit: WitSettings,
    /// How nodes may prove themselves besides join tokens, which are always taken.
    pub node_attestors: NodeAttestorSettings,
    /// Whether each agent shows its own ID as a node selector, `spiffe_id:...`.
    pub agent_spiffe_id_as_selector: bool,
    /// Callers with these SPIFFE IDs may call admin methods.
    pub admin_ids: Vec<SpiffeId>,
    /// Callers that may do less than everything.
    pub roles: Vec<RoleAssignment>,
    /// Which limits hold.
    pub rate_limits: RateLimitSettings,
    /// How many CSRs may wait to be signed; calls beyond that are told when to come back.
    pub signing_queue_max: usize,
    /// How it is looked after.
    pub operations: Operations,
    /// Who signs the server's authority; none means that it is its own root.
    pub upstream: Option<UpstreamSettings>,
}

/// Which upstream authority signs, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamSettings {
    /// A signing certificate with its key, in files that are read anew for each authority.
    Disk(DiskUpstreamSettings),
}

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskUpstreamSettings {
    /// The signing certificate, then what leads from it to a root.
    pub cert_file_path: PathBuf,
    /// Its private key.
    pub key_file_path: PathBuf,
    /// The roots; none means that the one certificate is the root itself.
    pub bundle_file_path: Option<PathBuf>,
}

/// How JWT-SVIDs are made. The default is SPIRE's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSettings {
    /// Whether there are any.
    pub enabled: bool,
    /// Key type of JWT authorities.
    pub key_type: KeyType,
    /// Lifetime of JWT-SVIDs whose entry names none, in seconds.
    pub default_ttl_secs: i64,
    /// Their `iss` claim; none leaves it out.
    pub issuer: Option<String>,
}

impl JwtSettings {
    /// SPIRE's default lifetime of a JWT-SVID, in seconds.
    pub const TTL_SECS: i64 = 300;
}

impl Default for JwtSettings {
    fn default() -> Self {
        Self { enabled: true, key_type: KeyType::EcP256, default_ttl_secs: Self::TTL_SECS, issuer: None }
    }
}

/// How WIT-SVIDs are made. There are none unless they are switched on: what they rest on is not yet stable, and older peers
/// refuse bundle documents with their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitSettings {
    /// Whether there are any.
    pub enabled: bool,
    /// Key type of WIT authorities.
    pub key_type: KeyType,
    /// Their `iss` claim; none leaves it out.
    pub issuer: Option<String>,
}

impl WitSettings {
    /// Lifetime of WIT-SVIDs whose entry names none for X509-SVIDs, in seconds; SPIRE's.
    pub const TTL_SECS: i64 = 3600;
}

impl Default for WitSettings {
    fn default() -> Self {
        Self { enabled: false, key_type: KeyType::EcP256, issuer: None }
    }
}

/// Whether one caller may call only so often. Both are on in SPIRE, unless switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitSettings {
    /// One attestation a second.
    pub attestation: bool,
    /// 500 SVIDs a second.
    pub signing: bool,
}

impl Default for RateLimitSettings {
    fn default() -> Self {
        Self { attestation: true, signing: true }
    }
}

/// How nodes may prove themselves besides join tokens. None is on unless it is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAttestorSettings {
    /// By a certificate of the operator's own authority, or by an SVID.
    pub x509pop: Option<x509pop::Settings>,
}

impl NodeAttestorSettings {
    /// Whoever has an SVID whose path begins so can be an agent by it.
    pub fn exchange_prefix(&self) -> Option<&str> {
        self.x509pop.as_ref().and_then(x509pop::Settings::exchange_prefix)
    }
}

/// Which store, and where.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The kind of store.
    pub kind: StoreKind,
    /// Its directory; unused by the memory store.
    pub directory: PathBuf,
}

/// Which key manager, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySettings {
    /// A file of private keys, mode 0600.
    Disk(PathBuf),
    /// Keys die with the process; a restart makes a new authority.
    Memory,
}

impl ServerConfig {
    /// SPIRE's default lifetime of an X.509 authority, in seconds.
    pub const CA_TTL_SECS: i64 = 24 * 3600;
    /// SPIRE's default lifetime of an X509-SVID, in seconds.
    pub const X509_SVID_TTL_SECS: i64 = 3600;
    /// CSRs that may wait to be signed: full batches of twenty agents, some seconds of work, and well within the half
    /// minute after which agents give up.
    pub const SIGNING_QUEUE_MAX: usize = 10_000;
}
