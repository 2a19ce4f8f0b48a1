//! The key a WIT-SVID is bound to: `cnf` with a public JWK that says its algorithm (RFC 7800 3.2, WIT-SVID 3.2).

use serde_json::{Value, json};

use crate::jws::SignatureAlgorithm;
use crate::public_key::{JwkMembers, PublicKey, PublicKeyError};

/// Members of private and symmetric JWKs (RFC 7518 6.2.2, 6.3.2, 6.4.1).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Other ways to name the one key of a `cnf` (RFC 7800 3.1).
const OTHER_KEYS: [&str; 2] = ["jwe", "jku"];

/// A public key and the one algorithm that proofs with it have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmationKey {
    key: PublicKey,
    algorithm: SignatureAlgorithm,
}

/// Why a `cnf` names no usable key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmationError {
    /// It is not an object with a `jwk` that is one.
    #[error("\"cnf\" has no \"jwk\" that is a JSON object")]
    NoJwk,
    /// It names a second key.
    #[error("\"cnf\" has {0:?} beside \"jwk\", and so more than one key")]
    SecondKey(&'static str),
    /// The JWK is private or symmetric: whoever sees the token would have the key.
    #[error("\"cnf.jwk\" has the private member {0:?}")]
    PrivateMember(&'static str),
    /// A member that carries the key is not a text.
    #[error("\"cnf.jwk\" has a member of the wrong form")]
    Form,
    /// The key itself.
    #[error("the key in \"cnf.jwk\" cannot be used")]
    Key(#[from] PublicKeyError),
    /// No `alg`, or none of the nine.
    #[error("\"cnf.jwk.alg\" is none of {}", SignatureAlgorithm::NAMES)]
    Algorithm,
    /// The key is of a kind that the algorithm does not go with.
    #[error("the key in \"cnf.jwk\" is of a kind that does not sign with {0}")]
    KeyMismatch(SignatureAlgorithm),
}

impl ConfirmationKey {
    /// A key with an algorithm that goes with it.
    ///
    /// # Errors
    /// When it does not.
    pub fn new(key: PublicKey, algorithm: SignatureAlgorithm) -> Result<Self, ConfirmationError> {
        if algorithm.fits(key.kind()) {
            Ok(Self { key, algorithm })
        } else {
            Err(ConfirmationError::KeyMismatch(algorithm))
        }
    }

    /// Reads the value of `cnf`. Members that are not known are passed over.
    ///
    /// # Errors
    /// When there is no `jwk`, a second key, a private member, an unusable key, or an `alg` that does not go with it.
    pub fn from_claim(cnf: &Value) -> Result<Self, ConfirmationError> {
        let jwk = cnf.get("jwk").filter(|jwk| jwk.is_object()).ok_or(ConfirmationError::NoJwk)?;
        if let Some(name) = OTHER_KEYS.into_iter().find(|name| cnf.get(name).is_some()) {
            return Err(ConfirmationError::SecondKey(name));
        }
        if let Some(name) = PRIVATE_MEMBERS.into_iter().find(|name| jwk.get(name).is_some()) {
            return Err(ConfirmationError::PrivateMember(name));
        }
        let algorithm = jwk.get("alg").and_then(Value::as_str).and_then(SignatureAlgorithm::from_name);
        let algorithm = algorithm.ok_or(ConfirmationError::Algorithm)?;
        let members: JwkMembers = serde_json::from_value(jwk.clone()).map_err(|_| ConfirmationError::Form)?;
        Self::new(PublicKey::from_jwk(&members)?, algorithm)
    }

    /// The value of `cnf` that names this key.
    pub fn to_claim(&self) -> Value {
        let mut jwk = serde_json::to_value(self.key.to_jwk()).expect("texts always serialise");
        jwk["alg"] = self.algorithm.name().into();
        json!({ "jwk": jwk })
    }

    /// The key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The algorithm.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}
