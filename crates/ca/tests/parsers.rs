//! The parsers against random bytes, and against good inputs with a few bytes changed. The same checks run without end in
//! `tests/fuzz`.

#[path = "../../spiffe-core/tests/support/explore.rs"]
mod explore;
#[path = "support/invariants.rs"]
mod invariants;

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
