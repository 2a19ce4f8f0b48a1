//! Decides whether a token is a valid JWT-SVID for its receiver: JWT-SVID 2 to 6, RFC 7515 and RFC 7519.
//!
//! Keys come from the bundle of the subject's own trust domain, only those for JWT-SVIDs. The receiver always says which
//! audience it is. A JWT-SVID is a bearer token: that its bearer is its subject is not told here, nor whether it was
//! shown before ([`crate::replay`]). Start at [`validate_jwt_svid`].

use std::fmt;

use serde_json::{Map, Value};

use crate::jws::{Bundles, Compact, Leeway, SvidType, TokenError, hash_text, trusted_key};
use crate::reason::Reason;
use crate::replay::Sighting;
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;

/// What the receiver of a token expects.
#[derive(Clone, Debug)]
pub struct JwtValidation<'a> {
    audiences: Vec<&'a str>,
    now: Timestamp,
    leeway: Leeway,
}

/// A JWT-SVID that was found valid. Only [`validate_jwt_svid`] makes one.
#[derive(Clone, PartialEq)]
pub struct ValidatedJwtSvid {
    spiffe_id: SpiffeId,
    audience: Vec<String>,
    expires_at: Timestamp,
    issued_at: Option<Timestamp>,
    token_id: Option<String>,
    key_id: String,
    claims: Map<String, Value>,
    /// Hash of what was signed, which names a token without an ID.
    signed_hash: String,
    /// The first second at which it is refused, leeway included.
    refused_from: Timestamp,
}

/// Why a token is not a valid JWT-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtSvidError {
    /// The receiver named no audience, or an empty one (JWT-SVID A). Nothing is wrong with the token.
    #[error("no audience is expected, so that no token can be for it")]
    NoAudienceExpected,
    /// A fault that any token can have.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// An `aud` without a value (JWT-SVID 3.2).
    #[error("the token's \"aud\" is empty")]
    EmptyAudience,
    /// The token is for others.
    #[error("the token is not for {0}; its \"aud\" does not have it")]
    OtherAudience(String),
}

impl JwtSvidError {
    /// The rule that refused, for the status detail and the log.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoAudienceExpected => Reason::BadRequest,
            Self::Token(error) => error.reason(),
            Self::EmptyAudience => Reason::TokenMalformed,
            Self::OtherAudience(_) => Reason::TokenAudience,
        }
    }
}

impl<'a> JwtValidation<'a> {
    /// Expects a token for any of these audiences, valid now, with the usual leeway.
    ///
    /// # Errors
    /// When there is no audience, or one is empty.
    pub fn new(audiences: impl IntoIterator<Item = &'a str>, now: Timestamp) -> Result<Self, JwtSvidError> {
        let audiences: Vec<&str> = audiences.into_iter().collect();
        if audiences.is_empty() || audiences.contains(&"") {
            return Err(JwtSvidError::NoAudienceExpected);
        }
        Ok(Self { audiences, now, leeway: Leeway::default() })
    }

    /// The same with another leeway.
    #[must_use]
    pub fn with_leeway(mut self, leeway: Leeway) -> Self {
        self.leeway = leeway;
        self
    }
}

/// Checks a token and tells what it says.
///
/// A token without `kid` is refused, as by every library, though the standard allows it. `typ` is `JWT`, `JOSE` or absent.
/// `iat` may lie anywhere. The token is at most [`crate::jws::TOKEN_BYTES_MAX`] bytes long.
///
/// # Errors
/// The first rule broken, in this order: form, `alg`, the rest of the header, `sub`, key, signature, time, audience.
pub fn validate_jwt_svid(
    token: &str,
    bundles: &(impl Bundles + ?Sized),
    how: &JwtValidation<'_>,
) -> Result<ValidatedJwtSvid, JwtSvidError> {
    let compact = Compact::parse(token)?;
    let header = compact.header()?;
    if !matches!(header.token_type()?, None | Some("JWT" | "JOSE")) {
        return Err(TokenError::Type.into());
    }
    let key_id = header.key_id()?;
    let claims = compact.claims()?;
    let spiffe_id = claims.subject()?;
    let key = trusted_key(&spiffe_id, SvidType::JwtSvid, key_id, bundles)?;
    compact.verify(&header, &key)?;
    let expires_at = claims.check_time(how.now, how.leeway)?;
    let audience = claims.audience()?.ok_or(TokenError::NoClaim("aud"))?;
    how.check_audience(&audience)?;
    Ok(ValidatedJwtSvid {
        audience,
        expires_at,
        issued_at: claims.issued_at()?,
        token_id: claims.text("jti")?.map(str::to_owned),
        key_id: key_id.to_owned(),
        spiffe_id,
        claims: claims.into_members(),
        signed_hash: hash_text(compact.signed()),
        refused_from: expires_at + how.leeway.secs(),
    })
}

impl JwtValidation<'_> {
    fn check_audience(&self, audience: &[String]) -> Result<(), JwtSvidError> {
        if audience.is_empty() {
            return Err(JwtSvidError::EmptyAudience);
        }
        if self.audiences.iter().any(|expected| audience.iter().any(|one| one == expected)) {
            return Ok(());
        }
        Err(JwtSvidError::OtherAudience(format!("{:?}", self.audiences)))
    }
}

impl ValidatedJwtSvid {
    /// Whose token it is.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// For whom it is; never empty.
    pub fn audience(&self) -> &[String] {
        &self.audience
    }

    /// The first second at which it is no longer valid, without leeway.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// When it was issued, if it says so.
    pub fn issued_at(&self) -> Option<Timestamp> {
        self.issued_at
    }

    /// Its `jti`, if it has one.
    pub fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// The ID of the key that signed it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The token as shown to that audience, for [`crate::ReplayCache::admit`] where each is to be accepted once.
    pub fn sighting(&self, audience: &str) -> Sighting {
        let trust_domain = self.spiffe_id.trust_domain_name();
        match &self.token_id {
            Some(token_id) => {
                Sighting::new(&["jti", trust_domain, &self.key_id, token_id, audience], self.refused_from)
            }
            None => Sighting::new(&["hash", trust_domain, &self.signed_hash, audience], self.refused_from),
        }
    }

    /// All its claims, as they stand in it.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// All its claims, without a copy.
    pub fn into_claims(self) -> Map<String, Value> {
        self.claims
    }
}

impl fmt::Debug for ValidatedJwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValidatedJwtSvid({}, to {}, key {:?})", self.spiffe_id, self.expires_at, self.key_id)
    }
}
