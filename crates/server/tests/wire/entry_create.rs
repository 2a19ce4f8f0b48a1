//! What is taken as a new entry, and what a refused one is told.

use spindle_proto::refusal::item_ok;
use spindle_proto::spire::api::server::entry::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::entry::AdditionalAttributes;
use spindle_spiffe_core::Reason;
use spindle_testkit::NOW;
use tonic::Code;
use wire::batch_create_entry_response::Result as Item;

use crate::support::{
    TestServer, code_of, entry, expect_refusal, foreign_id, id, in_time, selector, wire_id,
};

fn plain() -> types::Entry {
    entry(&id("/node"), "/web", &["unix:uid:1000"])
}

async fn create(server: &TestServer, entries: Vec<types::Entry>) -> Vec<Item> {
    create_masked(server, entries, None).await
}

async fn create_masked(
    server: &TestServer,
    entries: Vec<types::Entry>,
    output_mask: Option<types::EntryMask>,
) -> Vec<Item> {
    let request = wire::BatchCreateEntryRequest { entries, output_mask };
    in_time(server.entries().await.batch_create_entry(request)).await.unwrap().into_inner().results
}

async fn count(server: &TestServer) -> i32 {
    let request = wire::CountEntriesRequest::default();
    server.entries().await.count_entries(request).await.unwrap().into_inner().count
}

#[tokio::test]
async fn an_entry_comes_back_as_it_was_given() {
    let server = TestServer::start().await;
    let given = types::Entry {
        id: "my.entry_1-a".into(),
        selectors: vec![selector("unix:uid:1000"), selector("k8s:ns:production")],
        x509_svid_ttl: 60,
        jwt_svid_ttl: 30,
        federates_with: vec!["example.org".into()],
        admin: true,
        downstream: true,
        expires_at: NOW.unix_secs() + 5,
        dns_names: vec!["web.example.org".into(), "*.example.org".into()],
        hint: "internal".into(),
        additional_attributes: Some(AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: true,
        }),
        // Both are the server's to say.
        revision_number: 99,
        created_at: 12345,
        ..plain()
    };
    let item = create(&server, vec![given.clone()]).await.remove(0);
    assert_eq!(item.status, Some(item_ok()));
    let expected = types::Entry {
        selectors: vec![selector("k8s:ns:production"), selector("unix:uid:1000")],
        revision_number: 0,
        created_at: NOW.unix_secs(),
        ..given
    };
    assert_eq!(item.entry, Some(expected.clone()));
    let request = wire::GetEntryRequest { id: expected.id.clone(), output_mask: None };
    assert_eq!(server.entries().await.get_entry(request).await.unwrap().into_inner(), expected);
}

#[tokio::test]
async fn an_entry_without_an_id_gets_one_and_without_ttl_keeps_none() {
    let server = TestServer::start().await;
    let created = create(&server, vec![plain()]).await.remove(0).entry.unwrap();
    assert_eq!((created.id.len(), created.x509_svid_ttl), (36, 0));
}

#[tokio::test]
async fn an_output_mask_keeps_the_id_and_what_it_names() {
    let server = TestServer::start().await;
    let mask = types::EntryMask { spiffe_id: true, ..Default::default() };
    let created = create_masked(&server, vec![plain()], Some(mask)).await.remove(0).entry.unwrap();
    let expected =
        types::Entry { id: created.id.clone(), spiffe_id: Some(wire_id("/web")), ..Default::default() };
    assert!(!created.id.is_empty());
    assert_eq!(created, expected);
}

/// Entries that break one rule each, the code, and what the message names.
fn bad_entries() -> Vec<(types::Entry, Code, &'static str)> {
    let bad = |change: fn(&mut types::Entry)| {
        let mut entry = plain();
        change(&mut entry);
        entry
    };
    let attributes = AdditionalAttributes { disable_x509_svid_prefetch: true, jwt_svid_include_jti: false };
    let invalid = Code::InvalidArgument;
    vec![
        (bad(|e| e.id = "x".repeat(256)), invalid, "entry ID"),
        (bad(|e| e.id = "a/b".into()), invalid, "entry ID"),
        (bad(|e| e.id = "ä".into()), invalid, "entry ID"),
        (bad(|e| e.parent_id = None), invalid, "parent ID"),
        (bad(|e| e.parent_id = Some(foreign_id("", ""))), invalid, "parent ID"),
        (bad(|e| e.parent_id = Some(foreign_id("other.example", "/node"))), invalid, "other.example"),
        (bad(|e| e.parent_id = Some(wire_id(""))), invalid, "path"),
        (bad(|e| e.parent_id = Some(wire_id("/node/"))), invalid, "parent ID"),
        (bad(|e| e.parent_id = Some(foreign_id("Example.org", "/node"))), invalid, "parent ID"),
        (bad(|e| e.spiffe_id = None), invalid, "spiffe ID"),
        (bad(|e| e.spiffe_id = Some(foreign_id("other.example", "/web"))), invalid, "other.example"),
        (bad(|e| e.spiffe_id = Some(wire_id(""))), invalid, "path"),
        (bad(|e| e.spiffe_id = Some(wire_id("/spire"))), invalid, "reserved"),
        (bad(|e| e.spiffe_id = Some(wire_id("/spire/server"))), invalid, "reserved"),
        (bad(|e| e.spiffe_id = Some(wire_id("/spire/agent/x"))), invalid, "reserved"),
        (bad(|e| e.spiffe_id = Some(wire_id("/a//b"))), invalid, "spiffe ID"),
        (bad(|e| e.spiffe_id = Some(wire_id("/a/../b"))), invalid, "spiffe ID"),
        (bad(|e| e.selectors.clear()), invalid, "selector list is empty"),
        (bad(|e| e.selectors[0].r#type.clear()), invalid, "selectors"),
        (bad(|e| e.selectors[0].value.clear()), invalid, "selectors"),
        (bad(|e| e.selectors[0].r#type = "unix:uid".into()), invalid, "colon"),
        (bad(|e| e.selectors[0].value = "x".repeat(4096)), invalid, "4096"),
        (bad(|e| e.selectors = (0..1025).map(|n| selector(&format!("a:{n}"))).collect()), invalid, "1024"),
        (bad(|e| e.x509_svid_ttl = -1), invalid, "X509-SVID TTL"),
        (bad(|e| e.jwt_svid_ttl = -1), invalid, "JWT-SVID TTL"),
        (bad(|e| e.expires_at = -1), invalid, "expiry"),
        (bad(|e| e.dns_names = vec!["-web.example.org".into()]), invalid, "-web.example.org"),
        (bad(|e| e.dns_names = vec!["web_1.example.org".into()]), invalid, "DNS name"),
        (bad(|e| e.dns_names = vec![String::new()]), invalid, "DNS name"),
        (bad(|e| e.dns_names = vec!["web.*.org".into()]), invalid, "star"),
        (bad(|e| e.hint = "h".repeat(1025)), invalid, "1024"),
        (bad(|e| e.federates_with = vec!["Not A Name".into()]), invalid, "federated trust domain"),
        (
            bad(|e| e.federates_with = vec!["other.example".into()]),
            Code::Internal,
            "unable to find federated bundle",
        ),
        (
            types::Entry { store_svid: true, selectors: vec![selector("a:1"), selector("b:1")], ..plain() },
            invalid,
            "same type",
        ),
        (
            types::Entry { store_svid: true, additional_attributes: Some(attributes), ..plain() },
            invalid,
            "prefetch",
        ),
    ]
}

#[tokio::test]
async fn each_rule_refuses_its_own_item_and_the_others_are_taken() {
    let server = TestServer::start().await;
    let bad = bad_entries();
    let mut batch: Vec<_> = bad.iter().map(|(entry, _, _)| entry.clone()).collect();
    batch.insert(0, entry(&id("/node"), "/first", &["a:b"]));
    batch.push(entry(&id("/node"), "/last", &["a:b"]));
    let results = create(&server, batch).await;
    assert_eq!(results.len(), bad.len() + 2);
    assert_eq!(
        (code_of(&results[0].status), code_of(results.last().map_or(&None, |r| &r.status))),
        (Code::Ok, Code::Ok)
    );
    for (result, (entry, code, says)) in results[1..].iter().zip(bad) {
        let status = result.status.as_ref().unwrap();
        assert_eq!(Code::from(status.code), code, "{entry:?}: {status:?}");
        assert!(status.message.contains(says), "{says:?} is not in {:?}", status.message);
        assert_eq!(result.entry, None, "{status:?}");
    }
    assert_eq!(count(&server).await, 2);
}

#[tokio::test]
async fn the_widest_values_allowed_are_taken() {
    let server = TestServer::start().await;
    let widest = types::Entry {
        id: "x".repeat(255),
        parent_id: Some(wire_id("/spire/server")),
        selectors: (0..1024).map(|n| selector(&format!("a:{n}"))).collect(),
        x509_svid_ttl: i32::MAX,
        hint: "h".repeat(1024),
        dns_names: (0..256).map(|n| format!("h{n}.example.org")).collect(),
        ..plain()
    };
    let created = create(&server, vec![widest.clone()]).await.remove(0);
    assert_eq!(code_of(&created.status), Code::Ok, "{:?}", created.status);
    let created = created.entry.unwrap();
    assert_eq!((created.selectors.len(), created.dns_names), (1024, widest.dns_names));
}

#[tokio::test]
async fn a_similar_entry_is_refused_and_shown() {
    let server = TestServer::start().await;
    let selectors = ["unix:uid:1000", "unix:gid:1000"];
    let first = types::Entry { hint: "first".into(), ..entry(&id("/node"), "/web", &selectors) };
    let first = create(&server, vec![first]).await.remove(0).entry.unwrap();
    // Another id, another order and repeated selectors make no difference.
    let selectors = ["unix:gid:1000", "unix:uid:1000", "unix:gid:1000"];
    let twin = types::Entry { id: "other".into(), ..entry(&id("/node"), "/web", &selectors) };
    let refused = create(&server, vec![twin.clone()]).await.remove(0);
    let status = refused.status.unwrap();
    assert_eq!(
        (Code::from(status.code), status.message.as_str()),
        (Code::AlreadyExists, "similar entry already exists")
    );
    assert_eq!(refused.entry, Some(first.clone()));
    let mask = types::EntryMask { hint: true, ..Default::default() };
    let masked = create_masked(&server, vec![twin], Some(mask)).await.remove(0).entry;
    let expected = types::Entry { id: first.id, hint: "first".into(), ..Default::default() };
    assert_eq!(masked, Some(expected));
}

#[tokio::test]
async fn the_same_entry_under_the_same_id_is_similar_to_itself() {
    let server = TestServer::start().await;
    let given = types::Entry { id: "one".into(), ..plain() };
    let first = create(&server, vec![given.clone()]).await.remove(0).entry;
    let again = create(&server, vec![given]).await.remove(0);
    assert_eq!(again.status.unwrap().message, "similar entry already exists");
    assert_eq!(again.entry, first);
}

#[tokio::test]
async fn entries_that_differ_in_parent_id_or_selectors_live_side_by_side() {
    let server = TestServer::start().await;
    let results = create(
        &server,
        vec![
            entry(&id("/node"), "/web", &["a:1"]),
            entry(&id("/other"), "/web", &["a:1"]),
            entry(&id("/node"), "/db", &["a:1"]),
            entry(&id("/node"), "/web", &["a:1", "a:2"]),
            entry(&id("/node"), "/web", &["a:2"]),
        ],
    )
    .await;
    assert!(results.iter().all(|result| code_of(&result.status) == Code::Ok), "{results:?}");
}

#[tokio::test]
async fn an_id_that_is_taken_is_refused_and_the_entry_that_has_it_stays() {
    let server = TestServer::start().await;
    let first = types::Entry { id: "one".into(), ..plain() };
    let second = types::Entry { id: "one".into(), ..entry(&id("/node"), "/db", &["a:1"]) };
    let results = create(&server, vec![first, second]).await;
    assert_eq!(code_of(&results[0].status), Code::Ok);
    assert_eq!(code_of(&results[1].status), Code::AlreadyExists);
    assert!(results[1].status.as_ref().unwrap().message.contains("one"), "{results:?}");
    assert_eq!(results[1].entry, None, "nothing is said about the other entry");
    let request = wire::GetEntryRequest { id: "one".into(), output_mask: None };
    let kept = server.entries().await.get_entry(request).await.unwrap().into_inner();
    assert_eq!(kept.spiffe_id, Some(wire_id("/web")));
}

#[tokio::test]
async fn of_the_same_entry_twice_in_one_batch_one_is_taken() {
    let server = TestServer::start().await;
    let results = create(&server, vec![plain(), plain(), plain()]).await;
    let codes: Vec<Code> = results.iter().map(|result| code_of(&result.status)).collect();
    assert_eq!(codes, [Code::Ok, Code::AlreadyExists, Code::AlreadyExists]);
    assert_eq!(results[2].entry, results[0].entry);
}

#[tokio::test]
async fn racing_creates_of_the_same_entry_make_one() {
    let server = TestServer::start().await;
    let calls = (0..16).map(|_| create(&server, vec![plain()]));
    let results = futures_util::future::join_all(calls).await;
    let taken = results.iter().filter(|results| code_of(&results[0].status) == Code::Ok).count();
    assert_eq!((taken, count(&server).await), (1, 1));
}

#[tokio::test]
async fn a_batch_has_a_bound_and_may_be_empty() {
    let server = TestServer::start().await;
    assert!(create(&server, Vec::new()).await.is_empty());
    let request =
        wire::BatchCreateEntryRequest { entries: vec![types::Entry::default(); 10_001], output_mask: None };
    let answer = server.entries().await.batch_create_entry(request).await;
    let message = expect_refusal(answer, Code::InvalidArgument, Reason::MessageTooLarge);
    assert!(message.contains("10000") && message.contains("10001"), "{message}");
    let results = create(&server, vec![types::Entry::default(); 10_000]).await;
    assert!(results.iter().all(|result| code_of(&result.status) == Code::InvalidArgument));
}

#[tokio::test]
async fn an_entry_too_large_to_be_stored_is_the_callers_fault() {
    let server = TestServer::start().await;
    let selectors = (0..1024).map(|n| selector(&format!("a:{n}-{}", "x".repeat(1100)))).collect();
    let large = types::Entry { id: "large".into(), selectors, ..plain() };
    let refused = create(&server, vec![large.clone(), plain()]).await;
    let codes: Vec<Code> = refused.iter().map(|result| code_of(&result.status)).collect();
    assert_eq!(codes, [Code::InvalidArgument, Code::Ok], "{:?}", refused[0].status);
    let message = &refused[0].status.as_ref().unwrap().message;
    assert!(message.contains("1048576"), "{message}");
    let id = refused[1].entry.as_ref().unwrap().id.clone();
    let request =
        wire::BatchUpdateEntryRequest { entries: vec![types::Entry { id, ..large }], ..Default::default() };
    let refused = server.entries().await.batch_update_entry(request).await.unwrap().into_inner().results;
    assert_eq!(code_of(&refused[0].status), Code::InvalidArgument, "{:?}", refused[0].status);
}

#[tokio::test]
async fn a_message_beyond_four_mebibytes_is_refused_and_the_next_call_works() {
    let server = TestServer::start().await;
    let mut entries = server.entries().await;
    let huge = types::Entry { hint: "h".repeat(5 * 1024 * 1024), ..plain() };
    let request = wire::BatchCreateEntryRequest { entries: vec![huge], output_mask: None };
    let status = in_time(entries.batch_create_entry(request)).await.expect_err("too large");
    assert!(matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange), "{status:?}");
    let request = wire::BatchCreateEntryRequest { entries: vec![plain()], output_mask: None };
    let results = in_time(entries.batch_create_entry(request)).await.unwrap().into_inner().results;
    assert_eq!(code_of(&results[0].status), Code::Ok);
}

#[tokio::test]
async fn a_large_batch_is_taken_in_its_order() {
    let server = TestServer::start().await;
    let batch: Vec<_> = (0..1000).map(|n| entry(&id("/node"), &format!("/w{n}"), &["a:b"])).collect();
    let results = create(&server, batch.clone()).await;
    let ids = |entries: Vec<types::Entry>| {
        entries.into_iter().map(|e| e.spiffe_id.unwrap().path).collect::<Vec<_>>()
    };
    assert_eq!(ids(results.into_iter().map(|result| result.entry.unwrap()).collect()), ids(batch.clone()));
    let listed = server.entries().await.list_entries(wire::ListEntriesRequest::default()).await.unwrap();
    assert_eq!(ids(listed.into_inner().entries), ids(batch));
}

#[tokio::test]
async fn each_refused_item_carries_the_reason_for_it() {
    let server = TestServer::start().await;
    let there = types::Entry { id: "there".into(), ..plain() };
    assert_eq!(create(&server, vec![there.clone()]).await[0].status, Some(item_ok()));
    let other = |change: fn(&mut types::Entry)| {
        let mut other = entry(&id("/node"), "/other", &["unix:uid:1001"]);
        change(&mut other);
        other
    };
    for (entry, reason) in [
        (plain(), Reason::EntryExists),
        (other(|entry| entry.id = "there".into()), Reason::AlreadyExists),
        (other(|entry| entry.federates_with = vec!["unknown.example".into()]), Reason::BundleNotFound),
        (
            other(|entry| entry.spiffe_id = Some(foreign_id("other.example", "/web"))),
            Reason::WrongTrustDomain,
        ),
        (
            other(|entry| entry.parent_id = Some(foreign_id("other.example", "/node"))),
            Reason::WrongTrustDomain,
        ),
        (other(|entry| entry.selectors.clear()), Reason::BadRequest),
        (other(|entry| entry.hint = "x".repeat(1025)), Reason::BadRequest),
    ] {
        let item = create(&server, vec![entry]).await.remove(0);
        assert_eq!(item.status.expect("a status").reason, reason.code());
        // Only of a similar entry the present one is shown.
        let shown = item.entry.map(|entry| entry.id);
        assert_eq!(shown, (reason == Reason::EntryExists).then(|| "there".into()), "{reason}");
    }
    let updates = wire::BatchUpdateEntryRequest {
        entries: vec![types::Entry { id: "nosuch".into(), ..plain() }],
        ..Default::default()
    };
    let updated = server.entries().await.batch_update_entry(updates).await.unwrap().into_inner();
    assert_eq!(updated.results[0].status.as_ref().unwrap().reason, Reason::EntryNotFound.code());
    let ids = vec!["nosuch".into(), String::new()];
    let request = wire::BatchDeleteEntryRequest { ids };
    let deleted = server.entries().await.batch_delete_entry(request).await.unwrap().into_inner();
    let reasons: Vec<_> = deleted.results.into_iter().map(|item| item.status.unwrap().reason).collect();
    assert_eq!(reasons, [Reason::EntryNotFound.code(), Reason::BadRequest.code()]);
}
