//! Roles at work: what registrars, operators and readers get done, item by item, and how roles are given.

use spindle_proto::admin::v1 as wire;
use spindle_proto::admin::v1::roles_client::RolesClient;
use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use spindle_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use spindle_proto::spire::api::server::{agent::v1 as agent_api, entry::v1 as entry_api};
use spindle_proto::spire::api::types;
use spindle_server::x509pop::{Mode, Settings};
use spindle_server::{Role, RoleSubject, StoreKind};
use spindle_spiffe_core::Reason;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{
    SVID_TTL_SECS, TestServer, assignment, attest, csr, entry, expect_refusal, grant_of, id, in_time,
    own_uid, wire_id,
};

/// A registrar for `/ci/` with these limits on top.
async fn registrar(server: &TestServer, limit: impl FnOnce(&mut wire::Grant)) -> Channel {
    let mut grant = grant_of(Role::Registrar);
    limit(&mut grant);
    server.grant("/registrar", grant).await;
    server.dial_as("/registrar").await
}

fn ci(path: &str) -> types::Entry {
    entry(&id("/ci/node"), path, &["a:1"])
}

/// Code and reason of an item.
fn outcome(status: &Option<types::Status>) -> (Code, String) {
    let status = status.as_ref().unwrap();
    (Code::from(status.code), status.reason.clone())
}

fn refused(reason: Reason) -> (Code, String) {
    (Code::PermissionDenied, reason.code().to_owned())
}

fn done() -> (Code, String) {
    (Code::Ok, String::new())
}

async fn create(channel: &Channel, entries: Vec<types::Entry>) -> Vec<(Code, String)> {
    let request = entry_api::BatchCreateEntryRequest { entries, output_mask: None };
    let answer = in_time(EntryClient::new(channel.clone()).batch_create_entry(request)).await.unwrap();
    answer.into_inner().results.iter().map(|result| outcome(&result.status)).collect()
}

async fn update(channel: &Channel, entry: types::Entry, mask: Option<types::EntryMask>) -> (Code, String) {
    let request =
        entry_api::BatchUpdateEntryRequest { entries: vec![entry], input_mask: mask, output_mask: None };
    let answer = in_time(EntryClient::new(channel.clone()).batch_update_entry(request)).await.unwrap();
    outcome(&answer.into_inner().results[0].status)
}

async fn delete(channel: &Channel, id: &str) -> (Code, String) {
    let request = entry_api::BatchDeleteEntryRequest { ids: vec![id.to_owned()] };
    let answer = in_time(EntryClient::new(channel.clone()).batch_delete_entry(request)).await.unwrap();
    outcome(&answer.into_inner().results[0].status)
}

async fn listed(channel: &Channel) -> Vec<String> {
    let request = entry_api::ListEntriesRequest::default();
    let answer = in_time(EntryClient::new(channel.clone()).list_entries(request)).await.unwrap();
    answer.into_inner().entries.into_iter().map(|entry| entry.spiffe_id.unwrap().path).collect()
}

async fn can(channel: &Channel, method: &str, question: wire::EntryQuestion) -> wire::CanResponse {
    let request = wire::CanRequest { spiffe_id: String::new(), method: method.into(), entry: Some(question) };
    in_time(RolesClient::new(channel.clone()).can(request)).await.unwrap().into_inner()
}

/// The question whether an entry may become this.
fn question(entry: &types::Entry) -> wire::EntryQuestion {
    wire::EntryQuestion {
        entry_id: entry.id.clone(),
        spiffe_id: entry.spiffe_id.clone(),
        parent_id: entry.parent_id.clone(),
        x509_svid_ttl: entry.x509_svid_ttl,
        jwt_svid_ttl: entry.jwt_svid_ttl,
        admin: entry.admin,
        downstream: entry.downstream,
    }
}

#[tokio::test]
async fn a_registrar_creates_what_its_role_covers_and_each_other_item_is_told_the_rule() {
    let server = TestServer::start().await;
    let limit = |grant: &mut wire::Grant| grant.max_x509_svid_ttl = u32::try_from(SVID_TTL_SECS).unwrap();
    let channel = registrar(&server, limit).await;
    let cases = [
        (ci("/ci/a"), done()),
        (ci("/web"), refused(Reason::RolePath)),
        (ci("/cider"), refused(Reason::RolePath)),
        (entry(&id("/node"), "/ci/b", &["a:1"]), refused(Reason::RoleParent)),
        (entry(&id("/spire/server"), "/ci/b", &["a:1"]), refused(Reason::RoleParent)),
        (types::Entry { admin: true, ..ci("/ci/c") }, refused(Reason::RoleFlag)),
        (types::Entry { downstream: true, ..ci("/ci/c") }, refused(Reason::RoleFlag)),
        (types::Entry { x509_svid_ttl: 3601, ..ci("/ci/d") }, refused(Reason::RoleTtl)),
        (types::Entry { x509_svid_ttl: 60, ..ci("/ci/e") }, done()),
    ];
    for (entry, (code, reason)) in &cases {
        let answer = can(&channel, "BatchCreateEntry", question(entry)).await;
        assert_eq!((answer.allowed, &answer.reason), (*code == Code::Ok, reason), "{entry:?}: {answer:?}");
    }
    let results = create(&channel, cases.iter().map(|(entry, _)| entry.clone()).collect()).await;
    assert_eq!(results, cases.map(|(_, expected)| expected));
    assert_eq!(listed(&server.admin().await).await, ["/ci/a", "/ci/e"]);
}

#[tokio::test]
async fn no_entry_is_moved_into_a_registrars_reach_or_out_of_it() {
    let server = TestServer::start().await;
    let channel = registrar(&server, |_| ()).await;
    let made = server
        .create(vec![
            types::Entry { id: "in".into(), ..ci("/ci/in") },
            types::Entry { id: "out".into(), ..entry(&id("/node"), "/out", &["a:1"]) },
            types::Entry { id: "admin".into(), admin: true, ..ci("/ci/admin") },
        ])
        .await;
    let [inside, outside, admin] = &made[..] else { panic!("{made:?}") };
    let moved =
        |entry: &types::Entry, path: &str| types::Entry { spiffe_id: Some(wire_id(path)), ..entry.clone() };
    let below =
        |entry: &types::Entry, path: &str| types::Entry { parent_id: Some(wire_id(path)), ..entry.clone() };
    let cases = [
        (moved(inside, "/out2"), Reason::RolePath),
        (moved(inside, "/spire-ci/x"), Reason::RolePath),
        (below(inside, "/node"), Reason::RoleParent),
        (types::Entry { admin: true, ..inside.clone() }, Reason::RoleFlag),
        (admin.clone(), Reason::RoleFlag),
        (types::Entry { admin: false, ..admin.clone() }, Reason::RoleFlag),
        (moved(inside, "/ci/admin"), Reason::RolePower),
    ];
    for (changed, reason) in cases {
        let answer = can(&channel, "BatchUpdateEntry", question(&changed)).await;
        assert_eq!((answer.allowed, answer.reason.as_str()), (false, reason.code()), "{answer:?}");
        assert_eq!(update(&channel, changed, None).await, refused(reason));
    }
    // A mask names what changes; the rest counts as it is.
    let hint = types::EntryMask { hint: true, ..Default::default() };
    let admin_hint = types::Entry { id: "admin".into(), hint: "x".into(), ..Default::default() };
    assert_eq!(update(&channel, admin_hint, Some(hint)).await, refused(Reason::RoleFlag));
    let of_admin = wire::EntryQuestion { entry_id: "admin".into(), ..Default::default() };
    let answer = can(&channel, "BatchDeleteEntry", of_admin).await;
    assert_eq!((answer.allowed, answer.reason.as_str()), (false, Reason::RoleFlag.code()));
    assert_eq!(delete(&channel, "admin").await, refused(Reason::RoleFlag));
    // What it does not see is not there, whatever it is to become.
    let not_found = (Code::NotFound, Reason::EntryNotFound.code().to_owned());
    let nonsense = types::Entry { spiffe_id: None, hint: "x".repeat(5000), ..outside.clone() };
    for changed in [moved(&below(outside, "/ci/node"), "/ci/out"), outside.clone(), nonsense] {
        assert_eq!(update(&channel, changed, None).await, not_found);
    }
    assert_eq!(delete(&channel, "out").await, not_found);
    assert_eq!(delete(&channel, "nothing").await, not_found);
    for method in ["BatchUpdateEntry", "BatchDeleteEntry"] {
        let request = |entry_id: &str| wire::CanRequest {
            method: method.into(),
            entry: Some(wire::EntryQuestion { entry_id: entry_id.into(), ..Default::default() }),
            ..Default::default()
        };
        let mut roles = RolesClient::new(channel.clone());
        expect_refusal(roles.can(request("out")).await, Code::NotFound, Reason::EntryNotFound);
        expect_refusal(roles.can(request("nothing")).await, Code::NotFound, Reason::EntryNotFound);
    }
    let request = entry_api::ListEntriesRequest::default();
    let now = server.entries().await.list_entries(request).await.unwrap().into_inner().entries;
    assert_eq!(now, made, "nothing was changed");
    // Within its reach it may.
    assert_eq!(update(&channel, moved(inside, "/ci/other"), None).await, done());
    assert_eq!(delete(&channel, "in").await, done());
}

#[tokio::test]
async fn a_registrar_gives_nobody_what_an_administrator_put_below_its_identities() {
    let server = TestServer::start().await;
    server.create_one(entry(&id("/ci/cluster"), "/prod/db", &["a:1"])).await;
    let own = server.create_one(ci("/ci/own")).await;
    let channel = registrar(&server, |_| ()).await;
    let cluster = ci("/ci/cluster");
    assert_eq!(create(&channel, vec![cluster.clone()]).await, [refused(Reason::RolePath)]);
    let above = entry(&id("/ci/top"), "/ci/cluster", &["a:1"]);
    server.create_one(above).await;
    assert_eq!(create(&channel, vec![ci("/ci/top")]).await, [refused(Reason::RolePath)]);
    assert_eq!(
        update(&channel, types::Entry { id: own, ..cluster.clone() }, None).await,
        refused(Reason::RolePath)
    );
    let answer = can(&channel, "BatchCreateEntry", question(&cluster)).await;
    assert_eq!((answer.allowed, answer.reason.as_str()), (false, Reason::RolePath.code()));
    assert!(answer.explanation.contains("/prod/db"), "{answer:?}");
    server.create_one(entry(&id("/ci/fine"), "/ci/child", &["a:1"])).await;
    assert_eq!(create(&channel, vec![ci("/ci/fine")]).await, [done()]);
}

#[tokio::test]
async fn a_registrar_does_only_what_its_verbs_say() {
    let server = TestServer::start().await;
    let channel = registrar(&server, |grant| grant.verbs = vec!["create".into()]).await;
    assert_eq!(create(&channel, vec![types::Entry { id: "a".into(), ..ci("/ci/a") }]).await, [done()]);
    assert_eq!(
        update(&channel, types::Entry { id: "a".into(), ..ci("/ci/b") }, None).await,
        refused(Reason::RoleVerb)
    );
    assert_eq!(delete(&channel, "a").await, refused(Reason::RoleVerb));
    let request = wire::CanRequest { method: "batchdeleteentry".into(), ..Default::default() };
    let answer = RolesClient::new(channel).can(request).await.unwrap().into_inner();
    assert_eq!((answer.allowed, answer.reason.as_str()), (false, Reason::RoleVerb.code()));
}

#[tokio::test]
async fn a_registrar_sees_its_own_entries_and_no_others() {
    let server = TestServer::start().await;
    server
        .create(vec![
            types::Entry { id: "in".into(), ..ci("/ci/in") },
            types::Entry { id: "elsewhere".into(), ..entry(&id("/node"), "/ci/elsewhere", &["a:1"]) },
            types::Entry { id: "out".into(), ..ci("/out") },
        ])
        .await;
    let channel = registrar(&server, |_| ()).await;
    assert_eq!(listed(&channel).await, ["/ci/in"]);
    let mut entries = EntryClient::new(channel);
    let count = entries.count_entries(entry_api::CountEntriesRequest::default()).await.unwrap();
    assert_eq!(count.into_inner().count, 1);
    let get = |id: &str| entry_api::GetEntryRequest { id: id.into(), output_mask: None };
    assert_eq!(entries.get_entry(get("in")).await.unwrap().into_inner().id, "in");
    for id in ["out", "elsewhere"] {
        expect_refusal(entries.get_entry(get(id)).await, Code::NotFound, Reason::EntryNotFound);
    }
    let page = entry_api::ListEntriesRequest { page_size: 1, ..Default::default() };
    let page = entries.list_entries(page).await.unwrap().into_inner();
    assert_eq!(page.entries.len(), 1);
    let next = entry_api::ListEntriesRequest {
        page_size: 1,
        page_token: page.next_page_token,
        ..Default::default()
    };
    assert!(entries.list_entries(next).await.unwrap().into_inner().entries.is_empty());
    server.grant("/reader", grant_of(Role::Reader)).await;
    assert_eq!(listed(&server.dial_as("/reader").await).await.len(), 3);
}

#[tokio::test]
async fn nobody_becomes_an_administrator_by_registering_what_leads_to_one() {
    let server = TestServer::start_with(|config| config.admin_ids = vec![id("/ci/listed")]).await;
    server
        .create(vec![
            entry(&id("/spire/server"), "/ci/node", &["a:1"]),
            types::Entry { admin: true, ..entry(&id("/ci/node"), "/root", &["a:1"]) },
            types::Entry { downstream: true, ..entry(&id("/ci/edge"), "/sub", &["a:1"]) },
        ])
        .await;
    let own = |path: &str| entry(&id("/ci/runner"), path, &["a:1"]);
    server.grant("/ci/reader", grant_of(Role::Reader)).await;
    let channel = registrar(&server, |_| ()).await;
    server.grant("/operator", grant_of(Role::Operator)).await;
    let operator = server.dial_as("/operator").await;
    for path in ["/ci/node", "/ci/edge", "/ci/listed", "/ci/reader"] {
        assert_eq!(create(&channel, vec![own(path)]).await, [refused(Reason::RolePower)], "{path}");
        assert_eq!(create(&operator, vec![own(path)]).await, [refused(Reason::RolePower)], "{path}");
    }
    for path in ["/root", "/sub", "/registrar"] {
        assert_eq!(create(&operator, vec![own(path)]).await, [refused(Reason::RolePower)], "{path}");
    }
    assert_eq!(create(&operator, vec![own("/plain")]).await, [done()]);
    let trusted = registrar(&server, |grant| grant.allow_admin = true).await;
    assert_eq!(
        create(&trusted, vec![own("/ci/listed"), own("/ci/edge")]).await,
        [done(), refused(Reason::RolePower)]
    );
}

#[tokio::test]
async fn nobody_becomes_an_agent_by_registering_what_is_exchanged_for_one() {
    let settings = Settings::new(Mode::Spiffe { prefix: "/ci/exchange/".into() });
    let server = TestServer::start_with(|config| config.node_attestors.x509pop = Some(settings)).await;
    let channel = registrar(&server, |_| ()).await;
    server.grant("/operator", grant_of(Role::Operator)).await;
    let operator = server.dial_as("/operator").await;
    server.create_one(entry(&id("/ci/above"), "/ci/exchange/host-7", &["a:1"])).await;
    for path in ["/ci/exchange/host-8", "/ci/exchange/host-7", "/ci/above"] {
        for channel in [&channel, &operator] {
            assert_eq!(create(channel, vec![ci(path)]).await, [refused(Reason::RolePower)], "{path}");
            let answer = can(channel, "BatchCreateEntry", question(&ci(path))).await;
            assert_eq!((answer.allowed, answer.reason.as_str()), (false, Reason::RolePower.code()), "{path}");
        }
        let named = token(&operator, "", Some(path)).await;
        expect_refusal(named, Code::PermissionDenied, Reason::RolePower);
    }
    assert_eq!(create(&channel, vec![ci("/ci/web")]).await, [done()]);
    assert_eq!(create(&server.admin().await, vec![ci("/ci/exchange/host-8")]).await, [done()]);
}

async fn token(channel: &Channel, token: &str, agent_id: Option<&str>) -> Result<String, Status> {
    let agent_id = agent_id.map(wire_id);
    let request = agent_api::CreateJoinTokenRequest { ttl: 60, token: token.into(), agent_id };
    let answer = in_time(AgentClient::new(channel.clone()).create_join_token(request)).await?;
    Ok(answer.into_inner().value)
}

#[tokio::test]
async fn an_operator_lets_nodes_in_but_chooses_neither_their_names_nor_a_powerful_identity() {
    let server = TestServer::start_with(|config| {
        config.admin_ids = vec![id("/spire/agent/join_token/root"), id("/boss")];
    })
    .await;
    server.grant("/operator", grant_of(Role::Operator)).await;
    let channel = server.dial_as("/operator").await;
    token(&channel, "", None).await.unwrap();
    token(&channel, "", Some("/node")).await.unwrap();
    let chosen = token(&channel, "root", None).await;
    expect_refusal(chosen, Code::PermissionDenied, Reason::RoleToken);
    let powerful = token(&channel, "", Some("/boss")).await;
    expect_refusal(powerful, Code::PermissionDenied, Reason::RolePower);
    assert_eq!(token(&server.admin().await, "root", Some("/boss")).await.unwrap(), "root");
    let agent = server.attest().await;
    let agent_id = Some(spiffe_id_to_proto(&agent.id));
    AgentClient::new(channel.clone()).ban_agent(agent_api::BanAgentRequest { id: agent_id }).await.unwrap();
    assert_eq!(
        create(&channel, vec![types::Entry { admin: true, ..ci("/x") }]).await,
        [refused(Reason::RoleFlag)]
    );
}

#[tokio::test]
async fn a_join_token_that_is_not_used_yet_is_shown_to_no_role() {
    let server = TestServer::start().await;
    let wide = |grant: &mut wire::Grant| {
        (grant.path_prefix, grant.parent_path_prefix) = ("/".into(), "/spire/agent/".into());
    };
    let admin = server.admin().await;
    let secret = token(&admin, "", Some("/node")).await.unwrap();
    let agent_path = format!("/spire/agent/join_token/{secret}");
    let by_selector = format!("spiffe_id:{}", id(&agent_path));
    server.create_one(entry(&id("/spire/agent/x/1"), "/by-selector", &[&by_selector])).await;
    server.grant(&agent_path, grant_of(Role::Reader)).await;
    for role in [Role::Reader, Role::Operator] {
        server.grant(&format!("/{role}"), grant_of(role)).await;
    }
    let readers = [server.dial_as("/reader").await, server.dial_as("/operator").await];
    let registrar = registrar(&server, wide).await;
    let made = server.entries().await.list_entries(entry_api::ListEntriesRequest::default()).await;
    let made = made.unwrap().into_inner().entries;
    assert_eq!(made.len(), 2);
    let filter = entry_api::list_entries_request::Filter {
        by_parent_id: Some(wire_id(&agent_path)),
        ..Default::default()
    };
    let count = async |channel: &Channel| {
        let request = entry_api::CountEntriesRequest::default();
        EntryClient::new(channel.clone()).count_entries(request).await.unwrap().into_inner().count
    };
    for channel in readers.iter().chain([&registrar]) {
        assert_eq!(listed(channel).await, [""; 0]);
        let mut entries = EntryClient::new(channel.clone());
        let request = entry_api::ListEntriesRequest { filter: Some(filter.clone()), ..Default::default() };
        assert!(entries.list_entries(request).await.unwrap().into_inner().entries.is_empty());
        assert_eq!(count(channel).await, 0);
        for entry in &made {
            let get = entry_api::GetEntryRequest { id: entry.id.clone(), output_mask: None };
            expect_refusal(entries.get_entry(get).await, Code::NotFound, Reason::EntryNotFound);
        }
    }
    for channel in &readers {
        let holders = RolesClient::new(channel.clone()).list_roles(wire::ListRolesRequest {}).await.unwrap();
        assert!(holders.into_inner().holders.iter().all(|holder| !holder.subject.contains(&secret)));
    }
    let csr = csr();
    attest(server.dial(None).await, secret.as_bytes(), &csr).await.unwrap();
    for channel in readers.iter().chain([&registrar]) {
        assert_eq!(count(channel).await, 2, "a token that was used is none any more");
    }
    let agents = async |channel: &Channel| {
        let mut agents = AgentClient::new(channel.clone());
        let listed = agents.list_agents(agent_api::ListAgentsRequest::default()).await.unwrap().into_inner();
        let counted = agents.count_agents(agent_api::CountAgentsRequest::default()).await.unwrap();
        assert_eq!(usize::try_from(counted.into_inner().count).unwrap(), listed.agents.len());
        listed.agents.len()
    };
    assert_eq!(agents(&readers[0]).await, 1);
    token(&admin, &secret, None).await.unwrap();
    assert_eq!((agents(&readers[0]).await, agents(&admin).await), (0, 1), "made again under the same name");
}

#[tokio::test]
async fn roles_are_given_listed_and_taken_and_outlive_a_restart() {
    let mut server = TestServer::start_with(|config| {
        config.store.kind = StoreKind::Redb;
        config.roles = vec![assignment(RoleSubject::Identity(id("/monitor")), Role::Reader)];
    })
    .await;
    let full = wire::Grant {
        parent_path_prefix: "/spire/agent/".into(),
        verbs: vec!["create".into(), "delete".into()],
        max_x509_svid_ttl: 60,
        max_jwt_svid_ttl: 30,
        allow_admin: true,
        allow_downstream: true,
        ..grant_of(Role::Registrar)
    };
    server.grant("/ci/main", full.clone()).await;
    server.grant("/ci/main", full.clone()).await;
    let foreign = "spiffe://other.example/ops";
    let request = wire::GrantRoleRequest { spiffe_id: foreign.into(), grant: Some(grant_of(Role::Operator)) };
    server.roles().await.grant_role(request).await.unwrap();
    server.restart().await;
    let holders =
        server.roles().await.list_roles(wire::ListRolesRequest {}).await.unwrap().into_inner().holders;
    let holder = |subject: &str, grant, configured| wire::Holder {
        subject: subject.into(),
        grants: vec![grant],
        configured,
    };
    let expected = [
        holder("spiffe://example.org/monitor", grant_of(Role::Reader), true),
        holder("spiffe://example.org/ci/main", full, false),
        holder(foreign, grant_of(Role::Operator), false),
    ];
    assert_eq!(holders, expected);
    server.revoke("/ci/main").await;
    let take = |path: &str, role: &str| wire::RevokeRoleRequest {
        spiffe_id: id(path).to_string(),
        role: role.into(),
    };
    let mut roles = server.roles().await;
    expect_refusal(roles.revoke_role(take("/ci/main", "")).await, Code::NotFound, Reason::RoleNotFound);
    let configured = roles.revoke_role(take("/monitor", "reader")).await;
    let message = expect_refusal(configured, Code::FailedPrecondition, Reason::RoleNotFound);
    assert!(message.contains("configuration"), "{message}");
    expect_refusal(
        roles.revoke_role(take("/ci/main", "boss")).await,
        Code::InvalidArgument,
        Reason::BadRequest,
    );
}

#[tokio::test]
async fn a_role_that_makes_no_sense_is_not_given() {
    let server = TestServer::start().await;
    let mut roles = server.roles().await;
    let registrar = || grant_of(Role::Registrar);
    let cases = [
        (None, "missing grant"),
        (Some(wire::Grant::default()), "is not a role"),
        (Some(wire::Grant { path_prefix: "/a".into(), ..grant_of(Role::Reader) }), "only a registrar"),
        (Some(wire::Grant { path_prefix: String::new(), ..registrar() }), "not a path prefix"),
        (Some(wire::Grant { path_prefix: "/a//b".into(), ..registrar() }), "not a path prefix"),
        (Some(wire::Grant { verbs: vec![], ..registrar() }), "at least one of the verbs"),
    ];
    for (grant, says) in cases {
        let request = wire::GrantRoleRequest { spiffe_id: id("/a").to_string(), grant };
        let message =
            expect_refusal(roles.grant_role(request).await, Code::InvalidArgument, Reason::BadRequest);
        assert!(message.contains(says), "{says:?} is not in {message:?}");
    }
    for spiffe_id in ["", "ci", "unix:uid:1", "spiffe://"] {
        let request = wire::GrantRoleRequest { spiffe_id: spiffe_id.into(), grant: Some(registrar()) };
        expect_refusal(roles.grant_role(request).await, Code::InvalidArgument, Reason::BadRequest);
    }
    assert!(roles.list_roles(wire::ListRolesRequest {}).await.unwrap().into_inner().holders.is_empty());
}

#[tokio::test]
async fn a_local_user_with_a_role_has_that_and_no_more() {
    let server = TestServer::start_with(|config| {
        config.roles = vec![assignment(RoleSubject::Uid(own_uid()), Role::Registrar)];
    })
    .await;
    let local = server.admin().await;
    assert_eq!(create(&local, vec![ci("/ci/a"), ci("/web")]).await, [done(), refused(Reason::RolePath)]);
    expect_refusal(token(&local, "", None).await, Code::PermissionDenied, Reason::MethodNotAllowed);
}

#[tokio::test]
async fn who_asks_about_others_must_be_an_administrator_and_who_asks_nonsense_is_told_so() {
    let server = TestServer::start().await;
    let ask = async |channel: Channel, spiffe_id: &str, method: &str| {
        let request = wire::CanRequest { spiffe_id: spiffe_id.into(), method: method.into(), entry: None };
        in_time(RolesClient::new(channel).can(request)).await
    };
    let channel = registrar(&server, |_| ()).await;
    let (own, other) = (id("/registrar").to_string(), id("/other").to_string());
    assert!(ask(channel.clone(), &own, "BatchCreateEntry").await.unwrap().into_inner().allowed);
    for channel in [channel, server.dial(None).await] {
        let answer = ask(channel, &other, "ListEntries").await;
        expect_refusal(answer, Code::PermissionDenied, Reason::MethodNotAllowed);
    }
    let admin = server.admin().await;
    let nobody = ask(admin.clone(), &other, "ListEntries").await.unwrap().into_inner();
    assert_eq!((nobody.allowed, nobody.reason.as_str()), (false, "method_not_allowed"));
    for (method, says) in [("Nothing", "there is no method"), ("", "there is no method")] {
        let message = expect_refusal(
            ask(admin.clone(), "", method).await,
            Code::InvalidArgument,
            Reason::MethodUnknown,
        );
        assert!(message.contains(says), "{message}");
    }
    expect_refusal(
        ask(admin.clone(), "nobody", "ListEntries").await,
        Code::InvalidArgument,
        Reason::BadRequest,
    );
    let registrar_asks = async |question: wire::EntryQuestion, method: &str| {
        let request =
            wire::CanRequest { spiffe_id: own.clone(), method: method.into(), entry: Some(question) };
        in_time(RolesClient::new(admin.clone()).can(request)).await
    };
    let none = registrar_asks(wire::EntryQuestion::default(), "BatchDeleteEntry").await;
    expect_refusal(none, Code::NotFound, Reason::EntryNotFound);
    let no_parent = wire::EntryQuestion { spiffe_id: Some(wire_id("/ci/a")), ..Default::default() };
    expect_refusal(
        registrar_asks(no_parent, "BatchCreateEntry").await,
        Code::InvalidArgument,
        Reason::BadRequest,
    );
    let negative = wire::EntryQuestion { x509_svid_ttl: -1, ..question(&ci("/ci/a")) };
    expect_refusal(
        registrar_asks(negative, "BatchCreateEntry").await,
        Code::InvalidArgument,
        Reason::BadRequest,
    );
}
