//! JWT-SVIDs: minting for administrators, and signing for the entries of an agent.

use spindle_ca::SignedToken;
use spindle_proto::convert::{spiffe_id_from_proto, spiffe_id_to_proto};
use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::server::svid::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::entry::check_workload_id;
use spindle_spiffe_core::{Audience, EntryId, Reason, SpiffeId, TrustDomain};
use tonic::{Code, Status};
use tracing::info;

use crate::api::caller::AgentCaller;
use crate::api::filter::bad_request;
use crate::context::Context;
use crate::directory::is_authorized;
use crate::entries::reason_of;
use crate::issuer::Urgency;
use crate::rate_limit::Source;
use crate::token_issuer::JwtRequest;

/// Signs what an administrator asks for.
pub(super) async fn mint(
    context: &Context,
    request: wire::MintJwtsvidRequest,
) -> Result<wire::MintJwtsvidResponse, Status> {
    context.jwt_issuer.enabled().map_err(|error| error.status())?;
    let spiffe_id = workload_id(request.id.as_ref(), &context.trust_domain)?;
    let request = JwtRequest {
        spiffe_id,
        audience: audience(request.audience)?,
        ttl_secs: i64::from(request.ttl),
        with_token_id: false,
    };
    let audience = request.audience.clone();
    let signed = context.jwt_issuer.issue(request, Urgency::First).await.map_err(|error| error.status())?;
    info!(spiffe_id = %signed.spiffe_id, %audience, expires_at = %signed.expires_at, "JWT-SVID minted");
    Ok(wire::MintJwtsvidResponse { svid: Some(to_proto(signed, "")) })
}

/// Signs for one of the entries that the agent may have; identity, lifetime and `jti` are the entry's.
pub(super) async fn new(
    context: &Context,
    caller: &AgentCaller,
    source: Option<Source>,
    request: wire::NewJwtsvidRequest,
) -> Result<wire::NewJwtsvidResponse, Status> {
    context.rate_limits.jwt_signing(source).await?;
    context.jwt_issuer.enabled().map_err(|error| error.status())?;
    let entry_id = request.entry_id;
    let row = {
        let view = context.directory.view();
        let agent = caller.row(&view, context.clock.now())?;
        let row = entry_id.parse().ok().and_then(|id: EntryId| view.entry(&id));
        row.filter(|row| is_authorized(&view, agent, &row.entry)).cloned()
    };
    let row = row.ok_or_else(|| {
        refusal(Code::NotFound, Reason::EntryNotAuthorized, "entry not found or not authorized")
    })?;
    let request = JwtRequest {
        spiffe_id: row.entry.spiffe_id.clone(),
        audience: audience(request.audience)?,
        ttl_secs: i64::from(row.entry.jwt_svid_ttl_secs),
        with_token_id: row.entry.jwt_svid_include_jti,
    };
    let audience = request.audience.clone();
    let signed = context.jwt_issuer.issue(request, Urgency::Usual).await.map_err(|error| error.status())?;
    info!(entry_id, spiffe_id = %signed.spiffe_id, agent_id = %caller.id(), %audience,
          expires_at = %signed.expires_at, "JWT-SVID issued");
    Ok(wire::NewJwtsvidResponse { svid: Some(to_proto(signed, row.entry.hint.as_str())) })
}

pub(super) fn workload_id(
    id: Option<&types::Spiffeid>,
    trust_domain: &TrustDomain,
) -> Result<SpiffeId, Status> {
    let id = id.ok_or_else(|| bad_request("invalid SPIFFE ID: it is missing"))?;
    let id = spiffe_id_from_proto(id).map_err(|error| bad_request(&format!("invalid SPIFFE ID: {error}")))?;
    check_workload_id(&id, trust_domain).map_err(|error| {
        refusal(Code::InvalidArgument, reason_of(&error), &format!("invalid SPIFFE ID: {error}"))
    })?;
    Ok(id)
}

fn audience(values: Vec<String>) -> Result<Audience, Status> {
    Audience::new(values).map_err(|error| bad_request(&error.to_string()))
}

fn to_proto(signed: SignedToken, hint: &str) -> types::Jwtsvid {
    types::Jwtsvid {
        id: Some(spiffe_id_to_proto(&signed.spiffe_id)),
        expires_at: signed.expires_at.unix_secs(),
        issued_at: signed.issued_at.unix_secs(),
        hint: hint.to_owned(),
        token: signed.token,
    }
}
