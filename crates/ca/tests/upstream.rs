//! Authorities that somebody else signs, and those signed for servers below: what is taken, what is refused, and that
//! every chain holds for webpki and OpenSSL.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/authority.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which needs a part of it")]
mod authority;
#[path = "../../testkit/src/left_out.rs"]
pub mod left_out;
#[path = "support/upstream.rs"]
mod upstream;

use std::path::{Path, PathBuf};
use std::process::Command;

use authority::*;
use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose, SignatureAlgorithm};
use rustls_pki_types::CertificateDer;
use spindle_ca::{
    CaSubject, CheckedCsr, JournalEntry, SignError, Slot, UpstreamCa, UpstreamCaError, UpstreamSignError,
    X509Ca, authority_request,
};
use spindle_keys::{Key, KeyType, certificate_request};
use spindle_spiffe_core::pem::certificates_to_pem;
use spindle_spiffe_core::{X509Authority, X509Bundle, verify_x509_svid};
use upstream::{Shape, Signing};

const KINDS: [&SignatureAlgorithm; 5] = [
    &rcgen::PKCS_ECDSA_P256_SHA256,
    &rcgen::PKCS_ECDSA_P384_SHA384,
    &rcgen::PKCS_ECDSA_P521_SHA512,
    &rcgen::PKCS_ED25519,
    &rcgen::PKCS_RSA_SHA256,
];
const P256: &SignatureAlgorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
const P384: &SignatureAlgorithm = &rcgen::PKCS_ECDSA_P384_SHA384;

/// Takes up `signing` with what leads from it to `roots`; none means that it is the root itself.
fn take_up(
    signing: &Signing,
    above: &[&Signing],
    roots: Option<&[&Signing]>,
) -> Result<UpstreamCa, UpstreamCaError> {
    let der = |signing: &&Signing| signing.certificate.clone();
    let certificates =
        [&signing].into_iter().copied().chain(above.iter().copied()).map(|one| der(&one)).collect();
    let roots = roots.map(|roots| roots.iter().map(der).collect());
    UpstreamCa::new(&trust_domain(), &signing.key(), certificates, roots, at(NOW))
}

/// An authority of ours for a day, signed by `upstream`.
fn minted(upstream: &UpstreamCa, kind: KeyType) -> X509Ca {
    let key = key(kind);
    let csr = authority_request(&trust_domain(), &key, &CaSubject::default(), [3; 16]).unwrap();
    let chain = upstream.sign(&csr, span(NOW - 10, NOW + 86_400), [5; 16]).unwrap();
    X509Ca::from_parts(&trust_domain(), chain[0].clone(), key, chain).unwrap()
}

fn bundle(roots: &[X509Authority]) -> X509Bundle {
    X509Bundle::new(trust_domain(), roots.to_vec()).unwrap()
}

/// Whether a leaf of `ca` leads to one of these roots; its own trial says the same.
fn is_trusted(ca: &X509Ca, roots: &[X509Authority]) -> bool {
    let leaf_key = key(KeyType::EcP256);
    let svid = sign(ca, &request(leaf_key.spki_der())).unwrap();
    let trusted = verify_x509_svid(&svid.chain, &bundle(roots).into(), at(NOW)).is_ok();
    assert_eq!(ca.check_leads_to(&bundle(roots), at(NOW)).is_ok(), trusted);
    trusted
}

#[test]
fn every_kind_of_upstream_key_signs_an_authority_whose_leaves_lead_to_the_root() {
    for kind in KINDS {
        let upstream = take_up(&Signing::root(kind), &[], None).unwrap();
        for ours in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
            let ca = minted(&upstream, ours);
            assert_eq!(ca.upstream_chain(), [ca.certificate().clone()], "without the root");
            assert!(is_trusted(&ca, upstream.roots()), "{ours} below {kind:?}");
        }
    }
}

#[test]
fn a_chain_of_intermediates_is_served_up_to_but_not_including_the_root() {
    let root = Signing::root(P384);
    let middle = root.below("middle", P256, Shape::default());
    let low = middle.below("low", P384, Shape::default());
    let upstream = take_up(&low, &[&middle, &root], Some(&[&root])).unwrap();
    let ca = minted(&upstream, KeyType::EcP256);
    assert_eq!(ca.upstream_chain()[1..], [low.certificate.clone(), middle.certificate.clone()]);
    assert!(is_trusted(&ca, upstream.roots()));
    assert!(
        !is_trusted(&ca, take_up(&Signing::root(P384), &[], None).unwrap().roots()),
        "another root of the name"
    );
}

#[test]
fn the_authority_says_who_it_is_and_who_signed_it() {
    let root = Signing::root(P384);
    let upstream = take_up(&root, &[], None).unwrap();
    let ca = minted(&upstream, KeyType::EcP256);
    let certificate = parse(ca.certificate());
    assert_eq!(certificate.issuer().as_raw(), parse(&root.certificate).subject().as_raw());
    let subject = certificate.subject().to_string();
    assert!(subject.starts_with("C=US, O=SPIFFE, serialNumber="), "{subject}");
    let entry = JournalEntry::prepared(Slot::A, &ca, at(NOW));
    assert_eq!(entry.upstream_authority_id(), upstream.roots()[0].subject_key_id());
    assert!(entry.is_below(&upstream.roots()[0]));
    let other = take_up(&Signing::root(P384), &[], None).unwrap();
    assert!(!entry.is_below(&other.roots()[0]), "another key of the same name");
    let own = JournalEntry::prepared(Slot::A, &authority(KeyType::EcP256), at(NOW));
    assert_eq!(own.upstream_authority_id(), "");
    assert!(!own.is_below(&upstream.roots()[0]));
}

#[test]
fn an_authority_is_below_its_root_by_every_kind_of_signature() {
    for kind in KINDS {
        let upstream = take_up(&Signing::root(kind), &[], None).unwrap();
        let entry = JournalEntry::prepared(Slot::A, &minted(&upstream, KeyType::EcP256), at(NOW));
        assert!(entry.is_below(&upstream.roots()[0]), "{kind:?}");
    }
}

#[test]
fn nothing_outlives_what_is_above_it() {
    let short = |not_after| Shape { not_after, ..Shape::default() };
    let root = Signing::root(P256);
    let by_itself = root.below("low", P256, short(NOW + 50));
    assert_eq!(take_up(&by_itself, &[], Some(&[&root])).unwrap().ends_at(), at(NOW + 50));
    let ended = root.below("middle", P256, short(NOW + 40));
    let low = ended.below("low", P256, Shape::default());
    let upstream = take_up(&low, &[&ended], Some(&[&root])).unwrap();
    assert_eq!(upstream.ends_at(), at(NOW + 40));
    assert_eq!(minted(&upstream, KeyType::EcP256).validity(), span(NOW - 10, NOW + 40));
    let brief = Signing::root_with("brief", P256, short(NOW + 30));
    let low = brief.below("low", P256, Shape::default());
    let upstream = take_up(&low, &[], Some(&[&root, &brief])).unwrap();
    assert_eq!(upstream.ends_at(), at(NOW + 30), "a root that it does not lead to says nothing");
    let csr =
        authority_request(&trust_domain(), &key(KeyType::EcP256), &CaSubject::default(), [3; 16]).unwrap();
    let late = upstream.sign(&csr, span(NOW + 31, NOW + 60), [5; 16]);
    assert_eq!(late, Err(UpstreamSignError::Over(at(NOW + 30))));
}

#[test]
fn what_cannot_sign_or_leads_nowhere_is_refused() {
    let root = Signing::root(P256);
    let with = |shape| root.below("low", P256, shape);
    let usual = Shape::default;
    let refused = |signing: &Signing, above: &[&Signing], roots: Option<&[&Signing]>| {
        take_up(signing, above, roots).expect_err("it is refused")
    };
    let leaf = with(Shape { is_ca: IsCa::ExplicitNoCa, ..usual() });
    assert!(matches!(refused(&leaf, &[], Some(&[&root])), UpstreamCaError::Certificate(_)));
    let crl_only = with(Shape { usage: KeyUsagePurpose::CrlSign, ..usual() });
    assert!(matches!(refused(&crl_only, &[], Some(&[&root])), UpstreamCaError::Certificate(_)));
    let last = with(Shape { is_ca: IsCa::Ca(BasicConstraints::Constrained(0)), ..usual() });
    assert!(take_up(&last, &[], Some(&[&root])).is_ok(), "it may sign leaves, so far");
    let ended = with(Shape { not_after: NOW - 1, ..usual() });
    assert!(matches!(refused(&ended, &[], Some(&[&root])), UpstreamCaError::NotTrusted(_)));
    let low = with(usual());
    let other = Signing::root(P256);
    assert!(matches!(refused(&low, &[], Some(&[&other])), UpstreamCaError::NotTrusted(_)));
    assert_eq!(refused(&low, &[&root], None), UpstreamCaError::OnlySelfSigned(2));
    let lowest = low.below("lowest", P256, usual());
    assert!(
        matches!(refused(&lowest, &[], Some(&[&root])), UpstreamCaError::NotTrusted(_)),
        "low is missing"
    );
    assert!(matches!(refused(&low, &[], Some(&[&leaf])), UpstreamCaError::Root(_)));
}

#[test]
fn an_upstream_that_allows_no_authority_below_it_shows_when_it_signs_one() {
    let root = Signing::root(P256);
    let last = root.below(
        "last",
        P256,
        Shape { is_ca: IsCa::Ca(BasicConstraints::Constrained(0)), ..Shape::default() },
    );
    let upstream = take_up(&last, &[], Some(&[&root])).unwrap();
    assert!(!is_trusted(&minted(&upstream, KeyType::EcP256), upstream.roots()), "the path would be too long");
}

#[test]
fn key_and_certificate_must_fit_and_the_key_must_be_of_a_known_kind() {
    let (root, other) = (Signing::root(P256), Signing::root(P256));
    let take = |key| UpstreamCa::new(&trust_domain(), &key, vec![root.certificate.clone()], None, at(NOW));
    assert_eq!(take(other.key()).unwrap_err(), UpstreamCaError::OtherKey);
    let garbage = rustls_pki_types::PrivatePkcs8KeyDer::from(&b"\x30\x00"[..]);
    assert_eq!(take(garbage.into()).unwrap_err(), UpstreamCaError::Key);
    let none = UpstreamCa::new(&trust_domain(), &root.key(), vec![], None, at(NOW));
    assert_eq!(none.unwrap_err(), UpstreamCaError::NoCertificate);
}

#[test]
fn a_request_for_another_name_or_with_a_broken_signature_is_not_signed() {
    let upstream = take_up(&Signing::root(P256), &[], None).unwrap();
    let (validity, key) = (span(NOW, NOW + 60), key(KeyType::EcP256));
    let web = certificate_request(&key, Some(&id("spiffe://prod.example/web")), &[]).unwrap();
    assert!(matches!(upstream.sign(&web, validity, [5; 16]), Err(UpstreamSignError::Name(_))));
    let nameless = certificate_request(&key, None, &[]).unwrap();
    assert_eq!(upstream.sign(&nameless, validity, [5; 16]), Err(UpstreamSignError::Name(vec![])));
    let mut forged = authority_request(&trust_domain(), &key, &CaSubject::default(), [3; 16]).unwrap();
    assert_eq!(upstream.sign(&forged, validity, [0; 16]), Err(UpstreamSignError::Serial));
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(upstream.sign(&forged, validity, [5; 16]), Err(UpstreamSignError::Csr(_))));
}

/// The subject of the authority that `ca` signs for a server below it, and that authority.
fn downstream(ca: &X509Ca) -> (String, X509Ca) {
    let key = key(KeyType::EcP256);
    let csr = CheckedCsr::parse(&certificate_request(&key, None, &[]).unwrap()).unwrap();
    let signed = ca.sign_downstream(&csr, span(NOW - 10, NOW + 1_000_000), [6; 16]).unwrap();
    assert_eq!(signed.validity.not_after, ca.validity().not_after, "cut to the one above");
    let subject = parse(&signed.chain[0]).subject().to_string();
    let below = X509Ca::from_parts(&trust_domain(), signed.chain[0].clone(), key, signed.chain).unwrap();
    (subject, below)
}

#[test]
fn each_server_below_another_is_named_by_its_depth_until_the_chain_is_too_long() {
    let root = authority(KeyType::EcP384);
    let serial =
        parse(root.certificate()).subject().to_string().split_once("serialNumber=").unwrap().1.to_owned();
    let mut ca = root.clone();
    for depth in [1, 1, 2, 3, 4, 5] {
        let (subject, below) = downstream(&ca);
        assert_eq!(subject, format!("C=US, O=SPIFFE, OU=DOWNSTREAM-{depth}, serialNumber={serial}"));
        assert!(is_trusted(&below, &[X509Authority::parse(root.certificate().clone()).unwrap()]));
        ca = below;
    }
    let key = key(KeyType::EcP256);
    let csr = CheckedCsr::parse(&certificate_request(&key, None, &[]).unwrap()).unwrap();
    let refused = ca.sign_downstream(&csr, span(NOW, NOW + 60), [6; 16]).unwrap_err();
    assert!(refused.to_string().contains("6 authorities above it"), "{refused}");
    let late = root.sign_downstream(&csr, span(NOW + 1_000_000, NOW + 1_000_001), [6; 16]).unwrap_err();
    assert!(matches!(late, SignError::AuthorityOver { .. }), "{late}");
    assert!(matches!(root.sign_downstream(&csr, span(NOW, NOW + 60), [0; 16]), Err(SignError::Serial)));
}

fn write(directory: &Path, name: &str, certificates: &[CertificateDer<'static>]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, certificates_to_pem(certificates)).expect("the directory is ours");
    path
}

/// What `openssl verify` says at the tests' time of a leaf with its intermediates.
fn openssl(root: &Path, above: &Path, leaf: &Path) -> Result<(), String> {
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslserver", "-attime", &NOW.to_string(), "-CAfile"])
        .arg(root)
        .arg("-untrusted")
        .args([above, leaf])
        .output()
        .expect("openssl runs");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn openssl_follows_chains_through_upstream_and_downstream_authorities_with_strict_checks() {
    let there = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !there {
        return left_out::left_out("OpenSSL on chains with intermediates", "there is no openssl command");
    }
    let directory = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let root = Signing::root(kind);
        let low = root.below("low", P384, Shape::default());
        let upstream = take_up(&low, &[], Some(&[&root])).unwrap();
        let ca = minted(&upstream, KeyType::EcP256);
        for ca in [ca.clone(), downstream(&ca).1] {
            let leaf_key: Key = key(KeyType::EcP256);
            let svid = sign(&ca, &request(leaf_key.spki_der())).unwrap();
            let root = write(directory.path(), "root.pem", std::slice::from_ref(&root.certificate));
            let above = write(directory.path(), "above.pem", &svid.chain[1..]);
            let leaf = write(directory.path(), "leaf.pem", &svid.chain[..1]);
            assert_eq!(openssl(&root, &above, &leaf), Ok(()), "{kind:?}");
        }
    }
}
