//! The workload that a broker has named: found, and attested by the agent itself.
//!
//! Nothing but the reference comes from the broker (Broker API 3.1.1). Start at [`Subject::find`].

use spindle_proto::refusal::come_back_to_busy;
use spindle_spiffe_core::{Reason, Selectors};
use tonic::Status;
use tracing::warn;

use super::kubernetes::Object;
use super::reference::{Invalid, Reference};
use super::refused;
use crate::callers::{ByNumber, CallerFault, Callers};
use crate::gate::status_of;

/// One workload.
pub(super) enum Subject {
    /// A process that is held.
    Process(Box<ByNumber>),
}

impl Subject {
    /// The workload of a reference.
    ///
    /// # Errors
    /// NOT_FOUND when it is not there; INVALID_ARGUMENT when nothing here can look for it; UNAVAILABLE when it cannot be
    /// attested.
    pub(super) async fn find(callers: &Callers, reference: Reference) -> Result<Self, Status> {
        match reference {
            Reference::Process(number) => {
                let pid = i32::try_from(number.get()).unwrap_or(i32::MAX);
                match callers.attest_by_number(pid).await {
                    Ok(process) => Ok(Self::Process(Box::new(process))),
                    Err(fault) => Err(not_attested(pid, &fault)),
                }
            }
            Reference::Object(object) => Err(refused::invalid(&not_resolved(&object))),
        }
    }

    /// What the workload shows.
    pub(super) fn selectors(&self) -> &Selectors {
        match self {
            Self::Process(process) => process.selectors(),
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
        }
    }

    /// Returns the status that ends a stream once the workload has ended.
    pub(super) fn ended(&self) -> impl Future<Output = Status> + Send + use<> {
        match self {
            Self::Process(process) => {
                let (pid, ended) = (process.pid(), process.ended());
                async move {
                    ended.await;
                    process_gone(pid)
                }
            }
        }
    }
}

fn not_resolved(object: &Object) -> Invalid {
    Invalid::UnknownType(format!("{}.{}", object.plural, object.group))
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
