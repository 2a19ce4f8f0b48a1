//! X509-SVIDs and X.509 bundles beyond the rows of the standard: bounds, serials, algorithms, what parsed values tell.

#[path = "support/authority.rs"]
mod authority;

use authority::{Authority, NOW, ca_params, extension, id, trust_domain};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use spindle_spiffe_core::certificate::CertificateError;
use spindle_spiffe_core::x509_svid::{CHAIN_LEN_MAX, X509SvidError};
use spindle_spiffe_core::{Reason, VerifyError, X509Bundle, X509Bundles, X509Svid, verify_x509_svid};

const WEB: &str = "spiffe://td/web";

/// Verifies a leaf that is proper but for one change, signed by a known root.
fn verdict(change: impl FnOnce(&mut CertificateParams)) -> Result<X509Svid, VerifyError> {
    let root = Authority::root("td");
    verify_x509_svid(&[root.leaf_with(WEB, change)], &root.bundles("td"), NOW)
}

/// The rule a changed leaf breaks.
fn broken_rule(change: impl FnOnce(&mut CertificateParams)) -> X509SvidError {
    match verdict(change) {
        Err(VerifyError::Svid(error)) => error,
        other => panic!("expected a broken rule, got {other:?}"),
    }
}

#[test]
fn without_a_bundle_of_its_trust_domain_an_svid_is_refused() {
    let root = Authority::root("td");
    for bundles in [X509Bundles::new(), root.bundles("other")] {
        let error = verify_x509_svid(&[root.leaf(WEB)], &bundles, NOW).unwrap_err();
        assert!(matches!(error, VerifyError::UnknownTrustDomain { .. }), "{error}");
        assert_eq!(error.reason(), Reason::PeerNotTrusted);
    }
}

#[test]
fn empty_long_and_garbled_chains_are_refused() {
    let root = Authority::root("td");
    let leaf = root.leaf(WEB);
    let check =
        |chain: &[CertificateDer<'static>]| verify_x509_svid(chain, &root.bundles("td"), NOW).unwrap_err();
    assert_eq!(check(&[]), VerifyError::Svid(X509SvidError::EmptyChain));
    let long = vec![leaf.clone(); CHAIN_LEN_MAX + 1];
    assert_eq!(check(&long), VerifyError::Svid(X509SvidError::ChainLength(CHAIN_LEN_MAX + 1)));
    let big = CertificateDer::from(vec![0x30; 64 * 1024 + 1]);
    let index_1 = VerifyError::Svid(X509SvidError::CertificateSize { index: 1, bytes: 64 * 1024 + 1 });
    assert_eq!(check(&[leaf.clone(), big]), index_1);
    assert!(matches!(check(&[leaf.clone(), vec![0x30, 0].into()]), VerifyError::Unreadable { index: 1, .. }));
    let longer = [leaf.as_ref(), &[0]].concat();
    let error = check(&[longer.into()]);
    assert_eq!(
        error,
        VerifyError::Svid(X509SvidError::Leaf(CertificateError::Malformed("bytes after its end")))
    );
}

#[test]
fn a_repeated_extension_is_refused() {
    let error = broken_rule(|params| params.custom_extensions = vec![extension(15, true, &[3, 2, 7, 0x80])]);
    assert_eq!(error, X509SvidError::Leaf(CertificateError::Malformed("an extension occurs twice")));
}

#[test]
fn a_serial_that_is_negative_or_too_long_is_refused_and_the_longest_prints_in_decimal() {
    let serial = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        verdict(move |params| params.serial_number = Some(bytes.into()))
    };
    let refused = VerifyError::Svid(X509SvidError::Leaf(CertificateError::Serial));
    assert_eq!(serial(&[0x7f; 21]).unwrap_err(), refused);
    assert_eq!(serial(&[0x7f; 20]).unwrap().serial().as_bytes(), [0x7f; 20]);
    let mut power = vec![0; 16];
    power[0] = 0x40;
    assert_eq!(serial(&power).unwrap().serial_decimal(), (1_u128 << 126).to_string());
    assert_eq!(serial(&[1]).unwrap().serial_decimal(), "1");
}

#[test]
fn every_signature_algorithm_of_an_authority_is_accepted() {
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let ec = [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA512, &rcgen::PKCS_ED25519];
    let keys = ec.into_iter().map(|algorithm| KeyPair::generate_for(algorithm).unwrap()).chain([rsa]);
    for key in keys {
        let root = Authority::root_of_key(ca_params("td", "root"), key);
        verify_x509_svid(&[root.leaf(WEB)], &root.bundles("td"), NOW).unwrap();
    }
}

#[test]
fn the_parsed_svid_tells_what_its_leaf_says() {
    let root = Authority::root("td");
    let leaf = root.leaf(WEB);
    let svid = X509Svid::from_der(&leaf).unwrap();
    assert_eq!(svid.spiffe_id(), &id(WEB));
    assert_eq!((svid.leaf(), svid.chain().len(), svid.intermediates().len()), (&leaf, 1, 0));
    assert_eq!(svid.to_der(), leaf.as_ref());
    assert_eq!((svid.validity().not_before, svid.expires_at()), (NOW - 3600, NOW + 3600));
    let authority = root.authority();
    let hex: String = svid.authority_key_id().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, authority.subject_key_id());
    assert_eq!(authority.spki_der(), root.spki);
    assert!(svid.subject_key_id().is_some_and(|id| id.len() == 20));
    assert_ne!(svid.spki_der(), root.spki);
}

#[test]
fn a_peer_with_another_id_is_refused_with_both_names() {
    let svid = verdict(|_| {}).unwrap();
    svid.require_id(&id(WEB)).unwrap();
    let error = svid.require_id(&id("spiffe://td/db")).unwrap_err();
    assert_eq!(error.reason(), Reason::PeerWrongId);
    assert_eq!(error.to_string(), "the peer is spiffe://td/web, expected was spiffe://td/db");
}

#[test]
fn a_tainted_authority_is_still_trusted() {
    let root = Authority::root("td");
    let bundle = X509Bundle::new(trust_domain("td"), [root.authority().with_taint(true)]).unwrap();
    assert!(bundle.authorities()[0].is_tainted());
    verify_x509_svid(&[root.leaf(WEB)], &bundle.into(), NOW).unwrap();
}

#[test]
fn a_bundle_survives_der_and_pem() {
    let (one, two) = (Authority::root("td"), Authority::root("td"));
    let td = trust_domain("td");
    let bundle = X509Bundle::new(td.clone(), [one.authority(), two.authority(), one.authority()]).unwrap();
    assert_eq!(bundle.authorities().len(), 2);
    assert_eq!(X509Bundle::from_der(td.clone(), &bundle.to_der()).unwrap(), bundle);
    assert_eq!(X509Bundle::from_pem(td.clone(), bundle.to_pem().as_bytes()).unwrap(), bundle);
    assert!(X509Bundle::from_der(td.clone(), &[]).unwrap().is_empty());
    assert!(X509Bundle::from_pem(td.clone(), b"").is_err());
    assert!(X509Bundle::from_pem(td.clone(), b"-----BEGIN CERTIFICATE-----\nMIIB\n").is_err());
    assert!(X509Bundle::from_der(td, &bundle.to_der()[1..]).is_err());
}
