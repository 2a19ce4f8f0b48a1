//! Against a real server, on which somebody else writes between the plan and its execution.

use std::sync::Arc;

use spindle_proto::spire::api::server::entry::v1::ListEntriesRequest;
use spindle_runtime::{Shutdown, SystemClock, SystemEntropy};
use spindle_server::{RunningServer, Server};
use spindle_testkit::TestFolder;

use super::*;
use crate::config::server::{RawServer, ServerSettings};
use crate::hcl;
use crate::server_cli::run::config;

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
}

fn entry(entry_id: &str, path: &str) -> types::Entry {
    types::Entry {
        id: entry_id.into(),
        spiffe_id: id(path),
        parent_id: id("/node"),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
        ..types::Entry::default()
    }
}

/// A server with the entries `a` to `d`, which goes when it is dropped, and its client.
async fn server(folder: &TestFolder) -> (RunningServer, EntryClient<Channel>) {
    let socket_path = folder.socket("api.sock");
    let text = format!(
        r#"server {{ trust_domain = "example.org" data_dir = "{}" bind_address = "127.0.0.1" bind_port = 0 socket_path = "{}" }}
        plugins {{ DataStore "memory" {{ plugin_data {{}} }} KeyManager "memory" {{ plugin_data {{}} }}
        NodeAttestor "join_token" {{ plugin_data {{}} }} }}"#,
        folder.path().display(),
        socket_path.display()
    );
    let raw = RawServer::read(&hcl::parse(&text).unwrap()).unwrap();
    let config = config(ServerSettings::try_from(raw).unwrap()).unwrap();
    let server =
        Server::start(config, SystemClock::shared(), Arc::new(SystemEntropy), Shutdown::new()).await.unwrap();
    let mut client = EntryClient::new(spindle_transport::connect_unix(&socket_path).await.unwrap());
    let entries = ["a", "b", "c", "d"].map(|name| entry(name, &format!("/{name}"))).to_vec();
    client.batch_create_entry(BatchCreateEntryRequest { entries, output_mask: None }).await.unwrap();
    (server, client)
}

async fn held(client: &mut EntryClient<Channel>) -> Vec<types::Entry> {
    client.list_entries(ListEntriesRequest::default()).await.unwrap().into_inner().entries
}

fn hinted(hint: &str, entry: &types::Entry) -> types::Entry {
    types::Entry { hint: hint.into(), ..entry.clone() }
}

fn update(entry: &types::Entry) -> Step {
    Step::Update(Box::new([entry.clone(), hinted("wanted", entry)]))
}

#[tokio::test]
async fn what_somebody_else_changed_meanwhile_is_left_alone_and_told() {
    let folder = TestFolder::new();
    let (_server, mut client) = server(&folder).await;
    let before = held(&mut client).await;
    let [a, b, c, d] = &before[..] else { panic!("four entries") };
    let steps = [update(a), update(b), update(c), Step::Create(entry("e", "/e")), Step::Delete(d.clone())];
    // Somebody else changes b and d, deletes c, and makes what was to be made.
    let entries = vec![hinted("theirs", b), hinted("theirs", d)];
    let request = BatchUpdateEntryRequest { entries, input_mask: None, output_mask: None };
    client.batch_update_entry(request).await.unwrap();
    client.batch_delete_entry(BatchDeleteEntryRequest { ids: vec!["c".into()] }).await.unwrap();
    let theirs = BatchCreateEntryRequest { entries: vec![entry("theirs", "/e")], output_mask: None };
    client.batch_create_entry(theirs).await.unwrap();

    let (outcomes, ended) = carry_out(&mut client, &steps).await;
    assert_eq!(ended, Ok(()));
    let [first, second, third, fourth, fifth] = &outcomes[..] else { panic!("one outcome a step") };
    assert_eq!(*first, Outcome::Done("a".into()));
    assert!(matches!(second, Outcome::Changed(what) if what.contains("it is at revision 1, and was at 0")));
    assert!(matches!(third, Outcome::Changed(what) if what.contains("deleted it meanwhile")));
    assert!(
        matches!(fourth, Outcome::Refused(status, Some(id)) if status.code == Code::AlreadyExists as i32 && id == "theirs")
    );
    assert!(matches!(fifth, Outcome::Changed(_)), "a deletion of what somebody changed is not carried out");
    let hints: Vec<_> = held(&mut client).await.into_iter().map(|entry| (entry.id, entry.hint)).collect();
    let expected = [("a", "wanted"), ("b", "theirs"), ("d", "theirs"), ("theirs", "")];
    assert_eq!(hints, expected.map(|(id, hint)| (id.to_owned(), hint.to_owned())));
}

#[tokio::test]
async fn an_entry_that_was_made_again_with_its_id_is_another() {
    let folder = TestFolder::new();
    let (_server, mut client) = server(&folder).await;
    let mut old = held(&mut client).await.remove(0);
    old.created_at -= 1;
    let (outcomes, _) = carry_out(&mut client, &[Step::Delete(old)]).await;
    assert!(matches!(&outcomes[..], [Outcome::Changed(_)]), "{outcomes:?}");
}

#[tokio::test]
async fn steps_behind_a_call_that_fails_are_not_tried() {
    let folder = TestFolder::new();
    let (_server, mut client) = server(&folder).await;
    let before = held(&mut client).await;
    // An item beyond the largest message.
    let wide = types::Entry { hint: "h".repeat(5 * 1024 * 1024), ..entry("wide", "/wide") };
    let steps = [update(&before[0]), Step::Create(wide), Step::Delete(before[1].clone())];
    let (outcomes, ended) = carry_out(&mut client, &steps).await;
    assert!(ended.expect_err("too large").what().contains("cannot create entries"));
    assert_eq!(outcomes, [Outcome::Done("a".into()), Outcome::NotTried, Outcome::NotTried]);
    assert_eq!(held(&mut client).await.len(), 4);
}

#[test]
fn an_update_that_counts_more_than_one_revision_went_over_somebody_elses() {
    let planned = types::Entry { revision_number: 3, ..entry("a", "/a") };
    let answered = |number: i64| {
        let now = types::Entry { revision_number: number, ..planned.clone() };
        updated(&planned, types::Status::default(), Some(&now))
    };
    assert_eq!(answered(4), Outcome::Done("a".into()));
    assert!(matches!(answered(5), Outcome::Overwrote(what) if what.ends_with("from revision 3 to 5")));
    let refused = types::Status { code: 5, ..types::Status::default() };
    assert_eq!(updated(&planned, refused.clone(), None), Outcome::Refused(refused, None));
}
