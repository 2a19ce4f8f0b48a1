//! The rows of X509-SVID that this crate can show, one test or more each; the name starts with the row.

#[path = "support/authority.rs"]
mod authority;

use authority::{
    Authority, NOW, ca_params, extension, id, leaf_params, printed_keys, set_validity, spiffe_bundle,
    trust_domain, uri,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose as Eku, IsCa,
    KeyUsagePurpose as Usage, SanType,
};
use spindle_spiffe_core::spiffe_id::SpiffeIdError;
use spindle_spiffe_core::verify::IntermediateFault;
use spindle_spiffe_core::x509_svid::X509SvidError;
use spindle_spiffe_core::{
    Reason, VerifyError, X509Authority, X509Bundle, X509Bundles, X509Svid, verify_x509_svid,
};

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

fn verdict_on_name(name: &str) -> Result<X509Svid, VerifyError> {
    verdict(|params| params.subject_alt_names = vec![uri(name)])
}

/// Verifies root, intermediate, leaf, where the intermediate has been changed.
fn verdict_below(change: impl FnOnce(&mut CertificateParams)) -> Result<X509Svid, VerifyError> {
    let root = Authority::root("td");
    let mut params = ca_params("td", "intermediate");
    params.use_authority_key_identifier_extension = true;
    change(&mut params);
    let intermediate = root.intermediate(params);
    let chain = [intermediate.leaf(WEB), intermediate.certificate.clone()];
    verify_x509_svid(&chain, &root.bundles("td"), NOW)
}

fn path_fault(result: Result<X509Svid, VerifyError>) -> webpki::Error {
    match result {
        Err(VerifyError::Path { source, .. }) => source,
        other => panic!("expected a broken path, got {other:?}"),
    }
}

fn intermediate_fault(result: Result<X509Svid, VerifyError>) -> IntermediateFault {
    match result {
        Err(VerifyError::Intermediate { fault, index: 1, .. }) => fault,
        other => panic!("expected a bad intermediate, got {other:?}"),
    }
}

#[test]
fn x509_02_two_uri_names_are_refused_whatever_their_schemes() {
    for second in ["https://x", "spiffe://td/b", WEB, "urn:x"] {
        let error = broken_rule(|params| params.subject_alt_names.push(uri(second)));
        assert_eq!(error, X509SvidError::UriNames(2), "{second}");
    }
}

#[test]
fn x509_03_a_leaf_without_a_uri_name_is_refused() {
    let dns = SanType::DnsName("web.example.org".try_into().unwrap());
    assert_eq!(broken_rule(|params| params.subject_alt_names = vec![dns]), X509SvidError::UriNames(0));
    assert_eq!(broken_rule(|params| params.subject_alt_names.clear()), X509SvidError::UriNames(0));
}

#[test]
fn x509_04_a_uri_name_that_breaks_an_id_rule_is_refused() {
    for name in [
        "spiffe://td/a/",
        "spiffe://td/a?x",
        "spiffe://TD/a",
        "spiffe://td//a",
        "spiffe:///a",
        "spiffe://td/%41",
    ] {
        let error = verdict_on_name(name).unwrap_err();
        assert!(matches!(error, VerifyError::Svid(X509SvidError::Id(_))), "{name}: {error}");
    }
}

#[test]
fn x509_04_a_uri_name_that_is_not_text_is_refused() {
    let san = extension(17, false, &[0x30, 4, 0x86, 2, 0xff, 0xfe]);
    let error = broken_rule(|params| {
        params.subject_alt_names.clear();
        params.custom_extensions = vec![san];
    });
    assert_eq!(error, X509SvidError::UriText);
}

#[test]
fn x509_05_dns_names_beside_the_uri_name_are_accepted() {
    let svid = verdict(|params| {
        params.subject_alt_names.push(SanType::DnsName("a.example.org".try_into().unwrap()));
        params.subject_alt_names.push(SanType::DnsName("b.example.org".try_into().unwrap()));
    });
    assert_eq!(svid.unwrap().spiffe_id(), &id(WEB));
}

#[test]
fn x509_06_the_identity_is_read_from_the_first_certificate_only() {
    let root = Authority::root("td");
    let intermediate = root.intermediate(ca_params("other", "intermediate with another name"));
    let chain = [intermediate.leaf(WEB), intermediate.certificate.clone()];
    assert_eq!(verify_x509_svid(&chain, &root.bundles("td"), NOW).unwrap().spiffe_id(), &id(WEB));
    let error =
        verify_x509_svid(&[chain[1].clone(), chain[0].clone()], &root.bundles("td"), NOW).unwrap_err();
    assert!(matches!(error, VerifyError::Svid(X509SvidError::IdWithoutPath(_))), "{error}");
}

#[test]
fn x509_09_an_empty_subject_is_accepted() {
    verdict(|params| params.distinguished_name = DistinguishedName::new()).unwrap();
}

#[test]
fn x509_11_an_intermediate_whose_id_has_a_path_is_refused() {
    let result = verdict_below(|params| params.subject_alt_names = vec![uri("spiffe://td/ca")]);
    assert_eq!(intermediate_fault(result), IntermediateFault::IdWithPath);
    let result =
        verdict_below(|params| params.subject_alt_names = vec![uri("spiffe://td"), uri("https://x")]);
    assert_eq!(intermediate_fault(result), IntermediateFault::UriNames);
}

#[test]
fn x509_11_an_intermediate_without_an_id_or_with_a_bare_slash_is_tolerated() {
    verdict_below(|params| params.subject_alt_names.clear()).unwrap();
    verdict_below(|params| params.subject_alt_names = vec![uri("https://ca.example/")]).unwrap();
    verdict_below(|params| params.subject_alt_names = vec![uri("spiffe://td/")]).unwrap();
}

#[test]
fn x509_13_a_leaf_below_an_intermediate_is_accepted_in_any_order_of_intermediates() {
    let root = Authority::root("td");
    let upper = root.intermediate(ca_params("td", "upper"));
    let lower = upper.intermediate(ca_params("td", "lower"));
    let (leaf, bundles) = (lower.leaf(WEB), root.bundles("td"));
    let chain = [leaf.clone(), lower.certificate.clone(), upper.certificate.clone()];
    let svid = verify_x509_svid(&chain, &bundles, NOW).unwrap();
    assert_eq!(svid.intermediates(), &chain[1..]);
    verify_x509_svid(&[leaf.clone(), upper.certificate.clone(), lower.certificate.clone()], &bundles, NOW)
        .unwrap();
    assert_eq!(path_fault(verify_x509_svid(&chain[..2], &bundles, NOW)), webpki::Error::UnknownIssuer);
}

#[test]
fn x509_14_a_signing_certificate_as_leaf_is_refused() {
    let root = Authority::root("td");
    let intermediate = root.intermediate(ca_params("td", "intermediate"));
    for certificate in [&root.certificate, &intermediate.certificate] {
        let error =
            verify_x509_svid(std::slice::from_ref(certificate), &root.bundles("td"), NOW).unwrap_err();
        assert!(matches!(error, VerifyError::Svid(X509SvidError::IdWithoutPath(_))), "{error}");
    }
    let error = broken_rule(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Usage::KeyCertSign];
    });
    assert_eq!(error, X509SvidError::IsCa(id(WEB)));
}

#[test]
fn x509_15_a_signing_certificate_below_path_length_zero_is_refused() {
    let root = Authority::root("td");
    let mut params = ca_params("td", "upper");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let upper = root.intermediate(params);
    let lower = upper.intermediate(ca_params("td", "lower"));
    let bundles = root.bundles("td");
    verify_x509_svid(&[upper.leaf(WEB), upper.certificate.clone()], &bundles, NOW).unwrap();
    let chain = [lower.leaf(WEB), lower.certificate.clone(), upper.certificate.clone()];
    assert_eq!(path_fault(verify_x509_svid(&chain, &bundles, NOW)), webpki::Error::PathLenConstraintViolated);
}

#[test]
fn x509_18_below_uri_name_constraints_every_leaf_is_refused() {
    // permittedSubtrees [0] { uniformResourceIdentifier [6] "td" }
    let permitted = extension(30, true, &[0x30, 8, 0xa0, 6, 0x30, 4, 0x86, 2, b't', b'd']);
    let result = verdict_below(|params| params.custom_extensions = vec![permitted]);
    assert_eq!(path_fault(result), webpki::Error::NameConstraintViolation);
}

#[test]
fn x509_19_a_leaf_without_key_usage_is_refused() {
    assert_eq!(broken_rule(|params| params.key_usages.clear()), X509SvidError::NoKeyUsage(id(WEB)));
}

#[test]
fn x509_21_an_intermediate_without_key_cert_sign_is_refused() {
    for usages in [vec![], vec![Usage::CrlSign], vec![Usage::DigitalSignature]] {
        let result = verdict_below(|params| params.key_usages = usages);
        assert_eq!(intermediate_fault(result), IntermediateFault::NoCertSign);
    }
}

#[test]
fn x509_21_an_authority_with_a_key_usage_that_lacks_key_cert_sign_is_refused() {
    let mut params = ca_params("td", "root");
    params.key_usages = vec![Usage::CrlSign];
    let root = Authority::root_from(params);
    let error = X509Authority::parse(root.certificate).unwrap_err();
    assert_eq!(error.to_string(), "an authority's certificate lacks the key usage keyCertSign");
}

#[test]
fn x509_22_a_signing_certificate_with_or_without_crl_sign_is_accepted() {
    verdict_below(|params| params.key_usages = vec![Usage::KeyCertSign]).unwrap();
    verdict_below(|params| params.key_usages = vec![Usage::KeyCertSign, Usage::CrlSign]).unwrap();
}

#[test]
fn x509_23_a_leaf_without_digital_signature_is_refused() {
    for usages in [vec![Usage::KeyAgreement], vec![Usage::KeyEncipherment, Usage::DataEncipherment]] {
        assert_eq!(
            broken_rule(|params| params.key_usages = usages),
            X509SvidError::NoDigitalSignature(id(WEB))
        );
    }
}

#[test]
fn x509_24_a_leaf_with_all_three_usages_is_accepted() {
    verdict(|params| {
        params.key_usages = vec![Usage::DigitalSignature, Usage::KeyEncipherment, Usage::KeyAgreement];
    })
    .unwrap();
}

#[test]
fn x509_26_an_intermediate_with_digital_signature_is_tolerated() {
    verdict_below(|params| params.key_usages = vec![Usage::KeyCertSign, Usage::DigitalSignature]).unwrap();
}

#[test]
fn x509_27_a_leaf_without_extended_key_usage_is_accepted() {
    verdict(|params| params.extended_key_usages.clear()).unwrap();
}

#[test]
fn x509_28_a_critical_extended_key_usage_is_accepted() {
    let both = [0x30, 20, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2];
    verdict(|params| {
        params.extended_key_usages.clear();
        params.custom_extensions = vec![extension(37, true, &both)];
    })
    .unwrap();
}

#[test]
fn x509_29_an_extended_key_usage_without_one_of_the_two_is_refused() {
    for purposes in [
        vec![Eku::ServerAuth],
        vec![Eku::ClientAuth],
        vec![Eku::Any],
        vec![Eku::CodeSigning, Eku::ServerAuth],
    ] {
        let error = broken_rule(|params| params.extended_key_usages = purposes);
        assert_eq!(error, X509SvidError::ExtendedKeyUsage(id(WEB)));
    }
    verdict(|params| params.extended_key_usages.push(Eku::CodeSigning)).unwrap();
}

#[test]
fn x509_30_the_extended_key_usage_of_an_intermediate_does_not_limit_the_leaf() {
    verdict_below(|params| params.extended_key_usages = vec![Eku::ServerAuth]).unwrap();
    verdict_below(|params| params.extended_key_usages = vec![Eku::CodeSigning]).unwrap();
}

#[test]
fn x509_31_a_leaf_outside_its_dates_is_refused_and_both_end_seconds_belong_to_it() {
    let leaf_at = |from, to| verdict(|params| set_validity(params, from, to));
    leaf_at(NOW - 10, NOW).unwrap();
    leaf_at(NOW, NOW + 10).unwrap();
    let over = leaf_at(NOW - 10, NOW - 1).unwrap_err();
    assert!(matches!(over, VerifyError::Expired { .. }), "{over}");
    let early = leaf_at(NOW + 1, NOW + 10).unwrap_err();
    assert!(matches!(early, VerifyError::NotYetValid { .. }), "{early}");
    assert_eq!((over.reason(), early.reason()), (Reason::PeerExpired, Reason::PeerExpired));
    leaf_at(NOW + 10, NOW - 10).unwrap_err();
}

#[test]
fn x509_31_an_intermediate_outside_its_dates_is_refused() {
    let error = verdict_below(|params| set_validity(params, NOW - 10, NOW - 1)).unwrap_err();
    assert_eq!(error.reason(), Reason::PeerExpired);
    assert!(matches!(path_fault(Err(error)), webpki::Error::CertExpired { .. }));
    let error = verdict_below(|params| set_validity(params, NOW + 1, NOW + 10)).unwrap_err();
    assert!(matches!(path_fault(Err(error)), webpki::Error::CertNotValidYet { .. }));
}

#[test]
fn x509_31_an_authority_outside_its_dates_anchors_nothing() {
    for (from, to) in [(NOW - 10, NOW - 1), (NOW + 1, NOW + 10)] {
        let mut params = ca_params("td", "root");
        set_validity(&mut params, from, to);
        let root = Authority::root_from(params);
        let error = verify_x509_svid(&[root.leaf(WEB)], &root.bundles("td"), NOW).unwrap_err();
        assert!(matches!(error, VerifyError::AuthoritiesExpired { .. }), "{error}");
        assert_eq!(error.reason(), Reason::PeerExpired);
    }
}

#[test]
fn x509_31_an_expired_authority_beside_a_valid_one_does_not_help() {
    let mut params = ca_params("td", "old root");
    set_validity(&mut params, NOW - 10, NOW - 1);
    let (old, new) = (Authority::root_from(params), Authority::root("td"));
    let bundle = X509Bundle::new(trust_domain("td"), [old.authority(), new.authority()]).unwrap();
    let bundles: X509Bundles = bundle.into();
    verify_x509_svid(&[new.leaf(WEB)], &bundles, NOW).unwrap();
    assert_eq!(path_fault(verify_x509_svid(&[old.leaf(WEB)], &bundles, NOW)), webpki::Error::UnknownIssuer);
}

#[test]
fn x509_31_a_wrong_signature_is_refused() {
    let (root, other) = (Authority::root("td"), Authority::root("td"));
    let error = verify_x509_svid(&[other.leaf(WEB)], &root.bundles("td"), NOW);
    assert_eq!(path_fault(error), webpki::Error::InvalidSignatureForPublicKey);
}

#[test]
fn x509_31_an_issuer_that_is_no_ca_is_refused() {
    let root = Authority::root("td");
    let mut params = leaf_params(WEB);
    params.key_usages = vec![Usage::DigitalSignature];
    let leaf_as_issuer = root.intermediate(params);
    let chain = [leaf_as_issuer.leaf("spiffe://td/admin"), leaf_as_issuer.certificate.clone()];
    assert_eq!(
        intermediate_fault(verify_x509_svid(&chain, &root.bundles("td"), NOW)),
        IntermediateFault::NotCa
    );
}

#[test]
fn x509_31_a_leaf_cannot_be_made_an_authority() {
    let root = Authority::root("td");
    let error = X509Authority::parse(root.leaf(WEB)).unwrap_err();
    assert_eq!(error.to_string(), "an authority's certificate is not a CA certificate");
}

#[test]
fn x509_32_a_leaf_with_ca_true_is_refused_though_its_key_usage_is_a_leafs() {
    let error = broken_rule(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(error, X509SvidError::IsCa(id(WEB)));
}

#[test]
fn x509_32_absent_basic_constraints_count_as_no_ca_and_unreadable_ones_do_not() {
    verdict(|params| params.is_ca = IsCa::NoCa).unwrap();
    for content in [&[0x30, 6, 2, 1, 5, 2, 1, 5][..], &[0x30, 3, 1, 1], &[0x04, 0], &[]] {
        let error = verdict(|params| {
            params.is_ca = IsCa::NoCa;
            params.custom_extensions = vec![extension(19, true, content)];
        });
        assert_eq!(error.map_err(|error| error.reason()), Err(Reason::PeerNotTrusted), "{content:?}");
    }
}

#[test]
fn x509_33_a_leaf_that_may_sign_certificates_or_revocation_lists_is_refused() {
    for bit in [Usage::KeyCertSign, Usage::CrlSign] {
        let error = broken_rule(|params| params.key_usages.push(bit));
        assert_eq!(error, X509SvidError::SigningKeyUsage(id(WEB)));
    }
}

#[test]
fn x509_34_another_scheme_is_refused() {
    for name in ["https://td/a", "SPIFFE://td/a", "urn:spiffe:td", "spiffe:td/a"] {
        let error = verdict_on_name(name).unwrap_err();
        assert_eq!(error, VerifyError::Svid(X509SvidError::Id(SpiffeIdError::Scheme)), "{name}");
    }
}

#[test]
fn x509_35_a_leaf_whose_id_has_no_path_is_refused() {
    let error = verdict_on_name("spiffe://td").unwrap_err();
    assert_eq!(error, VerifyError::Svid(X509SvidError::IdWithoutPath(id("spiffe://td"))));
    assert_eq!(error.reason(), Reason::PeerNotTrusted);
}

#[test]
fn x509_36_each_authority_is_one_key_of_the_document() {
    let keys = printed_keys(&spiffe_bundle("td", &[&Authority::root("td"), &Authority::root("td")]));
    assert_eq!(keys.len(), 2);
}

#[test]
fn x509_37_and_38_the_use_is_x509_svid_and_there_is_no_kid() {
    for key in printed_keys(&spiffe_bundle("td", &[&Authority::root("td"), &Authority::root("td")])) {
        assert_eq!(key["use"], "x509-svid");
        assert!(key.get("kid").is_none());
    }
}

#[test]
fn x509_39_and_40_x5c_has_one_element_in_padded_base64() {
    use base64::Engine;
    let root = Authority::root("td");
    let keys = printed_keys(&spiffe_bundle("td", &[&root]));
    let x5c = keys[0]["x5c"].as_array().unwrap();
    assert_eq!(x5c.len(), 1);
    assert_eq!(
        base64::prelude::BASE64_STANDARD.decode(x5c[0].as_str().unwrap()).unwrap(),
        root.certificate.as_ref()
    );
}

#[test]
fn x509_45_without_an_x509_authority_every_x509_svid_is_refused() {
    let root = Authority::root("td");
    let bundles: X509Bundles = X509Bundle::empty(trust_domain("td")).into();
    let error = verify_x509_svid(&[root.leaf(WEB)], &bundles, NOW).unwrap_err();
    assert_eq!(error, VerifyError::NoAuthority { spiffe_id: id(WEB) });
    assert_eq!(error.reason(), Reason::PeerNotTrusted);
}
