//! Decides whether a token is a valid WIT-SVID: WIT-SVID 2 to 6.
//!
//! A valid WIT-SVID tells nothing about who shows it. What comes out is an [`UnprovenWit`], which names nobody as a
//! caller; a proof of possession makes it a [`ProvenWit`] ([`crate::wit_proof`]), and nothing else does.
//! Start at [`validate_wit_svid`].

use std::fmt;

use serde_json::{Map, Value};

use crate::jws::{Bundles, Compact, Leeway, SvidType, TokenError, hash_text, trusted_key};
use crate::reason::Reason;
use crate::replay::Sighting;
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;
use crate::wit_proof::{ProofError, ProofValidation};

mod confirmation;

pub use confirmation::{ConfirmationError, ConfirmationKey};

/// The `typ` of a WIT-SVID, taken in this spelling only (WIT-SVID 2.2).
pub const WIT_TYPE: &str = "wit+jwt";

/// What the receiver of a WIT-SVID expects.
#[derive(Clone, Copy, Debug)]
pub struct WitValidation {
    now: Timestamp,
    leeway: Leeway,
    lifetime_secs_max: Option<u32>,
}

/// A valid WIT-SVID of which nobody has shown to hold the key. It is no identity of a caller yet.
pub struct UnprovenWit {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) key: ConfirmationKey,
    /// The hash that a proof names the token by.
    pub(crate) hash: String,
    facts: WitFacts,
}

/// A valid WIT-SVID whose presenter holds its key. Only [`UnprovenWit::prove`] makes one.
#[derive(Clone, PartialEq)]
pub struct ProvenWit {
    spiffe_id: SpiffeId,
    facts: WitFacts,
    proof: Sighting,
}

#[derive(Clone, PartialEq)]
struct WitFacts {
    expires_at: Timestamp,
    issued_at: Option<Timestamp>,
    token_id: Option<String>,
    key_id: String,
    claims: Map<String, Value>,
}

/// Why a token is not a valid WIT-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitSvidError {
    /// A fault that any token can have.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// An `aud`, which makes it something else (WIT-SVID 3.8).
    #[error("the token has \"aud\", which no WIT-SVID has")]
    Audience,
    /// The key that it is bound to.
    #[error("the token's \"cnf\" names no key that a proof can be checked with")]
    Confirmation(#[from] ConfirmationError),
    /// It lives longer than the receiver allows (WIT-SVID 3.5).
    #[error("the token lives for {secs} seconds, and at most {max} are allowed here")]
    Lifetime {
        /// From its beginning, or from now when it names none, to its end.
        secs: i64,
        /// The receiver's bound.
        max: u32,
    },
}

impl WitSvidError {
    /// The rule that refused, for the status detail and the log.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Token(error) => error.reason(),
            Self::Audience | Self::Confirmation(_) => Reason::TokenMalformed,
            Self::Lifetime { .. } => Reason::TokenLifetime,
        }
    }
}

impl WitValidation {
    /// Expects a token that is valid now, with the usual leeway and of any lifetime.
    pub fn new(now: Timestamp) -> Self {
        Self { now, leeway: Leeway::default(), lifetime_secs_max: None }
    }

    /// The same with another leeway.
    #[must_use]
    pub fn with_leeway(mut self, leeway: Leeway) -> Self {
        self.leeway = leeway;
        self
    }

    /// The same, refusing tokens that live longer than that many seconds.
    #[must_use]
    pub fn with_lifetime_secs_max(mut self, secs: u32) -> Self {
        self.lifetime_secs_max = Some(secs);
        self
    }
}

/// Checks a token, not its presenter.
///
/// `iat` may lie anywhere, `jti` is not tracked, and unknown header members and claims are passed over. The token is at
/// most [`crate::jws::TOKEN_BYTES_MAX`] bytes long.
///
/// # Errors
/// The first rule broken, in this order: form, `alg`, the rest of the header, `sub`, key, signature, time, claims.
pub fn validate_wit_svid(
    token: &str,
    bundles: &(impl Bundles + ?Sized),
    how: &WitValidation,
) -> Result<UnprovenWit, WitSvidError> {
    let compact = Compact::parse(token)?;
    let header = compact.header()?;
    if header.token_type()? != Some(WIT_TYPE) {
        return Err(TokenError::Type.into());
    }
    let key_id = header.key_id()?;
    let claims = compact.claims()?;
    let spiffe_id = claims.subject()?;
    let key = trusted_key(&spiffe_id, SvidType::WitSvid, key_id, bundles)?;
    compact.verify(&header, &key)?;
    let expires_at = claims.check_time(how.now, how.leeway)?;
    how.check_lifetime(claims.not_before()?, expires_at)?;
    if claims.value("aud").is_some() {
        return Err(WitSvidError::Audience);
    }
    let key = ConfirmationKey::from_claim(claims.value("cnf").ok_or(TokenError::NoClaim("cnf"))?)?;
    let facts = WitFacts {
        expires_at,
        issued_at: claims.issued_at()?,
        token_id: claims.text("jti")?.map(str::to_owned),
        key_id: key_id.to_owned(),
        claims: claims.into_members(),
    };
    Ok(UnprovenWit { spiffe_id, key, hash: hash_text(token), facts })
}

impl WitValidation {
    fn check_lifetime(&self, begin: Option<Timestamp>, end: Timestamp) -> Result<(), WitSvidError> {
        let Some(max) = self.lifetime_secs_max else { return Ok(()) };
        let secs = end.secs_since(begin.unwrap_or(self.now));
        if secs > i64::from(max) { Err(WitSvidError::Lifetime { secs, max }) } else { Ok(()) }
    }
}

impl UnprovenWit {
    /// Who the token is for. Its presenter may be anybody: fit for a log line, not for a decision.
    pub fn claimed_spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The first second in which it is not accepted any more, without leeway.
    pub fn expires_at(&self) -> Timestamp {
        self.facts.expires_at
    }

    /// The key that the proof must be signed with.
    pub fn key(&self) -> &ConfirmationKey {
        &self.key
    }

    /// Accepts the presenter as the token's subject, if the proof fits the token and the request.
    ///
    /// # Errors
    /// The first rule that the proof breaks.
    pub fn prove(self, proof: &str, how: &ProofValidation<'_>) -> Result<ProvenWit, ProofError> {
        let proof = how.check(proof, &self)?;
        Ok(ProvenWit { spiffe_id: self.spiffe_id, facts: self.facts, proof })
    }
}

impl ProvenWit {
    /// Who the presenter is.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The first second at which the token is no longer valid, without leeway.
    pub fn expires_at(&self) -> Timestamp {
        self.facts.expires_at
    }

    /// When the token was issued, if it says so.
    pub fn issued_at(&self) -> Option<Timestamp> {
        self.facts.issued_at
    }

    /// The token's `jti`, if it has one. It is no means against replays: the token is shown with each request.
    pub fn token_id(&self) -> Option<&str> {
        self.facts.token_id.as_deref()
    }

    /// The ID of the key that signed the token.
    pub fn key_id(&self) -> &str {
        &self.facts.key_id
    }

    /// All claims of the token, as they stand in it.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.facts.claims
    }

    /// The proof, for [`crate::ReplayCache::admit`] where each proof is to be accepted once.
    pub fn proof_sighting(&self) -> Sighting {
        self.proof
    }
}

impl fmt::Debug for UnprovenWit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnprovenWit({}, to {})", self.spiffe_id, self.facts.expires_at)
    }
}

impl fmt::Debug for ProvenWit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenWit({}, to {})", self.spiffe_id, self.facts.expires_at)
    }
}
