use spindle_testkit::{NOW, NodeCertificate, NodeKeyKind, NodePki};

use super::*;

const ASKED: Nonce = [7; NONCE_BYTES];
const OWN: Nonce = [9; NONCE_BYTES];

const PROVABLE: [NodeKeyKind; 4] =
    [NodeKeyKind::P256, NodeKeyKind::P384, NodeKeyKind::P521, NodeKeyKind::Rsa2048];

fn node(kind: NodeKeyKind) -> NodeCertificate {
    NodePki::root("root", NOW).node_with(|request| request.key = kind)
}

fn public_key(node: &NodeCertificate) -> PublicKey {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(&node.der).unwrap();
    PublicKey::from_spki_der(certificate.public_key().raw).unwrap()
}

fn challenger(node: &NodeCertificate) -> Challenger {
    Challenger::new(&public_key(node), ASKED).unwrap()
}

fn key(node: &NodeCertificate) -> NodeKey {
    NodeKey::from_der(&node.key_der()).unwrap()
}

fn cut(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() - 1);
}

#[test]
fn a_key_answers_the_challenge_of_its_certificate() {
    for kind in PROVABLE {
        let node = node(kind);
        let (key, challenger) = (key(&node), challenger(&node));
        key.require_certificate(&node.der).unwrap();
        for _ in 0..20 {
            let answer = key.answer(&challenger.challenge(), &OWN).unwrap();
            assert_eq!(challenger.check(&answer), Ok(()), "{kind:?}");
        }
    }
}

#[test]
fn another_key_another_nonce_and_another_signature_prove_nothing() {
    for kind in PROVABLE {
        let (node, other) = (node(kind), node(kind));
        let challenger = challenger(&node);
        let failed = |answer: &Response| challenger.check(answer).unwrap_err();
        let word = if kind == NodeKeyKind::Rsa2048 { "RSA" } else { "ECDSA" };
        let answer = |key: NodeKey| key.answer(&challenger.challenge(), &OWN).unwrap();
        assert_eq!(failed(&answer(key(&other))), ProofError::Signature(word), "another key");
        let replayed = Challenger::new(&public_key(&node), [8; NONCE_BYTES]).unwrap();
        let good = answer(key(&node));
        assert_eq!(replayed.check(&good), Err(ProofError::Signature(word)), "an old answer");
        let mut changed = good.clone();
        if let Some(proof) = &mut changed.rsa_signature {
            proof.nonce[0] ^= 1;
        }
        if let Some(proof) = &mut changed.ecdsa_signature {
            proof.nonce[0] ^= 1;
        }
        assert_eq!(failed(&changed), ProofError::Signature(word), "another nonce of its own");
        let mut short = good.clone();
        short.rsa_signature.iter_mut().for_each(|proof| cut(&mut proof.nonce));
        short.ecdsa_signature.iter_mut().for_each(|proof| cut(&mut proof.nonce));
        assert_eq!(failed(&short), ProofError::ResponseNonce);
        let mut broken = good.clone();
        broken.rsa_signature.iter_mut().for_each(|proof| cut(&mut proof.signature));
        broken.ecdsa_signature.iter_mut().for_each(|proof| cut(&mut proof.s));
        assert_eq!(failed(&broken), ProofError::Signature(word));
        let mut empty = good;
        empty.rsa_signature.iter_mut().for_each(|proof| proof.signature.clear());
        empty.ecdsa_signature.iter_mut().for_each(|proof| (proof.r, proof.s) = (vec![], vec![]));
        assert_eq!(failed(&empty), ProofError::Signature(word));
    }
}

#[test]
fn numbers_that_are_too_long_are_refused_and_leading_zeros_are_not() {
    let node = node(NodeKeyKind::P256);
    let challenger = challenger(&node);
    let good = key(&node).answer(&challenger.challenge(), &OWN).unwrap();
    let mut padded = good.clone();
    padded.ecdsa_signature.iter_mut().for_each(|proof| proof.r.insert(0, 0));
    assert_eq!(challenger.check(&padded), Ok(()));
    let mut long = good;
    long.ecdsa_signature.iter_mut().for_each(|proof| proof.r.resize(33, 1));
    assert_eq!(challenger.check(&long), Err(ProofError::Signature("ECDSA")));
}

#[test]
fn a_challenge_or_an_answer_for_another_kind_of_key_is_refused() {
    let (ec, rsa) = (node(NodeKeyKind::P256), node(NodeKeyKind::Rsa2048));
    let (for_ec, for_rsa) = (challenger(&ec), challenger(&rsa));
    let other = |key: NodeKey, challenge: &Challenge| key.answer(challenge, &OWN).unwrap_err();
    assert_eq!(other(key(&ec), &for_rsa.challenge()), ProofError::OtherChallenge("ECDSA"));
    assert_eq!(other(key(&rsa), &for_ec.challenge()), ProofError::OtherChallenge("RSA"));
    let answer = key(&ec).answer(&for_ec.challenge(), &OWN).unwrap();
    assert_eq!(for_rsa.check(&answer), Err(ProofError::OtherResponse("RSA")));
    assert_eq!(for_ec.check(&Response::default()), Err(ProofError::OtherResponse("ECDSA")));
    let mut short = for_ec.challenge();
    short.ecdsa_signature.iter_mut().for_each(|asked| cut(&mut asked.nonce));
    assert_eq!(other(key(&ec), &short), ProofError::ChallengeNonce);
}

/// What Go's `rsa.SignPSS` makes when it is given no options.
#[test]
fn the_longest_salt_is_taken_as_well() {
    const LONGEST: aws::RsaSignatureEncoding =
        aws::RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
    let node = node(NodeKeyKind::Rsa2048);
    let challenger = challenger(&node);
    let NodeKey(PrivateKey::Rsa(pair)) = key(&node) else { panic!("an RSA key") };
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&LONGEST, &SystemRandom::new(), &joined(&ASKED, &OWN), &mut signature).unwrap();
    let proof = RsaProof { nonce: OWN.to_vec(), signature };
    let answer = Response { rsa_signature: Some(proof), ecdsa_signature: None };
    assert_eq!(challenger.check(&answer), Ok(()));
}

#[test]
fn ed25519_can_neither_ask_nor_answer() {
    let node = node(NodeKeyKind::Ed25519);
    assert!(Challenger::new(&public_key(&node), ASKED).is_none());
    assert_eq!(NodeKey::from_der(&node.key_der()).unwrap_err(), NodeKeyError::Kind);
}

#[test]
fn a_key_of_another_certificate_is_found_out() {
    for kind in PROVABLE {
        let (one, other) = (node(kind), node(kind));
        assert_eq!(key(&one).require_certificate(&other.der), Err(NodeKeyError::Other), "{kind:?}");
    }
    let damaged = rustls_pki_types::PrivatePkcs8KeyDer::from(vec![0x30, 0]);
    assert_eq!(NodeKey::from_der(&damaged.into()).unwrap_err(), NodeKeyError::Kind);
}

#[test]
fn a_key_prints_only_its_type_name() {
    assert_eq!(format!("{:?}", key(&node(NodeKeyKind::P256))), "NodeKey");
}
