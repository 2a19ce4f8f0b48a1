//! How the server is looked after: the audit log, pruning of agents, the listener for health probes, and metrics.

use spindle_server::{HealthListener, PruneAgents};
use spindle_telemetry::TelemetryConfig;

use crate::config::ConfigError;
use crate::config::section::Section;
use crate::config::values::lifetime_secs;

const EXPIRED_FOR: &str = "server.prune_attested_nodes_expired_for";
const BATCH_SIZE: &str = "server.prune_attested_nodes_batch_size";

/// Keys of the file as written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawOperations {
    /// `audit_log_enabled`.
    pub audit_log: Option<bool>,
    /// `prune_attested_nodes_expired_for`.
    pub prune_expired_for: Option<String>,
    /// `prune_tofu_nodes`.
    pub prune_tofu: Option<bool>,
    /// `prune_attested_nodes_batch_size`.
    pub prune_batch_size: Option<i64>,
    /// `health_checks`, which is read at once: no flag changes it.
    pub health_checks: Option<HealthListener>,
    /// `telemetry`, likewise.
    pub telemetry: TelemetryConfig,
}

/// The same, checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OperationsChoice {
    /// Whether each call is written to the log.
    pub audit_log: bool,
    /// Which agents are forgotten by themselves.
    pub prune_agents: Option<PruneAgents>,
    /// Where health probes are answered.
    pub health_checks: Option<HealthListener>,
    /// Where metrics go.
    pub telemetry: TelemetryConfig,
}

impl RawOperations {
    pub(super) fn read(server: &Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            audit_log: server.switch("audit_log_enabled")?,
            prune_expired_for: server.text("prune_attested_nodes_expired_for")?,
            prune_tofu: server.switch("prune_tofu_nodes")?,
            prune_batch_size: server.number("prune_attested_nodes_batch_size")?,
            health_checks: None,
            telemetry: TelemetryConfig::default(),
        })
    }

    pub(super) fn ready(self, notes: &mut Vec<String>) -> Result<OperationsChoice, ConfigError> {
        Ok(OperationsChoice {
            audit_log: self.audit_log.unwrap_or(false),
            prune_agents: self.prune(notes)?,
            health_checks: self.health_checks,
            telemetry: self.telemetry,
        })
    }

    fn prune(&self, notes: &mut Vec<String>) -> Result<Option<PruneAgents>, ConfigError> {
        let batch_size = match self.prune_batch_size {
            None | Some(0) => PruneAgents::BATCH_SIZE,
            Some(size) => usize::try_from(size)
                .map_err(|_| ConfigError::value(BATCH_SIZE, format!("{size} is less than nothing")))?,
        };
        let Some(expired_for) = &self.prune_expired_for else {
            if self.prune_tofu == Some(true) || self.prune_batch_size.is_some() {
                notes.push(format!("agents are not pruned: {EXPIRED_FOR} is not set"));
            }
            return Ok(None);
        };
        let expired_for_secs = lifetime_secs(EXPIRED_FOR, Some(expired_for), 0)?;
        Ok(Some(PruneAgents { expired_for_secs, tofu: self.prune_tofu.unwrap_or(false), batch_size }))
    }
}
