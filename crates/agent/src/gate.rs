//! Where every call on the public socket is let in: the caller is attested, gets its view, and is looked at again before
//! each later message; refusals are counted and told to the operator.
//!
//! The services behind it differ in what they answer only. Start at [`Gate::admit`].

mod admitted;
mod log_selectors;
mod rate;
mod refusals;

use std::sync::Arc;
use std::time::Duration;

use spindle_proto::refusal::{come_back_to_busy, refusal};
use spindle_runtime::Shutdown;
use spindle_spiffe_core::Reason;
use spindle_transport::{LocalPeer, is_ourselves};
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::warn;

use crate::cache::Cache;
use crate::callers::{Admission, CallerFault, Callers};
use crate::config::RateLimits;
use crate::metrics::Metrics;

pub(crate) use admitted::Admitted;
pub(crate) use rate::Limited;

use rate::SelectorRates;
use refusals::{Kind, Line, Refusals};

const STARTING: &str = "the agent has not reached its server yet";

/// What is said of a method that is not there, or not for this trust domain.
pub(crate) const NOT_SUPPORTED: &str = "this profile of the Workload API is not supported";

/// What all services of the public socket share.
pub(crate) struct Gate {
    cache: Arc<Cache>,
    callers: Callers,
    shutdown: Shutdown,
    refusals: Refusals,
    /// The kinds of selectors that may stand in the log.
    log_selectors: Vec<String>,
    rates: SelectorRates,
    /// Since when the time of `rates` counts.
    epoch: Instant,
}

/// What an operator may set about the gate.
#[derive(Debug, Default)]
pub(crate) struct GateSettings {
    /// The kinds of selectors that the operator is told of those who are refused.
    pub(crate) log_selectors: Vec<String>,
    /// How often callers with the same selectors may call.
    pub(crate) rate_limits: RateLimits,
}

impl Gate {
    /// A gate that tells no selectors and knows no limits.
    #[cfg(test)]
    pub(crate) fn new(cache: Arc<Cache>, callers: Callers, shutdown: Shutdown) -> Arc<Self> {
        Self::with(GateSettings::default(), cache, callers, shutdown)
    }

    /// A gate with these settings.
    pub(crate) fn with(
        settings: GateSettings,
        cache: Arc<Cache>,
        callers: Callers,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        Arc::new(Self {
            cache,
            callers,
            shutdown,
            refusals: Refusals::default(),
            log_selectors: settings.log_selectors,
            rates: SelectorRates::new(&settings.rate_limits),
            epoch: Instant::now(),
        })
    }

    /// Whether the agent has reached its server.
    pub(crate) fn is_synced(&self) -> bool {
        self.cache.is_synced()
    }

    /// Attests the caller. Before the first sync nobody is: the answer would be a guess.
    pub(crate) async fn admit(self: Arc<Self>, peer: LocalPeer) -> Result<Admitted, Status> {
        if !self.cache.is_synced() {
            return Err(self.refuse(&peer, Code::Unavailable, Reason::AgentStarting, STARTING));
        }
        match self.callers.attest(&peer).await {
            Ok(caller) => Ok(Admitted::new(self, peer, caller)),
            Err(fault) => Err(self.refuse_fault(&peer, &fault)),
        }
    }

    /// The agent's shared state.
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Who attests, for processes that did not call by themselves.
    pub(crate) fn callers(&self) -> &Callers {
        &self.callers
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        self.callers.metrics()
    }

    /// The end that open calls must not outlast.
    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Refuses a caller about whom no more is known than the socket tells, and lets the operator know.
    pub(crate) fn refuse(&self, peer: &LocalPeer, code: Code, reason: Reason, message: &str) -> Status {
        if let Some(line) = self.count_nameless(peer, reason, || message.to_owned()) {
            tell(peer, reason, line.count, Some(&line.detail), None, "a call was refused");
        }
        refusal(code, reason, message)
    }

    /// Counts a refusal of a caller whose program is not looked at.
    fn count_nameless(
        &self,
        peer: &LocalPeer,
        reason: Reason,
        detail: impl FnOnce() -> String,
    ) -> Option<Line> {
        self.count(peer, &Kind { uid: peer.uid, path: None, reason }, detail)
    }

    /// Counts a refusal, unless it is one of ourselves: a health check is no caller whom anybody misses.
    fn count(&self, peer: &LocalPeer, kind: &Kind, detail: impl FnOnce() -> String) -> Option<Line> {
        if is_ourselves(peer.pid) { None } else { self.refusals.count(kind, detail) }
    }

    fn refuse_fault(&self, peer: &LocalPeer, fault: &CallerFault) -> Status {
        let reason = fault.reason();
        if let Some(line) = self.count_nameless(peer, reason, || fault.to_string()) {
            tell(peer, reason, line.count, None, Some(&line.detail), "workload attestation failed");
        }
        match fault.come_back_after() {
            Some(after) => come_back_to_busy(&fault.to_string(), after),
            None => status_of(reason),
        }
    }

    /// How much each process and user may ask for.
    pub(crate) fn admission(&self) -> &Admission {
        self.callers.admission()
    }

    /// Refuses a call for which there is no room.
    pub(crate) fn refuse_crowd(&self, peer: &LocalPeer, message: &str, after: Duration) -> Status {
        self.refuse(peer, Code::Unavailable, Reason::Overloaded, message);
        come_back_to_busy(message, after)
    }
}

/// Tells the operator of a refusal, with what the socket knows of the caller.
fn tell(
    peer: &LocalPeer,
    reason: Reason,
    count: u64,
    detail: Option<&str>,
    error: Option<&str>,
    what: &'static str,
) {
    warn!(
        pid = peer.pid,
        caller_uid = peer.uid,
        caller_gid = peer.gid,
        reason = reason.code(),
        count,
        remedy = reason.remedy(),
        detail,
        error,
        "{what}"
    );
}

/// The agent is being stopped.
pub(crate) fn stopping() -> Status {
    refusal(Code::Unavailable, Reason::AgentStopping, "the agent is stopping")
}

/// The standard's status for a refusal. It says nothing of any entry.
pub(crate) fn status_of(reason: Reason) -> Status {
    let (code, message) = match reason {
        Reason::NoMatchingEntry => (Code::PermissionDenied, "no identity issued"),
        Reason::NotADelegate => (Code::PermissionDenied, "caller not configured as an authorized delegate"),
        Reason::AgentStarting => (Code::Unavailable, STARTING),
        Reason::NotSupported => (Code::Unimplemented, NOT_SUPPORTED),
        Reason::SvidNotReady => (Code::Unavailable, "the identity is not ready yet"),
        _ => (Code::Unavailable, "workload attestation failed"),
    };
    refusal(code, reason, message)
}
