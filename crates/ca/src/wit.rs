//! The WIT-SVIDs that WIT authorities sign (WIT-SVID 2 and 3): tokens that are bound to a key of the workload.
//!
//! Promises: `cnf` holds one public key with the algorithm it signs proofs by, and there is never an `aud`. What is no
//! public key, or does not go with its algorithm, is refused before it gets here. Start at [`confirmation_key`] and
//! [`WitSigner::sign_wit_svid`].

use serde::Serialize;
use serde_json::Value;
use spindle_spiffe_core::public_key::PublicKeyError;
use spindle_spiffe_core::wit_svid::ConfirmationKey;
use spindle_spiffe_core::{PublicKey, SignatureAlgorithm, SpiffeId, Timestamp};

use crate::token::{SignedToken, Subject, TokenSignError, TokenSigner, Wit, token_id};

/// A WIT authority of one trust domain.
pub type WitSigner = TokenSigner<Wit>;

/// The longest public key that is taken, in bytes: RSA with 8192 bits needs a little more than a thousand.
pub const CONFIRMATION_KEY_BYTES_MAX: usize = 2048;

/// Why a key cannot be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmationKeyError {
    /// Longer than [`CONFIRMATION_KEY_BYTES_MAX`].
    #[error("a public key has at most {CONFIRMATION_KEY_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// Not a public key of a known kind.
    #[error("the public key cannot be used: {0}")]
    Key(#[from] PublicKeyError),
    /// No algorithm of WIT-SVID 2.3.
    #[error("the signing algorithm {0:?} is none of those of WIT-SVIDs")]
    Algorithm(String),
    /// The algorithm is for other keys.
    #[error("keys of that kind do not sign by {0}")]
    Misfit(SignatureAlgorithm),
}

/// Checks a workload's key, as `SubjectPublicKeyInfo` in DER, and the name of the algorithm by which its proofs are signed
/// (WIT-SVID 3.2).
///
/// # Errors
/// When either is unknown, or the two do not go together.
pub fn confirmation_key(spki_der: &[u8], algorithm: &str) -> Result<ConfirmationKey, ConfirmationKeyError> {
    if spki_der.len() > CONFIRMATION_KEY_BYTES_MAX {
        return Err(ConfirmationKeyError::Length(spki_der.len()));
    }
    let key = PublicKey::from_spki_der(spki_der)?;
    let known = SignatureAlgorithm::from_name(algorithm)
        .ok_or_else(|| ConfirmationKeyError::Algorithm(algorithm.chars().take(40).collect()))?;
    ConfirmationKey::new(key, known).map_err(|_| ConfirmationKeyError::Misfit(known))
}

/// What goes into one token. Nothing else does.
#[derive(Clone, Copy, Debug)]
pub struct WitSvidRequest<'a> {
    /// The identity; a member of the authority's trust domain with a path.
    pub spiffe_id: &'a SpiffeId,
    /// The key it is bound to.
    pub confirmation: &'a ConfirmationKey,
    /// Now.
    pub issued_at: Timestamp,
    /// The end wanted; it is cut to the authority's.
    pub expires_at: Timestamp,
    /// The `iss` claim, if there is to be one.
    pub issuer: Option<&'a str>,
    /// 128 random bits for the `jti` claim (WIT-SVID 3.3).
    pub token_id: [u8; 16],
}

/// The claims, by name.
#[derive(Serialize)]
struct Claims<'a> {
    cnf: Value,
    exp: i64,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    jti: String,
    sub: &'a str,
}

impl WitSigner {
    /// Signs one token. Takes CPU time only (a remote key would wait); call it on a blocking thread.
    ///
    /// # Errors
    /// When the identity is foreign or has no path, nothing is left of the lifetime, or the signature fails.
    pub fn sign_wit_svid(&self, request: &WitSvidRequest<'_>) -> Result<SignedToken, TokenSignError> {
        let WitSvidRequest { spiffe_id, confirmation, issued_at, expires_at, .. } = *request;
        self.sign(&Subject { spiffe_id, issued_at, expires_at }, |expires_at| Claims {
            cnf: confirmation.to_claim(),
            exp: expires_at.unix_secs(),
            iat: issued_at.unix_secs(),
            iss: request.issuer,
            jti: token_id(request.token_id),
            sub: spiffe_id.as_str(),
        })
    }
}
