//! Private keys as JWK text (RFC 7517, RFC 7518 6), the form in which WIT-SVIDs come with their keys.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use spindle_spiffe_core::{PublicKey, SignatureAlgorithm};
use x509_parser::asn1_rs::{Any, FromDer, Integer, OctetString, Sequence};
use zeroize::Zeroizing;

use crate::key::{Key, KeyType};

/// Room for the text of the largest key that is made here, so that no copy of it is left behind when it grows.
const TEXT_BYTES: usize = 4096;

/// The private members of an RSA key in the order of RFC 7518 6.3.2, as PKCS#1 has its numbers after the public two.
const RSA_PRIVATE: [&str; 6] = ["d", "p", "q", "dp", "dq", "qi"];

impl Key {
    /// The private key as a JWK in JSON, wiped when dropped: the members of its type and `alg`, no `kid`. None when keys of
    /// that kind do not sign by `algorithm`.
    pub fn private_jwk(&self, algorithm: SignatureAlgorithm) -> Option<Zeroizing<String>> {
        let public = PublicKey::from_spki_der(self.spki_der()).ok()?;
        if !algorithm.fits(public.kind()) {
            return None;
        }
        let members = public.to_jwk();
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES));
        text.push('{');
        let open = [
            ("kty", members.kty),
            ("crv", members.crv),
            ("x", members.x),
            ("y", members.y),
            ("n", members.n),
            ("e", members.e),
        ];
        for (name, value) in open {
            put(&mut text, name, &value.unwrap_or_default());
        }
        let pkcs8 = self.pkcs8_der();
        self.put_private(&mut text, inner(&pkcs8)?)?;
        put(&mut text, "alg", algorithm.name());
        text.push('}');
        Some(text)
    }

    /// Adds the private members out of an `ECPrivateKey` (RFC 5915) or `RSAPrivateKey` (RFC 8017 A.1.2).
    fn put_private(&self, text: &mut String, key: &[u8]) -> Option<()> {
        let ([], key) = Sequence::from_der(key).ok()? else { return None };
        let (mut rest, _version) = Integer::from_der(&key.content).ok()?;
        let number_bytes = match self.key_type() {
            KeyType::EcP256 => 32,
            KeyType::EcP384 => 48,
            KeyType::Rsa2048 | KeyType::Rsa4096 => 0,
        };
        if number_bytes > 0 {
            let (_, number) = OctetString::from_der(rest).ok()?;
            let mut padded = Zeroizing::new(vec![0; number_bytes]);
            let start = number_bytes.checked_sub(number.as_ref().len())?;
            padded[start..].copy_from_slice(number.as_ref());
            put_secret(text, "d", &padded);
            return Some(());
        }
        for name in ["n", "e"].into_iter().chain(RSA_PRIVATE) {
            let (after, number) = Integer::from_der(rest).ok()?;
            rest = after;
            if RSA_PRIVATE.contains(&name) {
                let bytes = number.as_ref();
                put_secret(text, name, bytes.strip_prefix(&[0]).unwrap_or(bytes));
            }
        }
        Some(())
    }
}

/// What PKCS#8 (RFC 5958) wraps.
fn inner(pkcs8: &[u8]) -> Option<&[u8]> {
    let (_, outer) = Any::from_der(pkcs8).ok()?;
    let (rest, _version) = Integer::from_der(outer.data).ok()?;
    let (rest, _algorithm) = Any::from_der(rest).ok()?;
    let (_, key) = Any::from_der(rest).ok()?;
    Some(key.data)
}

/// Adds one member; an empty value is none. Names and values need no escapes.
fn put(text: &mut String, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    if text.len() > 1 {
        text.push(',');
    }
    for part in ["\"", name, "\":\"", value, "\""] {
        text.push_str(part);
    }
}

fn put_secret(text: &mut String, name: &str, bytes: &[u8]) {
    let value = Zeroizing::new(BASE64_URL.encode(bytes));
    put(text, name, &value);
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature as aws;
    use serde_json::Value;

    use super::*;

    fn jwk(key: &Key, algorithm: SignatureAlgorithm) -> Value {
        serde_json::from_str(&key.private_jwk(algorithm).unwrap()).unwrap()
    }

    fn bytes(jwk: &Value, member: &str) -> Vec<u8> {
        BASE64_URL.decode(jwk[member].as_str().unwrap()).unwrap()
    }

    fn names(jwk: &Value) -> Vec<&str> {
        jwk.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn an_ec_key_has_both_coordinates_its_number_and_the_algorithm() {
        for (kind, algorithm, size, signing) in [
            (KeyType::EcP256, SignatureAlgorithm::Es256, 32, &aws::ECDSA_P256_SHA256_FIXED_SIGNING),
            (KeyType::EcP384, SignatureAlgorithm::Es384, 48, &aws::ECDSA_P384_SHA384_FIXED_SIGNING),
        ] {
            let jwk = jwk(&Key::generate(kind).unwrap(), algorithm);
            assert_eq!(names(&jwk), ["alg", "crv", "d", "kty", "x", "y"]);
            assert_eq!((jwk["alg"].as_str(), jwk["kty"].as_str()), (Some(algorithm.name()), Some("EC")));
            let (number, x, y) = (bytes(&jwk, "d"), bytes(&jwk, "x"), bytes(&jwk, "y"));
            assert_eq!([number.len(), x.len(), y.len()], [size; 3]);
            // The library refuses a pair that does not belong together.
            let point = [&[4], &x[..], &y[..]].concat();
            let pair = aws::EcdsaKeyPair::from_private_key_and_public_key(signing, &number, &point).unwrap();
            pair.sign(&SystemRandom::new(), b"message").unwrap();
        }
    }

    #[test]
    fn an_rsa_key_has_all_its_numbers() {
        let key = Key::generate(KeyType::Rsa2048).unwrap();
        let jwk = jwk(&key, SignatureAlgorithm::Ps256);
        assert_eq!(names(&jwk), ["alg", "d", "dp", "dq", "e", "kty", "n", "p", "q", "qi"]);
        assert_eq!([bytes(&jwk, "n").len(), bytes(&jwk, "p").len(), bytes(&jwk, "q").len()], [256, 128, 128]);
        assert_eq!(bytes(&jwk, "e"), [1, 0, 1]);
        assert_ne!(bytes(&jwk, "n")[0], 0, "no zeros in front");
    }

    #[test]
    fn a_key_has_no_form_for_an_algorithm_of_other_keys() {
        let key = Key::generate(KeyType::EcP256).unwrap();
        for algorithm in [SignatureAlgorithm::Es384, SignatureAlgorithm::Rs256] {
            assert!(key.private_jwk(algorithm).is_none(), "{algorithm}");
        }
    }
}
