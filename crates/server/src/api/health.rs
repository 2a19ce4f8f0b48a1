//! gRPC health: SERVING while the own bundle can be read, as SPIRE's server answers, changes can be stored, and authorities
//! rotate. Only Check works, for the empty service name.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::filter::bad_request;
use crate::context::Context;

pub(crate) struct HealthService {
    pub(crate) context: Arc<Context>,
}

pub(crate) fn server(context: Arc<Context>) -> HealthServer<HealthService> {
    HealthServer::new(HealthService { context })
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.into_inner().service.is_empty() {
            return Err(bad_request("per-service health is not supported"));
        }
        let Context { directory, authorities, jwt_issuer, wit_issuer, trust_domain, .. } =
            self.context.as_ref();
        let readable = directory.view().bundle(trust_domain).is_some();
        let rotate = authorities.rotate() && jwt_issuer.rotates() && wit_issuer.rotates();
        let well = readable && directory.takes_changes() && rotate;
        let status = if well { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watching health is not supported; call Check"))
    }
}
