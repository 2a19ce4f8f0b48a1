//! The authorities that nodes' certificates may end at, and the paths that lead to them.
//!
//! Unlike a SPIFFE bundle these may be any X.509 certificates, even a node's own. Which of them are valid is looked at anew
//! each time. Start at [`Roots::vouching`].

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use spindle_spiffe_core::pem::{PemError, certificates_from_pem};
use spindle_spiffe_core::verify::SIGNATURE_ALGORITHMS;
use spindle_spiffe_core::{Timestamp, Validity, X509Bundle};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why certificates cannot be roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The PEM text cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A certificate cannot be read.
    #[error("certificate {0} cannot be read")]
    Certificate(usize),
}

/// Trusted certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots(Vec<Root>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Root {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    validity: Validity,
}

/// The certificates above a leaf, in all paths, by SHA-1 of their DER in hex.
pub(super) type Fingerprints = BTreeSet<String>;

impl Roots {
    /// The certificates of a PEM text, at least one.
    ///
    /// # Errors
    /// When the text or a certificate cannot be read.
    pub fn from_pem(text: &[u8]) -> Result<Self, RootsError> {
        let certificates = certificates_from_pem(text)?;
        let parse = |(index, der)| Root::parse(der).ok_or(RootsError::Certificate(index));
        Ok(Self(certificates.into_iter().enumerate().map(parse).collect::<Result<_, _>>()?))
    }

    /// The authorities of a trust domain.
    pub fn of_bundle(bundle: &X509Bundle) -> Self {
        Self(bundle.certificates().filter_map(|der| Root::parse(der.clone())).collect())
    }

    /// These and the others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Whether nothing is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who vouches for `leaf` at `now`: everybody on any path from it to a root. A leaf that is a root itself needs nobody.
    pub(super) fn vouching(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<Fingerprints, webpki::Error> {
        let valid: Vec<_> = self.0.iter().filter(|root| root.validity.contains(now)).collect();
        if valid.iter().any(|root| root.der == *leaf) {
            return Ok(Fingerprints::new());
        }
        let anchors: Vec<_> = valid.iter().map(|root| root.anchor.clone()).collect();
        let found = RefCell::new(Fingerprints::new());
        // Each path found is noted and turned down, so that the path builder goes on to the next, within its own bounds.
        let note = |path: &VerifiedPath<'_>| {
            let mut found = found.borrow_mut();
            found.extend(path.intermediate_certificates().map(|one| fingerprint(&one.der())));
            let is_end = |root: &&&Root| root.anchor == *path.anchor();
            found.extend(valid.iter().filter(is_end).map(|root| fingerprint(&root.der)));
            Err(webpki::Error::UnknownIssuer)
        };
        let secs = u64::try_from(now.unix_secs()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(secs));
        let last = EndEntityCert::try_from(leaf)?
            .verify_for_usage(
                SIGNATURE_ALGORITHMS,
                &anchors,
                intermediates,
                at,
                AnyPurpose,
                None,
                Some(&note),
            )
            .map(drop);
        let found = found.into_inner();
        match last {
            Err(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }
}

impl Root {
    fn parse(der: CertificateDer<'static>) -> Option<Self> {
        let anchor = webpki::anchor_from_trusted_cert(&der).ok()?.to_owned();
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let validity = certificate.validity();
        let validity = Validity {
            not_before: Timestamp::from_unix_secs(validity.not_before.timestamp()),
            not_after: Timestamp::from_unix_secs(validity.not_after.timestamp()),
        };
        Some(Self { der, anchor, validity })
    }
}

/// SHA-1 of a certificate in lower-case hex: SPIRE's names of certificates. It names and protects nothing.
pub(super) fn fingerprint(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, der);
    hex(digest.as_ref())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SPIRE takes certificates for any purpose.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}
