//! Authorities that sign tokens, by hand: JWT and WIT authorities alike. Each call is one order to the task that owns them.

use spindle_ca::TokenFamily;
use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::server::localauthority::v1 as wire;
use tonic::Status;

use crate::authorities::{TokenAuthorityError, TokenAuthorityState, TokenOrder};
use crate::token_issuer::TokenIssuer;

/// All authorities of a family.
pub(super) struct States {
    pub(super) active: Option<wire::AuthorityState>,
    pub(super) prepared: Option<wire::AuthorityState>,
    pub(super) old: Option<wire::AuthorityState>,
}

pub(super) fn states<F: TokenFamily>(issuer: &TokenIssuer<F>) -> Result<States, Status> {
    let authorities = issuer.authorities().map_err(|error| error.status())?;
    let states = authorities.state().map_err(|error| refused(&error))?;
    Ok(States {
        active: Some(state(states.active)),
        prepared: states.prepared.map(state),
        old: states.old.map(state),
    })
}

/// Has an order carried out. The answer says when the authority ends, which SPIRE leaves empty when it taints or revokes, and
/// its tools then show as 1970.
pub(super) async fn order<F: TokenFamily>(
    issuer: &TokenIssuer<F>,
    order: TokenOrder,
) -> Result<Option<wire::AuthorityState>, Status> {
    let authorities = issuer.authorities().map_err(|error| error.status())?;
    authorities.order(order).await.map(|done| Some(state(done))).map_err(|error| refused(&error))
}

fn state(state: TokenAuthorityState) -> wire::AuthorityState {
    wire::AuthorityState {
        authority_id: state.authority_id,
        expires_at: state.expires_at.map_or(0, |end| end.unix_secs()),
        upstream_authority_subject_key_id: String::new(),
    }
}

fn refused(error: &TokenAuthorityError) -> Status {
    refusal(error.code(), error.reason(), &error.to_string())
}
