//! `export` and `import` between two real servers.

use std::fs;

use crate::domain::Domain;
use crate::process::run;

/// An entry with everything that can be set.
fn create_full(domain: &Domain) {
    domain.server_done(&[
        "entry",
        "create",
        "-entryID",
        "full",
        "-spiffeID",
        "spiffe://example.org/full",
        "-parentID",
        "spiffe://example.org/node",
        "-selector",
        "unix:uid:1",
        "-selector",
        "k8s:ns:prod",
        "-x509SVIDTTL",
        "600",
        "-jwtSVIDTTL",
        "300",
        "-admin",
        "-downstream",
        "-entryExpiry",
        "4000000000",
        "-dns",
        "b.example.org",
        "-dns",
        "a.example.org",
        "-hint",
        "external",
        "-disableX509SVIDPrefetch",
        "-jwtSVIDIncludeJTI",
    ]);
}

/// The file that `export` prints, without the times of making, which are the server's.
fn exported(domain: &Domain) -> String {
    let text = domain.server_done(&["export"]);
    let line = |line: &str| {
        let mut rest = line;
        let mut kept = String::new();
        while let Some((before, after)) = rest.split_once("\"created_at\":") {
            kept.push_str(before);
            rest = after.split_once(',').unwrap().1;
        }
        kept + rest + "\n"
    };
    text.lines().map(line).collect()
}

#[test]
fn what_one_server_exports_the_other_imports_with_every_field() {
    let (mut from, mut to) = (Domain::new("redb"), Domain::new("sled"));
    let (_one, _other) = (from.start_server(), to.start_server());
    create_full(&from);
    (1..=3).for_each(|n| assert!(from.create_entry(n).ok));
    let address = format!("unix://{}", from.text("server.sock"));
    let dry = to.server(&["import", "-from", &address, "-dryRun"]);
    assert_eq!(dry.code, Some(2), "{}{}", dry.out, dry.err);
    assert!(
        dry.out.ends_with("Plan: 4 to create, 0 to update, 0 to delete, 0 unchanged, 0 in conflict.\n"),
        "{}",
        dry.out
    );
    assert!(to.server_done(&["entry", "show"]).starts_with("Found 0"));
    let sum = "Done: 4 created, 0 updated, 0 deleted, 0 unchanged, 0 in conflict, 0 failed.\n";
    assert!(to.server_done(&["import", "-from", &address]).ends_with(sum));
    assert_eq!(exported(&to), exported(&from), "IDs and fields");
    assert_eq!(to.server_done(&["import", "-from", &address]), "Nothing to do: 4 unchanged.\n");

    // The same by a file, which `entry apply` reads, too.
    let file = from.text("entries.json");
    let said = from.server_done(&["export", "-to", &file]);
    assert_eq!(said, format!("Exported 4 entries, 0 bundles and 0 relationships to {file}.\n"));
    assert_eq!(to.server_done(&["import", "-file", &file]), "Nothing to do: 4 unchanged.\n");
    assert_eq!(to.server_done(&["entry", "apply", "-file", &file]), "Nothing to do: 4 unchanged.\n");
    let mut third = Domain::new("redb");
    let _third = third.start_server();
    assert!(third.server_done(&["import", "-file", &file]).ends_with(sum));
    assert_eq!(exported(&third), exported(&from));
}

#[test]
fn differences_are_conflicts_unless_they_are_to_be_changed() {
    let (mut from, mut to) = (Domain::new("redb"), Domain::new("redb"));
    let (_one, _other) = (from.start_server(), to.start_server());
    create_full(&from);
    assert!(from.create_entry(1).ok && from.create_entry(2).ok);
    // The same ID with other fields, and the same entry under another ID.
    to.server_done(&[
        "entry",
        "create",
        "-entryID",
        "full",
        "-spiffeID",
        "spiffe://example.org/full",
        "-parentID",
        "spiffe://example.org/node",
        "-selector",
        "unix:uid:1",
    ]);
    assert!(to.create_entry(1).ok);
    let source = from.text("server.sock");
    let partly = to.server(&["import", "-from", &source]);
    assert_eq!(partly.code, Some(1));
    assert!(partly.err.contains("entry full is there and differs: selectors [unix:uid:1] -> [k8s:ns:prod unix:uid:1], x509_svid_ttl 0 -> 600"), "{}", partly.err);
    assert!(partly.err.contains("under another ID"), "{}", partly.err);
    assert!(
        partly
            .out
            .ends_with("Done: 1 created, 0 updated, 0 deleted, 0 unchanged, 2 in conflict, 0 failed.\n"),
        "{}",
        partly.out
    );
    let changed = to.server(&["import", "-from", &source, "-update"]);
    assert!(
        changed
            .out
            .ends_with("Done: 0 created, 1 updated, 0 deleted, 1 unchanged, 1 in conflict, 0 failed.\n"),
        "{}",
        changed.out
    );
    let json = to.server(&["import", "-from", &source, "-output", "json"]);
    assert!(json.code == Some(1) && json.out.contains("\"unchanged\":2"), "{}", json.out);
}

#[test]
fn another_trust_domain_or_no_server_is_refused() {
    let mut to = Domain::new("redb");
    let _server = to.start_server();
    let refused = |words: &[&str], expected: &str| {
        let ended = to.server(words);
        assert!(!ended.ok && ended.err.contains(expected), "{words:?}: {}", ended.err);
    };
    fs::write(to.file("foreign.json"), r#"{"trust_domain": "other.org", "entries": []}"#).unwrap();
    let (foreign, nothing) = (to.text("foreign.json"), to.text("nothing.sock"));
    refused(&["import", "-file", &foreign], "(reason: wrong_trust_domain)");
    refused(&["import", "-from", &nothing], "there is no socket at");
    refused(&["import"], "a source is required");
    fs::write(
        to.file("unknown.json"),
        r#"{"entries": [{"spiffe_id": "spiffe://example.org/a", "parent_id": "spiffe://example.org/b",
            "selectors": ["unix:uid:1"], "federates_with": ["unknown.example"]}]}"#,
    )
    .unwrap();
    refused(
        &["import", "-file", &to.text("unknown.json")],
        "it federates with unknown.example, of which there is no bundle here",
    );
    assert!(to.server_done(&["entry", "show"]).starts_with("Found 0"));
    let stopped = run("spindle-server", &["export", "-socketPath", &nothing]);
    assert!(!stopped.ok && stopped.out.is_empty(), "{}", stopped.out);
}

#[test]
fn bundles_and_relationships_come_first_so_that_entries_can_federate() {
    let (mut from, mut to) = (Domain::new("redb"), Domain::new("redb"));
    let (_one, _other) = (from.start_server(), to.start_server());
    // Any bundle will do; this one is a document of the server's own.
    fs::write(from.file("bundle.json"), from.server_done(&["bundle", "show", "-format", "spiffe"])).unwrap();
    let bundle = from.text("bundle.json");
    from.server_done(&[
        "bundle",
        "set",
        "-id",
        "spiffe://other.example",
        "-format",
        "spiffe",
        "-path",
        &bundle,
    ]);
    from.server_done(&[
        "federation",
        "create",
        "-trustDomain",
        "other.example",
        "-bundleEndpointURL",
        "https://127.0.0.1:1/b",
        "-bundleEndpointProfile",
        "https_spiffe",
        "-endpointSpiffeID",
        "spiffe://other.example/spire/server",
    ]);
    from.server_done(&[
        "entry",
        "create",
        "-entryID",
        "fed",
        "-spiffeID",
        "spiffe://example.org/fed",
        "-parentID",
        "spiffe://example.org/node",
        "-selector",
        "unix:uid:1",
        "-federatesWith",
        "spiffe://other.example",
    ]);
    let source = from.text("server.sock");
    let dry = to.server(&["import", "-from", &source, "-dryRun"]);
    assert_eq!(dry.code, Some(2), "{}{}", dry.out, dry.err);
    assert!(
        dry.out.contains(
            "Bundles and relationships: 2 to create, 0 to update, 0 unchanged, 0 in conflict, 0 failed.\n"
        ),
        "{}",
        dry.out
    );
    assert!(
        dry.out.ends_with("Plan: 1 to create, 0 to update, 0 to delete, 0 unchanged, 0 in conflict.\n"),
        "{}",
        dry.out
    );
    let done = to.server_done(&["import", "-from", &source]);
    assert!(done.starts_with("+ create bundle of other.example\n"), "{done}");
    assert!(
        done.contains(
            "Bundles and relationships: 2 created, 0 updated, 0 unchanged, 0 in conflict, 0 failed.\n"
        ),
        "{done}"
    );
    assert_eq!(exported(&to), exported(&from));
    let again = "Bundles and relationships: 0 created, 0 updated, 2 unchanged, 0 in conflict, 0 failed.\nNothing to do: 1 unchanged.\n";
    assert_eq!(to.server_done(&["import", "-from", &source]), again);
    let file = from.text("all.json");
    from.server_done(&["export", "-to", &file]);
    assert_eq!(to.server_done(&["import", "-file", &file]), again);
    let applied = to.server(&["entry", "apply", "-file", &file]);
    assert!(
        applied.ok && applied.err.contains("bundles and relationships of the files are left alone"),
        "{}",
        applied.err
    );

    // What differs is a conflict until it is to be changed.
    from.server_done(&[
        "federation",
        "update",
        "-trustDomain",
        "other.example",
        "-bundleEndpointURL",
        "https://127.0.0.1:2/b",
        "-bundleEndpointProfile",
        "https_web",
    ]);
    let kept = to.server(&["import", "-from", &source]);
    assert_eq!(kept.code, Some(1));
    assert!(
        kept.err.contains(
            "Conflict: relationship with other.example: it is here and differs: bundle_endpoint_url"
        ),
        "{}",
        kept.err
    );
    let changed = to.server_done(&["import", "-from", &source, "-update"]);
    assert!(changed.contains("0 created, 1 updated, 1 unchanged, 0 in conflict, 0 failed.\n"), "{changed}");
    assert_eq!(exported(&to), exported(&from), "the bundle is still there");
}
