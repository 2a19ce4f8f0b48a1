//! The parsers against random bytes, and against good inputs with a few bytes changed. The same checks run without end in
//! `tests/fuzz`.

#[path = "support/authority.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which needs a part of it")]
mod authority;
#[path = "../../spiffe-core/tests/support/explore.rs"]
mod explore;
#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/upstream.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which needs a part of it")]
mod upstream;

use explore::explore;
use spindle_ca::{CheckedCsr, SubjectKey};
use spindle_keys::{Key, KeyType, certificate_request};

fn keys() -> impl Iterator<Item = Key> {
    [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048]
        .into_iter()
        .map(|kind| Key::generate(kind).expect("a key"))
}

#[test]
fn certificate_requests() {
    let id = "spiffe://td/a".parse().unwrap();
    let seeds: Vec<_> = keys().map(|key| certificate_request(&key, Some(&id), &[]).unwrap()).collect();
    assert!(seeds.iter().all(|seed| CheckedCsr::parse(seed).is_ok()));
    explore(&seeds, invariants::csr);
}

#[test]
fn keys_of_certificate_requests() {
    let seeds: Vec<_> = keys().map(|key| key.spki_der().to_vec()).collect();
    assert!(seeds.iter().all(|seed| SubjectKey::parse(seed).is_ok()));
    explore(&seeds, invariants::subject_key);
}

#[test]
fn files_of_upstream_authorities() {
    let kinds = [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256];
    let roots = kinds.map(upstream::Signing::root);
    let seeds = roots.map(|root| [root.key().secret_der(), &root.certificate].concat());
    explore(&seeds, invariants::upstream_authority);
}
