//! What an authority's certificate must be before it may sign, and what a signed SVID must be before it leaves.
//!
//! Checks the DER that will be sent, with another parser than the one that wrote it. Leaf rules are those of
//! `spiffe-core`, plus the two that bind only an issuer. Authority rules: X509-SVID 3.2, 4.1, 4.3 and RFC 5280 4.2.

use rustls_pki_types::CertificateDer;
use spindle_spiffe_core::{SpiffeId, Timestamp, TrustDomain, Validity, X509Svid};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME, OID_X509_EXT_SUBJECT_KEY_IDENTIFIER, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

/// The rule that a certificate of ours breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate breaks a rule: {0}")]
pub struct ProfileError(pub(crate) &'static str);

/// The facts of an authority's certificate, once it has passed.
#[derive(Debug)]
pub(crate) struct AuthorityFacts {
    pub(crate) validity: Validity,
    pub(crate) spki_der: Vec<u8>,
    pub(crate) subject_key_id: Vec<u8>,
    /// The subject's DER, which must be the issuer of all it signs, byte for byte.
    pub(crate) subject_der: Vec<u8>,
}

/// Checks the certificate of an authority of `trust_domain`.
///
/// # Errors
/// The first rule it breaks.
pub(crate) fn check_authority(
    der: &[u8],
    trust_domain: &TrustDomain,
) -> Result<AuthorityFacts, ProfileError> {
    let certificate = parse(der)?;
    check_constraints(&certificate)?;
    check_key_usage(&certificate)?;
    check_name(&certificate, trust_domain)?;
    let subject_key_id = match parsed(&certificate, &OID_X509_EXT_SUBJECT_KEY_IDENTIFIER)? {
        Some((ParsedExtension::SubjectKeyIdentifier(id), false)) => id.0.to_vec(),
        _ => return Err(ProfileError("an authority has a subject key identifier, not critical")),
    };
    if certificate.subject().iter().next().is_none() {
        return Err(ProfileError("the subject of an authority is not empty"));
    }
    check_writable(certificate.subject())?;
    Ok(AuthorityFacts {
        validity: validity_of(&certificate),
        spki_der: certificate.public_key().raw.to_vec(),
        subject_key_id,
        subject_der: certificate.subject().as_raw().to_vec(),
    })
}

/// Whether the library that writes certificates can write this name as that of an issuer. It panics on attribute types that
/// are no valid OIDs and on an empty set of attributes, so such names must not reach it.
///
/// # Errors
/// The rule it breaks.
pub(crate) fn check_writable(name: &X509Name<'_>) -> Result<(), ProfileError> {
    for set in name.iter() {
        let mut attributes = set.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(ProfileError("a name has one attribute in each of its parts"));
        };
        let mut numbers = attribute.attr_type().iter().into_iter().flatten();
        match (numbers.next(), numbers.next()) {
            (Some(2), Some(_)) | (Some(0 | 1), Some(0..40)) => {}
            _ => return Err(ProfileError("an attribute of a name has a type that is no object identifier")),
        }
    }
    Ok(())
}

fn check_constraints(certificate: &X509Certificate<'_>) -> Result<(), ProfileError> {
    match parsed(certificate, &OID_X509_EXT_BASIC_CONSTRAINTS)? {
        Some((ParsedExtension::BasicConstraints(constraints), true)) if constraints.ca => Ok(()),
        _ => Err(ProfileError("an authority has critical basic constraints with cA true")),
    }
}

fn check_key_usage(certificate: &X509Certificate<'_>) -> Result<(), ProfileError> {
    let Some((ParsedExtension::KeyUsage(usage), true)) = parsed(certificate, &OID_X509_EXT_KEY_USAGE)? else {
        return Err(ProfileError("an authority has a critical key usage"));
    };
    // Bits 0, 5 and 6 of RFC 5280 4.2.1.3; SPIRE too lets an upstream authority add digitalSignature.
    let allowed = 1 << 0 | 1 << 5 | 1 << 6;
    if !usage.key_cert_sign() || usage.flags & !allowed != 0 {
        return Err(ProfileError(
            "an authority's key usage is keyCertSign, at most with cRLSign and digitalSignature",
        ));
    }
    Ok(())
}

fn check_name(certificate: &X509Certificate<'_>, trust_domain: &TrustDomain) -> Result<(), ProfileError> {
    let names = match parsed(certificate, &OID_X509_EXT_SUBJECT_ALT_NAME)? {
        None => return Ok(()),
        Some((ParsedExtension::SubjectAlternativeName(names), _)) => &names.general_names,
        Some(_) => return Err(ProfileError("the subject alternative name cannot be read")),
    };
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (None, _) => Ok(()),
        (Some(uri), None) if uri == trust_domain.id().as_str() => Ok(()),
        _ => Err(ProfileError("an authority's one URI name is the ID of its trust domain, without a path")),
    }
}

/// Checks a signed SVID against what was meant.
///
/// # Errors
/// The first rule it breaks.
pub(crate) fn check_svid(
    chain: &[CertificateDer<'static>],
    spiffe_id: &SpiffeId,
    authority: Validity,
) -> Result<(), ProfileError> {
    let svid = X509Svid::parse(chain.to_vec()).map_err(|_| ProfileError("it is not a valid X509-SVID"))?;
    if svid.spiffe_id() != spiffe_id {
        return Err(ProfileError("it names another SPIFFE ID than was asked for"));
    }
    if svid.validity().not_after > authority.not_after {
        return Err(ProfileError("an SVID does not outlive its authority"));
    }
    if svid.authority_key_id().is_none() || svid.subject_key_id().is_none() {
        return Err(ProfileError("an SVID has both key identifiers"));
    }
    Ok(())
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, ProfileError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(ProfileError("it is not one DER certificate")),
    }
}

/// The key identifier of whoever signed the certificate, if it names one.
pub(crate) fn authority_key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    match parsed(certificate, &OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER).ok()?? {
        (ParsedExtension::AuthorityKeyIdentifier(id), _) => {
            id.key_identifier.as_ref().map(|id| id.0.to_vec())
        }
        _ => None,
    }
}

/// The one extension of that type with its criticality; two of them are an error.
fn parsed<'a>(
    certificate: &'a X509Certificate<'_>,
    oid: &Oid<'_>,
) -> Result<Option<(&'a ParsedExtension<'a>, bool)>, ProfileError> {
    let mut found =
        certificate.extensions().iter().filter(|extension: &&X509Extension<'_>| extension.oid == *oid);
    match (found.next(), found.next()) {
        (first, None) => Ok(first.map(|extension| (extension.parsed_extension(), extension.critical))),
        _ => Err(ProfileError("no extension occurs twice")),
    }
}

fn validity_of(certificate: &X509Certificate<'_>) -> Validity {
    let validity = certificate.validity();
    Validity {
        not_before: Timestamp::from_unix_secs(validity.not_before.timestamp()),
        not_after: Timestamp::from_unix_secs(validity.not_after.timestamp()),
    }
}
