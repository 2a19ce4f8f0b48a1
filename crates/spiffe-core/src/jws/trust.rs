//! Which key a token must be signed with: one of the trust domain of its subject, for SVIDs of its type, and no other.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

use crate::bundle::{Bundle, TokenAuthority};
use crate::jws::{Compact, Header, TokenError};
use crate::public_key::PublicKey;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// How much of an unknown key ID an error shows, in characters.
const SHOWN_CHARS_MAX: usize = 64;

/// Where the bundle of a trust domain is found.
pub trait Bundles {
    /// The bundle of that trust domain, if it is to be trusted.
    fn bundle_of(&self, trust_domain: &TrustDomain) -> Option<&Bundle>;
}

impl Bundles for Bundle {
    fn bundle_of(&self, trust_domain: &TrustDomain) -> Option<&Bundle> {
        (self.trust_domain == *trust_domain).then_some(self)
    }
}

impl<B: Borrow<Bundle>> Bundles for [B] {
    fn bundle_of(&self, trust_domain: &TrustDomain) -> Option<&Bundle> {
        self.iter().map(Borrow::borrow).find(|bundle| bundle.trust_domain == *trust_domain)
    }
}

impl<B: Borrow<Bundle>> Bundles for Vec<B> {
    fn bundle_of(&self, trust_domain: &TrustDomain) -> Option<&Bundle> {
        self.as_slice().bundle_of(trust_domain)
    }
}

impl<B: Borrow<Bundle>> Bundles for BTreeMap<TrustDomain, B> {
    fn bundle_of(&self, trust_domain: &TrustDomain) -> Option<&Bundle> {
        self.get(trust_domain).map(Borrow::borrow)
    }
}

/// A type of SVID that is a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvidType {
    /// A bearer token for an audience.
    JwtSvid,
    /// A token that is worth nothing without a proof of possession.
    WitSvid,
}

impl SvidType {
    fn authorities(self, bundle: &Bundle) -> &[TokenAuthority] {
        match self {
            Self::JwtSvid => &bundle.jwt_authorities,
            Self::WitSvid => &bundle.wit_authorities,
        }
    }
}

impl fmt::Display for SvidType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JwtSvid => "JWT-SVID",
            Self::WitSvid => "WIT-SVID",
        })
    }
}

/// The key that a token of `spiffe_id` must verify under.
pub(crate) fn trusted_key(
    spiffe_id: &SpiffeId,
    svid_type: SvidType,
    key_id: &str,
    bundles: &(impl Bundles + ?Sized),
) -> Result<PublicKey, TokenError> {
    let trust_domain = spiffe_id.trust_domain();
    let Some(bundle) = bundles.bundle_of(&trust_domain) else {
        return Err(TokenError::UnknownTrustDomain(trust_domain));
    };
    let authorities = svid_type.authorities(bundle);
    if authorities.is_empty() {
        return Err(TokenError::NoAuthority { trust_domain, svid_type });
    }
    match authorities.iter().find(|authority| authority.kid() == key_id) {
        Some(authority) => Ok(authority.key()),
        None => {
            let key_id = key_id.chars().take(SHOWN_CHARS_MAX).collect();
            Err(TokenError::UnknownKey { trust_domain, svid_type, key_id })
        }
    }
}

impl Compact<'_> {
    /// Checks that the key fits the header's algorithm, and the signature the key.
    pub(crate) fn verify(&self, header: &Header, key: &PublicKey) -> Result<(), TokenError> {
        if !header.algorithm.fits(key.kind()) {
            return Err(TokenError::KeyMismatch(header.algorithm));
        }
        let verifies = header.algorithm.verifies(key, self.signed().as_bytes(), &self.signature()?);
        if verifies { Ok(()) } else { Err(TokenError::Signature) }
    }
}
