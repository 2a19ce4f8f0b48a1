//! The calls of the LocalAuthority service in short, for each family of authorities.

use spindle_proto::spire::api::server::localauthority::v1 as wire;
use tonic::Status;

use crate::support::{TestServer, in_time};

/// Makes the five calls that need no upstream authority: the names are the service's.
macro_rules! hand {
    ($(#[$doc:meta])* $hand:ident, $show:ident($Show:ident) -> $State:ident, $prepare:ident($Prepare:ident),
     $activate:ident($Activate:ident), $taint:ident($Taint:ident), $revoke:ident($Revoke:ident)) => {
        $(#[$doc])*
        pub(crate) struct $hand<'s>(pub(crate) &'s TestServer);

        impl $hand<'_> {
            pub(crate) async fn show(&self) -> Result<wire::$State, Status> {
                let answer = in_time(self.0.local_authorities().await.$show(wire::$Show {})).await?;
                Ok(answer.into_inner())
            }

            /// The ID of the authority that signs.
            pub(crate) async fn active(&self) -> String {
                self.show().await.unwrap().active.unwrap().authority_id
            }

            pub(crate) async fn prepare(&self) -> Result<wire::AuthorityState, Status> {
                let answer = in_time(self.0.local_authorities().await.$prepare(wire::$Prepare {})).await?;
                Ok(answer.into_inner().prepared_authority.unwrap())
            }

            pub(crate) async fn activate(&self, id: &str) -> Result<wire::AuthorityState, Status> {
                let request = wire::$Activate { authority_id: id.into() };
                let answer = in_time(self.0.local_authorities().await.$activate(request)).await?;
                Ok(answer.into_inner().activated_authority.unwrap())
            }

            pub(crate) async fn taint(&self, id: &str) -> Result<wire::AuthorityState, Status> {
                let request = wire::$Taint { authority_id: id.into() };
                let answer = in_time(self.0.local_authorities().await.$taint(request)).await?;
                Ok(answer.into_inner().tainted_authority.unwrap())
            }

            pub(crate) async fn revoke(&self, id: &str) -> Result<wire::AuthorityState, Status> {
                let request = wire::$Revoke { authority_id: id.into() };
                let answer = in_time(self.0.local_authorities().await.$revoke(request)).await?;
                Ok(answer.into_inner().revoked_authority.unwrap())
            }
        }
    };
}

hand!(
    /// X.509 authorities.
    X509Hand,
    get_x509_authority_state(GetX509AuthorityStateRequest) -> GetX509AuthorityStateResponse,
    prepare_x509_authority(PrepareX509AuthorityRequest),
    activate_x509_authority(ActivateX509AuthorityRequest),
    taint_x509_authority(TaintX509AuthorityRequest),
    revoke_x509_authority(RevokeX509AuthorityRequest)
);

hand!(
    /// JWT authorities.
    JwtHand,
    get_jwt_authority_state(GetJwtAuthorityStateRequest) -> GetJwtAuthorityStateResponse,
    prepare_jwt_authority(PrepareJwtAuthorityRequest),
    activate_jwt_authority(ActivateJwtAuthorityRequest),
    taint_jwt_authority(TaintJwtAuthorityRequest),
    revoke_jwt_authority(RevokeJwtAuthorityRequest)
);

hand!(
    /// WIT authorities.
    WitHand,
    get_wit_authority_state(GetWitAuthorityStateRequest) -> GetWitAuthorityStateResponse,
    prepare_wit_authority(PrepareWitAuthorityRequest),
    activate_wit_authority(ActivateWitAuthorityRequest),
    taint_wit_authority(TaintWitAuthorityRequest),
    revoke_wit_authority(RevokeWitAuthorityRequest)
);
