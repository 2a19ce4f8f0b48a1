//! JWT-SVID, row by row: what the validator takes and what it refuses, and by which rule.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/tokens.rs"]
mod tokens;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use serde_json::{Value, json};
use spindle_spiffe_core::jws::SvidType;
use spindle_spiffe_core::{
    Bundle, BundleMap, Bundles, JwtSvidError, JwtValidation, Leeway, Reason, ReplayCache, ReplayError,
    SignatureAlgorithm, TokenError, ValidatedJwtSvid, validate_jwt_svid,
};
use tokens::{NOW, SECS, SIGNERS, Signer, claims, es256, jwt_bundle, signer, with};

fn validate_with(
    token: &str,
    bundles: &(impl Bundles + ?Sized),
    audience: &str,
) -> Result<ValidatedJwtSvid, JwtSvidError> {
    validate_jwt_svid(token, bundles, &JwtValidation::new([audience], NOW).unwrap())
}

fn validate(token: &str) -> Result<ValidatedJwtSvid, JwtSvidError> {
    validate_with(token, &jwt_bundle("td"), "db")
}

/// The fault found in a token, which must be one that any token can have.
fn fault(token: &str) -> TokenError {
    match validate(token).expect_err("a refusal") {
        JwtSvidError::Token(error) => error,
        other => panic!("{other}"),
    }
}

/// The fault in a token with good claims and one header member changed; `null` takes it out.
fn header_fault(name: &str, member: Value) -> TokenError {
    fault(&es256().sign(&with(es256().header(), name, member), &claims()))
}

/// What becomes of a token with one claim changed; `null` takes it out.
fn with_claim(name: &str, claim: Value) -> Result<ValidatedJwtSvid, JwtSvidError> {
    validate(&es256().sign(&es256().header(), &with(claims(), name, claim)))
}

fn claim_fault(name: &str, claim: Value) -> TokenError {
    match with_claim(name, claim).expect_err("a refusal") {
        JwtSvidError::Token(error) => error,
        other => panic!("{other}"),
    }
}

fn good() -> String {
    es256().sign(&es256().header(), &claims())
}

#[test]
fn jwt_02_json_serialization_is_refused_in_both_its_forms() {
    let token = good();
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { unreachable!() };
    let flattened = json!({ "payload": payload, "protected": header, "signature": signature });
    let general =
        json!({ "payload": payload, "signatures": [{ "protected": header, "signature": signature }] });
    for text in [flattened.to_string(), general.to_string(), format!("  {flattened}")] {
        assert_eq!(fault(&text), TokenError::JsonSerialization);
    }
}

#[test]
fn jwt_03_only_three_parts_are_a_signed_token() {
    let token = good();
    for (text, parts) in [
        (format!("{token}.a.b"), 5),
        (format!("{token}."), 4),
        (token.rsplit_once('.').unwrap().0.to_owned(), 2),
        ("token".to_owned(), 1),
        (String::new(), 1),
    ] {
        assert_eq!(fault(&text), TokenError::Parts(parts), "{parts}");
    }
}

#[test]
fn jwt_07_every_algorithm_but_the_nine_is_refused() {
    for name in ["none", "HS256", "HS384", "HS512", "EdDSA", "ES256K", "es256", "ES256 ", "", "RSA-OAEP"] {
        assert_eq!(header_fault("alg", json!(name)), TokenError::Algorithm, "{name}");
    }
    for other in [json!(256), json!(["ES256"]), json!({}), json!(true)] {
        assert_eq!(header_fault("alg", other), TokenError::Algorithm);
    }
    assert_eq!(header_fault("alg", Value::Null), TokenError::NoAlgorithm);
    assert_eq!(TokenError::Algorithm.reason(), Reason::TokenAlgorithm);
}

#[test]
fn jwt_08_the_algorithm_is_looked_at_before_anything_else() {
    // Everything else about the token is wrong: claims, key, signature, trust domain.
    let header = BASE64_URL.encode(r#"{"alg":"HS256","typ":7,"crit":["x"],"kid":[]}"#);
    assert_eq!(fault(&format!("{header}.@@@.===")), TokenError::Algorithm);
    // A key meant for RSA is never one for a MAC.
    let rsa = signer(SignatureAlgorithm::Rs256);
    let signed = format!(
        "{}.{}",
        BASE64_URL.encode(r#"{"alg":"HS256","kid":"RS256"}"#),
        BASE64_URL.encode(claims().to_string())
    );
    let mac = aws_lc_rs::hmac::sign(
        &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &rsa.spki()),
        signed.as_bytes(),
    );
    assert_eq!(fault(&format!("{signed}.{}", BASE64_URL.encode(mac))), TokenError::Algorithm);
}

#[test]
fn jwt_09_each_of_the_nine_algorithms_verifies() {
    assert_eq!(SIGNERS.len(), 9);
    for signer in SIGNERS.iter() {
        let svid = validate(&signer.sign(&signer.header(), &claims())).unwrap();
        assert_eq!(svid.spiffe_id().as_str(), "spiffe://td/web");
        assert_eq!((svid.audience(), svid.key_id()), (&["db".to_owned()][..], signer.algorithm.name()));
        assert_eq!((svid.expires_at(), svid.issued_at()), (NOW + 300, Some(NOW)));
        assert_eq!(svid.claims(), claims().as_object().unwrap());
    }
}

#[test]
fn jwt_06_jwt_07_no_algorithm_goes_with_the_key_of_another() {
    for signer in SIGNERS.iter() {
        for other in SIGNERS.iter().map(|other| other.algorithm) {
            // The header lies about the algorithm; the key is the one that signed.
            let header = with(signer.header(), "alg", json!(other.name()));
            let result = validate(&signer.sign(&header, &claims()));
            let both_rsa = signer.algorithm.name().as_bytes()[1] == b'S'
                && [signer.algorithm, other].iter().all(|one| !one.name().starts_with('E'));
            match result {
                Ok(_) => assert_eq!(signer.algorithm, other),
                Err(JwtSvidError::Token(TokenError::Signature)) => assert!(both_rsa, "{other}"),
                Err(error) => assert_eq!(error, TokenError::KeyMismatch(other).into()),
            }
        }
    }
}

#[test]
fn jwt_10_a_token_without_a_key_id_is_refused() {
    assert_eq!(header_fault("kid", Value::Null), TokenError::NoKeyId);
    for kid in [json!(""), json!(1), json!(["ES256"]), json!("k".repeat(1025))] {
        assert_eq!(header_fault("kid", kid), TokenError::KeyId);
    }
}

#[test]
fn jwt_12_a_token_of_another_type_is_no_jwt_svid() {
    for typ in ["wit+jwt", "wpt+jwt", "at+jwt", "jwt", "Jwt", "jose", "", "JWT "] {
        assert_eq!(header_fault("typ", json!(typ)), TokenError::Type, "{typ}");
    }
    assert_eq!(header_fault("typ", json!(1)), TokenError::Type);
    for typ in [json!("JWT"), json!("JOSE"), Value::Null] {
        validate(&es256().sign(&with(es256().header(), "typ", typ), &claims())).unwrap();
    }
}

#[test]
fn jwt_14_the_subject_must_be_a_spiffe_id() {
    assert_eq!(claim_fault("sub", Value::Null), TokenError::NoClaim("sub"));
    for sub in ["", "web", "spiffe://td/a/", "spiffe://TD/a", "SPIFFE://td/a", "https://td/a"] {
        assert!(matches!(claim_fault("sub", json!(sub)), TokenError::Subject(_)), "{sub}");
    }
    assert_eq!(claim_fault("sub", json!(1)), TokenError::Claim { name: "sub", form: "a text" });
    let bare = with_claim("sub", json!("spiffe://td")).unwrap();
    assert_eq!(bare.spiffe_id().path(), "", "the standard asks for no path");
}

#[test]
fn jwt_16_a_token_for_nobody_is_refused() {
    assert_eq!(claim_fault("aud", Value::Null), TokenError::NoClaim("aud"));
    assert_eq!(with_claim("aud", json!([])), Err(JwtSvidError::EmptyAudience));
    for aud in [json!(1), json!({}), json!(["db", 1]), json!([["db"]])] {
        assert!(matches!(claim_fault("aud", aud), TokenError::Claim { name: "aud", .. }));
    }
}

#[test]
fn jwt_17_rfc_29_the_receiver_must_be_in_the_audience_to_the_letter() {
    let token = es256().sign(&es256().header(), &with(claims(), "aud", json!(["a", "b"])));
    for (audience, is_taken) in
        [("a", true), ("b", true), ("c", false), ("A", false), ("a ", false), ("ab", false)]
    {
        let result = validate_with(&token, &jwt_bundle("td"), audience);
        assert_eq!(result.is_ok(), is_taken, "{audience}");
        if let Err(error) = result {
            assert!(matches!(error, JwtSvidError::OtherAudience(_)), "{error}");
            assert_eq!(error.reason(), Reason::TokenAudience);
        }
    }
    let any = JwtValidation::new(["x", "b"], NOW).unwrap();
    validate_jwt_svid(&token, &jwt_bundle("td"), &any).unwrap();
}

#[test]
fn jwt_18_one_audience_may_stand_outside_a_list() {
    for aud in [json!("db"), json!(["db"])] {
        assert_eq!(with_claim("aud", aud).unwrap().audience(), ["db"]);
    }
    assert!(with_claim("aud", json!("")).is_err());
}

#[test]
fn jwt_22_a_token_without_an_end_is_refused() {
    assert_eq!(claim_fault("exp", Value::Null), TokenError::NoClaim("exp"));
    for exp in [json!("1800000300"), json!([SECS + 300]), json!(true), json!(1e300), json!(u64::MAX)] {
        assert!(matches!(claim_fault("exp", exp), TokenError::Claim { name: "exp", .. }));
    }
}

#[test]
fn jwt_23_an_expired_token_is_refused_once_the_leeway_is_over() {
    for (ago, is_taken) in [(3600, false), (61, false), (60, false), (59, true), (0, true), (-1, true)] {
        assert_eq!(with_claim("exp", json!(SECS - ago)).is_ok(), is_taken, "{ago} s ago");
    }
    assert_eq!(claim_fault("exp", json!(SECS - 60)), TokenError::Expired { expires_at: NOW - 60, now: NOW });
    let token = es256().sign(&es256().header(), &with(claims(), "exp", json!(SECS)));
    let strict = JwtValidation::new(["db"], NOW).unwrap().with_leeway(Leeway::NONE);
    assert!(validate_jwt_svid(&token, &jwt_bundle("td"), &strict).is_err(), "exp itself is over");
    let strict = JwtValidation::new(["db"], NOW - 1).unwrap().with_leeway(Leeway::NONE);
    validate_jwt_svid(&token, &jwt_bundle("td"), &strict).unwrap();
}

#[test]
fn jwt_23_leeway_has_a_ceiling() {
    assert_eq!(Leeway::default().secs(), 60);
    assert_eq!(Leeway::from_secs(120).unwrap().secs(), 120);
    assert!(Leeway::from_secs(121).is_err());
}

#[test]
fn jwt_25_a_token_is_not_valid_before_its_beginning() {
    for (ahead, is_taken) in [(600, false), (61, false), (60, true), (0, true), (-600, true)] {
        assert_eq!(with_claim("nbf", json!(SECS + ahead)).is_ok(), is_taken, "{ahead} s ahead");
    }
    assert_eq!(
        claim_fault("nbf", json!(SECS + 61)),
        TokenError::NotYetValid { not_before: NOW + 61, now: NOW }
    );
    assert!(matches!(claim_fault("nbf", json!("now")), TokenError::Claim { name: "nbf", .. }));
}

#[test]
fn jwt_25_rfc_30_dates_may_have_fractions() {
    let token = es256().sign(&es256().header(), &with(claims(), "exp", json!(SECS as f64 + 0.5)));
    let at = |now| {
        let how = JwtValidation::new(["db"], now).unwrap().with_leeway(Leeway::NONE);
        validate_jwt_svid(&token, &jwt_bundle("td"), &how)
    };
    assert!(at(NOW).is_ok() && at(NOW + 1).is_err());
    let text = claims().to_string().replace(&(SECS + 300).to_string(), "1.8000003e9");
    let svid = validate(&es256().sign_texts(&es256().header().to_string(), &text)).unwrap();
    assert_eq!(svid.expires_at(), NOW + 300);
    for claim in ["nbf", "iat"] {
        with_claim(claim, json!(SECS as f64 - 0.5)).unwrap();
    }
}

#[test]
fn jwt_25_when_a_token_was_issued_never_matters() {
    for iat in [json!(SECS + 86_400), json!(0), json!(-1), Value::Null] {
        with_claim("iat", iat).unwrap();
    }
}

#[test]
fn jwt_26_no_bit_of_a_token_can_be_changed() {
    let token = good();
    for at in 0..token.len() {
        for bit in [0, 1, 4] {
            let mut forged = token.clone().into_bytes();
            forged[at] ^= 1 << bit;
            let Ok(forged) = String::from_utf8(forged) else { continue };
            assert!(validate(&forged).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn jwt_27_xid_30_only_keys_of_the_subjects_trust_domain_count() {
    let (ours, theirs) = (es256(), Signer::new(SignatureAlgorithm::Es256));
    let mut other = Bundle::new("other".parse().unwrap());
    other.jwt_authorities = vec![theirs.authority("ES256")];
    let bundles: BundleMap =
        [jwt_bundle("td"), other].into_iter().map(|bundle| (bundle.trust_domain.clone(), bundle)).collect();
    let foreign = with(claims(), "sub", json!("spiffe://other/web"));
    validate_with(&ours.sign(&ours.header(), &claims()), &bundles, "db").unwrap();
    validate_with(&theirs.sign(&theirs.header(), &foreign), &bundles, "db").unwrap();
    for (signer, claims) in [(&theirs, &claims()), (ours, &foreign)] {
        let error = validate_with(&signer.sign(&signer.header(), claims), &bundles, "db").unwrap_err();
        assert_eq!(error, TokenError::Signature.into());
        assert_eq!(error.reason(), Reason::TokenNotTrusted);
    }
    let unknown = with(claims(), "sub", json!("spiffe://nobody/web"));
    let error = validate_with(&ours.sign(&ours.header(), &unknown), &bundles, "db").unwrap_err();
    assert_eq!(error, TokenError::UnknownTrustDomain("nobody".parse().unwrap()).into());
}

#[test]
fn jwt_30_a_token_is_valid_as_often_as_it_is_shown() {
    let token = es256().sign(&es256().header(), &with(claims(), "jti", json!("one")));
    let bundle = jwt_bundle("td");
    for _ in 0..2 {
        assert_eq!(validate_with(&token, &bundle, "db").unwrap().token_id(), Some("one"));
    }
    assert!(matches!(claim_fault("jti", json!(7)), TokenError::Claim { name: "jti", .. }));
}

#[test]
fn jwt_30_a_receiver_may_take_each_token_only_once() {
    let bundle = jwt_bundle("td");
    let mut cache = ReplayCache::new(8);
    let mut show = |token: &str, audience| {
        cache.admit(validate_with(token, &bundle, audience).unwrap().sighting(audience), NOW)
    };
    let both = with(claims(), "aud", json!(["db", "mail"]));
    let named = with(both.clone(), "jti", json!("one"));
    let token = es256().sign(&es256().header(), &named);
    assert_eq!(show(&token, "db"), Ok(()));
    assert_eq!(show(&token, "mail"), Ok(()), "to another audience");
    assert_eq!(show(&token, "db"), Err(ReplayError::Seen));
    assert_eq!(show(&es256().sign(&es256().header(), &named), "db"), Err(ReplayError::Seen), "signed anew");
    let other = es256().sign(&es256().header(), &with(named, "jti", json!("two")));
    assert_eq!(show(&other, "db"), Ok(()));
    let nameless = es256().sign(&es256().header(), &both);
    assert_eq!(show(&nameless, "db"), Ok(()));
    assert_eq!(show(&nameless, "db"), Err(ReplayError::Seen));
}

/// Anybody can turn the second number of an ECDSA signature round the order of the curve.
#[test]
fn jwt_30_a_second_signature_made_from_the_first_is_the_same_token() {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let token = good();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut numbers = BASE64_URL.decode(signature).unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i16::from(ORDER[at]) - i16::from(numbers[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        numbers[32 + at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    let twin = format!("{signed}.{}", BASE64_URL.encode(numbers));
    assert_ne!(twin, token);
    let mut cache = ReplayCache::new(8);
    cache.admit(validate(&token).unwrap().sighting("db"), NOW).unwrap();
    assert_eq!(cache.admit(validate(&twin).unwrap().sighting("db"), NOW), Err(ReplayError::Seen));
}

#[test]
fn jwt_34_35_36_a_bundle_shows_each_key_once_with_its_use_and_its_id() {
    let bundle = jwt_bundle("td");
    let document: Value = serde_json::from_str(&bundle.to_json()).unwrap();
    let keys = document["keys"].as_array().unwrap();
    assert_eq!(keys.len(), SIGNERS.len());
    for (key, signer) in keys.iter().zip(SIGNERS.iter()) {
        assert_eq!((&key["use"], &key["kid"]), (&json!("jwt-svid"), &signer.header()["kid"]));
        assert_eq!(key["kty"], signer.jwk()["kty"]);
    }
    let read = Bundle::from_json("td".parse().unwrap(), bundle.to_json().as_bytes()).unwrap();
    validate_with(&good(), &read, "db").unwrap();
}

#[test]
fn jwt_37_keys_for_other_types_of_svid_do_not_count() {
    let mut bundle = jwt_bundle("td");
    bundle.jwt_authorities.retain(|authority| authority.kid() != "ES256");
    let error = validate_with(&good(), &bundle, "db").unwrap_err();
    let (trust_domain, key_id) = ("td".parse().unwrap(), "ES256".to_owned());
    let expected = TokenError::UnknownKey { trust_domain, svid_type: SvidType::JwtSvid, key_id };
    assert_eq!(error, expected.into());
    // The same key as a root of X509-SVIDs, read from a document, still does not count.
    let mut document: Value = serde_json::from_str(&jwt_bundle("td").to_json()).unwrap();
    for key in document["keys"].as_array_mut().unwrap() {
        if key["kid"] == "ES256" {
            key["use"] = json!("x509-svid");
        }
    }
    let bundle = Bundle::from_json("td".parse().unwrap(), document.to_string().as_bytes()).unwrap();
    assert_eq!(bundle.jwt_authorities.len(), 8);
    assert!(validate_with(&good(), &bundle, "db").is_err());
}

#[test]
fn jwt_38_bnd_20_without_a_key_for_them_all_jwt_svids_are_invalid() {
    let bundle = Bundle::new("td".parse().unwrap());
    let error = validate_with(&good(), &bundle, "db").unwrap_err();
    let trust_domain = "td".parse().unwrap();
    assert_eq!(error, TokenError::NoAuthority { trust_domain, svid_type: SvidType::JwtSvid }.into());
    assert_eq!(error.reason(), Reason::TokenNotTrusted);
}

#[test]
fn jwt_39_a_receiver_without_a_name_is_refused_not_everybody() {
    for audiences in [vec![], vec![""], vec!["db", ""]] {
        let error = JwtValidation::new(audiences, NOW).unwrap_err();
        assert_eq!((error.clone(), error.reason()), (JwtSvidError::NoAudienceExpected, Reason::BadRequest));
    }
}
