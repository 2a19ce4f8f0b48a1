//! What an agent needs to know to run, as ready values. Files and flags are parsed elsewhere.

mod broker;
mod endpoints;
mod kubelet;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use spindle_attest::UnixConfig;
use spindle_keys::KeyType;
use spindle_runtime::Logs;
use spindle_spiffe_core::{SpiffeId, TrustDomain};
use spindle_telemetry::TelemetryConfig;
use spindle_transport::KeyExchange;
use zeroize::Zeroizing;

pub use broker::{ANY_REFERENCE_TYPE, AllowedBroker, AllowedReferenceType, BrokerConfig};
pub use endpoints::{RateLimits, SdsConfig};
pub use kubelet::{KubeletConfig, KubeletCredentials, KubeletPort, KubeletTrust};
pub use spindle_runtime::HealthListener;
pub use spindle_transport::Rate;

/// SPIRE's interval between polls, for servers without the push stream.
pub const SYNC_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// SPIRE's sizes of the caches of X509-SVIDs and JWT-SVIDs, in SVIDs.
pub const SVID_CACHE_SIZE_DEFAULT: usize = 1000;

/// How long a server may take for a JWT-SVID while one in the cache would still do, SPIRE's.
pub const JWT_SVID_CACHE_HIT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// How long a server that nobody trusts any more is borne before the agent bootstraps again, SPIRE's.
pub const REBOOTSTRAP_DELAY_DEFAULT: Duration = Duration::from_secs(600);

/// The proc file system of the agent's own process namespace.
pub const PROC_ROOT_DEFAULT: &str = "/proc";

/// Everything about one agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The trust domain of server, agent and workloads.
    pub trust_domain: TrustDomain,
    /// Name or address of the server, an IPv6 address without brackets.
    pub server_address: String,
    /// TCP port of the server.
    pub server_port: u16,
    /// Directory for the agent's own identity and bundle; made when missing, private to the user.
    pub data_dir: PathBuf,
    /// The Workload API's socket.
    pub socket_path: PathBuf,
    /// For the first attestation; not needed while a stored identity is good.
    pub join_token: Option<JoinToken>,
    /// A certificate to prove the node with, which may be done again and again. A join token wins over it, as in SPIRE.
    pub x509pop: Option<X509PopSource>,
    /// How the server is recognised on the first contact; not needed while a stored bundle is good.
    pub bootstrap: Bootstrap,
    /// Where the agent's own keys are kept.
    pub keys: KeyStorage,
    /// The unix workload attestor; none leaves it off.
    pub unix_attestor: Option<UnixConfig>,
    /// Where processes are looked up: the host's proc file system when the agent runs in a container.
    pub proc_root: PathBuf,
    /// The kind of key of workload SVIDs.
    pub workload_key_type: KeyType,
    /// How often to poll a server that has no push stream.
    pub sync_interval: Duration,
    /// Whether callers without an identity may fetch the own trust domain's bundle.
    pub allow_unauthenticated_verifiers: bool,
    /// The socket for administration; none leaves it off. Not in or below the directory of the public socket, by the letters of
    /// the two paths, while there is a public socket.
    pub admin_socket_path: Option<PathBuf>,
    /// Whether the public socket does without the Workload API.
    pub disable_workload_api: bool,
    /// Whether the public socket does without Envoy's SDS. Without both services there is no public socket.
    pub disable_sds_api: bool,
    /// Who may use the Delegated Identity API: members of the own trust domain.
    pub authorized_delegates: Vec<SpiffeId>,
    /// Names and forms of Envoy's SDS.
    pub sds: SdsConfig,
    /// Which claims of a foreign JWT-SVID are handed on, beside `sub`, `exp` and `aud`.
    pub allowed_foreign_jwt_claims: Vec<String>,
    /// How many X509-SVIDs are kept ready; those that a workload holds a stream for may be more.
    pub x509_svid_cache_max_size: usize,
    /// How many JWT-SVIDs are kept at most.
    pub jwt_svid_cache_max_size: usize,
    /// How long the server may take for a JWT-SVID while one in the cache would still do.
    pub jwt_svid_cache_hit_timeout: Duration,
    /// How long workloads are to get by without a server, at least 24 hours; none renews X509-SVIDs at half of their life.
    pub availability_target: Option<Duration>,
    /// Limits for each set of selectors.
    pub rate_limits: RateLimits,
    /// The broker endpoint; none leaves it off.
    pub broker: Option<BrokerConfig>,
    /// The node's kubelet, for pods that brokers name; none when nothing can look them up.
    pub kubelet: Option<KubeletConfig>,
    /// The process's log, whose level can be changed over the admin socket.
    pub logs: Logs,
    /// Where health probes are answered over HTTP; none leaves it off.
    pub health_checks: Option<HealthListener>,
    /// Where metrics go; the default is nowhere.
    pub telemetry: TelemetryConfig,
    /// When the agent bootstraps again because the server's certificate is not trusted.
    pub rebootstrap: Rebootstrap,
    /// The kinds of selectors that may stand in the log, such as `unix:user`.
    pub log_selectors: Vec<String>,
    /// Whether a server without the push stream is asked for differences alone.
    pub use_sync_authorized_entries: bool,
    /// Whether TLS connections need a key exchange that withstands quantum computers.
    pub require_pq_kem: bool,
    /// The known feature flags that are set.
    pub feature_flags: Vec<String>,
    /// How much one process and one user may ask of the public socket.
    pub caller_limits: CallerLimits,
}

/// How much callers of the public socket may ask for before it is known who they are. The agent's own process has no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerLimits {
    /// Connections of one process at a time; none for the listener's own bound.
    pub connections_per_process: Option<usize>,
    /// Connections of all processes of one user at a time; none for three quarters of what there are descriptors for.
    pub connections_per_user: Option<usize>,
    /// Calls of one process at a time, open streams included.
    pub calls_per_process: usize,
    /// Calls of all processes of one user at a time.
    pub calls_per_user: usize,
    /// How often one process is attested, and how often it may connect.
    pub attestations_per_process: Rate,
    /// How often the processes of one user are, and may.
    pub attestations_per_user: Rate,
}

impl Default for CallerLimits {
    /// An honest node is far below: ten thousand workloads of one user that all start at the same moment are served.
    fn default() -> Self {
        Self {
            connections_per_process: None,
            connections_per_user: None,
            calls_per_process: 4096,
            calls_per_user: 32_768,
            attestations_per_process: Rate::of_callers(200),
            attestations_per_user: Rate::of_callers(2000),
        }
    }
}

/// When the agent bootstraps again because the server's certificate is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebootstrap {
    /// Whether at all.
    pub mode: RebootstrapMode,
    /// How long such a server is borne first.
    pub delay: Duration,
}

/// Whether an agent bootstraps again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RebootstrapMode {
    /// Never.
    #[default]
    Never,
    /// If the node may attest again.
    Auto,
    /// Yes, and a node that may not attest again is an error.
    Always,
}

/// A one-time secret for joining. Never printed, wiped on drop.
#[derive(Clone)]
pub struct JoinToken(Zeroizing<String>);

/// Where the node's certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum X509PopSource {
    /// In PEM files, which are read anew for each attestation.
    Files {
        /// The private key: RSA or EC, in PKCS#8, PKCS#1 or SEC 1.
        private_key: PathBuf,
        /// The certificate, and after it any that vouch for it.
        certificate: PathBuf,
        /// More certificates that vouch for it.
        intermediates: Option<PathBuf>,
    },
    /// At another agent: the SVID that its Workload API gives this one.
    WorkloadApi {
        /// Its socket.
        socket: PathBuf,
    },
}

/// How the server is recognised before a bundle is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// By a bundle in a file.
    File {
        /// The file.
        path: PathBuf,
        /// What is in it.
        format: BundleFormat,
    },
    /// By a bundle fetched once.
    Url {
        /// An `https` address, or with `unix_socket` an `http` one.
        url: String,
        /// Fetch over this socket instead of the network.
        unix_socket: Option<PathBuf>,
        /// What is answered.
        format: BundleFormat,
    },
    /// By the bundle that another agent's Workload API gives out.
    WorkloadApi {
        /// Its socket.
        socket: PathBuf,
    },
    /// Not at all: whoever answers as the server is believed once.
    Insecure,
}

/// How a bundle is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BundleFormat {
    /// Certificates in PEM.
    #[default]
    Pem,
    /// A SPIFFE bundle document.
    Spiffe,
}

/// Where the agent's own keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyStorage {
    /// In `keys.json` below a directory, so that a restarted agent goes on with its identity.
    Disk {
        /// The directory.
        directory: PathBuf,
    },
    /// Nowhere: a restart needs a new join token.
    Memory,
}

impl AgentConfig {
    /// A configuration with SPIRE's defaults for everything that has one.
    pub fn new(
        trust_domain: TrustDomain,
        server_address: impl Into<String>,
        server_port: u16,
        data_dir: impl Into<PathBuf>,
        socket_path: impl Into<PathBuf>,
        bootstrap: Bootstrap,
    ) -> Self {
        let data_dir = data_dir.into();
        Self {
            trust_domain,
            server_address: server_address.into(),
            server_port,
            socket_path: socket_path.into(),
            join_token: None,
            x509pop: None,
            bootstrap,
            keys: KeyStorage::Disk { directory: data_dir.clone() },
            data_dir,
            unix_attestor: Some(UnixConfig::default()),
            proc_root: PathBuf::from(PROC_ROOT_DEFAULT),
            workload_key_type: KeyType::EcP256,
            sync_interval: SYNC_INTERVAL_DEFAULT,
            allow_unauthenticated_verifiers: false,
            admin_socket_path: None,
            disable_workload_api: false,
            disable_sds_api: false,
            authorized_delegates: Vec::new(),
            sds: SdsConfig::default(),
            allowed_foreign_jwt_claims: Vec::new(),
            x509_svid_cache_max_size: SVID_CACHE_SIZE_DEFAULT,
            jwt_svid_cache_max_size: SVID_CACHE_SIZE_DEFAULT,
            jwt_svid_cache_hit_timeout: JWT_SVID_CACHE_HIT_TIMEOUT_DEFAULT,
            availability_target: None,
            rate_limits: RateLimits::default(),
            broker: None,
            kubelet: None,
            logs: Logs::default(),
            health_checks: None,
            telemetry: TelemetryConfig::default(),
            rebootstrap: Rebootstrap { mode: RebootstrapMode::Never, delay: REBOOTSTRAP_DELAY_DEFAULT },
            log_selectors: Vec::new(),
            use_sync_authorized_entries: true,
            require_pq_kem: false,
            feature_flags: Vec::new(),
            caller_limits: CallerLimits::default(),
        }
    }
}

impl AgentConfig {
    /// How keys of connections to the server may be agreed on.
    pub(crate) fn key_exchange(&self) -> KeyExchange {
        if self.require_pq_kem { KeyExchange::RequirePostQuantum } else { KeyExchange::PreferPostQuantum }
    }
}

impl JoinToken {
    /// Takes the token as it was given.
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken")
    }
}
