//! What callers are told when the store fails: INTERNAL with `store_failed`, and nothing half done.

use std::sync::Arc;

use spindle_proto::convert::{bundle_to_proto, spiffe_id_to_proto};
use spindle_proto::refusal::reason_of;
use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::server::agent::v1::agent_server::Agent as _;
use spindle_proto::spire::api::server::bundle::v1 as bundle_api;
use spindle_proto::spire::api::server::bundle::v1::bundle_server::Bundle as _;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::server::entry::v1::entry_server::Entry as _;
use spindle_proto::spire::api::server::trustdomain::v1 as trustdomain_api;
use spindle_proto::spire::api::server::trustdomain::v1::trust_domain_server::TrustDomain as _;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use spindle_spiffe_core::Reason;
use spindle_store::Transaction;
use spindle_testkit::{ManualClock, NOW, TestAuthority};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health as _;

use super::agent::AgentService;
use super::bundle::BundleService;
use super::caller::Caller;
use super::entry::EntryService;
use super::trust_domain::TrustDomainService;
use crate::attestation::{attest_join_token, create_join_token, post_version, renew};
use crate::context::Context;
use crate::directory::agent_key;
use crate::entries::anything;
use crate::fixtures::{agent, context, create, csr, entry, id};

/// A context with an agent, an entry and a token, whose store takes nothing any more.
async fn broken() -> Arc<Context> {
    let context = context(&ManualClock::default()).await;
    agent(&context.directory, "/spire/agent/x/1", &[]).await;
    create(&context.directory, types::Entry { id: "one".into(), ..entry(&id("/node"), "/web", &["a:1"]) })
        .await;
    create_join_token(&context, "token".into(), 60, None, &anything).await.unwrap();
    context.directory.close();
    context
}

/// A request that the gate let in over the admin socket.
fn local<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller::Local);
    request
}

#[track_caller]
fn check<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.expect_err("the store is closed");
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert_eq!(reason_of(&status).as_deref(), Some("store_failed"), "{status:?}");
    assert!(!status.message().contains("closed"), "the cause is for the log: {status:?}");
}

#[tokio::test]
async fn operators_are_told_that_the_store_failed() {
    let context = broken().await;
    let agents = AgentService::new(context.clone());
    let agent_id = Some(spiffe_id_to_proto(&id("/spire/agent/x/1")));
    let token = agent_api::CreateJoinTokenRequest { ttl: 60, ..Default::default() };
    check(agents.create_join_token(local(token)).await);
    check(agents.ban_agent(Request::new(agent_api::BanAgentRequest { id: agent_id.clone() })).await);
    check(agents.delete_agent(Request::new(agent_api::DeleteAgentRequest { id: agent_id })).await);
    let view = context.directory.view();
    let row = view.agent(&id("/spire/agent/x/1")).unwrap();
    assert!(!row.banned, "nothing is shown that is not durable");
}

#[tokio::test]
async fn each_item_of_a_batch_is_told_that_the_store_failed() {
    let context = broken().await;
    let entries = EntryService { context: context.clone() };
    let create = entry_api::BatchCreateEntryRequest {
        entries: vec![entry(&id("/node"), "/new", &["a:1"]); 2],
        output_mask: None,
    };
    let created = entries.batch_create_entry(local(create)).await.unwrap().into_inner().results;
    let update = entry_api::BatchUpdateEntryRequest {
        entries: vec![types::Entry { id: "one".into(), ..entry(&id("/node"), "/new", &["a:1"]) }],
        ..Default::default()
    };
    let updated = entries.batch_update_entry(local(update)).await.unwrap().into_inner().results;
    let delete = entry_api::BatchDeleteEntryRequest { ids: vec!["one".into()] };
    let deleted = entries.batch_delete_entry(local(delete)).await.unwrap().into_inner().results;
    let statuses =
        created.iter().map(|result| &result.status).chain(updated.iter().map(|result| &result.status));
    for status in statuses.chain(deleted.iter().map(|result| &result.status)) {
        let status = status.as_ref().unwrap();
        assert_eq!(Code::from(status.code), Code::Internal, "{status:?}");
        assert!(status.message.contains("could not be stored"), "{status:?}");
    }
    assert!(created[0].entry.is_none() && updated[0].entry.is_none());
    assert_eq!(context.directory.view().entry_count(), 1);
}

#[tokio::test]
async fn changes_of_other_trust_domains_are_told_that_the_store_failed() {
    let context = broken().await;
    let bundles = BundleService { context: context.clone() };
    let bundle = vec![types::Bundle { trust_domain: "other.example".into(), ..Default::default() }];
    let append = bundle_api::AppendBundleRequest {
        x509_authorities: bundle_to_proto(&TestAuthority::new("example.org", NOW).bundle()).x509_authorities,
        ..Default::default()
    };
    check(bundles.append_bundle(Request::new(append)).await);
    let create = bundle_api::BatchCreateFederatedBundleRequest { bundle: bundle.clone(), output_mask: None };
    let set = bundle_api::BatchSetFederatedBundleRequest { bundle, output_mask: None };
    let created = bundles.batch_create_federated_bundle(Request::new(create)).await.unwrap().into_inner();
    let set = bundles.batch_set_federated_bundle(Request::new(set)).await.unwrap().into_inner();
    let web = BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {});
    let relationship = types::FederationRelationship {
        trust_domain: "other.example".into(),
        bundle_endpoint_url: "https://other.example".into(),
        bundle_endpoint_profile: Some(web),
        trust_domain_bundle: None,
    };
    let create = trustdomain_api::BatchCreateFederationRelationshipRequest {
        federation_relationships: vec![relationship],
        output_mask: None,
    };
    let related = TrustDomainService { context: context.clone() }
        .batch_create_federation_relationship(Request::new(create))
        .await
        .unwrap()
        .into_inner();
    for status in [&created.results[0].status, &set.results[0].status, &related.results[0].status] {
        let status = status.as_ref().unwrap();
        assert_eq!((Code::from(status.code), status.reason.as_str()), (Code::Internal, "store_failed"));
        assert!(status.message.contains("could not be stored"), "{status:?}");
    }
    assert_eq!(context.directory.view().bundle_count(), 1, "nothing is shown that is not durable");
}

#[tokio::test]
async fn a_node_that_cannot_be_recorded_is_not_admitted_and_the_log_tells_the_cause() {
    let context = broken().await;
    let agent_id = id("/spire/agent/x/1");
    let faults = [
        attest_join_token(&context, "token", csr()).await.expect_err("not recorded"),
        renew(&context, &agent_id, "1", csr()).await.expect_err("not recorded"),
        post_version(&context, &agent_id, "1.0").await.expect_err("not recorded"),
    ];
    for fault in faults {
        assert_eq!(fault.reason(), Reason::StoreFailed);
        assert!(fault.to_string().contains("the store is closed"), "{fault}");
    }
    assert!(context.directory.view().join_token("token").is_some(), "the token is not used up");
}

#[tokio::test]
async fn a_server_whose_store_takes_nothing_is_not_serving() {
    let check = async |context| {
        let health = super::health::HealthService { context };
        let request = Request::new(HealthCheckRequest::default());
        health.check(request).await.unwrap().into_inner().status()
    };
    let context = context(&ManualClock::default()).await;
    assert_eq!(check(context.clone()).await, ServingStatus::Serving);
    // A change that cannot be read stops the store.
    let garbage = Transaction::new().put(agent_key(&id("/spire/agent/x/1")), b"\xff".as_slice());
    let _ = context.directory.commit(garbage).await;
    assert_eq!(check(context).await, ServingStatus::NotServing);
}

#[tokio::test]
async fn reading_goes_on_without_the_store() {
    let context = broken().await;
    let entries = EntryService { context };
    let get = entry_api::GetEntryRequest { id: "one".into(), output_mask: None };
    assert_eq!(entries.get_entry(local(get)).await.unwrap().into_inner().id, "one");
}
