//! Starts the agent: with the identity it kept, or, where it has none that serves, with a new join token.
//!
//! Tokens work once, so one is only made when it is needed; a second run makes none.

use std::net::SocketAddr;
use std::sync::Arc;

use spindle_agent::{
    Agent, AgentConfig, AgentError, Bootstrap, BundleFormat, JoinToken, KeyStorage, RunningAgent, UnixConfig,
};
use spindle_runtime::{Shutdown, SystemClock, SystemEntropy};
use spindle_spiffe_core::{SpiffeId, TrustDomain};

use super::admin::Admin;
use super::{Ending, Paths};
use crate::agent_cli::run_failure;
use crate::error::Failure;

/// A running agent that serves workloads.
pub(super) struct Started {
    pub(super) ending: Ending,
    pub(super) joined: bool,
}

pub(super) async fn start(
    trust_domain: &TrustDomain,
    paths: &Paths,
    server: SocketAddr,
    admin: &Admin,
    node: &SpiffeId,
    shutdown: &Shutdown,
) -> Result<Started, Failure> {
    let config = |token: Option<JoinToken>| AgentConfig {
        join_token: token,
        // Application authors may want to tell their programs apart.
        unix_attestor: Some(UnixConfig { discover_workload_path: true, ..UnixConfig::default() }),
        keys: KeyStorage::Disk { directory: paths.agent_data.clone() },
        ..AgentConfig::new(
            trust_domain.clone(),
            server.ip().to_string(),
            server.port(),
            &paths.agent_data,
            &paths.agent_socket,
            Bootstrap::File { path: paths.bundle.clone(), format: BundleFormat::Pem },
        )
    };
    match try_start(config(None), shutdown).await {
        Ok(ending) => return Ok(Started { ending, joined: false }),
        Err(error) if may_join(&error) => tracing::info!(%error, "the agent joins with a new token"),
        Err(error) => return Err(run_failure(&error)),
    }
    let token = admin.join_token(node).await?;
    match try_start(config(Some(token)), shutdown).await {
        Ok(ending) => Ok(Started { ending, joined: true }),
        Err(error) => Err(run_failure(&error)),
    }
}

/// Whether a new token can help.
fn may_join(error: &AgentError) -> bool {
    matches!(
        error,
        AgentError::JoinTokenNeeded { .. } | AgentError::StandingLost { .. } | AgentError::SvidExpired
    )
}

/// Returns when workloads are served. The agent has a shutdown of its own, so that a failed start stops nothing else.
async fn try_start(config: AgentConfig, shutdown: &Shutdown) -> Result<Ending, AgentError> {
    let own = shutdown.child();
    let agent: RunningAgent = Agent::start(config, SystemClock::shared(), Arc::new(SystemEntropy), own)?;
    let mut ready = agent.ready();
    let mut waiting = Box::pin(agent.wait());
    // Both arms are cancel-safe: `waiting` is only borrowed, and a watch keeps its value.
    let is_ready = tokio::select! {
        ended = &mut waiting => Err(ended),
        ready = ready.wait_for(|ready| *ready) => Ok(ready.is_ok()),
    };
    let ended = match is_ready {
        Ok(true) => None,
        // The agent has dropped its side, which it does only when it ends.
        Ok(false) => Some(waiting.as_mut().await),
        Err(ended) => Some(ended),
    };
    match ended {
        Some(ended) => {
            let stopped =
                || AgentError::TaskEnded { task: "agent", why: "it was stopped before it was ready".into() };
            Err(ended.err().unwrap_or_else(stopped))
        }
        None => Ok(Box::pin(async move { waiting.await.map_err(|error| run_failure(&error)) })),
    }
}
