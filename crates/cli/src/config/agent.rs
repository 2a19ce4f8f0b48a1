//! The agent's settings: SPIRE's keys of `agent { … }` and `plugins { … }`, checked.
//!
//! [`RawAgent`] mirrors the file; flags are laid over it with [`RawAgent::over`]; `TryFrom` makes it ready.

mod bootstrap;
mod broker;
mod defaults;
mod experimental;
mod jwt;
mod known;
mod kubelet;
mod limits;
mod plugins;
mod sockets;

use std::path::PathBuf;
use std::time::Duration;

use spindle_agent::config::{BrokerConfig, KubeletConfig};
use spindle_keys::KeyType;
use spindle_runtime::LogSettings;
use spindle_server::HealthListener;
use spindle_spiffe_core::TrustDomain;
use spindle_telemetry::TelemetryConfig;

pub use bootstrap::{BootstrapChoice, BundleFormat, JoinToken, RawBootstrap, TrustChoice};
pub use defaults::print_defaults;
pub use experimental::ExperimentalChoice;
pub use jwt::JwtChoice;
pub use limits::LimitChoice;
pub use plugins::{KeyChoice, UnixChoice, X509PopChoice};
pub use sockets::{RawSockets, SocketChoice};

use super::ConfigError;
use super::keys::check_keys;
use super::logs::RawLogs;
use super::section::Section;
use super::values::{key_type, port, required, trust_domain};
use crate::hcl::Item;

/// SPIRE's default public socket.
pub const SOCKET_PATH: &str = "/tmp/spire-agent/public/api.sock";

/// Where SPIRE's tools look for the admin socket; the agent opens one only where its file says.
pub const ADMIN_SOCKET_PATH: &str = "/tmp/spire-agent/private/admin.sock";

/// SPIRE's default interval between polls.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Keys of the file and flags as written; what no flag changes is checked already.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawAgent {
    /// `trust_domain`.
    pub trust_domain: Option<String>,
    /// `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// `server_address`.
    pub server_address: Option<String>,
    /// `server_port`.
    pub server_port: Option<i64>,
    /// The keys of sockets and of what they offer.
    pub sockets: RawSockets,
    /// The keys of the first contact with the server.
    pub bootstrap: RawBootstrap,
    /// `workload_x509_svid_key_type`.
    pub workload_x509_svid_key_type: Option<String>,
    /// `allow_unauthenticated_verifiers`.
    pub allow_unauthenticated_verifiers: Option<bool>,
    /// The keys of JWT-SVIDs.
    pub jwt: JwtChoice,
    /// The keys of sizes and rates.
    pub limits: LimitChoice,
    /// `experimental { broker }`.
    pub broker: Option<BrokerConfig>,
    /// The rest of `experimental`.
    pub experimental: ExperimentalChoice,
    /// `log_selectors`.
    pub log_selectors: Vec<String>,
    /// The log keys.
    pub logs: RawLogs,
    /// `health_checks`.
    pub health_checks: Option<HealthListener>,
    /// `telemetry`.
    pub telemetry: TelemetryConfig,
    /// `plugins { KeyManager … }`.
    pub keys: Option<KeyChoice>,
    /// `plugins { NodeAttestor "x509pop" … }`; none when the node joins with tokens.
    pub x509pop: Option<X509PopChoice>,
    /// `plugins { WorkloadAttestor "unix" … }`; none when the block is missing or disabled.
    pub unix: Option<UnixChoice>,
    /// `plugins { WorkloadAttestor "k8s" … }`.
    pub kubelet: Option<KubeletConfig>,
    /// What the operator should know about keys without effect.
    pub notes: Vec<String>,
}

/// The agent's settings, ready to be used.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSettings {
    /// The trust domain of the server.
    pub trust_domain: TrustDomain,
    /// The server's host name or address.
    pub server_address: String,
    /// The server's port.
    pub server_port: u16,
    /// Where the agent keeps its SVID and bundle.
    pub data_dir: PathBuf,
    /// The sockets and what they offer.
    pub sockets: SocketChoice,
    /// The first contact with the server.
    pub bootstrap: BootstrapChoice,
    /// Key type of workloads' SVIDs.
    pub workload_key_type: KeyType,
    /// Whether callers without an identity may fetch the trust bundle.
    pub allow_unauthenticated_verifiers: bool,
    /// What is done with JWT-SVIDs.
    pub jwt: JwtChoice,
    /// Sizes and rates.
    pub limits: LimitChoice,
    /// The broker endpoint.
    pub broker: Option<BrokerConfig>,
    /// What SPIRE calls experimental.
    pub experimental: ExperimentalChoice,
    /// Where the agent's own keys are kept.
    pub keys: KeyChoice,
    /// The node's certificate, when it does not join with tokens.
    pub x509pop: Option<X509PopChoice>,
    /// How local callers are attested.
    pub unix: UnixChoice,
    /// Where pods are looked up that brokers name.
    pub kubelet: Option<KubeletConfig>,
    /// The kinds of selectors that may stand in the log.
    pub log_selectors: Vec<String>,
    /// Where and how to log.
    pub logs: LogSettings,
    /// Where health probes are answered.
    pub health_checks: Option<HealthListener>,
    /// Where metrics go.
    pub telemetry: TelemetryConfig,
    /// What the operator should know.
    pub notes: Vec<String>,
}

impl RawAgent {
    /// Reads a parsed file.
    ///
    /// # Errors
    /// The first key that is unknown, unsupported, repeated or of the wrong kind.
    pub fn read(items: &[Item]) -> Result<Self, ConfigError> {
        let top = Section::new("", items);
        let mut notes = Vec::new();
        check_keys(&top, known::TOP, &mut notes)?;
        let health_checks = super::health::listener(&top, &mut notes)?;
        let telemetry = super::telemetry::telemetry(&top, &mut notes)?;
        let plugins::Plugins { keys, x509pop, unix, kubelet } = plugins::read(&top, &mut notes)?;
        let Some(agent) = top.block("agent")? else {
            return Ok(Self {
                keys,
                x509pop,
                unix,
                kubelet,
                health_checks,
                telemetry,
                notes,
                ..Self::default()
            });
        };
        check_keys(&agent, known::AGENT, &mut notes)?;
        let experimental = agent.block("experimental")?;
        Ok(Self {
            trust_domain: agent.text("trust_domain")?,
            data_dir: agent.text("data_dir")?.map(PathBuf::from),
            server_address: agent.text("server_address")?,
            server_port: agent.number("server_port")?,
            sockets: RawSockets::read(&agent, &mut notes)?,
            bootstrap: RawBootstrap::read(&agent)?,
            workload_x509_svid_key_type: agent.text("workload_x509_svid_key_type")?,
            allow_unauthenticated_verifiers: agent.switch("allow_unauthenticated_verifiers")?,
            experimental: ExperimentalChoice::read(experimental.as_ref(), &mut notes)?,
            jwt: JwtChoice::read(&agent, experimental.as_ref())?,
            limits: LimitChoice::read(&agent, experimental.as_ref(), &mut notes)?,
            broker: broker::read(experimental.as_ref(), &mut notes)?,
            log_selectors: agent.texts("log_selectors")?.unwrap_or_default(),
            logs: RawLogs::read(&agent)?,
            health_checks,
            telemetry,
            keys,
            x509pop,
            unix,
            kubelet,
            notes,
        })
    }

    /// These settings (the flags), with gaps filled from `file`.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            trust_domain: self.trust_domain.or(file.trust_domain),
            data_dir: self.data_dir.or(file.data_dir),
            server_address: self.server_address.or(file.server_address),
            server_port: self.server_port.or(file.server_port),
            sockets: self.sockets.over(file.sockets),
            bootstrap: self.bootstrap.over(file.bootstrap),
            allow_unauthenticated_verifiers: self
                .allow_unauthenticated_verifiers
                .or(file.allow_unauthenticated_verifiers),
            logs: self.logs.over(file.logs),
            ..file
        }
    }
}

impl TryFrom<RawAgent> for AgentSettings {
    type Error = ConfigError;

    fn try_from(raw: RawAgent) -> Result<Self, ConfigError> {
        let trust_domain = trust_domain("agent.trust_domain", raw.trust_domain.as_deref())?;
        let server_address = required("agent.server_address", raw.server_address.clone())?;
        let server_port = port("agent.server_port", required("agent.server_port", raw.server_port)?)?;
        if server_port == 0 {
            return Err(ConfigError::value("agent.server_port", "0 is no port to call"));
        }
        let bootstrap = raw.bootstrap.ready()?;
        let mut notes = raw.notes;
        if raw.x509pop.is_some() && (bootstrap.join_token.is_some() || bootstrap.join_token_file.is_some()) {
            notes.push("a join token is set: NodeAttestor \"x509pop\" has no effect".into());
        }
        if raw.kubelet.is_some() && raw.broker.is_none() {
            let what = "so far it looks up pods for brokers only: without agent.experimental.broker use \
                        WorkloadAttestor \"unix\"";
            return Err(ConfigError::value("plugins.WorkloadAttestor \"k8s\"", what));
        }
        let sockets = raw.sockets.ready(&trust_domain)?;
        if let Some(path) = raw.broker.as_ref().and_then(|broker| broker.socket_path.as_ref()) {
            sockets.keep_apart("agent.experimental.broker.socket_path", path)?;
        }
        let data_dir = raw.data_dir.unwrap_or_else(|| ".".into());
        // Capitals are taken here, and not for the keys of a server, as with SPIRE.
        let workload_key_type = raw.workload_x509_svid_key_type.map(|text| text.to_ascii_lowercase());
        Ok(Self {
            workload_key_type: key_type("agent.workload_x509_svid_key_type", workload_key_type.as_deref())?,
            allow_unauthenticated_verifiers: raw.allow_unauthenticated_verifiers.unwrap_or(false),
            keys: raw.keys.unwrap_or_else(|| KeyChoice::Disk(data_dir.clone())),
            x509pop: raw.x509pop,
            unix: raw.unix.ok_or(plugins::NO_WORKLOAD_ATTESTOR)?,
            kubelet: raw.kubelet,
            jwt: raw.jwt,
            limits: raw.limits,
            broker: raw.broker,
            experimental: raw.experimental,
            log_selectors: raw.log_selectors,
            logs: raw.logs.ready("agent")?,
            health_checks: raw.health_checks,
            telemetry: raw.telemetry,
            sockets,
            bootstrap,
            notes,
            trust_domain,
            server_address,
            server_port,
            data_dir,
        })
    }
}

#[cfg(test)]
mod tests;
