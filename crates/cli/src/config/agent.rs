//! The agent's settings: SPIRE's keys of `agent { … }` and `plugins { … }`, checked.
//!
//! [`RawAgent`] mirrors the file; flags are laid over it with [`RawAgent::over`]; `TryFrom` makes it ready.

mod bootstrap;
mod defaults;
mod known;
mod plugins;

use std::path::PathBuf;
use std::time::Duration;

use spindle_keys::KeyType;
use spindle_runtime::LogSettings;
use spindle_spiffe_core::TrustDomain;

pub use bootstrap::{BundleFormat, JoinToken, TrustChoice};
pub use defaults::print_defaults;
pub use plugins::{KeyChoice, UnixChoice, X509PopChoice};

use super::ConfigError;
use super::keys::check_keys;
use super::logs::RawLogs;
use super::section::Section;
use super::values::{interval, key_type, port, required, trust_domain};
use crate::hcl::Item;

/// SPIRE's default public socket.
pub const SOCKET_PATH: &str = "/tmp/spire-agent/public/api.sock";

/// SPIRE's default interval between polls.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Keys of the file and flags as written.
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
    /// `socket_path`.
    pub socket_path: Option<PathBuf>,
    /// `trust_bundle_path`.
    pub trust_bundle_path: Option<PathBuf>,
    /// `trust_bundle_url`.
    pub trust_bundle_url: Option<String>,
    /// `trust_bundle_unix_socket`.
    pub trust_bundle_unix_socket: Option<PathBuf>,
    /// `trust_bundle_format`.
    pub trust_bundle_format: Option<String>,
    /// `insecure_bootstrap`.
    pub insecure_bootstrap: Option<bool>,
    /// `join_token`.
    pub join_token: Option<JoinToken>,
    /// `join_token_file`.
    pub join_token_file: Option<PathBuf>,
    /// `workload_x509_svid_key_type`.
    pub workload_x509_svid_key_type: Option<String>,
    /// `allow_unauthenticated_verifiers`.
    pub allow_unauthenticated_verifiers: Option<bool>,
    /// `experimental { sync_interval }`.
    pub sync_interval: Option<String>,
    /// The log keys.
    pub logs: RawLogs,
    /// `plugins { KeyManager … }`.
    pub keys: Option<KeyChoice>,
    /// `plugins { NodeAttestor "x509pop" … }`; none when the node joins with tokens.
    pub x509pop: Option<X509PopChoice>,
    /// `plugins { WorkloadAttestor "unix" … }`; none when the block is missing or disabled.
    pub unix: Option<UnixChoice>,
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
    /// The Workload API socket.
    pub socket_path: PathBuf,
    /// Where the agent keeps its SVID and bundle.
    pub data_dir: PathBuf,
    /// How the first connection is trusted.
    pub trust: TrustChoice,
    /// A join token, or the file that holds it; none for an agent that attested before.
    pub join_token: Option<JoinToken>,
    /// The file that holds the join token.
    pub join_token_file: Option<PathBuf>,
    /// Key type of workloads' SVIDs.
    pub workload_key_type: KeyType,
    /// How often a server without our push stream is asked.
    pub sync_interval: Duration,
    /// Whether callers without an identity may fetch the trust bundle.
    pub allow_unauthenticated_verifiers: bool,
    /// Where the agent's own keys are kept.
    pub keys: KeyChoice,
    /// The node's certificate, when it does not join with tokens.
    pub x509pop: Option<X509PopChoice>,
    /// How local callers are attested.
    pub unix: UnixChoice,
    /// Where and how to log.
    pub logs: LogSettings,
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
        super::health::off_only(&top, &mut notes)?;
        let plugins::Plugins { keys, x509pop, unix } = plugins::read(&top, &mut notes)?;
        let Some(agent) = top.block("agent")? else {
            return Ok(Self { keys, x509pop, unix, notes, ..Self::default() });
        };
        check_keys(&agent, known::AGENT, &mut notes)?;
        Ok(Self {
            trust_domain: agent.text("trust_domain")?,
            data_dir: agent.text("data_dir")?.map(PathBuf::from),
            server_address: agent.text("server_address")?,
            server_port: agent.number("server_port")?,
            socket_path: agent.text("socket_path")?.map(PathBuf::from),
            trust_bundle_path: agent.text("trust_bundle_path")?.map(PathBuf::from),
            trust_bundle_url: agent.text("trust_bundle_url")?,
            trust_bundle_unix_socket: agent.text("trust_bundle_unix_socket")?.map(PathBuf::from),
            trust_bundle_format: agent.text("trust_bundle_format")?,
            insecure_bootstrap: agent.switch("insecure_bootstrap")?,
            join_token: agent.text("join_token")?.map(JoinToken::new),
            join_token_file: agent.text("join_token_file")?.map(PathBuf::from),
            workload_x509_svid_key_type: agent.text("workload_x509_svid_key_type")?,
            allow_unauthenticated_verifiers: agent.switch("allow_unauthenticated_verifiers")?,
            sync_interval: sync_interval(&agent, &mut notes)?,
            logs: RawLogs::read(&agent)?,
            keys,
            x509pop,
            unix,
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
            socket_path: self.socket_path.or(file.socket_path),
            trust_bundle_path: self.trust_bundle_path.or(file.trust_bundle_path),
            trust_bundle_url: self.trust_bundle_url.or(file.trust_bundle_url),
            trust_bundle_format: self.trust_bundle_format.or(file.trust_bundle_format),
            allow_unauthenticated_verifiers: self
                .allow_unauthenticated_verifiers
                .or(file.allow_unauthenticated_verifiers),
            insecure_bootstrap: self.insecure_bootstrap.or(file.insecure_bootstrap),
            join_token: self.join_token.or(file.join_token),
            join_token_file: self.join_token_file.or(file.join_token_file),
            logs: self.logs.over(file.logs),
            ..file
        }
    }
}

fn sync_interval(agent: &Section<'_>, notes: &mut Vec<String>) -> Result<Option<String>, ConfigError> {
    let Some(experimental) = agent.block("experimental")? else { return Ok(None) };
    check_keys(&experimental, known::EXPERIMENTAL, notes)?;
    experimental.text("sync_interval")
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
        let trust = bootstrap::trust(&raw)?;
        if raw.join_token.is_some() && raw.join_token_file.is_some() {
            let (first, second) = ("agent.join_token".into(), "agent.join_token_file".into());
            return Err(ConfigError::Exclusive { first, second });
        }
        let mut notes = raw.notes;
        if raw.x509pop.is_some() && (raw.join_token.is_some() || raw.join_token_file.is_some()) {
            notes.push("a join token is set: NodeAttestor \"x509pop\" has no effect".into());
        }
        let data_dir = raw.data_dir.unwrap_or_else(|| ".".into());
        let key_type_key = "agent.workload_x509_svid_key_type";
        Ok(Self {
            workload_key_type: key_type(key_type_key, raw.workload_x509_svid_key_type.as_deref())?,
            sync_interval: interval(
                "agent.experimental.sync_interval",
                raw.sync_interval.as_deref(),
                SYNC_INTERVAL,
            )?,
            allow_unauthenticated_verifiers: raw.allow_unauthenticated_verifiers.unwrap_or(false),
            socket_path: raw.socket_path.unwrap_or_else(|| SOCKET_PATH.into()),
            keys: raw.keys.unwrap_or_else(|| KeyChoice::Disk(data_dir.clone())),
            x509pop: raw.x509pop,
            unix: raw.unix.ok_or(plugins::NO_WORKLOAD_ATTESTOR)?,
            logs: raw.logs.ready("agent")?,
            join_token: raw.join_token,
            join_token_file: raw.join_token_file,
            notes,
            trust_domain,
            server_address,
            server_port,
            data_dir,
            trust,
        })
    }
}

#[cfg(test)]
mod tests;
