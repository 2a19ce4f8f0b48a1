//! Signs whatever a test wants as a token, with a key for each of the nine algorithms.
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a helper that fails ends the test that called it")]

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature as aws;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use serde_json::{Value, json};
use spindle_spiffe_core::{Bundle, JwtAuthority, PublicKey, SignatureAlgorithm, Timestamp};

/// When all tests take place.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

/// Its seconds.
pub(crate) const SECS: i64 = NOW.unix_secs();

/// A private key and the algorithm it signs with.
pub(crate) struct Signer {
    pub(crate) algorithm: SignatureAlgorithm,
    key: Key,
}

enum Key {
    Ec(aws::EcdsaKeyPair),
    Rsa(&'static aws::RsaKeyPair, &'static dyn aws::RsaEncoding),
}

/// One RSA key for all, as they are slow to find.
static RSA: LazyLock<aws::RsaKeyPair> =
    LazyLock::new(|| aws::RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

/// One signer for each algorithm.
pub(crate) static SIGNERS: LazyLock<Vec<Signer>> =
    LazyLock::new(|| SignatureAlgorithm::ALL.into_iter().map(Signer::new).collect());

/// The ES256 signer of [`SIGNERS`].
pub(crate) fn es256() -> &'static Signer {
    signer(SignatureAlgorithm::Es256)
}

/// That signer of [`SIGNERS`].
pub(crate) fn signer(algorithm: SignatureAlgorithm) -> &'static Signer {
    SIGNERS.iter().find(|signer| signer.algorithm == algorithm).unwrap()
}

/// A signature by the RSA key of all, encoded in that way.
pub(crate) fn rsa_signature(encoding: &'static dyn aws::RsaEncoding, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; RSA.public_modulus_len()];
    RSA.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

impl Signer {
    /// A fresh key; of RSA the shared one.
    pub(crate) fn new(algorithm: SignatureAlgorithm) -> Self {
        use SignatureAlgorithm::{Es256, Es384, Es512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let ec = |kind| Key::Ec(aws::EcdsaKeyPair::generate(kind).unwrap());
        let key = match algorithm {
            Es256 => ec(&aws::ECDSA_P256_SHA256_FIXED_SIGNING),
            Es384 => ec(&aws::ECDSA_P384_SHA384_FIXED_SIGNING),
            Es512 => ec(&aws::ECDSA_P521_SHA512_FIXED_SIGNING),
            Rs256 => Key::Rsa(&RSA, &aws::RSA_PKCS1_SHA256),
            Rs384 => Key::Rsa(&RSA, &aws::RSA_PKCS1_SHA384),
            Rs512 => Key::Rsa(&RSA, &aws::RSA_PKCS1_SHA512),
            Ps256 => Key::Rsa(&RSA, &aws::RSA_PSS_SHA256),
            Ps384 => Key::Rsa(&RSA, &aws::RSA_PSS_SHA384),
            Ps512 => Key::Rsa(&RSA, &aws::RSA_PSS_SHA512),
        };
        Self { algorithm, key }
    }

    /// The public key as SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = match &self.key {
            Key::Ec(key) => key.public_key().as_der().unwrap(),
            Key::Rsa(key, _) => key.public_key().as_der().unwrap(),
        };
        der.as_ref().to_vec()
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::from_spki_der(&self.spki()).unwrap()
    }

    /// The public key as JWK, with `alg`.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(self.public_key().to_jwk()).unwrap();
        jwk["alg"] = json!(self.algorithm.name());
        jwk
    }

    pub(crate) fn signature(&self, message: &[u8]) -> Vec<u8> {
        match &self.key {
            Key::Ec(key) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Key::Rsa(_, encoding) => rsa_signature(*encoding, message),
        }
    }

    /// A token of these texts, whatever they are.
    pub(crate) fn sign_texts(&self, header: &str, claims: &str) -> String {
        let mut token = BASE64_URL.encode(header) + "." + &BASE64_URL.encode(claims);
        let signature = self.signature(token.as_bytes());
        token.push('.');
        BASE64_URL.encode_string(signature, &mut token);
        token
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_texts(&header.to_string(), &claims.to_string())
    }

    /// A good JWT-SVID header of this key, whose ID is its algorithm.
    pub(crate) fn header(&self) -> Value {
        json!({ "alg": self.algorithm.name(), "kid": self.algorithm.name(), "typ": "JWT" })
    }

    pub(crate) fn authority(&self, kid: &str) -> JwtAuthority {
        JwtAuthority::new(kid, &self.spki(), None, false).unwrap()
    }
}

/// Good claims of a JWT-SVID for `db`.
pub(crate) fn claims() -> Value {
    json!({ "sub": "spiffe://td/web", "aud": ["db"], "exp": SECS + 300, "iat": SECS })
}

/// `value` with a member set, or taken out by `null`.
pub(crate) fn with(mut value: Value, name: &str, member: Value) -> Value {
    let members = value.as_object_mut().unwrap();
    if member.is_null() {
        members.remove(name);
    } else {
        members.insert(name.into(), member);
    }
    value
}

/// The bundle of `name` with a JWT key of each algorithm. RSA keys are one key under six IDs.
pub(crate) fn jwt_bundle(name: &str) -> Bundle {
    let mut bundle = Bundle::new(name.parse().unwrap());
    bundle.jwt_authorities = SIGNERS.iter().map(|signer| signer.authority(signer.algorithm.name())).collect();
    bundle
}

/// A good WIT-SVID header of this key, whose ID is its algorithm.
pub(crate) fn wit_header(issuer: &Signer) -> Value {
    with(issuer.header(), "typ", json!("wit+jwt"))
}

/// Good claims of a WIT-SVID that is bound to the key of `holder`.
pub(crate) fn wit_claims(holder: &Signer) -> Value {
    json!({
        "sub": "spiffe://td/web", "exp": SECS + 3600, "iat": SECS, "jti": "wit-1",
        "cnf": { "jwk": holder.jwk() },
    })
}

/// The bundle of `name` with a WIT key of each algorithm.
pub(crate) fn wit_bundle(name: &str) -> Bundle {
    let mut bundle = Bundle::new(name.parse().unwrap());
    bundle.wit_authorities = SIGNERS.iter().map(|signer| signer.authority(signer.algorithm.name())).collect();
    bundle
}
