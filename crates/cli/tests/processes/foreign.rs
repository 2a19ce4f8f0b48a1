//! The commands about other trust domains, against a server that runs, as an operator would use them.

use std::fs;

use crate::domain::{Domain, NODE};

/// A running server, and a file with the roots of some trust domain.
fn start() -> (Domain, crate::process::Process, String) {
    let mut domain = Domain::new("sled");
    let server = domain.start_server();
    let roots = domain.text("roots.pem");
    fs::write(&roots, domain.server_done(&["bundle", "show"])).unwrap();
    (domain, server, roots)
}

#[test]
fn a_foreign_bundle_is_set_listed_used_and_deleted() {
    let (mut domain, mut server, roots) = start();
    assert_eq!(domain.server_done(&["bundle", "list"]), "");
    assert_eq!(
        domain.server_done(&["bundle", "set", "-id", "spiffe://other.example", "-path", &roots]),
        "bundle set.\n"
    );
    assert_eq!(domain.server_done(&["bundle", "count"]), "2 bundles\n");
    let pem = fs::read_to_string(&roots).unwrap();
    assert_eq!(domain.server_done(&["bundle", "list", "-id", "spiffe://other.example"]), pem);
    let edge = "*".repeat(40);
    assert_eq!(domain.server_done(&["bundle", "list"]), format!("{edge}\n* other.example\n{edge}\n{pem}"));
    // What one command prints the other takes.
    let document = domain.text("document.json");
    fs::write(
        &document,
        domain.server_done(&["bundle", "list", "-id", "other.example", "-format", "spiffe"]),
    )
    .unwrap();
    let set = ["bundle", "set", "-id", "third.example", "-path", &document, "-format", "spiffe"];
    assert_eq!(domain.server_done(&set), "bundle set.\n");
    let federated = [
        "entry",
        "create",
        "-spiffeID",
        "spiffe://example.org/web",
        "-parentID",
        NODE,
        "-selector",
        "unix:uid:1",
        "-federatesWith",
        "spiffe://other.example",
    ];
    assert!(domain.server_done(&federated).contains("FederatesWith           : other.example\n"));
    let used = domain.server(&["bundle", "delete", "-id", "spiffe://other.example"]);
    assert!(!used.ok && used.err.contains("federated with 1 registration entries (reason: bundle_in_use)"));
    let dissociated = ["bundle", "delete", "-id", "spiffe://other.example", "-mode", "dissociate"];
    assert_eq!(domain.server_done(&dissociated), "bundle deleted.\n");
    assert!(!domain.server_done(&["entry", "show"]).contains("FederatesWith"));
    let again = domain.server(&["bundle", "delete", "-id", "spiffe://other.example", "-output", "json"]);
    assert!(again.ok && again.out.contains(r#""code":5,"message":"bundle not found""#), "{}", again.out);
    drop(server);
    server = domain.start_server();
    assert!(domain.server_done(&["bundle", "list"]).contains("\n* third.example\n"));
    drop(server);
}

#[test]
fn a_relationship_is_created_shown_changed_and_deleted() {
    let (domain, server, roots) = start();
    let web = [
        "federation",
        "create",
        "-trustDomain",
        "a.example",
        "-bundleEndpointURL",
        "https://a.example/bundle",
        "-bundleEndpointProfile",
        "https_web",
    ];
    let shown = "\
Trust domain              : a.example
Bundle endpoint URL       : https://a.example/bundle
Bundle endpoint profile   : https_web
";
    assert_eq!(domain.server_done(&web), format!("\n{shown}"));
    let again = domain.server(&web);
    assert!(
        !again.ok
            && again.err.contains("(code: AlreadyExists, msg: \"federation relationship already exists\")")
    );
    assert!(
        again.err.contains("reason: relationship_exists\nError: failed to create one or more"),
        "{}",
        again.err
    );
    // The endpoint is in another trust domain than its bundle, which SPIRE's tool gets wrong.
    let spiffe = [
        "federation",
        "create",
        "-trustDomain",
        "b.example",
        "-bundleEndpointURL",
        "https://b.example:8443",
        "-bundleEndpointProfile",
        "https_spiffe",
        "-endpointSpiffeID",
        "spiffe://endpoint.example/server",
        "-trustDomainBundlePath",
        &roots,
    ];
    domain.server_done(&spiffe);
    assert_eq!(
        domain.server_done(&["bundle", "list", "-id", "b.example"]),
        fs::read_to_string(&roots).unwrap()
    );
    assert!(
        domain.server_done(&["federation", "list"]).starts_with("Found 2 federation relationships\n\nTrust")
    );
    let show = ["federation", "show", "-trustDomain", "a.example"];
    let expected = format!("Found a federation relationship with trust domain a.example:\n\n{shown}");
    assert_eq!(domain.server_done(&show), expected);
    let update = [
        "federation",
        "update",
        "-trustDomain",
        "a.example",
        "-bundleEndpointURL",
        "https://new.example/",
        "-bundleEndpointProfile",
        "https_web",
        "-output",
        "json",
    ];
    assert!(
        domain
            .server_done(&update)
            .contains(r#""bundle_endpoint_url":"https://new.example/","https_web":{}"#)
    );
    let refresh = domain.server(&["federation", "refresh", "-id", "spiffe://a.example"]);
    assert!(!refresh.ok && refresh.err.contains("does not fetch bundles yet"), "{}", refresh.err);
    let stranger = domain.server(&["federation", "refresh", "-id", "spiffe://c.example"]);
    let expected = "Error: there is no federation relationship with trust domain \"spiffe://c.example\"\n";
    assert!(stranger.err.starts_with(expected), "{}", stranger.err);
    let delete = ["federation", "delete", "-id", "spiffe://b.example"];
    assert_eq!(domain.server_done(&delete), "federation relationship deleted.\n");
    assert!(!domain.server(&delete).ok);
    assert_eq!(domain.server_done(&["bundle", "count"]), "2 bundles\n", "the bundle stays");
    drop(server);
}
