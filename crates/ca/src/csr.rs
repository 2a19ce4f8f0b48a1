//! Certificate requests (PKCS#10, RFC 2986) from agents, workloads and administrators.
//!
//! A [`CheckedCsr`] is proof that its sender holds the private key: size, encoding, key and signature were checked. Only
//! the key is ever used without asking; names are handed out as text for the caller to judge. Stricter than SPIRE, which
//! does not verify an agent's request at attestation.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use spindle_spiffe_core::{Reason, X509Authority};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519,
    OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
};
use x509_parser::prelude::FromDer;

use crate::public_key::{KeyKind, PublicKeyError, SubjectKey};
use crate::subject::{SubjectError, SvidSubject};

/// The largest request taken, in bytes: 256 DNS names of 253 bytes fit beside a large key.
pub const CSR_BYTES_MAX: usize = 64 * 1024;

/// A request whose encoding, key and signature are in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedCsr {
    spki_der: Vec<u8>,
    uri_sans: Vec<String>,
    dns_sans: Vec<String>,
    subject: Result<SvidSubject, SubjectError>,
}

/// Why a certificate request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Larger than [`CSR_BYTES_MAX`].
    #[error("a certificate request has at most {CSR_BYTES_MAX} bytes, this one has {0}")]
    TooLarge(usize),
    /// Not one DER certificate request.
    #[error("malformed certificate request: {0}")]
    Malformed(&'static str),
    /// A key that is not certified.
    #[error("the key of the certificate request is refused")]
    Key(#[from] PublicKeyError),
    /// A signature algorithm that is not accepted for the key.
    #[error("the certificate request is signed with an algorithm that is not accepted for its key")]
    SignatureAlgorithm,
    /// The signature does not belong to the key and the content.
    #[error("the signature of the certificate request does not verify")]
    Signature,
    /// A subject that cannot be copied.
    #[error("the subject of the certificate request is refused")]
    Subject(#[from] SubjectError),
}

impl CsrError {
    /// The rule that refused, for the status detail and the log.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Key(_) => Reason::BadKey,
            _ => Reason::BadCsr,
        }
    }
}

impl CheckedCsr {
    /// Parses a DER request and verifies its signature.
    ///
    /// # Errors
    /// When it is too large, malformed, followed by other bytes, of a key that is not certified, or not signed by it.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > CSR_BYTES_MAX {
            return Err(CsrError::TooLarge(der.len()));
        }
        let (rest, csr) = X509CertificationRequest::from_der(der)
            .map_err(|_| CsrError::Malformed("it is not a DER PKCS#10 request"))?;
        // The signature is the last thing inside the outer sequence, so this also refuses bytes after it but within.
        let signature = &csr.signature_value;
        if !rest.is_empty() || signature.unused_bits != 0 || !der.ends_with(&signature.data) {
            return Err(CsrError::Malformed("there are bytes after it"));
        }
        let info = &csr.certification_request_info;
        if info.version.0 != 0 {
            return Err(CsrError::Malformed("its version is not v1"));
        }
        let spki_der = info.subject_pki.raw;
        verify(&csr, SubjectKey::parse(spki_der)?)?;
        let (uri_sans, dns_sans) = alternative_names(&csr)?;
        let subject = SvidSubject::from_name(&info.subject);
        Ok(Self { spki_der: spki_der.to_vec(), uri_sans, dns_sans, subject })
    }

    /// The public key as a DER `SubjectPublicKeyInfo`.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// URIs of the requested subject alternative name, unchecked and in order.
    pub fn uri_sans(&self) -> &[String] {
        &self.uri_sans
    }

    /// DNS names of the requested subject alternative name, unchecked and in order.
    pub fn dns_sans(&self) -> &[String] {
        &self.dns_sans
    }

    /// The requested subject, possibly empty. Only minting asks for it, so a fault in it shows only here.
    ///
    /// # Errors
    /// When the subject cannot be copied as it is.
    pub fn subject(&self) -> Result<&SvidSubject, CsrError> {
        self.subject.as_ref().map_err(|error| CsrError::Subject(error.clone()))
    }
}

impl SvidSubject {
    /// The subject that a request asks for, or the default where it asks for none.
    ///
    /// # Errors
    /// When the subject cannot be copied as it is.
    pub fn from_csr(csr: &CheckedCsr) -> Result<Self, CsrError> {
        let subject = csr.subject()?;
        Ok(if subject.is_empty() { Self::default() } else { subject.clone() })
    }
}

fn verify(csr: &X509CertificationRequest<'_>, key: SubjectKey<'_>) -> Result<(), CsrError> {
    let algorithm = &csr.signature_algorithm.algorithm;
    if key.kind() == KeyKind::Rsa && *algorithm == OID_PKCS1_RSASSAPSS {
        // The parser reads the PSS parameters and refuses SHA-1 among them.
        return csr.verify_signature().map_err(|_| CsrError::Signature);
    }
    let algorithm = verification_algorithm(key.kind(), algorithm).ok_or(CsrError::SignatureAlgorithm)?;
    let signed = csr.certification_request_info.raw;
    let verified = UnparsedPublicKey::new(algorithm, key.bits()).verify(signed, &csr.signature_value.data);
    verified.map_err(|_| CsrError::Signature)
}

/// Whether the certificate bears the signature of `root`'s key. Names and dates are not looked at.
pub(crate) fn is_signed_by(certificate: &[u8], root: &X509Authority) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(key) = SubjectKey::parse(root.spki_der()) else { return false };
    let oid = &certificate.signature_algorithm.algorithm;
    let Some(algorithm) = verification_algorithm(key.kind(), oid) else {
        // RSA-PSS, whose parameters the parser reads.
        let root = X509Certificate::from_der(root.der());
        return root.is_ok_and(|(_, root)| certificate.verify_signature(Some(root.public_key())).is_ok());
    };
    let (signed, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    UnparsedPublicKey::new(algorithm, key.bits()).verify(signed, signature).is_ok()
}

/// Which pairs of key and algorithm are accepted: SHA-2 only, and any SHA-2 with any curve, as Go does.
fn verification_algorithm(kind: KeyKind, oid: &Oid<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let hash_bits = if *oid == OID_SIG_ECDSA_WITH_SHA256 || *oid == OID_PKCS1_SHA256WITHRSA {
        256
    } else if *oid == OID_SIG_ECDSA_WITH_SHA384 || *oid == OID_PKCS1_SHA384WITHRSA {
        384
    } else if *oid == OID_SIG_ECDSA_WITH_SHA512 || *oid == OID_PKCS1_SHA512WITHRSA {
        512
    } else {
        return (kind == KeyKind::Ed25519 && *oid == OID_SIG_ED25519).then_some(&signature::ED25519);
    };
    let is_rsa = [OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA].contains(oid);
    Some(match (kind, hash_bits) {
        (KeyKind::Rsa, 256) if is_rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
        (KeyKind::Rsa, 384) if is_rsa => &signature::RSA_PKCS1_2048_8192_SHA384,
        (KeyKind::Rsa, 512) if is_rsa => &signature::RSA_PKCS1_2048_8192_SHA512,
        (KeyKind::EcP256, 256) if !is_rsa => &signature::ECDSA_P256_SHA256_ASN1,
        (KeyKind::EcP256, 384) if !is_rsa => &signature::ECDSA_P256_SHA384_ASN1,
        (KeyKind::EcP256, 512) if !is_rsa => &signature::ECDSA_P256_SHA512_ASN1,
        (KeyKind::EcP384, 256) if !is_rsa => &signature::ECDSA_P384_SHA256_ASN1,
        (KeyKind::EcP384, 384) if !is_rsa => &signature::ECDSA_P384_SHA384_ASN1,
        (KeyKind::EcP384, 512) if !is_rsa => &signature::ECDSA_P384_SHA512_ASN1,
        (KeyKind::EcP521, 256) if !is_rsa => &signature::ECDSA_P521_SHA256_ASN1,
        (KeyKind::EcP521, 384) if !is_rsa => &signature::ECDSA_P521_SHA384_ASN1,
        (KeyKind::EcP521, 512) if !is_rsa => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}

/// The URIs and the DNS names of the one subject alternative name that may be requested.
fn alternative_names(csr: &X509CertificationRequest<'_>) -> Result<(Vec<String>, Vec<String>), CsrError> {
    let mut found: Option<&X509Extension<'_>> = None;
    for attribute in csr.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(request) = attribute.parsed_attribute() else { continue };
        for extension in request.extensions.iter().filter(|ext| ext.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
            if found.replace(extension).is_some() {
                return Err(CsrError::Malformed("it asks for two subject alternative names"));
            }
        }
    }
    let Some(extension) = found else { return Ok((Vec::new(), Vec::new())) };
    let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
        return Err(CsrError::Malformed("its subject alternative name cannot be read"));
    };
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    for name in &names.general_names {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
            GeneralName::Invalid(..) => {
                return Err(CsrError::Malformed("its subject alternative name cannot be read"));
            }
            _ => {}
        }
    }
    Ok((uris, dns_names))
}
