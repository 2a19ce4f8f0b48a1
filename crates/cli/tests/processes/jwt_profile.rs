//! `api fetch jwt` and `api validate jwt`: SPIRE's output, and its exit codes.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::domain::{Domain, entry_id};
use crate::process::{Ended, run};

const ID: &str = "spiffe://example.org/n1";

fn agent(domain: &Domain, words: &[&str]) -> Ended {
    run("spindle-agent", &[words, &["-socketPath", &domain.text("agent.sock")]].concat())
}

/// A served domain whose server and agent end with what is returned.
fn served() -> (Domain, [crate::process::Process; 2]) {
    let mut domain = Domain::new("memory");
    let server = domain.start_server();
    assert!(domain.create_entry(1).ok);
    let mut agent = domain.first_agent();
    domain.wait_until_served(&mut agent, &[entry_id(1)]);
    (domain, [server, agent])
}

fn json(ended: &Ended) -> Value {
    assert!(ended.ok, "{}", ended.err);
    serde_json::from_str(&ended.out).expect("one line of JSON")
}

#[test]
fn tokens_are_fetched_for_people_and_for_programs_and_validated() {
    let (domain, _running) = served();
    let pretty = agent(&domain, &["api", "fetch", "jwt", "-audience", "db,cache"]);
    assert!(pretty.ok, "{}", pretty.err);
    let lines: Vec<&str> = pretty.out.lines().collect();
    assert_eq!(lines[0], format!("token({ID}):"));
    let token = lines[1].strip_prefix('\t').expect("the token is indented");
    assert_eq!(lines[2..4], ["bundle(spiffe://example.org):", "\t{"]);

    let both = json(&agent(
        &domain,
        &["api", "fetch", "jwt", "-audience", "db", "-audience", "cache", "-output", "json"],
    ));
    let svid = &both[0]["svids"][0];
    assert_eq!((&svid["spiffe_id"], &svid["svid"], &svid["hint"]), (&ID.into(), &token.into(), &"".into()));
    let bundle = both[1]["bundles"]["spiffe://example.org"].as_str().expect("bytes in base64");
    let keys: Value = serde_json::from_slice(&BASE64_STANDARD.decode(bundle).unwrap()).unwrap();
    assert!(keys["keys"][0]["kid"].is_string(), "{keys}");
    let old_name =
        json(&agent(&domain, &["api", "fetch", "jwt", "-audience", "db,cache", "-format", "json"]));
    assert_eq!(old_name, both);

    let valid = agent(&domain, &["api", "validate", "jwt", "-audience", "cache", "-svid", token]);
    assert!(valid.ok, "{}", valid.err);
    let lines: Vec<&str> = valid.out.lines().collect();
    assert_eq!(lines[..2], ["SVID is valid.", &format!("SPIFFE ID : {ID}")]);
    let claims: Value = serde_json::from_str(lines[2].strip_prefix("Claims    : ").unwrap()).unwrap();
    assert_eq!((&claims["sub"], claims["exp"].is_i64()), (&ID.into(), true), "{claims}");
    let program = json(&agent(
        &domain,
        &["api", "validate", "jwt", "-audience", "db", "-svid", token, "-output", "json"],
    ));
    assert_eq!((&program["spiffe_id"], &program["claims"]), (&ID.into(), &claims));
}

#[test]
fn what_is_not_valid_or_not_granted_ends_with_one_and_says_why() {
    let (domain, _running) = served();
    let fetched = json(&agent(&domain, &["api", "fetch", "jwt", "-audience", "db", "-output", "json"]));
    let token = fetched[0]["svids"][0]["svid"].as_str().unwrap();
    let other = agent(&domain, &["api", "validate", "jwt", "-audience", "mail", "-svid", token]);
    assert!(!other.ok && other.err.starts_with("SVID is not valid: the token is not for"), "{}", other.err);
    let broken = agent(&domain, &["api", "validate", "jwt", "-audience", "db", "-svid", "a.b"]);
    assert!(!broken.ok && broken.err.starts_with("SVID is not valid: "), "{}", broken.err);
    let stranger = ["api", "fetch", "jwt", "-audience", "db", "-spiffeID", "spiffe://example.org/other"];
    let denied = agent(&domain, &stranger);
    assert!(!denied.ok && denied.err.contains("no identity issued"), "{}", denied.err);
    let malformed = agent(&domain, &["api", "fetch", "jwt", "-audience", "db", "-spiffeID", "other"]);
    assert!(!malformed.ok && malformed.err.contains("invalid requested SPIFFE ID"), "{}", malformed.err);
    for ended in [other, broken, denied, malformed] {
        assert_eq!(ended.out, "", "nothing is printed that could be taken for a token");
    }
}
