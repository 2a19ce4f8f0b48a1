//! Updates with masks, the revision number they count, deletion, and reading one entry.

use spindle_proto::spire::api::server::entry::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::entry::AdditionalAttributes;
use spindle_spiffe_core::Reason;
use tonic::Code;
use wire::batch_update_entry_response::Result as Item;

use crate::support::{
    TestServer, code_of, entry, expect_refusal, foreign_id, id, in_time, selector, wire_id,
};

async fn update(
    server: &TestServer,
    entries: Vec<types::Entry>,
    mask: Option<types::EntryMask>,
) -> Vec<Item> {
    let request = wire::BatchUpdateEntryRequest { entries, input_mask: mask, output_mask: None };
    in_time(server.entries().await.batch_update_entry(request)).await.unwrap().into_inner().results
}

async fn update_one(server: &TestServer, entry: types::Entry, mask: Option<types::EntryMask>) -> Item {
    update(server, vec![entry], mask).await.remove(0)
}

async fn get(server: &TestServer, id: &str) -> types::Entry {
    let request = wire::GetEntryRequest { id: id.into(), output_mask: None };
    server.entries().await.get_entry(request).await.unwrap().into_inner()
}

async fn delete(server: &TestServer, ids: &[&str]) -> Vec<(String, Code)> {
    let request = wire::BatchDeleteEntryRequest { ids: ids.iter().map(|id| (*id).into()).collect() };
    let results = server.entries().await.batch_delete_entry(request).await.unwrap().into_inner().results;
    results.into_iter().map(|result| (result.id.clone(), code_of(&result.status))).collect()
}

/// A mask of one field.
fn only(set: fn(&mut types::EntryMask)) -> Option<types::EntryMask> {
    let mut mask = types::EntryMask::default();
    set(&mut mask);
    Some(mask)
}

fn plain() -> types::Entry {
    types::Entry {
        id: "one".into(),
        hint: "old".into(),
        x509_svid_ttl: 60,
        ..entry(&id("/node"), "/web", &["a:1"])
    }
}

/// The entry with every field other than in [`plain`].
fn changed() -> types::Entry {
    types::Entry {
        id: "one".into(),
        spiffe_id: Some(wire_id("/db")),
        parent_id: Some(wire_id("/other")),
        selectors: vec![selector("b:2")],
        x509_svid_ttl: 120,
        jwt_svid_ttl: 30,
        federates_with: vec!["example.org".into()],
        admin: true,
        downstream: true,
        expires_at: 2_000_000_000,
        dns_names: vec!["db.example.org".into()],
        store_svid: true,
        hint: "new".into(),
        revision_number: 77,
        created_at: 77,
        additional_attributes: Some(AdditionalAttributes {
            disable_x509_svid_prefetch: false,
            jwt_svid_include_jti: true,
        }),
    }
}

#[tokio::test]
async fn without_a_mask_everything_but_id_and_birth_is_replaced() {
    let server = TestServer::start().await;
    let created = server.create(vec![plain()]).await.remove(0);
    server.clock.advance(100);
    let item = update_one(&server, changed(), None).await;
    assert_eq!(code_of(&item.status), Code::Ok, "{:?}", item.status);
    let expected = types::Entry { revision_number: 1, created_at: created.created_at, ..changed() };
    assert_eq!(item.entry, Some(expected.clone()));
    assert_eq!(get(&server, "one").await, expected);
}

#[tokio::test]
async fn each_bit_of_the_mask_changes_its_field_alone() {
    /// One bit of the mask, and how its field gets from the changed entry into the expected one.
    type Bit = (fn(&mut types::EntryMask), fn(&mut types::Entry, types::Entry));
    let bits: &[Bit] = &[
        (|m| m.spiffe_id = true, |e, new| e.spiffe_id = new.spiffe_id),
        (|m| m.parent_id = true, |e, new| e.parent_id = new.parent_id),
        (|m| m.selectors = true, |e, new| e.selectors = new.selectors),
        (|m| m.x509_svid_ttl = true, |e, new| e.x509_svid_ttl = new.x509_svid_ttl),
        (|m| m.jwt_svid_ttl = true, |e, new| e.jwt_svid_ttl = new.jwt_svid_ttl),
        (|m| m.federates_with = true, |e, new| e.federates_with = new.federates_with),
        (|m| m.admin = true, |e, new| e.admin = new.admin),
        (|m| m.downstream = true, |e, new| e.downstream = new.downstream),
        (|m| m.expires_at = true, |e, new| e.expires_at = new.expires_at),
        (|m| m.dns_names = true, |e, new| e.dns_names = new.dns_names),
        (|m| m.store_svid = true, |e, new| e.store_svid = new.store_svid),
        (|m| m.hint = true, |e, new| e.hint = new.hint),
        (|m| m.additional_attributes = true, |e, new| e.additional_attributes = new.additional_attributes),
        // These two are the server's.
        (|m| m.revision_number = true, |_, _| ()),
        (|m| m.created_at = true, |_, _| ()),
    ];
    let server = TestServer::start().await;
    for (set, take) in bits {
        let mut expected = server.create(vec![plain()]).await.remove(0);
        let item = update_one(&server, changed(), only(*set)).await;
        assert_eq!(code_of(&item.status), Code::Ok, "{:?}", item.status);
        take(&mut expected, changed());
        expected.revision_number = 1;
        assert_eq!(item.entry, Some(expected));
        server.delete("one").await;
    }
}

#[tokio::test]
async fn the_revision_number_grows_by_one_even_when_nothing_changes() {
    let server = TestServer::start().await;
    let created = server.create(vec![plain()]).await.remove(0);
    for revision_number in 1..=3 {
        let item = update_one(&server, plain(), None).await;
        assert_eq!(item.entry, Some(types::Entry { revision_number, ..created.clone() }));
    }
    let item = update_one(&server, changed(), Some(types::EntryMask::default())).await;
    assert_eq!(
        item.entry,
        Some(types::Entry { revision_number: 4, ..created }),
        "an empty mask changes nothing else"
    );
}

#[tokio::test]
async fn racing_updates_are_all_counted() {
    let server = TestServer::start().await;
    server.create(vec![plain()]).await;
    let calls = (0..4).map(|_| update(&server, vec![plain()], None));
    let results = futures_util::future::join_all(calls).await;
    assert!(results.iter().all(|items| code_of(&items[0].status) == Code::Ok), "{results:?}");
    assert_eq!(get(&server, "one").await.revision_number, 4);
}

#[tokio::test]
async fn an_output_mask_keeps_the_id_and_what_it_names() {
    let server = TestServer::start().await;
    server.create(vec![plain()]).await;
    let request = wire::BatchUpdateEntryRequest {
        entries: vec![changed()],
        input_mask: None,
        output_mask: only(|mask| mask.revision_number = true),
    };
    let item =
        server.entries().await.batch_update_entry(request).await.unwrap().into_inner().results.remove(0);
    assert_eq!(item.entry, Some(types::Entry { id: "one".into(), revision_number: 1, ..Default::default() }));
}

#[tokio::test]
async fn a_refused_update_changes_nothing_and_does_not_count() {
    let server = TestServer::start().await;
    let created = server.create(vec![plain()]).await.remove(0);
    let bad = |change: fn(&mut types::Entry)| {
        let mut entry = plain();
        change(&mut entry);
        entry
    };
    let cases = [
        (bad(|e| e.parent_id = None), Code::InvalidArgument, "parent ID"),
        (
            bad(|e| e.spiffe_id = Some(foreign_id("other.example", "/x"))),
            Code::InvalidArgument,
            "other.example",
        ),
        (bad(|e| e.spiffe_id = Some(wire_id("/spire/x"))), Code::InvalidArgument, "reserved"),
        (bad(|e| e.selectors.clear()), Code::InvalidArgument, "selector"),
        (bad(|e| e.x509_svid_ttl = -1), Code::InvalidArgument, "X509-SVID TTL"),
        (bad(|e| e.dns_names = vec!["a b".into()]), Code::InvalidArgument, "DNS name"),
        (bad(|e| e.hint = "h".repeat(1025)), Code::InvalidArgument, "hint"),
        (bad(|e| e.federates_with = vec!["other.example".into()]), Code::Internal, "federated bundle"),
        (bad(|e| e.id = "none".into()), Code::NotFound, "entry not found"),
        (bad(|e| e.id.clear()), Code::InvalidArgument, "entry ID"),
        (bad(|e| e.id = "a/b".into()), Code::InvalidArgument, "entry ID"),
    ];
    let batch = cases.iter().map(|(entry, _, _)| entry.clone()).collect();
    for (item, (entry, code, says)) in update(&server, batch, None).await.into_iter().zip(cases) {
        let status = item.status.unwrap();
        assert_eq!(Code::from(status.code), code, "{entry:?}: {status:?}");
        assert!(status.message.contains(says), "{says:?} is not in {:?}", status.message);
        assert_eq!(item.entry, None);
    }
    assert_eq!(get(&server, "one").await, created);
}

#[tokio::test]
async fn fields_outside_the_mask_are_not_looked_at() {
    let server = TestServer::start().await;
    server.create(vec![plain()]).await;
    let nonsense =
        types::Entry { id: "one".into(), hint: "new".into(), x509_svid_ttl: -5, ..Default::default() };
    let item = update_one(&server, nonsense, only(|mask| mask.hint = true)).await;
    assert_eq!(code_of(&item.status), Code::Ok, "{:?}", item.status);
    assert_eq!(item.entry.unwrap().hint, "new");
}

#[tokio::test]
async fn a_batch_has_a_bound() {
    let server = TestServer::start().await;
    let mut entries = server.entries().await;
    let request = wire::BatchUpdateEntryRequest {
        entries: vec![types::Entry::default(); 10_001],
        ..Default::default()
    };
    expect_refusal(entries.batch_update_entry(request).await, Code::InvalidArgument, Reason::MessageTooLarge);
    let request = wire::BatchDeleteEntryRequest { ids: vec!["x".into(); 10_001] };
    expect_refusal(entries.batch_delete_entry(request).await, Code::InvalidArgument, Reason::MessageTooLarge);
}

#[tokio::test]
async fn deletion_answers_each_id_by_itself() {
    let server = TestServer::start().await;
    server
        .create(vec![plain(), types::Entry { id: "two".into(), ..entry(&id("/node"), "/db", &["a:1"]) }])
        .await;
    let results = delete(&server, &["one", "", "none", "a/b", "two", "one"]).await;
    let codes: Vec<Code> = results.iter().map(|(_, code)| *code).collect();
    let not_found = Code::NotFound;
    assert_eq!(codes, [Code::Ok, Code::InvalidArgument, not_found, not_found, Code::Ok, not_found]);
    assert_eq!(
        results.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
        ["one", "", "none", "a/b", "two", "one"]
    );
    assert!(delete(&server, &[]).await.is_empty());
}

#[tokio::test]
async fn what_a_deleted_entry_held_is_free_again() {
    let server = TestServer::start().await;
    server.create(vec![plain()]).await;
    server.delete("one").await;
    let again = server.create(vec![plain()]).await.remove(0);
    assert_eq!(again.revision_number, 0, "the new entry starts afresh");
}

#[tokio::test]
async fn what_an_update_leaves_is_free_for_another_entry() {
    let server = TestServer::start().await;
    server.create(vec![plain()]).await;
    update_one(&server, changed(), None).await;
    server.create(vec![types::Entry { id: "two".into(), ..plain() }]).await;
}

/// Codes of creating [`plain`] anew, with an id of the server's choice.
async fn create_again(server: &TestServer) -> Code {
    let entry = types::Entry { id: String::new(), ..plain() };
    let request = wire::BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
    let results = server.entries().await.batch_create_entry(request).await.unwrap().into_inner().results;
    code_of(&results[0].status)
}

#[tokio::test]
async fn an_update_may_make_two_entries_similar_and_creation_is_refused_until_both_are_gone() {
    let server = TestServer::start().await;
    let other = types::Entry { id: "two".into(), ..entry(&id("/node"), "/db", &["a:1"]) };
    server.create(vec![plain(), other.clone()]).await;
    let item = update_one(&server, types::Entry { id: "two".into(), ..plain() }, None).await;
    assert_eq!(code_of(&item.status), Code::Ok, "{:?}", item.status);
    let expected =
        types::Entry { id: "two".into(), created_at: item.entry.clone().unwrap().created_at, ..plain() };
    assert_eq!(item.entry, Some(types::Entry { revision_number: 1, ..expected }));
    server.create(vec![types::Entry { id: "three".into(), ..other }]).await;
    assert_eq!(create_again(&server).await, Code::AlreadyExists);
    server.delete("one").await;
    assert_eq!(create_again(&server).await, Code::AlreadyExists);
    server.delete("two").await;
    assert_eq!(create_again(&server).await, Code::Ok);
}

#[tokio::test]
async fn two_entries_can_change_places() {
    let server = TestServer::start().await;
    let other = types::Entry { id: "two".into(), ..entry(&id("/node"), "/db", &["a:1"]) };
    server.create(vec![plain(), other.clone()]).await;
    let swapped =
        [types::Entry { id: "one".into(), ..other.clone() }, types::Entry { id: "two".into(), ..plain() }];
    let results = update(&server, swapped.to_vec(), None).await;
    assert!(results.iter().all(|item| code_of(&item.status) == Code::Ok), "{results:?}");
    assert_eq!(create_again(&server).await, Code::AlreadyExists);
    server.delete("two").await;
    assert_eq!(create_again(&server).await, Code::Ok);
}

#[tokio::test]
async fn of_two_similar_entries_that_go_at_once_the_place_becomes_free() {
    let server = TestServer::start().await;
    for _ in 0..20 {
        server
            .create(vec![plain(), types::Entry { id: "two".into(), ..entry(&id("/node"), "/db", &["a:1"]) }])
            .await;
        update_one(&server, types::Entry { id: "two".into(), ..plain() }, None).await;
        let results = delete(&server, &["one", "two"]).await;
        assert!(results.iter().all(|(_, code)| *code == Code::Ok), "{results:?}");
        assert_eq!(create_again(&server).await, Code::Ok);
        let listed = server.entries().await.list_entries(wire::ListEntriesRequest::default()).await.unwrap();
        server.delete(&listed.into_inner().entries[0].id).await;
    }
}

#[tokio::test]
async fn reading_an_entry_that_is_not_there_is_refused() {
    let server = TestServer::start().await;
    let mut entries = server.entries().await;
    let mut get =
        async |id: &str| entries.get_entry(wire::GetEntryRequest { id: id.into(), output_mask: None }).await;
    assert_eq!(expect_refusal(get("").await, Code::InvalidArgument, Reason::BadRequest), "missing ID");
    assert_eq!(expect_refusal(get("none").await, Code::NotFound, Reason::EntryNotFound), "entry not found");
    expect_refusal(get("a/b").await, Code::NotFound, Reason::EntryNotFound);
}

#[tokio::test]
async fn changes_outlive_a_restart() {
    let mut server =
        TestServer::start_with(|config| config.store.kind = spindle_server::StoreKind::Sled).await;
    server
        .create(vec![plain(), types::Entry { id: "gone".into(), ..entry(&id("/node"), "/x", &["a:1"]) }])
        .await;
    let kept = update_one(&server, changed(), None).await.entry.unwrap();
    server.delete("gone").await;
    server.restart().await;
    assert_eq!(get(&server, "one").await, kept);
    let gone = wire::GetEntryRequest { id: "gone".into(), output_mask: None };
    expect_refusal(server.entries().await.get_entry(gone).await, Code::NotFound, Reason::EntryNotFound);
    // Uniqueness is stored, too.
    let twin = wire::BatchCreateEntryRequest {
        entries: vec![types::Entry { id: "twin".into(), ..changed() }],
        output_mask: None,
    };
    let results = server.entries().await.batch_create_entry(twin).await.unwrap().into_inner().results;
    assert_eq!(code_of(&results[0].status), Code::AlreadyExists);
}
