use spindle_proto::refusal::item_refusal;
use spindle_proto::spire::api::server::entry::v1::*;

use super::*;
use crate::entry_file::write;
use crate::federation_plan::Federation;
use crate::output::json::ToJson;
use crate::testing::Screen;

fn id(path: &str) -> types::Spiffeid {
    types::Spiffeid { trust_domain: "example.org".into(), path: path.into() }
}

fn small() -> types::Entry {
    types::Entry {
        id: "e1".into(),
        spiffe_id: Some(id("/web")),
        parent_id: Some(id("/node")),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1000".into() }],
        revision_number: 3,
        ..types::Entry::default()
    }
}

fn full() -> types::Entry {
    types::Entry {
        x509_svid_ttl: 60,
        jwt_svid_ttl: 30,
        federates_with: vec!["other.org".into()],
        admin: true,
        downstream: true,
        expires_at: 1_700_000_000,
        dns_names: vec!["web".into()],
        store_svid: true,
        hint: "external".into(),
        created_at: 5,
        additional_attributes: Some(types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: true,
        }),
        ..small()
    }
}

const SMALL: &str = "\
Entry ID                : e1
SPIFFE ID               : spiffe://example.org/web
Parent ID               : spiffe://example.org/node
Revision                : 3
X509-SVID TTL           : default
JWT-SVID TTL            : default
Selector                : unix:uid:1000

";

const FULL: &str = "\
Entry ID                : e1
SPIFFE ID               : spiffe://example.org/web
Parent ID               : spiffe://example.org/node
Revision                : 3
Downstream              : true
X509-SVID TTL           : 60
JWT-SVID TTL            : 30
Expiration time         : 2023-11-14 22:13:20 +0000 UTC
Selector                : unix:uid:1000
FederatesWith           : other.org
DNS name                : web
Admin                   : true
StoreSvid               : true
Hint                    : external
DisableX509SvidPrefetch : true
JwtSvidIncludeJti       : true

";

#[test]
fn entries_are_shown_with_spires_labels() {
    let shown = |entries: &[types::Entry]| Screen::show(|console| show::pretty(console, entries)).out;
    assert_eq!(shown(&[]), "Found 0 entries\n");
    assert_eq!(shown(&[small()]), format!("Found 1 entry\n{SMALL}"));
    assert_eq!(shown(&[small(), full()]), format!("Found 2 entries\n{SMALL}{FULL}"));
}

#[test]
fn entries_are_sorted_by_id_parent_and_selectors() {
    let entry = |path: &str, parent: &str| types::Entry {
        spiffe_id: Some(id(path)),
        parent_id: Some(id(parent)),
        ..types::Entry::default()
    };
    let mut entries = [entry("/b", "/x"), entry("/a", "/y"), entry("/a", "/x")];
    show::sort(&mut entries);
    assert_eq!(entries, [entry("/a", "/x"), entry("/a", "/y"), entry("/b", "/x")]);
}

#[test]
fn json_leaves_out_unset_messages_and_shows_unset_scalars() {
    assert_eq!(
        small().to_json().to_string(),
        concat!(
            r#"{"admin":false,"created_at":"0","dns_names":[],"downstream":false,"expires_at":"0","federates_with":[],"#,
            r#""hint":"","id":"e1","jwt_svid_ttl":0,"parent_id":{"path":"/node","trust_domain":"example.org"},"#,
            r#""revision_number":"3","selectors":[{"type":"unix","value":"uid:1000"}],"#,
            r#""spiffe_id":{"path":"/web","trust_domain":"example.org"},"store_svid":false,"x509_svid_ttl":0}"#
        )
    );
    let attributes = full().to_json()["additional_attributes"].to_string();
    assert_eq!(attributes, r#"{"disable_x509_svid_prefetch":true,"jwt_svid_include_jti":true}"#);
}

fn status(code: i32, message: &str) -> Option<types::Status> {
    Some(types::Status { code, message: message.into(), ..types::Status::default() })
}

fn refusal(code: Code, reason: Reason) -> Option<types::Status> {
    Some(item_refusal(code, reason, "why".into()))
}

/// What `entry create` shows of one refused entry.
fn refused_create(status: Option<types::Status>, existing: Option<&str>) -> Screen {
    let results = vec![batch_create_entry_response::Result { status, entry: Some(small()) }];
    let response = BatchCreateEntryResponse { results };
    let created = create::Created { response, existing: vec![existing.map(str::to_owned)] };
    Screen::show(|console| create::pretty(console, &created))
}

#[test]
fn each_refused_item_shows_its_reason_and_what_to_try() {
    for (code, reason) in [
        (Code::Internal, Reason::BundleNotFound),
        (Code::Internal, Reason::StoreFailed),
        (Code::AlreadyExists, Reason::AlreadyExists),
        (Code::InvalidArgument, Reason::WrongTrustDomain),
    ] {
        let screen = refused_create(refusal(code, reason), None);
        assert!(screen.err.ends_with(&format!("{SMALL}reason: {}\n", reason.code())), "{}", screen.err);
        assert_eq!(screen.result.expect_err("refused").remedies(), [reason.remedy()]);
    }
}

#[test]
fn a_similar_entry_is_named_so_that_it_can_be_updated() {
    let screen = refused_create(refusal(Code::AlreadyExists, Reason::EntryExists), Some("e0"));
    assert!(screen.err.ends_with("reason: entry_exists\nexisting entry: e0\n"), "{}", screen.err);
    assert_eq!(screen.result.expect_err("refused").remedies(), [Reason::EntryExists.remedy()]);
}

#[test]
fn a_server_that_sends_no_reasons_is_understood_by_its_codes() {
    for (code, existing, remedy) in [
        (6, Some("e0"), Some(Reason::EntryExists.remedy())),
        (6, None, Some(Reason::AlreadyExists.remedy())),
        (5, None, Some(Reason::EntryNotFound.remedy())),
        (3, None, Some(Reason::BadRequest.remedy())),
        (13, None, Some("look at the server's log")),
        (1, None, None),
    ] {
        let screen = refused_create(status(code, "why"), existing);
        let head = if existing.is_some() { "existing entry: e0\n" } else { "" };
        assert!(screen.err.ends_with(&format!("{SMALL}{head}")), "{code}: {}", screen.err);
        let failure = screen.result.expect_err("refused");
        assert_eq!(failure.remedies(), remedy.as_slice(), "{code}");
    }
}

#[test]
fn the_entry_in_the_way_gives_its_id_and_its_place_to_the_refused_one() {
    let (mut refused, mut entry) = (status(6, "similar"), Some(types::Entry { id: "e0".into(), ..small() }));
    let asked = types::Entry { id: String::new(), ..small() };
    assert_eq!(fill_refused(&mut refused, &mut entry, Some(&asked)), Some("e0".into()));
    assert_eq!(entry, Some(asked));
    let (mut made, mut entry) = (status(0, "OK"), Some(small()));
    assert_eq!(fill_refused(&mut made, &mut entry, None), None);
    assert_eq!(entry, Some(small()));
}

#[test]
fn json_shows_the_reason_of_an_item_where_there_is_one() {
    let shown = |status: Option<types::Status>| status.expect("a status").to_json().to_string();
    assert_eq!(shown(status(5, "no")), r#"{"code":5,"message":"no"}"#);
    assert_eq!(
        shown(refusal(Code::NotFound, Reason::EntryNotFound)),
        r#"{"code":5,"message":"why","reason":"entry_not_found"}"#
    );
}

#[test]
fn a_refused_entry_is_shown_on_standard_error_and_fails_the_command() {
    let results = vec![
        batch_create_entry_response::Result { status: status(0, "OK"), entry: Some(small()) },
        batch_create_entry_response::Result {
            status: status(6, "similar entry exists"),
            entry: Some(small()),
        },
    ];
    let response = BatchCreateEntryResponse { results };
    let created = create::Created { response, existing: vec![None, None] };
    let screen = Screen::show(|console| create::pretty(console, &created));
    assert_eq!(screen.out, SMALL);
    let head = "Failed to create the following entry (code: AlreadyExists, msg: \"similar entry exists\"):\n";
    assert_eq!(screen.err, format!("{head}{SMALL}"));
    assert_eq!(screen.result.expect_err("one failed").what(), "failed to create one or more entries");
}

#[test]
fn a_refused_update_says_so() {
    let results =
        vec![batch_update_entry_response::Result { status: status(5, "no e1"), entry: Some(small()) }];
    let screen = Screen::show(|console| update::pretty(console, &BatchUpdateEntryResponse { results }));
    assert!(
        screen.err.starts_with("Failed to update the following entry (code: NotFound, msg: \"no e1\"):\n")
    );
    assert!(screen.result.is_err() && screen.out.is_empty());
}

fn deleted(codes: &[i32]) -> Screen {
    let results = codes.iter().enumerate().map(|(at, code)| batch_delete_entry_response::Result {
        status: status(*code, "why"),
        id: format!("e{at}"),
    });
    let response = BatchDeleteEntryResponse { results: results.collect() };
    Screen::show(|console| delete::pretty(console, &response))
}

#[test]
fn deletions_are_told_one_by_one_and_in_sum() {
    let screen = deleted(&[0]);
    assert_eq!(screen.out, "Deleted entry with ID: e0\n\n\nDeleted 1 entries successfully\n");
    let screen = deleted(&[0, 5]);
    assert!(screen.out.ends_with("Deleted 1 entries successfully, but failed to delete 1 entries\n"));
    assert_eq!(screen.err, "Failed to delete entry with ID e1 (code: NotFound, msg: \"why\")\n");
    assert_eq!(screen.result.expect_err("one failed").remedies(), [Reason::EntryNotFound.remedy()]);
    assert!(deleted(&[5, 5]).out.ends_with("Failed to delete 2 entries\n"));
}

#[test]
fn a_deletion_that_failed_says_why() {
    let status = refusal(Code::Internal, Reason::StoreFailed);
    let results = vec![batch_delete_entry_response::Result { status, id: "e0".into() }];
    let screen = Screen::show(|console| delete::pretty(console, &BatchDeleteEntryResponse { results }));
    assert!(screen.err.ends_with("msg: \"why\")\nreason: store_failed\n"), "{}", screen.err);
    assert_eq!(screen.result.expect_err("failed").remedies(), [Reason::StoreFailed.remedy()]);
}

fn create_args(change: impl FnOnce(&mut create::Args)) -> create::Args {
    let mut args = create::Args::default();
    args.entry.spiffe_id = Some("spiffe://example.org/web".into());
    args.entry.parent_id = Some("spiffe://example.org/node".into());
    args.entry.selectors = vec!["k8s:ns:production".into(), "k8s:sa:web".into()];
    change(&mut args);
    args
}

#[test]
fn flags_become_one_entry() {
    let entries = made(create::entries, &create_args(|_| {})).expect("complete");
    let entry = &entries[0];
    assert_eq!((&entry.spiffe_id, &entry.parent_id), (&Some(id("/web")), &Some(id("/node"))));
    assert_eq!((entry.selectors.len(), &entry.additional_attributes), (2, &None));
}

#[test]
fn a_node_entry_has_the_server_as_its_parent() {
    let args = create_args(|args| {
        args.node = true;
        args.entry.parent_id = None;
    });
    assert_eq!(made(create::entries, &args).unwrap()[0].parent_id, Some(id("/spire/server")));
}

#[test]
fn incomplete_flags_are_refused_by_what_is_missing() {
    let refused = |change: fn(&mut create::Args), expected: &str| {
        let fault = made(create::entries, &create_args(change)).expect_err(expected);
        assert!(fault.what().contains(expected), "{fault}");
        assert!(!fault.remedies().is_empty(), "{fault}");
    };
    refused(|args| args.entry.selectors.clear(), "at least one selector is required");
    refused(|args| args.entry.parent_id = None, "a parent ID is required if the node flag is not set");
    refused(|args| args.entry.parent_id = Some(String::new()), "a parent ID is required");
    refused(|args| args.entry.spiffe_id = None, "a SPIFFE ID is required");
    refused(|args| args.entry.spiffe_id = Some("web".into()), "-spiffeID \"web\"");
    refused(|args| args.entry.parent_id = Some("http://x/y".into()), "-parentID");
    refused(|args| args.entry.selectors.push("k8s".into()), "type:value");
    refused(|args| args.entry.x509_svid_ttl = -1, "positive x509-SVID TTL");
    refused(|args| args.entry.jwt_svid_ttl = -1, "positive JWT-SVID TTL");
    refused(
        |args| {
            args.node = true;
            args.entry.federates_with.push("spiffe://other.org".into());
        },
        "node entries can not federate",
    );
    refused(|args| args.entry.data = Some("/nonexistent".into()), "/nonexistent");
}

#[test]
fn an_update_needs_the_id_of_its_entry() {
    let args = update::Args { entry: create_args(|_| {}).entry, ..update::Args::default() };
    assert_eq!(made(update::entries, &args).expect_err("no id").what(), "entry ID is required");
    let entry = EntryFlags { entry_id: Some("e1".into()), ..args.entry };
    assert_eq!(
        made(update::entries, &update::Args { entry, ..update::Args::default() }).unwrap()[0].id,
        "e1"
    );
}

#[test]
fn a_delete_needs_an_id_or_a_file() {
    assert!(delete::ids(&delete::Args::default()).is_err());
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join("ids.json");
        std::fs::write(&path, text).unwrap();
        delete::ids(&delete::Args { file: Some(path.to_str().unwrap().into()), ..delete::Args::default() })
    };
    assert_eq!(file(r#"{"ids": ["a", "b"]}"#).unwrap(), ["a", "b"]);
    assert!(file(r#"["a"]"#).is_err());
    assert!(file(r#"{"id": ["a"]}"#).is_err());
}

/// The entries that the flags of `create` or `update` describe.
fn made<A>(
    entries: impl FnOnce(&A, &mut Console<'_>) -> Result<Vec<types::Entry>, Failure>,
    args: &A,
) -> Result<Vec<types::Entry>, Failure> {
    let mut read = Vec::new();
    let screen = Screen::show(|console| {
        read = entries(args, console)?;
        Ok(())
    });
    screen.result.map(|()| read)
}

#[test]
fn data_files_hold_spires_json_of_entries() {
    let entries = data::parse(
        r#"{"entries": [{"selectors": [{"type": "unix", "value": "uid:1"}], "spiffe_id": "spiffe://example.org/a",
            "parent_id": "spiffe://example.org/spire/server", "x509_svid_ttl": 200, "jwt_svid_ttl": 30,
            "federates_with": ["spiffe://other.org"], "admin": true, "dns_names": ["a"], "entryExpiry": 9,
            "hint": "h", "store_svid": true, "additional_attributes": {"jwt_svid_include_jti": true}}]}"#,
    )
    .expect("all known");
    assert!(!entries.has_federation);
    let entry = &entries.entries[0];
    assert_eq!((entry.x509_svid_ttl, entry.jwt_svid_ttl, entry.expires_at), (200, 30, 9));
    assert_eq!((entry.federates_with.as_slice(), entry.admin), (&["other.org".to_owned()][..], true));
    assert!(entry.additional_attributes.as_ref().is_some_and(|set| set.jwt_svid_include_jti));
}

#[test]
fn what_export_writes_can_be_created_and_what_is_passed_over_is_told() {
    let given = types::Entry {
        id: "e1".into(),
        spiffe_id: Some(id("/web")),
        parent_id: Some(id("/node")),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
        federates_with: vec!["other.org".into()],
        expires_at: 12,
        created_at: 9,
        revision_number: 3,
        ..types::Entry::default()
    };
    let mut federation = Federation::default();
    let read = |federation: &Federation| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), write("example.org", std::slice::from_ref(&given), federation)).unwrap();
        let mut read = Vec::new();
        let screen = Screen::show(|console| {
            read = data::read(file.path().to_str().unwrap(), console)?;
            Ok(())
        });
        (read, screen)
    };
    let (entries, screen) = read(&federation);
    assert_eq!((entries.len(), screen.err.as_str(), screen.result), (1, "", Ok(())));
    assert_eq!((&entries[0].id, &entries[0].spiffe_id), (&given.id, &given.spiffe_id));
    assert_eq!((&entries[0].selectors, entries[0].expires_at), (&given.selectors, 12));
    federation.bundles.push(types::Bundle { trust_domain: "other.org".into(), ..Default::default() });
    let (entries, screen) = read(&federation);
    assert_eq!((entries.len(), screen.result), (1, Ok(())));
    assert!(
        screen.err.starts_with("Note: bundles and relationships of the file are left alone"),
        "{}",
        screen.err
    );
}

#[test]
fn malformed_data_files_are_refused_by_entry() {
    let refused = |text: &str, expected: &str| {
        let what = data::parse(text).expect_err(text);
        assert!(what.contains(expected), "{text}: {what}");
    };
    refused("", "EOF");
    refused("[]", "expected");
    refused("{}", "missing field `entries`");
    refused(r#"{"entries": [], "bundle": []}"#, "unknown field `bundle`");
    refused(r#"{"version": 1, "bundles": []}"#, "missing field `entries`");
    refused(r#"{"entries": [{}]}"#, "entry 0: spiffe_id");
    refused(r#"{"entries": [{"spiffe_id": "spiffe://a/b"}]}"#, "entry 0: parent_id");
    refused(r#"{"entries": [{"spiffe_id": "x", "parent_id": "spiffe://a/b"}]}"#, "spiffe_id \"x\"");
    refused(r#"{"entries": [{"selector": []}]}"#, "unknown field `selector`");
    refused(r#"{"entries": [{"selectors": [{"type": "unix"}]}]}"#, "missing field `value`");
    refused(r#"{"entries": [{"x509_svid_ttl": 3000000000}]}"#, "invalid value");
    let federates = r#"{"entries": [{"spiffe_id": "spiffe://a/b", "parent_id": "spiffe://a/b", "federates_with": ["A B"]}]}"#;
    refused(federates, "federates_with \"A B\"");
}
