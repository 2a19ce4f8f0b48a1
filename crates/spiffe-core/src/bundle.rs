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
    /// Grows with each change of the content.
    pub sequence: u64,
    /// How often consumers should look for a new bundle, in seconds; none leaves it to them.
    pub refresh_hint_secs: Option<u64>,
}

/// A key that signs JWT-SVIDs, with its ID. Clones share their bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtAuthority {
    kid: Arc<str>,
    spki_der: Arc<[u8]>,
    /// When tokens signed by it have all ended; none when the publisher does not tell.
    expires_at: Option<Timestamp>,
    tainted: bool,
}

/// Why a key cannot be a JWT authority, or authorities no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// An empty or too long key ID.
    #[error("a key ID has 1 to {KEY_ID_BYTES_MAX} bytes, this one has {0}")]
    KeyIdLength(usize),
    /// The key of a JWT authority cannot be used.
    #[error("the key of JWT authority {kid:?} cannot be used")]
    Key {
        /// Its ID.
        kid: String,
        /// What is wrong with it.
        source: PublicKeyError,
    },
    /// A key of a kind no JWT-SVID may be signed with (JWT-SVID 2.1).
    #[error("JWT authority {0:?} has a key of a kind that JWT-SVIDs do not use")]
    KeyKind(String),
    /// Two JWT authorities with one ID.
    #[error("two JWT authorities have the key ID {0:?}")]
    RepeatedKeyId(String),
    /// One certificate twice.
    #[error("the X.509 authority {0:?} occurs twice")]
    RepeatedAuthority(String),
    /// One key for two SVID types (Trust Domain and Bundle 4.2).
    #[error("JWT authority {0:?} has the key of an X.509 authority")]
    SharedKey(String),
    /// More than [`KEYS_MAX`].
    #[error("a bundle has at most {KEYS_MAX} keys, this one has {0}")]
    TooMany(usize),
    /// A hint of zero, or one past [`REFRESH_HINT_SECS_MAX`].
    #[error("a refresh hint has at least one second and fits 63 bits, this one is {0}")]
    RefreshHint(u64),
}

impl JwtAuthority {
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

impl fmt::Debug for JwtAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtAuthority({}{})", self.kid, if self.tainted { ", tainted" } else { "" })
    }
}

impl Bundle {
    /// A bundle without keys, sequence 0, no hint.
    pub fn new(trust_domain: TrustDomain) -> Self {
        let (x509_authorities, jwt_authorities) = (Vec::new(), Vec::new());
        Self { trust_domain, x509_authorities, jwt_authorities, sequence: 0, refresh_hint_secs: None }
    }

    /// The part that X509-SVIDs are verified with.
    pub fn x509_bundle(&self) -> X509Bundle {
        X509Bundle::of_distinct(self.trust_domain.clone(), self.x509_authorities.iter().cloned())
    }

    /// The JWT authority of that ID.
    pub fn jwt_authority(&self, kid: &str) -> Option<&JwtAuthority> {
        self.jwt_authorities.iter().find(|authority| authority.kid() == kid)
    }

    /// Whether it has the same keys as `other`, whatever their order, sequence and hint.
    pub fn has_same_keys(&self, other: &Bundle) -> bool {
        fn within<T: PartialEq>(these: &[T], those: &[T]) -> bool {
            these.iter().all(|this| those.contains(this))
        }
        within(&self.x509_authorities, &other.x509_authorities)
            && within(&other.x509_authorities, &self.x509_authorities)
            && within(&self.jwt_authorities, &other.jwt_authorities)
            && within(&other.jwt_authorities, &self.jwt_authorities)
    }

    /// Checks the rules that span keys: nothing twice, no key for two SVID types, not too many, a hint in bounds.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), BundleError> {
        let keys = self.x509_authorities.len() + self.jwt_authorities.len();
        if keys > KEYS_MAX {
            return Err(BundleError::TooMany(keys));
        }
        let mut certificates = BTreeSet::new();
        for authority in &self.x509_authorities {
            if !certificates.insert(authority.der().as_ref()) {
                return Err(BundleError::RepeatedAuthority(authority.subject_key_id().into()));
            }
        }
        let x509_keys: BTreeSet<&[u8]> = self.x509_authorities.iter().map(X509Authority::spki_der).collect();
        let mut ids = BTreeSet::new();
        for authority in &self.jwt_authorities {
            if !ids.insert(authority.kid()) {
                return Err(BundleError::RepeatedKeyId(authority.kid().into()));
            }
            if x509_keys.contains(authority.spki_der()) {
                return Err(BundleError::SharedKey(authority.kid().into()));
            }
        }
        match self.refresh_hint_secs {
            Some(hint) if !(1..=REFRESH_HINT_SECS_MAX).contains(&hint) => Err(BundleError::RefreshHint(hint)),
            _ => Ok(()),
        }
    }
}
