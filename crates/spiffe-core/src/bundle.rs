//! SPIFFE bundles: all keys by which a trust domain's SVIDs are recognised, of every SVID type.
//!
//! The parts are checked values; [`Bundle::check`] adds the rules that span them. The JSON form is in
//! [`crate::bundle_document`]; path validation uses [`Bundle::x509_bundle`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::public_key::{PublicKey, PublicKeyError, PublicKeyKind};
use crate::time::Timestamp;
use crate::trust_domain::TrustDomain;
use crate::x509_bundle::{AUTHORITIES_MAX, X509Authority, X509Bundle};

/// The longest key ID, in bytes; SPIRE makes 32, other publishers use hashes.
pub const KEY_ID_BYTES_MAX: usize = 1024;

/// The most keys in one bundle, of all types together.
pub const KEYS_MAX: usize = AUTHORITIES_MAX;

/// The longest refresh hint, in seconds, that every consumer's signed 64-bit field can hold.
pub const REFRESH_HINT_SECS_MAX: u64 = i64::MAX as u64;

/// All authorities of one trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Whose bundle it is.
    pub trust_domain: TrustDomain,
    /// Roots of X509-SVIDs.
    pub x509_authorities: Vec<X509Authority>,
    /// Keys that sign JWT-SVIDs.
    pub jwt_authorities: Vec<JwtAuthority>,
    /// Keys that sign WIT-SVIDs. Without one the trust domain has no WIT-SVIDs (WIT-SVID 6.2).
    pub wit_authorities: Vec<WitAuthority>,
    /// Grows with each change of the content.
    pub sequence: u64,
    /// How often consumers should look for a new bundle, in seconds; none leaves it to them.
    pub refresh_hint_secs: Option<u64>,
}

/// A key that signs tokens, with its ID; the list it stands in says of which SVID type. Clones share their bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenAuthority {
    kid: Arc<str>,
    spki_der: Arc<[u8]>,
    /// When tokens signed by it have all ended; none when the publisher does not tell.
    expires_at: Option<Timestamp>,
    tainted: bool,
}

/// A [`TokenAuthority`] of JWT-SVIDs.
pub type JwtAuthority = TokenAuthority;

/// A [`TokenAuthority`] of WIT-SVIDs.
pub type WitAuthority = TokenAuthority;

/// Why a key cannot be an authority of tokens, or authorities no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// An empty or too long key ID.
    #[error("a key ID has 1 to {KEY_ID_BYTES_MAX} bytes, this one has {0}")]
    KeyIdLength(usize),
    /// The key of an authority of tokens cannot be used.
    #[error("the key with the ID {kid:?} cannot be used")]
    Key {
        /// Its ID.
        kid: String,
        /// What is wrong with it.
        source: PublicKeyError,
    },
    /// A key of a kind that neither a JWT-SVID (JWT-SVID 2.1) nor a WIT-SVID (WIT-SVID 2.3) may be signed with.
    #[error("the key with the ID {0:?} is of a kind that signs no tokens")]
    KeyKind(String),
    /// Two authorities of tokens with one ID, be they of one SVID type or of two (WIT-SVID 6.1).
    #[error("two authorities have the key ID {0:?}")]
    RepeatedKeyId(String),
    /// One certificate twice.
    #[error("the X.509 authority {0:?} occurs twice")]
    RepeatedAuthority(String),
    /// One key for two SVID types (Trust Domain and Bundle 4.2).
    #[error("the key with the ID {0:?} is also the key of an authority of another SVID type")]
    SharedKey(String),
    /// More than [`KEYS_MAX`].
    #[error("a bundle has at most {KEYS_MAX} keys, this one has {0}")]
    TooMany(usize),
    /// A hint of zero, or one past [`REFRESH_HINT_SECS_MAX`].
    #[error("a refresh hint has at least one second and fits 63 bits, this one is {0}")]
    RefreshHint(u64),
}

impl TokenAuthority {
    /// Checks ID and key. The key is an EC key on P-256, P-384 or P-521, or RSA, as SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// When the ID is empty or too long, or the key not valid or of another kind.
    pub fn new(
        kid: &str,
        spki_der: &[u8],
        expires_at: Option<Timestamp>,
        tainted: bool,
    ) -> Result<Self, BundleError> {
        if !(1..=KEY_ID_BYTES_MAX).contains(&kid.len()) {
            return Err(BundleError::KeyIdLength(kid.len()));
        }
        let key = PublicKey::from_spki_der(spki_der)
            .map_err(|source| BundleError::Key { kid: kid.into(), source })?;
        if key.kind() == PublicKeyKind::Ed25519 {
            return Err(BundleError::KeyKind(kid.into()));
        }
        Ok(Self { kid: kid.into(), spki_der: spki_der.into(), expires_at, tainted })
    }

    /// The key ID, case-sensitive.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key as SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// The key as a value.
    pub fn key(&self) -> PublicKey {
        PublicKey::from_spki_der(&self.spki_der).expect("the bytes were checked when the authority was made")
    }

    /// When it ends, if known.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Whether its tokens are to be replaced soon. It is still trusted until it is revoked.
    pub fn is_tainted(&self) -> bool {
        self.tainted
    }

    /// The same authority, marked as tainted or not.
    #[must_use]
    pub fn with_taint(mut self, tainted: bool) -> Self {
        self.tainted = tainted;
        self
    }
}

impl fmt::Debug for TokenAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenAuthority({}{})", self.kid, if self.tainted { ", tainted" } else { "" })
    }
}

impl Bundle {
    /// A bundle without keys, sequence 0, no hint.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            wit_authorities: Vec::new(),
            sequence: 0,
            refresh_hint_secs: None,
        }
    }

    /// The part that X509-SVIDs are verified with.
    pub fn x509_bundle(&self) -> X509Bundle {
        X509Bundle::of_distinct(self.trust_domain.clone(), self.x509_authorities.iter().cloned())
    }

    /// The JWT authority of that ID.
    pub fn jwt_authority(&self, kid: &str) -> Option<&JwtAuthority> {
        self.jwt_authorities.iter().find(|authority| authority.kid() == kid)
    }

    /// The WIT authority of that ID.
    pub fn wit_authority(&self, kid: &str) -> Option<&WitAuthority> {
        self.wit_authorities.iter().find(|authority| authority.kid() == kid)
    }

    /// Whether it has the same keys as `other`, whatever their order, sequence and hint.
    pub fn has_same_keys(&self, other: &Bundle) -> bool {
        fn same<T: PartialEq>(these: &[T], those: &[T]) -> bool {
            these.iter().all(|this| those.contains(this)) && those.iter().all(|that| these.contains(that))
        }
        same(&self.x509_authorities, &other.x509_authorities)
            && same(&self.jwt_authorities, &other.jwt_authorities)
            && same(&self.wit_authorities, &other.wit_authorities)
    }

    /// Checks the rules that span keys: nothing twice, no key ID twice in the whole bundle, no key for two SVID types,
    /// not too many, a hint in bounds.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), BundleError> {
        let keys = self.x509_authorities.len() + self.jwt_authorities.len() + self.wit_authorities.len();
        if keys > KEYS_MAX {
            return Err(BundleError::TooMany(keys));
        }
        let mut certificates = BTreeSet::new();
        for authority in &self.x509_authorities {
            if !certificates.insert(authority.der().as_ref()) {
                return Err(BundleError::RepeatedAuthority(authority.subject_key_id().into()));
            }
        }
        let mut ids = BTreeSet::new();
        let mut others: BTreeSet<&[u8]> = self.x509_authorities.iter().map(X509Authority::spki_der).collect();
        for family in [&self.jwt_authorities, &self.wit_authorities] {
            for authority in family {
                if !ids.insert(authority.kid()) {
                    return Err(BundleError::RepeatedKeyId(authority.kid().into()));
                }
                if others.contains(authority.spki_der()) {
                    return Err(BundleError::SharedKey(authority.kid().into()));
                }
            }
            others.extend(family.iter().map(TokenAuthority::spki_der));
        }
        match self.refresh_hint_secs {
            Some(hint) if !(1..=REFRESH_HINT_SECS_MAX).contains(&hint) => Err(BundleError::RefreshHint(hint)),
            _ => Ok(()),
        }
    }
}
