//! WIT-SVID, row by row: what the validator takes and what it refuses, and by which rule.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/tokens.rs"]
mod tokens;

use serde_json::{Value, json};
use spindle_spiffe_core::jws::SvidType;
use spindle_spiffe_core::public_key::PublicKeyError;
use spindle_spiffe_core::wit_svid::{ConfirmationError, ConfirmationKey};
use spindle_spiffe_core::{
    Bundle, JwtSvidError, JwtValidation, Leeway, Reason, SignatureAlgorithm, TokenError, UnprovenWit,
    WitSvidError, WitValidation, validate_jwt_svid, validate_wit_svid,
};
use tokens::{
    NOW, SECS, SIGNERS, Signer, es256, jwt_bundle, signer, wit_bundle, wit_claims, wit_header, with,
};

fn validate(token: &str) -> Result<UnprovenWit, WitSvidError> {
    validate_wit_svid(token, &wit_bundle("td"), &WitValidation::new(NOW))
}

fn fault(token: &str) -> TokenError {
    match validate(token).expect_err("a refusal") {
        WitSvidError::Token(error) => error,
        other => panic!("{other}"),
    }
}

fn header_fault(name: &str, member: Value) -> TokenError {
    fault(&es256().sign(&with(wit_header(es256()), name, member), &wit_claims(es256())))
}

fn with_claim(name: &str, claim: Value) -> Result<UnprovenWit, WitSvidError> {
    validate(&es256().sign(&wit_header(es256()), &with(wit_claims(es256()), name, claim)))
}

fn claim_fault(name: &str, claim: Value) -> TokenError {
    match with_claim(name, claim).expect_err("a refusal") {
        WitSvidError::Token(error) => error,
        other => panic!("{other}"),
    }
}

/// The fault in a token whose `cnf` was changed.
fn confirmation_fault(change: impl FnOnce(&mut Value)) -> ConfirmationError {
    let mut cnf = wit_claims(es256())["cnf"].clone();
    change(&mut cnf);
    match with_claim("cnf", cnf).expect_err("a refusal") {
        WitSvidError::Confirmation(error) => error,
        other => panic!("{other}"),
    }
}

fn good() -> String {
    es256().sign(&wit_header(es256()), &wit_claims(es256()))
}

#[test]
fn wit_01_only_the_compact_form_is_a_wit_svid() {
    let token = good();
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { unreachable!() };
    let json = json!({ "payload": payload, "protected": header, "signature": signature });
    assert_eq!(fault(&json.to_string()), TokenError::JsonSerialization);
    assert_eq!(fault(&format!("{token}.a.b")), TokenError::Parts(5));
}

#[test]
fn wit_03_rfc_23_key_ids_are_compared_to_the_letter() {
    let mut bundle = Bundle::new("td".parse().unwrap());
    bundle.wit_authorities = vec![es256().authority("Ab")];
    for (kid, is_taken) in [("Ab", true), ("ab", false), ("AB", false), ("Ab ", false)] {
        let token = es256().sign(&with(wit_header(es256()), "kid", json!(kid)), &wit_claims(es256()));
        let result = validate_wit_svid(&token, &bundle, &WitValidation::new(NOW));
        assert_eq!(result.is_ok(), is_taken, "{kid}");
        if let Err(WitSvidError::Token(error)) = result {
            assert!(matches!(error, TokenError::UnknownKey { svid_type: SvidType::WitSvid, .. }));
        }
    }
}

#[test]
fn wit_05_a_token_without_a_key_id_is_no_wit_svid() {
    assert_eq!(header_fault("kid", Value::Null), TokenError::NoKeyId);
    assert_eq!(header_fault("kid", json!("")), TokenError::KeyId);
}

#[test]
fn wit_06_the_type_is_there_and_spelt_exactly() {
    for typ in ["JWT", "WIT+JWT", "Wit+jwt", "application/wit+jwt", "wpt+jwt", "wit+jwt ", ""] {
        assert_eq!(header_fault("typ", json!(typ)), TokenError::Type, "{typ}");
    }
    assert_eq!(header_fault("typ", Value::Null), TokenError::Type);
    validate(&good()).unwrap();
}

#[test]
fn wit_07_wit_08_the_nine_algorithms_are_taken_and_no_other() {
    for signer in SIGNERS.iter() {
        let wit = validate(&signer.sign(&wit_header(signer), &wit_claims(signer))).unwrap();
        assert_eq!(wit.claimed_spiffe_id().as_str(), "spiffe://td/web");
    }
    for name in ["none", "HS256", "HS512", "EdDSA", "ES256K", "es256"] {
        assert_eq!(header_fault("alg", json!(name)), TokenError::Algorithm, "{name}");
    }
    assert_eq!(header_fault("alg", Value::Null), TokenError::NoAlgorithm);
    assert_eq!(header_fault("alg", json!("ES384")), TokenError::KeyMismatch(SignatureAlgorithm::Es384));
}

#[test]
fn wit_10_unknown_header_members_are_passed_over_unless_they_are_critical() {
    let extra = with(wit_header(es256()), "x", json!([1]));
    validate(&es256().sign(&extra, &wit_claims(es256()))).unwrap();
    for crit in [json!(["x"]), json!([])] {
        let critical = with(extra.clone(), "crit", crit);
        assert_eq!(fault(&es256().sign(&critical, &wit_claims(es256()))), TokenError::Critical);
    }
}

#[test]
fn wit_11_the_subject_must_be_a_spiffe_id() {
    assert_eq!(claim_fault("sub", Value::Null), TokenError::NoClaim("sub"));
    for sub in ["wimse://td/web", "spiffe://td/web/", "web", ""] {
        assert!(matches!(claim_fault("sub", json!(sub)), TokenError::Subject(_)), "{sub}");
    }
}

#[test]
fn wit_12_wit_13_the_token_names_one_public_key_that_proofs_are_checked_with() {
    assert_eq!(claim_fault("cnf", Value::Null), TokenError::NoClaim("cnf"));
    for cnf in [json!({}), json!("key"), json!([]), json!({ "jwk": "key" }), json!({ "jwk": [1] })] {
        let error = with_claim("cnf", cnf.clone()).expect_err("a refusal");
        assert_eq!(error, ConfirmationError::NoJwk.into(), "{cnf}");
    }
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        let error = confirmation_fault(|cnf| cnf["jwk"][name] = json!("AQAB"));
        assert_eq!(error, ConfirmationError::PrivateMember(name));
    }
    let symmetric = json!({ "jwk": { "kty": "oct", "alg": "ES256" } });
    let error = with_claim("cnf", symmetric).expect_err("a refusal");
    assert_eq!(error, ConfirmationError::Key(PublicKeyError::UnknownType).into());
    let error = confirmation_fault(|cnf| cnf["jwk"]["x"] = json!("AA"));
    assert_eq!(error, ConfirmationError::Key(PublicKeyError::BadMember("x")));
    let error = confirmation_fault(|cnf| cnf["jwk"]["x"] = cnf["jwk"]["y"].clone());
    assert_eq!(error, ConfirmationError::Key(PublicKeyError::Value), "beside the curve");
    assert_eq!(confirmation_fault(|cnf| cnf["jwk"]["x"] = json!(1)), ConfirmationError::Form);
    assert_eq!(WitSvidError::from(ConfirmationError::NoJwk).reason(), Reason::TokenMalformed);
}

#[test]
fn rfc_32_a_confirmation_names_exactly_one_key() {
    for name in ["jwe", "jku"] {
        let error = confirmation_fault(|cnf| cnf[name] = json!("https://keys.example"));
        assert_eq!(error, ConfirmationError::SecondKey(name));
    }
    let mut cnf = wit_claims(es256())["cnf"].clone();
    cnf["example.com/note"] = json!(1);
    cnf["jwk"]["kid"] = json!("k");
    with_claim("cnf", cnf).unwrap();
}

#[test]
fn wit_14_rfc_33_the_bound_key_says_one_of_the_nine_algorithms_that_it_signs_with() {
    for alg in [json!("EdDSA"), json!("HS256"), json!("none"), json!("RSA-OAEP"), json!("es256"), json!(1)] {
        assert_eq!(confirmation_fault(|cnf| cnf["jwk"]["alg"] = alg), ConfirmationError::Algorithm);
    }
    let error = confirmation_fault(|cnf| drop(cnf["jwk"].as_object_mut().unwrap().remove("alg")));
    assert_eq!(error, ConfirmationError::Algorithm);
    for algorithm in SignatureAlgorithm::ALL {
        if algorithm != SignatureAlgorithm::Es256 {
            let error = confirmation_fault(|cnf| cnf["jwk"]["alg"] = json!(algorithm.name()));
            assert_eq!(error, ConfirmationError::KeyMismatch(algorithm));
        }
        let key = ConfirmationKey::new(signer(algorithm).public_key(), algorithm).unwrap();
        assert_eq!(ConfirmationKey::from_claim(&key.to_claim()), Ok(key.clone()));
        let wit = with_claim("cnf", key.to_claim()).unwrap();
        assert_eq!(wit.key(), &key);
    }
}

#[test]
fn wit_15_wit_28_a_token_may_have_an_id_and_an_issuer() {
    for name in ["jti", "iss"] {
        with_claim(name, json!("https://issuer.example")).unwrap();
        with_claim(name, Value::Null).unwrap();
    }
    assert!(matches!(claim_fault("jti", json!(1)), TokenError::Claim { name: "jti", .. }));
}

#[test]
fn wit_20_a_token_without_an_end_is_refused() {
    assert_eq!(claim_fault("exp", Value::Null), TokenError::NoClaim("exp"));
    assert!(matches!(claim_fault("exp", json!("soon")), TokenError::Claim { name: "exp", .. }));
}

#[test]
fn wit_21_wit_22_an_expired_token_is_refused_once_a_small_leeway_is_over() {
    for (ago, is_taken) in [(3600, false), (60, false), (59, true), (-1, true)] {
        assert_eq!(with_claim("exp", json!(SECS - ago)).is_ok(), is_taken, "{ago} s ago");
    }
    let token = es256().sign(&wit_header(es256()), &with(wit_claims(es256()), "exp", json!(SECS - 100)));
    let how = WitValidation::new(NOW).with_leeway(Leeway::from_secs(120).unwrap());
    validate_wit_svid(&token, &wit_bundle("td"), &how).unwrap();
    assert!(Leeway::from_secs(121).is_err());
}

#[test]
fn wit_23_wit_24_a_token_is_not_valid_before_its_beginning() {
    for (ahead, is_taken) in [(600, false), (61, false), (60, true), (-10, true)] {
        assert_eq!(with_claim("nbf", json!(SECS + ahead)).is_ok(), is_taken, "{ahead} s ahead");
    }
}

#[test]
fn wit_25_tokens_that_live_too_long_are_refused_where_that_is_asked_for() {
    let how = WitValidation::new(NOW).with_lifetime_secs_max(3600);
    let lives = |nbf: Value, exp: i64| {
        let claims = with(with(wit_claims(es256()), "nbf", nbf), "exp", json!(SECS + exp));
        validate_wit_svid(&es256().sign(&wit_header(es256()), &claims), &wit_bundle("td"), &how)
    };
    lives(json!(SECS - 10), 3590).unwrap();
    lives(Value::Null, 3600).unwrap();
    for (nbf, exp) in [(json!(SECS - 10), 3591), (Value::Null, 3601), (json!(SECS - 7000), 200)] {
        let error = lives(nbf, exp).expect_err("a refusal");
        assert!(matches!(error, WitSvidError::Lifetime { max: 3600, .. }), "{error}");
        assert_eq!(error.reason(), Reason::TokenLifetime);
    }
    with_claim("exp", json!(SECS + 7200)).unwrap();
}

#[test]
fn wit_27_when_a_token_was_issued_never_delays_it() {
    for iat in [SECS + 600, SECS + 86_400, 0] {
        with_claim("iat", json!(iat)).unwrap();
    }
}

#[test]
fn wit_30_wit_48_neither_kind_of_token_passes_as_the_other() {
    for aud in [json!("db"), json!(["db"]), json!([]), json!(1)] {
        assert_eq!(with_claim("aud", aud).expect_err("a refusal"), WitSvidError::Audience);
    }
    let mut bundle = jwt_bundle("td");
    bundle.wit_authorities.clone_from(&bundle.jwt_authorities);
    let how = JwtValidation::new(["db"], NOW).unwrap();
    let error = validate_jwt_svid(&good(), &bundle, &how).unwrap_err();
    assert_eq!(error, TokenError::Type.into());
    // Not even when it says to be a JWT-SVID: it is for nobody.
    let disguised = es256().sign(&es256().header(), &wit_claims(es256()));
    let error = validate_jwt_svid(&disguised, &bundle, &how).unwrap_err();
    assert_eq!(error, JwtSvidError::Token(TokenError::NoClaim("aud")));
    let jwt_svid = es256().sign(&es256().header(), &tokens::claims());
    let error = validate_wit_svid(&jwt_svid, &bundle, &WitValidation::new(NOW)).expect_err("a refusal");
    assert_eq!(error, TokenError::Type.into());
}

#[test]
fn wit_31_wit_32_unknown_claims_are_passed_over() {
    with_claim("foo", json!({ "bar": [1] })).unwrap();
}

#[test]
fn wit_46_only_keys_for_wit_svids_count() {
    let mut bundle = wit_bundle("td");
    let stranger = Signer::new(SignatureAlgorithm::Es256);
    bundle.jwt_authorities = vec![stranger.authority("jwt-key")];
    let token = stranger.sign(&with(wit_header(&stranger), "kid", json!("jwt-key")), &wit_claims(&stranger));
    let error = validate_wit_svid(&token, &bundle, &WitValidation::new(NOW)).expect_err("a refusal");
    assert!(matches!(error, WitSvidError::Token(TokenError::UnknownKey { .. })), "{error}");
    assert_eq!(error.reason(), Reason::TokenNotTrusted);
    let token = stranger.sign(&wit_header(&stranger), &wit_claims(&stranger));
    assert_eq!(fault(&token), TokenError::Signature, "by whatever ID");
}

#[test]
fn wit_47_without_a_key_for_them_all_wit_svids_are_refused() {
    let error =
        validate_wit_svid(&good(), &jwt_bundle("td"), &WitValidation::new(NOW)).expect_err("a refusal");
    let (trust_domain, svid_type) = ("td".parse().unwrap(), SvidType::WitSvid);
    assert_eq!(error, TokenError::NoAuthority { trust_domain, svid_type }.into());
}
