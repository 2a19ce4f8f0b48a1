//! Why an agent cannot start, or cannot go on.

use std::net::SocketAddr;

use spindle_keys::KeyError;
use spindle_spiffe_core::Reason;
use spindle_telemetry::SinkError;
use spindle_transport::UnixBindError;

use crate::bootstrap::BootstrapError;
use crate::data_lock::DataLockError;
use crate::node_identity::StateError;

/// Why an agent ends. Each says what failed; [`AgentError::remedy`] says what to try.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The Workload API's socket cannot be opened.
    #[error("cannot open the Workload API socket")]
    Socket(#[from] UnixBindError),
    /// The admin socket cannot be opened.
    #[error("cannot open the admin socket")]
    AdminSocket(#[source] UnixBindError),
    /// The admin socket lies where workloads can find it.
    #[error("admin_socket_path: {why}")]
    AdminSocketPlace {
        /// Which directory is in the way.
        why: String,
    },
    /// A socket of the broker endpoint cannot be opened.
    #[error("cannot open the broker endpoint: {why}")]
    BrokerEndpoint {
        /// Which socket, and what is wrong with it.
        why: String,
    },
    /// The port for health probes is taken, or not allowed.
    #[error("cannot listen for health probes on {address}")]
    HealthPort {
        /// The address as configured.
        address: SocketAddr,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// A sink of metrics cannot be opened.
    #[error("cannot open telemetry")]
    Telemetry(#[from] SinkError),
    /// The data directory cannot be held.
    #[error("cannot take the agent's data directory")]
    DataDir(#[from] DataLockError),
    /// The agent's keys cannot be opened.
    #[error("cannot open the agent's keys")]
    Keys(#[from] KeyError),
    /// The agent's kept state cannot be read.
    #[error("cannot read the agent's kept state")]
    State(#[from] StateError),
    /// There is no bundle to recognise the server by.
    #[error("cannot load the trust bundle")]
    Bootstrap(#[from] BootstrapError),
    /// The agent has no identity and nothing to get one with.
    #[error("the agent needs a join token: {why}")]
    JoinTokenNeeded {
        /// Why a stored identity does not serve.
        why: String,
    },
    /// The node's certificate or its key cannot be used.
    #[error("the agent cannot prove its node with x509pop: {why}")]
    NodeProof {
        /// Which file, and what is wrong with it.
        why: String,
    },
    /// The server refuses to let the agent in.
    #[error("the server at {target} refused the attestation: {why}")]
    AttestationRefused {
        /// Host and port.
        target: String,
        /// What the server said.
        why: String,
        /// The stable code, in snake case.
        code: String,
    },
    /// The server is not the one that is expected, or does not speak our language, and that did not change.
    #[error("cannot attest to the server at {target}: {why}")]
    AttestationFailed {
        /// Host and port.
        target: String,
        /// What went wrong last.
        why: String,
        /// The stable code, in snake case.
        code: String,
    },
    /// It was told to bootstrap again when it must, and could not.
    #[error("the agent cannot bootstrap again (rebootstrap_mode): its node may not attest again")]
    CannotRebootstrap,
    /// The server does not accept the agent's identity any more, and the agent cannot get a new one by itself.
    #[error("the server no longer accepts this agent: {}", .reason.code())]
    StandingLost {
        /// What the server said.
        reason: Reason,
    },
    /// The agent's own SVID ended before it could be renewed.
    #[error("the agent's SVID has expired and could not be renewed in time")]
    SvidExpired,
    /// A part of the agent ended by itself.
    #[error("{task} ended: {why}")]
    TaskEnded {
        /// Which part.
        task: &'static str,
        /// What it said.
        why: String,
    },
}

impl AgentError {
    /// The stable code of the reason: the server's own, or one of the set known here.
    pub fn reason_code(&self) -> Option<&str> {
        let reason = match self {
            Self::AttestationRefused { code, .. } | Self::AttestationFailed { code, .. } => {
                return Some(code);
            }
            Self::StandingLost { reason } => *reason,
            Self::SvidExpired => Reason::AgentExpired,
            Self::Socket(UnixBindError::InUse { .. })
            | Self::AdminSocket(UnixBindError::InUse { .. })
            | Self::DataDir(DataLockError::Held { .. }) => Reason::AgentRunning,
            Self::Socket(_)
            | Self::AdminSocket(_)
            | Self::AdminSocketPlace { .. }
            | Self::BrokerEndpoint { .. }
            | Self::HealthPort { .. }
            | Self::Telemetry(_) => Reason::LocalFailure,
            Self::DataDir(_) | Self::Keys(_) | Self::State(_) | Self::NodeProof { .. } => {
                Reason::LocalFailure
            }
            Self::Bootstrap(_) => Reason::TrustBundleUnusable,
            Self::JoinTokenNeeded { .. } => Reason::JoinTokenNeeded,
            Self::CannotRebootstrap => Reason::LocalFailure,
            Self::TaskEnded { .. } => Reason::Internal,
        };
        Some(reason.code())
    }

    /// What the operator can try, in one sentence.
    pub fn remedy(&self) -> &'static str {
        if let Some(code) = self.reason_code()
            && let Some(reason) = Reason::ALL.iter().find(|reason| reason.code() == code)
            && matches!(self, Self::AttestationRefused { .. } | Self::AttestationFailed { .. })
        {
            return reason.remedy();
        }
        match self {
            Self::Socket(_) => "stop the other agent, or choose another socket path",
            Self::AdminSocket(_) => "stop the other agent, or choose another admin_socket_path",
            Self::AdminSocketPlace { .. } => {
                "choose a directory for admin_socket_path that workloads are not given"
            }
            Self::BrokerEndpoint { .. } => {
                "choose another socket_path or bind_address in experimental.broker, away from the public socket's directory"
            }
            Self::HealthPort { .. } => "choose another bind_port in health_checks, or stop who has it",
            Self::Telemetry(_) => {
                "choose another port in telemetry.Prometheus, or check the files of its tls block"
            }
            Self::DataDir(DataLockError::Held { .. }) => {
                "stop the other agent, or choose another data directory"
            }
            Self::DataDir(_) | Self::Keys(_) | Self::State(_) => {
                "check the data directory: its owner, its mode, and free space"
            }
            Self::Bootstrap(_) => {
                "write the server's bundle with `bundle show` and point trust_bundle_path at it"
            }
            Self::JoinTokenNeeded { .. } => {
                "generate one with `token generate` on the server and pass it as join token"
            }
            Self::NodeProof { .. } => {
                "check private_key_path, certificate_path and intermediates_path: PEM files that belong together"
            }
            Self::AttestationRefused { .. } => "generate a new token with `token generate`; each works once",
            Self::AttestationFailed { .. } => {
                "check the server's address, the trust domain and the trust bundle"
            }
            Self::CannotRebootstrap => {
                "use a node attestor that attests again, such as x509pop, or set rebootstrap_mode to auto"
            }
            Self::StandingLost { reason: Reason::AgentBanned } => Reason::AgentBanned.remedy(),
            Self::StandingLost { .. } | Self::SvidExpired => {
                "generate a new token with `token generate` and start the agent with it"
            }
            Self::TaskEnded { .. } => "look at the agent's log",
        }
    }
}
