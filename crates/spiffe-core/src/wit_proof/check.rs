//! Checks a proof against the WIT-SVID it comes with, and the request it came in.

use serde_json::Value;

use crate::jws::{Claims, Compact, Leeway, SignatureAlgorithm, TokenError, hash_text};
use crate::reason::Reason;
use crate::replay::Sighting;
use crate::time::Timestamp;
use crate::wit_proof::{OtherTokens, PROOF_SECS_MAX, PROOF_TYPE, ProofTarget};
use crate::wit_svid::UnprovenWit;

/// What the receiver of a proof expects.
#[derive(Clone, Debug)]
pub struct ProofValidation<'a> {
    target: &'a ProofTarget,
    now: Timestamp,
    leeway: Leeway,
    tokens: OtherTokens<'a>,
}

/// Why a proof does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A fault that any token can have.
    #[error("the proof of possession is not valid")]
    Token(#[from] TokenError),
    /// Another algorithm than the one in the WIT-SVID's `cnf`.
    #[error("the proof of possession is signed with another algorithm than the WIT-SVID's {0}")]
    OtherAlgorithm(SignatureAlgorithm),
    /// It lasts longer than a proof may.
    #[error("the proof of possession ends at {expires_at}, more than {PROOF_SECS_MAX} seconds after {now}")]
    Lifetime {
        /// Its `exp`.
        expires_at: Timestamp,
        /// When it was checked.
        now: Timestamp,
    },
    /// It was made for another WIT-SVID.
    #[error("the proof of possession was made for another WIT-SVID")]
    OtherWit,
    /// It was made for another target.
    #[error("the proof of possession is not for {0}")]
    OtherTarget(String),
    /// It was made for a request with other tokens beside the WIT-SVID, or with none.
    #[error("the proof of possession does not fit the other tokens of the request ({0:?})")]
    OtherTokens(&'static str),
}

impl ProofError {
    /// The rule that refused, for the status detail and the log.
    pub fn reason(&self) -> Reason {
        Reason::ProofRefused
    }
}

impl<'a> ProofValidation<'a> {
    /// Expects a proof for a request to `target` that came now and carries no other token, with the usual leeway.
    pub fn new(target: &'a ProofTarget, now: Timestamp) -> Self {
        Self { target, now, leeway: Leeway::default(), tokens: OtherTokens::default() }
    }

    /// The same for a request that carries other tokens too.
    #[must_use]
    pub fn with_tokens(mut self, tokens: OtherTokens<'a>) -> Self {
        self.tokens = tokens;
        self
    }

    /// The same with another leeway.
    #[must_use]
    pub fn with_leeway(mut self, leeway: Leeway) -> Self {
        self.leeway = leeway;
        self
    }

    /// Checks the proof and tells how it is remembered.
    pub(crate) fn check(&self, proof: &str, wit: &UnprovenWit) -> Result<Sighting, ProofError> {
        let compact = Compact::parse(proof)?;
        let header = compact.header()?;
        if header.algorithm != wit.key.algorithm() {
            return Err(ProofError::OtherAlgorithm(wit.key.algorithm()));
        }
        if header.token_type()? != Some(PROOF_TYPE) {
            return Err(TokenError::Type.into());
        }
        compact.verify(&header, wit.key.key())?;
        let claims = compact.claims()?;
        let expires_at = self.check_time(&claims)?;
        if required(&claims, "wth")? != wit.hash {
            return Err(ProofError::OtherWit);
        }
        self.check_target(&claims)?;
        self.check_tokens(&claims)?;
        let token_id = required(&claims, "jti")?;
        Ok(Sighting::new(&[PROOF_TYPE, &wit.hash, token_id], expires_at + self.leeway.secs()))
    }

    fn check_time(&self, claims: &Claims) -> Result<Timestamp, ProofError> {
        let expires_at = claims.check_time(self.now, self.leeway)?;
        let latest = self.now + i64::from(PROOF_SECS_MAX) + self.leeway.secs();
        if expires_at > latest {
            return Err(ProofError::Lifetime { expires_at, now: self.now });
        }
        Ok(expires_at)
    }

    fn check_target(&self, claims: &Claims) -> Result<(), ProofError> {
        let audience = claims.audience()?.ok_or(TokenError::NoClaim("aud"))?;
        if audience.iter().any(|one| one == self.target.as_str()) {
            return Ok(());
        }
        Err(ProofError::OtherTarget(self.target.to_string()))
    }

    /// Each token of the request is in the proof, and each token of the proof is in the request.
    fn check_tokens(&self, claims: &Claims) -> Result<(), ProofError> {
        for (name, token) in [("ath", self.tokens.access_token), ("tth", self.tokens.transaction_token)] {
            if claims.text(name)? != token.map(hash_text).as_deref() {
                return Err(ProofError::OtherTokens(name));
            }
        }
        let named = match claims.value("oth") {
            None => 0,
            Some(Value::Object(hashes)) => hashes.len(),
            Some(_) => return Err(ProofError::OtherTokens("oth")),
        };
        let is_named = |&(name, token): &(&str, &str)| {
            claims.value("oth").and_then(|hashes| hashes.get(name)?.as_str()) == Some(&hash_text(token))
        };
        if named == self.tokens.others.len() && self.tokens.others.iter().all(is_named) {
            return Ok(());
        }
        Err(ProofError::OtherTokens("oth"))
    }
}

/// A claim that is a text and not empty.
fn required<'c>(claims: &'c Claims, name: &'static str) -> Result<&'c str, TokenError> {
    claims.text(name)?.filter(|text| !text.is_empty()).ok_or(TokenError::NoClaim(name))
}
