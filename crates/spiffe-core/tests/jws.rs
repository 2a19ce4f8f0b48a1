//! The form of tokens (RFC 7515 to 7519), row by row: what may be read in two ways is not read at all.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/tokens.rs"]
mod tokens;

use aws_lc_rs::signature::{RSA_PSS_SHA256, RsaPssSaltLength};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use serde_json::{Value, json};
use spindle_spiffe_core::jws::{Part, TOKEN_BYTES_MAX};
use spindle_spiffe_core::{
    Bundle, ErrorChain, JwtAuthority, JwtSvidError, JwtValidation, SignatureAlgorithm, TokenError,
    ValidatedJwtSvid, validate_jwt_svid,
};
use tokens::{NOW, Signer, claims, es256, jwt_bundle, rsa_signature, signer, with};

fn validate_by(bundle: &Bundle, token: &str) -> Result<ValidatedJwtSvid, JwtSvidError> {
    validate_jwt_svid(token, bundle, &JwtValidation::new(["db"], NOW).unwrap())
}

fn validate(token: &str) -> Result<ValidatedJwtSvid, JwtSvidError> {
    validate_by(&jwt_bundle("td"), token)
}

/// The fault found in a token, which must be one that any token can have.
fn fault(token: &str) -> TokenError {
    match validate(token).expect_err("a refusal") {
        JwtSvidError::Token(error) => error,
        other => panic!("{other}"),
    }
}

/// What becomes of a token with one claim changed.
fn with_claim(name: &str, claim: Value) -> Result<ValidatedJwtSvid, JwtSvidError> {
    validate(&es256().sign(&es256().header(), &with(claims(), name, claim)))
}

fn good() -> String {
    es256().sign(&es256().header(), &claims())
}

#[test]
fn rfc_20_padding_white_space_and_other_alphabets_are_refused() {
    let token = good();
    let parts: Vec<&str> = token.split('.').collect();
    for (at, part) in [Part::Header, Part::Claims, Part::Signature].into_iter().enumerate() {
        for change in [
            |text: &str| format!("{text}="),
            |text: &str| format!("{text}\n"),
            |text: &str| format!(" {text}"),
            |text: &str| format!("+{}", &text[1..]),
            |text: &str| format!("{}~", &text[1..]),
        ] {
            let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            parts[at] = change(&parts[at]);
            assert_eq!(fault(&parts.join(".")), TokenError::Base64(part));
        }
    }
}

#[test]
fn rfc_20_bits_that_carry_nothing_are_zero() {
    // 64 bytes end in a character of which four bits are used.
    let token = good();
    let last = token.as_bytes()[token.len() - 1];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = alphabet.iter().position(|&byte| byte == last).unwrap();
    let forged = format!("{}{}", &token[..token.len() - 1], char::from(alphabet[value | 1]));
    assert_ne!(forged, token);
    assert_eq!(fault(&forged), TokenError::Base64(Part::Signature));
}

#[test]
fn rfc_21_rfc_28_a_member_that_occurs_twice_is_refused() {
    let (header, claims) = (es256().header().to_string(), claims().to_string());
    let doubled = |text: &str, member: &str| text.replacen('{', &format!("{{{member},"), 1);
    for member in [r#""alg":"ES256""#, r#""kid":"ES256""#, r#""x":1,"x":1"#] {
        let error = fault(&es256().sign_texts(&doubled(&header, member), &claims));
        assert!(matches!(error, TokenError::Json { part: Part::Header, .. }), "{error}");
    }
    for member in
        [r#""sub":"spiffe://td/root""#, r#""\u0073ub":"spiffe://td/root""#, r#""x":{"y":[{"a":1,"a":1}]}"#]
    {
        let error = fault(&es256().sign_texts(&header, &doubled(&claims, member)));
        assert!(matches!(error, TokenError::Json { part: Part::Claims, .. }), "{error}");
    }
}

#[test]
fn rfc_22_critical_extensions_are_refused() {
    for crit in [json!(["x"]), json!([]), json!(["b64"]), json!("x"), json!(["exp"])] {
        let critical = with(es256().header(), "crit", crit);
        assert_eq!(fault(&es256().sign(&critical, &claims())), TokenError::Critical);
    }
    let unknown = with(es256().header(), "x", json!({ "y": 1 }));
    validate(&es256().sign(&unknown, &claims())).unwrap();
}

#[test]
fn rfc_19_an_ecdsa_signature_in_der_is_refused() {
    let signed = good().rsplit_once('.').unwrap().0.to_owned();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut bundle = Bundle::new("td".parse().unwrap());
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    bundle.jwt_authorities = vec![JwtAuthority::new("ES256", &spki, None, false).unwrap()];
    let der = rcgen::SigningKey::sign(&key, signed.as_bytes()).unwrap();
    let token = format!("{signed}.{}", BASE64_URL.encode(der));
    assert_eq!(validate_by(&bundle, &token).unwrap_err(), TokenError::Signature.into());
}

#[test]
fn rfc_18_the_salt_of_pss_is_as_long_as_the_hash() {
    let signer = signer(SignatureAlgorithm::Ps256);
    let token = signer.sign(&signer.header(), &claims());
    validate(&token).unwrap();
    let signed = token.rsplit_once('.').unwrap().0;
    for (salt, is_taken) in [
        (RsaPssSaltLength::Custom(32), true),
        (RsaPssSaltLength::Custom(20), false),
        (RsaPssSaltLength::Max, false),
    ] {
        let encoding = Box::leak(Box::new(RSA_PSS_SHA256.with_pss_salt_length(salt)));
        let signature = rsa_signature(encoding, signed.as_bytes());
        let result = validate(&format!("{signed}.{}", BASE64_URL.encode(signature)));
        assert_eq!(result.is_ok(), is_taken, "{salt:?}");
        assert!(result.is_ok() || result == Err(TokenError::Signature.into()));
    }
}

#[test]
fn rfc_34_keys_that_a_token_brings_along_are_never_used() {
    let stranger = Signer::new(SignatureAlgorithm::Es256);
    for (name, member) in [
        ("jwk", stranger.jwk()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["MIIB"])),
    ] {
        let header = with(es256().header(), name, member);
        assert_eq!(fault(&stranger.sign(&header, &claims())), TokenError::Signature);
        validate(&es256().sign(&header, &claims())).unwrap();
    }
    with_claim("iss", json!("https://evil.example")).unwrap();
}

#[test]
fn a_token_of_the_largest_size_is_read_and_a_larger_one_is_not() {
    let token =
        |filling: usize| es256().sign(&es256().header(), &with(claims(), "x", json!("x".repeat(filling))));
    let (mut low, mut high) = (0, TOKEN_BYTES_MAX);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if token(middle).len() <= TOKEN_BYTES_MAX { low = middle } else { high = middle }
    }
    validate(&token(low)).unwrap();
    let large = token(high);
    assert_eq!(fault(&large), TokenError::Length(large.len()));
}

#[test]
fn no_error_and_no_debug_text_shows_the_token() {
    let mut errors: Vec<JwtSvidError> = Vec::new();
    let secret = "hunter2-secret";
    for name in ["sub", "aud", "exp", "nbf", "iat", "jti"] {
        errors.extend(with_claim(name, json!({ "x": secret })).err());
        errors.extend(with_claim(name, json!(secret)).err());
    }
    for name in ["alg", "typ", "crit"] {
        errors.extend(validate(&es256().sign(&with(es256().header(), name, json!(secret)), &claims())).err());
    }
    errors.extend(validate(secret).err());
    assert!(errors.len() >= 12);
    for error in errors {
        let text = format!("{error} {error:?} {}", ErrorChain(&error));
        assert!(!text.contains(secret), "{text}");
    }
    let svid = with_claim("x", json!(secret)).unwrap();
    assert!(!format!("{svid:?}").contains(secret));
}
