//! What an agent is authorised for, and SPIRE's two ways to fetch it: all at once, or revisions first.

use std::collections::BTreeSet;

use spindle_proto::spire::api::server::entry::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::Reason;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::{TestAgent, TestServer, entry, expect_refusal, id, in_time, wire_id};

/// An open sync stream.
struct Sync {
    requests: mpsc::Sender<wire::SyncAuthorizedEntriesRequest>,
    answers: Streaming<wire::SyncAuthorizedEntriesResponse>,
}

impl Sync {
    async fn open(agent: &TestAgent, first: wire::SyncAuthorizedEntriesRequest) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(8);
        requests.send(first).await.unwrap();
        let call = agent.entries().sync_authorized_entries(ReceiverStream::new(outgoing)).await;
        Ok(Self { requests, answers: call?.into_inner() })
    }

    async fn next(&mut self) -> Option<wire::SyncAuthorizedEntriesResponse> {
        in_time(self.answers.message()).await.unwrap()
    }

    async fn ask(&mut self, ids: Vec<String>) {
        self.requests.send(wire::SyncAuthorizedEntriesRequest { ids, output_mask: None }).await.unwrap();
    }
}

async fn authorized(agent: &TestAgent) -> Vec<types::Entry> {
    let request = wire::GetAuthorizedEntriesRequest::default();
    in_time(agent.entries().get_authorized_entries(request)).await.unwrap().into_inner().entries
}

/// Paths of the SPIFFE IDs, sorted.
fn paths(entries: &[types::Entry]) -> Vec<String> {
    let paths: BTreeSet<String> =
        entries.iter().map(|entry| entry.spiffe_id.as_ref().unwrap().path.clone()).collect();
    assert_eq!(paths.len(), entries.len());
    paths.into_iter().collect()
}

/// As many entries below the agent, as they stand.
async fn stock(server: &TestServer, agent: &TestAgent, count: usize) -> Vec<types::Entry> {
    let wanted = (0..count).map(|n| entry(&agent.id, &format!("/w{n}"), &["a:b"])).collect();
    server.create(wanted).await
}

#[tokio::test]
async fn an_agent_has_what_is_below_it_however_deep_and_nothing_else() {
    let server = TestServer::start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    server
        .create(vec![
            entry(&id("/a/b"), "/a/b/c", &["s:1"]),
            entry(&id("/a"), "/a/b", &["s:1"]),
            entry(&agent.id, "/a", &["s:1"]),
            entry(&other.id, "/theirs", &["s:1"]),
            entry(&id("/theirs"), "/theirs/child", &["s:1"]),
            entry(&id("/nobody"), "/orphan", &["s:1"]),
            entry(&id("/spire/server"), "/alias", &["spiffe_id:x"]),
            entry(&id("/alias"), "/under-alias", &["s:1"]),
        ])
        .await;
    assert_eq!(paths(&authorized(&agent).await), ["/a", "/a/b", "/a/b/c"]);
    assert_eq!(paths(&authorized(&other).await), ["/theirs", "/theirs/child"]);
}

#[tokio::test]
async fn parents_in_a_circle_end_the_search() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    server
        .create(vec![
            entry(&agent.id, "/a", &["s:1"]),
            entry(&id("/a"), "/b", &["s:1"]),
            entry(&id("/b"), "/a", &["s:2"]),
            entry(&id("/self"), "/self", &["s:1"]),
        ])
        .await;
    assert_eq!(authorized(&agent).await.len(), 3);
}

#[tokio::test]
async fn a_mask_keeps_the_id_and_what_it_names() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let created = stock(&server, &agent, 1).await;
    let mask = types::EntryMask { spiffe_id: true, ..Default::default() };
    let request = wire::GetAuthorizedEntriesRequest { output_mask: Some(mask) };
    let got = agent.entries().get_authorized_entries(request).await.unwrap().into_inner().entries;
    let id = created[0].id.clone();
    assert_eq!(got, [types::Entry { id, spiffe_id: Some(wire_id("/w0")), ..Default::default() }]);
}

#[tokio::test]
async fn a_first_request_that_asks_for_ids_or_masks_the_revision_is_refused() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let asks = wire::SyncAuthorizedEntriesRequest { ids: vec!["x".into()], output_mask: None };
    let masks = wire::SyncAuthorizedEntriesRequest {
        output_mask: Some(types::EntryMask { spiffe_id: true, ..Default::default() }),
        ids: Vec::new(),
    };
    for (request, says) in [(asks, "initial request"), (masks, "revision number")] {
        let answer = Sync::open(&agent, request).await.map(|_| ());
        let message = expect_refusal(answer, Code::InvalidArgument, Reason::BadRequest);
        assert!(message.contains(says), "{message}");
    }
    let nothing = tokio_stream::iter(Vec::<wire::SyncAuthorizedEntriesRequest>::new());
    let answer = in_time(agent.entries().sync_authorized_entries(nothing)).await;
    expect_refusal(answer, Code::InvalidArgument, Reason::BadRequest);
}

#[tokio::test]
async fn a_set_of_five_hundred_comes_at_once_and_ends_the_stream() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    for count in [0, 500] {
        let created = stock(&server, &agent, count).await;
        let mut sync = Sync::open(&agent, Default::default()).await.unwrap();
        let only = sync.next().await.unwrap();
        assert_eq!(paths(&only.entries), paths(&created));
        assert!(!only.more && only.entry_revisions.is_empty());
        assert_eq!(sync.next().await, None);
    }
}

#[tokio::test]
async fn a_larger_set_comes_as_revisions_and_then_as_asked() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let created = stock(&server, &agent, 1001).await;
    let mask = types::EntryMask { revision_number: true, spiffe_id: true, ..Default::default() };
    let first = wire::SyncAuthorizedEntriesRequest { output_mask: Some(mask), ids: Vec::new() };
    let mut sync = Sync::open(&agent, first).await.unwrap();
    let mut revisions = Vec::new();
    for (count, more) in [(500, true), (500, true), (1, false)] {
        let page = sync.next().await.unwrap();
        assert_eq!((page.entry_revisions.len(), page.more, page.entries.len()), (count, more, 0));
        revisions.extend(page.entry_revisions);
    }
    let known: BTreeSet<&str> = revisions.iter().map(|revision| revision.id.as_str()).collect();
    assert_eq!(known, created.iter().map(|entry| entry.id.as_str()).collect());
    assert!(revisions.iter().all(|r| (r.revision_number, r.created_at) == (0, created[0].created_at)));
    // Two at a time, among them one that is not the agent's; the first request's mask rules.
    sync.ask(vec![created[7].id.clone(), "unknown".into(), "a/b".into(), created[3].id.clone()]).await;
    let page = sync.next().await.unwrap();
    assert_eq!(paths(&page.entries), ["/w3", "/w7"]);
    assert!(!page.more && page.entry_revisions.is_empty() && page.entries[0].selectors.is_empty());
    // Nothing known is an empty page, not silence.
    sync.ask(vec!["unknown".into()]).await;
    assert_eq!(sync.next().await, Some(wire::SyncAuthorizedEntriesResponse::default()));
    // More than a page.
    sync.ask(created.iter().map(|entry| entry.id.clone()).collect()).await;
    let sizes = [sync.next().await.unwrap(), sync.next().await.unwrap(), sync.next().await.unwrap()]
        .map(|page| (page.entries.len(), page.more));
    assert_eq!(sizes, [(500, true), (500, true), (1, false)]);
    drop(sync.requests);
    assert_eq!(in_time(sync.answers.message()).await.unwrap(), None, "the stream ends with the agent's side");
}

#[tokio::test]
async fn the_set_stays_as_it_was_when_the_stream_began() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let created = stock(&server, &agent, 501).await;
    let mut sync = Sync::open(&agent, Default::default()).await.unwrap();
    while sync.next().await.unwrap().more {}
    server.delete(&created[0].id).await;
    let late = server.create_one(entry(&agent.id, "/late", &["a:b"])).await;
    sync.ask(vec![created[0].id.clone(), late]).await;
    assert_eq!(paths(&sync.next().await.unwrap().entries), ["/w0"]);
}

#[tokio::test]
async fn another_agents_entries_cannot_be_asked_for() {
    let server = TestServer::start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    stock(&server, &agent, 501).await;
    let theirs = server.create_one(entry(&other.id, "/theirs", &["a:b"])).await;
    let mut sync = Sync::open(&agent, Default::default()).await.unwrap();
    while sync.next().await.unwrap().more {}
    sync.ask(vec![theirs]).await;
    assert_eq!(sync.next().await, Some(wire::SyncAuthorizedEntriesResponse::default()));
}

#[tokio::test]
async fn an_id_asked_for_many_times_is_answered_once() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let created = stock(&server, &agent, 501).await;
    let mut sync = Sync::open(&agent, Default::default()).await.unwrap();
    while sync.next().await.unwrap().more {}
    sync.ask(vec![created[0].id.clone(); 100_000]).await;
    let page = sync.next().await.unwrap();
    assert_eq!((paths(&page.entries), page.more), (vec!["/w0".to_owned()], false));
}

#[tokio::test]
async fn a_set_of_large_entries_comes_in_pages_that_agents_can_take() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let selectors: Vec<String> = (0..200).map(|n| format!("a:{n:04000}")).collect();
    let selectors: Vec<&str> = selectors.iter().map(String::as_str).collect();
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(server.create_one(entry(&agent.id, &format!("/w{n}"), &selectors)).await);
    }
    // About 4.8 MB in all: more than a stock client takes in one message.
    let mut sync = Sync::open(&agent, Default::default()).await.unwrap();
    let first = sync.next().await.unwrap();
    assert_eq!((first.entry_revisions.len(), first.entries.len(), first.more), (6, 0, false));
    sync.ask(ids).await;
    let sizes =
        [sync.next().await.unwrap(), sync.next().await.unwrap()].map(|page| (page.entries.len(), page.more));
    assert_eq!(sizes, [(3, true), (3, false)]);
}

#[tokio::test]
async fn a_ban_is_noticed_before_the_next_page() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let created = stock(&server, &agent, 501).await;
    let mut sync = Sync::open(&agent, Default::default()).await.unwrap();
    while sync.next().await.unwrap().more {}
    server.ban(&agent.id).await;
    sync.ask(vec![created[0].id.clone()]).await;
    let status = in_time(sync.answers.message()).await.expect_err("banned");
    assert_eq!(
        spindle_proto::refusal::permission_denied_details_of(&status),
        Some(types::permission_denied_details::Reason::AgentBanned)
    );
}
