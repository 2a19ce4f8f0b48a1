//! Authorities, requests and signed leaves for the tests, all at one fixed time.

use rustls_pki_types::CertificateDer;
use spindle_ca::{CaSubject, SignError, SignedSvid, SvidRequest, SvidSubject, X509Ca};
use spindle_keys::{Key, KeyType};
use spindle_spiffe_core::{DnsName, SpiffeId, Timestamp, TrustDomain, Validity, X509Bundle, X509Bundles};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// 2026-09-21T14:13:20Z.
pub(crate) const NOW: i64 = 1_790_000_000;

pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_secs(secs)
}

pub(crate) fn span(from: i64, to: i64) -> Validity {
    Validity { not_before: at(from), not_after: at(to) }
}

pub(crate) fn trust_domain() -> TrustDomain {
    "prod.example".parse().expect("fixed by the test")
}

pub(crate) fn id(text: &str) -> SpiffeId {
    text.parse().expect("fixed by the test")
}

pub(crate) fn key(kind: KeyType) -> Key {
    Key::generate(kind).expect("fixed by the test")
}

/// A self-signed authority that lives from now for a day.
pub(crate) fn authority(kind: KeyType) -> X509Ca {
    authority_until(kind, NOW + 86_400)
}

pub(crate) fn authority_until(kind: KeyType, not_after: i64) -> X509Ca {
    let validity = span(NOW - 10, not_after);
    X509Ca::self_signed(&trust_domain(), key(kind), &CaSubject::default(), validity, [7; 16])
        .expect("fixed by the test")
}

/// A request for `spiffe://prod.example/web` that lives an hour.
pub(crate) fn request(spki_der: &[u8]) -> SvidRequest<'_> {
    SvidRequest {
        spiffe_id: id("spiffe://prod.example/web"),
        spki_der,
        subject: SvidSubject::default(),
        dns_names: &[],
        validity: span(NOW - 10, NOW + 3600),
        serial: [9; 16],
    }
}

pub(crate) fn sign(ca: &X509Ca, request: &SvidRequest<'_>) -> Result<SignedSvid, SignError> {
    ca.sign_x509_svid(request)
}

/// A leaf for a new P-256 key, with these DNS names.
pub(crate) fn leaf(ca: &X509Ca, dns_names: &[DnsName]) -> CertificateDer<'static> {
    leaf_for(ca, &key(KeyType::EcP256), dns_names)
}

pub(crate) fn leaf_for(ca: &X509Ca, key: &Key, dns_names: &[DnsName]) -> CertificateDer<'static> {
    let request = SvidRequest { dns_names, ..request(key.spki_der()) };
    sign(ca, &request).expect("fixed by the test").chain.swap_remove(0)
}

pub(crate) fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).expect("fixed by the test");
    assert!(rest.is_empty());
    certificate
}

/// The bundles of a peer that trusts `root` for our trust domain.
pub(crate) fn bundles(root: &CertificateDer<'static>) -> X509Bundles {
    X509Bundle::from_certificates(trust_domain(), vec![root.clone()]).expect("fixed by the test").into()
}
