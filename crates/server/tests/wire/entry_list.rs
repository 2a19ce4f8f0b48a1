//! How entries are listed and counted: filters, pages and masks.

use spindle_proto::spire::api::server::entry::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::Reason;
use tonic::Code;
use wire::list_entries_request::Filter;

use crate::support::{TestServer, entry, expect_refusal, foreign_id, id, selector, wire_id};

const EXACT: i32 = 0;
const SUBSET: i32 = 1;
const SUPERSET: i32 = 2;
const ANY: i32 = 3;

/// Five entries, named by their ids.
async fn stocked() -> TestServer {
    let server = TestServer::start().await;
    let named = |id_: &str, entry: types::Entry| types::Entry { id: id_.into(), ..entry };
    let entries = vec![
        named("a", entry(&id("/n1"), "/web", &["s:1"])),
        named("b", types::Entry { hint: "h".into(), ..entry(&id("/n1"), "/db", &["s:1", "s:2"]) }),
        named("c", types::Entry { downstream: true, ..entry(&id("/n2"), "/web", &["s:2"]) }),
        named(
            "d",
            types::Entry {
                federates_with: vec!["example.org".into()],
                ..entry(&id("/n2"), "/db", &["s:1", "s:2", "s:3"])
            },
        ),
        named("e", entry(&id("/n2"), "/web", &["s:3"])),
    ];
    server.create(entries).await;
    server
}

async fn list_entries(server: &TestServer, request: wire::ListEntriesRequest) -> wire::ListEntriesResponse {
    server.entries().await.list_entries(request).await.unwrap().into_inner()
}

fn ids(entries: &[types::Entry]) -> String {
    entries.iter().map(|entry| entry.id.as_str()).collect()
}

fn count_filter(filter: Filter) -> wire::count_entries_request::Filter {
    wire::count_entries_request::Filter {
        by_spiffe_id: filter.by_spiffe_id,
        by_parent_id: filter.by_parent_id,
        by_selectors: filter.by_selectors,
        by_federates_with: filter.by_federates_with,
        by_hint: filter.by_hint,
        by_downstream: filter.by_downstream,
    }
}

/// The ids that pass the filter; the count must be the same.
async fn check(server: &TestServer, filter: Filter, expected: &str) {
    let what = format!("{filter:?}");
    let request = wire::ListEntriesRequest { filter: Some(filter.clone()), ..Default::default() };
    let answer = list_entries(server, request).await;
    assert_eq!(ids(&answer.entries), expected, "{what}");
    assert_eq!(answer.next_page_token, "", "no page was asked for");
    let request = wire::CountEntriesRequest { filter: Some(count_filter(filter)) };
    let count = server.entries().await.count_entries(request).await.unwrap().into_inner().count;
    assert_eq!(usize::try_from(count).unwrap(), expected.len(), "{what}");
}

fn by_selectors(texts: &[&str], how: i32) -> Filter {
    let selectors = texts.iter().map(|text| selector(text)).collect();
    Filter { by_selectors: Some(types::SelectorMatch { selectors, r#match: how }), ..Default::default() }
}

fn by_federates_with(names: &[&str], how: i32) -> Filter {
    let trust_domains = names.iter().map(|name| (*name).into()).collect();
    Filter {
        by_federates_with: Some(types::FederatesWithMatch { trust_domains, r#match: how }),
        ..Default::default()
    }
}

#[tokio::test]
async fn each_field_filters() {
    let server = stocked().await;
    check(&server, Filter::default(), "abcde").await;
    check(&server, Filter { by_spiffe_id: Some(wire_id("/web")), ..Default::default() }, "ace").await;
    check(&server, Filter { by_spiffe_id: Some(wire_id("/none")), ..Default::default() }, "").await;
    check(&server, Filter { by_parent_id: Some(wire_id("/n2")), ..Default::default() }, "cde").await;
    check(&server, Filter { by_parent_id: Some(wire_id("/spire/server")), ..Default::default() }, "").await;
    check(&server, Filter { by_hint: Some("h".into()), ..Default::default() }, "b").await;
    check(&server, Filter { by_hint: Some("x".into()), ..Default::default() }, "").await;
    check(&server, Filter { by_downstream: Some(true), ..Default::default() }, "c").await;
}

#[tokio::test]
async fn empty_hint_and_downstream_false_filter_nothing() {
    let server = stocked().await;
    check(&server, Filter { by_hint: Some(String::new()), ..Default::default() }, "abcde").await;
    // SPIRE's command line always sends false.
    check(&server, Filter { by_downstream: Some(false), ..Default::default() }, "abcde").await;
}

#[tokio::test]
async fn each_match_of_selectors_compares_sets() {
    let server = stocked().await;
    check(&server, by_selectors(&["s:2", "s:1"], EXACT), "b").await;
    check(&server, by_selectors(&["s:2", "s:1", "s:2"], EXACT), "b").await;
    check(&server, by_selectors(&["s:9"], EXACT), "").await;
    check(&server, by_selectors(&["s:1", "s:2"], SUBSET), "abc").await;
    check(&server, by_selectors(&["s:9"], SUBSET), "").await;
    check(&server, by_selectors(&["s:1", "s:2"], SUPERSET), "bd").await;
    check(&server, by_selectors(&["s:1", "s:9"], SUPERSET), "").await;
    check(&server, by_selectors(&["s:1", "s:9"], ANY), "abd").await;
    check(&server, by_selectors(&["s:8", "s:9"], ANY), "").await;
}

#[tokio::test]
async fn each_match_of_trust_domains_compares_sets() {
    let server = stocked().await;
    check(&server, by_federates_with(&["example.org"], EXACT), "d").await;
    check(&server, by_federates_with(&["spiffe://example.org"], EXACT), "d").await;
    check(&server, by_federates_with(&["example.org", "other.example"], SUBSET), "d").await;
    check(&server, by_federates_with(&["example.org", "other.example"], EXACT), "").await;
    check(&server, by_federates_with(&["example.org", "other.example"], SUPERSET), "").await;
    check(&server, by_federates_with(&["example.org"], SUPERSET), "d").await;
    check(&server, by_federates_with(&["example.org", "other.example"], ANY), "d").await;
    check(&server, by_federates_with(&["other.example"], ANY), "").await;
}

#[tokio::test]
async fn filters_narrow_together() {
    let server = stocked().await;
    let web = || Filter { by_spiffe_id: Some(wire_id("/web")), ..Default::default() };
    check(&server, Filter { by_parent_id: Some(wire_id("/n2")), ..web() }, "ce").await;
    check(&server, Filter { by_selectors: by_selectors(&["s:2"], ANY).by_selectors, ..web() }, "c").await;
    check(&server, Filter { by_downstream: Some(true), by_parent_id: Some(wire_id("/n1")), ..web() }, "")
        .await;
}

#[tokio::test]
async fn malformed_filters_are_refused_by_list_and_count() {
    let server = stocked().await;
    let mut entries = server.entries().await;
    let id_filter = |id| Filter { by_spiffe_id: Some(id), ..Default::default() };
    let parent_filter = |id| Filter { by_parent_id: Some(id), ..Default::default() };
    let half = types::Selector { r#type: "s".into(), value: String::new() };
    let malformed = Filter {
        by_selectors: Some(types::SelectorMatch { selectors: vec![half], r#match: EXACT }),
        ..Default::default()
    };
    let cases = [
        (id_filter(foreign_id("", "")), "SPIFFE ID filter"),
        (id_filter(foreign_id("other.example", "/web")), "other.example"),
        (id_filter(wire_id("")), "path"),
        (id_filter(wire_id("/spire/server")), "reserved"),
        (parent_filter(foreign_id("other.example", "/n1")), "other.example"),
        (parent_filter(wire_id("")), "path"),
        (by_selectors(&[], EXACT), "empty selector set"),
        (by_selectors(&["s:1"], 4), "match behavior 4"),
        (by_selectors(&["s:1"], -1), "match behavior -1"),
        (malformed, "selector filter"),
        (by_federates_with(&[], EXACT), "empty trust domain set"),
        (by_federates_with(&["example.org"], 7), "match behavior 7"),
        (by_federates_with(&["NOT A NAME"], EXACT), "federates with filter"),
    ];
    for (filter, says) in cases {
        let request = wire::ListEntriesRequest { filter: Some(filter.clone()), ..Default::default() };
        let listed =
            expect_refusal(entries.list_entries(request).await, Code::InvalidArgument, Reason::BadRequest);
        let request = wire::CountEntriesRequest { filter: Some(count_filter(filter)) };
        let counted =
            expect_refusal(entries.count_entries(request).await, Code::InvalidArgument, Reason::BadRequest);
        assert!(listed.contains(says) && counted == listed, "{says}: {listed:?}, {counted:?}");
    }
}

/// All pages of that size, up to and with the first that has no token.
async fn pages(server: &TestServer, page_size: i32, filter: Option<Filter>) -> Vec<String> {
    let (mut page_token, mut pages) = (String::new(), Vec::new());
    loop {
        let filter = filter.clone();
        let request = wire::ListEntriesRequest { filter, page_size, page_token, ..Default::default() };
        let answer = list_entries(server, request).await;
        pages.push(ids(&answer.entries));
        if answer.next_page_token.is_empty() {
            return pages;
        }
        page_token = answer.next_page_token;
    }
}

#[tokio::test]
async fn pages_end_with_an_empty_one() {
    let server = stocked().await;
    assert_eq!(pages(&server, 2, None).await, ["ab", "cd", "e", ""]);
    assert_eq!(pages(&server, 5, None).await, ["abcde", ""]);
    assert_eq!(pages(&server, i32::MAX, None).await, ["abcde", ""]);
    assert_eq!(pages(&server, 0, None).await, ["abcde"]);
    assert_eq!(pages(&server, -1, None).await, ["abcde"]);
}

#[tokio::test]
async fn pages_of_a_filtered_list_are_full() {
    let server = stocked().await;
    let web = Filter { by_spiffe_id: Some(wire_id("/web")), ..Default::default() };
    assert_eq!(pages(&server, 2, Some(web)).await, ["ac", "e", ""]);
    assert_eq!(pages(&server, 1, Some(by_selectors(&["s:1", "s:2"], SUPERSET))).await, ["b", "d", ""]);
    let n2 = Filter { by_parent_id: Some(wire_id("/n2")), ..Default::default() };
    assert_eq!(pages(&server, 2, Some(n2)).await, ["cd", "e", ""]);
}

#[tokio::test]
async fn changes_between_two_pages_neither_repeat_nor_hide_an_entry() {
    let server = stocked().await;
    let page = |page_token| wire::ListEntriesRequest { page_size: 2, page_token, ..Default::default() };
    let first = list_entries(&server, page(String::new())).await;
    assert_eq!(ids(&first.entries), "ab");
    server.delete("a").await;
    server.delete("b").await;
    // An update keeps an entry's place; a new entry comes last.
    let renamed = types::Entry { id: "c".into(), hint: "x".into(), ..Default::default() };
    let mask = types::EntryMask { hint: true, ..Default::default() };
    let request =
        wire::BatchUpdateEntryRequest { entries: vec![renamed], input_mask: Some(mask), output_mask: None };
    server.entries().await.batch_update_entry(request).await.unwrap();
    server.create(vec![types::Entry { id: "f".into(), ..entry(&id("/n3"), "/x", &["s:1"]) }]).await;
    let second = list_entries(&server, page(first.next_page_token)).await;
    assert_eq!(ids(&second.entries), "cd");
    assert_eq!(ids(&list_entries(&server, page(second.next_page_token)).await.entries), "ef");
}

#[tokio::test]
async fn pages_go_on_after_a_restart_where_they_were() {
    let mut server =
        TestServer::start_with(|config| config.store.kind = spindle_server::StoreKind::Sled).await;
    let named =
        |name: &str| types::Entry { id: name.into(), ..entry(&id("/n"), &format!("/{name}"), &["s:1"]) };
    server.create(["a", "b", "c", "d", "e"].map(named).to_vec()).await;
    server.delete("a").await;
    let page = |page_token| wire::ListEntriesRequest { page_size: 2, page_token, ..Default::default() };
    let first = list_entries(&server, page(String::new())).await;
    assert_eq!(ids(&first.entries), "bc");
    server.restart().await;
    assert_eq!(ids(&list_entries(&server, page(first.next_page_token)).await.entries), "de");
}

#[tokio::test]
async fn a_page_token_that_was_never_given_out_is_refused_or_past_the_end() {
    let server = stocked().await;
    for token in ["abc", "1", "-1:a", "1.5:a", "1:", "1:a/b", "18446744073709551616:a"] {
        let request =
            wire::ListEntriesRequest { page_size: 1, page_token: token.into(), ..Default::default() };
        let answer = server.entries().await.list_entries(request).await;
        let message = expect_refusal(answer, Code::Internal, Reason::BadRequest);
        assert!(message.contains("could not parse token"), "{message}");
    }
    let last = wire::ListEntriesRequest {
        page_size: 1,
        page_token: format!("{}:x", u64::MAX),
        ..Default::default()
    };
    assert_eq!(list_entries(&server, last).await, wire::ListEntriesResponse::default());
}

#[tokio::test]
async fn a_mask_keeps_the_id_and_what_it_names() {
    let server = stocked().await;
    let mask = types::EntryMask { hint: true, ..Default::default() };
    let filter = Some(Filter { by_hint: Some("h".into()), ..Default::default() });
    let request = wire::ListEntriesRequest { filter, output_mask: Some(mask), ..Default::default() };
    let expected = types::Entry { id: "b".into(), hint: "h".into(), ..Default::default() };
    assert_eq!(list_entries(&server, request).await.entries, [expected]);
    let request = wire::GetEntryRequest { id: "b".into(), output_mask: Some(types::EntryMask::default()) };
    let bare = server.entries().await.get_entry(request).await.unwrap().into_inner();
    assert_eq!(bare, types::Entry { id: "b".into(), ..Default::default() });
}
