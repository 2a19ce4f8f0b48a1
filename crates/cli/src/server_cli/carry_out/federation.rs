//! Sets bundles and relationships over SPIRE's batch calls. What is made must not be there, and what is changed must, so that
//! what somebody else did meanwhile shows.

use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::server::bundle::v1::{
    BatchCreateFederatedBundleRequest, BatchUpdateFederatedBundleRequest,
};
use spindle_proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use spindle_proto::spire::api::server::trustdomain::v1::{
    BatchCreateFederationRelationshipRequest, BatchUpdateFederationRelationshipRequest,
};
use spindle_proto::spire::api::types;
use tonic::transport::Channel;

use super::{Outcome, complete};
use crate::client::refused;
use crate::error::Failure;
use crate::federation_plan::{FederationStep, Item};
use crate::server_cli::entry::batch::{ANSWER_BYTES_MAX, split};

/// Does the steps in order. A call that fails ends the work; what was answered before it stays in the outcomes.
pub(in crate::server_cli) async fn carry_out_federation(
    channel: &Channel,
    steps: &[FederationStep],
) -> (Vec<Outcome>, Result<(), Failure>) {
    let mut outcomes = Vec::with_capacity(steps.len());
    let mut ended = Ok(());
    let same =
        |a: &FederationStep, b: &FederationStep| (a.verb(), a.item.kind()) == (b.verb(), b.item.kind());
    for run in steps.chunk_by(same) {
        let bundles = run.iter().filter_map(|step| match &step.item {
            Item::Bundle(bundle) => Some(bundle.clone()),
            Item::Relationship(_) => None,
        });
        let relationships = run.iter().filter_map(|step| match &step.item {
            Item::Relationship(relationship) => Some(relationship.clone()),
            Item::Bundle(_) => None,
        });
        let creates = run.first().is_some_and(|step| step.verb() == "create");
        ended = match run.first().map(|step| &step.item) {
            Some(Item::Bundle(_)) => set_bundles(channel, bundles.collect(), creates, &mut outcomes).await,
            _ => set_relationships(channel, relationships.collect(), creates, &mut outcomes).await,
        };
        if ended.is_err() {
            break;
        }
    }
    outcomes.resize(steps.len(), Outcome::NotTried);
    (outcomes, ended)
}

async fn set_bundles(
    channel: &Channel,
    bundles: Vec<types::Bundle>,
    creates: bool,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), Failure> {
    let mut client = BundleClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    for bundle in split(bundles) {
        let names: Vec<_> = bundle.iter().map(|one| one.trust_domain.clone()).collect();
        let output_mask = Some(types::BundleMask::default());
        let statuses: Result<Vec<_>, tonic::Status> = if creates {
            let request = BatchCreateFederatedBundleRequest { bundle, output_mask };
            let answer = client.batch_create_federated_bundle(request).await;
            answer.map(|answer| answer.into_inner().results.into_iter().map(|result| result.status).collect())
        } else {
            let request = BatchUpdateFederatedBundleRequest { bundle, input_mask: None, output_mask };
            let answer = client.batch_update_federated_bundle(request).await;
            answer.map(|answer| answer.into_inner().results.into_iter().map(|result| result.status).collect())
        };
        let statuses = statuses.map_err(|status| refused("cannot set bundles", &status))?;
        outcomes.extend(named(names, statuses)?);
    }
    Ok(())
}

async fn set_relationships(
    channel: &Channel,
    relationships: Vec<types::FederationRelationship>,
    creates: bool,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), Failure> {
    let mut client = TrustDomainClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    for federation_relationships in split(relationships) {
        let names: Vec<_> = federation_relationships.iter().map(|one| one.trust_domain.clone()).collect();
        let output_mask = Some(types::FederationRelationshipMask::default());
        let statuses: Result<Vec<_>, tonic::Status> = if creates {
            let request = BatchCreateFederationRelationshipRequest { federation_relationships, output_mask };
            let answer = client.batch_create_federation_relationship(request).await;
            answer.map(|answer| answer.into_inner().results.into_iter().map(|result| result.status).collect())
        } else {
            // The bundle is set by itself: a relationship without one must not take it away.
            let fields = types::FederationRelationshipMask {
                bundle_endpoint_url: true,
                bundle_endpoint_profile: true,
                trust_domain_bundle: false,
            };
            let request = BatchUpdateFederationRelationshipRequest {
                federation_relationships,
                input_mask: Some(fields),
                output_mask,
            };
            let answer = client.batch_update_federation_relationship(request).await;
            answer.map(|answer| answer.into_inner().results.into_iter().map(|result| result.status).collect())
        };
        let statuses = statuses.map_err(|status| refused("cannot set relationships", &status))?;
        outcomes.extend(named(names, statuses)?);
    }
    Ok(())
}

/// One outcome for each of the names that were sent.
fn named(names: Vec<String>, statuses: Vec<Option<types::Status>>) -> Result<Vec<Outcome>, Failure> {
    let statuses = complete(statuses, names.len())?;
    let outcome = |(name, status): (String, Option<types::Status>)| match status.unwrap_or_default() {
        status if status.code == 0 => Outcome::Done(name),
        status => Outcome::Refused(status, None),
    };
    Ok(names.into_iter().zip(statuses).map(outcome).collect())
}
