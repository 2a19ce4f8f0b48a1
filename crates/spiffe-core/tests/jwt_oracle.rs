//! The validator against `jsonwebtoken`: what is accepted here is accepted there and reads the same.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/tokens.rs"]
mod tokens;

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use proptest::prelude::*;
use serde_json::{Value, json};
use spindle_spiffe_core::{JwtValidation, SignatureAlgorithm, validate_jwt_svid};
use tokens::{NOW, SIGNERS, Signer, claims, jwt_bundle, with};

/// The signers whose algorithm the oracle has: it has no P-521.
fn signers() -> Vec<&'static Signer> {
    SIGNERS.iter().filter(|signer| signer.algorithm != SignatureAlgorithm::Es512).collect()
}

/// The claims as the oracle reads them. The time is not looked at: the oracle's clock is real.
fn oracle(signer: &Signer, token: &str, audience: &str) -> Option<Value> {
    let mut validation = Validation::new(decode_header(token).ok()?.alg);
    validation.validate_exp = false;
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "aud", "sub"]);
    let jwk = serde_json::from_value(signer.jwk()).unwrap();
    Some(decode::<Value>(token, &DecodingKey::from_jwk(&jwk).unwrap(), &validation).ok()?.claims)
}

fn ours(token: &str, audience: &str) -> Option<Value> {
    let how = JwtValidation::new([audience], NOW).unwrap();
    Some(Value::Object(validate_jwt_svid(token, &jwt_bundle("td"), &how).ok()?.into_claims()))
}

proptest! {
    #[test]
    fn jwt_09_rfc_29_both_take_the_same_tokens_and_read_the_same_in_them(
        at in 0usize..8,
        aud in prop::collection::vec("[ab]{0,2}", 1..4),
        is_list: bool,
        expected in "[ab]{1,2}",
        extra in ".{0,20}",
        number in any::<i64>(),
    ) {
        let signer = signers()[at];
        let aud = if is_list { json!(aud) } else { json!(aud[0]) };
        let claims = with(with(with(claims(), "aud", aud), "extra", json!(extra)), "number", json!(number));
        let token = signer.sign(&signer.header(), &claims);
        let read = ours(&token, &expected);
        prop_assert_eq!(&read, &oracle(signer, &token, &expected));
        prop_assert!(read.is_none_or(|read| read == claims));
    }

    #[test]
    fn jwt_26_nothing_that_the_oracle_refuses_is_taken(
        at in 0usize..8,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let signer = signers()[at];
        let mut token = signer.sign(&signer.header(), &claims()).into_bytes();
        for (place, byte) in edits {
            let place = place.index(token.len());
            token[place] = b"ABCXYZabcxyz0189-_.="[usize::from(byte) % 20];
        }
        let token = String::from_utf8(token).unwrap();
        if let Some(read) = ours(&token, "db") {
            prop_assert_eq!(Some(read), oracle(signer, &token, "db"));
        }
    }
}
