//! The Bundle service: what peers and agents verify against.

use std::sync::Arc;

use spindle_proto::convert::{bundle_to_proto, trust_domain_from_proto};
use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::server::bundle::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{Bundle, Reason};
use tonic::{Code, Request, Response, Status};

use super::filter::bad_request;
use crate::context::Context;

pub(crate) struct BundleService {
    pub(crate) context: Arc<Context>,
}

fn masked(bundle: &Bundle, mask: Option<types::BundleMask>) -> types::Bundle {
    let mut wire = bundle_to_proto(bundle);
    if let Some(mask) = mask {
        if !mask.x509_authorities {
            wire.x509_authorities.clear();
        }
        if !mask.jwt_authorities {
            wire.jwt_authorities.clear();
        }
        if !mask.refresh_hint {
            wire.refresh_hint = 0;
        }
        if !mask.sequence_number {
            wire.sequence_number = 0;
        }
    }
    wire
}

#[tonic::async_trait]
impl wire::bundle_server::Bundle for BundleService {
    async fn get_bundle(
        &self,
        request: Request<wire::GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let view = self.context.directory.view();
        match view.bundle(&self.context.trust_domain) {
            Some(bundle) => Ok(Response::new(masked(bundle, request.into_inner().output_mask))),
            None => Err(refusal(Code::NotFound, Reason::ServerStarting, "bundle not found")),
        }
    }

    async fn count_bundles(
        &self,
        _: Request<wire::CountBundlesRequest>,
    ) -> Result<Response<wire::CountBundlesResponse>, Status> {
        let count = self.context.directory.view().bundle_count();
        Ok(Response::new(wire::CountBundlesResponse { count: i32::try_from(count).unwrap_or(i32::MAX) }))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<wire::GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let request = request.into_inner();
        let name = trust_domain_from_proto(&request.trust_domain)
            .map_err(|error| bad_request(&format!("trust domain argument is not valid: {error}")))?;
        if name == self.context.trust_domain {
            return Err(bad_request(
                "getting a federated bundle for the server's own trust domain is not allowed",
            ));
        }
        let view = self.context.directory.view();
        match view.bundle(&name) {
            Some(bundle) => Ok(Response::new(masked(bundle, request.output_mask))),
            None => Err(refusal(Code::NotFound, Reason::BundleNotFound, "bundle not found")),
        }
    }
}
