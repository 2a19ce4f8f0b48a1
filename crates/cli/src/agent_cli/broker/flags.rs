//! The flags that all commands of `broker` share: which agent, which workload, and who we are.

use std::sync::Arc;

use spindle_spiffe_core::SpiffeId;

use crate::args::set;
use crate::broker::address::BrokerAddress;
use crate::broker::own::Own;
use crate::broker::workload::Workload;
use crate::broker::{Broker, Target};
use crate::console::Console;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::svid_files::upstream::Upstream;
use crate::svid_files::wanted::Choice;

#[derive(Debug, clap::Args)]
pub(super) struct BrokerFlags {
    /// Path or address of the broker endpoint; SPIFFE_BROKER_SOCKET without it.
    #[arg(long = "brokerSocket", value_name = "PATH")]
    broker_socket: Option<String>,
    /// SPIFFE ID of the agent that has to answer; any agent of the own trust domain without it, over a Unix socket.
    #[arg(long = "agentID", value_name = "ID")]
    agent_id: Option<String>,
    /// SPIFFE ID to show to the agent; the first one of this process without it.
    #[arg(long = "brokerID", value_name = "ID")]
    broker_id: Option<String>,
    /// Number of the workload's process on this machine, not that of its pod's sandbox.
    #[arg(long = "pid", value_name = "NUMBER", allow_negative_numbers = true)]
    pid: Option<i32>,
    /// The workload's pod, as NAMESPACE/NAME.
    #[arg(long = "pod", value_name = "POD", conflicts_with = "pid")]
    pod: Option<String>,
    /// UID of the workload's pod; with -pod both have to fit.
    #[arg(long = "podUID", value_name = "UID", conflicts_with = "pid")]
    pod_uid: Option<String>,
}

/// What the flags name, checked before anything is called.
pub(super) struct Parts {
    target: Target,
    choice: Choice,
}

impl BrokerFlags {
    /// Checks all flags.
    ///
    /// # Errors
    /// The first that is missing or wrong.
    pub(super) fn parts(&self, console: &Console<'_>) -> Result<Parts, Failure> {
        let address = BrokerAddress::of(set(&self.broker_socket), console.vars)?;
        let agent = id("agentID", set(&self.agent_id))?;
        let choice = id("brokerID", set(&self.broker_id))?.map_or(Choice::First, |id| Choice::Id(id, None));
        let workload = match (self.pid, set(&self.pod), set(&self.pod_uid)) {
            (Some(pid), ..) => Workload::process(pid)?,
            (None, None, None) => {
                return Err(Failure::new("it is not said for which workload")
                    .try_this("set -pid, or -pod, or -podUID"));
            }
            (None, pod, uid) => Workload::pod(pod, uid)?,
        };
        Ok(Parts { target: Target::new(address, agent, workload)?, choice })
    }
}

fn id(name: &str, text: Option<&str>) -> Result<Option<SpiffeId>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let wrong = |error| Failure::because(format!("-{name} {text:?}"), &error);
    text.parse()
        .map(Some)
        .map_err(|error| wrong(error).try_this("write it like spiffe://example.org/node/proxy"))
}

impl Parts {
    /// A broker that asks once.
    ///
    /// # Errors
    /// When there is no own identity.
    pub(super) async fn once(self, endpoint: &Endpoint) -> Result<Upstream, Failure> {
        let own = Own::once(endpoint, &self.choice).await?;
        Ok(Upstream::Broker(Arc::new(Broker::new(own, self.target))))
    }

    /// A broker that follows its own identity, too.
    pub(super) fn follow(self, endpoint: Endpoint) -> Upstream {
        let own = Own::follow(endpoint, self.choice);
        Upstream::Broker(Arc::new(Broker::new(own, self.target)))
    }
}
