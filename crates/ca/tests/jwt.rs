//! Tokens as others read them: `jsonwebtoken` verifies what every kind of key signs, and what it says is what was asked.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use proptest::prelude::*;
use serde_json::{Value, json};
use spindle_ca::{JwtSigner, JwtSvidRequest, SignedToken, TokenSignError};
use spindle_keys::{Key, KeyType};
use spindle_spiffe_core::{
    Audience, Bundle, JwtAuthority, JwtSvidError, JwtValidation, Reason, SpiffeId, Timestamp, TrustDomain,
    ValidatedJwtSvid, Validity, validate_jwt_svid,
};

/// 2026-09-21T14:13:20Z.
const NOW: i64 = 1_790_000_000;
const DAY: i64 = 86_400;

/// One authority of each kind of key, as keys are slow to find.
static SIGNERS: LazyLock<Vec<(KeyType, JwtSigner)>> =
    LazyLock::new(|| KeyType::ALL.into_iter().map(|kind| (kind, signer(kind))).collect());

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_secs(secs)
}

fn trust_domain() -> TrustDomain {
    "prod.example".parse().unwrap()
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn audience(values: &[&str]) -> Audience {
    Audience::new(values.iter().map(|value| (*value).to_owned())).unwrap()
}

/// An authority that lives from now for a day.
fn signer(kind: KeyType) -> JwtSigner {
    let validity = Validity { not_before: at(NOW - 10), not_after: at(NOW + DAY) };
    JwtSigner::new(&trust_domain(), Key::generate(kind).unwrap(), "a-key-id", validity).unwrap()
}

/// A request for five minutes, without `iss` and `jti`.
fn request<'a>(spiffe_id: &'a SpiffeId, audience: &'a Audience) -> JwtSvidRequest<'a> {
    let (issued_at, expires_at) = (at(NOW), at(NOW + 300));
    JwtSvidRequest { spiffe_id, audience, issued_at, expires_at, issuer: None, token_id: None }
}

fn decoding_key(authority: &JwtAuthority) -> DecodingKey {
    let jwk = serde_json::to_value(authority.key().to_jwk()).unwrap();
    DecodingKey::from_jwk(&serde_json::from_value(jwk).unwrap()).unwrap()
}

/// The claims, once the signature and the audience are found good. The time is not looked at: the oracle's clock is real.
fn verified(signer: &JwtSigner, token: &str, audience: &str) -> Result<Value, jsonwebtoken::errors::Error> {
    let mut validation = Validation::new(decode_header(token)?.alg);
    validation.validate_exp = false;
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "aud", "sub"]);
    Ok(decode::<Value>(token, &decoding_key(signer.authority()), &validation)?.claims)
}

/// The token as our own validator reads it.
fn validated(signer: &JwtSigner, token: &str) -> Result<ValidatedJwtSvid, JwtSvidError> {
    let mut bundle = Bundle::new(trust_domain());
    bundle.jwt_authorities = vec![signer.authority().clone()];
    validate_jwt_svid(token, &bundle, &JwtValidation::new(["db"], at(NOW)).unwrap())
}

/// The decoded first or second part.
fn part(token: &str, at: usize) -> Value {
    serde_json::from_slice(&BASE64_URL.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
}

#[test]
fn jwt_01_04_05_06_11_rfc_31_every_kind_of_key_signs_what_others_verify() {
    let (spiffe_id, audience) = (id("spiffe://prod.example/web"), audience(&["db"]));
    for (kind, signer) in SIGNERS.iter() {
        let signed = signer.sign_jwt_svid(&request(&spiffe_id, &audience)).unwrap();
        assert_eq!(signed.token.matches('.').count(), 2);
        assert!(!signed.token.contains('='));
        let algorithm = match kind {
            KeyType::EcP256 => Algorithm::ES256,
            KeyType::EcP384 => Algorithm::ES384,
            KeyType::Rsa2048 | KeyType::Rsa4096 => Algorithm::RS256,
        };
        let alg = format!("{algorithm:?}");
        assert_eq!(part(&signed.token, 0), json!({ "alg": alg, "kid": "a-key-id", "typ": "JWT" }));
        let claims = verified(signer, &signed.token, "db").unwrap();
        assert_eq!(
            claims,
            json!({ "aud": ["db"], "exp": NOW + 300, "iat": NOW, "sub": "spiffe://prod.example/web" })
        );
        assert_eq!((signed.issued_at, signed.expires_at), (at(NOW), at(NOW + 300)));
        let svid = validated(signer, &signed.token).unwrap();
        assert_eq!(
            (svid.spiffe_id(), svid.audience(), svid.expires_at()),
            (&spiffe_id, audience.values(), at(NOW + 300))
        );
        assert!(verified(signer, &signed.token, "other").is_err(), "the oracle looks at the audience");
    }
}

#[test]
fn a_token_verifies_under_its_own_key_alone_and_no_bit_of_it_can_be_changed() {
    let (spiffe_id, audience) = (id("spiffe://prod.example/web"), audience(&["db"]));
    for (kind, signer) in SIGNERS.iter() {
        let token = signer.sign_jwt_svid(&request(&spiffe_id, &audience)).unwrap().token;
        if *kind == KeyType::EcP256 {
            assert!(verified(&self::signer(*kind), &token, "db").is_err());
        }
        for place in [token.find('.').unwrap() + 5, token.len() - 9] {
            let mut forged = token.clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            assert!(verified(signer, std::str::from_utf8(&forged).unwrap(), "db").is_err());
        }
    }
}

#[test]
fn jwt_28_issuer_and_token_id_are_there_when_asked_for() {
    let (spiffe_id, audience) = (id("spiffe://prod.example/web"), audience(&["a", "b", "a"]));
    let asked = JwtSvidRequest {
        issuer: Some("https://issuer.example"),
        token_id: Some([0xff; 16]),
        ..request(&spiffe_id, &audience)
    };
    let signer = &SIGNERS[0].1;
    let claims = verified(signer, &signer.sign_jwt_svid(&asked).unwrap().token, "b").unwrap();
    assert_eq!(claims["iss"], "https://issuer.example");
    assert_eq!(claims["jti"], "_____________________w", "base64url of 16 bytes, without padding");
    assert_eq!(claims["aud"], json!(["a", "b", "a"]));
    let names: BTreeSet<&String> = claims.as_object().unwrap().keys().collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["aud", "exp", "iat", "iss", "jti", "sub"]);
}

#[test]
fn foreign_and_nameless_identities_and_lifetimes_without_a_second_are_refused() {
    let audience = audience(&["db"]);
    let signer = &SIGNERS[0].1;
    let refused = |request: &JwtSvidRequest<'_>| signer.sign_jwt_svid(request).expect_err("a refusal");
    let foreign = id("spiffe://other.example/web");
    let error = refused(&request(&foreign, &audience));
    assert!(matches!(error, TokenSignError::ForeignId { .. }) && error.reason() == Reason::WrongTrustDomain);
    let nameless = id("spiffe://prod.example");
    assert!(matches!(refused(&request(&nameless, &audience)), TokenSignError::IdWithoutPath(_)));
    let web = id("spiffe://prod.example/web");
    for ttl in [0, -1, i64::MIN] {
        let request = JwtSvidRequest { expires_at: at(NOW) + ttl, ..request(&web, &audience) };
        assert!(matches!(refused(&request), TokenSignError::Lifetime { .. }), "{ttl}");
    }
    let over = |issued_at: i64| {
        let request = JwtSvidRequest {
            issued_at: at(issued_at),
            expires_at: at(issued_at + 300),
            ..request(&web, &audience)
        };
        signer.sign_jwt_svid(&request).map(|signed| signed.expires_at)
    };
    assert_eq!(over(NOW + DAY - 1), Ok(at(NOW + DAY)), "one second is left");
    assert!(matches!(over(NOW + DAY), Err(TokenSignError::AuthorityOver { .. })));
}

#[test]
fn a_key_id_of_no_or_endless_length_is_refused() {
    let validity = Validity { not_before: at(NOW), not_after: at(NOW + DAY) };
    for kid in [String::new(), "k".repeat(1025)] {
        let key = Key::generate(KeyType::EcP256).unwrap();
        assert!(JwtSigner::new(&trust_domain(), key, &kid, validity).is_err());
    }
}

fn signed(request: &JwtSvidRequest<'_>) -> Result<SignedToken, TokenSignError> {
    SIGNERS[0].1.sign_jwt_svid(request)
}

proptest! {
    #[test]
    fn no_token_outlives_its_key(begin in -100_000i64..100_000, ttl in -10i64..400_000_000) {
        let (spiffe_id, audience) = (id("spiffe://prod.example/web"), audience(&["db"]));
        let (issued_at, expires_at) = (at(NOW + begin), at(NOW + begin + ttl));
        match signed(&JwtSvidRequest { issued_at, expires_at, ..request(&spiffe_id, &audience) }) {
            Ok(token) => {
                prop_assert_eq!(token.expires_at, expires_at.min(at(NOW + DAY)));
                prop_assert!(token.expires_at > token.issued_at);
                prop_assert_eq!(&part(&token.token, 1)["exp"], &json!(token.expires_at.unix_secs()));
            }
            Err(TokenSignError::Lifetime { .. }) => prop_assert!(ttl <= 0),
            Err(TokenSignError::AuthorityOver { .. }) => prop_assert!(begin >= DAY),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    /// Whatever stands in an audience or an issuer, it reads back as it was, and nothing else appears.
    #[test]
    fn jwt_13_21_40_a_token_says_what_was_asked_and_nothing_else(
        path in "(/[a-zA-Z0-9._-]{1,20}[a-z]){1,6}",
        values in prop::collection::vec(".{1,40}", 1..10),
        issuer in prop::option::of(".{0,40}"),
        token_id: Option<[u8; 16]>,
    ) {
        let spiffe_id = trust_domain().member(&path).unwrap();
        let audience = Audience::new(values.clone()).unwrap();
        let asked = JwtSvidRequest { issuer: issuer.as_deref(), token_id, ..request(&spiffe_id, &audience) };
        let token = signed(&asked).unwrap().token;
        let claims = verified(&SIGNERS[0].1, &token, &values[0]).unwrap();
        prop_assert_eq!(&claims["aud"], &json!(values));
        prop_assert_eq!(&claims["sub"], &json!(spiffe_id.as_str()));
        prop_assert!(claims["exp"].is_i64() || claims["exp"].is_u64());
        prop_assert_eq!(&claims["exp"], &json!(NOW + 300));
        prop_assert_eq!(claims.get("iss").cloned(), issuer.map(Value::from));
        let token_id = token_id.map(|bytes| Value::from(BASE64_URL.encode(bytes)));
        prop_assert_eq!(claims.get("jti").cloned(), token_id);
        prop_assert!(claims.as_object().unwrap().len() <= 6);
    }
}
