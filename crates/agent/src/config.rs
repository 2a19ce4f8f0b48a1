//! What an agent needs to know to run, as ready values. Files and flags are parsed elsewhere.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use spindle_attest::UnixConfig;
use spindle_keys::KeyType;
use spindle_spiffe_core::TrustDomain;
use zeroize::Zeroizing;

/// SPIRE's interval between polls, for servers without the push stream.
pub const SYNC_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

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
        }
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
