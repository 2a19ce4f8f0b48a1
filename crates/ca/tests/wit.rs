//! WIT-SVIDs as others read them, row by row: what the issuer promises. `jsonwebtoken` verifies each signature.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use spindle_ca::{
    ConfirmationKeyError, SignedToken, TokenSignError, WitSigner, WitSvidRequest, confirmation_key,
};
use spindle_keys::{Key, KeyType};
use spindle_spiffe_core::wit_svid::ConfirmationKey;
use spindle_spiffe_core::{Reason, SignatureAlgorithm, SpiffeId, Timestamp, TrustDomain, Validity};

/// 2026-09-21T14:13:20Z.
const NOW: i64 = 1_790_000_000;
const DAY: i64 = 86_400;

/// One authority of each kind of key, as keys are slow to find.
static SIGNERS: LazyLock<Vec<(KeyType, WitSigner)>> =
    LazyLock::new(|| KeyType::ALL.into_iter().map(|kind| (kind, signer(kind))).collect());

/// The workload's key.
static WORKLOAD: LazyLock<ConfirmationKey> =
    LazyLock::new(|| confirmation_key(Key::generate(KeyType::EcP256).unwrap().spki_der(), "ES256").unwrap());

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_secs(secs)
}

fn trust_domain() -> TrustDomain {
    "prod.example".parse().unwrap()
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

/// An authority that lives from now for a day.
fn signer(kind: KeyType) -> WitSigner {
    let validity = Validity { not_before: at(NOW - 10), not_after: at(NOW + DAY) };
    WitSigner::new(&trust_domain(), Key::generate(kind).unwrap(), "a-key-id", validity).unwrap()
}

/// A request for an hour, without `iss`.
fn request(spiffe_id: &SpiffeId) -> WitSvidRequest<'_> {
    let (issued_at, expires_at) = (at(NOW), at(NOW + 3600));
    let confirmation = &WORKLOAD;
    WitSvidRequest { spiffe_id, confirmation, issued_at, expires_at, issuer: None, token_id: [7; 16] }
}

fn signed() -> SignedToken {
    SIGNERS[0].1.sign_wit_svid(&request(&id("spiffe://prod.example/web"))).unwrap()
}

/// The claims, once the signature is found good. The time is not looked at: the oracle's clock is real.
fn verified(signer: &WitSigner, token: &str) -> Result<Value, jsonwebtoken::errors::Error> {
    let jwk = serde_json::to_value(signer.authority().key().to_jwk()).unwrap();
    let key = DecodingKey::from_jwk(&serde_json::from_value(jwk).unwrap()).unwrap();
    let mut validation = Validation::new(decode_header(token)?.alg);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    validation.set_required_spec_claims(&["exp", "sub"]);
    Ok(decode::<Value>(token, &key, &validation)?.claims)
}

/// The decoded first or second part.
fn part(token: &str, at: usize) -> Value {
    serde_json::from_slice(&BASE64_URL.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn wit_01_wit_02_wit_06_wit_07_wit_09_every_kind_of_key_signs_compact_tokens_with_three_header_members() {
    for (kind, signer) in SIGNERS.iter() {
        let signed = signer.sign_wit_svid(&request(&id("spiffe://prod.example/web"))).unwrap();
        assert_eq!(signed.token.matches('.').count(), 2);
        assert!(!signed.token.contains(['=', '{', ' ']));
        let alg = match kind {
            KeyType::EcP256 => "ES256",
            KeyType::EcP384 => "ES384",
            KeyType::Rsa2048 | KeyType::Rsa4096 => "RS256",
        };
        assert!(SignatureAlgorithm::from_name(alg).is_some(), "one of the nine");
        assert_eq!(part(&signed.token, 0), json!({ "alg": alg, "kid": "a-key-id", "typ": "wit+jwt" }));
        verified(signer, &signed.token).unwrap();
    }
}

#[test]
fn wit_11_wit_19_wit_26_wit_34_the_token_says_who_and_from_when_to_when() {
    let signed = signed();
    let claims = verified(&SIGNERS[0].1, &signed.token).unwrap();
    assert_eq!(claims["sub"], "spiffe://prod.example/web");
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW), &json!(NOW + 3600)));
    assert_eq!((signed.issued_at, signed.expires_at), (at(NOW), at(NOW + 3600)));
}

#[test]
fn wit_27_the_time_of_issue_is_never_ahead_so_that_libraries_that_judge_by_it_take_the_token() {
    assert_eq!(part(&signed().token, 1)["iat"], json!(NOW), "the issuer's own now, not rounded up");
}

#[test]
fn wit_30_there_is_never_an_audience_nor_anything_else_that_was_not_asked_for() {
    let claims = part(&signed().token, 1);
    assert_eq!(names(&claims), ["cnf", "exp", "iat", "jti", "sub"]);
}

#[test]
fn wit_28_an_issuer_is_named_when_it_is_configured() {
    let web = id("spiffe://prod.example/web");
    let asked = WitSvidRequest { issuer: Some("spiffe://prod.example"), ..request(&web) };
    let claims = part(&SIGNERS[0].1.sign_wit_svid(&asked).unwrap().token, 1);
    assert_eq!(names(&claims), ["cnf", "exp", "iat", "iss", "jti", "sub"]);
    assert_eq!(claims["iss"], "spiffe://prod.example");
}

#[test]
fn wit_15_wit_16_the_token_id_is_all_of_the_128_random_bits_it_is_given() {
    assert_eq!(part(&signed().token, 1)["jti"], BASE64_URL.encode([7; 16]));
    let web = id("spiffe://prod.example/web");
    let ids: BTreeSet<String> = (0..128)
        .map(|bit| {
            let token_id = (1u128 << bit).to_be_bytes();
            let signed = SIGNERS[0].1.sign_wit_svid(&WitSvidRequest { token_id, ..request(&web) }).unwrap();
            part(&signed.token, 1)["jti"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 128, "each bit makes another one");
}

#[test]
fn wit_12_rfc_32_cnf_holds_one_public_key_and_no_private_member() {
    let key = Key::generate(KeyType::EcP256).unwrap();
    let confirmation = confirmation_key(key.spki_der(), "ES256").unwrap();
    let web = id("spiffe://prod.example/web");
    let asked = WitSvidRequest { confirmation: &confirmation, ..request(&web) };
    let claims = part(&SIGNERS[0].1.sign_wit_svid(&asked).unwrap().token, 1);
    assert_eq!(names(&claims["cnf"]), ["jwk"]);
    let jwk = &claims["cnf"]["jwk"];
    assert_eq!(names(jwk), ["alg", "crv", "kty", "x", "y"]);
    let private: Value = serde_json::from_str(&key.private_jwk(SignatureAlgorithm::Es256).unwrap()).unwrap();
    for member in names(jwk) {
        assert_eq!(jwk[member], private[member], "{member} is of the same key");
    }
}

#[test]
fn wit_14_the_keys_algorithm_is_one_of_the_nine_that_its_kind_of_key_can_do() {
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap().subject_public_key_info();
    let rsa = Key::generate(KeyType::Rsa2048).unwrap().spki_der().to_vec();
    let spki = |kind| Key::generate(kind).unwrap().spki_der().to_vec();
    let keys = [
        (spki(KeyType::EcP256), &["ES256"][..]),
        (spki(KeyType::EcP384), &["ES384"]),
        (p521, &["ES512"]),
        (rsa, &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
    ];
    let web = id("spiffe://prod.example/web");
    for (key, fitting) in &keys {
        for algorithm in SignatureAlgorithm::ALL {
            let confirmation = confirmation_key(key, algorithm.name());
            if !fitting.contains(&algorithm.name()) {
                assert_eq!(confirmation, Err(ConfirmationKeyError::Misfit(algorithm)));
                continue;
            }
            let confirmation = &confirmation.unwrap();
            let signed = SIGNERS[0].1.sign_wit_svid(&WitSvidRequest { confirmation, ..request(&web) });
            assert_eq!(part(&signed.unwrap().token, 1)["cnf"]["jwk"]["alg"], algorithm.name());
        }
    }
}

#[test]
fn wit_14_other_algorithms_and_keys_are_refused_and_named() {
    let key = Key::generate(KeyType::EcP256).unwrap();
    for algorithm in ["", "none", "HS256", "EdDSA", "es256", "ES256 ", &"x".repeat(1000)] {
        let error = confirmation_key(key.spki_der(), algorithm).unwrap_err();
        assert!(matches!(error, ConfirmationKeyError::Algorithm(_)), "{error}");
        assert!(error.to_string().len() < 120, "an endless name is cut");
    }
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().subject_public_key_info();
    assert!(matches!(confirmation_key(&ed25519, "ES256"), Err(ConfirmationKeyError::Misfit(_))));
    for junk in [&b""[..], b"junk", &key.spki_der()[1..]] {
        assert!(matches!(confirmation_key(junk, "ES256"), Err(ConfirmationKeyError::Key(_))));
    }
    assert_eq!(confirmation_key(&[0; 2049], "ES256"), Err(ConfirmationKeyError::Length(2049)));
}

#[test]
fn gen_03_a_token_verifies_under_its_own_key_alone_and_its_bound_key_cannot_be_changed() {
    let token = signed().token;
    assert!(verified(&signer(KeyType::EcP256), &token).is_err());
    let other = confirmation_key(Key::generate(KeyType::EcP256).unwrap().spki_der(), "ES256").unwrap();
    let web = id("spiffe://prod.example/web");
    let stolen = WitSvidRequest { confirmation: &other, ..request(&web) };
    let stolen = SIGNERS[0].1.sign_wit_svid(&stolen).unwrap().token;
    let mixed: Vec<_> = [stolen.split('.').nth(1), token.split('.').nth(2)].into_iter().flatten().collect();
    let mixed = format!("{}.{}", token.split('.').next().unwrap(), mixed.join("."));
    assert!(verified(&SIGNERS[0].1, &mixed).is_err());
}

#[test]
fn foreign_and_nameless_identities_and_lifetimes_without_a_second_are_refused() {
    let signer = &SIGNERS[0].1;
    let foreign = id("spiffe://other.example/web");
    let error = signer.sign_wit_svid(&request(&foreign)).unwrap_err();
    assert_eq!(error.reason(), Reason::WrongTrustDomain);
    let nameless = id("spiffe://prod.example");
    let error = signer.sign_wit_svid(&request(&nameless)).unwrap_err();
    assert!(matches!(error, TokenSignError::IdWithoutPath(_)));
    let web = id("spiffe://prod.example/web");
    let error = signer.sign_wit_svid(&WitSvidRequest { expires_at: at(NOW), ..request(&web) }).unwrap_err();
    assert!(matches!(error, TokenSignError::Lifetime { .. }));
}

proptest! {
    #[test]
    fn no_token_outlives_its_key(begin in -100_000i64..100_000, ttl in -10i64..400_000_000) {
        let web = id("spiffe://prod.example/web");
        let (issued_at, expires_at) = (at(NOW + begin), at(NOW + begin + ttl));
        match SIGNERS[0].1.sign_wit_svid(&WitSvidRequest { issued_at, expires_at, ..request(&web) }) {
            Ok(token) => {
                prop_assert_eq!(token.expires_at, expires_at.min(at(NOW + DAY)));
                prop_assert!(token.expires_at > token.issued_at);
            }
            Err(TokenSignError::Lifetime { .. }) => prop_assert!(ttl <= 0),
            Err(TokenSignError::AuthorityOver { .. }) => prop_assert!(begin >= DAY),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    /// Whatever stands in an issuer, it reads back as it was, and nothing else appears.
    #[test]
    fn a_token_says_what_was_asked_and_nothing_else(
        path in "(/[a-zA-Z0-9._-]{1,20}[a-z]){1,6}",
        issuer in prop::option::of(".{0,40}"),
        token_id: [u8; 16],
    ) {
        let spiffe_id = trust_domain().member(&path).unwrap();
        let asked = WitSvidRequest { issuer: issuer.as_deref(), token_id, ..request(&spiffe_id) };
        let claims = verified(&SIGNERS[0].1, &SIGNERS[0].1.sign_wit_svid(&asked).unwrap().token).unwrap();
        prop_assert_eq!(&claims["sub"], &json!(spiffe_id.as_str()));
        prop_assert_eq!(claims.get("iss").cloned(), issuer.map(Value::from));
        prop_assert_eq!(&claims["jti"], &json!(BASE64_URL.encode(token_id)));
        prop_assert!(claims.get("aud").is_none() && claims.as_object().unwrap().len() <= 6);
    }
}
