//! Backup.Read: a whole store at one revision, while others write.

use std::collections::BTreeSet;

use spindle_proto::admin::v1 as wire;
use spindle_proto::admin::v1::backup_client::BackupClient;
use spindle_proto::spire::api::server::entry::v1::BatchCreateEntryRequest;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::Reason;
use spindle_store::{Exported, Loaded, StoreConfig, StoreKind, check_export, import};
use tonic::{Code, Status};

use crate::support::{TestServer, code_of, entry, expect_refusal, id, in_time};

/// The store's kinds of records that one creation writes together.
const ENTRY: u8 = 1;
const SIMILARITY: u8 = 2;

async fn read(server: &TestServer) -> Result<Vec<u8>, Status> {
    let mut client = BackupClient::new(server.admin().await);
    let mut pieces = client.read(wire::ReadRequest {}).await?.into_inner();
    let mut file = Vec::new();
    while let Some(message) = in_time(pieces.message()).await? {
        assert!(!message.piece.is_empty());
        file.extend_from_slice(&message.piece);
    }
    Ok(file)
}

fn restored(file: &[u8]) -> Loaded {
    let config = StoreConfig { kind: StoreKind::Memory, dir: "unused".into(), history: [9; 16] };
    import(file, &config).unwrap().store.load().unwrap()
}

/// The names of the records of that kind, or their revisions.
fn of_kind<T: Ord>(loaded: &Loaded, kind: u8, what: impl Fn(&spindle_store::Record) -> T) -> BTreeSet<T> {
    loaded.records.iter().filter(|record| record.key.kind.0 == kind).map(what).collect()
}

async fn create(server: &TestServer, names: std::ops::Range<usize>) -> Vec<String> {
    let parent = id("/node");
    let entries = names.map(|n| entry(&parent, &format!("/n{n}"), &["unix:uid:1"])).collect();
    let request = BatchCreateEntryRequest { entries, output_mask: None };
    let results = server.entries().await.batch_create_entry(request).await.unwrap().into_inner().results;
    results
        .into_iter()
        .map(|result| {
            assert_eq!(code_of(&result.status), Code::Ok);
            result.entry.unwrap().id
        })
        .collect()
}

/// More than the windows of a connection hold, so that the server cannot be done with a backup before it is read.
async fn fill(server: &TestServer) {
    let parent = id("/node");
    for batch in 0..8 {
        let wide = |n: usize| types::Entry {
            hint: "h".repeat(1000),
            ..entry(&parent, &format!("/wide{batch}-{n}"), &["unix:uid:1"])
        };
        let request = BatchCreateEntryRequest { entries: (0..1000).map(wide).collect(), output_mask: None };
        server.entries().await.batch_create_entry(request).await.unwrap();
    }
}

#[tokio::test]
async fn a_backup_holds_one_revision_while_others_write() {
    for kind in [StoreKind::Memory, StoreKind::Sled, StoreKind::Redb] {
        let server = TestServer::start_with(|config| config.store.kind = kind).await;
        let before = create(&server, 0..300).await;
        let (during, file) = tokio::join!(create(&server, 300..600), read(&server));
        let file = file.unwrap();
        let exported: Exported = check_export(&file[..]).unwrap();
        let loaded = restored(&file);
        assert_eq!(exported.records, loaded.records.len() as u64);
        assert_eq!(loaded.revision.number, exported.revision.number);
        assert!(loaded.records.iter().all(|record| record.revision <= exported.revision.number));
        let names = of_kind(&loaded, ENTRY, |record| String::from_utf8(record.key.key.to_vec()).unwrap());
        assert!(before.iter().all(|name| names.contains(name)), "{kind}: what was answered before is there");
        let known: BTreeSet<_> = before.iter().chain(&during).cloned().collect();
        assert!(names.is_subset(&known), "{kind}");
        // Each creation writes its entry and its mark of likeness in one commit: both are there or neither is.
        let revision = |record: &spindle_store::Record| record.revision;
        assert_eq!(of_kind(&loaded, ENTRY, revision), of_kind(&loaded, SIMILARITY, revision), "{kind}");
        assert_eq!(
            restored(&read(&server).await.unwrap()).records.len(),
            loaded.records.len() + 2 * (600 - names.len())
        );
    }
}

#[tokio::test]
async fn one_backup_is_read_at_a_time_and_a_reader_that_goes_makes_room() {
    let server = TestServer::start().await;
    fill(&server).await;
    let mut first = BackupClient::new(server.admin().await);
    let held = first.read(wire::ReadRequest {}).await.unwrap();
    drop(held);
    let again = async {
        loop {
            match read(&server).await {
                Ok(file) => return file,
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}"),
            }
        }
    };
    check_export(&in_time(again).await[..]).unwrap();
}

#[tokio::test]
async fn a_second_reader_is_refused_while_the_first_one_reads() {
    let server = TestServer::start().await;
    fill(&server).await;
    let mut first = BackupClient::new(server.admin().await);
    let mut held = first.read(wire::ReadRequest {}).await.unwrap().into_inner();
    expect_refusal(read(&server).await, Code::ResourceExhausted, Reason::Overloaded);
    while in_time(held.message()).await.unwrap().is_some() {}
    check_export(&read(&server).await.unwrap()[..]).unwrap();
}

#[tokio::test]
async fn a_server_that_stops_ends_a_backup_with_its_reason() {
    let mut server = TestServer::start().await;
    fill(&server).await;
    let mut client = BackupClient::new(server.admin().await);
    let mut held = client.read(wire::ReadRequest {}).await.unwrap().into_inner();
    server.begin_stop();
    let end = loop {
        match in_time(held.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the file cannot be whole"),
            Err(status) => break status,
        }
    };
    expect_refusal(Err::<(), _>(end), Code::Unavailable, Reason::ServerStopping);
    server.stop().await;
}
