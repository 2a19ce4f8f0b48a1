//! The LocalAuthority service: the life of this server's authorities, step by step and by hand.
//!
//! One file for each family of authorities; what a step may be done to is decided in `authorities`.

mod jwt;
mod x509;

use std::sync::Arc;

use spindle_proto::spire::api::server::localauthority::v1 as wire;
use tonic::{Request, Response, Status};

use crate::context::Context;

pub(crate) struct LocalAuthorityService {
    pub(crate) context: Arc<Context>,
}

#[tonic::async_trait]
impl wire::local_authority_server::LocalAuthority for LocalAuthorityService {
    async fn get_jwt_authority_state(
        &self,
        _: Request<wire::GetJwtAuthorityStateRequest>,
    ) -> Result<Response<wire::GetJwtAuthorityStateResponse>, Status> {
        jwt::states(&self.context).map(Response::new)
    }

    async fn prepare_jwt_authority(
        &self,
        _: Request<wire::PrepareJwtAuthorityRequest>,
    ) -> Result<Response<wire::PrepareJwtAuthorityResponse>, Status> {
        jwt::prepare(&self.context).await.map(Response::new)
    }

    async fn activate_jwt_authority(
        &self,
        request: Request<wire::ActivateJwtAuthorityRequest>,
    ) -> Result<Response<wire::ActivateJwtAuthorityResponse>, Status> {
        jwt::activate(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn taint_jwt_authority(
        &self,
        request: Request<wire::TaintJwtAuthorityRequest>,
    ) -> Result<Response<wire::TaintJwtAuthorityResponse>, Status> {
        jwt::taint(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn revoke_jwt_authority(
        &self,
        request: Request<wire::RevokeJwtAuthorityRequest>,
    ) -> Result<Response<wire::RevokeJwtAuthorityResponse>, Status> {
        jwt::revoke(&self.context, request.into_inner()).await.map(Response::new)
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
}
