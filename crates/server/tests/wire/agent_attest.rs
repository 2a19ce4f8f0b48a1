//! How nodes join and stay: join tokens, attestation, renewal, and the standing that goes with each SVID.

use spindle_keys::{Key, KeyType, certificate_request};
use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::refusal::permission_denied_details_of;
use spindle_proto::spire::api::server::agent::v1 as wire;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::permission_denied_details::Reason as Standing;
use spindle_spiffe_core::Reason;
use spindle_testkit::NOW;
use tonic::Code;
use wire::attest_agent_request::{Params, Step};

use crate::support::{
    SVID_TTL_SECS, TestServer, attest, attest_step, csr, csr_of, expect_refusal, foreign_id, id, in_time,
    wire_id,
};

/// A join token request, all fields given.
fn token_request(ttl: i32, token: &str, agent_id: Option<types::Spiffeid>) -> wire::CreateJoinTokenRequest {
    wire::CreateJoinTokenRequest { ttl, token: token.into(), agent_id }
}

fn params(kind: &str, payload: &[u8], csr: &[u8]) -> Params {
    Params {
        data: Some(types::AttestationData { r#type: kind.into(), payload: payload.to_vec().into() }),
        params: Some(wire::AgentX509svidParams { csr: csr.to_vec().into() }),
    }
}

async fn get(server: &TestServer, id: &spindle_spiffe_core::SpiffeId) -> types::Agent {
    let request = wire::GetAgentRequest { id: Some(spiffe_id_to_proto(id)), output_mask: None };
    server.agents().await.get_agent(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_join_token_admits_a_node_under_the_id_of_the_token() {
    let server = TestServer::start().await;
    let token = server.join_token().await;
    let key = Key::generate(KeyType::EcP256).unwrap();
    let result = attest(server.dial(None).await, token.as_bytes(), &csr_of(&key)).await.unwrap();
    assert!(!result.reattestable);
    let svid = server.verified(&result.svid.unwrap()).await;
    assert_eq!(*svid.spiffe_id(), id(&format!("/spire/agent/join_token/{token}")));
    assert_eq!(svid.spki_der(), key.spki_der());
    assert_eq!(svid.expires_at(), NOW + SVID_TTL_SECS);
    let agent = get(&server, svid.spiffe_id()).await;
    let expected = types::Agent {
        id: Some(spiffe_id_to_proto(svid.spiffe_id())),
        attestation_type: "join_token".into(),
        x509svid_serial_number: svid.serial_decimal(),
        x509svid_expires_at: svid.expires_at().unix_secs(),
        ..Default::default()
    };
    assert_eq!(agent, expected);
}

#[tokio::test]
async fn only_the_key_of_an_agents_request_is_used() {
    let server = TestServer::start().await;
    let key = Key::generate(KeyType::EcP384).unwrap();
    let names = ["evil.example.org".parse().unwrap()];
    let csr = certificate_request(&key, Some(&id("/spire/server")), &names).unwrap();
    let token = server.join_token().await;
    let result = attest(server.dial(None).await, token.as_bytes(), &csr).await.unwrap();
    let svid = server.verified(&result.svid.unwrap()).await;
    assert_eq!(*svid.spiffe_id(), id(&format!("/spire/agent/join_token/{token}")));
    let leaf = svid.leaf().to_vec();
    assert!(!leaf.windows(4).any(|window| window == b"evil"), "a DNS name of the request was signed");
}

#[tokio::test]
async fn a_malformed_first_message_is_refused_and_costs_no_token() {
    let server = TestServer::start().await;
    let (token, good) = (server.join_token().await, csr());
    let without = |change: fn(&mut Params)| {
        let mut params = params("join_token", token.as_bytes(), &good);
        change(&mut params);
        Some(Step::Params(params))
    };
    let long = vec![b'x'; 64 * 1024 + 1];
    let cases: Vec<(&str, Option<Step>, Code, Reason, &str)> = vec![
        ("nothing", None, Code::InvalidArgument, Reason::BadRequest, "missing params"),
        (
            "an answer to no challenge",
            Some(Step::ChallengeResponse(b"x".as_slice().into())),
            Code::InvalidArgument,
            Reason::BadRequest,
            "missing params",
        ),
        (
            "no data",
            without(|p| p.data = None),
            Code::InvalidArgument,
            Reason::BadRequest,
            "attestation data",
        ),
        (
            "no type",
            without(|p| p.data.as_mut().unwrap().r#type.clear()),
            Code::InvalidArgument,
            Reason::BadRequest,
            "data type",
        ),
        (
            "no payload",
            without(|p| p.data.as_mut().unwrap().payload.clear()),
            Code::InvalidArgument,
            Reason::BadRequest,
            "payload",
        ),
        (
            "a huge payload",
            Some(Step::Params(params("join_token", &long, &good))),
            Code::InvalidArgument,
            Reason::BadRequest,
            "payload",
        ),
        (
            "a token that is no text",
            Some(Step::Params(params("join_token", &[0xff, 0xfe], &good))),
            Code::InvalidArgument,
            Reason::BadRequest,
            "not text",
        ),
        ("no CSR parameters", without(|p| p.params = None), Code::InvalidArgument, Reason::BadRequest, "CSR"),
        (
            "an empty CSR",
            without(|p| p.params.as_mut().unwrap().csr.clear()),
            Code::InvalidArgument,
            Reason::BadRequest,
            "CSR",
        ),
        (
            "garbage for a CSR",
            Some(Step::Params(params("join_token", token.as_bytes(), b"garbage"))),
            Code::InvalidArgument,
            Reason::BadCsr,
            "failed to parse CSR",
        ),
        (
            "an attestor that is not there",
            Some(Step::Params(params("x509pop", token.as_bytes(), &good))),
            Code::FailedPrecondition,
            Reason::AttestorUnknown,
            "x509pop",
        ),
    ];
    for (what, step, code, reason, says) in cases {
        let message = expect_refusal(attest_step(server.dial(None).await, step).await, code, reason);
        assert!(message.contains(says), "{what}: {message}");
    }
    attest(server.dial(None).await, token.as_bytes(), &good).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_says_nothing_is_refused() {
    let server = TestServer::start().await;
    let nothing = tokio_stream::iter(Vec::<wire::AttestAgentRequest>::new());
    let answer = in_time(server.agents().await.attest_agent(nothing)).await;
    expect_refusal(answer, Code::InvalidArgument, Reason::BadRequest);
}

#[tokio::test]
async fn a_request_whose_signature_was_changed_is_refused() {
    let server = TestServer::start().await;
    let mut csr = csr();
    *csr.last_mut().unwrap() ^= 1;
    let token = server.join_token().await;
    let answer = attest(server.dial(None).await, token.as_bytes(), &csr).await;
    expect_refusal(answer, Code::InvalidArgument, Reason::BadCsr);
}

#[tokio::test]
async fn a_key_that_is_too_weak_is_refused() {
    let server = TestServer::start().await;
    let csr = include_bytes!("../../../ca/tests/vectors/rsa1024-sha256.der");
    let token = server.join_token().await;
    let answer = attest(server.dial(None).await, token.as_bytes(), csr).await;
    expect_refusal(answer, Code::InvalidArgument, Reason::BadKey);
}

#[tokio::test]
async fn a_token_that_was_never_made_or_was_used_is_refused() {
    let server = TestServer::start().await;
    let never = attest(server.dial(None).await, b"never-made", &csr()).await;
    let message = expect_refusal(never, Code::InvalidArgument, Reason::JoinTokenUnknown);
    assert_eq!(message, "failed to attest: join token does not exist or has already been used");
    let token = server.join_token().await;
    attest(server.dial(None).await, token.as_bytes(), &csr()).await.unwrap();
    let again = attest(server.dial(None).await, token.as_bytes(), &csr()).await;
    expect_refusal(again, Code::InvalidArgument, Reason::JoinTokenUnknown);
}

#[tokio::test]
async fn an_expired_token_is_refused_as_expired_once_and_is_gone_then() {
    let server = TestServer::start().await;
    let token = server.join_token().await;
    let last_second = server.join_token().await;
    server.clock.advance(600);
    attest(server.dial(None).await, last_second.as_bytes(), &csr()).await.unwrap();
    server.clock.advance(1);
    let first = attest(server.dial(None).await, token.as_bytes(), &csr()).await;
    assert_eq!(expect_refusal(first, Code::InvalidArgument, Reason::JoinTokenExpired), "join token expired");
    let second = attest(server.dial(None).await, token.as_bytes(), &csr()).await;
    expect_refusal(second, Code::InvalidArgument, Reason::JoinTokenUnknown);
}

#[tokio::test]
async fn a_banned_agent_cannot_attest_again_even_with_a_fresh_token_of_its_name() {
    let server = TestServer::start().await;
    let mut agents = server.agents().await;
    agents.create_join_token(token_request(600, "node-1", None)).await.unwrap();
    attest(server.dial(None).await, b"node-1", &csr()).await.unwrap();
    let agent_id = id("/spire/agent/join_token/node-1");
    server.ban(&agent_id).await;
    agents.create_join_token(token_request(600, "node-1", None)).await.unwrap();
    let status = attest(server.dial(None).await, b"node-1", &csr()).await.expect_err("banned");
    assert_eq!(permission_denied_details_of(&status), None);
    let message = expect_refusal::<()>(Err(status), Code::PermissionDenied, Reason::AgentBanned);
    assert_eq!(message, "failed to attest: agent is banned");
    assert!(get(&server, &agent_id).await.banned);
    // Eviction lifts the ban, and the token is still good.
    server.evict(&agent_id).await;
    attest(server.dial(None).await, b"node-1", &csr()).await.unwrap();
}

#[tokio::test]
async fn a_node_that_attests_again_replaces_its_svid() {
    let server = TestServer::start().await;
    let mut agents = server.agents().await;
    let mut connected = Vec::new();
    for _ in 0..2 {
        agents.create_join_token(token_request(600, "node-1", None)).await.unwrap();
        let key = Key::generate(KeyType::EcP256).unwrap();
        let result = attest(server.dial(None).await, b"node-1", &csr_of(&key)).await.unwrap();
        connected.push(server.connect(key, &result.svid.unwrap()).await);
    }
    connected[1].knock().await.unwrap();
    let status = connected[0].knock().await.expect_err("replaced");
    assert_eq!(permission_denied_details_of(&status), Some(Standing::AgentNotActive));
    assert_eq!(agents.count_agents(wire::CountAgentsRequest::default()).await.unwrap().into_inner().count, 1);
}

#[tokio::test]
async fn a_token_is_made_up_or_taken_as_given_and_lasts_as_asked() {
    let server = TestServer::start().await;
    let mut agents = server.agents().await;
    let made = agents.create_join_token(token_request(1, "", None)).await.unwrap().into_inner();
    assert_eq!((made.value.len(), made.expires_at), (36, NOW.unix_secs() + 1));
    let given = agents.create_join_token(token_request(3600, "my-token", None)).await.unwrap().into_inner();
    assert_eq!((given.value.as_str(), given.expires_at), ("my-token", NOW.unix_secs() + 3600));
}

#[tokio::test]
async fn token_requests_that_cannot_be_met_are_refused() {
    let server = TestServer::start().await;
    let mut agents = server.agents().await;
    let foreign = || Some(foreign_id("other.example", "/web"));
    let long = "x".repeat(256);
    let cases = [
        (token_request(0, "", None), Reason::BadRequest, "ttl is required"),
        (token_request(-5, "", None), Reason::BadRequest, "ttl is required"),
        (token_request(60, "a/b", None), Reason::BadRequest, "slash"),
        (token_request(60, "a b", None), Reason::BadRequest, "SPIFFE ID"),
        (token_request(60, &long, None), Reason::BadRequest, "255"),
        (token_request(60, "", foreign()), Reason::WrongTrustDomain, "other.example"),
        (token_request(60, "", Some(wire_id("/spire/server"))), Reason::BadRequest, "reserved"),
        (token_request(60, "", Some(wire_id("/spire/agent/x"))), Reason::BadRequest, "reserved"),
        (token_request(60, "", Some(wire_id(""))), Reason::BadRequest, "path"),
        (token_request(60, "", Some(foreign_id("", ""))), Reason::BadRequest, "missing"),
    ];
    for (request, reason, says) in cases {
        let what = format!("{request:?}");
        let message = expect_refusal(agents.create_join_token(request).await, Code::InvalidArgument, reason);
        assert!(message.contains(says), "{what}: {message}");
    }
    assert_eq!(
        server
            .entries()
            .await
            .count_entries(entry_api::CountEntriesRequest::default())
            .await
            .unwrap()
            .into_inner()
            .count,
        0
    );
}

#[tokio::test]
async fn a_token_that_exists_is_not_made_twice_and_keeps_its_end() {
    let server = TestServer::start().await;
    let mut agents = server.agents().await;
    agents.create_join_token(token_request(60, "once", None)).await.unwrap();
    let again = agents.create_join_token(token_request(3600, "once", Some(wire_id("/web")))).await;
    let message = expect_refusal(again, Code::AlreadyExists, Reason::AlreadyExists);
    assert!(message.contains("join token already exists"), "{message}");
    let count =
        server.entries().await.count_entries(entry_api::CountEntriesRequest::default()).await.unwrap();
    assert_eq!(count.into_inner().count, 0, "the refused call must leave no entry behind");
    server.clock.advance(61);
    let late = attest(server.dial(None).await, b"once", &csr()).await;
    expect_refusal(late, Code::InvalidArgument, Reason::JoinTokenExpired);
}

#[tokio::test]
async fn a_token_for_a_workload_registers_it_below_the_agent() {
    let server = TestServer::start().await;
    let mut agents = server.agents().await;
    agents.create_join_token(token_request(60, "node-1", Some(wire_id("/web")))).await.unwrap();
    let entries =
        server.entries().await.list_entries(entry_api::ListEntriesRequest::default()).await.unwrap();
    let entries = entries.into_inner().entries;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].spiffe_id, Some(wire_id("/web")));
    assert_eq!(entries[0].parent_id, Some(wire_id("/spire/agent/join_token/node-1")));
    let own = types::Selector {
        r#type: "spiffe_id".into(),
        value: "spiffe://example.org/spire/agent/join_token/node-1".into(),
    };
    assert_eq!(entries[0].selectors, [own]);
    assert_eq!((entries[0].revision_number, entries[0].created_at), (0, NOW.unix_secs()));
}

#[tokio::test]
async fn a_second_token_of_the_same_name_keeps_the_entry_of_the_first() {
    let server = TestServer::start().await;
    let mut agents = server.agents().await;
    for _ in 0..2 {
        agents.create_join_token(token_request(60, "node-1", Some(wire_id("/web")))).await.unwrap();
        attest(server.dial(None).await, b"node-1", &csr()).await.unwrap();
    }
    let count =
        server.entries().await.count_entries(entry_api::CountEntriesRequest::default()).await.unwrap();
    assert_eq!(count.into_inner().count, 1);
}

#[tokio::test]
async fn renewal_needs_a_request() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let mut agents = agent.agents();
    let cases = [
        (None, Reason::BadRequest),
        (Some(wire::AgentX509svidParams { csr: Vec::new().into() }), Reason::BadRequest),
        (Some(wire::AgentX509svidParams { csr: b"garbage".to_vec().into() }), Reason::BadCsr),
    ];
    for (params, reason) in cases {
        let answer = agents.renew_agent(wire::RenewAgentRequest { params }).await;
        expect_refusal(answer, Code::InvalidArgument, reason);
    }
    assert_eq!(get(&server, &agent.id).await.x509svid_serial_number, agent.svid.serial_decimal());
}

#[tokio::test]
async fn the_old_svid_is_good_until_the_renewed_one_is_first_used() {
    let server = TestServer::start().await;
    let old = server.attest().await;
    server.clock.advance(1800);
    let (key, renewed) = old.renew().await;
    let svid = server.verified(&renewed).await;
    assert_eq!((svid.spiffe_id(), svid.spki_der()), (&old.id, key.spki_der()));
    assert_eq!(svid.expires_at(), NOW + 1800 + SVID_TTL_SECS);
    old.knock().await.unwrap();
    let shown = get(&server, &old.id).await;
    assert_eq!(
        shown.x509svid_serial_number,
        old.svid.serial_decimal(),
        "nothing changes before the first use"
    );
    let new = server.connect(key, &renewed).await;
    old.knock().await.unwrap();
    new.knock().await.unwrap();
    let shown = get(&server, &old.id).await;
    assert_eq!(shown.x509svid_serial_number, svid.serial_decimal());
    assert_eq!(shown.x509svid_expires_at, svid.expires_at().unix_secs());
    let status = old.knock().await.expect_err("the old SVID has been replaced");
    assert_eq!(permission_denied_details_of(&status), Some(Standing::AgentNotActive));
    expect_refusal::<()>(Err(status), Code::PermissionDenied, Reason::AgentNotActive);
    new.knock().await.unwrap();
}

#[tokio::test]
async fn of_two_renewals_the_later_one_counts() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let (lost_key, lost) = agent.renew().await;
    let (kept_key, kept) = agent.renew().await;
    let status = server.connect(lost_key, &lost).await.knock().await.expect_err("never took effect");
    assert_eq!(permission_denied_details_of(&status), Some(Standing::AgentNotActive));
    agent.knock().await.unwrap();
    server.connect(kept_key, &kept).await.knock().await.unwrap();
}

#[tokio::test]
async fn many_first_uses_of_a_renewed_svid_at_once_all_succeed() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let (key, renewed) = agent.renew().await;
    let new = server.connect(key, &renewed).await;
    let calls = (0..32).map(|_| new.knock());
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn an_agents_version_is_recorded_within_bounds() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let post = async |agent_version: String| {
        agent.agents().post_status(wire::PostStatusRequest { current_bundle_serial: 7, agent_version }).await
    };
    let longest = "v".repeat(255);
    post(longest.clone()).await.unwrap();
    let message = expect_refusal(post("v".repeat(256)).await, Code::InvalidArgument, Reason::BadRequest);
    assert!(message.contains("255"), "{message}");
    assert_eq!(get(&server, &agent.id).await.agent_version, longest);
    post(String::new()).await.unwrap();
    assert_eq!(get(&server, &agent.id).await.agent_version, longest, "an empty version changes nothing");
    post("1.2.3".into()).await.unwrap();
    assert_eq!(get(&server, &agent.id).await.agent_version, "1.2.3");
}

#[tokio::test]
async fn a_restart_forgets_neither_agents_nor_tokens() {
    let mut server =
        TestServer::start_with(|config| config.store.kind = spindle_server::StoreKind::Sled).await;
    let agent = server.attest().await;
    let (key, renewed) = agent.renew().await;
    let token = server.join_token().await;
    server.restart().await;
    attest(server.dial(None).await, token.as_bytes(), &csr()).await.unwrap();
    server.reconnect(agent).await.knock().await.unwrap();
    server.connect(key, &renewed).await.knock().await.unwrap();
}
