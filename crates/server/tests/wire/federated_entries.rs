//! Entries that federate, and the bundles they need: how both come and go together, on open streams, at once and by the
//! thousands; and administrators from other trust domains.

use std::collections::BTreeSet;

use prost::Message;
use spindle_proto::records::v1 as records;
use spindle_proto::refusal::item_ok;
use spindle_proto::spire::api::server::bundle::v1 as bundle_api;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::types;
use spindle_server::StoreKind;
use spindle_spiffe_core::{Bundle, Reason, SpiffeId};
use spindle_store::{Kind, RecordKey, Transaction};
use spindle_testkit::{NOW, TestAuthority};
use tonic::Code;
use tonic::transport::Channel;

use crate::following::Following;
use crate::support::{TestServer, code_of, entry, id, in_time};
use bundle_api::batch_delete_federated_bundle_request::Mode;

const OTHER: &str = "other.example";

/// The store's kinds of records that a server of an interrupted removal leaves behind.
const BUNDLE: Kind = Kind(5);
const UNLINKING: Kind = Kind(12);

fn federated(name: &str, parent: &SpiffeId, names: &[&str]) -> types::Entry {
    let federates_with = names.iter().map(|name| (*name).to_owned()).collect();
    types::Entry { id: name.into(), federates_with, ..entry(parent, &format!("/{name}"), &["a:1"]) }
}

/// A new bundle of that trust domain.
fn bundle(name: &str, sequence: u64) -> Bundle {
    Bundle { sequence, ..TestAuthority::new(name, NOW).bundle() }
}

async fn create(server: &TestServer, entry: types::Entry) -> types::Status {
    let request = entry_api::BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
    let answer = in_time(server.entries().await.batch_create_entry(request)).await;
    answer.unwrap().into_inner().results.remove(0).status.unwrap()
}

async fn update(server: &TestServer, entry: types::Entry) -> types::Status {
    let request = entry_api::BatchUpdateEntryRequest { entries: vec![entry], ..Default::default() };
    let answer = in_time(server.entries().await.batch_update_entry(request)).await;
    answer.unwrap().into_inner().results.remove(0).status.unwrap()
}

/// Every entry, by its ID: the trust domains it federates with and its revision number.
async fn entries(server: &TestServer) -> Vec<(String, Vec<String>, i64)> {
    let mut client = server.entries().await.max_decoding_message_size(64 * 1024 * 1024);
    let all =
        client.list_entries(entry_api::ListEntriesRequest::default()).await.unwrap().into_inner().entries;
    let mut all: Vec<_> =
        all.into_iter().map(|entry| (entry.id, entry.federates_with, entry.revision_number)).collect();
    all.sort();
    all
}

/// IDs of the entries that federate with any of the trust domains.
async fn federating(server: &TestServer, names: &[&str]) -> BTreeSet<String> {
    let filter = entry_api::list_entries_request::Filter {
        by_federates_with: Some(types::FederatesWithMatch {
            trust_domains: names.iter().map(|name| (*name).to_owned()).collect(),
            r#match: types::federates_with_match::MatchBehavior::MatchAny.into(),
        }),
        ..Default::default()
    };
    let request = entry_api::ListEntriesRequest { filter: Some(filter), ..Default::default() };
    let mut client = server.entries().await.max_decoding_message_size(64 * 1024 * 1024);
    let found = client.list_entries(request).await.unwrap().into_inner().entries;
    let count = found.len();
    let ids: BTreeSet<String> = found.into_iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), count, "each once");
    ids
}

fn names(bundles: &[types::Bundle]) -> Vec<&str> {
    bundles.iter().map(|bundle| bundle.trust_domain.as_str()).collect()
}

/// A server with two foreign bundles and an agent with entries that federate with one, both and none.
async fn stocked() -> (TestServer, crate::support::TestAgent) {
    let server = TestServer::start().await;
    for name in [OTHER, "third.example"] {
        server.set_bundle(&bundle(name, 1)).await;
    }
    let agent = server.attest().await;
    server
        .create(vec![
            federated("both", &agent.id, &[OTHER, "third.example"]),
            federated("none", &agent.id, &[]),
            federated("one", &agent.id, &[OTHER]),
            federated("third", &agent.id, &["third.example"]),
        ])
        .await;
    (server, agent)
}

#[tokio::test]
async fn a_bundle_stays_while_entries_federate_with_its_trust_domain() {
    let (server, _) = stocked().await;
    let status = server.delete_bundle(OTHER, Mode::Restrict).await;
    assert_eq!(Code::from(status.code), Code::FailedPrecondition, "{status:?}");
    assert_eq!(status.reason, Reason::BundleInUse.code());
    assert!(status.message.ends_with("federated with 2 registration entries"), "{status:?}");
    server.delete("both").await;
    let (id, none) = ("one".to_owned(), Vec::new());
    update(&server, types::Entry { federates_with: none, ..federated(&id, &self::id("/node"), &[]) }).await;
    assert_eq!(server.delete_bundle(OTHER, Mode::Restrict).await, item_ok());
}

#[tokio::test]
async fn dissociating_keeps_the_entries_and_takes_the_name_out_of_them() {
    let (server, agent) = stocked().await;
    let mut stream = Following::open(&agent).await;
    assert_eq!(names(&stream.next().await.federated), [OTHER, "third.example"]);
    assert_eq!(server.delete_bundle(OTHER, Mode::Dissociate).await, item_ok());
    let rest = |id: &str, names: &[&str], revision| {
        (id.to_owned(), names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), revision)
    };
    let third = ["third.example"];
    let expected =
        [rest("both", &third, 1), rest("none", &[], 0), rest("one", &[], 1), rest("third", &third, 0)];
    assert_eq!(entries(&server).await, expected);
    let news = stream.next().await;
    assert_eq!(news.unfederated, [OTHER]);
    let changed: Vec<&str> = news.entries.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!((changed, news.removed.len()), (vec!["both", "one"], 0), "one revision holds all of it");
}

#[tokio::test]
async fn deleting_takes_the_entries_along_at_once() {
    let (server, agent) = stocked().await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    assert_eq!(server.delete_bundle(OTHER, Mode::Delete).await, item_ok());
    let left: Vec<String> = entries(&server).await.into_iter().map(|(id, _, _)| id).collect();
    assert_eq!(left, ["none", "third"]);
    let news = stream.next().await;
    assert_eq!(
        (news.unfederated, news.removed),
        (vec![OTHER.to_owned()], vec!["both".to_owned(), "one".into()])
    );
    assert!(news.entries.is_empty());
    // What they held is free again.
    server.set_bundle(&bundle(OTHER, 2)).await;
    assert_eq!(create(&server, federated("one", &agent.id, &[OTHER])).await, item_ok());
    assert_eq!(names(&stream.next().await.federated), [OTHER]);
}

#[tokio::test]
async fn similar_entries_that_go_together_leave_their_likeness_free_or_to_one_that_stays() {
    let server = TestServer::start().await;
    server.set_bundle(&bundle(OTHER, 1)).await;
    let like = |name: &str, names: &[&str]| types::Entry {
        id: name.into(),
        ..federated("web", &id("/node"), names)
    };
    let apart = |name: &str, names: &[&str]| types::Entry {
        selectors: vec![crate::support::selector(&format!("a:{name}"))],
        ..like(name, names)
    };
    // Updates may make entries similar, as in SPIRE.
    server.create(vec![apart("a", &[OTHER]), apart("b", &[OTHER]), apart("c", &[])]).await;
    for (name, names) in [("a", &[OTHER][..]), ("b", &[OTHER]), ("c", &[])] {
        assert_eq!(update(&server, like(name, names)).await, item_ok());
    }
    assert_eq!(server.delete_bundle(OTHER, Mode::Delete).await, item_ok());
    assert_eq!(entries(&server).await.len(), 1);
    let status = create(&server, like("d", &[])).await;
    assert_eq!(Code::from(status.code), Code::AlreadyExists, "c is still there: {status:?}");
    server.delete("c").await;
    assert_eq!(create(&server, like("d", &[])).await, item_ok());
}

#[tokio::test]
async fn a_change_of_a_bundle_reaches_open_streams_even_under_the_same_number() {
    let (server, agent) = stocked().await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    for _ in 0..2 {
        // A bundle that is set from PEM has no number.
        let new = bundle(OTHER, 0);
        server.set_bundle(&new).await;
        let news = stream.next().await;
        assert_eq!(news.federated, [spindle_proto::convert::bundle_to_proto(&new)]);
        assert!(news.entries.is_empty() && news.unfederated.is_empty() && news.bundle.is_none());
    }
}

#[tokio::test]
async fn an_agent_hears_nothing_of_bundles_that_it_does_not_need() {
    let (server, agent) = stocked().await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    server.set_bundle(&bundle("stranger.example", 1)).await;
    server.delete_bundle("stranger.example", Mode::Restrict).await;
    server.create(vec![federated("later", &agent.id, &[])]).await;
    let news = stream.next().await;
    assert_eq!(news.paths(), ["/later"], "not even an empty message came before");
    assert!(news.federated.is_empty() && news.unfederated.is_empty());
}

#[tokio::test]
async fn an_agent_that_comes_back_forgets_a_bundle_that_went_meanwhile() {
    let (server, agent) = stocked().await;
    let held = Following::open(&agent).await.next().await.revision;
    server.delete_bundle(OTHER, Mode::Dissociate).await;
    let missed = Following::resume(&agent, held.clone()).await.next().await;
    assert!(!missed.snapshot);
    assert_eq!(
        (missed.unfederated, names(&missed.federated)),
        (vec![OTHER.to_owned()], vec!["third.example"])
    );
    // The same when the last entry that needed it went, and the bundle after it.
    server.delete("third").await;
    server.delete("both").await;
    server.delete_bundle("third.example", Mode::Restrict).await;
    let mut gone = Following::resume(&agent, held).await.next().await.unfederated;
    gone.sort();
    assert_eq!(gone, [OTHER, "third.example"]);
    let other = server.attest().await;
    let theirs = Following::open(&other).await.next().await.revision;
    server.set_bundle(&bundle(OTHER, 3)).await;
    server.create(vec![federated("again", &agent.id, &[OTHER])]).await;
    server.delete_bundle(OTHER, Mode::Delete).await;
    let missed = Following::resume(&other, theirs).await.next().await;
    assert!(missed.unfederated.is_empty(), "names of others are not told: {:?}", missed.unfederated);
}

#[tokio::test]
async fn agents_of_spire_read_the_bundle_by_its_name() {
    let (server, agent) = stocked().await;
    let mut client = BundleClient::new(agent.channel.clone());
    let request = bundle_api::GetFederatedBundleRequest { trust_domain: OTHER.into(), output_mask: None };
    let first = client.get_federated_bundle(request.clone()).await.unwrap().into_inner();
    let new = bundle(OTHER, 9);
    server.set_bundle(&new).await;
    let second = client.get_federated_bundle(request.clone()).await.unwrap().into_inner();
    assert_eq!(second, spindle_proto::convert::bundle_to_proto(&new));
    assert_ne!(first, second);
    server.delete_bundle(OTHER, Mode::Dissociate).await;
    let status = client.get_federated_bundle(request).await.expect_err("gone");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_filter_finds_entries_by_trust_domain_as_they_change() {
    let (server, _) = stocked().await;
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    assert_eq!(federating(&server, &[OTHER]).await, set(&["both", "one"]));
    assert_eq!(federating(&server, &[OTHER, "third.example"]).await, set(&["both", "one", "third"]));
    assert_eq!(federating(&server, &["unknown.example"]).await, set(&[]));
    update(&server, federated("none", &id("/node"), &[OTHER])).await;
    update(&server, federated("one", &id("/node"), &[])).await;
    server.delete("both").await;
    assert_eq!(federating(&server, &[OTHER]).await, set(&["none"]));
}

/// No entry federates with a trust domain that has no bundle.
async fn check_references(server: &TestServer) {
    let list = bundle_api::ListFederatedBundlesRequest::default();
    let bundles = server.bundles().await.list_federated_bundles(list).await.unwrap().into_inner().bundles;
    let known: BTreeSet<String> = bundles.into_iter().map(|bundle| bundle.trust_domain).collect();
    for (id, federates_with, _) in entries(server).await {
        assert!(
            federates_with.iter().all(|name| known.contains(name)),
            "{id} federates with {federates_with:?}"
        );
    }
}

#[tokio::test]
async fn of_a_new_reference_and_a_deletion_at_once_one_loses() {
    let server = TestServer::start().await;
    let node = id("/node");
    for round in 0..20 {
        server.set_bundle(&bundle(OTHER, 1)).await;
        let changing = format!("changing{round}");
        server.create(vec![federated(&changing, &node, &[])]).await;
        let new = format!("new{round}");
        let mode = [Mode::Restrict, Mode::Dissociate, Mode::Delete][round % 3];
        let (created, updated, deleted) = tokio::join!(
            create(&server, federated(&new, &node, &[OTHER])),
            update(&server, federated(&changing, &node, &[OTHER])),
            server.delete_bundle(OTHER, mode),
        );
        check_references(&server).await;
        for status in [&created, &updated] {
            let code = Code::from(status.code);
            assert!(code == Code::Ok || status.reason == Reason::BundleNotFound.code(), "{status:?}");
        }
        let referred = created.code == 0 || updated.code == 0;
        match mode {
            Mode::Restrict => assert!(deleted.code == 0 || referred, "{deleted:?} {created:?} {updated:?}"),
            Mode::Dissociate | Mode::Delete => assert_eq!(deleted, item_ok()),
        }
    }
}

/// As many entries below the agent that federate with [`OTHER`].
async fn crowd(server: &TestServer, parent: &SpiffeId, count: usize) {
    let wanted: Vec<_> = (0..count).map(|n| federated(&format!("e{n}"), parent, &[OTHER])).collect();
    for part in wanted.chunks(1000) {
        server.create(part.to_vec()).await;
    }
}

#[tokio::test]
async fn more_entries_than_one_transaction_takes_are_all_unlinked_before_the_answer() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    for mode in [Mode::Dissociate, Mode::Delete] {
        server.set_bundle(&bundle(OTHER, 1)).await;
        crowd(&server, &agent.id, 2500).await;
        assert_eq!(federating(&server, &[OTHER]).await.len(), 2500);
        assert_eq!(server.delete_bundle(OTHER, mode).await, item_ok());
        assert_eq!(federating(&server, &[OTHER]).await.len(), 0);
        let left = entries(&server).await;
        let expected = if mode == Mode::Dissociate { 2500 } else { 0 };
        assert_eq!(left.len(), expected, "{mode:?}");
        let request =
            entry_api::BatchDeleteEntryRequest { ids: left.into_iter().map(|(id, _, _)| id).collect() };
        server.entries().await.batch_delete_entry(request).await.unwrap();
    }
    // Nothing is left that would stand in the way.
    server.set_bundle(&bundle(OTHER, 2)).await;
    crowd(&server, &agent.id, 1).await;
}

#[tokio::test]
async fn whoever_writes_the_trust_domain_while_many_entries_are_unlinked_waits_for_that() {
    let server = TestServer::start().await;
    let node = id("/node");
    server.set_bundle(&bundle(OTHER, 1)).await;
    crowd(&server, &node, 2500).await;
    let new = bundle(OTHER, 2);
    let (first, second, ()) = tokio::join!(
        server.delete_bundle(OTHER, Mode::Dissociate),
        server.delete_bundle(OTHER, Mode::Delete),
        server.set_bundle(&new),
    );
    let codes = [first, second].map(|status| Code::from(status.code));
    assert!(codes.iter().all(|code| [Code::Ok, Code::NotFound].contains(code)), "{codes:?}");
    assert!(codes.contains(&Code::Ok));
    check_references(&server).await;
    server.set_bundle(&bundle(OTHER, 3)).await;
    assert_eq!(federating(&server, &[OTHER]).await.len(), 0);
}

/// Leaves the store as a server does that was killed right after it deleted a bundle with many entries.
async fn interrupted(unlinking: records::Unlinking) -> TestServer {
    let mut server = TestServer::start_with(|config| config.store.kind = StoreKind::Sled).await;
    server.set_bundle(&bundle(OTHER, 1)).await;
    crowd(&server, &id("/node"), 10).await;
    server.stop().await;
    let record = records::UnlinkingRecord { trust_domain: OTHER.into(), unlinking: unlinking.into() };
    let transaction = Transaction::new()
        .delete(RecordKey::new(BUNDLE, OTHER))
        .put(RecordKey::new(UNLINKING, OTHER), record.encode_to_vec());
    server.write_into_store(transaction);
    server
}

#[tokio::test]
async fn a_removal_that_was_interrupted_is_finished_at_the_next_start() {
    for (unlinking, left) in [(records::Unlinking::Dissociate, 10), (records::Unlinking::Delete, 0)] {
        let mut server = interrupted(unlinking).await;
        server.restart_stopped().await;
        check_references(&server).await;
        assert_eq!(entries(&server).await.len(), left, "{unlinking:?}");
        server.set_bundle(&bundle(OTHER, 2)).await;
        assert_eq!(federating(&server, &[OTHER]).await.len(), 0, "a new bundle brings nothing back");
        server.restart().await;
        assert_eq!(entries(&server).await.len(), left, "it is done once");
    }
}

#[tokio::test]
async fn a_damaged_note_of_a_removal_stops_the_start_by_name() {
    let server = interrupted(records::Unlinking::Unspecified).await;
    let error = server.try_boot_on(0).await.expect_err("a damaged record");
    let text = spindle_spiffe_core::ErrorChain(&error).to_string();
    assert!(text.contains("unlinking of other.example") && text.contains("no way to unlink"), "{text}");
}

async fn count_entries(channel: Channel) -> Result<(), tonic::Status> {
    let request = entry_api::CountEntriesRequest::default();
    let mut client = entry_api::entry_client::EntryClient::new(channel);
    in_time(client.count_entries(request)).await.map(|_| ())
}

#[tokio::test]
async fn an_administrator_of_another_trust_domain_may_manage_once_its_bundle_is_set() {
    let operator: SpiffeId = "spiffe://other.example/operator".parse().unwrap();
    let server = TestServer::start_with(|config| config.admin_ids = vec![operator.clone()]).await;
    let authority = TestAuthority::new(OTHER, NOW);
    let (listed, unlisted) = (authority.issue("/operator", NOW), authority.issue("/somebody", NOW));
    server.try_dial(&listed.svid, &listed.key).await.expect_err("nobody vouches for it yet");
    server.set_bundle(&authority.bundle()).await;
    let channel = server.dial(Some((&listed.svid, &listed.key))).await;
    count_entries(channel).await.unwrap();
    let channel = server.dial(Some((&unlisted.svid, &unlisted.key))).await;
    assert_eq!(count_entries(channel).await.expect_err("not listed").code(), Code::PermissionDenied);
    server.delete_bundle(OTHER, Mode::Restrict).await;
    server.try_dial(&listed.svid, &listed.key).await.expect_err("nobody vouches for it any more");
}

#[tokio::test]
async fn an_entry_cannot_federate_with_a_trust_domain_that_has_no_bundle() {
    let server = TestServer::start().await;
    let status = create(&server, federated("one", &id("/node"), &[OTHER])).await;
    assert_eq!((Code::from(status.code), status.reason.as_str()), (Code::Internal, "bundle_not_found"));
    server.create(vec![federated("one", &id("/node"), &[])]).await;
    let status = update(&server, federated("one", &id("/node"), &[OTHER])).await;
    assert_eq!(code_of(&Some(status)), Code::Internal);
    server.set_bundle(&bundle(OTHER, 1)).await;
    assert_eq!(update(&server, federated("one", &id("/node"), &[OTHER])).await, item_ok());
}
