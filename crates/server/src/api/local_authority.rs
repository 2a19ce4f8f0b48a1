//! The LocalAuthority service: the life of this server's authorities, step by step and by hand.
//!
//! One file for X.509 authorities and one for those that sign tokens; what a step may be done to is decided in `authorities`.

mod token;
mod x509;

use std::sync::Arc;

use spindle_proto::spire::api::server::localauthority::v1 as wire;
use tonic::{Request, Response, Status};

use crate::authorities::TokenOrder;
use crate::context::Context;
use token::States;

pub(crate) struct LocalAuthorityService {
    pub(crate) context: Arc<Context>,
}

#[tonic::async_trait]
impl wire::local_authority_server::LocalAuthority for LocalAuthorityService {
    async fn get_jwt_authority_state(
        &self,
        _: Request<wire::GetJwtAuthorityStateRequest>,
    ) -> Result<Response<wire::GetJwtAuthorityStateResponse>, Status> {
        let States { active, prepared, old } = token::states(&self.context.jwt_issuer)?;
        Ok(Response::new(wire::GetJwtAuthorityStateResponse { active, prepared, old }))
    }

    async fn prepare_jwt_authority(
        &self,
        _: Request<wire::PrepareJwtAuthorityRequest>,
    ) -> Result<Response<wire::PrepareJwtAuthorityResponse>, Status> {
        let prepared_authority = token::order(&self.context.jwt_issuer, TokenOrder::Prepare).await?;
        Ok(Response::new(wire::PrepareJwtAuthorityResponse { prepared_authority }))
    }

    async fn activate_jwt_authority(
        &self,
        request: Request<wire::ActivateJwtAuthorityRequest>,
    ) -> Result<Response<wire::ActivateJwtAuthorityResponse>, Status> {
        let order = TokenOrder::Activate(request.into_inner().authority_id);
        let activated_authority = token::order(&self.context.jwt_issuer, order).await?;
        Ok(Response::new(wire::ActivateJwtAuthorityResponse { activated_authority }))
    }

    async fn taint_jwt_authority(
        &self,
        request: Request<wire::TaintJwtAuthorityRequest>,
    ) -> Result<Response<wire::TaintJwtAuthorityResponse>, Status> {
        let order = TokenOrder::Taint(request.into_inner().authority_id);
        let tainted_authority = token::order(&self.context.jwt_issuer, order).await?;
        Ok(Response::new(wire::TaintJwtAuthorityResponse { tainted_authority }))
    }

    async fn revoke_jwt_authority(
        &self,
        request: Request<wire::RevokeJwtAuthorityRequest>,
    ) -> Result<Response<wire::RevokeJwtAuthorityResponse>, Status> {
        let order = TokenOrder::Revoke(request.into_inner().authority_id);
        let revoked_authority = token::order(&self.context.jwt_issuer, order).await?;
        Ok(Response::new(wire::RevokeJwtAuthorityResponse { revoked_authority }))
    }

    async fn get_x509_authority_state(
        &self,
        _: Request<wire::GetX509AuthorityStateRequest>,
    ) -> Result<Response<wire::GetX509AuthorityStateResponse>, Status> {
        x509::states(&self.context).map(Response::new)
    }

    async fn prepare_x509_authority(
        &self,
        _: Request<wire::PrepareX509AuthorityRequest>,
    ) -> Result<Response<wire::PrepareX509AuthorityResponse>, Status> {
        x509::prepare(&self.context).await.map(Response::new)
    }

    async fn activate_x509_authority(
        &self,
        request: Request<wire::ActivateX509AuthorityRequest>,
    ) -> Result<Response<wire::ActivateX509AuthorityResponse>, Status> {
        x509::activate(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn taint_x509_authority(
        &self,
        request: Request<wire::TaintX509AuthorityRequest>,
    ) -> Result<Response<wire::TaintX509AuthorityResponse>, Status> {
        x509::taint(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn taint_x509_upstream_authority(
        &self,
        request: Request<wire::TaintX509UpstreamAuthorityRequest>,
    ) -> Result<Response<wire::TaintX509UpstreamAuthorityResponse>, Status> {
        x509::taint_upstream(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn revoke_x509_authority(
        &self,
        request: Request<wire::RevokeX509AuthorityRequest>,
    ) -> Result<Response<wire::RevokeX509AuthorityResponse>, Status> {
        x509::revoke(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn revoke_x509_upstream_authority(
        &self,
        request: Request<wire::RevokeX509UpstreamAuthorityRequest>,
    ) -> Result<Response<wire::RevokeX509UpstreamAuthorityResponse>, Status> {
        x509::revoke_upstream(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn get_wit_authority_state(
        &self,
        _: Request<wire::GetWitAuthorityStateRequest>,
    ) -> Result<Response<wire::GetWitAuthorityStateResponse>, Status> {
        let States { active, prepared, old } = token::states(&self.context.wit_issuer)?;
        Ok(Response::new(wire::GetWitAuthorityStateResponse { active, prepared, old }))
    }

    async fn prepare_wit_authority(
        &self,
        _: Request<wire::PrepareWitAuthorityRequest>,
    ) -> Result<Response<wire::PrepareWitAuthorityResponse>, Status> {
        let prepared_authority = token::order(&self.context.wit_issuer, TokenOrder::Prepare).await?;
        Ok(Response::new(wire::PrepareWitAuthorityResponse { prepared_authority }))
    }

    async fn activate_wit_authority(
        &self,
        request: Request<wire::ActivateWitAuthorityRequest>,
    ) -> Result<Response<wire::ActivateWitAuthorityResponse>, Status> {
        let order = TokenOrder::Activate(request.into_inner().authority_id);
        let activated_authority = token::order(&self.context.wit_issuer, order).await?;
        Ok(Response::new(wire::ActivateWitAuthorityResponse { activated_authority }))
    }

    async fn taint_wit_authority(
        &self,
        request: Request<wire::TaintWitAuthorityRequest>,
    ) -> Result<Response<wire::TaintWitAuthorityResponse>, Status> {
        let order = TokenOrder::Taint(request.into_inner().authority_id);
        let tainted_authority = token::order(&self.context.wit_issuer, order).await?;
        Ok(Response::new(wire::TaintWitAuthorityResponse { tainted_authority }))
    }

    async fn revoke_wit_authority(
        &self,
        request: Request<wire::RevokeWitAuthorityRequest>,
    ) -> Result<Response<wire::RevokeWitAuthorityResponse>, Status> {
        let order = TokenOrder::Revoke(request.into_inner().authority_id);
        let revoked_authority = token::order(&self.context.wit_issuer, order).await?;
        Ok(Response::new(wire::RevokeWitAuthorityResponse { revoked_authority }))
    }
}
