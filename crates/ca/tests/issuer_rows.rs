//! The rows of SPIFFE-ID and X509-SVID that bind an issuer, one test or more per row; the name starts with the row. All
//! look at the DER that leaves, through another parser than the one that wrote it. RFC 5280 is in `rfc_rows.rs`.

#[path = "support/authority.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which needs a part of it")]
mod authority;
#[path = "support/rows.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which needs a part of it")]
mod rows;

use authority::*;
use rcgen::{CertificateParams, IsCa, KeyUsagePurpose, SanType, SigningKey};
use rows::*;
use spindle_ca::{AuthorityError, CheckedCsr, SignError, SvidRequest, SvidSubject, X509Ca};
use spindle_keys::KeyType;
use spindle_spiffe_core::{DnsName, Reason, SpiffeId, verify_x509_svid};
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME,
};

#[test]
fn xid_17_an_id_of_2048_bytes_is_issued_and_read_back() {
    let ca = authority(KeyType::EcP256);
    let key = key(KeyType::EcP256);
    let long = format!("spiffe://prod.example/{}", "a".repeat(2048 - 22));
    assert_eq!(long.len(), 2048);
    let signed = sign(&ca, &SvidRequest { spiffe_id: id(&long), ..request(key.spki_der()) }).unwrap();
    let svid = verify_x509_svid(&signed.chain, &bundles(ca.certificate()), at(NOW)).unwrap();
    assert_eq!(svid.spiffe_id().as_str(), long);
}

#[test]
fn xid_18_an_id_of_2049_bytes_cannot_even_be_asked_for() {
    let path = format!("/{}", "a".repeat(2049 - 22));
    assert!(trust_domain().member(&path).is_err());
    assert!(format!("spiffe://prod.example{path}").parse::<SpiffeId>().is_err());
}

#[test]
fn xid_23_24_25_the_authority_is_named_by_its_trust_domain_without_a_path() {
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let ca = authority(kind);
        assert_eq!(uris(&parse(ca.certificate())), ["spiffe://prod.example"]);
    }
}

#[test]
fn xid_26_an_authority_without_an_upstream_is_self_signed() {
    let ca = authority(KeyType::EcP256);
    let certificate = parse(ca.certificate());
    assert_eq!(certificate.issuer().as_raw(), certificate.subject().as_raw());
    certificate.verify_signature(None).unwrap();
    assert_eq!(sign(&ca, &request(ca.key().spki_der())).unwrap().chain.len(), 1);
}

#[test]
fn xid_26_what_leads_to_an_upstream_root_is_served_after_the_leaf() {
    let (root, ca) = chained_authority(Some("spiffe://prod.example"));
    let ca = ca.unwrap();
    let key = key(KeyType::EcP256);
    let signed = sign(&ca, &request(key.spki_der())).unwrap();
    assert_eq!(signed.chain[1..], [ca.certificate().clone()]);
    verify_x509_svid(&signed.chain, &bundles(&root), at(NOW)).unwrap();
    assert!(verify_x509_svid(&signed.chain[..1], &bundles(&root), at(NOW)).is_err());
}

#[test]
fn xid_27_a_changed_bit_in_name_or_key_breaks_the_signature() {
    let ca = authority(KeyType::EcP256);
    let der = leaf(&ca, &[]);
    let find = |needle: &[u8]| der.windows(needle.len()).position(|window| window == needle).unwrap();
    let spki = parse(&der).public_key().raw.to_vec();
    for at in [find(b"spiffe://prod.example/web") + 24, find(&spki) + 40] {
        let mut changed = der.to_vec();
        changed[at] ^= 1;
        assert!(parse(&changed).verify_signature(Some(parse(ca.certificate()).public_key())).is_err());
    }
    parse(&der).verify_signature(Some(parse(ca.certificate()).public_key())).unwrap();
}

#[test]
fn xid_31_nothing_but_the_key_is_copied_from_a_request() {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/p256-many-extensions.der");
    let csr = CheckedCsr::parse(&std::fs::read(path).unwrap()).unwrap();
    let ca = authority(KeyType::EcP256);
    let signed = sign(&ca, &request(csr.spki_der())).unwrap();
    let certificate = parse(&signed.chain[0]);
    assert_eq!(uris(&certificate), ["spiffe://prod.example/web"]);
    assert!(dns_names(&certificate).is_empty());
    assert!(!certificate.is_ca());
    assert_eq!(key_usage(&certificate), DIGITAL_SIGNATURE);
    assert_eq!(certificate.subject().to_string(), "C=US, O=SPIRE");
    assert_eq!(certificate.extensions().len(), 6, "two key identifiers, SAN, two usages, constraints");
}

#[test]
fn xid_32_members_of_other_trust_domains_are_refused() {
    let ca = authority(KeyType::EcP256);
    let key = key(KeyType::EcP256);
    for foreign in
        ["spiffe://other/x", "spiffe://prod.example.org/x", "spiffe://sub.prod.example/x", "spiffe://prod/x"]
    {
        let error =
            sign(&ca, &SvidRequest { spiffe_id: id(foreign), ..request(key.spki_der()) }).unwrap_err();
        assert!(matches!(error, SignError::ForeignId { .. }), "{foreign}: {error}");
        assert_eq!(error.reason(), Reason::WrongTrustDomain);
    }
}

#[test]
fn x509_01_a_leaf_has_one_uri_name_whatever_else_is_asked_for() {
    let ca = authority(KeyType::EcP256);
    for count in [0, 1, 200] {
        let names: Vec<DnsName> = (0..count).map(|n| format!("web-{n}.example").parse().unwrap()).collect();
        let der = leaf(&ca, &names);
        assert_eq!(uris(&parse(&der)), ["spiffe://prod.example/web"]);
    }
}

#[test]
fn x509_05_dns_names_stand_beside_the_uri_name() {
    let ca = authority(KeyType::EcP256);
    let names = ["web.example".parse().unwrap(), "*.web.example".parse().unwrap()];
    let der = leaf(&ca, &names);
    let certificate = parse(&der);
    assert_eq!(dns_names(&certificate), ["web.example", "*.web.example"]);
    assert_eq!(uris(&certificate).len(), 1);
    assert_eq!(certificate.subject().to_string(), "C=US, O=SPIRE, CN=web.example");
    verify_x509_svid(&[der], &bundles(ca.certificate()), at(NOW)).unwrap();
}

#[test]
fn x509_07_a_leaf_without_a_path_is_refused() {
    let ca = authority(KeyType::EcP256);
    let key = key(KeyType::EcP256);
    let bare = SvidRequest { spiffe_id: id("spiffe://prod.example"), ..request(key.spki_der()) };
    assert!(matches!(sign(&ca, &bare), Err(SignError::IdWithoutPath(_))));
}

#[test]
fn x509_08_without_a_subject_the_alternative_name_is_critical() {
    let ca = authority(KeyType::EcP256);
    let key = key(KeyType::EcP256);
    for (subject, critical) in [(SvidSubject::empty(), true), (SvidSubject::default(), false)] {
        let signed = sign(&ca, &SvidRequest { subject, ..request(key.spki_der()) }).unwrap();
        let certificate = parse(&signed.chain[0]);
        assert_eq!(extension(&certificate, &OID_X509_EXT_SUBJECT_ALT_NAME).unwrap().critical, critical);
        verify_x509_svid(&signed.chain, &bundles(ca.certificate()), at(NOW)).unwrap();
    }
}

#[test]
fn x509_10_the_authority_has_exactly_one_uri_name() {
    let ca = authority(KeyType::EcP256);
    assert_eq!(uris(&parse(ca.certificate())).len(), 1);
}

#[test]
fn x509_11_an_authority_with_a_path_or_a_second_name_is_refused() {
    for uri in [
        "spiffe://prod.example/ca",
        "spiffe://prod.example/",
        "spiffe://PROD.example",
        "https://prod.example",
    ] {
        assert!(matches!(take_up(with_uri(uri)), Err(AuthorityError::Profile(_))), "{uri}");
        assert!(chained_authority(Some(uri)).1.is_err(), "{uri}");
    }
    let two = |params: &mut CertificateParams| {
        let name = SanType::URI("spiffe://prod.example".try_into().unwrap());
        params.subject_alt_names = vec![name.clone(), name];
    };
    assert!(take_up(two).is_err());
    assert!(take_up(with_uri("spiffe://prod.example")).is_ok());
    assert!(chained_authority(None).1.is_ok(), "a name is no duty");
}

#[test]
fn x509_12_an_authority_of_another_trust_domain_is_refused() {
    assert!(matches!(take_up(with_uri("spiffe://other.example")), Err(AuthorityError::Profile(_))));
}

#[test]
fn x509_16_rfc_11_the_authority_has_critical_constraints_with_ca_true() {
    let ca = authority(KeyType::EcP256);
    let certificate = parse(ca.certificate());
    let constraints = extension(&certificate, &OID_X509_EXT_BASIC_CONSTRAINTS).unwrap();
    assert!(constraints.critical && certificate.is_ca());
    assert_eq!(constraints.value, b"\x30\x03\x01\x01\xff", "cA TRUE and no path length");
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        assert!(take_up(|params| params.is_ca = is_ca).is_err());
    }
}

#[test]
fn x509_17_a_leaf_has_constraints_with_ca_false() {
    let ca = authority(KeyType::EcP256);
    let der = leaf(&ca, &[]);
    let certificate = parse(&der);
    let constraints = extension(&certificate, &OID_X509_EXT_BASIC_CONSTRAINTS).unwrap();
    assert!(constraints.critical);
    assert_eq!(constraints.value, b"\x30\x00", "an empty sequence, as FALSE is the default");
}

#[test]
fn x509_19_20_key_usage_is_there_and_critical_on_leaf_and_authority() {
    let ca = authority(KeyType::EcP256);
    let der = leaf(&ca, &[]);
    for der in [&der, ca.certificate()] {
        assert!(extension(&parse(der), &OID_X509_EXT_KEY_USAGE).unwrap().critical);
    }
    assert!(take_up(|params| params.key_usages.clear()).is_err());
}

#[test]
fn x509_21_22_26_rfc_09_the_authority_signs_certificates_and_crls_and_nothing_else() {
    for kind in [KeyType::EcP256, KeyType::Rsa2048] {
        let ca = authority(kind);
        assert_eq!(key_usage(&parse(ca.certificate())), CERT_SIGN_AND_CRL_SIGN);
    }
    assert!(take_up(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]).is_err());
    assert!(take_up(|params| params.key_usages.push(KeyUsagePurpose::KeyEncipherment)).is_err());
    assert!(take_up(|params| params.key_usages.push(KeyUsagePurpose::CrlSign)).is_ok());
}

#[test]
fn x509_23_24_25_a_leaf_signs_and_never_certifies() {
    let ca = authority(KeyType::EcP256);
    for (kind, expected) in [
        (KeyType::EcP256, DIGITAL_SIGNATURE),
        (KeyType::EcP384, DIGITAL_SIGNATURE),
        (KeyType::Rsa2048, DIGITAL_SIGNATURE | KEY_ENCIPHERMENT),
    ] {
        let der = leaf_for(&ca, &key(kind), &[]);
        assert_eq!(key_usage(&parse(&der)), expected, "{kind}");
    }
}

#[test]
fn x509_27_28_29_a_leaf_is_for_servers_and_clients() {
    let ca = authority(KeyType::EcP256);
    let der = leaf(&ca, &[]);
    let certificate = parse(&der);
    let extension = extension(&certificate, &OID_X509_EXT_EXTENDED_KEY_USAGE).unwrap();
    assert!(!extension.critical);
    let ParsedExtension::ExtendedKeyUsage(usage) = extension.parsed_extension() else {
        panic!("{extension:?}")
    };
    assert!(usage.server_auth && usage.client_auth && !usage.any && !usage.code_signing);
    assert!(usage.other.is_empty());
}

#[test]
fn x509_30_the_authority_has_no_extended_key_usage_and_one_that_has_is_taken_up() {
    let ca = authority(KeyType::EcP256);
    assert!(extension(&parse(ca.certificate()), &OID_X509_EXT_EXTENDED_KEY_USAGE).is_none());
    let limited = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    };
    assert!(take_up(limited).is_ok());
}

#[test]
fn every_kind_of_leaf_chains_to_every_kind_of_authority_in_webpki() {
    for ca_kind in KeyType::ALL {
        let ca = authority(ca_kind);
        for leaf_kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
            let der = leaf_for(&ca, &key(leaf_kind), &[]);
            let verified = verify_x509_svid(&[der], &bundles(ca.certificate()), at(NOW));
            assert!(verified.is_ok(), "{leaf_kind} signed by {ca_kind}: {verified:?}");
        }
    }
}

#[test]
fn an_authority_taken_up_again_signs_as_before() {
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let ca = authority(kind);
        let again =
            X509Ca::from_parts(&trust_domain(), ca.certificate().clone(), ca.key().clone(), Vec::new())
                .unwrap();
        assert_eq!((again.authority_id(), again.validity()), (ca.authority_id(), ca.validity()));
        verify_x509_svid(&[leaf(&again, &[])], &bundles(ca.certificate()), at(NOW)).unwrap();
    }
}

#[test]
fn an_authority_with_another_key_is_refused() {
    let ca = authority(KeyType::EcP256);
    for kind in [KeyType::EcP256, KeyType::EcP384] {
        let refused = X509Ca::from_parts(&trust_domain(), ca.certificate().clone(), key(kind), Vec::new());
        assert_eq!(refused.unwrap_err(), AuthorityError::OtherKey(ca.authority_id().into()));
    }
}

#[test]
fn a_chain_without_end_is_refused() {
    let ca = authority(KeyType::EcP256);
    let chain = vec![ca.certificate().clone(); 7];
    let refused = X509Ca::from_parts(&trust_domain(), ca.certificate().clone(), ca.key().clone(), chain);
    assert_eq!(refused.unwrap_err(), AuthorityError::ChainLength(7));
}

#[test]
fn an_svid_that_would_begin_after_its_authority_is_refused() {
    let ca = authority(KeyType::EcP256);
    let late = SvidRequest { validity: span(NOW + 86_401, NOW + 90_000), ..request(ca.key().spki_der()) };
    let error = sign(&ca, &late).unwrap_err();
    assert!(matches!(error, SignError::AuthorityOver { .. }), "{error}");
    assert_eq!(error.reason(), Reason::ServerStarting);
}

#[test]
fn a_key_that_is_not_certified_is_refused_at_signing_too() {
    let ca = authority(KeyType::EcP256);
    for spki in [&b""[..], b"\x30\x00", &ca.key().spki_der()[..40]] {
        let error = sign(&ca, &request(spki)).unwrap_err();
        assert_eq!(error.reason(), Reason::BadKey, "{error}");
    }
}

#[test]
fn an_authority_prints_its_name_and_no_key() {
    let ca = authority(KeyType::EcP256);
    assert_eq!(format!("{ca:?}"), format!("X509Ca({} of prod.example)", ca.authority_id()));
    assert!(ca.key().sign(b"message").is_ok());
}

#[test]
fn a_certificate_that_nobody_takes_is_not_signed() {
    let ca = authority(KeyType::EcP256);
    let key = key(KeyType::EcP256);
    let label = "a".repeat(61);
    let names: Vec<DnsName> =
        (0..256).map(|n| format!("x{n:03}.{label}.{label}.{label}.{label}").parse().unwrap()).collect();
    let request = SvidRequest { dns_names: &names, ..request(key.spki_der()) };
    let error = sign(&ca, &request).unwrap_err();
    assert!(matches!(error, SignError::TooLarge { bytes, .. } if bytes > 64 * 1024), "{error}");
    let fewer = SvidRequest { dns_names: &names[..200], ..request };
    assert!(sign(&ca, &fewer).is_ok());
}
