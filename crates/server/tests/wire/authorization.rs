//! Who may call what, row by row: every method of every service, called by every kind of caller.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorSet;
use spindle_proto::refusal::{permission_denied_details_of, reason_of};
use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::types::permission_denied_details::Reason as Standing;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::support::{TestServer, entry, id, in_time};

/// `l` is the admin socket, `a` an administrator, `g` an agent in good standing, `*` anyone. Written down once more, apart
/// from the server's own table: changing who may call a method has to be done twice, on purpose.
const ROWS: &[(&str, &str)] = &[
    ("/spire.api.server.agent.v1.Agent/CountAgents", "la"),
    ("/spire.api.server.agent.v1.Agent/ListAgents", "la"),
    ("/spire.api.server.agent.v1.Agent/GetAgent", "la"),
    ("/spire.api.server.agent.v1.Agent/DeleteAgent", "la"),
    ("/spire.api.server.agent.v1.Agent/BanAgent", "la"),
    ("/spire.api.server.agent.v1.Agent/AttestAgent", "*"),
    ("/spire.api.server.agent.v1.Agent/RenewAgent", "g"),
    ("/spire.api.server.agent.v1.Agent/PostStatus", "g"),
    ("/spire.api.server.agent.v1.Agent/CreateJoinToken", "la"),
    ("/spire.api.server.bundle.v1.Bundle/GetBundle", "*"),
    ("/spire.api.server.bundle.v1.Bundle/CountBundles", "la"),
    ("/spire.api.server.bundle.v1.Bundle/GetFederatedBundle", "lag"),
    ("/spire.api.server.bundle.v1.Bundle/AppendBundle", "la"),
    ("/spire.api.server.bundle.v1.Bundle/ListFederatedBundles", "la"),
    ("/spire.api.server.bundle.v1.Bundle/BatchCreateFederatedBundle", "la"),
    ("/spire.api.server.bundle.v1.Bundle/BatchUpdateFederatedBundle", "la"),
    ("/spire.api.server.bundle.v1.Bundle/BatchSetFederatedBundle", "la"),
    ("/spire.api.server.bundle.v1.Bundle/BatchDeleteFederatedBundle", "la"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/ListFederationRelationships", "la"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/GetFederationRelationship", "la"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/BatchCreateFederationRelationship", "la"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/BatchUpdateFederationRelationship", "la"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/BatchDeleteFederationRelationship", "la"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/RefreshBundle", "la"),
    ("/spire.api.server.debug.v1.Debug/GetInfo", "l"),
    ("/spire.api.server.entry.v1.Entry/CountEntries", "la"),
    ("/spire.api.server.entry.v1.Entry/ListEntries", "la"),
    ("/spire.api.server.entry.v1.Entry/GetEntry", "la"),
    ("/spire.api.server.entry.v1.Entry/BatchCreateEntry", "la"),
    ("/spire.api.server.entry.v1.Entry/BatchUpdateEntry", "la"),
    ("/spire.api.server.entry.v1.Entry/BatchDeleteEntry", "la"),
    ("/spire.api.server.entry.v1.Entry/GetAuthorizedEntries", "g"),
    ("/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries", "g"),
    ("/spire.api.server.svid.v1.SVID/MintX509SVID", "la"),
    ("/spire.api.server.svid.v1.SVID/BatchNewX509SVID", "g"),
    ("/spire.api.server.svid.v1.SVID/MintJWTSVID", "la"),
    ("/spire.api.server.svid.v1.SVID/NewJWTSVID", "g"),
    ("/spire.api.server.logger.v1.Logger/GetLogger", "l"),
    ("/spire.api.server.logger.v1.Logger/SetLogLevel", "l"),
    ("/spire.api.server.logger.v1.Logger/ResetLogLevel", "l"),
    ("/spindle.sync.v1.Sync/Follow", "g"),
    ("/grpc.health.v1.Health/Check", "l"),
    ("/grpc.health.v1.Health/List", "l"),
    ("/grpc.health.v1.Health/Watch", "l"),
];

/// In newer descriptors of the health service than ours; clients that have it may ask and be told it is not there.
const NOT_DESCRIBED: &str = "/grpc.health.v1.Health/List";

/// Every method that the descriptors name.
fn described() -> BTreeSet<String> {
    let sets = [spindle_proto::SERVER_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let files = sets.into_iter().flat_map(|set| FileDescriptorSet::decode(set).unwrap().file);
    let mut methods = BTreeSet::from([NOT_DESCRIBED.to_owned()]);
    for file in files {
        for service in &file.service {
            for method in &service.method {
                methods.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    methods
}

/// Sends one empty message, which no method does anything with, and reads the answer to its end.
async fn call(channel: &Channel, method: &str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let answer = grpc.server_streaming(Request::new(()), method.parse().unwrap(), codec).await?;
    let mut messages = answer.into_inner();
    while messages.message().await?.is_some() {}
    Ok(())
}

/// Whether the gate let the call through, whatever the service made of the empty message.
async fn passes(channel: &Channel, method: &str) -> Result<(), Status> {
    match in_time(call(channel, method)).await {
        Err(status) if status.message() == format!("authorization denied for method {method}") => {
            assert_eq!(status.code(), Code::PermissionDenied, "{method}: {status:?}");
            Err(status)
        }
        Err(status) => {
            let refused = [Code::PermissionDenied, Code::Unauthenticated, Code::Unavailable, Code::Unknown];
            assert!(!refused.contains(&status.code()), "{method}: {status:?}");
            assert!(!status.message().contains("is not served here"), "{method}: {status:?}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Every row against one caller of the classes in `letters`; returns the refusals.
async fn check_rows(channel: &Channel, who: &str, letters: &str) -> Vec<(&'static str, Status)> {
    let mut refusals = Vec::new();
    for (method, allowed) in ROWS {
        let expected = *allowed == "*" || allowed.chars().any(|letter| letters.contains(letter));
        match passes(channel, method).await {
            Ok(()) => assert!(expected, "{who} must not call {method}"),
            Err(status) => {
                assert!(!expected, "{who} may call {method}: {status:?}");
                refusals.push((*method, status));
            }
        }
    }
    refusals
}

/// Whether agents may call the method.
fn is_for_agents(method: &str) -> bool {
    ROWS.iter().any(|(name, allowed)| *name == method && allowed.contains('g'))
}

/// A caller that shows an identity is told what is wrong with it as an agent, wherever agents are asked for.
fn check_standing(refusals: &[(&str, Status)], expected: Standing, code: &str) {
    for (method, status) in refusals {
        let (detail, reason) = (permission_denied_details_of(status), reason_of(status));
        if is_for_agents(method) {
            assert_eq!(detail, Some(expected), "{method}: {status:?}");
            assert_eq!(reason.as_deref(), Some(code), "{method}: {status:?}");
        } else {
            assert_eq!(detail, None, "{method}: {status:?}");
            assert_eq!(reason.as_deref(), Some("method_not_allowed"), "{method}: {status:?}");
        }
    }
}

#[test]
fn every_method_that_is_described_has_a_row_and_every_row_a_method() {
    let rows: BTreeSet<String> = ROWS.iter().map(|(method, _)| (*method).to_owned()).collect();
    assert_eq!(rows.len(), ROWS.len(), "a method has two rows");
    assert_eq!(described(), rows);
}

#[tokio::test]
async fn the_admin_socket_may_manage_and_is_no_agent() {
    let server = TestServer::start().await;
    let refusals = check_rows(&server.admin().await, "the admin socket", "l").await;
    assert!(refusals.iter().all(|(_, status)| permission_denied_details_of(status).is_none()));
}

#[tokio::test]
async fn an_identity_with_an_admin_entry_may_manage() {
    let server = TestServer::start().await;
    let mut admin = entry(&id("/node"), "/operator", &["unix:uid:0"]);
    admin.admin = true;
    let entry_id = server.create_one(admin).await;
    let channel = server.dial_as("/operator").await;
    let refusals = check_rows(&channel, "an admin entry", "a").await;
    check_standing(&refusals, Standing::AgentNotAttested, "agent_not_attested");
    // The flag is asked for at every call, not when the connection is made.
    server.delete(&entry_id).await;
    check_rows(&channel, "a former admin", "").await;
}

#[tokio::test]
async fn an_identity_listed_in_the_settings_may_manage() {
    let server = TestServer::start_with(|config| config.admin_ids = vec![id("/listed")]).await;
    check_rows(&server.dial_as("/listed").await, "a listed admin", "a").await;
    check_rows(&server.dial_as("/other").await, "a workload", "").await;
}

#[tokio::test]
async fn an_agent_may_call_what_agents_need_and_nothing_else() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    check_rows(&agent.channel, "an agent", "g").await;
}

#[tokio::test]
async fn an_agent_that_is_listed_as_admin_may_do_both() {
    let server = TestServer::start_with(|config| {
        config.admin_ids = vec![id("/spire/agent/join_token/operator")];
    })
    .await;
    let token = agent_api::CreateJoinTokenRequest { ttl: 60, token: "operator".into(), agent_id: None };
    server.agents().await.create_join_token(token).await.unwrap();
    let key = spindle_keys::Key::generate(spindle_keys::KeyType::EcP256).unwrap();
    let csr = crate::support::csr_of(&key);
    let result = crate::support::attest(server.dial(None).await, b"operator", &csr).await.unwrap();
    let agent = server.connect(key, &result.svid.unwrap()).await;
    check_rows(&agent.channel, "an agent and admin", "ga").await;
}

#[tokio::test]
async fn a_caller_without_certificate_may_attest_and_read_the_bundle() {
    let server = TestServer::start().await;
    let refusals = check_rows(&server.dial(None).await, "a stranger", "").await;
    for (method, status) in refusals {
        assert_eq!(permission_denied_details_of(&status), None, "{method}");
        assert_eq!(reason_of(&status).as_deref(), Some("method_not_allowed"), "{method}");
    }
}

#[tokio::test]
async fn a_workload_is_neither_admin_nor_agent() {
    let server = TestServer::start().await;
    server.create_one(entry(&id("/node"), "/web", &["unix:uid:0"])).await;
    let refusals = check_rows(&server.dial_as("/web").await, "a workload", "").await;
    check_standing(&refusals, Standing::AgentNotAttested, "agent_not_attested");
}

#[tokio::test]
async fn a_banned_agent_may_call_nothing_of_an_agents() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    server.ban(&agent.id).await;
    let refusals = check_rows(&agent.channel, "a banned agent", "").await;
    check_standing(&refusals, Standing::AgentBanned, "agent_banned");
}

#[tokio::test]
async fn an_evicted_agent_may_call_nothing_of_an_agents() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    server.evict(&agent.id).await;
    let refusals = check_rows(&agent.channel, "an evicted agent", "").await;
    check_standing(&refusals, Standing::AgentNotAttested, "agent_not_attested");
}

#[tokio::test]
async fn an_identity_that_has_ended_since_the_handshake_may_call_nothing() {
    let server = TestServer::start_with(|config| config.admin_ids = vec![id("/listed")]).await;
    let (agent, admin) = (server.attest().await, server.dial_as("/listed").await);
    server.clock.set(agent.svid.expires_at());
    check_rows(&agent.channel, "an agent in its last second", "g").await;
    server.clock.advance(1);
    let refusals = check_rows(&agent.channel, "an expired agent", "").await;
    check_standing(&refusals, Standing::AgentExpired, "agent_expired");
    check_rows(&admin, "an expired admin", "").await;
}

#[tokio::test]
async fn a_method_that_is_in_no_service_is_unimplemented_for_everybody() {
    let server = TestServer::start().await;
    for channel in [server.admin().await, server.dial(None).await, server.attest().await.channel] {
        for method in [
            "/spire.api.server.agent.v1.Agent/Other",
            "/spire.api.server.trustdomain.v1.TrustDomain/Other",
            "/",
        ] {
            let status = in_time(call(&channel, method)).await.expect_err("no such method");
            assert_eq!(status.code(), Code::Unimplemented, "{method}: {status:?}");
        }
    }
}
