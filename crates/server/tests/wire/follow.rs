//! The push stream: snapshots, deltas, who is told, and how a stream ends.

use spindle_proto::convert::bundle_from_proto;
use spindle_proto::refusal::permission_denied_details_of;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::permission_denied_details::Reason as Standing;
use spindle_proto::sync::v1 as wire;
use spindle_spiffe_core::Reason;
use tonic::{Code, Status};

use crate::following::Following;
use crate::support::{TestServer, entry, expect_refusal, id, in_time};

async fn update(server: &TestServer, entry: types::Entry) {
    let request = entry_api::BatchUpdateEntryRequest { entries: vec![entry], ..Default::default() };
    let results = server.entries().await.batch_update_entry(request).await.unwrap().into_inner().results;
    assert_eq!(results[0].status.as_ref().unwrap().code, 0, "{results:?}");
}

fn named(name: &str, entry: types::Entry) -> types::Entry {
    types::Entry { id: name.into(), ..entry }
}

#[track_caller]
fn check_standing(status: Status, standing: Standing, reason: Reason) {
    assert_eq!(permission_denied_details_of(&status), Some(standing), "{status:?}");
    expect_refusal::<()>(Err(status), Code::PermissionDenied, reason);
}

#[tokio::test]
async fn an_agent_that_holds_nothing_gets_a_snapshot_with_the_bundle() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let mut empty = Following::open(&agent).await;
    let update = empty.next().await;
    assert!(update.snapshot && update.entries.is_empty() && update.removed.is_empty());
    assert_eq!(update.revision.history.len(), 16);
    assert_eq!(bundle_from_proto(&update.bundle.unwrap()).unwrap(), server.bundle().await);
    let created =
        server.create(vec![entry(&agent.id, "/web", &["a:1"]), entry(&id("/web"), "/db", &["a:1"])]).await;
    let update = Following::open(&agent).await.next().await;
    assert!(update.snapshot);
    assert_eq!(update.entries, created, "whole entries, oldest first");
}

#[tokio::test]
async fn each_change_comes_as_it_happens() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let mut stream = Following::open(&agent).await;
    let mut revision = stream.next().await.revision;
    let created = server.create(vec![named("one", entry(&agent.id, "/web", &["a:1"]))]).await;
    let news = stream.next().await;
    assert!(!news.snapshot && news.bundle.is_none() && news.removed.is_empty());
    assert_eq!(news.entries, created);
    assert!(news.revision.number > revision.number && news.revision.history == revision.history);
    revision = news.revision;
    update(&server, named("one", types::Entry { hint: "new".into(), ..entry(&agent.id, "/web", &["a:1"]) }))
        .await;
    let news = stream.next().await;
    assert_eq!((news.entries[0].hint.as_str(), news.entries[0].revision_number), ("new", 1));
    assert!(news.revision.number > revision.number);
    server.delete("one").await;
    let news = stream.next().await;
    assert_eq!((news.entries.len(), news.removed), (0, vec!["one".to_owned()]));
}

#[tokio::test]
async fn an_update_that_changes_nothing_but_the_count_is_sent_too() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let one = named("one", entry(&agent.id, "/web", &["a:1"]));
    server.create(vec![one.clone()]).await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    update(&server, one).await;
    assert_eq!(stream.next().await.entries[0].revision_number, 1);
}

#[tokio::test]
async fn only_the_agents_concerned_are_told() {
    let server = TestServer::start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    let mut stream = Following::open(&agent).await;
    let mut other_stream = Following::open(&other).await;
    stream.next().await;
    other_stream.next().await;
    server.create(vec![named("theirs", entry(&other.id, "/theirs", &["a:1"]))]).await;
    server.attest().await;
    server.join_token().await;
    server.delete("theirs").await;
    server.create(vec![named("mine", entry(&agent.id, "/mine", &["a:1"]))]).await;
    // The first thing each hears is its own.
    assert_eq!(stream.next().await.paths(), ["/mine"]);
    assert_eq!(other_stream.next().await.paths(), ["/theirs"]);
    assert_eq!(other_stream.next().await.removed, ["theirs"]);
}

#[tokio::test]
async fn an_entry_that_moves_leaves_one_agent_and_reaches_the_other() {
    let server = TestServer::start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    server.create(vec![named("one", entry(&agent.id, "/web", &["a:1"]))]).await;
    let (mut stream, mut other_stream) = (Following::open(&agent).await, Following::open(&other).await);
    stream.next().await;
    other_stream.next().await;
    update(&server, named("one", entry(&other.id, "/web", &["a:1"]))).await;
    assert_eq!(stream.next().await.removed, ["one"]);
    assert_eq!(other_stream.next().await.paths(), ["/web"]);
}

#[tokio::test]
async fn a_parent_brings_its_children_and_takes_them_along() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    server
        .create(vec![
            named("child", entry(&id("/parent"), "/child", &["a:1"])),
            named("grandchild", entry(&id("/child"), "/grandchild", &["a:1"])),
        ])
        .await;
    let mut stream = Following::open(&agent).await;
    assert!(stream.next().await.entries.is_empty());
    server.create(vec![named("parent", entry(&agent.id, "/parent", &["a:1"]))]).await;
    assert_eq!(stream.next().await.paths(), ["/child", "/grandchild", "/parent"]);
    // Renaming the parent leaves the children without one.
    update(&server, named("parent", entry(&agent.id, "/other", &["a:1"]))).await;
    let news = stream.next().await;
    assert_eq!((news.paths(), news.removed.join(" ")), (vec!["/other"], "child grandchild".to_owned()));
    update(&server, named("parent", entry(&agent.id, "/parent", &["a:1"]))).await;
    assert_eq!(stream.next().await.paths(), ["/child", "/grandchild", "/parent"]);
    server.delete("parent").await;
    let mut removed = stream.next().await.removed;
    removed.sort();
    assert_eq!(removed, ["child", "grandchild", "parent"]);
}

#[tokio::test]
async fn a_large_snapshot_comes_in_pages_of_one_revision() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let wanted = (0..1001).map(|n| entry(&agent.id, &format!("/w{n}"), &["a:1"])).collect();
    let created = server.create(wanted).await;
    let update = Following::open(&agent).await.next().await;
    assert_eq!(update.pages, [500, 500, 1]);
    assert_eq!(update.entries, created);
    assert!(update.bundle.is_some());
}

#[tokio::test]
async fn an_agent_that_comes_back_gets_only_what_it_missed() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let stay = named("stay", entry(&agent.id, "/stay", &["a:1"]));
    server.create(vec![stay, named("go", entry(&agent.id, "/go", &["a:1"]))]).await;
    let held = Following::open(&agent).await.next().await.revision;
    let nothing = Following::resume(&agent, held.clone()).await.next().await;
    assert!(!nothing.snapshot && nothing.entries.is_empty() && nothing.removed.is_empty());
    assert_eq!(nothing.revision, held);
    server.delete("go").await;
    server.create(vec![named("come", entry(&agent.id, "/come", &["a:1"]))]).await;
    // Came and went while the agent was away.
    server.create(vec![named("brief", entry(&agent.id, "/brief", &["a:1"]))]).await;
    server.delete("brief").await;
    let mut stream = Following::resume(&agent, held).await;
    let missed = stream.next().await;
    assert!(!missed.snapshot);
    assert_eq!(missed.paths(), ["/come"]);
    assert!(missed.removed.contains(&"go".to_owned()) && !missed.removed.contains(&"stay".to_owned()));
    assert!(missed.bundle.is_some(), "the bundle may have changed meanwhile");
    server.delete("come").await;
    assert_eq!(stream.next().await.removed, ["come"], "the stream goes on from the delta");
}

#[tokio::test]
async fn an_agent_that_comes_back_hears_nothing_of_others() {
    let server = TestServer::start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    server.create(vec![named("old", entry(&other.id, "/old", &["a:1"]))]).await;
    let held = Following::open(&agent).await.next().await.revision;
    server.create(vec![named("theirs", entry(&other.id, "/theirs", &["a:1"]))]).await;
    update(&server, named("theirs", entry(&other.id, "/renamed", &["a:1"]))).await;
    server.delete("old").await;
    let missed = Following::resume(&agent, held).await.next().await;
    assert!(!missed.snapshot && missed.entries.is_empty());
    assert!(missed.removed.is_empty(), "entries of another agent: {:?}", missed.removed);
}

#[tokio::test]
async fn an_agent_that_comes_back_hears_of_a_branch_that_went_leaf_by_leaf() {
    let server = TestServer::start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    server
        .create(vec![
            named("parent", entry(&agent.id, "/parent", &["a:1"])),
            named("child", entry(&id("/parent"), "/child", &["a:1"])),
            named("grandchild", entry(&id("/child"), "/grandchild", &["a:1"])),
            named("moves", entry(&id("/child"), "/moves", &["a:1"])),
            named("theirs", entry(&other.id, "/theirs", &["a:1"])),
        ])
        .await;
    let held = Following::open(&agent).await.next().await.revision;
    // From the leaves up, so that no change moves others along.
    update(&server, named("moves", entry(&other.id, "/moves", &["a:1"]))).await;
    for name in ["grandchild", "child", "parent", "theirs"] {
        server.delete(name).await;
    }
    let missed = Following::resume(&agent, held).await.next().await;
    assert!(!missed.snapshot && missed.entries.is_empty());
    let mut removed = missed.removed;
    removed.sort();
    assert_eq!(removed, ["child", "grandchild", "moves", "parent"]);
}

#[tokio::test]
async fn whatever_else_an_agent_holds_is_replaced_by_a_snapshot() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    let held = Following::open(&agent).await.next().await.revision;
    let with = |change: fn(&mut wire::Revision)| {
        let mut held = held.clone();
        change(&mut held);
        wire::Hello { held: Some(held), holds_state: true }
    };
    let cases = [
        ("another history", with(|held| held.history = vec![9; 16].into())),
        ("no history", with(|held| held.history.clear())),
        ("a number ahead", with(|held| held.number += 1)),
        ("a number far ahead", with(|held| held.number = u64::MAX)),
        ("a number before the memory", with(|held| held.number = 0)),
        ("no revision", wire::Hello { held: None, holds_state: true }),
        ("a revision without state", wire::Hello { held: Some(held.clone()), holds_state: false }),
    ];
    for (what, hello) in cases {
        let update = Following::open_with(&agent, hello).await.unwrap().next().await;
        assert!(update.snapshot, "{what}");
        assert_eq!(update.paths(), ["/web"], "{what}");
        assert_eq!(update.revision, held, "{what}");
    }
}

#[tokio::test]
async fn a_change_of_many_memberships_is_told_by_a_snapshot() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    server.create(vec![entry(&id("/parent"), "/child", &["a:1"])]).await;
    let held = Following::open(&agent).await.next().await.revision;
    server.create(vec![entry(&agent.id, "/parent", &["a:1"])]).await;
    let update = Following::resume(&agent, held).await.next().await;
    assert_eq!((update.snapshot, update.paths()), (true, vec!["/child", "/parent"]));
}

#[tokio::test]
async fn after_a_restart_the_same_revision_is_still_known() {
    let mut server =
        TestServer::start_with(|config| config.store.kind = spindle_server::StoreKind::Sled).await;
    let agent = server.attest().await;
    server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    let mut stream = Following::open(&agent).await;
    let held = stream.next().await.revision;
    server.restart().await;
    stream.end().await;
    let agent = server.reconnect(agent).await;
    let update = Following::resume(&agent, held.clone()).await.next().await;
    assert!(!update.snapshot && update.entries.is_empty());
    assert_eq!(update.revision, held);
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_a_hello_is_refused() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let acknowledge = wire::follow_request::Message::Acknowledge(wire::Acknowledge { revision: None });
    for message in [None, Some(acknowledge)] {
        let answer = Following::open_saying(&agent, message).await.map(|_| ());
        expect_refusal(answer, Code::InvalidArgument, Reason::BadRequest);
    }
}

#[tokio::test]
async fn nonsense_after_the_hello_is_passed_over() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    stream.acknowledge(&wire::Revision { history: vec![1, 2, 3].into(), number: u64::MAX }).await;
    stream.acknowledge(&wire::Revision::default()).await;
    server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    assert_eq!(stream.next().await.paths(), ["/web"]);
}

#[tokio::test]
async fn a_ban_ends_the_stream() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    server.ban(&agent.id).await;
    check_standing(stream.end().await, Standing::AgentBanned, Reason::AgentBanned);
    let again = Following::open_with(&agent, wire::Hello::default()).await.map(|_| ());
    check_standing(again.expect_err("banned"), Standing::AgentBanned, Reason::AgentBanned);
}

#[tokio::test]
async fn a_ban_ends_the_stream_of_a_reader_that_does_not_read() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    // Some 12 MB, of which the connection and the server's queue take up only a part.
    let selectors: Vec<String> = (0..100).map(|n| format!("a:{n:04000}")).collect();
    let selectors: Vec<&str> = selectors.iter().map(String::as_str).collect();
    for n in 0..30 {
        server.create_one(entry(&agent.id, &format!("/w{n}"), &selectors)).await;
    }
    let mut stream = Following::open(&agent).await;
    server.ban(&agent.id).await;
    check_standing(stream.end().await, Standing::AgentBanned, Reason::AgentBanned);
}

#[tokio::test]
async fn an_eviction_ends_the_stream() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    server.evict(&agent.id).await;
    check_standing(stream.end().await, Standing::AgentNotAttested, Reason::AgentNotAttested);
}

#[tokio::test]
async fn the_first_use_of_a_renewed_svid_ends_the_stream_of_the_old_one() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    let (key, renewed) = agent.renew().await;
    // Renewing alone ends nothing.
    server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    assert_eq!(stream.next().await.paths(), ["/web"]);
    let new = server.connect(key, &renewed).await;
    let mut new_stream = Following::open(&new).await;
    assert_eq!(new_stream.next().await.paths(), ["/web"]);
    check_standing(stream.end().await, Standing::AgentNotActive, Reason::AgentNotActive);
    server.create_one(entry(&agent.id, "/db", &["a:1"])).await;
    assert_eq!(new_stream.next().await.paths(), ["/db"]);
}

#[tokio::test]
async fn an_svid_that_has_ended_gets_no_more_messages() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    server.clock.set(agent.svid.expires_at() + 1);
    server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    check_standing(stream.end().await, Standing::AgentExpired, Reason::AgentExpired);
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let mut server = TestServer::start().await;
    let agent = server.attest().await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    server.begin_stop();
    expect_refusal::<()>(Err(stream.end().await), Code::Unavailable, Reason::ServerStopping);
    in_time(server.stop()).await;
}

#[tokio::test]
async fn two_streams_of_one_agent_hear_the_same() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let (mut one, mut two) = (Following::open(&agent).await, Following::open(&agent).await);
    one.next().await;
    two.next().await;
    server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    assert_eq!(one.next().await.paths(), ["/web"]);
    drop(one);
    server.create_one(entry(&agent.id, "/db", &["a:1"])).await;
    assert_eq!(two.next().await.paths(), ["/web"]);
    assert_eq!(two.next().await.paths(), ["/db"]);
}

#[tokio::test]
async fn a_reader_that_pauses_still_ends_up_with_everything() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let mut stream = Following::open(&agent).await;
    for n in 0..200 {
        server.create_one(named(&format!("e{n}"), entry(&agent.id, &format!("/w{n}"), &["a:1"]))).await;
        if n % 2 == 0 {
            server.delete(&format!("e{n}")).await;
        }
    }
    let mut held = std::collections::BTreeSet::new();
    let mut last = 0;
    while !held.contains("e199") {
        let update = stream.next().await;
        assert!(update.revision.number > last, "revisions never fall");
        last = update.revision.number;
        held.retain(|id| !update.removed.contains(id));
        held.extend(update.entries.into_iter().map(|entry| entry.id));
    }
    let expected = (0..200).filter(|n| n % 2 == 1).map(|n| format!("e{n}")).collect();
    assert_eq!(held, expected);
}

#[tokio::test]
async fn bundles_of_other_trust_domains_come_with_the_entries_that_need_them() {
    let server = TestServer::start_with_other_example().await;
    let agent = server.attest().await;
    let mut stream = Following::open(&agent).await;
    assert!(stream.next().await.federated.is_empty());
    let federated = types::Entry {
        federates_with: vec!["other.example".into()],
        ..named("one", entry(&agent.id, "/web", &["a:1"]))
    };
    server.create(vec![federated.clone()]).await;
    let news = stream.next().await;
    let names: Vec<&str> = news.federated.iter().map(|bundle| bundle.trust_domain.as_str()).collect();
    assert_eq!((names, news.federated[0].sequence_number), (vec!["other.example"], 7));
    server.create(vec![types::Entry { id: "two".into(), ..entry(&agent.id, "/db", &["a:1"]) }]).await;
    assert!(stream.next().await.federated.is_empty(), "sent once");
    let snapshot = Following::open(&agent).await.next().await;
    assert_eq!(snapshot.federated.len(), 1);
    server.delete("one").await;
    let news = stream.next().await;
    assert_eq!((news.removed, news.unfederated), (vec!["one".to_owned()], vec!["other.example".to_owned()]));
}

#[tokio::test]
async fn a_bundle_that_no_entry_needs_any_more_is_taken_back() {
    let server = TestServer::start_with_other_example().await;
    let agent = server.attest().await;
    let plain = named("one", entry(&agent.id, "/web", &["a:1"]));
    let federated = types::Entry { federates_with: vec!["other.example".into()], ..plain.clone() };
    server.create(vec![federated.clone()]).await;
    let mut stream = Following::open(&agent).await;
    assert_eq!(stream.next().await.federated.len(), 1);
    update(&server, plain).await;
    assert_eq!(stream.next().await.unfederated, ["other.example"]);
    update(&server, federated).await;
    assert_eq!(stream.next().await.federated.len(), 1);
}
