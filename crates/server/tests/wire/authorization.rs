//! Who may call what, row by row: every method of every service, called by every kind of caller.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorSet;
use spindle_proto::admin::v1 as admin_api;
use spindle_proto::admin::v1::roles_client::RolesClient;
use spindle_proto::refusal::{permission_denied_details_of, reason_of};
use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::server::bundle::v1::batch_delete_federated_bundle_request::Mode;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::permission_denied_details::Reason as Standing;
use spindle_server::{Role, RoleSubject};
use spindle_spiffe_core::SpiffeId;
use spindle_testkit::{NOW, TestAuthority};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::support::{SVID_TTL_SECS, TestServer, assignment, entry, grant_of, id, in_time, own_uid};

/// `l` is the admin socket, `a` an administrator, `r` a reader, `e` a registrar (of entries), `o` an operator, `g` an agent in
/// good standing, `d` a server below, `*` anyone. Written down once more, apart from the server's own table: changing who may
/// call a method has to be done twice, on purpose.
const ROWS: &[(&str, &str)] = &[
    ("/spire.api.server.agent.v1.Agent/CountAgents", "laro"),
    ("/spire.api.server.agent.v1.Agent/ListAgents", "laro"),
    ("/spire.api.server.agent.v1.Agent/GetAgent", "laro"),
    ("/spire.api.server.agent.v1.Agent/DeleteAgent", "lao"),
    ("/spire.api.server.agent.v1.Agent/BanAgent", "lao"),
    ("/spire.api.server.agent.v1.Agent/AttestAgent", "*"),
    ("/spire.api.server.agent.v1.Agent/RenewAgent", "g"),
    ("/spire.api.server.agent.v1.Agent/PostStatus", "g"),
    ("/spire.api.server.agent.v1.Agent/CreateJoinToken", "lao"),
    ("/spire.api.server.bundle.v1.Bundle/GetBundle", "*"),
    ("/spire.api.server.bundle.v1.Bundle/CountBundles", "laro"),
    ("/spire.api.server.bundle.v1.Bundle/GetFederatedBundle", "larog"),
    ("/spire.api.server.bundle.v1.Bundle/AppendBundle", "la"),
    ("/spire.api.server.bundle.v1.Bundle/PublishJWTAuthority", "d"),
    ("/spire.api.server.bundle.v1.Bundle/PublishWITAuthority", "d"),
    ("/spire.api.server.bundle.v1.Bundle/ListFederatedBundles", "laro"),
    ("/spire.api.server.bundle.v1.Bundle/BatchCreateFederatedBundle", "la"),
    ("/spire.api.server.bundle.v1.Bundle/BatchUpdateFederatedBundle", "la"),
    ("/spire.api.server.bundle.v1.Bundle/BatchSetFederatedBundle", "la"),
    ("/spire.api.server.bundle.v1.Bundle/BatchDeleteFederatedBundle", "la"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/ListFederationRelationships", "laro"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/GetFederationRelationship", "laro"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/BatchCreateFederationRelationship", "la"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/BatchUpdateFederationRelationship", "la"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/BatchDeleteFederationRelationship", "la"),
    ("/spire.api.server.trustdomain.v1.TrustDomain/RefreshBundle", "lao"),
    ("/spire.api.server.debug.v1.Debug/GetInfo", "lro"),
    ("/spire.api.server.entry.v1.Entry/CountEntries", "laroe"),
    ("/spire.api.server.entry.v1.Entry/ListEntries", "laroe"),
    ("/spire.api.server.entry.v1.Entry/GetEntry", "laroe"),
    ("/spire.api.server.entry.v1.Entry/BatchCreateEntry", "laoe"),
    ("/spire.api.server.entry.v1.Entry/BatchUpdateEntry", "laoe"),
    ("/spire.api.server.entry.v1.Entry/BatchDeleteEntry", "laoe"),
    ("/spire.api.server.entry.v1.Entry/GetAuthorizedEntries", "g"),
    ("/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries", "g"),
    ("/spire.api.server.svid.v1.SVID/MintX509SVID", "la"),
    ("/spire.api.server.svid.v1.SVID/BatchNewX509SVID", "g"),
    ("/spire.api.server.svid.v1.SVID/MintJWTSVID", "la"),
    ("/spire.api.server.svid.v1.SVID/NewJWTSVID", "g"),
    ("/spire.api.server.svid.v1.SVID/MintWITSVID", "la"),
    ("/spire.api.server.svid.v1.SVID/BatchNewWITSVID", "g"),
    ("/spire.api.server.logger.v1.Logger/GetLogger", "lro"),
    ("/spire.api.server.logger.v1.Logger/SetLogLevel", "lo"),
    ("/spire.api.server.logger.v1.Logger/ResetLogLevel", "lo"),
    ("/spire.api.server.svid.v1.SVID/NewDownstreamX509CA", "d"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/GetJWTAuthorityState", "laro"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/PrepareJWTAuthority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/ActivateJWTAuthority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/TaintJWTAuthority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/RevokeJWTAuthority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/GetWITAuthorityState", "laro"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/PrepareWITAuthority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/ActivateWITAuthority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/TaintWITAuthority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/RevokeWITAuthority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/GetX509AuthorityState", "laro"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/PrepareX509Authority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/ActivateX509Authority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/TaintX509Authority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/TaintX509UpstreamAuthority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/RevokeX509Authority", "lao"),
    ("/spire.api.server.localauthority.v1.LocalAuthority/RevokeX509UpstreamAuthority", "lao"),
    ("/spindle.sync.v1.Sync/Follow", "g"),
    (CAN, "*"),
    ("/spindle.admin.v1.Roles/ListRoles", "laro"),
    ("/spindle.admin.v1.Roles/GrantRole", "la"),
    ("/spindle.admin.v1.Roles/RevokeRole", "la"),
    ("/grpc.health.v1.Health/Check", "lroe"),
    ("/grpc.health.v1.Health/List", "lroe"),
    ("/grpc.health.v1.Health/Watch", "lroe"),
    ("/spindle.admin.v1.Backup/Read", "l"),
];

const CAN: &str = "/spindle.admin.v1.Roles/Can";

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

/// What the server answers when the caller asks whether it may call the method.
async fn may(channel: &Channel, spiffe_id: &str, method: &str) -> admin_api::CanResponse {
    let request = admin_api::CanRequest { spiffe_id: spiffe_id.into(), method: method.into(), entry: None };
    let answer = in_time(RolesClient::new(channel.clone()).can(request)).await.unwrap().into_inner();
    assert_eq!((answer.allowed, answer.method.as_str()), (answer.reason.is_empty(), method), "{answer:?}");
    assert!(!answer.explanation.is_empty(), "{answer:?}");
    answer
}

/// Every row against one caller of the classes in `letters`; returns the refusals. Asked beforehand, the server says the
/// same.
async fn check_rows(channel: &Channel, who: &str, letters: &str) -> Vec<(&'static str, Status)> {
    let mut refusals = Vec::new();
    for (method, allowed) in ROWS {
        let expected = *allowed == "*" || allowed.chars().any(|letter| letters.contains(letter));
        let answer = may(channel, "", method).await;
        // A registrar's verb is asked for without an entry, and the callers here have all of them.
        assert_eq!(answer.allowed, expected, "{who} asks about {method}: {answer:?}");
    }
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

/// Every kind of caller and the letters of its classes. One more kind is one line here and one in [`connect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Socket,
    SocketWithRole(Role),
    ListedAdmin,
    AdminEntry,
    ListedRole(Role),
    GrantedRole(Role),
    Downstream,
    Agent,
    Workload,
    Stranger,
}

const KINDS: &[(Kind, &str)] = &[
    (Kind::Socket, "l"),
    (Kind::SocketWithRole(Role::Reader), "r"),
    (Kind::SocketWithRole(Role::Registrar), "e"),
    (Kind::SocketWithRole(Role::Operator), "o"),
    (Kind::ListedAdmin, "a"),
    (Kind::AdminEntry, "a"),
    (Kind::ListedRole(Role::Reader), "r"),
    (Kind::ListedRole(Role::Registrar), "e"),
    (Kind::ListedRole(Role::Operator), "o"),
    (Kind::GrantedRole(Role::Reader), "r"),
    (Kind::GrantedRole(Role::Registrar), "e"),
    (Kind::GrantedRole(Role::Operator), "o"),
    (Kind::Downstream, "d"),
    (Kind::Agent, "g"),
    (Kind::Workload, ""),
    (Kind::Stranger, ""),
];

/// A server that knows such a caller, the caller's connection, and its SPIFFE ID if it shows one.
async fn connect(kind: Kind) -> (TestServer, Channel, Option<SpiffeId>) {
    let caller = id("/caller");
    let server = TestServer::start_with(|config| match kind {
        Kind::ListedAdmin => config.admin_ids = vec![caller.clone()],
        Kind::ListedRole(role) => {
            config.roles = vec![assignment(RoleSubject::Identity(caller.clone()), role)];
        }
        Kind::SocketWithRole(role) => config.roles = vec![assignment(RoleSubject::Uid(own_uid()), role)],
        _ => {}
    });
    let server = server.await;
    match kind {
        Kind::Socket | Kind::SocketWithRole(_) => {
            let channel = server.admin().await;
            return (server, channel, None);
        }
        Kind::Stranger => {
            let channel = server.dial(None).await;
            return (server, channel, None);
        }
        Kind::Agent => {
            let agent = server.attest().await;
            return (server, agent.channel, Some(agent.id));
        }
        Kind::AdminEntry => {
            let admin = types::Entry { admin: true, ..entry(&id("/node"), "/caller", &["unix:uid:0"]) };
            server.create_one(admin).await;
        }
        Kind::Downstream => {
            let below = types::Entry { downstream: true, ..entry(&id("/node"), "/caller", &["unix:uid:0"]) };
            server.create_one(below).await;
        }
        Kind::GrantedRole(role) => server.grant("/caller", grant_of(role)).await,
        Kind::Workload => {
            server.create_one(entry(&id("/node"), "/caller", &["unix:uid:0"])).await;
        }
        Kind::ListedAdmin | Kind::ListedRole(_) => {}
    }
    let channel = server.dial_as("/caller").await;
    (server, channel, Some(caller))
}

/// The refusals of a caller without any right, by what it shows.
fn check_refusals(kind: Kind, refusals: &[(&'static str, Status)], standing: Standing, code: &str) {
    let shows_identity =
        !matches!(kind, Kind::Socket | Kind::SocketWithRole(_) | Kind::Stranger | Kind::Agent);
    if shows_identity {
        return check_standing(refusals, standing, code);
    }
    for (method, status) in refusals {
        assert_eq!(permission_denied_details_of(status), None, "{kind:?} {method}");
        assert_eq!(reason_of(status).as_deref(), Some("method_not_allowed"), "{kind:?} {method}");
    }
}

#[tokio::test]
async fn every_method_answers_every_kind_of_caller_as_the_table_says() {
    for (kind, letters) in KINDS {
        let (_server, channel, _) = connect(*kind).await;
        let refusals = check_rows(&channel, &format!("{kind:?}"), letters).await;
        check_refusals(*kind, &refusals, Standing::AgentNotAttested, "agent_not_attested");
    }
}

#[tokio::test]
async fn an_svid_of_any_kind_of_caller_is_worth_nothing_once_it_has_ended() {
    for (kind, letters) in KINDS {
        let (server, channel, caller) = connect(*kind).await;
        if caller.is_none() {
            continue;
        }
        server.clock.advance(SVID_TTL_SECS);
        check_rows(&channel, &format!("{kind:?} in its last second"), letters).await;
        server.clock.advance(1);
        let refusals = check_rows(&channel, &format!("{kind:?} after its end"), "").await;
        check_standing(&refusals, Standing::AgentExpired, "agent_expired");
    }
}

#[tokio::test]
async fn an_administrator_is_told_what_somebody_else_may_do() {
    for (kind, letters) in KINDS {
        let (server, _channel, caller) = connect(*kind).await;
        let Some(caller) = caller else { continue };
        let admin = server.admin().await;
        for (method, allowed) in ROWS {
            let expected = *allowed == "*" || allowed.chars().any(|letter| letters.contains(letter));
            let answer = may(&admin, caller.as_str(), method).await;
            assert_eq!(answer.allowed, expected, "{kind:?} {method}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn the_admin_flag_and_a_role_are_asked_for_at_every_call() {
    let server = TestServer::start().await;
    let admin = types::Entry { admin: true, ..entry(&id("/node"), "/operator", &["unix:uid:0"]) };
    let entry_id = server.create_one(admin).await;
    let channel = server.dial_as("/operator").await;
    check_rows(&channel, "an admin entry", "a").await;
    server.delete(&entry_id).await;
    check_rows(&channel, "a former admin", "").await;
    server.grant("/operator", grant_of(Role::Operator)).await;
    check_rows(&channel, "an operator", "o").await;
    server.grant("/operator", grant_of(Role::Registrar)).await;
    check_rows(&channel, "an operator and registrar", "oe").await;
    server.revoke("/operator").await;
    check_rows(&channel, "a former operator", "").await;
}

#[tokio::test]
async fn an_identity_with_a_downstream_entry_is_a_server_below_until_the_entry_ends() {
    let server = TestServer::start().await;
    let mut below = entry(&id("/node"), "/below", &["unix:uid:0"]);
    below.downstream = true;
    below.expires_at = (NOW + 60).unix_secs();
    server.create_one(below).await;
    let channel = server.dial_as("/below").await;
    let refusals = check_rows(&channel, "a server below", "d").await;
    check_standing(&refusals, Standing::AgentNotAttested, "agent_not_attested");
    server.clock.advance(61);
    check_rows(&channel, "a server below whose entry has ended", "").await;
}

#[tokio::test]
async fn an_agent_with_a_role_may_do_both() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    server.grant(agent.id.path(), grant_of(Role::Reader)).await;
    check_rows(&agent.channel, "an agent and reader", "gr").await;
    server.ban(&agent.id).await;
    let refusals = check_rows(&agent.channel, "a banned agent and reader", "").await;
    check_standing(&refusals, Standing::AgentBanned, "agent_banned");
    let evicted = server.attest().await;
    server.grant(evicted.id.path(), grant_of(Role::Operator)).await;
    check_rows(&evicted.channel, "an agent and operator", "go").await;
    server.evict(&evicted.id).await;
    let refusals = check_rows(&evicted.channel, "an evicted agent and operator", "").await;
    check_standing(&refusals, Standing::AgentNotAttested, "agent_not_attested");
    let admin = server.admin().await;
    assert!(!may(&admin, evicted.id.as_str(), "/spire.api.server.agent.v1.Agent/ListAgents").await.allowed);
}

#[tokio::test]
async fn an_agent_with_a_role_uses_its_renewed_svid_and_not_the_one_before() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    server.grant(agent.id.path(), grant_of(Role::Reader)).await;
    let (key, svid) = agent.renew().await;
    let renewed = server.connect(key, &svid).await;
    check_rows(&renewed.channel, "a renewed agent and reader", "gr").await;
    let refusals = check_rows(&agent.channel, "the same by its old SVID", "").await;
    check_standing(&refusals, Standing::AgentNotActive, "agent_not_active");
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
    server.ban(&agent.id).await;
    check_rows(&agent.channel, "a banned agent and admin", "").await;
}

#[tokio::test]
async fn an_administrator_of_another_trust_domain_is_one_while_its_bundle_is_here() {
    let elsewhere = TestAuthority::new("elsewhere.example", NOW);
    let foreign = elsewhere.issue("/boss", NOW);
    let boss = foreign.svid.spiffe_id().clone();
    let server = TestServer::start_with(|config| config.admin_ids = vec![boss.clone()]).await;
    server.set_bundle(&elsewhere.bundle()).await;
    let channel = server.dial(Some((&foreign.svid, &foreign.key))).await;
    check_rows(&channel, "a foreign administrator", "a").await;
    let request =
        admin_api::GrantRoleRequest { spiffe_id: boss.to_string(), grant: Some(grant_of(Role::Operator)) };
    server.roles().await.grant_role(request).await.unwrap();
    server.delete_bundle("elsewhere.example", Mode::Restrict).await;
    // On the connection that it had before.
    check_rows(&channel, "a foreign administrator without a bundle", "").await;
    let method = "/spire.api.server.agent.v1.Agent/ListAgents";
    assert!(!may(&server.admin().await, boss.as_str(), method).await.allowed);
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
