//! The Bundle service: what peers and agents verify against, of the own trust domain and of others.

pub(super) mod items;

mod publish_key;

use std::sync::Arc;

use spindle_ca::{Jwt, Wit};
use spindle_proto::convert::{
    BundleMask, authorities_from_proto, bundle_to_proto, given_bundle_from_proto, trust_domain_from_proto,
};
use spindle_proto::refusal::{item_ok, refusal};
use spindle_proto::spire::api::server::bundle::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{Bundle, Reason, TrustDomain};
use tonic::{Code, Request, Response, Status};
use tracing::info;

use super::caller::caller_of;
use super::filter::{bad_page_token, bad_request, check_batch, page_size};
use crate::bundles::{self, AppendFault};
use crate::context::Context;
use crate::directory::Unlinking;
use crate::federation::{bundles as foreign, removal};
use crate::rate_limit::source_of;
use items::{bad_bundle, check_foreign, fault_item};

pub(crate) struct BundleService {
    pub(crate) context: Arc<Context>,
}

/// The trust domain after which a page starts, from its token: the name of the last one listed, which stays right when
/// others come and go between two pages. None for the first page.
pub(super) fn page_start(token: &str) -> Result<Option<TrustDomain>, Status> {
    match token {
        "" => Ok(None),
        name => name.parse().map(Some).map_err(|_| bad_page_token(token)),
    }
}

impl BundleService {
    /// A bundle in a request, which must be that of another trust domain.
    fn given(&self, item: &types::Bundle, doing: &str) -> Result<Bundle, types::Status> {
        check_foreign(&item.trust_domain, &self.context.trust_domain, || {
            format!("{doing} a federated bundle for the server's own trust domain is not allowed")
        })?;
        given_bundle_from_proto(item).map_err(|error| bad_bundle(&error))
    }

    async fn create_one(&self, item: &types::Bundle) -> Result<Bundle, types::Status> {
        let bundle = self.given(item, "creating")?;
        let created = foreign::create(&self.context.directory, &bundle).await;
        created.map_err(|fault| fault_item(&fault, "unable to create bundle"))?;
        info!(trust_domain_id = %bundle.trust_domain, "federated bundle created");
        Ok(bundle)
    }

    async fn set_one(&self, item: &types::Bundle) -> Result<Bundle, types::Status> {
        let bundle = self.given(item, "setting")?;
        let set = foreign::set(&self.context.directory, &bundle).await;
        set.map_err(|fault| fault_item(&fault, "failed to set bundle"))?;
        info!(trust_domain_id = %bundle.trust_domain, "federated bundle set");
        Ok(bundle)
    }

    async fn update_one(&self, item: &types::Bundle, mask: &BundleMask) -> Result<Bundle, types::Status> {
        // As in SPIRE what the mask leaves out has to be well formed all the same.
        let given = self.given(item, "updating")?;
        let change = |old: &Bundle| mask.merge(old, &given);
        let updated = foreign::update(&self.context.directory, &given.trust_domain, change).await;
        let bundle = updated.map_err(|fault| fault_item(&fault, "failed to update bundle"))?;
        info!(trust_domain_id = %bundle.trust_domain, "federated bundle updated");
        Ok(bundle)
    }

    async fn delete_one(&self, name: &str, unlinking: Option<Unlinking>) -> Result<(), types::Status> {
        let own = || "removing the bundle for the server trust domain is not allowed".into();
        let name = check_foreign(name, &self.context.trust_domain, own)?;
        let deleted = removal::delete(&self.context.directory, &name, unlinking).await;
        deleted.map_err(|fault| fault_item(&fault, "failed to delete federated bundle"))?;
        info!(trust_domain_id = %name, ?unlinking, "federated bundle deleted");
        Ok(())
    }
}

/// Status and bundle of one item of a batch.
fn outcome(
    outcome: Result<Bundle, types::Status>,
    mask: &BundleMask,
) -> (Option<types::Status>, Option<types::Bundle>) {
    match outcome {
        Ok(bundle) => (Some(item_ok()), Some(mask.apply(bundle_to_proto(&bundle)))),
        Err(status) => (Some(status), None),
    }
}

fn append_refusal(fault: AppendFault) -> Status {
    match fault {
        AppendFault::Bundle(error) => bad_request(&format!("failed to append bundle: {error}")),
        AppendFault::Commit(error) => {
            tracing::error!(error = %spindle_spiffe_core::ErrorChain(&error), "authorities cannot be appended");
            refusal(
                Code::Internal,
                Reason::StoreFailed,
                "failed to append bundle: the change could not be stored",
            )
        }
    }
}

fn unlinking(mode: i32) -> Result<Option<Unlinking>, Status> {
    use wire::batch_delete_federated_bundle_request::Mode;
    match Mode::try_from(mode) {
        Ok(Mode::Restrict) => Ok(None),
        Ok(Mode::Delete) => Ok(Some(Unlinking::Delete)),
        Ok(Mode::Dissociate) => Ok(Some(Unlinking::Dissociate)),
        Err(_) => {
            Err(bad_request(&format!("failed to parse deletion mode: unhandled delete mode \"{mode}\"")))
        }
    }
}

#[tonic::async_trait]
impl wire::bundle_server::Bundle for BundleService {
    async fn get_bundle(
        &self,
        request: Request<wire::GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let mask = BundleMask::of(request.into_inner().output_mask);
        let view = self.context.directory.view();
        match view.bundle(&self.context.trust_domain) {
            Some(bundle) => Ok(Response::new(mask.apply(bundle_to_proto(bundle)))),
            None => Err(refusal(Code::NotFound, Reason::ServerStarting, "bundle not found")),
        }
    }

    async fn append_bundle(
        &self,
        request: Request<wire::AppendBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let request = request.into_inner();
        let (x509, jwt, wit) =
            (&request.x509_authorities, &request.jwt_authorities, &request.wit_authorities);
        if x509.is_empty() && jwt.is_empty() && wit.is_empty() {
            return Err(bad_request("no authorities to append"));
        }
        let given = authorities_from_proto(x509, jwt, wit)
            .map_err(|error| bad_request(&format!("failed to convert authorities: {error}")))?;
        let Context { directory, trust_domain, .. } = self.context.as_ref();
        bundles::append_own(directory, trust_domain, &given).await.map_err(append_refusal)?;
        info!(trust_domain_id = %trust_domain, x509 = given.x509.len(), jwt = given.jwt.len(),
              wit = given.wit.len(), "authorities appended");
        let bundle = bundles::own(&directory.view(), trust_domain);
        Ok(Response::new(BundleMask::of(request.output_mask).apply(bundle_to_proto(&bundle))))
    }

    async fn publish_jwt_authority(
        &self,
        request: Request<wire::PublishJwtAuthorityRequest>,
    ) -> Result<Response<wire::PublishJwtAuthorityResponse>, Status> {
        let caller = caller_of(&request)?.downstream()?.clone();
        let source = source_of(&request);
        let given = request.into_inner().jwt_authority;
        let given = given.map(|key| Ok(authorities_from_proto(&[], &[key], &[])?.jwt));
        let bundle = publish_key::publish::<Jwt>(&self.context, &caller, source, given).await?;
        let jwt_authorities = bundle_to_proto(&bundle).jwt_authorities;
        Ok(Response::new(wire::PublishJwtAuthorityResponse { jwt_authorities }))
    }

    async fn publish_wit_authority(
        &self,
        request: Request<wire::PublishWitAuthorityRequest>,
    ) -> Result<Response<wire::PublishWitAuthorityResponse>, Status> {
        let caller = caller_of(&request)?.downstream()?.clone();
        self.context.wit_issuer.enabled().map_err(|error| error.status())?;
        let source = source_of(&request);
        let given = request.into_inner().wit_authority;
        let given = given.map(|key| Ok(authorities_from_proto(&[], &[], &[key])?.wit));
        let bundle = publish_key::publish::<Wit>(&self.context, &caller, source, given).await?;
        let wit_authorities = bundle_to_proto(&bundle).wit_authorities;
        Ok(Response::new(wire::PublishWitAuthorityResponse { wit_authorities }))
    }

    async fn count_bundles(
        &self,
        _: Request<wire::CountBundlesRequest>,
    ) -> Result<Response<wire::CountBundlesResponse>, Status> {
        let count = self.context.directory.view().bundle_count();
        Ok(Response::new(wire::CountBundlesResponse { count: i32::try_from(count).unwrap_or(i32::MAX) }))
    }

    async fn list_federated_bundles(
        &self,
        request: Request<wire::ListFederatedBundlesRequest>,
    ) -> Result<Response<wire::ListFederatedBundlesResponse>, Status> {
        let request = request.into_inner();
        let view = self.context.directory.view();
        let foreign = |bundle: &&Arc<Bundle>| bundle.trust_domain != self.context.trust_domain;
        let size = page_size(request.page_size);
        let page: Vec<_> = match size {
            None => view.bundles().filter(foreign).collect(),
            Some(size) => match page_start(&request.page_token)? {
                None => view.bundles().filter(foreign).take(size).collect(),
                Some(last) => view.bundles_after(&last).filter(foreign).take(size).collect(),
            },
        };
        // A page with bundles always has a token, so that the last one is empty: clients rely on it.
        let next_page_token = match (size, page.last()) {
            (Some(_), Some(last)) => last.trust_domain.to_string(),
            _ => String::new(),
        };
        let mask = BundleMask::of(request.output_mask);
        let bundles = page.iter().map(|bundle| mask.apply(bundle_to_proto(bundle))).collect();
        Ok(Response::new(wire::ListFederatedBundlesResponse { bundles, next_page_token }))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<wire::GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let request = request.into_inner();
        let name = trust_domain_from_proto(&request.trust_domain)
            .map_err(|error| bad_request(&format!("trust domain argument is not valid: {error}")))?;
        if name == self.context.trust_domain {
            let message = "getting a federated bundle for the server's own trust domain is not allowed";
            return Err(refusal(Code::InvalidArgument, Reason::OwnTrustDomain, message));
        }
        let view = self.context.directory.view();
        match view.bundle(&name) {
            Some(bundle) => {
                Ok(Response::new(BundleMask::of(request.output_mask).apply(bundle_to_proto(bundle))))
            }
            None => Err(refusal(Code::NotFound, Reason::BundleNotFound, "bundle not found")),
        }
    }

    async fn batch_create_federated_bundle(
        &self,
        request: Request<wire::BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<wire::BatchCreateFederatedBundleResponse>, Status> {
        use wire::batch_create_federated_bundle_response::Result as Item;
        let request = request.into_inner();
        check_batch(request.bundle.len())?;
        let mask = BundleMask::of(request.output_mask);
        let mut results = Vec::with_capacity(request.bundle.len());
        for item in &request.bundle {
            let (status, bundle) = outcome(self.create_one(item).await, &mask);
            results.push(Item { status, bundle });
        }
        Ok(Response::new(wire::BatchCreateFederatedBundleResponse { results }))
    }

    async fn batch_update_federated_bundle(
        &self,
        request: Request<wire::BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<wire::BatchUpdateFederatedBundleResponse>, Status> {
        use wire::batch_update_federated_bundle_response::Result as Item;
        let request = request.into_inner();
        check_batch(request.bundle.len())?;
        let (input, output) = (BundleMask::of(request.input_mask), BundleMask::of(request.output_mask));
        let mut results = Vec::with_capacity(request.bundle.len());
        for item in &request.bundle {
            let (status, bundle) = outcome(self.update_one(item, &input).await, &output);
            results.push(Item { status, bundle });
        }
        Ok(Response::new(wire::BatchUpdateFederatedBundleResponse { results }))
    }

    async fn batch_set_federated_bundle(
        &self,
        request: Request<wire::BatchSetFederatedBundleRequest>,
    ) -> Result<Response<wire::BatchSetFederatedBundleResponse>, Status> {
        use wire::batch_set_federated_bundle_response::Result as Item;
        let request = request.into_inner();
        check_batch(request.bundle.len())?;
        let mask = BundleMask::of(request.output_mask);
        let mut results = Vec::with_capacity(request.bundle.len());
        for item in &request.bundle {
            let (status, bundle) = outcome(self.set_one(item).await, &mask);
            results.push(Item { status, bundle });
        }
        Ok(Response::new(wire::BatchSetFederatedBundleResponse { results }))
    }

    async fn batch_delete_federated_bundle(
        &self,
        request: Request<wire::BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<wire::BatchDeleteFederatedBundleResponse>, Status> {
        use wire::batch_delete_federated_bundle_response::Result as Item;
        let request = request.into_inner();
        check_batch(request.trust_domains.len())?;
        let unlinking = unlinking(request.mode)?;
        let mut results = Vec::with_capacity(request.trust_domains.len());
        for trust_domain in request.trust_domains {
            let status = match self.delete_one(&trust_domain, unlinking).await {
                Ok(()) => item_ok(),
                Err(status) => status,
            };
            results.push(Item { status: Some(status), trust_domain });
        }
        Ok(Response::new(wire::BatchDeleteFederatedBundleResponse { results }))
    }
}
