//! Authorities that sign tokens, and what JWT-SVIDs and WIT-SVIDs have in common.
//!
//! The two are families of one kind ([`TokenFamily`]): keys with an ID, in slots, in the bundle. The type of an authority
//! says which tokens it signs, so that a key of one family never signs for the other. The header, which is the same for
//! every token, is prepared once per authority. Promises: a token names a member of the authority's trust domain with a
//! path, says `alg`, `kid` and `typ` and nothing else in its header, and ends no later than its key. Verifying tokens is
//! left to others. Start at [`TokenSigner`].

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use rcgen::SigningKey;
use serde::Serialize;
use spindle_keys::{Key, KeyType};
use spindle_spiffe_core::bundle::BundleError;
use spindle_spiffe_core::{Bundle, Reason, SpiffeId, Timestamp, TokenAuthority, TrustDomain, Validity};
use x509_parser::asn1_rs::{FromDer, Integer, Sequence};

use crate::slots::Family;

/// Authorities of one SVID type that is a token.
pub trait TokenFamily: Copy + fmt::Debug + PartialEq + Eq + Send + Sync + 'static {
    /// Its slots.
    const FAMILY: Family;
    /// Its name, as people know it.
    const NAME: &'static str;
    /// One authority of it, as people know it.
    const AUTHORITY: &'static str;
    /// The `typ` of its tokens.
    const TYP: &'static str;
    /// Why there are none when they are switched off.
    const DISABLED: Reason;

    /// Its authorities in a bundle.
    fn authorities(bundle: &Bundle) -> &Vec<TokenAuthority>;

    /// The same, to be changed.
    fn authorities_mut(bundle: &mut Bundle) -> &mut Vec<TokenAuthority>;

    /// The authority of that ID in a bundle.
    fn authority<'b>(bundle: &'b Bundle, kid: &str) -> Option<&'b TokenAuthority> {
        Self::authorities(bundle).iter().find(|authority| authority.kid() == kid)
    }
}

/// The family that signs JWT-SVIDs (JWT-SVID 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jwt;

/// The family that signs WIT-SVIDs (WIT-SVID 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wit;

impl TokenFamily for Jwt {
    const FAMILY: Family = Family::Jwt;
    const NAME: &'static str = "JWT";
    const AUTHORITY: &'static str = "JWT authority";
    const TYP: &'static str = "JWT";
    const DISABLED: Reason = Reason::JwtSvidsDisabled;

    fn authorities(bundle: &Bundle) -> &Vec<TokenAuthority> {
        &bundle.jwt_authorities
    }

    fn authorities_mut(bundle: &mut Bundle) -> &mut Vec<TokenAuthority> {
        &mut bundle.jwt_authorities
    }
}

impl TokenFamily for Wit {
    const FAMILY: Family = Family::Wit;
    const NAME: &'static str = "WIT";
    const AUTHORITY: &'static str = "WIT authority";
    const TYP: &'static str = "wit+jwt";
    const DISABLED: Reason = Reason::WitSvidsDisabled;

    fn authorities(bundle: &Bundle) -> &Vec<TokenAuthority> {
        &bundle.wit_authorities
    }

    fn authorities_mut(bundle: &mut Bundle) -> &mut Vec<TokenAuthority> {
        &mut bundle.wit_authorities
    }
}

/// An authority of one family and one trust domain. Clones share it.
#[derive(Clone)]
pub struct TokenSigner<F>(Arc<Signer>, PhantomData<F>);

struct Signer {
    trust_domain: TrustDomain,
    key: Key,
    authority: TokenAuthority,
    validity: Validity,
    /// The encoded header with the dot behind it.
    header: String,
}

/// A signed token. Whoever has a JWT-SVID can use it, so neither is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedToken {
    /// In JWS compact serialization.
    pub token: String,
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// The end signed, after the cut to the authority's.
    pub expires_at: Timestamp,
}

/// Why a token is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenSignError {
    /// The identity belongs to another trust domain.
    #[error(
        "{spiffe_id} is not a member of trust domain {trust_domain:?}, the only one this authority speaks for"
    )]
    ForeignId {
        /// The identity asked for.
        spiffe_id: SpiffeId,
        /// The authority's trust domain.
        trust_domain: TrustDomain,
    },
    /// The identity has no path, so that it names no workload.
    #[error("{0} has no path; only a trust domain is named like that")]
    IdWithoutPath(SpiffeId),
    /// A token that would have ended before anybody could use it.
    #[error("a token cannot be issued at {issued_at} and end at {expires_at}")]
    Lifetime {
        /// When it would be issued.
        issued_at: Timestamp,
        /// When it would end.
        expires_at: Timestamp,
    },
    /// Nothing is left of the authority's own life.
    #[error("authority {authority_id} ends at {ends_at}")]
    AuthorityOver {
        /// The authority.
        authority_id: String,
        /// Its last valid second.
        ends_at: Timestamp,
    },
    /// The key refused.
    #[error("cannot sign for {spiffe_id}: {why}")]
    Failed {
        /// The identity asked for.
        spiffe_id: SpiffeId,
        /// What the library said.
        why: String,
    },
}

impl TokenSignError {
    /// The rule that refused, for the status detail and the log.
    pub fn reason(&self) -> Reason {
        match self {
            Self::ForeignId { .. } => Reason::WrongTrustDomain,
            Self::AuthorityOver { .. } => Reason::ServerStarting,
            Self::IdWithoutPath(_) | Self::Lifetime { .. } => Reason::BadRequest,
            Self::Failed { .. } => Reason::Internal,
        }
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

/// For whom and from when to when; `expires_at` is what is wanted.
pub(crate) struct Subject<'a> {
    pub(crate) spiffe_id: &'a SpiffeId,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

impl<F: TokenFamily> TokenSigner<F> {
    /// An authority whose tokens name their key by `kid`.
    ///
    /// # Errors
    /// When the key ID is empty or too long.
    pub fn new(
        trust_domain: &TrustDomain,
        key: Key,
        kid: &str,
        validity: Validity,
    ) -> Result<Self, BundleError> {
        let authority = TokenAuthority::new(kid, key.spki_der(), Some(validity.not_after), false)?;
        let header = Header { alg: algorithm(key.key_type()), kid, typ: F::TYP };
        let header = encoded(&header) + ".";
        let signer = Signer { trust_domain: trust_domain.clone(), key, authority, validity, header };
        Ok(Self(Arc::new(signer), PhantomData))
    }

    /// What belongs into the bundle.
    pub fn authority(&self) -> &TokenAuthority {
        &self.0.authority
    }

    /// Its key ID, which names it in tokens, commands and logs.
    pub fn authority_id(&self) -> &str {
        self.0.authority.kid()
    }

    /// When it may sign; no token outlives it.
    pub fn validity(&self) -> Validity {
        self.0.validity
    }

    /// Signs one token with the claims that `claims` makes for the end that was cut.
    pub(crate) fn sign<C: Serialize>(
        &self,
        subject: &Subject<'_>,
        claims: impl FnOnce(Timestamp) -> C,
    ) -> Result<SignedToken, TokenSignError> {
        self.check_id(subject.spiffe_id)?;
        let expires_at = self.cut(subject)?;
        let mut token = self.0.header.clone() + &encoded(&claims(expires_at));
        let (spiffe_id, issued_at) = (subject.spiffe_id.clone(), subject.issued_at);
        let signature = match self.signature(token.as_bytes()) {
            Ok(signature) => signature,
            Err(why) => return Err(TokenSignError::Failed { spiffe_id, why }),
        };
        token.push('.');
        BASE64_URL.encode_string(signature, &mut token);
        Ok(SignedToken { token, spiffe_id, issued_at, expires_at })
    }

    fn check_id(&self, spiffe_id: &SpiffeId) -> Result<(), TokenSignError> {
        let (spiffe_id, trust_domain) = (spiffe_id.clone(), self.0.trust_domain.clone());
        if !spiffe_id.is_member_of(&trust_domain) {
            return Err(TokenSignError::ForeignId { spiffe_id, trust_domain });
        }
        if spiffe_id.path().is_empty() {
            return Err(TokenSignError::IdWithoutPath(spiffe_id));
        }
        Ok(())
    }

    /// The wanted end, no later than the authority's own. A token is good before its end and not at it (RFC 7519 4.1.4).
    fn cut(&self, subject: &Subject<'_>) -> Result<Timestamp, TokenSignError> {
        let Subject { issued_at, expires_at, .. } = *subject;
        let ends_at = self.0.validity.not_after;
        if expires_at <= issued_at {
            return Err(TokenSignError::Lifetime { issued_at, expires_at });
        }
        if issued_at >= ends_at {
            let authority_id = self.authority_id().to_owned();
            return Err(TokenSignError::AuthorityOver { authority_id, ends_at });
        }
        Ok(expires_at.min(ends_at))
    }

    /// The signature as JWS wants it (RFC 7518 3.3 and 3.4).
    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let signature = self.0.key.sign(message).map_err(|error| error.to_string())?;
        let number_bytes = match self.0.key.key_type() {
            KeyType::EcP256 => 32,
            KeyType::EcP384 => 48,
            KeyType::Rsa2048 | KeyType::Rsa4096 => return Ok(signature),
        };
        side_by_side(&signature, number_bytes).ok_or_else(|| "the key's ECDSA signature is malformed".into())
    }
}

impl<F: TokenFamily> fmt::Debug for TokenSigner<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}Signer({} of {})", F::NAME, self.authority_id(), self.0.trust_domain)
    }
}

impl fmt::Debug for SignedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedToken({}, {} to {})", self.spiffe_id, self.issued_at, self.expires_at)
    }
}

/// Random bytes as a `jti`.
pub(crate) fn token_id(bytes: [u8; 16]) -> String {
    BASE64_URL.encode(bytes)
}

/// The `alg` by which that kind of key signs.
fn algorithm(key_type: KeyType) -> &'static str {
    match key_type {
        KeyType::EcP256 => "ES256",
        KeyType::EcP384 => "ES384",
        KeyType::Rsa2048 | KeyType::Rsa4096 => "RS256",
    }
}

fn encoded(part: &impl Serialize) -> String {
    BASE64_URL.encode(serde_json::to_vec(part).expect("texts, numbers and lists of them always serialise"))
}

/// The two numbers of an ECDSA signature, each of that many bytes, instead of the DER that keys sign with.
fn side_by_side(der: &[u8], number_bytes: usize) -> Option<Vec<u8>> {
    let ([], sequence) = Sequence::from_der(der).ok()? else { return None };
    let (rest, first) = Integer::from_der(&sequence.content).ok()?;
    let ([], second) = Integer::from_der(rest).ok()? else { return None };
    let mut bytes = Vec::with_capacity(2 * number_bytes);
    for number in [first, second] {
        let number = number.as_ref();
        // A zero in front tells that a number with its top bit set is positive.
        let number = if number.len() > number_bytes { number.strip_prefix(&[0])? } else { number };
        bytes.resize(bytes.len() + number_bytes.checked_sub(number.len())?, 0);
        bytes.extend_from_slice(number);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_numbers_are_padded_and_their_sign_bytes_dropped() {
        let der = [0x30, 8, 2, 3, 0, 0xff, 1, 2, 1, 7];
        assert_eq!(side_by_side(&der, 2), Some(vec![0xff, 1, 0, 7]));
        assert_eq!(side_by_side(&der, 3), Some(vec![0, 0xff, 1, 0, 0, 7]));
    }

    #[test]
    fn what_is_no_pair_of_numbers_of_that_size_is_refused() {
        let der = [0x30, 8, 2, 3, 0, 0xff, 1, 2, 1, 7];
        assert_eq!(side_by_side(&der, 1), None, "too large a number");
        assert_eq!(side_by_side(&[], 32), None);
        assert_eq!(side_by_side(&der[..9], 2), None);
        assert_eq!(side_by_side(&[&der[..], &[0]].concat(), 2), None, "something follows");
        assert_eq!(side_by_side(&[0x30, 3, 2, 1, 7], 2), None, "one number");
        assert_eq!(side_by_side(&[0x30, 9, 2, 1, 7, 2, 1, 7, 2, 1, 7], 2), None, "three numbers");
    }

    #[test]
    fn neither_signer_nor_token_prints_its_secret() {
        let key = Key::generate(KeyType::EcP256).unwrap();
        let end = Timestamp::from_unix_secs(9);
        let validity = Validity { not_before: end, not_after: end };
        let trust_domain: TrustDomain = "prod.example".parse().unwrap();
        let signer = TokenSigner::<Jwt>::new(&trust_domain, key.clone(), "k1", validity).unwrap();
        assert_eq!(format!("{signer:?}"), "JWTSigner(k1 of prod.example)");
        let signer = TokenSigner::<Wit>::new(&trust_domain, key, "k1", validity).unwrap();
        assert_eq!(format!("{signer:?}"), "WITSigner(k1 of prod.example)");
        let spiffe_id = "spiffe://prod.example/a".parse().unwrap();
        let svid = SignedToken { token: "secret".into(), spiffe_id, issued_at: end, expires_at: end };
        assert!(!format!("{svid:?}").contains("secret"));
    }
}
