//! JWT authorities by hand. Each call is one order to the task that owns them.

use std::sync::Arc;

use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::server::localauthority::v1 as wire;
use tonic::Status;

use crate::authorities::{JwtAuthorities, JwtAuthorityError, JwtAuthorityState, JwtOrder};
use crate::context::Context;

pub(super) fn states(context: &Context) -> Result<wire::GetJwtAuthorityStateResponse, Status> {
    let states = authorities(context)?.state().map_err(|error| refused(&error))?;
    Ok(wire::GetJwtAuthorityStateResponse {
        active: Some(state(states.active)),
        prepared: states.prepared.map(state),
        old: states.old.map(state),
    })
}

pub(super) async fn prepare(context: &Context) -> Result<wire::PrepareJwtAuthorityResponse, Status> {
    let prepared = order(context, JwtOrder::Prepare).await?;
    Ok(wire::PrepareJwtAuthorityResponse { prepared_authority: Some(prepared) })
}

pub(super) async fn activate(
    context: &Context,
    request: wire::ActivateJwtAuthorityRequest,
) -> Result<wire::ActivateJwtAuthorityResponse, Status> {
    let activated = order(context, JwtOrder::Activate(request.authority_id)).await?;
    Ok(wire::ActivateJwtAuthorityResponse { activated_authority: Some(activated) })
}

/// The answer says when the authority ends, which SPIRE leaves empty and its tools then show as 1970.
pub(super) async fn taint(
    context: &Context,
    request: wire::TaintJwtAuthorityRequest,
) -> Result<wire::TaintJwtAuthorityResponse, Status> {
    let tainted = order(context, JwtOrder::Taint(request.authority_id)).await?;
    Ok(wire::TaintJwtAuthorityResponse { tainted_authority: Some(tainted) })
}

/// The same about its end.
pub(super) async fn revoke(
    context: &Context,
    request: wire::RevokeJwtAuthorityRequest,
) -> Result<wire::RevokeJwtAuthorityResponse, Status> {
    let revoked = order(context, JwtOrder::Revoke(request.authority_id)).await?;
    Ok(wire::RevokeJwtAuthorityResponse { revoked_authority: Some(revoked) })
}

async fn order(context: &Context, order: JwtOrder) -> Result<wire::AuthorityState, Status> {
    authorities(context)?.order(order).await.map(state).map_err(|error| refused(&error))
}

fn authorities(context: &Context) -> Result<&Arc<JwtAuthorities>, Status> {
    let authorities = context.jwt_issuer.authorities();
    authorities.map_err(|error| refusal(error.code(), error.reason(), &error.to_string()))
}

fn state(state: JwtAuthorityState) -> wire::AuthorityState {
    wire::AuthorityState {
        authority_id: state.authority_id,
        expires_at: state.expires_at.map_or(0, |end| end.unix_secs()),
        upstream_authority_subject_key_id: String::new(),
    }
}

fn refused(error: &JwtAuthorityError) -> Status {
    refusal(error.code(), error.reason(), &error.to_string())
}
