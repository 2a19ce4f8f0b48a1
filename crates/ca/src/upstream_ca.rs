//! A signing certificate from outside, with its key: it signs the server's authority, which then is no root of its own.
//!
//! Promises that what it signs leads to one of its roots: a throw-away SVID is signed and verified when it is taken up.
//! Pure: callers read the files and pass `now`, validity and serial. Start at [`UpstreamCa::new`] and
//! [`authority_request`].

use std::fmt;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose};
use rcgen::{PublicKeyData, SanType, SignatureAlgorithm, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use spindle_keys::{Key, key_identifier};
use spindle_spiffe_core::x509_bundle::X509BundleError;
use spindle_spiffe_core::{
    Timestamp, TrustDomain, Validity, VerifyError, X509Authority, X509Bundle, X509Bundles, verify_x509_svid,
};
use zeroize::Zeroize;

use crate::csr::{CheckedCsr, CsrError};
use crate::profile;
use crate::public_key::SubjectKey;
use crate::subject::{CaSubject, SvidSubject};
use crate::x509_ca::{
    AuthorityError, SvidRequest, UPSTREAM_CHAIN_MAX, X509Ca, failed, positive, set_validity, uri_name,
};

/// A certificate that signs authorities of one trust domain.
pub struct UpstreamCa {
    trust_domain: TrustDomain,
    issuer: Issuer<'static, UpstreamKey>,
    /// Whether its certificate has a subject key identifier, which what it signs then refers to.
    has_key_id: bool,
    /// What follows the authorities it signs, up to but not including the root.
    chain: Vec<CertificateDer<'static>>,
    roots: X509Bundle,
    /// The last second at which what it signs leads to a root.
    ends_at: Timestamp,
}

/// Its private key; our copy is wiped when it goes, that of the cryptographic library by the library.
struct UpstreamKey(KeyPair);

/// Why certificates and key are no upstream authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamCaError {
    /// Nothing to sign with.
    #[error("there is no certificate")]
    NoCertificate,
    /// The private key is of a kind that does not sign certificates here.
    #[error("the private key is none of EC P-256, P-384, P-521, Ed25519, RSA (PKCS#8, PKCS#1 or SEC1)")]
    Key,
    /// Certificate and key do not belong together.
    #[error("certificate and private key do not match")]
    OtherKey,
    /// The certificate cannot sign others.
    #[error("the certificate cannot sign an authority")]
    Certificate(#[source] X509BundleError),
    /// A root cannot be used.
    #[error("a root of the upstream bundle cannot be used")]
    Root(#[source] X509BundleError),
    /// A chain and nothing that says where it ends.
    #[error(
        "with no bundle_file_path configured only self-signed CAs are supported, but there are {0} certificates"
    )]
    OnlySelfSigned(usize),
    /// The certificate does not lead to a root.
    #[error("the certificate cannot be validated with the provided bundle or is not self-signed")]
    NotTrusted(#[source] VerifyError),
    /// More certificates than a chain may have.
    #[error("there are {0} certificates below the root, more than {max}", max = UPSTREAM_CHAIN_MAX - 1)]
    ChainLength(usize),
    /// The certificate's own name cannot be written again.
    #[error(
        "the certificate's subject cannot be written as an issuer, byte for byte: it names an attribute twice"
    )]
    Subject,
    /// The library refused.
    #[error("the upstream authority cannot sign: {0}")]
    Failed(String),
}

/// Why an upstream authority does not sign a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamSignError {
    /// The request cannot be taken.
    #[error("the certificate request is refused")]
    Csr(#[from] CsrError),
    /// It asks for a name that is not the trust domain's.
    #[error("the certificate request names {0:?}, an authority is named by the ID of its trust domain")]
    Name(Vec<String>),
    /// Nothing is left of the upstream authority's own lifetime.
    #[error("the upstream authority ended at {0}")]
    Over(Timestamp),
    /// The serial number is zero or has its top bit set.
    #[error("the serial number is not positive")]
    Serial,
    /// The library refused.
    #[error("cannot sign the authority: {0}")]
    Failed(String),
}

/// A certificate request for an authority: subject and URI name are those of a self-signed one.
///
/// # Errors
/// When subject or serial number are refused, or the key does not sign.
pub fn authority_request(
    trust_domain: &TrustDomain,
    key: &Key,
    subject: &CaSubject,
    serial: [u8; 16],
) -> Result<Vec<u8>, AuthorityError> {
    let number = positive(serial).ok_or(AuthorityError::Serial)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject.to_name(number)?;
    params.subject_alt_names = vec![uri_name(&trust_domain.id()).map_err(failed)?];
    let request = params.serialize_request(key).map_err(failed)?;
    Ok(request.der().to_vec())
}

impl UpstreamCa {
    /// The first of `certificates` signs, those after it lead to a root of `bundle`. Without a bundle there is one
    /// certificate, which is the root itself.
    ///
    /// # Errors
    /// When key and certificate do not fit, the certificate may not sign, or it does not lead to a root at `now`.
    pub fn new(
        trust_domain: &TrustDomain,
        key: &PrivateKeyDer<'_>,
        certificates: Vec<CertificateDer<'static>>,
        bundle: Option<Vec<CertificateDer<'static>>>,
        now: Timestamp,
    ) -> Result<Self, UpstreamCaError> {
        let pair = UpstreamKey(KeyPair::try_from(key).map_err(|_| UpstreamCaError::Key)?);
        let signing = certificates.first().ok_or(UpstreamCaError::NoCertificate)?.clone();
        if bundle.is_none() && certificates.len() != 1 {
            return Err(UpstreamCaError::OnlySelfSigned(certificates.len()));
        }
        let authority = X509Authority::parse(signing.clone()).map_err(UpstreamCaError::Certificate)?;
        if authority.spki_der() != pair.subject_public_key_info() {
            return Err(UpstreamCaError::OtherKey);
        }
        let roots = X509Bundle::from_certificates(
            trust_domain.clone(),
            bundle.unwrap_or_else(|| vec![signing.clone()]),
        )
        .map_err(UpstreamCaError::Root)?;
        // What a verifier holds already is of no use in a chain.
        let is_root = |one: &CertificateDer<'_>| roots.authorities().iter().any(|root| root.der() == one);
        let chain: Vec<_> = certificates.into_iter().filter(|one| !is_root(one)).collect();
        if chain.len() >= UPSTREAM_CHAIN_MAX {
            return Err(UpstreamCaError::ChainLength(chain.len()));
        }
        check_name(&signing)?;
        let mut upstream = Self {
            trust_domain: trust_domain.clone(),
            issuer: Issuer::from_ca_cert_der(&signing, pair).map_err(cannot)?,
            has_key_id: !authority.subject_key_id().is_empty(),
            chain,
            roots,
            ends_at: authority.validity().not_after,
        };
        upstream.ends_at = upstream.find_end(&signing, authority.validity(), now)?;
        Ok(upstream)
    }

    /// Where chains through it end.
    pub fn roots(&self) -> &[X509Authority] {
        self.roots.authorities()
    }

    /// The last second of anything it signs.
    pub fn ends_at(&self) -> Timestamp {
        self.ends_at
    }

    /// Signs the authority that `csr_der` asks for; the new certificate comes first, then what leads to a root. The
    /// validity is cut to its own.
    ///
    /// # Errors
    /// When the request is malformed or for another name, or nothing is left of its own lifetime.
    pub fn sign(
        &self,
        csr_der: &[u8],
        validity: Validity,
        serial: [u8; 16],
    ) -> Result<Vec<CertificateDer<'static>>, UpstreamSignError> {
        let refused = |error: &dyn fmt::Display| UpstreamSignError::Failed(error.to_string());
        let csr = CheckedCsr::parse(csr_der)?;
        let own_name = self.trust_domain.id();
        if csr.uri_sans() != [own_name.as_str()] {
            return Err(UpstreamSignError::Name(csr.uri_sans().to_vec()));
        }
        positive(serial).ok_or(UpstreamSignError::Serial)?;
        if validity.not_before > self.ends_at {
            return Err(UpstreamSignError::Over(self.ends_at));
        }
        let validity = Validity { not_after: validity.not_after.min(self.ends_at), ..validity };
        let key = SubjectKey::parse(csr.spki_der()).map_err(CsrError::from)?;
        let names = vec![uri_name(&own_name).map_err(|error| refused(&error))?];
        let mut params = authority_params(csr.subject()?, names, key.bits());
        set_validity(&mut params, validity).ok_or_else(|| refused(&"it cannot be valid for that time"))?;
        params.serial_number = Some(serial.to_vec().into());
        params.use_authority_key_identifier_extension = self.has_key_id;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| refused(&error))?;
        Ok([certificate.into()].into_iter().chain(self.chain.iter().cloned()).collect())
    }

    /// Signs a throw-away SVID for its own key and looks which roots it leads to; returns when the last of them, or
    /// something on the way there, ends.
    fn find_end(
        &self,
        signing: &CertificateDer<'static>,
        own: Validity,
        now: Timestamp,
    ) -> Result<Timestamp, UpstreamCaError> {
        let trial = self.throw_away(own)?;
        let leaf = profile::parse(&trial).map_err(cannot)?;
        let parent = profile::parse(signing).map_err(cannot)?;
        if leaf.issuer().as_raw() != parent.subject().as_raw() {
            return Err(UpstreamCaError::Subject);
        }
        let chain: Vec<_> = [trial].into_iter().chain(self.chain.iter().cloned()).collect();
        let all = X509Bundles::from(self.roots.clone());
        verify_x509_svid(&chain, &all, now).map_err(UpstreamCaError::NotTrusted)?;
        let reached = self.roots.authorities().iter().filter(|root| {
            let only = X509Bundle::new(self.trust_domain.clone(), [(*root).clone()]).map(X509Bundles::from);
            only.is_ok_and(|only| verify_x509_svid(&chain, &only, now).is_ok())
        });
        let root_ends = reached.map(|root| root.validity().not_after).max().unwrap_or(own.not_after);
        let mut ends_at = own.not_after.min(root_ends);
        for certificate in &self.chain {
            let validity = profile::parse(certificate).map_err(cannot)?.validity().not_after.timestamp();
            ends_at = ends_at.min(Timestamp::from_unix_secs(validity));
        }
        Ok(ends_at)
    }

    fn throw_away(&self, validity: Validity) -> Result<CertificateDer<'static>, UpstreamCaError> {
        let id = self.trust_domain.member("/spire/throwaway").map_err(cannot)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = SvidSubject::default().to_name(&[]);
        params.subject_alt_names = vec![uri_name(&id).map_err(cannot)?];
        params.serial_number = Some(vec![1].into());
        params.use_authority_key_identifier_extension = self.has_key_id;
        set_validity(&mut params, validity).ok_or_else(|| cannot("its validity cannot be written"))?;
        Ok(params.signed_by(self.issuer.key(), &self.issuer).map_err(cannot)?.into())
    }
}

impl PublicKeyData for UpstreamKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        PublicKeyData::algorithm(&self.0)
    }
}

impl SigningKey for UpstreamKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

impl Drop for UpstreamKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for UpstreamCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamCa(for {}, until {})", self.trust_domain, self.ends_at)
    }
}

impl X509Ca {
    /// Signs a throw-away SVID and looks whether it leads to one of `roots` at `now`.
    ///
    /// # Errors
    /// When it cannot be signed, or a verifier with these roots would not take it.
    pub fn check_leads_to(&self, roots: &X509Bundle, now: Timestamp) -> Result<(), AuthorityError> {
        let request = SvidRequest {
            spiffe_id: self.trust_domain().member("/spire/throwaway").map_err(failed)?,
            spki_der: self.key().spki_der(),
            subject: SvidSubject::default(),
            dns_names: &[],
            validity: self.validity(),
            serial: [1; 16],
        };
        let trial = self.sign_x509_svid(&request).map_err(failed)?;
        verify_x509_svid(&trial.chain, &X509Bundles::from(roots.clone()), now)?;
        Ok(())
    }
}

/// What every certificate of an authority that somebody else signs has in common; the path below it may go on.
pub(crate) fn authority_params(
    subject: &SvidSubject,
    names: Vec<SanType>,
    key_bits: &[u8],
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject.to_name(&[]);
    params.subject_alt_names = names;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_identifier(key_bits).to_vec());
    params.use_authority_key_identifier_extension = true;
    params
}

/// The library that writes certificates must be able to write the name.
fn check_name(certificate: &CertificateDer<'_>) -> Result<(), UpstreamCaError> {
    let parsed = profile::parse(certificate).map_err(cannot)?;
    profile::check_writable(parsed.subject()).map_err(cannot)
}

fn cannot(error: impl fmt::Display) -> UpstreamCaError {
    UpstreamCaError::Failed(error.to_string())
}
