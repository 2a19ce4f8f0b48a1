//! Proofs that the presenter of a WIT-SVID holds its key: Workload Proof Tokens of the WIMSE drafts, made and checked.
//!
//! A proof is bound to one WIT-SVID (`wth`), to one target (`aud`), to the other tokens of the request (`ath`, `tth`,
//! `oth`) and to a short time. It travels beside the WIT-SVID in a field of its own, over https ([`Presentation`]).
//! Pure: callers pass time, random bytes and what signs. Start at [`ProofRequest::sign`] and [`ProofValidation`].

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use serde_json::{Map, Value, json};

use crate::jws::{SignatureAlgorithm, hash_text};
use crate::time::Timestamp;

mod check;
mod presentation;
mod target;

pub use check::{ProofError, ProofValidation};
pub use presentation::{
    Presentation, PresentationError, WORKLOAD_IDENTITY_TOKEN_FIELD, WORKLOAD_PROOF_TOKEN_FIELD,
};
pub use target::{ProofTarget, ProofTargetError};

/// The `typ` of a proof.
pub const PROOF_TYPE: &str = "wpt+jwt";

/// How long a proof lasts when nobody says otherwise, in seconds: one request, and clocks that differ.
pub const PROOF_SECS_DEFAULT: u32 = 60;

/// The longest a proof may last, in seconds (WIT-SVID 7.2: as short as its purpose allows).
pub const PROOF_SECS_MAX: u32 = 300;

/// The other tokens of a request, which its proof is bound to as well.
#[derive(Clone, Debug, Default)]
pub struct OtherTokens<'a> {
    /// An OAuth access token.
    pub access_token: Option<&'a str>,
    /// A transaction token.
    pub transaction_token: Option<&'a str>,
    /// Further ones: the lower-case name of the HTTP field, and its value.
    pub others: Vec<(&'a str, &'a str)>,
}

/// What a proof is asked for.
#[derive(Clone, Debug)]
pub struct ProofRequest<'a> {
    target: &'a ProofTarget,
    now: Timestamp,
    lifetime_secs: u32,
    token_id: [u8; 16],
    tokens: OtherTokens<'a>,
}

/// A proof that is to last longer than [`PROOF_SECS_MAX`], or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a proof lasts 1 to {PROOF_SECS_MAX} seconds, not {0}")]
pub struct ProofLifetimeError(u32);

impl<'a> ProofRequest<'a> {
    /// A proof for one request to `target`, made now, named by random bytes that were never used before.
    pub fn new(target: &'a ProofTarget, now: Timestamp, token_id: [u8; 16]) -> Self {
        let tokens = OtherTokens::default();
        Self { target, now, lifetime_secs: PROOF_SECS_DEFAULT, token_id, tokens }
    }

    /// The same for a request that carries other tokens too.
    #[must_use]
    pub fn with_tokens(mut self, tokens: OtherTokens<'a>) -> Self {
        self.tokens = tokens;
        self
    }

    /// The same, lasting that many seconds.
    ///
    /// # Errors
    /// When it is nothing or more than [`PROOF_SECS_MAX`].
    pub fn with_lifetime_secs(mut self, secs: u32) -> Result<Self, ProofLifetimeError> {
        if !(1..=PROOF_SECS_MAX).contains(&secs) {
            return Err(ProofLifetimeError(secs));
        }
        self.lifetime_secs = secs;
        Ok(self)
    }

    /// Makes the proof for a WIT-SVID. `sign` signs bytes with the key in the WIT-SVID's `cnf`, by `algorithm`, in the
    /// form of RFC 7518 3: of ECDSA the two numbers side by side.
    ///
    /// # Errors
    /// Those of `sign`.
    pub fn sign<E>(
        &self,
        wit_svid: &str,
        algorithm: SignatureAlgorithm,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<String, E> {
        let header = json!({ "alg": algorithm.name(), "typ": PROOF_TYPE });
        let mut proof = encoded(&header) + "." + &encoded(&self.claims(wit_svid));
        let signature = sign(proof.as_bytes())?;
        proof.push('.');
        BASE64_URL.encode_string(signature, &mut proof);
        Ok(proof)
    }

    fn claims(&self, wit_svid: &str) -> Value {
        let mut claims = json!({
            "aud": self.target.as_str(),
            "exp": (self.now + i64::from(self.lifetime_secs)).unix_secs(),
            "jti": BASE64_URL.encode(self.token_id),
            "wth": hash_text(wit_svid),
        });
        let tokens = [("ath", self.tokens.access_token), ("tth", self.tokens.transaction_token)];
        for (name, token) in tokens {
            if let Some(token) = token {
                claims[name] = hash_text(token).into();
            }
        }
        if !self.tokens.others.is_empty() {
            let hashes = self.tokens.others.iter();
            let hashes = hashes.map(|(name, token)| ((*name).to_owned(), hash_text(token).into()));
            claims["oth"] = Value::Object(hashes.collect::<Map<_, _>>());
        }
        claims
    }
}

fn encoded(part: &Value) -> String {
    BASE64_URL.encode(part.to_string())
}
