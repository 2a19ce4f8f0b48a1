//! Proofs of possession, row by row: no WIT-SVID is accepted without one that fits it, the request and the time.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/tokens.rs"]
mod tokens;

use std::convert::Infallible;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use spindle_spiffe_core::wit_proof::{PROOF_SECS_MAX, PresentationError, ProofError};
use spindle_spiffe_core::{
    Leeway, OtherTokens, Presentation, ProofRequest, ProofTarget, ProofValidation, ProvenWit, Reason,
    ReplayCache, ReplayError, SignatureAlgorithm, TokenError, WitValidation, validate_wit_svid,
};
use tokens::{NOW, SECS, SIGNERS, Signer, es256, wit_bundle, wit_claims, wit_header, with};

fn target(uri: &str) -> ProofTarget {
    ProofTarget::from_uri(&uri.parse().unwrap()).unwrap()
}

fn db() -> ProofTarget {
    target("https://db.example/query")
}

/// A WIT-SVID issued by the ES256 key of the bundle and bound to `holder`.
fn wit_svid(holder: &Signer) -> String {
    es256().sign(&wit_header(es256()), &wit_claims(holder))
}

/// Signs as [`ProofRequest::sign`] wants it.
fn by(holder: &Signer) -> impl FnOnce(&[u8]) -> Result<Vec<u8>, Infallible> {
    move |message| Ok(holder.signature(message))
}

fn prove_at(wit_svid: &str, proof: &str, how: &ProofValidation<'_>) -> Result<ProvenWit, ProofError> {
    validate_wit_svid(wit_svid, &wit_bundle("td"), &WitValidation::new(NOW)).unwrap().prove(proof, how)
}

/// A proof of these claims by `holder`, for the WIT-SVID bound to it.
fn proof_of(holder: &Signer, header: &Value, claims: &Value) -> Result<ProvenWit, ProofError> {
    prove_at(&wit_svid_of(holder), &holder.sign(header, claims), &ProofValidation::new(&db(), NOW))
}

/// One WIT-SVID for all, as signatures of ECDSA differ each time.
fn wit_svid_of(holder: &Signer) -> String {
    static WIT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    assert_eq!(holder.algorithm, SignatureAlgorithm::Es256);
    WIT.get_or_init(|| wit_svid(es256())).clone()
}

fn hash(text: &str) -> Value {
    BASE64_URL.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes())).into()
}

fn header() -> Value {
    json!({ "alg": "ES256", "typ": "wpt+jwt" })
}

fn good_claims() -> Value {
    let wth = hash(&wit_svid_of(es256()));
    json!({ "aud": "https://db.example/query", "exp": SECS + 60, "jti": "one", "wth": wth })
}

/// What becomes of a proof with one claim changed; `null` takes it out.
fn with_claim(name: &str, claim: Value) -> Result<ProvenWit, ProofError> {
    proof_of(es256(), &header(), &with(good_claims(), name, claim))
}

#[test]
fn wit_36_wit_40_rfc_37_a_proof_by_the_bound_key_makes_the_presenter_the_subject() {
    for holder in SIGNERS.iter() {
        let (wit_svid, target) = (wit_svid(holder), db());
        let proof = ProofRequest::new(&target, NOW, [7; 16]);
        let proof = proof.sign(&wit_svid, holder.algorithm, by(holder)).unwrap();
        let proven = prove_at(&wit_svid, &proof, &ProofValidation::new(&target, NOW)).unwrap();
        assert_eq!(proven.spiffe_id().as_str(), "spiffe://td/web");
        assert_eq!((proven.expires_at(), proven.key_id()), (NOW + 3600, "ES256"));
        assert_eq!((proven.issued_at(), proven.token_id()), (Some(NOW), Some("wit-1")));
        assert_eq!(proven.claims(), wit_claims(holder).as_object().unwrap());
    }
}

#[test]
fn wit_36_a_proof_by_another_key_is_refused() {
    let thief = Signer::new(SignatureAlgorithm::Es256);
    let (wit_svid, target) = (wit_svid(es256()), db());
    let proof = ProofRequest::new(&target, NOW, [7; 16]);
    let proof = proof.sign(&wit_svid, thief.algorithm, by(&thief)).unwrap();
    let error = prove_at(&wit_svid, &proof, &ProofValidation::new(&target, NOW)).unwrap_err();
    assert_eq!((error.clone(), error.reason()), (TokenError::Signature.into(), Reason::ProofRefused));
    for proof in ["", "a.b.c", &wit_svid] {
        assert!(prove_at(&wit_svid, proof, &ProofValidation::new(&target, NOW)).is_err());
    }
}

#[test]
fn rfc_33_a_proof_has_the_algorithm_that_the_wit_svid_says() {
    let (holder, other) = (tokens::signer(SignatureAlgorithm::Rs256), SignatureAlgorithm::Ps256);
    let (wit_svid, target) = (wit_svid(holder), db());
    let proof = ProofRequest::new(&target, NOW, [7; 16]);
    // The same RSA key would verify it.
    let proof = proof.sign(&wit_svid, other, by(tokens::signer(other))).unwrap();
    let error = prove_at(&wit_svid, &proof, &ProofValidation::new(&target, NOW)).unwrap_err();
    assert_eq!(error, ProofError::OtherAlgorithm(SignatureAlgorithm::Rs256));
    for alg in ["none", "HS256", "EdDSA"] {
        let error = proof_of(es256(), &with(header(), "alg", json!(alg)), &good_claims()).unwrap_err();
        assert_eq!(error, TokenError::Algorithm.into(), "{alg}");
    }
}

#[test]
fn rfc_37_a_proof_is_of_its_type_and_made_for_this_wit_svid() {
    for typ in [json!("JWT"), json!("wit+jwt"), json!("WPT+JWT"), Value::Null] {
        let error = proof_of(es256(), &with(header(), "typ", typ), &good_claims()).unwrap_err();
        assert_eq!(error, TokenError::Type.into());
    }
    let another = wit_svid(es256());
    assert_eq!(with_claim("wth", hash(&another)), Err(ProofError::OtherWit));
    assert_eq!(with_claim("wth", Value::Null), Err(TokenError::NoClaim("wth").into()));
    for name in ["jti", "aud"] {
        assert_eq!(with_claim(name, Value::Null), Err(TokenError::NoClaim(name).into()));
    }
    let critical = with(header(), "crit", json!(["x"]));
    assert_eq!(proof_of(es256(), &critical, &good_claims()), Err(TokenError::Critical.into()));
}

#[test]
fn rfc_37_a_proof_fits_the_other_tokens_of_the_request() {
    let (wit_svid, target) = (wit_svid(es256()), db());
    let tokens = |access, transaction, others: &[(&'static str, &'static str)]| OtherTokens {
        access_token: access,
        transaction_token: transaction,
        others: others.to_vec(),
    };
    let sets = [
        tokens(None, None, &[]),
        tokens(Some("a"), None, &[]),
        tokens(Some("b"), None, &[]),
        tokens(None, Some("a"), &[]),
        tokens(None, None, &[("x-user", "a")]),
        tokens(None, None, &[("x-user", "b")]),
        tokens(None, None, &[("x-user", "a"), ("x-other", "a")]),
        tokens(Some("a"), Some("b"), &[("x-user", "c")]),
    ];
    for (made_for, signed) in sets.iter().enumerate() {
        let proof = ProofRequest::new(&target, NOW, [7; 16]).with_tokens(signed.clone());
        let proof = proof.sign(&wit_svid, SignatureAlgorithm::Es256, by(es256())).unwrap();
        for (came_with, in_request) in sets.iter().enumerate() {
            let how = ProofValidation::new(&target, NOW).with_tokens(in_request.clone());
            let result = prove_at(&wit_svid, &proof, &how);
            assert_eq!(result.is_ok(), made_for == came_with, "{made_for}, {came_with}");
            assert!(result.is_ok() || matches!(result, Err(ProofError::OtherTokens(_))));
        }
    }
    for oth in [json!("x"), json!([]), json!({ "x-unknown": hash("a") }), json!({ "x-unknown": 1 })] {
        assert_eq!(with_claim("oth", oth), Err(ProofError::OtherTokens("oth")));
    }
}

#[test]
fn wit_49_a_proof_for_one_target_is_none_for_another() {
    let (wit_svid, db) = (wit_svid(es256()), db());
    let proof = ProofRequest::new(&db, NOW, [7; 16]);
    let proof = proof.sign(&wit_svid, SignatureAlgorithm::Es256, by(es256())).unwrap();
    for (uri, is_taken) in [
        ("https://db.example/query", true),
        ("https://DB.example:443/query?id=7", true),
        ("https://db.example/", false),
        ("https://db.example/query/", false),
        ("https://db.example/Query", false),
        ("https://other.example/query", false),
        ("https://db.example:8443/query", false),
    ] {
        let result = prove_at(&wit_svid, &proof, &ProofValidation::new(&target(uri), NOW));
        assert_eq!(result.is_ok(), is_taken, "{uri}");
        assert!(result.is_ok() || matches!(result, Err(ProofError::OtherTarget(_))));
    }
}

#[test]
fn wit_50_a_proof_without_an_end_or_past_it_is_refused() {
    assert_eq!(with_claim("exp", Value::Null), Err(TokenError::NoClaim("exp").into()));
    with_claim("exp", json!(SECS - 59)).unwrap();
    let expired = Err(TokenError::Expired { expires_at: NOW - 60, now: NOW }.into());
    assert_eq!(with_claim("exp", json!(SECS - 60)), expired);
    let proof = es256().sign(&header(), &with(good_claims(), "exp", json!(SECS)));
    let db = db();
    let strict = ProofValidation::new(&db, NOW).with_leeway(Leeway::NONE);
    assert!(prove_at(&wit_svid_of(es256()), &proof, &strict).is_err());
}

#[test]
fn wit_51_proofs_last_for_minutes_at_most_on_both_sides() {
    let (wit_svid, target) = (wit_svid(es256()), db());
    let request = ProofRequest::new(&target, NOW, [7; 16]);
    let proof = request.sign(&wit_svid, SignatureAlgorithm::Es256, by(es256())).unwrap();
    let claims: Value =
        serde_json::from_slice(&BASE64_URL.decode(proof.split('.').nth(1).unwrap()).unwrap()).unwrap();
    assert_eq!(claims["exp"], SECS + 60);
    for secs in [0, PROOF_SECS_MAX + 1] {
        assert!(request.clone().with_lifetime_secs(secs).is_err());
    }
    assert!(request.clone().with_lifetime_secs(PROOF_SECS_MAX).is_ok());
    with_claim("exp", json!(SECS + 360)).unwrap();
    let error = with_claim("exp", json!(SECS + 361)).unwrap_err();
    assert_eq!(error, ProofError::Lifetime { expires_at: NOW + 361, now: NOW });
}

#[test]
fn wit_18_wit_52_each_proof_may_be_taken_once_and_the_wit_svid_as_often_as_it_is_proven() {
    let (wit_svid, target) = (wit_svid(es256()), db());
    let mut cache = ReplayCache::new(8);
    let how = ProofValidation::new(&target, NOW);
    for token_id in [[1; 16], [2; 16]] {
        let proof = ProofRequest::new(&target, NOW, token_id);
        let proof = proof.sign(&wit_svid, SignatureAlgorithm::Es256, by(es256())).unwrap();
        let mut show = || cache.admit(prove_at(&wit_svid, &proof, &how).unwrap().proof_sighting(), NOW);
        assert_eq!(show(), Ok(()));
        assert_eq!(show(), Err(ReplayError::Seen));
    }
    assert_eq!(cache.len(), 2);
}

/// What a client of ours sends for a request to the database.
fn presented() -> (Presentation, HeaderMap) {
    let (wit_svid, target) = (wit_svid(es256()), db());
    let request = ProofRequest::new(&target, NOW, [7; 16]);
    let presentation =
        Presentation::sign(&wit_svid, SignatureAlgorithm::Es256, &request, by(es256())).unwrap();
    let mut fields = HeaderMap::new();
    presentation.write(&mut fields).unwrap();
    (presentation, fields)
}

fn verified(fields: &HeaderMap) -> Result<ProvenWit, PresentationError> {
    let target = db();
    Presentation::read(fields)?.verify(
        &wit_bundle("td"),
        &WitValidation::new(NOW),
        &ProofValidation::new(&target, NOW),
    )
}

#[test]
fn wit_37_wit_38_a_client_sends_the_wit_svid_with_a_proof_and_never_alone() {
    let (presentation, fields) = presented();
    assert_eq!(verified(&fields).unwrap().spiffe_id().as_str(), "spiffe://td/web");
    assert_eq!(fields.keys().count(), 2);
    assert!(
        fields["workload-proof-token"].is_sensitive() && fields["workload-identity-token"].is_sensitive()
    );
    assert_eq!(format!("{presentation:?}"), "Presentation");
    let mut alone = fields.clone();
    alone.remove("workload-proof-token");
    let error = verified(&alone).unwrap_err();
    assert_eq!((error.clone(), error.reason()), (PresentationError::ProofCount(0), Reason::ProofMissing));
}

#[test]
fn wit_39_a_wit_svid_in_the_authorization_field_is_refused() {
    let (_, fields) = presented();
    assert!(!fields.contains_key("authorization"), "ours never stands there");
    let wit_svid = fields["workload-identity-token"].to_str().unwrap().to_owned();
    for value in [wit_svid.clone(), format!("Bearer {wit_svid}"), format!("WIT  {wit_svid}, x")] {
        let mut fields = fields.clone();
        fields.insert("authorization", HeaderValue::from_str(&value).unwrap());
        assert_eq!(verified(&fields), Err(PresentationError::InAuthorization));
    }
    let mut other = fields.clone();
    other.insert("authorization", HeaderValue::from_static("Bearer opaque"));
    verified(&other).unwrap();
}

#[test]
fn rfc_36_each_field_stands_in_a_request_exactly_once() {
    let (_, fields) = presented();
    for (name, fault) in [
        ("workload-identity-token", PresentationError::WitCount as fn(usize) -> PresentationError),
        ("workload-proof-token", PresentationError::ProofCount),
    ] {
        let mut twice = fields.clone();
        twice.append(name, fields[name].clone());
        assert_eq!(verified(&twice), Err(fault(2)));
        let mut without = fields.clone();
        without.remove(name);
        assert_eq!(verified(&without), Err(fault(0)));
        let mut listed = fields.clone();
        let value = fields[name].to_str().unwrap();
        listed.insert(name, HeaderValue::from_str(&format!("{value}, {value}")).unwrap());
        assert!(verified(&listed).is_err(), "two in one field");
    }
}
