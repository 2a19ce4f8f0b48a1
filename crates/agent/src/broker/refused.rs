//! The answers to brokers that get nothing: the standard's code and reason (Broker API 4.8), and our own reason beside it.

use spindle_proto::refusal::{refusal, refusal_of_standard};
use spindle_proto::workload_reference::Invalid;
use spindle_spiffe_core::Reason;
use tonic::{Code, Status};

use super::access::Denied;

/// The reference is missing, malformed, or of a kind that is not understood.
pub(super) fn invalid(invalid: &Invalid) -> Status {
    let (code, reason) = (Code::InvalidArgument, Reason::ReferenceInvalid);
    refusal_of_standard(code, reason, "WORKLOAD_REFERENCE_INVALID", &invalid.to_string(), [])
}

/// The broker may not name workloads in that way.
pub(super) fn not_allowed(denied: &Denied) -> Status {
    refusal(Code::PermissionDenied, Reason::ReferenceNotAllowed, &denied.to_string())
}

/// The workload is not there, or not any more. `fact` is what it was named by.
pub(super) fn not_found(message: &str, fact: (&str, &str)) -> Status {
    let (code, reason) = (Code::NotFound, Reason::WorkloadNotFound);
    refusal_of_standard(code, reason, "WORKLOAD_NOT_FOUND", message, [fact])
}

/// The workload is there, and no entry is for it.
pub(super) fn not_entitled() -> Status {
    let (code, reason) = (Code::PermissionDenied, Reason::NoMatchingEntry);
    refusal_of_standard(code, reason, "WORKLOAD_NOT_ENTITLED", "the workload has no identity", [])
}
