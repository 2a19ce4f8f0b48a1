use spindle_proto::spire::api::types;

use super::*;
use crate::output::json::ToJson;

const FULL: &str = r#"
trust_domain = "example.org"
entry "web" {
    spiffe_id = "spiffe://example.org/web"
    parent_id = "spiffe://example.org/node"
    selectors = ["unix:uid:1000", "unix:gid:5", "unix:uid:1000"]
    x509_svid_ttl = "1h"
    jwt_svid_ttl = 300
    federates_with = ["spiffe://other.org", "third.org"]
    admin = true
    downstream = true
    entry_expiry = 1700000000
    dns_names = ["web.example.org", "web"]
    hint = "external"
    additional_attributes { disable_x509_svid_prefetch = true, jwt_svid_include_jti = true }
}
"#;

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
}

fn selector(value: &str) -> types::Selector {
    types::Selector { r#type: "unix".into(), value: value.into() }
}

fn small() -> types::Entry {
    types::Entry {
        spiffe_id: id("/web"),
        parent_id: id("/node"),
        selectors: vec![selector("uid:1000")],
        ..types::Entry::default()
    }
}

fn full() -> types::Entry {
    types::Entry {
        selectors: vec![selector("gid:5"), selector("uid:1000")],
        x509_svid_ttl: 3600,
        jwt_svid_ttl: 300,
        federates_with: vec!["other.org".into(), "third.org".into()],
        admin: true,
        downstream: true,
        expires_at: 1_700_000_000,
        dns_names: vec!["web.example.org".into(), "web".into()],
        hint: "external".into(),
        additional_attributes: Some(types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: true,
        }),
        ..small()
    }
}

fn one(text: &str) -> Declared {
    let mut file = parse("f", text).unwrap();
    assert_eq!(file.entries.len(), 1, "{text}");
    file.entries.remove(0)
}

#[test]
fn a_named_block_sets_every_field() {
    let file = parse("web.hcl", FULL).unwrap();
    assert_eq!(file.trust_domain, Some("example.org".parse().unwrap()));
    let [entry] = &file.entries[..] else { panic!("one entry") };
    assert_eq!(entry.entry, full());
    assert_eq!((entry.name.as_deref(), entry.place.as_str()), (Some("web"), "web.hcl: entry.web (line 3)"));
}

#[test]
fn json_and_lists_and_spires_spellings_say_the_same() {
    let bare = r#""spiffe_id": "spiffe://example.org/web", "parent_id": "spiffe://example.org/node""#;
    for text in [
        format!(r#"{{"entry": {{"web": {{{bare}, "selectors": ["unix:uid:1000"]}}}}}}"#),
        format!(r#"{{"entries": [{{{bare}, "selectors": [{{"type": "unix", "value": "uid:1000"}}]}}]}}"#),
        r#"entries = [{ spiffe_id = "spiffe://example.org/web" parent_id = "spiffe://example.org/node" selectors = ["unix:uid:1000"] }]"#.into(),
        r#"entries { spiffe_id = "spiffe://example.org/web" parent_id = "spiffe://example.org/node" selectors { type = "unix" value = "uid:1000" } }"#.into(),
    ] {
        assert_eq!(one(&text).entry, small(), "{text}");
    }
    let spire = format!(
        r#"{{"entries": [{{{bare}, "entry_id": "e1", "entryExpiry": 7, "revision_number": 3, "created_at": 5,
            "selectors": [{{"type": "unix", "value": "uid:1000"}}], "additional_attributes": null}}]}}"#
    );
    let wanted =
        types::Entry { id: "e1".into(), expires_at: 7, revision_number: 3, created_at: 5, ..small() };
    assert_eq!(one(&spire).entry, wanted);
}

#[test]
fn what_entry_show_prints_as_json_is_read() {
    let shown = spindle_proto::spire::api::server::entry::v1::ListEntriesResponse {
        entries: vec![types::Entry { id: "e1".into(), revision_number: 2, created_at: 9, ..full() }],
        next_page_token: String::new(),
    };
    assert_eq!(one(&shown.to_json().to_string()).entry, shown.entries[0]);
}

#[test]
fn what_is_written_is_read_back_whole() {
    let entries = [
        types::Entry { id: "b".into(), created_at: 5, ..full() },
        types::Entry { id: "a".into(), ..small() },
        types::Entry { id: "c".into(), store_svid: true, ..small() },
    ];
    let text = write("example.org", &entries, &Federation::default());
    let file = parse("f", &text).unwrap();
    assert_eq!(file.trust_domain, Some("example.org".parse().unwrap()));
    let read: Vec<_> = file.entries.into_iter().map(|one| one.entry).collect();
    assert_eq!(read, [entries[1].clone(), entries[0].clone(), entries[2].clone()]);
    assert_eq!(text.lines().count(), 4 + 3 + 2, "one entry a line: {text}");
    assert!(parse("f", &write("example.org", &[], &Federation::default())).unwrap().entries.is_empty());
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let fault = parse("f.hcl", text).expect_err(text);
    assert!(fault.starts_with("f.hcl: ") && fault.contains(expected), "{fault}");
}

/// The small entry with one more line.
fn with(line: &str) -> String {
    format!(
        "entry \"web\" {{\nspiffe_id = \"spiffe://example.org/web\"\nparent_id = \"spiffe://example.org/node\"\n\
         selectors = [\"unix:uid:1\"]\n{line}\n}}"
    )
}

#[test]
fn faults_name_the_file_the_entry_and_the_key() {
    refused("", "entries = []");
    refused("trust_domain = \"example.org\"", "entries = []");
    refused("entries = 5", "entries (line 1) must be a list of blocks");
    refused("entries = [5]", "must be a list of blocks, not a number");
    refused("entry { spiffe_id = \"x\" }", "an entry stands behind a name");
    refused("entry \"we b\" { }", "letters, digits");
    refused("entri \"web\" { }", "did you mean entry?");
    refused("version = 2\nentries = []", "2 is not known here");
    refused("trust_domain = \"Exa mple\"\nentries = []", "trust_domain");
    refused("entry \"web\" { parent_id = \"spiffe://example.org/n\" }", "entry.web.spiffe_id is required");
    refused(
        &with("spifeid = \"x\""),
        "entry.web.spifeid (line 5) is not a known key; did you mean spiffe_id?",
    );
    refused(&with("entry_id = \"x\""), "gets its ID from it");
    refused(&with("hint = \"a\"\nhint = \"b\""), "entry.web.hint (line 6) is set twice");
    refused(&with("x509_svid_ttl = \"1d\""), "entry.web.x509_svid_ttl: neither seconds nor a duration");
    refused(&with("x509_svid_ttl = -1"), "entry.web: ");
    refused(&with("jwt_svid_ttl = 3000000000"), "3000000000 seconds are too many");
    refused(&with("admin = \"perhaps\""), "entry.web.admin");
    refused(&with("dns_names = [\"a..b\"]"), "\"a..b\" is not a DNS name");
    refused(&with("dns_names = \"a\""), "must be a list of texts");
    refused(&with("federates_with = [\"A b\"]"), "entry.web: ");
    refused(&with("additional_attributes { jti = true }"), "additional_attributes.jti");
    refused(&with("entry_expiry = 1\nexpires_at = 2"), "cannot both be set");
    refused(&with("selectors = [\"nocolon\"]"), "type:value");
    refused(&with("selectors = [5]"), "is no selector");
    refused(&with("selectors { kind = \"a\" }"), "selectors.kind");
    let bare =
        "entries = [{ spiffe_id = \"spiffe://example.org/web\" parent_id = \"spiffe://example.org/n\" }]";
    refused(bare, "selector list is empty");
    refused(
        "entries = [{ spiffe_id = \"example.org\" parent_id = \"x\" }]",
        "entries[0].spiffe_id: \"example.org\"",
    );
    refused("entries = [{ spiffe_id { path = \"/x\" } parent_id = \"x\" }]", "entries[0].spiffe_id");
    refused("entries = [", "line 1");
}

#[test]
fn an_entry_of_another_trust_domain_is_refused_for_a_server() {
    let entry = one(FULL);
    assert_eq!(entry.check(&"example.org".parse().unwrap()), Ok(()));
    let fault = entry.check(&"other.org".parse().unwrap()).expect_err("a stranger");
    assert!(fault.starts_with("f: entry.web (line 3): ") && fault.contains("other.org"), "{fault}");
}

#[test]
fn a_directory_is_read_in_the_order_of_its_names_and_nothing_is_passed_over_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let path = dir.path().to_str().unwrap();
    let what = || read(path).expect_err("a fault").what().to_owned();
    assert!(what().contains("there is no file in"), "{}", what());
    file("20.json", r#"{"entries": []}"#);
    file("10.hcl", FULL);
    file(".hidden", "{{{");
    let all = read(path).unwrap();
    assert_eq!((all.entries.len(), all.trust_domain.is_some()), (1, true));
    file("30.hcl", "trust_domain = \"other.org\"\nentries = []");
    assert!(what().contains("files before it are for"), "{}", what());
    file("30.hcl", "not an entry");
    assert!(what().contains("30.hcl: line 1"), "{}", what());
    std::fs::remove_file(dir.path().join("30.hcl")).unwrap();
    std::fs::create_dir(dir.path().join("more")).unwrap();
    assert!(what().contains("is not a file"), "{}", what());
    assert!(read("/nonexistent/file").expect_err("missing").what().contains("/nonexistent/file"));
}

fn federation() -> Federation {
    let authority = spindle_testkit::TestAuthority::new("other.example", spindle_testkit::NOW);
    let jwt_key = spindle_keys::Key::generate(spindle_keys::KeyType::EcP256).unwrap().spki_der().to_vec();
    let bundle = types::Bundle {
        trust_domain: "other.example".into(),
        x509_authorities: vec![types::X509Certificate {
            asn1: authority.ca().certificate().to_vec().into(),
            tainted: true,
        }],
        jwt_authorities: vec![types::JwtKey {
            public_key: jwt_key.into(),
            key_id: "k1".into(),
            expires_at: 1_900_000_000,
            tainted: false,
        }],
        refresh_hint: 60,
        sequence_number: 7,
        ..types::Bundle::default()
    };
    let endpoint_spiffe_id = "spiffe://other.example/spire/server".to_owned();
    let relationship = types::FederationRelationship {
        trust_domain: "other.example".into(),
        bundle_endpoint_url: "https://other.example/bundle".into(),
        bundle_endpoint_profile: Some(types::federation_relationship::BundleEndpointProfile::HttpsSpiffe(
            types::HttpsspiffeProfile { endpoint_spiffe_id },
        )),
        trust_domain_bundle: None,
    };
    let web = types::FederationRelationship {
        trust_domain: "web.example".into(),
        bundle_endpoint_url: "https://web.example/bundle".into(),
        bundle_endpoint_profile: Some(types::federation_relationship::BundleEndpointProfile::HttpsWeb(
            types::HttpsWebProfile {},
        )),
        trust_domain_bundle: None,
    };
    Federation { bundles: vec![bundle], relationships: vec![relationship, web] }
}

#[test]
fn bundles_and_relationships_come_back_whole() {
    let federation = federation();
    let text = write("example.org", &[], &federation);
    assert_eq!(parse("f", &text).unwrap().federation, federation);
}

#[test]
fn a_bundle_inside_a_relationship_counts_unless_it_stands_beside_it() {
    let Federation { bundles, relationships } = federation();
    let inside = types::FederationRelationship {
        trust_domain_bundle: Some(bundles[0].clone()),
        ..relationships[0].clone()
    };
    let alone = Federation { bundles: Vec::new(), relationships: vec![inside.clone()] };
    let read = parse("f", &write("example.org", &[], &alone)).unwrap().federation;
    assert_eq!((read.bundles, read.relationships), (bundles.clone(), relationships[..1].to_vec()));
    let both = Federation { bundles: bundles.clone(), relationships: vec![inside] };
    assert_eq!(parse("f", &write("example.org", &[], &both)).unwrap().federation.bundles, bundles);
}

#[test]
fn faults_of_bundles_and_relationships_are_named() {
    let good = write("example.org", &[], &federation());
    let refused = |from: &str, to: &str, expected: &str| {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{from}");
        let fault = parse("f", &text).expect_err(expected);
        assert!(fault.contains(expected), "{fault}");
    };
    refused("\"refresh_hint\"", "\"refresh_hnt\"", "bundles[0].refresh_hnt");
    refused("\"sequence_number\":\"7\"", "\"sequence_number\":-7", "is negative");
    refused("\"asn1\":\"", "\"asn1\":\"?", "bundles[0].x509_authorities[0].asn1: it is not in base64");
    refused("\"asn1\":\"MII", "\"asn1\":\"AAA", "bundles[0]: ");
    refused("https://web.example/bundle", "http://web.example/bundle", "federation_relationships[1]: ");
    refused("\"https_web\":{},", "", "federation_relationships[1]: ");
    refused("web.example\"", "other.example\"", "other.example is there twice");
    refused("  \"entries\": [],\n", "", "entries = []");
}
