//! JWT-SVIDs: minting for administrators, signing for agents, and what is refused. Every token is verified by another
//! implementation under the bundle that the server hands out.

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use spindle_keys::KeyType;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::server::svid::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_server::{KeySettings, StoreKind};
use spindle_spiffe_core::{Bundle, Clock, Reason};
use spindle_testkit::NOW;
use tonic::{Code, Status};

use crate::following::Following;
use crate::support::{
    CA_TTL_SECS, TestAgent, TestServer, entry, expect_refusal, foreign_id, id, in_time, wire_id,
};

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// A request for `/web` and the audience `db`.
fn request() -> wire::MintJwtsvidRequest {
    wire::MintJwtsvidRequest { id: Some(wire_id("/web")), audience: texts(&["db"]), ttl: 0 }
}

async fn mint(server: &TestServer, request: wire::MintJwtsvidRequest) -> Result<types::Jwtsvid, Status> {
    let answer = in_time(server.svids().await.mint_jwtsvid(request)).await?.into_inner();
    Ok(answer.svid.expect("an SVID"))
}

/// Asks for a token of an entry, for these services.
async fn new_for(agent: &TestAgent, entry_id: &str, audience: &[&str]) -> Result<types::Jwtsvid, Status> {
    let request = wire::NewJwtsvidRequest { entry_id: entry_id.into(), audience: texts(audience) };
    let answer = in_time(agent.svids().new_jwtsvid(request)).await?.into_inner();
    Ok(answer.svid.expect("an SVID"))
}

/// The claims, once the bundle vouches for the token and the audience is right. Its lifetime is for the caller to judge.
fn claims_under(bundle: &Bundle, token: &str, audience: &str) -> Result<Value, String> {
    let header = decode_header(token).map_err(|error| error.to_string())?;
    let authority = bundle.jwt_authority(header.kid.as_deref().unwrap()).ok_or("the key is unknown")?;
    let jwk = serde_json::to_value(authority.key().to_jwk()).unwrap();
    let key = DecodingKey::from_jwk(&serde_json::from_value(jwk).unwrap()).unwrap();
    let mut validation = Validation::new(header.alg);
    validation.validate_exp = false;
    validation.set_audience(&[audience]);
    decode::<Value>(token, &key, &validation).map(|data| data.claims).map_err(|error| error.to_string())
}

/// The claims of an answered SVID, all of whose fields agree with its token.
async fn verified(server: &TestServer, svid: &types::Jwtsvid, audience: &str) -> Value {
    let claims = claims_under(&server.bundle().await, &svid.token, audience).unwrap();
    let spiffe_id = svid.id.as_ref().unwrap();
    assert_eq!(claims["sub"], format!("spiffe://{}{}", spiffe_id.trust_domain, spiffe_id.path));
    assert_eq!((&claims["exp"], &claims["iat"]), (&json!(svid.expires_at), &json!(svid.issued_at)));
    assert_eq!(svid.issued_at, server.clock.now().unix_secs());
    claims
}

/// Seconds from the test's first moment to the end.
fn lives(svid: &types::Jwtsvid) -> i64 {
    svid.expires_at - NOW.unix_secs()
}

#[tokio::test]
async fn jwt_13_21_40_a_minted_token_says_who_for_whom_and_until_when_and_nothing_else() {
    let server = TestServer::start().await;
    let svid = mint(&server, wire::MintJwtsvidRequest { ttl: 60, ..request() }).await.unwrap();
    let now = NOW.unix_secs();
    let expected = json!({ "sub": "spiffe://example.org/web", "aud": ["db"], "iat": now, "exp": now + 60 });
    assert_eq!(verified(&server, &svid, "db").await, expected);
    assert_eq!(svid.hint, "");
    let several = wire::MintJwtsvidRequest { audience: texts(&["", "b", "a", ""]), ..request() };
    let svid = mint(&server, several).await.unwrap();
    assert_eq!(verified(&server, &svid, "a").await["aud"], json!(["b", "a"]), "empty values are dropped");
}

#[tokio::test]
async fn a_ttl_is_the_default_when_absent_and_never_outlives_the_key() {
    let server = TestServer::start_with(|config| config.jwt.default_ttl_secs = 77).await;
    let end = async |ttl| lives(&mint(&server, wire::MintJwtsvidRequest { ttl, ..request() }).await.unwrap());
    for ttl in [0, -1, i32::MIN] {
        assert_eq!(end(ttl).await, 77, "{ttl}");
    }
    assert_eq!(end(1).await, 1);
    assert_eq!(end(i32::MAX).await, CA_TTL_SECS);
}

#[tokio::test]
async fn the_issuer_is_named_when_it_is_configured() {
    let server = TestServer::start_with(|config| config.jwt.issuer = Some("https://issuer".into())).await;
    let svid = mint(&server, request()).await.unwrap();
    assert_eq!(verified(&server, &svid, "db").await["iss"], "https://issuer");
    let agent = server.attest().await;
    let entry_id = server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    let svid = new_for(&agent, &entry_id, &["db"]).await.unwrap();
    assert_eq!(verified(&server, &svid, "db").await["iss"], "https://issuer");
}

#[tokio::test]
async fn jwt_15_minting_refuses_every_field_that_is_wrong_and_names_it() {
    let server = TestServer::start().await;
    let with_id = |id| wire::MintJwtsvidRequest { id, ..request() };
    let of = |path: &str| with_id(Some(foreign_id("example.org", path)));
    let with_audience = |audience| wire::MintJwtsvidRequest { audience, ..request() };
    let (bad, foreign) = (Reason::BadRequest, Reason::WrongTrustDomain);
    let cases = [
        (with_id(None), bad, "invalid SPIFFE ID"),
        (with_id(Some(types::Spiffeid::default())), bad, "invalid SPIFFE ID"),
        (with_id(Some(foreign_id("", "/web"))), bad, "invalid SPIFFE ID"),
        (with_id(Some(foreign_id("Example.org", "/web"))), bad, "invalid SPIFFE ID"),
        (with_id(Some(foreign_id("other.example", "/web"))), foreign, "other.example"),
        (of(""), bad, "path"),
        (of("/"), bad, "invalid SPIFFE ID"),
        (of("web"), bad, "invalid SPIFFE ID"),
        (of("/a/../b"), bad, "invalid SPIFFE ID"),
        (of("/spire/server"), bad, "reserved"),
        (of("/spire/agent/join_token/x"), bad, "reserved"),
        (with_audience(Vec::new()), bad, "at least one audience is required"),
        (with_audience(texts(&["", ""])), bad, "at least one audience is required"),
        (with_audience(texts(&["a"; 101])), bad, "at most 100 audiences"),
        (with_audience(vec!["a".repeat(16 * 1024 + 1)]), bad, "at most 16384 bytes"),
    ];
    for (request, reason, says) in cases {
        let asked = format!("{:.200}", format!("{request:?}"));
        let message = expect_refusal(mint(&server, request).await, Code::InvalidArgument, reason);
        assert!(message.contains(says), "{asked}: {says:?} is not in {message:?}");
    }
    mint(&server, with_audience(texts(&["a"; 100]))).await.unwrap();
    mint(&server, with_audience(vec!["a".repeat(16 * 1024)])).await.unwrap();
}

#[tokio::test]
async fn jwt_13_24_an_agent_gets_what_the_entry_says() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let rich = types::Entry {
        jwt_svid_ttl: 120,
        x509_svid_ttl: 999,
        hint: "internal".into(),
        additional_attributes: Some(types::entry::AdditionalAttributes {
            jwt_svid_include_jti: true,
            ..Default::default()
        }),
        ..entry(&agent.id, "/web", &["a:1"])
    };
    let created = server.create(vec![rich, entry(&id("/web"), "/nested", &["a:1"])]).await;
    let svid = new_for(&agent, &created[0].id, &["db", "cache"]).await.unwrap();
    let claims = verified(&server, &svid, "cache").await;
    assert_eq!((lives(&svid), svid.hint.as_str()), (120, "internal"));
    assert_eq!(claims["aud"], json!(["db", "cache"]));
    let again = new_for(&agent, &created[0].id, &["db"]).await.unwrap();
    let again = verified(&server, &again, "db").await;
    let token_id = |claims: &Value| claims["jti"].as_str().unwrap().to_owned();
    assert_eq!(token_id(&claims).len(), 22, "base64url of 16 bytes");
    assert_ne!(token_id(&claims), token_id(&again));
    let nested = new_for(&agent, &created[1].id, &["db"]).await.unwrap();
    let claims = verified(&server, &nested, "db").await;
    assert_eq!((lives(&nested), claims.get("jti")), (300, None));
}

#[tokio::test]
async fn jwt_15_an_agent_gets_nothing_for_what_is_not_its_own_or_for_nobody() {
    let server = TestServer::start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    let mine = server.create_one(entry(&agent.id, "/mine", &["a:1"])).await;
    let theirs = server.create_one(entry(&other.id, "/theirs", &["a:1"])).await;
    for entry_id in [theirs.as_str(), "none", "a/b", "", &"x".repeat(300)] {
        let refused = new_for(&agent, entry_id, &["db"]).await;
        let message = expect_refusal(refused, Code::NotFound, Reason::EntryNotAuthorized);
        assert_eq!(message, "entry not found or not authorized", "{entry_id:?}");
    }
    // Who may not have the entry is not told anything else about the request.
    expect_refusal(new_for(&agent, &theirs, &[]).await, Code::NotFound, Reason::EntryNotAuthorized);
    for (audience, says) in [
        (texts(&[]), "at least one audience"),
        (texts(&[""]), "at least one audience"),
        (texts(&["a"; 101]), "at most 100"),
        (vec!["a".repeat(9000), "b".repeat(9000)], "at most 16384 bytes"),
    ] {
        let audience: Vec<&str> = audience.iter().map(String::as_str).collect();
        let refused = new_for(&agent, &mine, &audience).await;
        let message = expect_refusal(refused, Code::InvalidArgument, Reason::BadRequest);
        assert!(message.contains(says), "{message}");
    }
    new_for(&agent, &mine, &["db"]).await.unwrap();
}

#[tokio::test]
async fn what_an_agent_may_have_changes_with_the_entries() {
    let server = TestServer::start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    let entry_id = server.create_one(entry(&agent.id, "/mine", &["a:1"])).await;
    let code = async |agent: &TestAgent| new_for(agent, &entry_id, &["db"]).await.err().map(|s| s.code());
    assert_eq!((code(&agent).await, code(&other).await), (None, Some(Code::NotFound)));
    let moved = types::Entry { id: entry_id.clone(), jwt_svid_ttl: 9, ..entry(&other.id, "/mine", &["a:1"]) };
    let request = entry_api::BatchUpdateEntryRequest { entries: vec![moved], ..Default::default() };
    server.entries().await.batch_update_entry(request).await.unwrap();
    assert_eq!((code(&agent).await, code(&other).await), (Some(Code::NotFound), None));
    assert_eq!(lives(&new_for(&other, &entry_id, &["db"]).await.unwrap()), 9);
    server.delete(&entry_id).await;
    assert_eq!((code(&agent).await, code(&other).await), (Some(Code::NotFound), Some(Code::NotFound)));
}

#[tokio::test]
async fn many_tokens_asked_for_at_once_are_all_signed() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let wanted = (0..50).map(|n| entry(&agent.id, &format!("/w{n}"), &["a:1"])).collect();
    let created = server.create(wanted).await;
    let asked = created.iter().map(|entry| new_for(&agent, &entry.id, &["db"]));
    let answers = futures_util::future::join_all(asked).await;
    for (answer, entry) in answers.into_iter().zip(created) {
        let svid = answer.unwrap();
        verified(&server, &svid, "db").await;
        assert_eq!(svid.id, entry.spiffe_id);
    }
}

#[tokio::test]
async fn jwt_06_every_kind_of_key_signs() {
    for (key_type, alg) in
        [(KeyType::EcP384, "ES384"), (KeyType::Rsa2048, "RS256"), (KeyType::EcP256, "ES256")]
    {
        let server = TestServer::start_with(|config| config.jwt.key_type = key_type).await;
        let svid = mint(&server, request()).await.unwrap();
        verified(&server, &svid, "db").await;
        assert_eq!(format!("{:?}", decode_header(&svid.token).unwrap().alg), alg);
    }
}

#[tokio::test]
async fn a_server_without_jwt_svids_says_so_and_keeps_the_rest() {
    let server = TestServer::start_with(|config| config.jwt.enabled = false).await;
    let agent = server.attest().await;
    let entry_id = server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    let off = |answer| {
        let message = expect_refusal(answer, Code::Unimplemented, Reason::JwtSvidsDisabled);
        assert_eq!(message, "JWT functionality is disabled");
    };
    off(mint(&server, request()).await);
    off(mint(&server, wire::MintJwtsvidRequest::default()).await);
    off(new_for(&agent, &entry_id, &["db"]).await);
    off(new_for(&agent, "none", &[]).await);
    let bundle = server.bundle().await;
    assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.len()), (1, 0));
}

#[tokio::test]
async fn tokens_outlive_restarts_and_the_end_of_jwt_svids() {
    let mut server = TestServer::start_with(|config| config.store.kind = StoreKind::Sled).await;
    let svid = mint(&server, request()).await.unwrap();
    let kid = |svid: &types::Jwtsvid| decode_header(&svid.token).unwrap().kid.unwrap();
    server.restart().await;
    verified(&server, &svid, "db").await;
    assert_eq!(kid(&mint(&server, request()).await.unwrap()), kid(&svid), "the same key signs on");
    server.restart_with(|config| config.keys = KeySettings::Memory).await;
    verified(&server, &svid, "db").await;
    assert_ne!(kid(&mint(&server, request()).await.unwrap()), kid(&svid));
    server.restart_with(|config| config.jwt.enabled = false).await;
    verified(&server, &svid, "db").await;
}

#[tokio::test]
async fn jwt_34_36_a_new_key_signs_once_the_connected_agent_has_acknowledged_it() {
    let server = TestServer::start_with(|config| config.agent_ttl_secs = CA_TTL_SECS).await;
    let agent = server.attest().await;
    let signer = async || {
        let token = mint(&server, request()).await.unwrap().token;
        claims_under(&server.bundle().await, &token, "db").unwrap();
        decode_header(&token).unwrap().kid.unwrap()
    };
    let first = signer().await;
    let mut stream = Following::open(&agent).await;
    let bundle = stream.next().await.bundle.unwrap();
    assert_eq!(bundle.jwt_authorities[0].key_id, first);
    assert_eq!(bundle.jwt_authorities[0].expires_at, (NOW + CA_TTL_SECS).unix_secs());
    // So late that the next authorities of both families are due to sign as soon as they are made.
    server.clock.set(NOW + CA_TTL_SECS * 5 / 6 + 1);
    let (revision, second) = loop {
        let news = stream.next().await;
        let bundle = news.bundle.unwrap();
        if bundle.jwt_authorities.len() == 2 && bundle.x509_authorities.len() == 2 {
            break (news.revision, bundle.jwt_authorities[1].key_id.clone());
        }
    };
    assert_eq!(signer().await, first, "told before it signs");
    stream.acknowledge(&revision).await;
    server.clock.advance(10);
    in_time(async { while signer().await != second {} }).await;
}
