//! `entry apply` and `entry lint` against a real server.

use std::fs;

use crate::domain::Domain;
use crate::process::Ended;

const TWO: &str = r#"
trust_domain = "example.org"
entry "web" {
    spiffe_id = "spiffe://example.org/web"
    parent_id = "spiffe://example.org/node"
    selectors = ["unix:uid:1000", "unix:gid:5"]
    x509_svid_ttl = "1h"
    dns_names = ["web.example.org", "a.example.org"]
    additional_attributes { jwt_svid_include_jti = true }
}
entries = [{
    spiffe_id = "spiffe://example.org/db"
    parent_id = "spiffe://example.org/web"
    selectors = ["unix:uid:7"]
    hint = "internal"
}]
"#;

fn apply(domain: &Domain, text: &str, more: &[&str]) -> Ended {
    fs::write(domain.file("entries.hcl"), text).unwrap();
    domain.server(&[&["entry", "apply", "-file", &domain.text("entries.hcl"), "-set", "team"], more].concat())
}

#[track_caller]
fn check(ended: &Ended, code: i32, sum: &str) {
    assert_eq!(ended.code, Some(code), "{}{}", ended.out, ended.err);
    assert!(ended.out.trim_end().ends_with(sum), "{}{}", ended.out, ended.err);
}

#[test]
fn files_are_applied_changed_and_pruned_and_a_second_run_does_nothing() {
    let mut domain = Domain::new("redb");
    let _server = domain.start_server();
    assert!(domain.create_entry(1).ok);
    check(
        &apply(&domain, TWO, &["-dryRun"]),
        2,
        "Plan: 2 to create, 0 to update, 0 to delete, 0 unchanged, 0 in conflict.",
    );
    check(
        &apply(&domain, TWO, &[]),
        0,
        "Done: 2 created, 0 updated, 0 deleted, 0 unchanged, 0 in conflict, 0 failed.",
    );
    for more in [&["-prune"][..], &["-dryRun"], &[]] {
        check(&apply(&domain, TWO, more), 0, "Nothing to do: 2 unchanged.");
    }
    let shown = domain.server_done(&["entry", "show", "-entryID", "team.web"]);
    for line in [
        "X509-SVID TTL           : 3600",
        "JwtSvidIncludeJti       : true",
        "Selector                : unix:gid:5",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    // The named one changes in place, the other one is left out.
    let less = TWO.split("entries =").next().unwrap().replace("uid:1000", "uid:1001").replace("1h", "2h");
    let changed = apply(&domain, &less, &[]);
    check(&changed, 0, "Done: 0 created, 1 updated, 0 deleted, 0 unchanged, 0 in conflict, 0 failed.");
    let changes = "~ update team.web  spiffe://example.org/web\n\
                   \x20   selectors [unix:gid:5 unix:uid:1000] -> [unix:gid:5 unix:uid:1001]\n\
                   \x20   x509_svid_ttl 3600 -> 7200\n";
    assert!(changed.out.starts_with(changes), "{}", changed.out);
    check(&apply(&domain, &less, &["-prune"]), 0, "1 deleted, 1 unchanged, 0 in conflict, 0 failed.");
    let none = apply(&domain, "entries = []", &["-prune"]);
    check(&none, 0, "1 deleted, 0 unchanged, 0 in conflict, 0 failed.");
    assert_eq!(domain.entries(), [crate::domain::entry_id(1)], "an entry made by hand is never pruned");
    check(&apply(&domain, "entries = []", &["-prune"]), 0, "Nothing to do: 0 unchanged.");
}

#[test]
fn another_sets_entries_and_a_servers_refusals_are_told() {
    let mut domain = Domain::new("redb");
    let _server = domain.start_server();
    check(
        &apply(&domain, TWO, &[]),
        0,
        "2 created, 0 updated, 0 deleted, 0 unchanged, 0 in conflict, 0 failed.",
    );
    // Of two sets with the same name in front neither touches the other's.
    fs::write(domain.file("none.hcl"), "entries = []").unwrap();
    let other = ["entry", "apply", "-file", &domain.text("none.hcl"), "-set", "tea", "-prune"];
    assert!(domain.server_done(&other).contains("Nothing to do: 0 unchanged."));
    let federated = r#"entry "f" { spiffe_id = "spiffe://example.org/f" parent_id = "spiffe://example.org/node"
        selectors = ["unix:uid:9"] federates_with = ["unknown.example"] }
        entry "g" { spiffe_id = "spiffe://example.org/g" parent_id = "spiffe://example.org/node" selectors = ["unix:uid:9"] }"#;
    let refused = apply(&domain, federated, &[]);
    check(&refused, 1, "Done: 1 created, 0 updated, 0 deleted, 0 unchanged, 0 in conflict, 1 failed.");
    assert!(refused.err.contains("reason: bundle_not_found"), "{}", refused.err);
    assert!(refused.err.contains("Error: 1 entry is not as declared\n  Try: "), "{}", refused.err);
    let json = apply(&domain, federated, &["-output", "json"]);
    assert_eq!((json.code, json.out.lines().count()), (Some(1), 1));
    assert!(json.out.contains("\"reason\":\"bundle_not_found\""), "{}", json.out);
    let taken = r#"entries = [{ entry_id = "mine" spiffe_id = "spiffe://example.org/db"
        parent_id = "spiffe://example.org/web" selectors = ["unix:uid:7"] }]"#;
    let conflict = apply(&domain, taken, &[]);
    check(&conflict, 1, "Nothing to do: 0 unchanged, 1 in conflict.");
    assert!(conflict.err.contains("under another ID"), "{}", conflict.err);
}

#[test]
fn a_fault_of_a_file_changes_nothing() {
    let mut domain = Domain::new("redb");
    let _server = domain.start_server();
    let refused = |text: &str, more: &[&str], expected: &str| {
        let ended = apply(&domain, text, more);
        assert_eq!(ended.code, Some(1), "{text}: {}", ended.out);
        assert!(ended.err.contains(expected) && ended.err.contains("  Try: "), "{text}: {}", ended.err);
    };
    refused("", &["-prune"], "entries = []");
    refused(&TWO.replace("unix:uid:7", "uid"), &[], "must be formatted as type:value");
    refused(&TWO.replace("hint", "hnt"), &[], "did you mean hint?");
    refused(
        &TWO.replace("trust_domain = \"example.org\"", "trust_domain = \"other.org\""),
        &[],
        "wrong_trust_domain",
    );
    refused(&TWO.replace("example.org/db", "other.org/db"), &[], "other.org");
    refused(
        &format!("{TWO}{}", TWO.split("entries =").nth(1).map(|rest| format!("entries ={rest}")).unwrap()),
        &[],
        "has the parent, SPIFFE ID and selectors of",
    );
    let unnamed = domain.server(&["entry", "apply", "-file", &domain.text("entries.hcl"), "-prune"]);
    assert!(!unnamed.ok && unnamed.err.contains("-set names none"), "{}", unnamed.err);
    assert!(domain.server_done(&["entry", "show"]).starts_with("Found 0 entries"));
}

#[test]
fn a_directory_of_a_thousand_entries_is_applied_in_a_few_calls() {
    let mut domain = Domain::new("redb");
    let _server = domain.start_server();
    let folder = domain.file("entries.d");
    fs::create_dir(&folder).unwrap();
    for file in 0..4 {
        let entry = |n: u32| {
            format!(
                "entry \"n{n}\" {{ spiffe_id = \"spiffe://example.org/n{n}\" parent_id = \"spiffe://example.org/node\" selectors = [\"unix:uid:{n}\"] }}\n"
            )
        };
        fs::write(
            folder.join(format!("{file}.hcl")),
            (file * 300..(file + 1) * 300).map(entry).collect::<String>(),
        )
        .unwrap();
    }
    let words = ["entry", "apply", "-file", folder.to_str().unwrap(), "-set", "many", "-prune"];
    let sum = "Done: 1200 created, 0 updated, 0 deleted, 0 unchanged, 0 in conflict, 0 failed.\n";
    assert!(domain.server_done(&words).ends_with(sum));
    assert_eq!(domain.server_done(&words), "Nothing to do: 1200 unchanged.\n");
    fs::remove_file(folder.join("1.hcl")).unwrap();
    let sum = "Done: 0 created, 0 updated, 300 deleted, 900 unchanged, 0 in conflict, 0 failed.\n";
    assert!(domain.server_done(&words).ends_with(sum));
}

#[test]
fn lint_asks_the_server_for_what_it_must_know() {
    let mut domain = Domain::new("redb");
    let _server = domain.start_server();
    let clean = domain.server(&["entry", "lint"]);
    assert_eq!(
        (clean.code, clean.out.as_str()),
        (Some(0), "Looked at 0 entries: 0 errors, 0 warnings, 0 notes.\n")
    );
    let mut agent = domain.first_agent();
    assert!(domain.create_entry(1).ok);
    domain.wait_until_served(&mut agent, &[crate::domain::entry_id(1)]);
    let ttl = [
        "entry",
        "create",
        "-spiffeID",
        "spiffe://example.org/long",
        "-parentID",
        "spiffe://example.org/node",
    ];
    domain.server_done(&[&ttl[..], &["-selector", "unx:uid:1", "-x509SVIDTTL", "90000"]].concat());
    let lost = [
        "entry",
        "create",
        "-spiffeID",
        "spiffe://example.org/lost",
        "-parentID",
        "spiffe://example.org/nowhere",
    ];
    domain.server_done(&[&lost[..], &["-selector", "unix:uid:1"]].concat());
    let found = domain.server(&["entry", "lint"]);
    assert_eq!(found.code, Some(1), "{}", found.out);
    for expected in
        ["[ttl_beyond_ca]", "did you mean unix?", "[parent_unreachable]", "entries: 2 errors, 1 warning, "]
    {
        assert!(found.out.contains(expected), "{expected}: {}", found.out);
    }
    assert_eq!(
        found.out.matches("[parent_unreachable]").count(),
        1,
        "the join token leads to the node: {}",
        found.out
    );
    let json = domain.server(&["entry", "lint", "-output", "json"]);
    assert!(json.out.contains("\"rule\":\"ttl_beyond_ca\"") && json.code == Some(1), "{}", json.out);
    // A file alone is looked at without a server; with one its entries lead to those of the file.
    fs::write(domain.file("entries.hcl"), TWO).unwrap();
    let file = domain.text("entries.hcl");
    let alone = crate::process::run("spindle-server", &["entry", "lint", "-file", &file]);
    assert_eq!(alone.code, Some(0), "{}{}", alone.out, alone.err);
    assert!(alone.out.contains("warning") && alone.out.contains("[parent_unreachable]"), "{}", alone.out);
    let asked = domain.server(&["entry", "lint", "-file", &file]);
    assert!(asked.code == Some(0) && !asked.out.contains("[parent_unreachable]"), "{}", asked.out);
}
