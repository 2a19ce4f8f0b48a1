//! How a server is looked after: its log, the audit log, pruning, the listener for health probes, and metrics.

use spindle_runtime::{HealthListener, Logs};
use spindle_telemetry::TelemetryConfig;

/// Settings for those who run a server. The default is SPIRE's: everything off but the log.
#[derive(Clone, Debug, Default)]
pub struct Operations {
    /// The process's log, whose level can be changed over the admin socket.
    pub logs: Logs,
    /// Whether each call is written to the log with its caller and its outcome.
    pub audit_log: bool,
    /// Which agents are forgotten; none when they never are.
    pub prune_agents: Option<PruneAgents>,
    /// Where health probes are answered over HTTP; none when nowhere.
    pub health_checks: Option<HealthListener>,
    /// Where metrics go; the default is nowhere.
    pub telemetry: TelemetryConfig,
}

/// Which agents are forgotten by themselves: those whose SVID ended long ago, banned ones excepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneAgents {
    /// How long the SVID must have been over, in seconds.
    pub expired_for_secs: i64,
    /// Whether agents are forgotten as well that cannot attest again by themselves, such as those with a join token.
    pub tofu: bool,
    /// How many at most in one round.
    pub batch_size: usize,
}

impl PruneAgents {
    /// SPIRE's bound of one round.
    pub const BATCH_SIZE: usize = 1000;
}
