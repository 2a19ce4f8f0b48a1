//! The unary methods of the JWT profile: tokens for the caller (Workload API 6.2.1).
//!
//! A request is checked before the caller is looked at, and the caller is looked at again when its answer took a while.

use std::pin::pin;

use bytes::Bytes;
use futures_util::FutureExt;
use spindle_proto::workload::JwtsvidRequest;
use spindle_spiffe_core::audience::AudienceError;
use spindle_spiffe_core::{Audience, Reason, SpiffeId};
use spindle_transport::LocalPeer;
use tonic::{Code, Status};

use super::Shared;
use crate::cache::encode_jwt_svids;
use crate::gate::{Admitted, Limited};
use crate::tokens::{Issued, TokenError};

/// How often a caller may change while it is answered.
const LOOKS_MAX: usize = 3;

/// The framed answer to FetchJWTSVID.
pub(super) async fn fetch(api: &Shared, peer: LocalPeer, request: JwtsvidRequest) -> Result<Bytes, Status> {
    let (audience, spiffe_id) = wanted(request)
        .map_err(|what| api.gate.refuse(&peer, Code::InvalidArgument, Reason::BadRequest, &what))?;
    let mut caller = api.gate.clone().admit(peer).await?.within_limit(Limited::FetchJwtSvid)?;
    for _ in 0..LOOKS_MAX {
        let fetch = api.tokens.fetch(caller.selectors(), spiffe_id.as_ref(), &audience);
        let (answer, has_waited) = noticing_waits(fetch).await;
        let issued = answer.map_err(|error| refuse(&caller, &error))?;
        if has_waited {
            caller.note_wait();
        }
        if caller.is_same().await? {
            return Ok(encode(&issued));
        }
    }
    Err(caller.refuse(Reason::CallerChanged))
}

/// The answer, and whether it took a while: tokens from memory do not.
async fn noticing_waits<T>(answer: impl Future<Output = T>) -> (T, bool) {
    let mut answer = pin!(answer);
    match answer.as_mut().now_or_never() {
        Some(answer) => (answer, false),
        None => (answer.await, true),
    }
}

/// What is asked for, or what is wrong with it: SPIRE's words where it has some.
fn wanted(request: JwtsvidRequest) -> Result<(Audience, Option<SpiffeId>), String> {
    let audience = Audience::new(request.audience).map_err(|error| match error {
        AudienceError::Empty => "audience must be specified".to_owned(),
        error => error.to_string(),
    })?;
    let spiffe_id = match request.spiffe_id.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|error| format!("invalid requested SPIFFE ID: {error}"))?),
    };
    Ok((audience, spiffe_id))
}

fn refuse(caller: &Admitted, error: &TokenError) -> Status {
    match error {
        TokenError::NoIdentity => caller.tell(Reason::NoMatchingEntry),
        error => caller.tell_with(error.reason(), || error.to_string()),
    }
    error.status()
}

fn encode(issued: &[Issued]) -> Bytes {
    encode_jwt_svids(
        issued.iter().map(|one| [one.token.spiffe_id().as_str(), one.token.text(), one.hint.as_str()]),
    )
}
