//! The rows of RFC 5280 that bind an issuer, one test or more per row; the name starts with the row.

#[path = "support/authority.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which needs a part of it")]
mod authority;
#[path = "support/rows.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which needs a part of it")]
mod rows;

use std::collections::HashSet;

use authority::*;
use rows::*;
use spindle_ca::{AuthorityError, CaSubject, SignError, SvidRequest, X509Ca};
use spindle_keys::KeyType;
use spindle_spiffe_core::Entropy;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
};

#[test]
fn rfc_01_inner_and_outer_signature_algorithm_are_equal() {
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let ca = authority(kind);
        let der = leaf(&ca, &[]);
        for der in [&der, ca.certificate()] {
            let certificate = parse(der);
            assert_eq!(certificate.signature_algorithm, certificate.tbs_certificate.signature);
        }
    }
}

#[test]
fn rfc_02_the_version_is_v3() {
    let ca = authority(KeyType::EcP256);
    let der = leaf(&ca, &[]);
    assert_eq!(parse(&der).version().0, 2);
    assert_eq!(parse(ca.certificate()).version().0, 2);
}

#[test]
fn rfc_03_a_serial_that_is_not_positive_is_refused() {
    let ca = authority(KeyType::EcP256);
    let key = key(KeyType::EcP256);
    let mut top_bit = [0; 16];
    top_bit[0] = 0x80;
    for serial in [[0; 16], top_bit, [0xff; 16]] {
        let refused = sign(&ca, &SvidRequest { serial, ..request(key.spki_der()) });
        assert_eq!(refused.unwrap_err(), SignError::Serial);
        let validity = span(NOW, NOW + 10);
        let refused =
            X509Ca::self_signed(&trust_domain(), key.clone(), &CaSubject::default(), validity, serial);
        assert_eq!(refused.unwrap_err(), AuthorityError::Serial);
    }
}

#[test]
fn rfc_03_serials_are_minimal_integers_of_at_most_16_octets() {
    let ca = authority(KeyType::EcP256);
    let key = key(KeyType::EcP256);
    let mut one = [0; 16];
    one[15] = 1;
    let mut leading_bit = [0; 16];
    leading_bit[5] = 0x80;
    let mut largest = [0xff; 16];
    largest[0] = 0x7f;
    for (serial, bytes) in [(one, 1), (leading_bit, 12), (largest, 16)] {
        let signed = sign(&ca, &SvidRequest { serial, ..request(key.spki_der()) }).unwrap();
        let certificate = parse(&signed.chain[0]);
        assert_eq!(certificate.raw_serial().len(), bytes);
        assert!(certificate.raw_serial()[0] < 0x80, "positive");
        assert_eq!(signed.serial.to_string(), u128::from_be_bytes(serial).to_string());
    }
}

/// The randomness of the cryptographic library, as the running server uses.
struct Random;

impl Entropy for Random {
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).expect("fixed by the test");
    }
}

#[test]
fn rfc_03_a_million_serials_are_unique() {
    let serials: HashSet<[u8; 16]> = (0..1_000_000).map(|_| Random.serial()).collect();
    assert_eq!(serials.len(), 1_000_000);
    assert!(serials.iter().all(|serial| serial[0] < 0x80));
}

#[test]
fn rfc_04_an_authority_without_a_name_is_refused_and_ours_has_one() {
    let nothing =
        CaSubject { country: String::new(), organization: String::new(), common_name: String::new() };
    let ca =
        X509Ca::self_signed(&trust_domain(), key(KeyType::EcP256), &nothing, span(NOW, NOW + 10), [1; 16]);
    assert!(parse(ca.unwrap().certificate()).subject().iter().next().is_some());
    assert!(take_up(|params| params.distinguished_name = rcgen::DistinguishedName::new()).is_err());
}

#[test]
fn rfc_05_dates_from_2050_are_generalized_times() {
    let ca = authority_until(KeyType::EcP256, 2_600_000_000);
    let certificate = parse(ca.certificate());
    assert!(certificate.validity().not_before.is_utctime());
    assert!(!certificate.validity().not_after.is_utctime());
    let last_of_2049 = 2_524_607_999;
    for (end, utc) in [(last_of_2049, true), (last_of_2049 + 1, false)] {
        let ca = authority_until(KeyType::EcP256, end);
        assert_eq!(parse(ca.certificate()).validity().not_after.is_utctime(), utc);
        assert_eq!(ca.validity().not_after, at(end));
    }
}

#[test]
fn rfc_05_dates_that_x509_cannot_write_are_refused() {
    for validity in [span(NOW, 253_402_300_800), span(i64::MIN, NOW), span(NOW, i64::MAX), span(NOW, NOW - 1)]
    {
        let refused = X509Ca::self_signed(
            &trust_domain(),
            key(KeyType::EcP256),
            &CaSubject::default(),
            validity,
            [1; 16],
        );
        assert_eq!(refused.unwrap_err(), AuthorityError::Validity(validity));
    }
    let ca = authority(KeyType::EcP256);
    let refused = sign(&ca, &SvidRequest { validity: span(i64::MIN, NOW), ..request(ca.key().spki_der()) });
    assert!(matches!(refused, Err(SignError::Validity(_))));
}

#[test]
fn rfc_06_the_issuer_is_the_authoritys_subject_byte_for_byte() {
    let subject =
        CaSubject { country: "DE".into(), organization: "Müller GmbH".into(), common_name: "CA_1".into() };
    let ca = X509Ca::self_signed(
        &trust_domain(),
        key(KeyType::EcP256),
        &subject,
        span(NOW, NOW + 86_400),
        [1; 16],
    )
    .unwrap();
    let der = leaf(&ca, &[]);
    assert_eq!(parse(&der).issuer().as_raw(), parse(ca.certificate()).subject().as_raw());
    assert_eq!(parse(&der).subject().to_string(), "C=US, O=SPIRE");
}

#[test]
fn rfc_06_an_authority_whose_name_cannot_be_written_again_is_refused() {
    // The encoder keeps one attribute of a type, so of two units one would be lost and no leaf would chain.
    let (certificate, key) = foreign_root(|params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, "one");
        params.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 11]), "two");
    });
    let refused = X509Ca::from_parts(&trust_domain(), certificate, key, Vec::new());
    assert!(matches!(refused, Err(AuthorityError::Failed(_))), "{refused:?}");
}

#[test]
fn rfc_07_a_leaf_names_its_authoritys_key_and_a_self_signed_authority_need_not() {
    let ca = authority(KeyType::EcP256);
    let der = leaf(&ca, &[]);
    let certificate = parse(&der);
    let identifier = extension(&certificate, &OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER).unwrap();
    assert!(!identifier.critical);
    let ParsedExtension::AuthorityKeyIdentifier(identifier) = identifier.parsed_extension() else { panic!() };
    assert_eq!(identifier.key_identifier.as_ref().unwrap().0, ca.key().subject_key_id());
    assert!(identifier.authority_cert_issuer.is_none() && identifier.authority_cert_serial.is_none());
    assert!(extension(&parse(ca.certificate()), &OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER).is_none());
}

#[test]
fn rfc_08_leaf_and_authority_name_their_own_keys() {
    let ca = authority(KeyType::EcP384);
    let leaf_key = key(KeyType::EcP256);
    let der = leaf_for(&ca, &leaf_key, &[]);
    for (der, key) in [(&der, &leaf_key), (ca.certificate(), ca.key())] {
        let certificate = parse(der);
        let identifier = extension(&certificate, &OID_X509_EXT_SUBJECT_KEY_IDENTIFIER).unwrap();
        assert!(!identifier.critical);
        let ParsedExtension::SubjectKeyIdentifier(identifier) = identifier.parsed_extension() else {
            panic!()
        };
        assert_eq!(identifier.0, key.subject_key_id());
    }
    let hex: String = ca.key().subject_key_id().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ca.authority_id(), hex);
}

#[test]
fn rfc_10_the_uri_name_is_plain_ascii_under_its_own_tag() {
    let ca = authority(KeyType::EcP256);
    let der = leaf(&ca, &[]);
    let certificate = parse(&der);
    let san = extension(&certificate, &OID_X509_EXT_SUBJECT_ALT_NAME).unwrap();
    let uri = b"spiffe://prod.example/web";
    assert_eq!(san.value[..4], [0x30, 27, 0x86, 25]);
    assert_eq!(&san.value[4..], uri);
}

#[test]
fn rfc_12_no_path_length_stands_on_a_leaf() {
    let ca = authority(KeyType::EcP256);
    let der = leaf(&ca, &[]);
    let certificate = parse(&der);
    assert_eq!(certificate.basic_constraints().unwrap().unwrap().value.path_len_constraint, None);
}

#[test]
fn rfc_13_neither_leaf_nor_authority_has_name_constraints() {
    let ca = authority(KeyType::EcP256);
    let der = leaf(&ca, &[]);
    for der in [&der, ca.certificate()] {
        assert!(extension(&parse(der), &OID_X509_EXT_NAME_CONSTRAINTS).is_none());
    }
}
