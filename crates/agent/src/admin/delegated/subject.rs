//! The workload that a delegate asks about: by what it shows, which the delegate vouches for, or by its process, which the
//! agent attests itself.

use spindle_proto::convert::selectors_from_proto;
use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{Reason, Selectors};
use tonic::{Code, Status};
use tracing::warn;

use crate::callers::{ByNumber, CallerFault, Callers};
use crate::gate::status_of;

/// One workload.
pub(super) enum Subject {
    /// What the delegate says that it shows.
    Selectors(Selectors),
    /// A process that is held.
    Process(Box<ByNumber>),
}

impl Subject {
    /// The workload of a request: exactly one of both is given, and a `pid` of 0 counts as not given.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with SPIRE's texts; UNAVAILABLE when the process cannot be attested.
    pub(super) async fn named(
        callers: &Callers,
        selectors: &[types::Selector],
        pid: i32,
    ) -> Result<Self, Status> {
        let bad = |text: &str| Err(refusal(Code::InvalidArgument, Reason::BadRequest, text));
        match (selectors, pid) {
            ([], 0) | ([_, ..], 1.. | ..0) => {
                bad("must provide either selectors or non-zero PID, but not both")
            }
            ([], pid) => match callers.attest_by_number(pid).await {
                Ok(process) => Ok(Self::Process(Box::new(process))),
                Err(fault) => Err(not_attested(pid, &fault)),
            },
            (selectors, 0) => match selectors_from_proto(selectors) {
                Ok(selectors) => Ok(Self::Selectors(selectors)),
                Err(error) => bad(&format!("could not parse provided selectors: {error}")),
            },
        }
    }

    /// What the workload shows.
    pub(super) fn selectors(&self) -> &Selectors {
        match self {
            Self::Selectors(selectors) => selectors,
            Self::Process(process) => process.selectors(),
        }
    }

    /// Looks at a process again; true when it shows something else by now.
    ///
    /// # Errors
    /// NOT_FOUND when it has ended; UNAVAILABLE when it cannot be attested any more.
    pub(super) async fn look_again(&mut self) -> Result<bool, Status> {
        let Self::Process(process) = self else { return Ok(false) };
        let pid = process.pid();
        match process.look_again().await {
            Ok(changed) => Ok(changed),
            Err(fault) if fault.reason() == Reason::CallerGone => Err(gone()),
            Err(fault) => Err(not_attested(pid, &fault)),
        }
    }

    /// Returns when the workload's process has ended; never, for selectors outlive processes.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let end = match self {
            Self::Selectors(_) => None,
            Self::Process(process) => Some(process.ended()),
        };
        async move {
            match end {
                Some(end) => end.await,
                None => std::future::pending().await,
            }
        }
    }
}

/// The end of a stream for a process that has ended.
pub(super) fn gone() -> Status {
    refusal(Code::NotFound, Reason::WorkloadGone, "the process has ended")
}

/// The delegate learns no more than SPIRE tells it, the operator why.
fn not_attested(pid: i32, fault: &CallerFault) -> Status {
    warn!(pid, error = %fault, reason = fault.reason().code(), "a delegate asks for a process that cannot be attested");
    status_of(fault.reason())
}
