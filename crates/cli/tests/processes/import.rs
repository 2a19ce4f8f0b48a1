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
    assert_eq!(said, format!("Exported 4 entries to {file}.\n"));
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
