//! FetchJWTSVID: one token for each identity of a workload, or for the one that is asked for (Broker API 6.2.1).

use bytes::Bytes;
use spindle_proto::broker::FetchJwtsvidRequest;
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::audience::AudienceError;
use spindle_spiffe_core::{Audience, Reason, SpiffeId};
use tonic::{Code, Status};

use super::caller::Broker;
use super::subject::Subject;
use super::{Parts, refused};
use crate::cache::encode_jwt_svids;
use crate::gate::stopping;
use crate::tokens::TokenError;

/// How often a workload may change while it is answered for.
const LOOKS_MAX: usize = 3;

/// The framed answer.
///
/// # Errors
/// INVALID_ARGUMENT for a wrong audience or SPIFFE ID; PERMISSION_DENIED when the workload has no such identity; NOT_FOUND when
/// it ends meanwhile; UNAVAILABLE when the server does not sign.
pub(super) async fn fetch(
    parts: &Parts,
    broker: &Broker,
    subject: Subject,
    asked: FetchJwtsvidRequest,
) -> Result<Bytes, Status> {
    let (audience, spiffe_id) =
        wanted(asked).map_err(|what| refusal(Code::InvalidArgument, Reason::BadRequest, &what))?;
    let (shutdown, ended) = (parts.gate.shutdown().clone(), subject.ended());
    // Cancel-safe: a token that nobody waits for any more is kept for the next who asks.
    let answer = tokio::select! {
        biased;
        () = shutdown.begun() => return Err(stopping()),
        status = ended => return Err(status),
        answer = issued(parts, subject, spiffe_id.as_ref(), &audience) => answer?,
    };
    // The server may have taken its time.
    broker.check_again(parts)?;
    Ok(answer)
}

async fn issued(
    parts: &Parts,
    mut subject: Subject,
    spiffe_id: Option<&SpiffeId>,
    audience: &Audience,
) -> Result<Bytes, Status> {
    for _ in 0..LOOKS_MAX {
        let issued = parts.tokens.fetch(subject.selectors(), spiffe_id, audience).await;
        let issued = issued.map_err(|error| match error {
            TokenError::NoIdentity => refused::not_entitled(),
            error => error.status(),
        })?;
        // What the workload has become by now decides.
        if !subject.look_again().await? {
            let svids = issued
                .iter()
                .map(|one| [one.token.spiffe_id().as_str(), one.token.text(), one.hint.as_str()]);
            return Ok(encode_jwt_svids(svids));
        }
    }
    let text = "the workload becomes another again and again";
    Err(refusal(Code::Unavailable, Reason::CallerChanged, text))
}

/// What is asked for, or what is wrong with it.
fn wanted(asked: FetchJwtsvidRequest) -> Result<(Audience, Option<SpiffeId>), String> {
    let audience = Audience::new(asked.audience).map_err(|error| match error {
        AudienceError::Empty => "audience must be specified".to_owned(),
        error => error.to_string(),
    })?;
    let spiffe_id = match asked.spiffe_id.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|error| format!("invalid requested SPIFFE ID: {error}"))?),
    };
    Ok((audience, spiffe_id))
}
