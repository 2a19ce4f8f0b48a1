//! FetchJWTSVIDs: one token for each identity of a workload. Withheld are those of administrators and downstream servers.

use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::agent::delegatedidentity::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{Audience, Reason};
use tonic::{Code, Status};

use super::subject::{Subject, gone};
use crate::tokens::{Issued, TokenSource};

/// The audiences of a request.
///
/// # Errors
/// INVALID_ARGUMENT when there is none, or one that no token may have.
pub(super) fn audience(texts: &[String]) -> Result<Audience, Status> {
    let bad = |text: &str| refusal(Code::InvalidArgument, Reason::BadRequest, text);
    if texts.is_empty() {
        return Err(bad("audience must be specified"));
    }
    Audience::new(texts.iter().cloned()).map_err(|error| bad(&format!("invalid audience: {error}")))
}
