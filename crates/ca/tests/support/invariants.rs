//! What must hold for any input of each parser here. Shared by the random tests and the fuzz targets in `tests/fuzz`.
#![allow(dead_code, reason = "each user takes its own part of this")]
#![allow(clippy::unwrap_used, reason = "a failing step is the finding")]

use rustls_pki_types::PrivateKeyDer;
use spindle_ca::{CaSubject, CheckedCsr, SubjectKey, UpstreamCa, X509Ca, authority_request};
use spindle_keys::{Key, KeyType};
use spindle_spiffe_core::x509_svid::split_der_certificates;
use spindle_spiffe_core::{Timestamp, TrustDomain, Validity, X509Bundle};

/// When upstream authorities are taken up here.
pub(crate) const TAKEN_UP_AT: i64 = 1_790_000_000;

/// An accepted request has an acceptable key, and its bytes are the whole of it.
pub(crate) fn csr(input: &[u8]) {
    let Ok(csr) = CheckedCsr::parse(input) else { return };
    SubjectKey::parse(csr.spki_der()).unwrap();
    assert!(input.windows(csr.spki_der().len()).any(|part| part == csr.spki_der()));
    assert!(CheckedCsr::parse(&[input, &[0]].concat()).is_err());
    assert!(CheckedCsr::parse(&input[..input.len() - 1]).is_err());
}

/// An accepted key is part of its DER, and nothing may follow it.
pub(crate) fn subject_key(input: &[u8]) {
    let Ok(key) = SubjectKey::parse(input) else { return };
    assert!(input.ends_with(key.bits()));
    assert!(SubjectKey::parse(&[input, &[0]].concat()).is_err());
}

/// A key and certificates back to back, as an upstream authority's files hold them: what is taken up signs an authority that
/// ends in time.
pub(crate) fn upstream_authority(input: &[u8]) {
    let trust_domain: TrustDomain = "td".parse().unwrap();
    let now = Timestamp::from_unix_secs(TAKEN_UP_AT);
    let Ok(mut parts) = split_der_certificates(input) else { return };
    if parts.is_empty() {
        return;
    }
    let key = parts.remove(0);
    let Ok(key) = PrivateKeyDer::try_from(key.as_ref()) else { return };
    let Ok(upstream) = UpstreamCa::new(&trust_domain, &key, parts, None, now) else { return };
    let ours = Key::generate(KeyType::EcP256).unwrap();
    let csr = authority_request(&trust_domain, &ours, &CaSubject::default(), [1; 16]).unwrap();
    let validity = Validity { not_before: now, not_after: now + 1_000_000_000 };
    let chain = upstream.sign(&csr, validity, [1; 16]).unwrap();
    let ca = X509Ca::from_parts(&trust_domain, chain[0].clone(), ours, chain).unwrap();
    assert!(ca.validity().not_after <= upstream.ends_at());
    // A path length of its own may forbid an authority below it, which shows here and nowhere later.
    let roots = X509Bundle::new(trust_domain, upstream.roots().to_vec()).unwrap();
    let _ = ca.check_leads_to(&roots, now);
}
