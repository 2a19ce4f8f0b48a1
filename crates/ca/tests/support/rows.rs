//! What the tests of the issuer rows look at, and authorities made by other hands.

use crate::authority::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use spindle_ca::{AuthorityError, CaSubject, X509Ca};
use spindle_keys::{Key, KeyType};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, X509Extension};
use x509_parser::oid_registry::Oid;

/// Bits of RFC 5280 4.2.1.3 as x509-parser counts them.
pub(crate) const DIGITAL_SIGNATURE: u16 = 1;
pub(crate) const KEY_ENCIPHERMENT: u16 = 1 << 2;
pub(crate) const CERT_SIGN_AND_CRL_SIGN: u16 = 1 << 5 | 1 << 6;

pub(crate) fn extension<'a>(
    certificate: &'a X509Certificate<'_>,
    oid: &Oid<'_>,
) -> Option<&'a X509Extension<'a>> {
    certificate.get_extension_unique(oid).expect("an extension occurs once")
}

pub(crate) fn key_usage(certificate: &X509Certificate<'_>) -> u16 {
    certificate.key_usage().expect("fixed by the test").expect("there is a key usage").value.flags
}

pub(crate) fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().expect("fixed by the test").expect("there is a SAN");
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

pub(crate) fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().expect("fixed by the test").expect("there is a SAN");
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

/// A self-signed certificate by other hands, to be taken up as an authority.
pub(crate) fn foreign_root(change: impl FnOnce(&mut CertificateParams)) -> (CertificateDer<'static>, Key) {
    let key = key(KeyType::EcP256);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    (params.self_signed(&key).expect("fixed by the test").der().clone(), key)
}

pub(crate) fn take_up(change: impl FnOnce(&mut CertificateParams)) -> Result<X509Ca, AuthorityError> {
    let (certificate, key) = foreign_root(change);
    X509Ca::from_parts(&trust_domain(), certificate, key, Vec::new())
}

pub(crate) fn with_uri(uri: &str) -> impl FnOnce(&mut CertificateParams) {
    let name = SanType::URI(uri.try_into().expect("fixed by the test"));
    move |params| params.subject_alt_names = vec![name]
}

/// An authority of ours whose certificate a root of other hands has signed.
pub(crate) fn chained_authority(
    uri: Option<&str>,
) -> (CertificateDer<'static>, Result<X509Ca, AuthorityError>) {
    let root_key = key(KeyType::EcP384);
    let root_subject = CaSubject { common_name: "Upstream root".into(), ..CaSubject::default() };
    let root = X509Ca::self_signed(
        &trust_domain(),
        root_key.clone(),
        &root_subject,
        span(NOW - 10, NOW + 900_000),
        [3; 16],
    );
    let root = root.expect("fixed by the test").certificate().clone();
    let key = key(KeyType::EcP256);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_after = time::OffsetDateTime::from_unix_timestamp(NOW + 86_400).expect("fixed by the test");
    params.subject_alt_names =
        uri.map(|uri| SanType::URI(uri.try_into().expect("fixed by the test"))).into_iter().collect();
    let issuer = rcgen::Issuer::from_ca_cert_der(&root, &root_key).expect("fixed by the test");
    let certificate = params.signed_by(&key, &issuer).expect("fixed by the test").der().clone();
    let ca = X509Ca::from_parts(&trust_domain(), certificate.clone(), key, vec![certificate]);
    (root, ca)
}
