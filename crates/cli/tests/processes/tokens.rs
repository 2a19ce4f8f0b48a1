//! `jwt mint` against a real server, which is killed in between: the same key signs on.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use serde_json::{Value, json};

use crate::domain::Domain;

const MINT: &[&str] = &["jwt", "mint", "-spiffeID", "spiffe://example.org/web", "-audience", "db"];

/// Header and claims of a token.
fn parts(token: &str) -> (Value, Value) {
    let part = |at: usize| {
        let text = token.split('.').nth(at).unwrap();
        serde_json::from_slice(&BASE64_URL.decode(text).unwrap()).unwrap()
    };
    (part(0), part(1))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_minted_token_names_a_key_of_the_bundle_and_the_key_survives_a_kill() {
    let mut domain = Domain::new("sled");
    let mut server = domain.start_server();
    let printed = domain.server_done(MINT);
    let token = printed.strip_suffix('\n').unwrap();
    let (header, claims) = parts(token);
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("spiffe://example.org/web"), &json!(["db"])));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
    let bundle = json(&domain.server_done(&["bundle", "show", "-output", "json"]));
    assert_eq!(bundle["jwt_authorities"][0]["key_id"], header["kid"]);
    let document = json(&domain.server_done(&["bundle", "show", "-format", "spiffe"]));
    let jwt = document["keys"].as_array().unwrap().iter().find(|key| key["use"] == "jwt-svid").unwrap();
    assert_eq!(jwt["kid"], header["kid"]);

    server.kill();
    let mut server = domain.start_server();
    let minted = json(&domain.server_done(&[MINT, &["-ttl", "90s", "-output", "json"]].concat()));
    let (after, claims) = parts(minted["svid"]["token"].as_str().unwrap());
    assert_eq!(after, header);
    assert_eq!(minted["svid"]["expires_at"], claims["exp"].to_string());
    server.kill();
}

#[test]
fn a_token_that_ends_earlier_than_asked_for_is_told_of_and_goes_to_a_file() {
    let mut domain = Domain::new("sled");
    let _server = domain.start_server();
    let path = domain.text("token");
    let ended = domain.server(&[MINT, &["-ttl", "100h", "-write", &path]].concat());
    assert!(ended.ok, "{}", ended.err);
    assert_eq!(ended.out, format!("JWT-SVID written to {path}\n"));
    assert!(ended.err.starts_with("JWT-SVID lifetime was capped shorter than specified ttl; expires \""));
    let (header, _) = parts(&std::fs::read_to_string(domain.file("token")).unwrap());
    assert_eq!(header["typ"], "JWT");
    let refused = domain.server(&["jwt", "mint", "-spiffeID", "spiffe://other.org/web", "-audience", "db"]);
    assert!(!refused.ok && refused.err.contains("(reason: wrong_trust_domain)"), "{}", refused.err);
}
