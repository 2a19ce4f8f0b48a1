//! How the items of a batch about other trust domains are refused, in SPIRE's words; shared with the TrustDomain service.

use spindle_proto::convert::{ConvertError, trust_domain_from_proto};
use spindle_proto::refusal::item_refusal;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{Reason, TrustDomain};
use tonic::Code;
use tracing::info;

use crate::federation::FederationFault;

fn refused(code: Code, reason: Reason, message: String) -> types::Status {
    info!(reason = reason.code(), error = %message, "change of a foreign trust domain refused");
    item_refusal(code, reason, message)
}

/// A malformed item.
pub(in crate::api) fn bad_item(message: String) -> types::Status {
    refused(Code::InvalidArgument, Reason::BadRequest, message)
}

/// An item that holds no bundle.
pub(super) fn bad_bundle(error: &ConvertError) -> types::Status {
    bad_item(format!("failed to convert bundle: {error}"))
}

/// An item that is about the server's own trust domain.
pub(in crate::api) fn own_trust_domain(message: String) -> types::Status {
    refused(Code::InvalidArgument, Reason::OwnTrustDomain, message)
}

/// The name of another trust domain; `says` is what to say when it is the own one.
pub(super) fn check_foreign(
    name: &str,
    own: &TrustDomain,
    says: impl FnOnce() -> String,
) -> Result<TrustDomain, types::Status> {
    let name = trust_domain_from_proto(name)
        .map_err(|error| bad_item(format!("trust domain argument is not valid: {error}")))?;
    if name == *own { Err(own_trust_domain(says())) } else { Ok(name) }
}

/// An item that was well formed and could not be done. As SPIRE, the fault stands alone where it says everything.
pub(in crate::api) fn fault_item(fault: &FederationFault, failed: &str) -> types::Status {
    let message = match fault {
        FederationFault::BundleExists
        | FederationFault::BundleNotFound
        | FederationFault::RelationshipExists
        | FederationFault::RelationshipNotFound => fault.to_string(),
        _ => format!("{failed}: {fault}"),
    };
    refused(fault.code(), fault.reason(), message)
}
