//! Bundles: the own one, and one of a partner.

use super::*;

#[tonic::async_trait]
impl bundle::bundle_server::Bundle for Service {
    async fn get_bundle(
        &self,
        _: Request<bundle::GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        if self.0.bundle_failures.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(Status::unavailable("not now"));
        }
        Ok(Response::new(bundle_to_proto(&self.0.bundle())))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<bundle::GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        self.0.agent(&request, "GetFederatedBundle")?;
        match request.into_inner().trust_domain.as_str() {
            "partner.example" => {
                let partner = TestAuthority::new("partner.example", SystemClock.now());
                Ok(Response::new(bundle_to_proto(&partner.bundle())))
            }
            _ => Err(Status::not_found("bundle not found")),
        }
    }

    async fn publish_jwt_authority(
        &self,
        _: Request<bundle::PublishJwtAuthorityRequest>,
    ) -> Result<Response<bundle::PublishJwtAuthorityResponse>, Status> {
        Err(not_faked())
    }

    async fn publish_wit_authority(
        &self,
        _: Request<bundle::PublishWitAuthorityRequest>,
    ) -> Result<Response<bundle::PublishWitAuthorityResponse>, Status> {
        Err(not_faked())
    }

    async fn count_bundles(
        &self,
        _: Request<bundle::CountBundlesRequest>,
    ) -> Result<Response<bundle::CountBundlesResponse>, Status> {
        Err(not_faked())
    }

    async fn append_bundle(
        &self,
        _: Request<bundle::AppendBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        Err(not_faked())
    }

    async fn list_federated_bundles(
        &self,
        _: Request<bundle::ListFederatedBundlesRequest>,
    ) -> Result<Response<bundle::ListFederatedBundlesResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_create_federated_bundle(
        &self,
        _: Request<bundle::BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<bundle::BatchCreateFederatedBundleResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_update_federated_bundle(
        &self,
        _: Request<bundle::BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<bundle::BatchUpdateFederatedBundleResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_set_federated_bundle(
        &self,
        _: Request<bundle::BatchSetFederatedBundleRequest>,
    ) -> Result<Response<bundle::BatchSetFederatedBundleResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_delete_federated_bundle(
        &self,
        _: Request<bundle::BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<bundle::BatchDeleteFederatedBundleResponse>, Status> {
        Err(not_faked())
    }
}
