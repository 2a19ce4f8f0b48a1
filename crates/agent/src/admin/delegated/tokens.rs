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

/// The tokens of `subject`.
///
/// # Errors
/// PERMISSION_DENIED when the workload has no identity; UNAVAILABLE when the server does not sign; NOT_FOUND when its process
/// ends meanwhile.
pub(super) async fn fetch(
    source: &TokenSource,
    mut subject: Subject,
    audience: &Audience,
) -> Result<wire::FetchJwtsviDsResponse, Status> {
    let selectors = subject.selectors().clone();
    let fetched = source.fetch_where(&selectors, |entry| !entry.admin && !entry.downstream, audience);
    // Cancel-safe: a token that nobody waits for any more is kept for the next who asks.
    let issued = tokio::select! {
        issued = fetched => issued.map_err(|error| error.status())?,
        () = subject.ended() => return Err(gone()),
    };
    // The server may have taken its time: what the process has become by now decides.
    if subject.look_again().await? && *subject.selectors() != selectors {
        let text = "the process has become another program";
        return Err(refusal(Code::Unavailable, Reason::CallerChanged, text));
    }
    Ok(wire::FetchJwtsviDsResponse { svids: issued.iter().map(svid).collect() })
}

/// Hints are those of the entries, shared or not: a delegate may look after several workloads.
fn svid(issued: &Issued) -> types::Jwtsvid {
    let Issued { entry, token, .. } = issued;
    types::Jwtsvid {
        token: token.text().to_owned(),
        id: Some(spiffe_id_to_proto(token.spiffe_id())),
        expires_at: token.expires_at().unix_secs(),
        issued_at: token.issued_at().unix_secs(),
        hint: entry.hint.as_str().to_owned(),
    }
}
