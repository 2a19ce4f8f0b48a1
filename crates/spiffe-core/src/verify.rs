//! Decides whether a peer's certificate chain is a valid X509-SVID: X509-SVID 5 and RFC 5280 6.1.
//!
//! The bundle is picked by the leaf's own trust domain and by nothing else, so no authority can speak for another trust
//! domain. Leaf rules come before any signature, roots count only while they are valid themselves. Not judged here:
//! whether the identity is the expected one ([`X509Svid::require_id`]) and what it may do. A chain below a CA with URI
//! name constraints is always refused, because the path checker cannot evaluate them.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::aws_lc_rs as algorithms;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

use crate::certificate::{CertificateError, CertificateFacts};
use crate::reason::Reason;
use crate::spiffe_id::SpiffeId;
use crate::time::{Timestamp, Validity};
use crate::trust_domain::TrustDomain;
use crate::x509_bundle::X509Bundles;
use crate::x509_svid::{X509Svid, X509SvidError};

/// Signatures taken on certificates: ECDSA on P-256, P-384 and P-521, Ed25519, RSA of 2048 to 8192 bits. No SHA-1.
pub static SIGNATURE_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P256_SHA512,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P384_SHA512,
    algorithms::ECDSA_P521_SHA256,
    algorithms::ECDSA_P521_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// Why a chain is not a valid X509-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The chain breaks a rule for SVIDs.
    #[error("the peer's certificate is not an X509-SVID")]
    Svid(#[from] X509SvidError),
    /// There is no bundle of the leaf's trust domain.
    #[error("{spiffe_id} is not trusted: no bundle of trust domain {trust_domain} is known")]
    UnknownTrustDomain {
        /// Who the leaf claims to be.
        spiffe_id: SpiffeId,
        /// The trust domain without a bundle.
        trust_domain: TrustDomain,
    },
    /// The bundle has no X.509 authority (Trust Domain and Bundle 4.1.3).
    #[error("{spiffe_id} is not trusted: the bundle of its trust domain has no X.509 authority")]
    NoAuthority {
        /// Who the leaf claims to be.
        spiffe_id: SpiffeId,
    },
    /// The bundle has authorities, none of them valid now.
    #[error("{spiffe_id} is not trusted: no authority of its trust domain is valid at {now}")]
    AuthoritiesExpired {
        /// Who the leaf claims to be.
        spiffe_id: SpiffeId,
        /// When it was checked.
        now: Timestamp,
    },
    /// The leaf is past its end.
    #[error("the certificate of {spiffe_id} expired at {}, it is now {now}", .validity.not_after)]
    Expired {
        /// Who the leaf claims to be.
        spiffe_id: SpiffeId,
        /// The leaf's dates.
        validity: Validity,
        /// When it was checked.
        now: Timestamp,
    },
    /// The leaf is not valid yet.
    #[error("the certificate of {spiffe_id} is not valid before {}, it is now {now}", .validity.not_before)]
    NotYetValid {
        /// Who the leaf claims to be.
        spiffe_id: SpiffeId,
        /// The leaf's dates.
        validity: Validity,
        /// When it was checked.
        now: Timestamp,
    },
    /// An intermediate cannot be read.
    #[error("certificate {index} of the chain of {spiffe_id} cannot be read")]
    Unreadable {
        /// Who the leaf claims to be.
        spiffe_id: SpiffeId,
        /// Place in the chain; the leaf is 0.
        index: usize,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// An intermediate breaks a rule for signing certificates (X509-SVID 3.2, 4).
    #[error("certificate {index} of the chain of {spiffe_id} {fault}")]
    Intermediate {
        /// Who the leaf claims to be.
        spiffe_id: SpiffeId,
        /// Place in the chain; the leaf is 0.
        index: usize,
        /// Which rule.
        fault: IntermediateFault,
    },
    /// No valid path to an authority of the trust domain.
    #[error(
        "no valid path from the certificate of {spiffe_id} to an authority of its trust domain: {source}"
    )]
    Path {
        /// Who the leaf claims to be.
        spiffe_id: SpiffeId,
        /// What the path checker says.
        source: webpki::Error,
    },
    /// The peer is somebody else than expected.
    #[error("the peer is {found}, expected was {expected}")]
    WrongId {
        /// Who it should be.
        expected: SpiffeId,
        /// Who it is.
        found: SpiffeId,
    },
}

/// Which rule for signing certificates an intermediate breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IntermediateFault {
    /// cA is not TRUE.
    #[error("is not a CA certificate")]
    NotCa,
    /// The key usage is missing or lacks keyCertSign.
    #[error("lacks the key usage keyCertSign")]
    NoCertSign,
    /// A SPIFFE ID with a path.
    #[error("is a signing certificate whose SPIFFE ID has a path")]
    IdWithPath,
    /// A SPIFFE ID beside another URI name.
    #[error("has more than one URI name")]
    UriNames,
}

impl VerifyError {
    /// Whether the chain may be in order and only the trusted authorities do not know it: none of them signed it, or all of
    /// them have expired.
    pub fn is_unknown_authority(&self) -> bool {
        match self {
            Self::AuthoritiesExpired { .. } => true,
            Self::Path { source, .. } => {
                matches!(source, webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey)
            }
            _ => false,
        }
    }

    /// The reason to show and count.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Expired { .. } | Self::NotYetValid { .. } | Self::AuthoritiesExpired { .. } => {
                Reason::PeerExpired
            }
            Self::Path { source, .. } if is_about_dates(source) => Reason::PeerExpired,
            Self::WrongId { .. } => Reason::PeerWrongId,
            Self::Svid(_)
            | Self::UnknownTrustDomain { .. }
            | Self::NoAuthority { .. }
            | Self::Unreadable { .. }
            | Self::Intermediate { .. }
            | Self::Path { .. } => Reason::PeerNotTrusted,
        }
    }
}

fn is_about_dates(error: &webpki::Error) -> bool {
    matches!(error, webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. })
}

/// Verifies a chain, leaf first, against the bundle of the leaf's trust domain. Usable for clients and servers alike.
///
/// Intermediates may stand in any order; all of them must obey the rules for signing certificates.
///
/// # Errors
/// The first rule broken; [`VerifyError::reason`] gives its class.
pub fn verify_x509_svid(
    chain: &[CertificateDer<'_>],
    bundles: &X509Bundles,
    now: Timestamp,
) -> Result<X509Svid, VerifyError> {
    let svid = X509Svid::parse(chain.iter().map(|certificate| certificate.clone().into_owned()).collect())?;
    let spiffe_id = svid.spiffe_id();
    let trust_domain = spiffe_id.trust_domain();
    let Some(bundle) = bundles.get(&trust_domain) else {
        return Err(VerifyError::UnknownTrustDomain { spiffe_id: spiffe_id.clone(), trust_domain });
    };
    if bundle.is_empty() {
        return Err(VerifyError::NoAuthority { spiffe_id: spiffe_id.clone() });
    }
    check_dates(&svid, now)?;
    for (index, certificate) in svid.intermediates().iter().enumerate() {
        check_intermediate(certificate, spiffe_id, index + 1)?;
    }
    let anchors = bundle.anchors(now);
    if anchors.is_empty() {
        return Err(VerifyError::AuthoritiesExpired { spiffe_id: spiffe_id.clone(), now });
    }
    check_path(&svid, &anchors, now)
        .map_err(|source| VerifyError::Path { spiffe_id: spiffe_id.clone(), source })?;
    Ok(svid)
}

fn check_dates(svid: &X509Svid, now: Timestamp) -> Result<(), VerifyError> {
    let (spiffe_id, validity) = (svid.spiffe_id(), svid.validity());
    if validity.is_over(now) {
        return Err(VerifyError::Expired { spiffe_id: spiffe_id.clone(), validity, now });
    }
    if !validity.contains(now) {
        return Err(VerifyError::NotYetValid { spiffe_id: spiffe_id.clone(), validity, now });
    }
    Ok(())
}

fn check_intermediate(
    certificate: &CertificateDer<'_>,
    spiffe_id: &SpiffeId,
    index: usize,
) -> Result<(), VerifyError> {
    let facts = CertificateFacts::parse(certificate).map_err(|source| VerifyError::Unreadable {
        spiffe_id: spiffe_id.clone(),
        index,
        source,
    })?;
    match intermediate_fault(&facts) {
        Some(fault) => Err(VerifyError::Intermediate { spiffe_id: spiffe_id.clone(), index, fault }),
        None => Ok(()),
    }
}

fn intermediate_fault(facts: &CertificateFacts<'_>) -> Option<IntermediateFault> {
    let mut ids = facts.uris.iter().flatten().filter_map(|uri| uri.strip_prefix("spiffe://"));
    let id = ids.next();
    // CA names from outside are seen with one slash at the end, such as `spiffe://td/`: an empty path all the same.
    let has_path = id.is_some_and(|id| id.split_once('/').is_some_and(|(_, path)| !path.is_empty()));
    match () {
        () if !facts.is_ca => Some(IntermediateFault::NotCa),
        () if !facts.may_sign_certificates() => Some(IntermediateFault::NoCertSign),
        () if id.is_some() && facts.uris.len() > 1 => Some(IntermediateFault::UriNames),
        () if has_path => Some(IntermediateFault::IdWithPath),
        () => None,
    }
}

fn check_path(
    svid: &X509Svid,
    anchors: &[rustls_pki_types::TrustAnchor<'_>],
    now: Timestamp,
) -> Result<(), webpki::Error> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.unix_secs()).unwrap_or(0)));
    EndEntityCert::try_from(svid.leaf())?
        .verify_for_usage(SIGNATURE_ALGORITHMS, anchors, svid.intermediates(), now, AnyPurpose, None, None)
        .map(drop)
}

/// Purposes of the leaf are checked with its other rules; those of a CA say nothing about the chain below it in
/// RFC 5280 and, as in go-spiffe, do not limit it (X509-SVID 4.4 leaves it open).
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

impl X509Svid {
    /// Refuses a peer that is somebody else.
    ///
    /// # Errors
    /// When the identity is not `expected`.
    pub fn require_id(&self, expected: &SpiffeId) -> Result<(), VerifyError> {
        if self.spiffe_id() == expected {
            return Ok(());
        }
        Err(VerifyError::WrongId { expected: expected.clone(), found: self.spiffe_id().clone() })
    }
}
