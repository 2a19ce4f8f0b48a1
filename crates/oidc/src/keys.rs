//! The keys of a trust domain's JWT-SVIDs as web clients read them: a JWK Set with `alg` on each key (RFC 7517 4 and 5).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spindle_spiffe_core::PublicKey;
use spindle_spiffe_core::bundle::{Bundle, BundleError, JwtAuthority, KEYS_MAX};
use spindle_spiffe_core::bundle_document::DOCUMENT_BYTES_MAX;
use spindle_spiffe_core::public_key::{JwkMembers, PublicKeyKind};

/// A key that verifies JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebKey(JwtAuthority);

/// Why a text is no JWK Set.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JwksError {
    #[error("the document has {0} bytes, at most {DOCUMENT_BYTES_MAX} are taken")]
    Length(usize),
    #[error("malformed JSON document: {0}")]
    Json(String),
    #[error("a bundle has at most {KEYS_MAX} keys, this document has {0}")]
    TooManyKeys(usize),
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize, Serialize)]
struct Jwk {
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(flatten)]
    members: JwkMembers,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
}

impl WebKey {
    /// A key as servers carry it: SubjectPublicKeyInfo in DER.
    pub(crate) fn new(kid: &str, spki_der: &[u8]) -> Result<Self, BundleError> {
        JwtAuthority::new(kid, spki_der, None, false).map(Self)
    }

    /// The JWT keys of a bundle.
    pub(crate) fn all_of(bundle: &Bundle) -> Vec<Self> {
        bundle.jwt_authorities.iter().cloned().map(Self).collect()
    }

    /// The one algorithm of the key's tokens (JWT-SVID 2.1). SPIRE signs with RS256 for every RSA key.
    fn algorithm(key: &PublicKey) -> Option<&'static str> {
        match key.kind() {
            PublicKeyKind::EcP256 => Some("ES256"),
            PublicKeyKind::EcP384 => Some("ES384"),
            PublicKeyKind::EcP521 => Some("ES512"),
            PublicKeyKind::Rsa(_) => Some("RS256"),
            PublicKeyKind::Ed25519 => None,
        }
    }

    fn to_jwk(&self, usage: Option<&str>) -> Jwk {
        let key = self.0.key();
        Jwk {
            usage: usage.map(str::to_owned),
            members: key.to_jwk(),
            kid: Some(self.0.kid().to_owned()),
            alg: Self::algorithm(&key).map(str::to_owned),
        }
    }
}

/// The JWK Set of these keys; with `set_key_use` each says that it is for signatures.
pub(crate) fn to_jwks(keys: &[WebKey], set_key_use: bool) -> Bytes {
    let usage = set_key_use.then_some("sig");
    let keys: Vec<Jwk> = keys.iter().map(|key| key.to_jwk(usage)).collect();
    serde_json::to_vec_pretty(&serde_json::json!({ "keys": keys })).expect("texts always serialise").into()
}

/// The usable keys of an agent's JWK Set, and the reasons for which others were passed over. `use` may be missing, as in
/// SPIRE's answers.
pub(crate) fn from_jwks(json: &[u8]) -> Result<(Vec<WebKey>, Vec<String>), JwksError> {
    if json.len() > DOCUMENT_BYTES_MAX {
        return Err(JwksError::Length(json.len()));
    }
    let document: Document<'_> =
        serde_json::from_slice(json).map_err(|error| JwksError::Json(error.to_string()))?;
    if document.keys.len() > KEYS_MAX {
        return Err(JwksError::TooManyKeys(document.keys.len()));
    }
    let (mut keys, mut ignored) = (Vec::<WebKey>::new(), Vec::new());
    for (index, raw) in document.keys.into_iter().enumerate() {
        match read_key(raw) {
            Ok(key) if keys.iter().any(|other| other.0.kid() == key.0.kid()) => {
                ignored.push(format!("key {index}: an earlier key has the same \"kid\""));
            }
            Ok(key) => keys.push(key),
            Err(why) => ignored.push(format!("key {index}: {why}")),
        }
    }
    Ok((keys, ignored))
}

fn read_key(raw: &RawValue) -> Result<WebKey, String> {
    let jwk: Jwk = serde_json::from_str(raw.get()).map_err(|error| format!("not a JWK: {error}"))?;
    if jwk.usage.as_deref().is_some_and(|usage| usage != "jwt-svid") {
        return Err("its \"use\" is not for JWT-SVIDs".into());
    }
    let kid = jwk.kid.ok_or("its \"kid\" is missing")?;
    let key = PublicKey::from_jwk(&jwk.members).map_err(|error| error.to_string())?;
    WebKey::new(&kid, &key.to_spki_der()).map_err(|error| error.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::PublicKeyData;
    use serde_json::{Value, json};

    use super::*;

    /// A new EC P-256 key under this ID.
    pub(crate) fn web_key(kid: &str) -> WebKey {
        WebKey::new(kid, &spki(&rcgen::PKCS_ECDSA_P256_SHA256)).unwrap()
    }

    fn spki(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        rcgen::KeyPair::generate_for(algorithm).unwrap().subject_public_key_info()
    }

    fn read(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn each_key_says_its_type_id_and_algorithm() {
        for (algorithm, kty, crv, alg) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, "EC", Some("P-256"), "ES256"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, "EC", Some("P-384"), "ES384"),
            (&rcgen::PKCS_ECDSA_P521_SHA512, "EC", Some("P-521"), "ES512"),
            (&rcgen::PKCS_RSA_SHA256, "RSA", None, "RS256"),
        ] {
            let jwks = read(&to_jwks(&[WebKey::new("k", &spki(algorithm)).unwrap()], false));
            let key = &jwks["keys"][0];
            assert_eq!((key["kty"].as_str(), key["crv"].as_str()), (Some(kty), crv));
            assert_eq!((key["kid"].as_str(), key["alg"].as_str()), (Some("k"), Some(alg)));
            assert!(key.get("use").is_none() && key.get("d").is_none());
        }
    }

    #[test]
    fn the_use_is_told_on_request_only() {
        assert_eq!(read(&to_jwks(&[web_key("k")], true))["keys"][0]["use"], "sig");
    }

    #[test]
    fn no_keys_are_an_empty_list() {
        assert_eq!(read(&to_jwks(&[], true)), json!({ "keys": [] }));
    }

    #[test]
    fn what_an_agent_sends_is_read_back_with_and_without_a_use() {
        let keys = [web_key("a"), web_key("b")];
        let mut document = read(&to_jwks(&keys, false));
        document["keys"][1]["use"] = "jwt-svid".into();
        let (read, ignored) = from_jwks(document.to_string().as_bytes()).unwrap();
        assert_eq!((read, ignored.len()), (keys.to_vec(), 0));
    }

    #[test]
    fn wap_48_keys_of_other_uses_and_strange_keys_are_passed_over_and_named() {
        let mut document = read(&to_jwks(&["a", "b", "c", "d", "e"].map(web_key), false));
        document["keys"][0]["use"] = "x509-svid".into();
        document["keys"][1]["kid"] = Value::Null;
        document["keys"][2]["x"] = "AAAA".into();
        document["keys"][3]["kty"] = "oct".into();
        let again = document["keys"][4].clone();
        document["keys"].as_array_mut().unwrap().extend([again, "key".into()]);
        let (read, ignored) = from_jwks(document.to_string().as_bytes()).unwrap();
        assert_eq!(read.iter().map(|key| key.0.kid()).collect::<Vec<_>>(), ["e"]);
        assert_eq!(ignored.len(), 6, "{ignored:?}");
        assert!(ignored[0].starts_with("key 0: ") && ignored[4].contains("same"), "{ignored:?}");
    }

    #[test]
    fn what_is_no_jwk_set_is_refused_whole() {
        assert!(matches!(from_jwks(b"{}"), Err(JwksError::Json(_))));
        assert!(matches!(from_jwks(br#"{"keys":null}"#), Err(JwksError::Json(_))));
        assert!(matches!(from_jwks(b"["), Err(JwksError::Json(_))));
        assert_eq!(
            from_jwks(&vec![b' '; DOCUMENT_BYTES_MAX + 1]),
            Err(JwksError::Length(DOCUMENT_BYTES_MAX + 1))
        );
        let many = json!({ "keys": vec![0; KEYS_MAX + 1] }).to_string();
        assert_eq!(from_jwks(many.as_bytes()), Err(JwksError::TooManyKeys(KEYS_MAX + 1)));
    }

    #[test]
    fn a_key_that_signs_no_jwt_svids_is_refused() {
        assert!(WebKey::new("k", &spki(&rcgen::PKCS_ED25519)).is_err());
        assert!(WebKey::new("", &spki(&rcgen::PKCS_ECDSA_P256_SHA256)).is_err());
        assert!(WebKey::new("k", b"no key").is_err());
    }
}
