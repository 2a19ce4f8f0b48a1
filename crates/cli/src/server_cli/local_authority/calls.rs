//! The calls of the LocalAuthority service by family: fifteen methods with messages of the same parts.

use spindle_proto::spire::api::server::localauthority::v1 as wire;
use spindle_proto::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use tonic::Status;
use tonic::transport::Channel;

use super::{Family, States};

/// What is to be done, and to which authority where that is not settled.
#[derive(Debug)]
pub(super) enum Order {
    Prepare,
    Activate(String),
    Taint(String),
    Revoke(String),
}

impl Order {
    /// As errors name it, and as answers name what was done.
    pub(super) fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::Prepare => ("prepare", "prepared"),
            Self::Activate(_) => ("activate", "activated"),
            Self::Taint(_) => ("taint", "tainted"),
            Self::Revoke(_) => ("revoke", "revoked"),
        }
    }
}

/// The states of a family's authorities.
///
/// # Errors
/// The server's refusal.
pub(super) async fn states(
    family: Family,
    mut client: LocalAuthorityClient<Channel>,
) -> Result<States, Status> {
    macro_rules! states {
        ($method:ident, $request:ident, $response:ident) => {{
            let answer = client.$method(wire::$request {}).await?.into_inner();
            let wire::$response { active, prepared, old } = answer;
            Ok(States { active, prepared, old })
        }};
    }
    match family {
        Family::X509 => {
            states!(get_x509_authority_state, GetX509AuthorityStateRequest, GetX509AuthorityStateResponse)
        }
        Family::Jwt => {
            states!(get_jwt_authority_state, GetJwtAuthorityStateRequest, GetJwtAuthorityStateResponse)
        }
        Family::Wit => {
            states!(get_wit_authority_state, GetWitAuthorityStateRequest, GetWitAuthorityStateResponse)
        }
    }
}

/// Has an order carried out; returns the authority that it was carried out on.
///
/// # Errors
/// The server's refusal.
pub(super) async fn carry_out(
    family: Family,
    order: Order,
    mut client: LocalAuthorityClient<Channel>,
) -> Result<Option<wire::AuthorityState>, Status> {
    macro_rules! done {
        ($method:ident, $request:ident { $($id:ident)? }, $field:ident) => {
            client.$method(wire::$request { $(authority_id: $id)? }).await?.into_inner().$field
        };
    }
    Ok(match (family, order) {
        (Family::X509, Order::Prepare) => {
            done!(prepare_x509_authority, PrepareX509AuthorityRequest {}, prepared_authority)
        }
        (Family::X509, Order::Activate(id)) => {
            done!(activate_x509_authority, ActivateX509AuthorityRequest { id }, activated_authority)
        }
        (Family::X509, Order::Taint(id)) => {
            done!(taint_x509_authority, TaintX509AuthorityRequest { id }, tainted_authority)
        }
        (Family::X509, Order::Revoke(id)) => {
            done!(revoke_x509_authority, RevokeX509AuthorityRequest { id }, revoked_authority)
        }
        (Family::Jwt, Order::Prepare) => {
            done!(prepare_jwt_authority, PrepareJwtAuthorityRequest {}, prepared_authority)
        }
        (Family::Jwt, Order::Activate(id)) => {
            done!(activate_jwt_authority, ActivateJwtAuthorityRequest { id }, activated_authority)
        }
        (Family::Jwt, Order::Taint(id)) => {
            done!(taint_jwt_authority, TaintJwtAuthorityRequest { id }, tainted_authority)
        }
        (Family::Jwt, Order::Revoke(id)) => {
            done!(revoke_jwt_authority, RevokeJwtAuthorityRequest { id }, revoked_authority)
        }
        (Family::Wit, Order::Prepare) => {
            done!(prepare_wit_authority, PrepareWitAuthorityRequest {}, prepared_authority)
        }
        (Family::Wit, Order::Activate(id)) => {
            done!(activate_wit_authority, ActivateWitAuthorityRequest { id }, activated_authority)
        }
        (Family::Wit, Order::Taint(id)) => {
            done!(taint_wit_authority, TaintWitAuthorityRequest { id }, tainted_authority)
        }
        (Family::Wit, Order::Revoke(id)) => {
            done!(revoke_wit_authority, RevokeWitAuthorityRequest { id }, revoked_authority)
        }
    })
}
