//! The rows of the RFCs below the SPIFFE standards that bind a validator and that this crate can show.

#[path = "support/authority.rs"]
mod authority;

use authority::{Authority, NOW, ca_params, extension, set_validity};
use rcgen::{CertificateParams, CustomExtension, NameConstraints};
use spindle_spiffe_core::public_key::{JwkMembers, PublicKey, PublicKeyError, PublicKeyKind};
use spindle_spiffe_core::{VerifyError, X509Svid, verify_x509_svid};

/// Verifies a leaf of that name below an intermediate with that change.
fn verdict_below(leaf: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<X509Svid, VerifyError> {
    let root = Authority::root("td");
    let mut params = ca_params("td", "intermediate");
    change(&mut params);
    let intermediate = root.intermediate(params);
    let name = leaf.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next()).unwrap_or("td");
    let chain = [intermediate.leaf(leaf), intermediate.certificate.clone()];
    verify_x509_svid(&chain, &root.bundles(name), NOW)
}

/// Name constraints with one permitted (tag a0) or excluded (tag a1) URI subtree.
fn uri_constraint(tag: u8, host: &str) -> CustomExtension {
    let host = host.as_bytes();
    let len = u8::try_from(host.len()).expect("short names only");
    let head = [0x30, len + 6, tag, len + 4, 0x30, len + 2, 0x86, len];
    extension(30, true, &[&head, host].concat())
}

#[test]
fn rfc_14_chains_below_uri_constraints_are_refused_whether_or_not_the_host_fits() {
    let pairs = [
        ("td", "spiffe://td/a"),
        ("td", "spiffe://x.td/a"),
        (".td", "spiffe://x.td/a"),
        (".td", "spiffe://td/a"),
        ("other", "spiffe://td/a"),
        ("", "spiffe://td/a"),
    ];
    for (host, name) in pairs {
        for tag in [0xa0, 0xa1] {
            let error =
                verdict_below(name, |params| params.custom_extensions = vec![uri_constraint(tag, host)])
                    .unwrap_err();
            assert!(
                matches!(error, VerifyError::Path { source: webpki::Error::NameConstraintViolation, .. }),
                "{tag:x} {host} {name}: {error}"
            );
        }
    }
}

#[test]
fn rfc_14_constraints_on_names_the_leaf_does_not_have_do_no_harm() {
    let dns = rcgen::GeneralSubtree::DnsName("example.org".into());
    let constraints = NameConstraints { permitted_subtrees: vec![dns], excluded_subtrees: vec![] };
    verdict_below("spiffe://td/a", |params| params.name_constraints = Some(constraints)).unwrap();
}

#[test]
fn rfc_15_a_host_that_is_an_address_is_refused_below_uri_constraints() {
    let constraint = uri_constraint(0xa0, "10.0.0.1");
    verdict_below("spiffe://10.0.0.1/a", |params| params.custom_extensions = vec![constraint]).unwrap_err();
    verdict_below("spiffe://10.0.0.1/a", |_| {}).unwrap();
}

#[test]
fn rfc_16_an_unknown_critical_extension_is_refused_and_an_uncritical_one_is_ignored() {
    let private = |critical| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(critical);
        extension
    };
    let root = Authority::root("td");
    let verdict = |critical| {
        let leaf =
            root.leaf_with("spiffe://td/a", |params| params.custom_extensions = vec![private(critical)]);
        verify_x509_svid(&[leaf], &root.bundles("td"), NOW)
    };
    verdict(false).unwrap();
    let error = verdict(true).unwrap_err();
    assert!(
        matches!(error, VerifyError::Path { source: webpki::Error::UnsupportedCriticalExtension, .. }),
        "{error}"
    );
    verdict_below("spiffe://td/a", |params| params.custom_extensions = vec![private(true)]).unwrap_err();
}

#[test]
fn rfc_17_every_certificate_of_the_path_is_judged_by_its_dates() {
    verdict_below("spiffe://td/a", |params| set_validity(params, NOW, NOW)).unwrap();
    verdict_below("spiffe://td/a", |params| set_validity(params, NOW - 9, NOW - 1)).unwrap_err();
    verdict_below("spiffe://td/a", |params| set_validity(params, NOW + 1, NOW + 9)).unwrap_err();
}

#[test]
fn rfc_17_names_must_chain() {
    let root = Authority::root("td");
    let (one, two) = (root.intermediate(ca_params("td", "one")), root.intermediate(ca_params("td", "two")));
    let chain = [one.leaf("spiffe://td/a"), two.certificate];
    let error = verify_x509_svid(&chain, &root.bundles("td"), NOW).unwrap_err();
    assert!(matches!(error, VerifyError::Path { source: webpki::Error::UnknownIssuer, .. }), "{error}");
}

/// RSA numbers of that many bits, both odd; not a product of primes, which no reader could tell.
fn rsa_jwk(bits: usize, exponent: &[u8]) -> JwkMembers {
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    modulus[0] >>= modulus.len() * 8 - bits;
    JwkMembers {
        kty: Some("RSA".into()),
        n: Some(text(&modulus)),
        e: Some(text(exponent)),
        ..JwkMembers::default()
    }
}

fn text(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn rfc_18_rsa_keys_have_2048_to_8192_bits() {
    for bits in [512, 1024, 2047, 8193, 16384] {
        assert_eq!(PublicKey::from_jwk(&rsa_jwk(bits, &[1, 0, 1])), Err(PublicKeyError::RsaBits(bits)));
    }
    for bits in [2048, 3072, 4096, 8192] {
        let key = PublicKey::from_jwk(&rsa_jwk(bits, &[1, 0, 1])).unwrap();
        assert_eq!(key.kind(), PublicKeyKind::Rsa(bits));
    }
}

#[test]
fn rfc_18_rsa_exponents_that_are_even_one_or_huge_are_refused() {
    for exponent in [&[][..], &[0], &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 0, 1]] {
        assert_eq!(PublicKey::from_jwk(&rsa_jwk(2048, exponent)), Err(PublicKeyError::Value), "{exponent:?}");
    }
}

#[test]
fn rfc_20_padding_whitespace_and_the_other_alphabet_are_refused() {
    let good = rsa_jwk(2048, &[1, 0, 1]);
    for e in ["AQAB=", "AQ AB", "AQAB\n", "+/AB", "AQB"] {
        let jwk = JwkMembers { e: Some(e.into()), ..good.clone() };
        assert_eq!(PublicKey::from_jwk(&jwk), Err(PublicKeyError::BadMember("e")), "{e:?}");
    }
}

#[test]
fn rfc_27_coordinates_keep_their_full_length_and_rsa_numbers_lose_leading_zeros() {
    // Keys are made until one has a coordinate that starts with a zero: one in 128 does.
    let key = (0..20_000)
        .map(|_| rcgen::PublicKeyData::subject_public_key_info(&rcgen::KeyPair::generate().unwrap()))
        .map(|spki| PublicKey::from_spki_der(&spki).unwrap())
        .find(|key| key.to_jwk().x.is_some_and(|x| x.starts_with("AA") || x.starts_with("AB")))
        .expect("one of so many keys starts with a zero byte");
    let jwk = key.to_jwk();
    assert_eq!(jwk.x.as_ref().unwrap().len(), 43);
    assert_eq!(PublicKey::from_jwk(&jwk).unwrap(), key);
    let plain = rsa_jwk(2048, &[1, 0, 1]);
    let padded = JwkMembers { e: Some(text(&[0, 1, 0, 1])), ..plain.clone() };
    assert_eq!(PublicKey::from_jwk(&padded).unwrap().to_jwk(), plain);
}
