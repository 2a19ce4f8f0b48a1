//! Certificate requests as other software makes them, and as an attacker would.

use std::path::Path;

use proptest::prelude::*;
use spindle_ca::csr::CSR_BYTES_MAX;
use spindle_ca::public_key::{KeyKind, SubjectKey};
use spindle_ca::{CheckedCsr, CsrError, PublicKeyError, SubjectError, SvidSubject};
use spindle_keys::{Key, KeyType, certificate_request};
use spindle_spiffe_core::Reason;

fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn good() -> Vec<u8> {
    vector("p256-sha256.der")
}

fn accepted(name: &str, kind: KeyKind) {
    let csr = CheckedCsr::parse(&vector(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(SubjectKey::parse(csr.spki_der()).expect("it passed").kind(), kind, "{name}");
    assert_eq!(csr.uri_sans(), ["spiffe://prod.example/web"], "{name}");
}

fn refused(name: &str, expected: CsrError) {
    assert_eq!(CheckedCsr::parse(&vector(name)), Err(expected), "{name}");
}

#[test]
fn requests_of_every_certified_key_and_sha2_digest_are_accepted() {
    for name in ["p256-sha256.der", "p256-sha384.der"] {
        accepted(name, KeyKind::EcP256);
    }
    for name in ["p384-sha256.der", "p384-sha384.der", "p384-sha512.der"] {
        accepted(name, KeyKind::EcP384);
    }
    for name in ["p521-sha256.der", "p521-sha512.der"] {
        accepted(name, KeyKind::EcP521);
    }
    for name in ["rsa2048-sha256.der", "rsa2048-sha512.der", "rsa2048-pss-sha384.der", "rsa4096-sha256.der"] {
        accepted(name, KeyKind::Rsa);
    }
    accepted("ed25519.der", KeyKind::Ed25519);
}

#[test]
fn keys_that_are_not_certified_are_refused() {
    refused("rsa1024-sha256.der", CsrError::Key(PublicKeyError::RsaBits(1024)));
    refused("rsa2047-sha256.der", CsrError::Key(PublicKeyError::RsaBits(2047)));
    refused("rsa4104-sha256.der", CsrError::Key(PublicKeyError::RsaBits(4104)));
    for name in ["rsapss-key.der", "secp256k1.der", "ed448.der", "p256-explicit.der", "p256-compressed.der"] {
        refused(name, CsrError::Key(PublicKeyError::Unsupported));
    }
    assert_eq!(CheckedCsr::parse(&vector("rsa1024-sha256.der")).unwrap_err().reason(), Reason::BadKey);
}

#[test]
fn a_request_signed_with_sha1_is_refused() {
    refused("p256-sha1.der", CsrError::SignatureAlgorithm);
    refused("rsa2048-sha1.der", CsrError::SignatureAlgorithm);
}

#[test]
fn a_pss_signature_whose_salt_is_not_as_long_as_its_hash_is_refused() {
    refused("rsa2048-pss-long-salt.der", CsrError::Signature);
}

#[test]
fn a_request_with_extensions_nobody_knows_is_accepted_and_its_names_are_told() {
    let csr = CheckedCsr::parse(&vector("p256-many-extensions.der")).unwrap();
    assert_eq!(csr.uri_sans(), ["spiffe://prod.example/web", "spiffe://prod.example/two"]);
    assert_eq!(csr.dns_sans(), ["web.example", "*.web.example"]);
}

#[test]
fn a_request_without_extensions_has_no_names() {
    let csr =
        CheckedCsr::parse(&certificate_request(&Key::generate(KeyType::EcP256).unwrap(), None, &[]).unwrap());
    let csr = csr.unwrap();
    assert!(csr.uri_sans().is_empty() && csr.dns_sans().is_empty());
    assert_eq!(SvidSubject::from_csr(&csr), Ok(SvidSubject::default()));
}

#[test]
fn a_subject_is_told_and_one_with_a_repeated_type_is_refused_only_where_it_is_asked_for() {
    let csr = CheckedCsr::parse(&vector("p256-subject.der")).unwrap();
    assert_ne!(SvidSubject::from_csr(&csr), Ok(SvidSubject::default()));
    let csr = CheckedCsr::parse(&vector("p256-subject-twice.der")).unwrap();
    let error = SvidSubject::from_csr(&csr).unwrap_err();
    assert_eq!(error, CsrError::Subject(SubjectError::Repeated("the organizational unit")));
    assert_eq!(error.reason(), Reason::BadCsr);
}

#[test]
fn bytes_that_are_no_request_are_refused() {
    let certificate_like = b"\x30\x03\x02\x01\x00";
    for bytes in [&b""[..], b"\0", b"\x30\x00", b"garbage", certificate_like, &[0xff; 300]] {
        assert!(matches!(CheckedCsr::parse(bytes), Err(CsrError::Malformed(_))), "{bytes:?}");
    }
    let pem = b"-----BEGIN CERTIFICATE REQUEST-----\n";
    assert_eq!(CheckedCsr::parse(pem).unwrap_err().reason(), Reason::BadCsr);
}

#[test]
fn trailing_bytes_are_refused_outside_and_inside_the_outer_sequence() {
    let outside = [&good()[..], b"\0"].concat();
    assert_eq!(CheckedCsr::parse(&outside), Err(CsrError::Malformed("there are bytes after it")));
    let mut inside = good();
    let length = u8::try_from(inside.len() - 3 + 2).unwrap();
    assert_eq!(inside[..2], [0x30, 0x81], "the vector has a length of one byte");
    inside[2] = length;
    inside.extend_from_slice(b"\x05\x00");
    assert_eq!(CheckedCsr::parse(&inside), Err(CsrError::Malformed("there are bytes after it")));
}

#[test]
fn every_cut_of_a_request_is_refused() {
    let good = good();
    for end in 0..good.len() {
        assert!(CheckedCsr::parse(&good[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    // The signature of one request under the content of another: both are P-256 with SHA-256.
    let (mine, other) = (good(), vector("p256-subject.der"));
    let info_end = |der: &[u8]| 3 + 3 + usize::from(der[5]);
    let mixed = [&mine[3..info_end(&mine)], &other[info_end(&other)..]].concat();
    let der = [&[0x30, 0x81, u8::try_from(mixed.len()).unwrap()], &mixed[..]].concat();
    assert_eq!(CheckedCsr::parse(&der), Err(CsrError::Signature));
}

#[test]
fn a_request_larger_than_the_bound_is_refused_before_it_is_read() {
    let large = vec![0x30; CSR_BYTES_MAX + 1];
    assert_eq!(CheckedCsr::parse(&large), Err(CsrError::TooLarge(CSR_BYTES_MAX + 1)));
}

proptest! {
    /// Every bit counts: it is in the signed part, in the signature, or in the encoding around them.
    #[test]
    fn no_request_with_a_flipped_bit_gets_another_key_or_name(at in 0usize..245, bit in 0u8..8) {
        let mut der = good();
        let at = at % der.len();
        der[at] ^= 1 << bit;
        if let Ok(csr) = CheckedCsr::parse(&der) {
            let mine = CheckedCsr::parse(&good()).unwrap();
            prop_assert_eq!(csr, mine);
        }
    }
}

#[test]
fn no_bytes_make_the_parser_panic() {
    bolero::check!().with_iterations(5000).with_type::<Vec<u8>>().for_each(|bytes| {
        let _ = CheckedCsr::parse(bytes);
    });
}

#[test]
fn no_damage_to_a_good_request_makes_the_parser_panic() {
    let seeds = ["p256-many-extensions.der", "rsa2048-pss-sha384.der", "p256-subject.der", "p521-sha512.der"];
    let seeds: Vec<Vec<u8>> = seeds.into_iter().map(vector).collect();
    bolero::check!().with_iterations(5000).with_type::<(u8, Vec<(u16, u8)>, u16)>().for_each(
        |(seed, changes, cut)| {
            let mut der = seeds[usize::from(*seed) % seeds.len()].clone();
            for (at, byte) in changes {
                let at = usize::from(*at) % der.len();
                der[at] = *byte;
            }
            if *cut % 4 == 0 {
                der.truncate(usize::from(*cut) % der.len());
            }
            let _ = CheckedCsr::parse(&der);
        },
    );
}
