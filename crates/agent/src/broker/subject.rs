//! The workload that a broker has named: found, and attested by the agent itself.
//!
//! Nothing but the reference comes from the broker (Broker API 3.1.1). Start at [`Subject::find`].

use std::sync::Arc;
use std::time::Duration;

use spindle_proto::refusal::{come_back_to_busy, refusal};
use spindle_proto::workload_reference::{Invalid, Object, Reference};
use spindle_spiffe_core::{Reason, Selectors};
use tonic::{Code, Status};
use tracing::warn;

use super::{Parts, refused};
use crate::callers::{ByNumber, CallerFault};
use crate::gate::status_of;
use crate::kubelet::{Kubelet, PodName, Pods};

/// How often it is looked whether a pod is still there, and still shows what it did.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// One workload.
pub(super) enum Subject {
    /// A process that is held.
    Process(Box<ByNumber>),
    /// A pod of this node.
    Pod(Box<HeldPod>),
}

/// A pod, from now on known by its uid.
pub(super) struct HeldPod {
    kubelet: Kubelet,
    name: PodName,
    selectors: Selectors,
}

impl Subject {
    /// The workload of a reference.
    ///
    /// # Errors
    /// NOT_FOUND when it is not there; INVALID_ARGUMENT when nothing here can look for it; UNAVAILABLE when it cannot be
    /// attested.
    pub(super) async fn find(parts: &Parts, reference: Reference) -> Result<Self, Status> {
        match reference {
            Reference::Process(number) => {
                let pid = i32::try_from(number.get()).unwrap_or(i32::MAX);
                match parts.gate.callers().attest_by_number(pid).await {
                    Ok(process) => Ok(Self::Process(Box::new(process))),
                    Err(fault) => Err(not_attested(pid, &fault)),
                }
            }
            Reference::Object(object) => match &parts.kubelet {
                Some(kubelet) if object.is_pod() => {
                    Ok(Self::Pod(Box::new(HeldPod::find(kubelet.clone(), &object).await?)))
                }
                _ => Err(refused::invalid(&not_resolved(&object))),
            },
        }
    }

    /// What the workload shows.
    pub(super) fn selectors(&self) -> &Selectors {
        match self {
            Self::Process(process) => process.selectors(),
            Self::Pod(pod) => &pod.selectors,
        }
    }

    /// Looks at the workload again; true when it shows something else by now.
    ///
    /// # Errors
    /// NOT_FOUND when it has ended; UNAVAILABLE when it cannot be attested any more.
    pub(super) async fn look_again(&mut self) -> Result<bool, Status> {
        match self {
            Self::Process(process) => {
                let pid = process.pid();
                process.look_again().await.map_err(|fault| not_attested(pid, &fault))
            }
            Self::Pod(pod) => {
                let pods = asked(&pod.kubelet).await?;
                let (_, selectors) = shown(&pods, &pod.name)?;
                let has_changed = selectors != pod.selectors;
                pod.selectors = selectors;
                Ok(has_changed)
            }
        }
    }

    /// Returns the status that ends a stream once the workload has ended.
    pub(super) fn ended(&self) -> impl Future<Output = Status> + Send + use<> {
        let watched = match self {
            Self::Process(process) => Ok((process.pid(), process.ended())),
            Self::Pod(pod) => Err((pod.kubelet.clone(), pod.name.clone())),
        };
        async move {
            match watched {
                Ok((pid, ended)) => {
                    ended.await;
                    process_gone(pid)
                }
                Err((kubelet, name)) => {
                    // While the kubelet is silent nobody knows; without it nothing is sent either.
                    while !matches!(kubelet.pods().await, Ok(pods) if pods.find(&name).is_none()) {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                    pod_gone(&name)
                }
            }
        }
    }

    /// Returns once the workload shows something else, where nothing but a look can tell.
    pub(super) fn stirred(&self) -> impl Future<Output = ()> + Send + use<> {
        let watched = match self {
            // Looked at before each message, and what it runs is no reason for one.
            Self::Process(_) => None,
            Self::Pod(pod) => Some((pod.kubelet.clone(), pod.name.clone(), pod.selectors.clone())),
        };
        async move {
            let Some((kubelet, name, before)) = watched else { return std::future::pending().await };
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let pods = kubelet.pods().await;
                let now = pods.ok().and_then(|pods| pods.find(&name)?.selectors().ok());
                if now.is_some_and(|now| now != before) {
                    return;
                }
            }
        }
    }
}

impl HeldPod {
    async fn find(kubelet: Kubelet, object: &Object) -> Result<Self, Status> {
        let key = object.key.as_ref().map(|key| (key.namespace.clone(), key.name.clone()));
        let mut name = PodName { key, uid: object.uid.clone() };
        let pods = asked(&kubelet).await?;
        let (uid, selectors) = shown(&pods, &name)?;
        name.uid = Some(uid);
        Ok(Self { kubelet, name, selectors })
    }
}

async fn asked(kubelet: &Kubelet) -> Result<Arc<Pods>, Status> {
    kubelet.pods().await.map_err(|error| {
        warn!(%error, reason = Reason::AttestationFailed.code(), "a broker asks for a pod and the kubelet cannot tell");
        status_of(Reason::AttestationFailed)
    })
}

/// The pod's uid and what it shows.
fn shown(pods: &Pods, name: &PodName) -> Result<(String, Selectors), Status> {
    let pod = pods.find(name).ok_or_else(|| pod_gone(name))?;
    let selectors = pod.selectors().map_err(|error| {
        let text = format!("the pod cannot be described: {error}");
        refusal(Code::Unavailable, Reason::AttestationFailed, &text)
    })?;
    Ok((pod.uid().to_owned(), selectors))
}

fn pod_gone(name: &PodName) -> Status {
    let fact = match (&name.key, &name.uid) {
        (Some((namespace, name)), _) => ("pod", format!("{namespace}/{name}")),
        (None, uid) => ("uid", uid.clone().unwrap_or_default()),
    };
    refused::not_found("there is no such pod on this node, or it is another by now", (fact.0, &fact.1))
}

fn not_resolved(object: &Object) -> Invalid {
    Invalid::Unresolved(object.plural.clone(), object.group.clone())
}

fn process_gone(pid: i32) -> Status {
    refused::not_found("there is no such process, or it has ended", ("pid", &pid.to_string()))
}

/// The broker learns no more than the standard has it learn, the operator why.
fn not_attested(pid: i32, fault: &CallerFault) -> Status {
    if fault.reason() == Reason::CallerGone {
        return process_gone(pid);
    }
    warn!(pid, error = %fault, reason = fault.reason().code(), "a broker asks for a process that cannot be attested");
    match fault.come_back_after() {
        Some(after) => come_back_to_busy(&fault.to_string(), after),
        None => status_of(fault.reason()),
    }
}
