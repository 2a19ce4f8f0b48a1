//! WIT-SVIDs: minting for administrators, batches for agents, and what is refused. Every token is verified by another
//! implementation under the bundle that the server hands out.

use std::collections::BTreeSet;

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use spindle_keys::{Key, KeyType};
use spindle_proto::spire::api::server::bundle::v1 as bundle_api;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::server::svid::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_server::{KeySettings, StoreKind};
use spindle_spiffe_core::{Bundle, Clock, Reason};
use spindle_testkit::NOW;
use tonic::{Code, Status};

use crate::downstream::dial_below;
use crate::support::{
    CA_TTL_SECS, TestAgent, TestServer, code_of, entry, expect_refusal, foreign_id, in_time, wire_id,
};

/// A server with WIT-SVIDs.
async fn start() -> TestServer {
    TestServer::start_with(|config| config.wit.enabled = true).await
}

fn key() -> Key {
    Key::generate(KeyType::EcP256).unwrap()
}

/// A request for `/web` and a new key.
fn request() -> wire::MintWitsvidRequest {
    wire::MintWitsvidRequest {
        id: Some(wire_id("/web")),
        public_key: key().spki_der().to_vec().into(),
        ttl: 0,
        signing_algorithm: "ES256".into(),
    }
}

async fn mint(server: &TestServer, request: wire::MintWitsvidRequest) -> Result<types::Witsvid, Status> {
    let answer = in_time(server.svids().await.mint_witsvid(request)).await?.into_inner();
    Ok(answer.svid.expect("an SVID"))
}

fn param(entry_id: &str) -> wire::NewWitsvidParams {
    let public_key = key().spki_der().to_vec().into();
    wire::NewWitsvidParams { entry_id: entry_id.into(), public_key, signing_algorithm: "ES256".into() }
}

type Item = wire::batch_new_witsvid_response::Result;

async fn batch(agent: &TestAgent, params: Vec<wire::NewWitsvidParams>) -> Result<Vec<Item>, Status> {
    let request = wire::BatchNewWitsvidRequest { params };
    Ok(in_time(agent.svids().batch_new_witsvid(request)).await?.into_inner().results)
}

/// The claims, once the bundle vouches for the token as a WIT-SVID. Its lifetime is for the caller to judge.
fn claims_under(bundle: &Bundle, token: &str) -> Value {
    let header = decode_header(token).unwrap();
    assert_eq!(header.typ.as_deref(), Some("wit+jwt"));
    let authority = bundle.wit_authority(header.kid.as_deref().unwrap()).expect("a WIT authority");
    let jwk = serde_json::to_value(authority.key().to_jwk()).unwrap();
    let key = DecodingKey::from_jwk(&serde_json::from_value(jwk).unwrap()).unwrap();
    let mut validation = Validation::new(header.alg);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    decode::<Value>(token, &key, &validation).unwrap().claims
}

/// The claims of an answered SVID, all of whose fields agree with its token.
async fn verified(server: &TestServer, svid: &types::Witsvid) -> Value {
    let claims = claims_under(&server.bundle().await, &svid.token);
    let spiffe_id = svid.id.as_ref().unwrap();
    assert_eq!(claims["sub"], format!("spiffe://{}{}", spiffe_id.trust_domain, spiffe_id.path));
    assert_eq!((&claims["exp"], &claims["iat"]), (&json!(svid.expires_at), &json!(svid.issued_at)));
    assert_eq!(svid.issued_at, server.clock.now().unix_secs());
    claims
}

/// Seconds from the test's first moment to the end.
fn lives(svid: &types::Witsvid) -> i64 {
    svid.expires_at - NOW.unix_secs()
}

#[tokio::test]
async fn wit_11_wit_12_wit_30_a_minted_token_says_who_by_which_key_and_until_when_and_nothing_else() {
    let server = start().await;
    let key = key();
    let asked = wire::MintWitsvidRequest { ttl: 60, public_key: key.spki_der().to_vec().into(), ..request() };
    let svid = mint(&server, asked).await.unwrap();
    let mut claims = verified(&server, &svid).await;
    let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
    assert_eq!(jti.as_str().unwrap().len(), 22, "base64url of 16 bytes");
    let jwk: Value =
        serde_json::from_str(&key.private_jwk(spindle_spiffe_core::SignatureAlgorithm::Es256).unwrap())
            .unwrap();
    let public = json!({ "alg": "ES256", "crv": "P-256", "kty": "EC", "x": jwk["x"], "y": jwk["y"] });
    let now = NOW.unix_secs();
    let expected = json!({
        "sub": "spiffe://example.org/web", "cnf": { "jwk": public }, "iat": now, "exp": now + 60
    });
    assert_eq!(claims, expected);
    assert_eq!(svid.hint, "");
}

#[tokio::test]
async fn a_ttl_is_an_hour_when_absent_and_never_outlives_the_key() {
    let server = start().await;
    let end = async |ttl| lives(&mint(&server, wire::MintWitsvidRequest { ttl, ..request() }).await.unwrap());
    for ttl in [0, -1, i32::MIN] {
        assert_eq!(end(ttl).await, 3600, "{ttl}");
    }
    assert_eq!(end(1).await, 1);
    assert_eq!(end(i32::MAX).await, CA_TTL_SECS);
}

#[tokio::test]
async fn wit_28_the_issuer_is_named_when_it_is_configured() {
    let issuer = "spiffe://example.org/issuer";
    let server = TestServer::start_with(|config| {
        config.wit.enabled = true;
        config.wit.issuer = Some(issuer.into());
    })
    .await;
    let svid = mint(&server, request()).await.unwrap();
    assert_eq!(verified(&server, &svid).await["iss"], issuer);
    let agent = server.attest().await;
    let entry_id = server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    let svid = batch(&agent, vec![param(&entry_id)]).await.unwrap().remove(0).svid.unwrap();
    assert_eq!(verified(&server, &svid).await["iss"], issuer);
}

#[tokio::test]
async fn minting_refuses_every_field_that_is_wrong_and_names_it() {
    let server = start().await;
    let with_id = |id| wire::MintWitsvidRequest { id, ..request() };
    let of = |path: &str| with_id(Some(foreign_id("example.org", path)));
    let with_key = |public_key: &[u8]| {
        let public_key = public_key.to_vec().into();
        wire::MintWitsvidRequest { public_key, ..request() }
    };
    let with =
        |algorithm: &str| wire::MintWitsvidRequest { signing_algorithm: algorithm.into(), ..request() };
    let (bad, key) = (Reason::BadRequest, Reason::BadKey);
    let cases = [
        (with_id(None), bad, "invalid SPIFFE ID"),
        (with_id(Some(foreign_id("other.example", "/web"))), Reason::WrongTrustDomain, "other.example"),
        (of(""), bad, "path"),
        (of("/a/../b"), bad, "invalid SPIFFE ID"),
        (of("/spire/server"), bad, "reserved"),
        (with_key(b""), key, "public key"),
        (with_key(b"no key"), key, "public key"),
        (with_key(&[0x30; 4000]), key, "at most 2048 bytes"),
        (with(""), key, "signing algorithm"),
        (with("HS256"), key, "signing algorithm \"HS256\""),
        (with("ES384"), key, "do not sign by ES384"),
    ];
    for (request, reason, says) in cases {
        let asked = format!("{:.200}", format!("{request:?}"));
        let message = expect_refusal(mint(&server, request).await, Code::InvalidArgument, reason);
        assert!(message.contains(says), "{asked}: {says:?} is not in {message:?}");
    }
}

#[tokio::test]
async fn wit_16_no_token_id_repeats() {
    let server = start().await;
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        let svid = mint(&server, request()).await.unwrap();
        ids.insert(verified(&server, &svid).await["jti"].to_string());
    }
    assert_eq!(ids.len(), 20);
}

#[tokio::test]
async fn an_agent_gets_what_the_entry_says() {
    let server = start().await;
    let agent = server.attest().await;
    let rich = types::Entry {
        jwt_svid_ttl: 120,
        x509_svid_ttl: 999,
        hint: "internal".into(),
        ..entry(&agent.id, "/web", &["a:1"])
    };
    let created = server.create(vec![rich, entry(&agent.id, "/plain", &["a:1"])]).await;
    let items = batch(&agent, created.iter().map(|entry| param(&entry.id)).collect()).await.unwrap();
    assert!(items.iter().all(|item| item.status == Some(spindle_proto::refusal::item_ok())), "{items:?}");
    let svids: Vec<_> = items.into_iter().map(|item| item.svid.unwrap()).collect();
    assert_eq!(verified(&server, &svids[0]).await["sub"], "spiffe://example.org/web");
    assert_eq!((lives(&svids[0]), svids[0].hint.as_str()), (999, "internal"), "the lifetime of X509-SVIDs");
    assert_eq!(verified(&server, &svids[1]).await["sub"], "spiffe://example.org/plain");
    assert_eq!((lives(&svids[1]), svids[1].hint.as_str()), (3600, ""));
}

#[tokio::test]
async fn items_are_refused_one_by_one_and_an_agent_gets_nothing_that_is_not_its_own() {
    let server = start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    let mine = server.create_one(entry(&agent.id, "/mine", &["a:1"])).await;
    let theirs = server.create_one(entry(&other.id, "/theirs", &["a:1"])).await;
    let params = vec![
        param(&theirs),
        param("none"),
        param(""),
        wire::NewWitsvidParams { public_key: Default::default(), ..param(&mine) },
        wire::NewWitsvidParams { public_key: b"junk"[..].into(), ..param(&mine) },
        wire::NewWitsvidParams { signing_algorithm: "RS256".into(), ..param(&mine) },
        wire::NewWitsvidParams { signing_algorithm: "none".into(), ..param(&mine) },
        param(&mine),
    ];
    let items = batch(&agent, params).await.unwrap();
    let codes: Vec<_> = items.iter().map(|item| code_of(&item.status)).collect();
    let (absent, bad) = (Code::NotFound, Code::InvalidArgument);
    assert_eq!(codes, [absent, absent, bad, bad, bad, bad, bad, Code::Ok]);
    let reasons: Vec<_> = items.iter().map(|item| item.status.as_ref().unwrap().reason.as_str()).collect();
    let (entry, key) = ("entry_not_authorized", "bad_key");
    assert_eq!(reasons, [entry, entry, "bad_request", key, key, key, key, ""]);
    assert!(items[..7].iter().all(|item| item.svid.is_none()) && items[7].svid.is_some());
}

#[tokio::test]
async fn a_batch_has_a_least_and_a_most() {
    let server = start().await;
    let agent = server.attest().await;
    expect_refusal(batch(&agent, vec![]).await, Code::InvalidArgument, Reason::BadRequest);
    let many = vec![wire::NewWitsvidParams::default(); 1001];
    let message = expect_refusal(batch(&agent, many).await, Code::InvalidArgument, Reason::MessageTooLarge);
    assert!(message.contains("at most 1000") && message.contains("1001"), "{message}");
}

#[tokio::test]
async fn wit_svids_count_by_themselves_against_a_callers_limit() {
    let server = TestServer::start_with(|config| {
        config.wit.enabled = true;
        config.rate_limits.signing = true;
    })
    .await;
    let agent = server.attest().await;
    let entry_id = server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    let params =
        |count| vec![wire::NewWitsvidParams { public_key: Default::default(), ..param(&entry_id) }; count];
    let message =
        expect_refusal(batch(&agent, params(501)).await, Code::ResourceExhausted, Reason::Overloaded);
    assert!(message.contains("exceeds burst size"), "{message}");
    assert_eq!(batch(&agent, params(500)).await.unwrap().len(), 500);
    let request = wire::NewJwtsvidRequest { entry_id, audience: vec!["db".into()] };
    in_time(agent.svids().new_jwtsvid(request)).await.expect("JWT-SVIDs have a bucket of their own");
}

#[tokio::test]
async fn wit_07_wit_33_every_kind_of_key_signs_by_a_permitted_algorithm() {
    for (key_type, alg) in
        [(KeyType::EcP384, "ES384"), (KeyType::Rsa2048, "RS256"), (KeyType::EcP256, "ES256")]
    {
        let server = TestServer::start_with(|config| {
            config.wit.enabled = true;
            config.wit.key_type = key_type;
        })
        .await;
        let svid = mint(&server, request()).await.unwrap();
        verified(&server, &svid).await;
        assert_eq!(format!("{:?}", decode_header(&svid.token).unwrap().alg), alg);
    }
}

#[tokio::test]
async fn gen_05_a_server_on_which_nobody_switched_wit_svids_on_says_so_and_keeps_the_rest() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let entry_id = server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    let off = |answer: Result<(), Status>| {
        let message = expect_refusal(answer, Code::Unimplemented, Reason::WitSvidsDisabled);
        assert_eq!(message, "WIT functionality is disabled");
    };
    off(mint(&server, request()).await.map(drop));
    off(mint(&server, wire::MintWitsvidRequest::default()).await.map(drop));
    off(batch(&agent, vec![param(&entry_id)]).await.map(drop));
    off(batch(&agent, vec![]).await.map(drop));
    let channel = dial_below(&server).await;
    let request = bundle_api::PublishWitAuthorityRequest { wit_authority: Some(types::WitKey::default()) };
    off(in_time(BundleClient::new(channel).publish_wit_authority(request)).await.map(drop));
    let bundle = server.bundle().await;
    assert_eq!((bundle.jwt_authorities.len(), bundle.wit_authorities.len()), (1, 0));
    assert!(!bundle.to_json().contains("wit-svid"));
}

#[tokio::test]
async fn wit_04_wit_42_the_same_key_keeps_its_id_over_a_restart_and_a_new_one_has_another() {
    let mut server = TestServer::start_with(|config| {
        config.wit.enabled = true;
        config.store.kind = StoreKind::Sled;
    })
    .await;
    let svid = mint(&server, request()).await.unwrap();
    let kid = |svid: &types::Witsvid| decode_header(&svid.token).unwrap().kid.unwrap();
    server.restart().await;
    verified(&server, &svid).await;
    assert_eq!(kid(&mint(&server, request()).await.unwrap()), kid(&svid), "the same key signs on");
    server.restart_with(|config| config.keys = KeySettings::Memory).await;
    verified(&server, &svid).await;
    assert_ne!(kid(&mint(&server, request()).await.unwrap()), kid(&svid));
    let document = server.bundle().await.to_json();
    assert_eq!(document.matches("\"wit-svid\"").count(), 2, "one entry for each key");
    server.restart_with(|config| config.wit.enabled = false).await;
    verified(&server, &svid).await;
}

#[tokio::test]
async fn wit_45_a_wit_key_from_below_joins_the_bundle_under_an_id_that_no_other_key_has() {
    let server = start().await;
    let mut client = BundleClient::new(dial_below(&server).await);
    let mut publish = async |kid: &str| {
        let public_key = key().spki_der().to_vec().into();
        let wit = types::WitKey { public_key, key_id: kid.into(), expires_at: 0, tainted: true };
        let request = bundle_api::PublishWitAuthorityRequest { wit_authority: Some(wit) };
        in_time(client.publish_wit_authority(request)).await.map(|answer| answer.into_inner().wit_authorities)
    };
    let keys = publish("one").await.unwrap();
    assert_eq!((keys.len(), keys[1].key_id.as_str(), keys[1].tainted), (2, "one", false));
    let jwt_kid = server.bundle().await.jwt_authorities[0].kid().to_owned();
    let wit_kid = server.bundle().await.wit_authorities[0].kid().to_owned();
    for taken in ["one", &jwt_kid, &wit_kid] {
        expect_refusal(publish(taken).await, Code::AlreadyExists, Reason::AlreadyExists);
    }
    expect_refusal(publish("").await, Code::InvalidArgument, Reason::BadRequest);
    assert_eq!(server.bundle().await.wit_authorities.len(), 2);
}
