//! Roles at work: what registrars, operators and readers get done, item by item, and how roles are given.

mod given;
mod operators;

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

async fn token(channel: &Channel, token: &str, agent_id: Option<&str>) -> Result<String, Status> {
    let agent_id = agent_id.map(wire_id);
    let request = agent_api::CreateJoinTokenRequest { ttl: 60, token: token.into(), agent_id };
    let answer = in_time(AgentClient::new(channel.clone()).create_join_token(request)).await?;
    Ok(answer.into_inner().value)
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
