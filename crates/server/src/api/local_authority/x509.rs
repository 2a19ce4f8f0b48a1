//! X.509 authorities by hand. Each call is one order to the task that owns them.

use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::server::localauthority::v1 as wire;
use tonic::Status;

use crate::authorities::{Order, OrderError, Standing};
use crate::context::Context;

pub(super) fn states(context: &Context) -> Result<wire::GetX509AuthorityStateResponse, Status> {
    let states = context.authorities.states().map_err(|error| refused(&error))?;
    Ok(wire::GetX509AuthorityStateResponse {
        active: Some(state(states.active)),
        prepared: states.prepared.map(state),
        old: states.old.map(state),
    })
}

pub(super) async fn prepare(context: &Context) -> Result<wire::PrepareX509AuthorityResponse, Status> {
    let prepared = order(context, Order::Prepare).await?;
    Ok(wire::PrepareX509AuthorityResponse { prepared_authority: Some(state(prepared)) })
}

pub(super) async fn activate(
    context: &Context,
    request: wire::ActivateX509AuthorityRequest,
) -> Result<wire::ActivateX509AuthorityResponse, Status> {
    let activated = order(context, Order::Activate(request.authority_id)).await?;
    Ok(wire::ActivateX509AuthorityResponse { activated_authority: Some(state(activated)) })
}

pub(super) async fn taint(
    context: &Context,
    request: wire::TaintX509AuthorityRequest,
) -> Result<wire::TaintX509AuthorityResponse, Status> {
    let tainted = order(context, Order::Taint(request.authority_id)).await?;
    Ok(wire::TaintX509AuthorityResponse { tainted_authority: Some(state(tainted)) })
}

/// The answer says when the authority would have ended, which SPIRE leaves empty and its tools then show as 1970.
pub(super) async fn revoke(
    context: &Context,
    request: wire::RevokeX509AuthorityRequest,
) -> Result<wire::RevokeX509AuthorityResponse, Status> {
    let revoked = order(context, Order::Revoke(request.authority_id)).await?;
    Ok(wire::RevokeX509AuthorityResponse { revoked_authority: Some(state(revoked)) })
}

pub(super) async fn taint_upstream(
    context: &Context,
    request: wire::TaintX509UpstreamAuthorityRequest,
) -> Result<wire::TaintX509UpstreamAuthorityResponse, Status> {
    let upstream_authority_subject_key_id = request.subject_key_id.to_ascii_lowercase();
    order(context, Order::TaintUpstream(request.subject_key_id)).await?;
    Ok(wire::TaintX509UpstreamAuthorityResponse { upstream_authority_subject_key_id })
}

pub(super) async fn revoke_upstream(
    context: &Context,
    request: wire::RevokeX509UpstreamAuthorityRequest,
) -> Result<wire::RevokeX509UpstreamAuthorityResponse, Status> {
    let upstream_authority_subject_key_id = request.subject_key_id.to_ascii_lowercase();
    order(context, Order::RevokeUpstream(request.subject_key_id)).await?;
    Ok(wire::RevokeX509UpstreamAuthorityResponse { upstream_authority_subject_key_id })
}

async fn order(context: &Context, order: Order) -> Result<Standing, Status> {
    context.authorities.order(order).await.map_err(|error| refused(&error))
}

fn state(standing: Standing) -> wire::AuthorityState {
    wire::AuthorityState {
        authority_id: standing.authority_id,
        expires_at: standing.expires_at.unix_secs(),
        upstream_authority_subject_key_id: standing.upstream_authority_id,
    }
}

fn refused(error: &OrderError) -> Status {
    refusal(error.code(), error.reason(), &error.to_string())
}
