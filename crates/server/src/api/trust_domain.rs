//! The TrustDomain service: federation relationships, which say where the bundles of other trust domains come from.
//!
//! Nothing is fetched from the endpoints yet; the bundle of a relationship is what came with it or was set on its own.

use std::sync::Arc;

use spindle_proto::convert::{
    RelationshipMask, relationship_from_proto, relationship_to_proto, trust_domain_from_proto,
};
use spindle_proto::refusal::{item_ok, refusal};
use spindle_proto::spire::api::server::trustdomain::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{Bundle, EndpointProfile, FederationRelationship, Reason, TrustDomain};
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};

use super::bundle::items::{bad_item, fault_item, own_trust_domain};
use super::bundle::page_start;
use super::filter::{bad_request, check_batch, page_size};
use crate::context::Context;
use crate::directory::View;
use crate::federation::relationships;

pub(crate) struct TrustDomainService {
    pub(crate) context: Arc<Context>,
}

/// A relationship as it stands in `view`, with the bundle of its trust domain.
fn shown(
    view: &View,
    relationship: &FederationRelationship,
    mask: &RelationshipMask,
) -> types::FederationRelationship {
    let bundle = view.bundle(&relationship.trust_domain).filter(|_| mask.has_bundle());
    mask.apply(relationship_to_proto(relationship, bundle.map(AsRef::as_ref)))
}

/// What a request says of one relationship.
fn given(
    item: &types::FederationRelationship,
) -> Result<(FederationRelationship, Option<Bundle>), types::Status> {
    relationship_from_proto(item)
        .map_err(|error| bad_item(format!("failed to convert federation relationship: {error}")))
}

fn parse_name(name: &str) -> Result<TrustDomain, Status> {
    trust_domain_from_proto(name)
        .map_err(|error| bad_request(&format!("failed to parse trust domain: {error}")))
}

impl TrustDomainService {
    async fn create_one(
        &self,
        item: &types::FederationRelationship,
    ) -> Result<FederationRelationship, types::Status> {
        let (relationship, bundle) = given(item)?;
        if relationship.trust_domain == self.context.trust_domain {
            let message = "unable to create federation relationship for server trust domain";
            return Err(own_trust_domain(message.into()));
        }
        let created = relationships::create(&self.context.directory, &relationship, bundle.as_ref()).await;
        // SPIRE answers INTERNAL to one that is there already; none of its clients makes a difference.
        created.map_err(|fault| fault_item(&fault, "failed to create federation relationship"))?;
        info!(trust_domain_id = %relationship.trust_domain, "federation relationship created");
        self.warn_without_endpoint_bundle(&relationship);
        Ok(relationship)
    }

    async fn update_one(
        &self,
        item: &types::FederationRelationship,
        mask: &RelationshipMask,
    ) -> Result<FederationRelationship, types::Status> {
        // As in SPIRE what the mask leaves out has to be well formed all the same.
        let (given, bundle) = given(item)?;
        let bundle = bundle.filter(|_| mask.has_bundle());
        let change = |old: &FederationRelationship| mask.merge(old, &given);
        let directory = &self.context.directory;
        let updated = relationships::update(directory, &given.trust_domain, change, bundle.as_ref()).await;
        let updated =
            updated.map_err(|fault| fault_item(&fault, "failed to update federation relationship"))?;
        info!(trust_domain_id = %updated.trust_domain, "federation relationship updated");
        self.warn_without_endpoint_bundle(&updated);
        Ok(updated)
    }

    async fn delete_one(&self, name: &str) -> Result<TrustDomain, types::Status> {
        if name.is_empty() {
            return Err(bad_item("missing trust domain".into()));
        }
        let name = trust_domain_from_proto(name)
            .map_err(|error| bad_item(format!("failed to parse trust domain: {error}")))?;
        let deleted = relationships::delete(&self.context.directory, &name).await;
        deleted.map_err(|fault| fault_item(&fault, "failed to delete federation relationship"))?;
        info!(trust_domain_id = %name, "federation relationship deleted");
        Ok(name)
    }

    /// An endpoint is recognised by the bundle of its trust domain, so one is needed before the first fetch.
    fn warn_without_endpoint_bundle(&self, relationship: &FederationRelationship) {
        if let EndpointProfile::HttpsSpiffe { endpoint_id } = &relationship.profile
            && self.context.directory.view().bundle(&endpoint_id.trust_domain()).is_none()
        {
            let trust_domain = &relationship.trust_domain;
            warn!(trust_domain_id = %trust_domain, endpoint_spiffe_id = %endpoint_id, "bundle not found for the endpoint SPIFFE ID trust domain");
        }
    }

    /// Status and relationship of one item of a batch.
    fn outcome(
        &self,
        outcome: Result<FederationRelationship, types::Status>,
        mask: &RelationshipMask,
    ) -> (Option<types::Status>, Option<types::FederationRelationship>) {
        match outcome {
            Ok(relationship) => {
                let view = self.context.directory.view();
                (Some(item_ok()), Some(shown(&view, &relationship, mask)))
            }
            Err(status) => (Some(status), None),
        }
    }
}

#[tonic::async_trait]
impl wire::trust_domain_server::TrustDomain for TrustDomainService {
    async fn list_federation_relationships(
        &self,
        request: Request<wire::ListFederationRelationshipsRequest>,
    ) -> Result<Response<wire::ListFederationRelationshipsResponse>, Status> {
        let request = request.into_inner();
        let view = self.context.directory.view();
        let known = view.federation();
        let size = page_size(request.page_size);
        let page: Vec<_> = match size {
            None => known.relationships().collect(),
            Some(size) => match page_start(&request.page_token)? {
                None => known.relationships().take(size).collect(),
                Some(last) => known.relationships_after(&last).take(size).collect(),
            },
        };
        // A page with relationships always has a token, so that the last one is empty: clients rely on it.
        let next_page_token = match (size, page.last()) {
            (Some(_), Some(last)) => last.trust_domain.to_string(),
            _ => String::new(),
        };
        let mask = RelationshipMask::of(request.output_mask);
        let federation_relationships = page.iter().map(|one| shown(&view, one, &mask)).collect();
        Ok(Response::new(wire::ListFederationRelationshipsResponse {
            federation_relationships,
            next_page_token,
        }))
    }

    async fn get_federation_relationship(
        &self,
        request: Request<wire::GetFederationRelationshipRequest>,
    ) -> Result<Response<types::FederationRelationship>, Status> {
        let request = request.into_inner();
        let name = parse_name(&request.trust_domain)?;
        let view = self.context.directory.view();
        match view.federation().relationship(&name) {
            Some(row) => {
                let mask = RelationshipMask::of(request.output_mask);
                Ok(Response::new(shown(&view, &row.relationship, &mask)))
            }
            None => {
                let message = "federation relationship does not exist";
                Err(refusal(Code::NotFound, Reason::RelationshipNotFound, message))
            }
        }
    }

    async fn batch_create_federation_relationship(
        &self,
        request: Request<wire::BatchCreateFederationRelationshipRequest>,
    ) -> Result<Response<wire::BatchCreateFederationRelationshipResponse>, Status> {
        use wire::batch_create_federation_relationship_response::Result as Item;
        let request = request.into_inner();
        check_batch(request.federation_relationships.len())?;
        let mask = RelationshipMask::of(request.output_mask);
        let mut results = Vec::with_capacity(request.federation_relationships.len());
        for item in &request.federation_relationships {
            let (status, federation_relationship) = self.outcome(self.create_one(item).await, &mask);
            results.push(Item { status, federation_relationship });
        }
        Ok(Response::new(wire::BatchCreateFederationRelationshipResponse { results }))
    }

    async fn batch_update_federation_relationship(
        &self,
        request: Request<wire::BatchUpdateFederationRelationshipRequest>,
    ) -> Result<Response<wire::BatchUpdateFederationRelationshipResponse>, Status> {
        use wire::batch_update_federation_relationship_response::Result as Item;
        let request = request.into_inner();
        check_batch(request.federation_relationships.len())?;
        let input = RelationshipMask::of(request.input_mask);
        let output = RelationshipMask::of(request.output_mask);
        let mut results = Vec::with_capacity(request.federation_relationships.len());
        for item in &request.federation_relationships {
            let (status, federation_relationship) =
                self.outcome(self.update_one(item, &input).await, &output);
            results.push(Item { status, federation_relationship });
        }
        Ok(Response::new(wire::BatchUpdateFederationRelationshipResponse { results }))
    }

    async fn batch_delete_federation_relationship(
        &self,
        request: Request<wire::BatchDeleteFederationRelationshipRequest>,
    ) -> Result<Response<wire::BatchDeleteFederationRelationshipResponse>, Status> {
        use wire::batch_delete_federation_relationship_response::Result as Item;
        let request = request.into_inner();
        check_batch(request.trust_domains.len())?;
        let mut results = Vec::with_capacity(request.trust_domains.len());
        for given in request.trust_domains {
            results.push(match self.delete_one(&given).await {
                Ok(name) => Item { status: Some(item_ok()), trust_domain: name.to_string() },
                // By its bare name where it has one, as SPIRE does.
                Err(status) => {
                    let name = trust_domain_from_proto(&given).map_or(given, |name| name.to_string());
                    Item { status: Some(status), trust_domain: name }
                }
            });
        }
        Ok(Response::new(wire::BatchDeleteFederationRelationshipResponse { results }))
    }

    async fn refresh_bundle(
        &self,
        request: Request<wire::RefreshBundleRequest>,
    ) -> Result<Response<()>, Status> {
        let name = parse_name(&request.into_inner().trust_domain)?;
        if self.context.directory.view().federation().relationship(&name).is_none() {
            let message = format!("no relationship with trust domain \"{name}\"");
            return Err(refusal(Code::NotFound, Reason::RelationshipNotFound, &message));
        }
        let message =
            format!("this server does not fetch bundles yet: set the bundle of {name} with `bundle set`");
        Err(refusal(Code::Unimplemented, Reason::NotSupported, &message))
    }
}
