//! The parsers against random bytes, and against good inputs with a few bytes changed. The same checks run without end in
//! `tests/fuzz`.

#[path = "../../spiffe-core/tests/support/explore.rs"]
mod explore;
#[path = "support/invariants.rs"]
mod invariants;

use explore::explore;
use spindle_attest::x509pop::{Challenge, NodeKey, Payload};
use spindle_testkit::{NOW, NodeKeyKind, NodePki};

#[test]
fn node_payloads() {
    let root = NodePki::root("root", NOW);
    let between = root.intermediate("between");
    let node = between.node_with(|request| {
        request.uris = vec!["x509pop://td/rack/a%207".into()];
        request.addresses = vec!["10.0.0.1".parse().unwrap()];
    });
    let certificates = vec![node.der.clone(), between.certificate().clone()];
    explore(&[Payload { certificates }.to_json(), b"{}".to_vec()], invariants::node_payload);
}

#[test]
fn node_proofs() {
    let root = NodePki::root("root", NOW);
    let answer = |kind, challenge: &Challenge| {
        let key = NodeKey::from_der(&root.node_with(|request| request.key = kind).key_der()).unwrap();
        key.answer(challenge, &[2; 32]).unwrap().to_json()
    };
    let (ecdsa, rsa) = (Challenge::ecdsa(&[1; 32]), Challenge::rsa(&[1; 32]));
    let answers = [answer(NodeKeyKind::P256, &ecdsa), answer(NodeKeyKind::Rsa2048, &rsa)];
    explore(&[ecdsa.to_json(), rsa.to_json()], invariants::node_proof);
    explore(&answers, invariants::node_proof);
}

#[test]
fn path_templates() {
    let seeds = [
        "/x509pop/{{ .Fingerprint }}",
        "/{{ .Subject.CommonName | lower | replace \" \" `-` }}/{{- \"\\\"\" -}} x",
        "/{{/* why */}}{{ trimPrefix \"a\" .URISanSelectors.rack }}",
    ];
    explore(&seeds.map(|seed| seed.as_bytes().to_vec()), invariants::path_template);
}
