//! What can be wrong with a token of any kind.

use std::fmt;

use crate::jws::{SignatureAlgorithm, SvidType, TOKEN_BYTES_MAX};
use crate::reason::Reason;
use crate::spiffe_id::SpiffeIdError;
use crate::time::Timestamp;
use crate::trust_domain::TrustDomain;

/// A part of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first.
    Header,
    /// The second.
    Claims,
    /// The third.
    Signature,
}

/// Why a token is not accepted. No text of an error has more of the token in it than names and dates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("a token has at most {TOKEN_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// JWS JSON serialization, which no SVID may have (JWT-SVID 1).
    #[error("the token is in JSON serialization; SVIDs have the compact one only")]
    JsonSerialization,
    /// Not three parts; an encrypted token has five.
    #[error("a signed token has three parts with dots between them, this one has {0}")]
    Parts(usize),
    /// A part that is not base64url, or is padded, or broken into lines (RFC 7515 2).
    #[error("the {0} of the token is not base64url without padding")]
    Base64(Part),
    /// A part that is no JSON object, or has a member twice (RFC 7515 4, RFC 7519 4).
    #[error("the {part} of the token is not a JSON object of distinct members: {why}")]
    Json {
        /// Which one.
        part: Part,
        /// What the parser says.
        why: String,
    },
    /// No `alg`.
    #[error("the token's header has no \"alg\"")]
    NoAlgorithm,
    /// An `alg` that is none of the nine (JWT-SVID 2.1).
    #[error("the token's \"alg\" is none of {}", SignatureAlgorithm::NAMES)]
    Algorithm,
    /// A header with `crit` (RFC 7515 4.1.11).
    #[error("the token's header has \"crit\", and no critical extension is understood")]
    Critical,
    /// The `typ` of another kind of token, or none where there must be one.
    #[error("the token's \"typ\" is not that of the kind of token that is wanted")]
    Type,
    /// No `kid`. The JWT-SVID standard allows that, no library accepts it, and nor does this one.
    #[error("the token's header has no \"kid\"")]
    NoKeyId,
    /// A `kid` that is no text, empty or too long.
    #[error("the token's \"kid\" is not a text of bounded length")]
    KeyId,
    /// A claim that must be there.
    #[error("the token has no \"{0}\"")]
    NoClaim(&'static str),
    /// A claim of the wrong form.
    #[error("the token's \"{name}\" is not {form}")]
    Claim {
        /// Its name.
        name: &'static str,
        /// What it should be.
        form: &'static str,
    },
    /// A subject that is no SPIFFE ID.
    #[error("the token's \"sub\" is not a SPIFFE ID")]
    Subject(#[source] SpiffeIdError),
    /// There is no bundle of the subject's trust domain.
    #[error("no bundle of trust domain {0} is known, so that nothing its members show can be trusted")]
    UnknownTrustDomain(TrustDomain),
    /// The bundle has no key for that type of SVID: the trust domain does not have them (JWT-SVID 6.2, WIT-SVID 6.2).
    #[error("the bundle of trust domain {trust_domain} has no key for {svid_type}s")]
    NoAuthority {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Which type.
        svid_type: SvidType,
    },
    /// The bundle has such keys, but none of the token's `kid`.
    #[error("the bundle of trust domain {trust_domain} has no key for {svid_type}s with the ID {key_id:?}")]
    UnknownKey {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Which type.
        svid_type: SvidType,
        /// The ID, cut to a bounded length.
        key_id: String,
    },
    /// The key is of a kind that the algorithm does not go with.
    #[error("the token's key is of a kind that does not sign with {0}")]
    KeyMismatch(SignatureAlgorithm),
    /// The signature does not verify.
    #[error("the token's signature does not verify")]
    Signature,
    /// Past its end, leeway included.
    #[error("the token expired at {expires_at}, it is now {now}")]
    Expired {
        /// Its `exp`.
        expires_at: Timestamp,
        /// When it was checked.
        now: Timestamp,
    },
    /// Before its beginning, leeway included.
    #[error("the token is not valid before {not_before}, it is now {now}")]
    NotYetValid {
        /// Its `nbf`.
        not_before: Timestamp,
        /// When it was checked.
        now: Timestamp,
    },
}

impl TokenError {
    /// The rule that refused, for the status detail and the log.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoAlgorithm | Self::Algorithm | Self::KeyMismatch(_) => Reason::TokenAlgorithm,
            Self::UnknownTrustDomain(_)
            | Self::NoAuthority { .. }
            | Self::UnknownKey { .. }
            | Self::Signature => Reason::TokenNotTrusted,
            Self::Expired { .. } => Reason::TokenExpired,
            Self::NotYetValid { .. } => Reason::TokenNotYetValid,
            _ => Reason::TokenMalformed,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Claims => "payload",
            Self::Signature => "signature",
        })
    }
}
