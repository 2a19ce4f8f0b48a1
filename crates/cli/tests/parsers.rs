//! The parsers against random bytes, and against good inputs with a few bytes changed. The same checks run without end in
//! `tests/fuzz`.

#[path = "../../spiffe-core/tests/support/explore.rs"]
mod explore;
#[path = "support/invariants.rs"]
mod invariants;

use explore::explore;

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"))).expect("an example")
}

#[test]
fn configuration_files() {
    let json = br#"{"server": {"trust_domain": "td", "bind_port": 8081, "admin_ids": ["spiffe://td/a"]}}"#;
    let roles = br#"server { roles { reader "unix:uid:7" {}
        registrar "spiffe://td/ci" { path_prefix = "/ci/" verbs = ["create"] max_x509_svid_ttl = "1h" } } }"#;
    let oidc = sample("oidc-discovery-provider.conf");
    let samples = [sample("server.hcl"), sample("agent.hcl"), oidc, json.to_vec(), roles.to_vec()];
    explore(&samples, invariants::config_text);
}

#[test]
fn durations() {
    explore(
        &["1h30m", "1.5h", "300ms", "0", "+1us", "-1s"].map(|text| text.into()),
        invariants::duration_text,
    );
}

#[test]
fn role_texts() {
    let texts = ["/", "/ci", "/ci/a/", "/other", "unix:uid:7", "unix:gid:0", "spiffe://td/ci"];
    explore(&texts.map(|text| text.into()), invariants::role_texts);
}

#[test]
fn go_style_flags() {
    let lines =
        ["create -spiffeID spiffe://td/a -selector a:b -selector=c:d -admin", "create --admin=false -h"];
    explore(&lines.map(|line| line.replace(' ', "\0").into()), invariants::go_flag_arguments);
}

#[test]
fn files_of_entries() {
    let hcl = br#"trust_domain = "td"
entry "web" {
    spiffe_id = "spiffe://td/web" parent_id = "spiffe://td/node" selectors = ["unix:uid:1000", "unix:gid:5"]
    x509_svid_ttl = "1h30m" jwt_svid_ttl = 300 federates_with = ["spiffe://other", "third"] dns_names = ["a.b", "*.c"]
    entry_expiry = 1700000000 hint = "x" additional_attributes { jwt_svid_include_jti = true }
}
entries = [{ spiffe_id { trust_domain = "td" path = "/db" } parent_id = "spiffe://td/web" selectors { type = "a" value = "b" } }]
"#;
    let json = br#"{"version": 1, "entries": [{"entry_id": "e1", "spiffe_id": "spiffe://td/a", "parent_id": "spiffe://td/b",
"selectors": [{"type": "unix", "value": "uid:1"}], "entryExpiry": 7, "admin": true, "created_at": 5}]}"#;
    explore(&[hcl.to_vec(), json.to_vec(), b"entries = []".to_vec()], invariants::entry_file_text);
}
