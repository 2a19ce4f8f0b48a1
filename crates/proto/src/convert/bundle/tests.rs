//! Bundles survive the wire; what cannot be used is refused by field.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData};

use super::*;

fn certificate(is_ca: bool) -> Vec<u8> {
    let mut params = CertificateParams::default();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn x509(der: &[u8], tainted: bool) -> types::X509Certificate {
    types::X509Certificate { asn1: der.to_vec().into(), tainted }
}

fn jwt(key_id: &str) -> types::JwtKey {
    let public_key = KeyPair::generate().unwrap().subject_public_key_info().into();
    types::JwtKey { public_key, key_id: key_id.into(), expires_at: 1_800_000_000, tainted: false }
}

fn wit(key_id: &str) -> types::WitKey {
    let types::JwtKey { public_key, key_id, expires_at, tainted } = jwt(key_id);
    types::WitKey { public_key, key_id, expires_at, tainted }
}

fn wire() -> types::Bundle {
    types::Bundle {
        trust_domain: "prod.example".into(),
        x509_authorities: vec![x509(&certificate(true), false), x509(&certificate(true), true)],
        jwt_authorities: vec![jwt("one"), types::JwtKey { expires_at: 0, tainted: true, ..jwt("two") }],
        refresh_hint: 300,
        sequence_number: u64::MAX,
        wit_authorities: vec![wit("three"), types::WitKey { expires_at: 0, tainted: true, ..wit("four") }],
    }
}

#[test]
fn a_bundle_survives_the_wire() {
    let wire = wire();
    let bundle = bundle_from_proto(&wire).unwrap();
    assert_eq!(bundle_to_proto(&bundle), wire);
    assert_eq!(
        bundle.x509_authorities.iter().map(X509Authority::is_tainted).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(bundle.jwt_authorities[1].expires_at(), None);
    assert_eq!(bundle.wit_authority("four").map(WitAuthority::is_tainted), Some(true));
}

#[test]
fn what_somebody_outside_gives_is_not_tainted() {
    let wire = wire();
    let bundle = given_bundle_from_proto(&wire).unwrap();
    let tokens = bundle.jwt_authorities.iter().chain(&bundle.wit_authorities);
    assert!(!tokens.clone().any(TokenAuthority::is_tainted) && tokens.count() == 4);
    assert!(!bundle.x509_authorities.iter().any(X509Authority::is_tainted));
    let types::Bundle { x509_authorities, jwt_authorities, wit_authorities, .. } = wire;
    let given = authorities_from_proto(&x509_authorities, &jwt_authorities, &wit_authorities).unwrap();
    assert_eq!((given.x509, given.jwt), (bundle.x509_authorities, bundle.jwt_authorities));
    assert_eq!(given.wit, bundle.wit_authorities);
}

#[test]
fn an_empty_bundle_is_a_bundle() {
    let wire = types::Bundle { trust_domain: "prod.example".into(), ..Default::default() };
    let bundle = bundle_from_proto(&wire).unwrap();
    assert_eq!(bundle, Bundle::new("prod.example".parse().unwrap()));
    assert_eq!(bundle_to_proto(&bundle), wire);
}

#[test]
fn certificates_may_come_back_to_back() {
    let joined = [certificate(true), certificate(true)].concat();
    let wire = types::Bundle { x509_authorities: vec![x509(&joined, false)], ..wire() };
    assert_eq!(bundle_from_proto(&wire).unwrap().x509_authorities.len(), 2);
}

#[test]
fn a_repeated_certificate_counts_once_and_keeps_its_taint() {
    let der = certificate(true);
    for taints in [[false, true], [true, false]] {
        let wire =
            types::Bundle { x509_authorities: taints.map(|tainted| x509(&der, tainted)).into(), ..wire() };
        let bundle = bundle_from_proto(&wire).unwrap();
        assert_eq!(bundle.x509_authorities.len(), 1);
        assert!(bundle.x509_authorities[0].is_tainted(), "{taints:?}");
    }
}

fn check(field: Field, spoil: impl FnOnce(&mut types::Bundle)) {
    let mut wire = wire();
    spoil(&mut wire);
    assert_eq!(bundle_from_proto(&wire).unwrap_err().field, field);
}

#[test]
fn a_bad_trust_domain_is_refused() {
    for bad in ["", "Prod", "a b", "spiffe://", "prod.example/x"] {
        check(Field::TrustDomain, |bundle| bundle.trust_domain = bad.into());
    }
}

#[test]
fn bad_x509_authorities_are_refused() {
    let good = certificate(true);
    for bad in [
        vec![],
        b"junk".to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], b"x"].concat(),
        certificate(false),
    ] {
        check(Field::X509Authorities, |bundle| bundle.x509_authorities.push(x509(&bad, false)));
    }
    check(Field::X509Authorities, |bundle| bundle.x509_authorities = vec![x509(&good, false); KEYS_MAX + 1]);
}

#[test]
fn bad_jwt_authorities_are_refused() {
    check(Field::JwtAuthorities, |bundle| bundle.jwt_authorities[0].key_id.clear());
    check(Field::JwtAuthorities, |bundle| bundle.jwt_authorities[0].public_key.clear());
    check(Field::JwtAuthorities, |bundle| bundle.jwt_authorities[0].public_key = b"junk".as_slice().into());
    check(Field::JwtAuthorities, |bundle| bundle.jwt_authorities[0].expires_at = -1);
    check(Field::JwtAuthorities, |bundle| bundle.jwt_authorities = vec![jwt("one"); KEYS_MAX + 1]);
}

#[test]
fn bad_wit_authorities_are_refused() {
    check(Field::WitAuthorities, |bundle| bundle.wit_authorities[0].key_id.clear());
    check(Field::WitAuthorities, |bundle| bundle.wit_authorities[0].public_key = b"junk".as_slice().into());
    check(Field::WitAuthorities, |bundle| bundle.wit_authorities[0].expires_at = -1);
    check(Field::WitAuthorities, |bundle| bundle.wit_authorities = vec![wit("one"); KEYS_MAX + 1]);
}

#[test]
fn rules_over_all_keys_are_kept() {
    check(Field::Whole, |bundle| bundle.jwt_authorities.push(jwt("one")));
    check(Field::Whole, |bundle| bundle.wit_authorities.push(wit("one")));
    check(Field::RefreshHint, |bundle| bundle.refresh_hint = -1);
}
