//! X.509 bundles: the roots a trust domain is known by, and maps of them.
//!
//! An authority is a certificate that may sign; its validity is kept here because webpki anchors forget it, and judged
//! in [`crate::verify`]. A bundle always carries the name of its trust domain. Start at [`X509Bundles`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, Der, TrustAnchor};

use crate::certificate::{
    CERTIFICATES_MAX, CertificateError, CertificateFacts, concat_der, hex, split_der_certificates,
};
use crate::pem::{self, PemError};
use crate::public_key::{PublicKey, PublicKeyError};
use crate::time::{Timestamp, Validity};
use crate::trust_domain::TrustDomain;

/// The most authorities in one bundle: rotation keeps two or three, a large federation of upstreams some dozens.
pub const AUTHORITIES_MAX: usize = CERTIFICATES_MAX;

/// A signing certificate that chains may end at. Clones share their bytes.
#[derive(Clone)]
pub struct X509Authority {
    tainted: bool,
    parsed: Arc<Parsed>,
}

struct Parsed {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    subject_key_id: String,
    validity: Validity,
    key: PublicKey,
    spki: Box<[u8]>,
}

/// Why a certificate cannot be an authority, or certificates no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum X509BundleError {
    /// The certificate cannot be read.
    #[error("an authority's certificate cannot be read")]
    Certificate(#[from] CertificateError),
    /// Its key is of an unknown kind or size, which no path can use.
    #[error("an authority's key cannot be used")]
    Key(#[from] PublicKeyError),
    /// The path checker cannot use it.
    #[error("an authority's certificate cannot anchor a path: {0}")]
    Anchor(String),
    /// A leaf: its holder must not be able to sign others (X509-SVID 4.1).
    #[error("an authority's certificate is not a CA certificate")]
    NotCa,
    /// A key usage without keyCertSign (X509-SVID 4.3).
    #[error("an authority's certificate lacks the key usage keyCertSign")]
    NoCertSign,
    /// More than [`AUTHORITIES_MAX`].
    #[error("a bundle has at most {AUTHORITIES_MAX} X.509 authorities")]
    TooMany,
    /// The PEM text cannot be read.
    #[error("the bundle's PEM text cannot be read")]
    Pem(#[from] PemError),
}

impl X509Authority {
    /// Checks that the certificate may sign others. Its dates and its own signature are not judged.
    ///
    /// A missing key usage is taken: roots from outside may lack it. One that lacks keyCertSign is refused.
    ///
    /// # Errors
    /// When it is malformed, or not a signing certificate.
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, X509BundleError> {
        let facts = CertificateFacts::parse(&der)?;
        if !facts.is_ca {
            return Err(X509BundleError::NotCa);
        }
        if facts.key_usage.is_some() && !facts.may_sign_certificates() {
            return Err(X509BundleError::NoCertSign);
        }
        let key = PublicKey::from_spki_der(facts.spki)?;
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|error| X509BundleError::Anchor(error.to_string()))?
            .to_owned();
        let subject_key_id = hex(facts.subject_key_id.unwrap_or_default());
        let (validity, spki) = (facts.validity, facts.spki.into());
        Ok(Self {
            tainted: false,
            parsed: Arc::new(Parsed { der, anchor, subject_key_id, validity, key, spki }),
        })
    }

    /// The same authority, marked as tainted or not.
    #[must_use]
    pub fn with_taint(mut self, tainted: bool) -> Self {
        self.tainted = tainted;
        self
    }

    /// The certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.parsed.der
    }

    /// Whether SVIDs below it are to be replaced soon. A tainted authority is still trusted until it is revoked.
    pub fn is_tainted(&self) -> bool {
        self.tainted
    }

    /// The subject key identifier in lower-case hex, SPIRE's authority ID; empty when the certificate has none.
    pub fn subject_key_id(&self) -> &str {
        &self.parsed.subject_key_id
    }

    /// When the certificate is valid.
    pub fn validity(&self) -> Validity {
        self.parsed.validity
    }

    /// The public key as SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.parsed.spki
    }

    /// The public key as a value.
    pub fn key(&self) -> &PublicKey {
        &self.parsed.key
    }

    /// The anchor for path building, borrowed: nothing is parsed or copied.
    pub(crate) fn anchor(&self) -> TrustAnchor<'_> {
        let anchor = &self.parsed.anchor;
        TrustAnchor {
            subject: Der::from_slice(anchor.subject.as_ref()),
            subject_public_key_info: Der::from_slice(anchor.subject_public_key_info.as_ref()),
            name_constraints: anchor.name_constraints.as_ref().map(|der| Der::from_slice(der.as_ref())),
        }
    }
}

impl PartialEq for X509Authority {
    fn eq(&self, other: &Self) -> bool {
        self.tainted == other.tainted && self.parsed.der == other.parsed.der
    }
}

impl Eq for X509Authority {}

impl fmt::Debug for X509Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taint = if self.tainted { ", tainted" } else { "" };
        write!(f, "X509Authority({}, until {}{taint})", self.subject_key_id(), self.validity().not_after)
    }
}

/// The X.509 authorities of one trust domain, each certificate once. Clones share their items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Bundle {
    trust_domain: TrustDomain,
    authorities: Arc<[X509Authority]>,
}

impl X509Bundle {
    /// The bundle of the given authorities in their order. A repeated certificate counts once, tainted if any is.
    ///
    /// # Errors
    /// When more than [`AUTHORITIES_MAX`] are given.
    pub fn new(
        trust_domain: TrustDomain,
        authorities: impl IntoIterator<Item = X509Authority>,
    ) -> Result<Self, X509BundleError> {
        let given: Vec<_> = authorities.into_iter().take(AUTHORITIES_MAX + 1).collect();
        if given.len() > AUTHORITIES_MAX {
            return Err(X509BundleError::TooMany);
        }
        Ok(Self::of_distinct(trust_domain, given))
    }

    /// Keeps each certificate once, at the place first seen.
    pub(crate) fn of_distinct(
        trust_domain: TrustDomain,
        authorities: impl IntoIterator<Item = X509Authority>,
    ) -> Self {
        let mut kept: Vec<X509Authority> = Vec::new();
        for authority in authorities {
            match kept.iter_mut().find(|same| same.der() == authority.der()) {
                Some(same) => same.tainted |= authority.tainted,
                None => kept.push(authority),
            }
        }
        Self { trust_domain, authorities: kept.into() }
    }

    /// A bundle that trusts nothing.
    pub fn empty(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, authorities: Arc::default() }
    }

    /// Parses certificates back to back, the Workload API's form. Empty input is an empty bundle.
    ///
    /// # Errors
    /// When one certificate cannot be an authority.
    pub fn from_der(trust_domain: TrustDomain, bytes: &[u8]) -> Result<Self, X509BundleError> {
        Self::from_certificates(trust_domain, split_der_certificates(bytes)?)
    }

    /// Parses PEM text with at least one certificate. Other PEM sections are passed over.
    ///
    /// # Errors
    /// When the text has no certificate, or one that cannot be an authority.
    pub fn from_pem(trust_domain: TrustDomain, text: &[u8]) -> Result<Self, X509BundleError> {
        Self::from_certificates(trust_domain, pem::certificates_from_pem(text)?)
    }

    /// A bundle of the given certificates.
    ///
    /// # Errors
    /// When one certificate cannot be an authority.
    pub fn from_certificates(
        trust_domain: TrustDomain,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, X509BundleError> {
        let authorities: Result<Vec<_>, _> = certificates.into_iter().map(X509Authority::parse).collect();
        Self::new(trust_domain, authorities?)
    }

    /// The trust domain these authorities speak for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The authorities, in the order given.
    pub fn authorities(&self) -> &[X509Authority] {
        &self.authorities
    }

    /// Whether it trusts nothing.
    pub fn is_empty(&self) -> bool {
        self.authorities.is_empty()
    }

    /// The certificates back to back.
    pub fn to_der(&self) -> Vec<u8> {
        concat_der(self.certificates())
    }

    /// The certificates as PEM text.
    pub fn to_pem(&self) -> String {
        pem::certificates_to_pem(self.certificates())
    }

    /// The certificates, in order.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.authorities.iter().map(X509Authority::der)
    }

    /// The anchors of all authorities that are valid at `now`.
    pub(crate) fn anchors(&self, now: Timestamp) -> Vec<TrustAnchor<'_>> {
        self.authorities
            .iter()
            .filter(|one| one.validity().contains(now))
            .map(X509Authority::anchor)
            .collect()
    }
}

/// Bundles by trust domain: all that a peer's certificate may be held against. Clones are cheap.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct X509Bundles(Arc<BTreeMap<TrustDomain, X509Bundle>>);

impl X509Bundles {
    /// No bundle: nobody is trusted.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bundle of one trust domain.
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&X509Bundle> {
        self.0.get(trust_domain)
    }

    /// Adds a bundle, or replaces the one of the same trust domain.
    pub fn insert(&mut self, bundle: X509Bundle) {
        Arc::make_mut(&mut self.0).insert(bundle.trust_domain.clone(), bundle);
    }

    /// Takes the bundle of one trust domain out.
    pub fn remove(&mut self, trust_domain: &TrustDomain) -> Option<X509Bundle> {
        Arc::make_mut(&mut self.0).remove(trust_domain)
    }

    /// All bundles, ordered by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &X509Bundle> {
        self.0.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<X509Bundle> for X509Bundles {
    /// The later of two bundles of one trust domain wins.
    fn from_iter<I: IntoIterator<Item = X509Bundle>>(bundles: I) -> Self {
        Self(Arc::new(bundles.into_iter().map(|bundle| (bundle.trust_domain.clone(), bundle)).collect()))
    }
}

impl From<X509Bundle> for X509Bundles {
    fn from(bundle: X509Bundle) -> Self {
        Self::from_iter([bundle])
    }
}
