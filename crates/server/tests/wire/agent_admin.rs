//! How operators look at agents and end them: get, list, count, ban, evict.

use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::refusal::permission_denied_details_of;
use spindle_proto::spire::api::server::agent::v1 as wire;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::permission_denied_details::Reason as Standing;
use spindle_spiffe_core::{Reason, SpiffeId};
use spindle_testkit::NOW;
use tonic::Code;
use wire::list_agents_request::Filter;

use crate::support::{
    SVID_TTL_SECS, TestServer, attest, csr, entry, expect_refusal, foreign_id, id, selector, wire_id,
};

/// IDs that name no agent, and what the refusal says.
fn bad_ids() -> Vec<(Option<types::Spiffeid>, Reason, &'static str)> {
    vec![
        (None, Reason::BadRequest, "missing"),
        (Some(foreign_id("", "")), Reason::BadRequest, "missing"),
        (Some(foreign_id("other.example", "/spire/agent/x")), Reason::WrongTrustDomain, "other.example"),
        (Some(wire_id("/web")), Reason::BadRequest, "/spire/agent/"),
        (Some(wire_id("/spire/agent")), Reason::BadRequest, "/spire/agent/"),
        (Some(wire_id("/spire/server")), Reason::BadRequest, "/spire/agent/"),
        (Some(wire_id("no-slash")), Reason::BadRequest, "invalid agent ID"),
    ]
}

/// Attests nodes of these names; their order is not that of the alphabet.
async fn attest_named(server: &TestServer, names: &[&str]) -> Vec<SpiffeId> {
    let mut ids = Vec::new();
    for name in names {
        let request = wire::CreateJoinTokenRequest { ttl: 600, token: (*name).into(), agent_id: None };
        server.agents().await.create_join_token(request).await.unwrap();
        attest(server.dial(None).await, name.as_bytes(), &csr()).await.unwrap();
        ids.push(id(&format!("/spire/agent/join_token/{name}")));
    }
    ids
}

fn names(agents: &[types::Agent]) -> Vec<String> {
    let path = |agent: &types::Agent| agent.id.as_ref().unwrap().path.clone();
    agents.iter().map(|agent| path(agent).rsplit('/').next().unwrap().to_owned()).collect()
}

/// The names of the agents that pass the filter; the count must be the same.
async fn list(server: &TestServer, filter: Filter) -> Vec<String> {
    let mut agents = server.agents().await;
    let count = wire::CountAgentsRequest {
        filter: Some(wire::count_agents_request::Filter {
            by_attestation_type: filter.by_attestation_type.clone(),
            by_selector_match: filter.by_selector_match.clone(),
            by_banned: filter.by_banned,
            by_can_reattest: filter.by_can_reattest,
            by_expires_before: filter.by_expires_before.clone(),
        }),
    };
    let count = agents.count_agents(count).await.unwrap().into_inner().count;
    let request = wire::ListAgentsRequest { filter: Some(filter), ..Default::default() };
    let answer = agents.list_agents(request).await.unwrap().into_inner();
    assert_eq!(answer.next_page_token, "", "no page was asked for");
    assert_eq!(usize::try_from(count).unwrap(), answer.agents.len());
    names(&answer.agents)
}

#[tokio::test]
async fn calls_that_name_no_agent_are_refused() {
    let server = TestServer::start().await;
    let mut agents = server.agents().await;
    for (id, reason, says) in bad_ids() {
        let what = format!("{id:?}");
        let get = agents.get_agent(wire::GetAgentRequest { id: id.clone(), output_mask: None }).await;
        let ban = agents.ban_agent(wire::BanAgentRequest { id: id.clone() }).await;
        let delete = agents.delete_agent(wire::DeleteAgentRequest { id }).await;
        let messages = [
            expect_refusal(get, Code::InvalidArgument, reason),
            expect_refusal(ban, Code::InvalidArgument, reason),
            expect_refusal(delete, Code::InvalidArgument, reason),
        ];
        assert!(messages.iter().all(|message| message.contains(says)), "{what}: {messages:?}");
    }
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_not_found() {
    let server = TestServer::start().await;
    let mut agents = server.agents().await;
    let id = Some(wire_id("/spire/agent/join_token/none"));
    let get = agents.get_agent(wire::GetAgentRequest { id: id.clone(), output_mask: None }).await;
    assert_eq!(expect_refusal(get, Code::NotFound, Reason::AgentNotFound), "agent not found");
    let ban = agents.ban_agent(wire::BanAgentRequest { id: id.clone() }).await;
    assert_eq!(expect_refusal(ban, Code::NotFound, Reason::AgentNotFound), "agent not found");
    let delete = agents.delete_agent(wire::DeleteAgentRequest { id }).await;
    assert_eq!(expect_refusal(delete, Code::NotFound, Reason::AgentNotFound), "agent not found");
}

#[tokio::test]
async fn a_mask_keeps_the_id_and_what_it_names() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let get = async |mask| {
        let request =
            wire::GetAgentRequest { id: Some(spiffe_id_to_proto(&agent.id)), output_mask: Some(mask) };
        server.agents().await.get_agent(request).await.unwrap().into_inner()
    };
    let nothing = types::Agent { id: Some(spiffe_id_to_proto(&agent.id)), ..Default::default() };
    assert_eq!(get(types::AgentMask::default()).await, nothing);
    let mask = types::AgentMask { x509svid_serial_number: true, ..Default::default() };
    let serial = types::Agent { x509svid_serial_number: agent.svid.serial_decimal(), ..nothing };
    assert_eq!(get(mask).await, serial);
}

#[tokio::test]
async fn a_ban_shuts_an_agent_out_and_keeps_its_row() {
    let server = TestServer::start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    let (key, renewed) = agent.renew().await;
    server.ban(&agent.id).await;
    let status = agent.knock().await.expect_err("banned");
    assert_eq!(permission_denied_details_of(&status), Some(Standing::AgentBanned));
    expect_refusal::<()>(Err(status), Code::PermissionDenied, Reason::AgentBanned);
    let renewed = server.connect(key, &renewed).await;
    let status = renewed.knock().await.expect_err("the renewed SVID is banned too");
    assert_eq!(permission_denied_details_of(&status), Some(Standing::AgentBanned));
    let request = wire::GetAgentRequest { id: Some(spiffe_id_to_proto(&agent.id)), output_mask: None };
    let row = server.agents().await.get_agent(request).await.unwrap().into_inner();
    assert!(row.banned);
    assert_eq!(row.x509svid_serial_number, "", "as SPIRE shows a banned agent");
    other.knock().await.unwrap();
    // Again is what the operator wanted, not an error.
    server.ban(&agent.id).await;
}

#[tokio::test]
async fn an_evicted_agent_is_not_attested_and_may_join_again() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    server.evict(&agent.id).await;
    let status = agent.knock().await.expect_err("evicted");
    assert_eq!(permission_denied_details_of(&status), Some(Standing::AgentNotAttested));
    expect_refusal::<()>(Err(status), Code::PermissionDenied, Reason::AgentNotAttested);
    let again = wire::DeleteAgentRequest { id: Some(spiffe_id_to_proto(&agent.id)) };
    expect_refusal(server.agents().await.delete_agent(again).await, Code::NotFound, Reason::AgentNotFound);
    server.attest().await.knock().await.unwrap();
}

#[tokio::test]
async fn eviction_takes_the_entry_of_the_token_along_and_no_other() {
    let server = TestServer::start().await;
    let request =
        wire::CreateJoinTokenRequest { ttl: 60, token: "node-1".into(), agent_id: Some(wire_id("/alias")) };
    server.agents().await.create_join_token(request).await.unwrap();
    attest(server.dial(None).await, b"node-1", &csr()).await.unwrap();
    let agent_id = id("/spire/agent/join_token/node-1");
    let own = format!("spiffe_id:{agent_id}");
    server
        .create(vec![
            entry(&agent_id, "/web", &["unix:uid:1"]),
            // Looks like the token's, but has one selector more.
            entry(&agent_id, "/kept", &[&own, "unix:uid:1"]),
            entry(&id("/elsewhere"), "/elsewhere/alias", &[&own]),
        ])
        .await;
    server.evict(&agent_id).await;
    let left = server.entries().await.list_entries(entry_api::ListEntriesRequest::default()).await.unwrap();
    let mut left: Vec<String> =
        left.into_inner().entries.into_iter().map(|entry| entry.spiffe_id.unwrap().path).collect();
    left.sort();
    assert_eq!(left, ["/elsewhere/alias", "/kept", "/web"]);
    // The place of the deleted entry is free again.
    server.create_one(entry(&agent_id, "/alias", &[&own])).await;
}

#[tokio::test]
async fn every_filter_narrows_list_and_count_alike() {
    let server = TestServer::start().await;
    let early = attest_named(&server, &["c", "a"]).await;
    server.clock.advance(100);
    attest_named(&server, &["b"]).await;
    server.ban(&early[0]).await;
    assert_eq!(list(&server, Filter::default()).await, ["a", "b", "c"]);
    let of_type = |kind: &str| Filter { by_attestation_type: kind.into(), ..Default::default() };
    assert_eq!(list(&server, of_type("join_token")).await, ["a", "b", "c"]);
    assert!(list(&server, of_type("x509pop")).await.is_empty());
    let banned = |banned| Filter { by_banned: Some(banned), ..Default::default() };
    assert_eq!(list(&server, banned(true)).await, ["c"]);
    assert_eq!(list(&server, banned(false)).await, ["a", "b"]);
    let can = |can| Filter { by_can_reattest: Some(can), ..Default::default() };
    assert!(list(&server, can(true)).await.is_empty());
    assert_eq!(list(&server, can(false)).await, ["a", "b", "c"]);
    let both = Filter { by_attestation_type: "join_token".into(), ..banned(true) };
    assert_eq!(list(&server, both).await, ["c"]);
}

#[tokio::test]
async fn the_expiry_filter_compares_moments_and_ignores_what_it_cannot_read() {
    let server = TestServer::start().await;
    attest_named(&server, &["early"]).await;
    server.clock.advance(100);
    attest_named(&server, &["late"]).await;
    let before = |text: &str| Filter { by_expires_before: text.into(), ..Default::default() };
    // The first SVID ends at NOW + 3600, which is 2027-01-15T09:00:00Z.
    assert_eq!((NOW + SVID_TTL_SECS).unix_secs(), 1_800_003_600);
    assert!(list(&server, before("2027-01-15 09:00:00 +0000 +00")).await.is_empty());
    assert_eq!(list(&server, before("2027-01-15 09:00:01 +0000 +00")).await, ["early"]);
    assert_eq!(list(&server, before("2027-01-15 11:00:01 +0200 +02")).await, ["early"]);
    assert_eq!(list(&server, before("2027-01-15 09:01:41 +0000 UTC")).await, ["early", "late"]);
    assert_eq!(list(&server, before("next week")).await, ["early", "late"]);
}

#[tokio::test]
async fn a_selector_filter_must_be_a_set_of_selectors_with_a_known_match() {
    let server = TestServer::start().await;
    attest_named(&server, &["a"]).await;
    let filter = |selectors: Vec<types::Selector>, how| Filter {
        by_selector_match: Some(types::SelectorMatch { selectors, r#match: how }),
        ..Default::default()
    };
    for how in 0..4 {
        // Nodes that joined by token show no selectors; they are in no such list, as in SPIRE.
        assert!(list(&server, filter(vec![selector("a:b")], how)).await.is_empty(), "{how}");
    }
    let empty = types::Selector { r#type: "a".into(), value: String::new() };
    let cases = [
        (filter(Vec::new(), 0), "empty"),
        (filter(vec![selector("a:b")], 4), "4"),
        (filter(vec![empty], 0), "value"),
    ];
    for (filter, says) in cases {
        let request = wire::ListAgentsRequest { filter: Some(filter), ..Default::default() };
        let answer = server.agents().await.list_agents(request).await;
        let message = expect_refusal(answer, Code::InvalidArgument, Reason::BadRequest);
        assert!(message.contains(says), "{message}");
    }
}

/// One page.
async fn page(server: &TestServer, size: i32, token: &str) -> (Vec<String>, String) {
    let request = wire::ListAgentsRequest { page_size: size, page_token: token.into(), ..Default::default() };
    let answer = server.agents().await.list_agents(request).await.unwrap().into_inner();
    (names(&answer.agents), answer.next_page_token)
}

#[tokio::test]
async fn pages_end_with_an_empty_one() {
    let server = TestServer::start().await;
    attest_named(&server, &["d", "b", "a", "c"]).await;
    let (mut token, mut pages) = (String::new(), Vec::new());
    loop {
        let (page, next) = page(&server, 2, &token).await;
        pages.push(page.join(""));
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(pages, ["ab", "cd", ""]);
    assert_eq!(page(&server, 0, "ignored without a size").await.0.len(), 4);
    assert_eq!(page(&server, -1, "").await.0.len(), 4);
    assert_eq!(page(&server, i32::MAX, "").await.0.len(), 4);
}

#[tokio::test]
async fn agents_that_go_between_two_pages_hide_no_other() {
    let server = TestServer::start().await;
    let ids = attest_named(&server, &["a", "b", "c", "d"]).await;
    let (first, token) = page(&server, 2, "").await;
    assert_eq!(first, ["a", "b"]);
    server.evict(&ids[0]).await;
    server.evict(&ids[1]).await;
    assert_eq!(page(&server, 2, &token).await.0, ["c", "d"]);
}

#[tokio::test]
async fn a_page_token_that_was_never_given_out_is_refused() {
    let server = TestServer::start().await;
    let request = wire::ListAgentsRequest { page_size: 1, page_token: "abc".into(), ..Default::default() };
    let message =
        expect_refusal(server.agents().await.list_agents(request).await, Code::Internal, Reason::BadRequest);
    assert!(message.contains("could not parse token 'abc'"), "{message}");
}
