//! Proofs made by Go's standard library, by the calls that SPIRE's agent makes: what it shows and answers is taken here.
//!
//! Each row of the vectors is a payload, the nonce it was challenged with, and the answer.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use rustls_pki_types::CertificateDer;
use serde_json::Value;
use spindle_attest::x509pop::{
    AttestedNode, Circumstances, Mode, NodeFault, Payload, Roots, Settings, Verifier,
};
use spindle_spiffe_core::pem::certificates_to_pem;
use spindle_spiffe_core::{Timestamp, TrustDomain, X509Bundle};

fn rows() -> Vec<Value> {
    serde_json::from_slice(include_bytes!("vectors/go-proofs.json")).unwrap()
}

fn nonce(row: &Value) -> [u8; 32] {
    use base64::Engine;
    let text = row["server_nonce"].as_str().unwrap();
    base64::prelude::BASE64_STANDARD.decode(text).unwrap().try_into().unwrap()
}

fn attest(row: &Value, nonce: [u8; 32], response: &Value) -> Result<AttestedNode, NodeFault> {
    let payload = row["payload"].to_string().into_bytes();
    let certificates: Vec<CertificateDer<'static>> = Payload::parse(&payload).unwrap().certificates;
    let roots = Roots::from_pem(certificates_to_pem(&certificates).as_bytes()).unwrap();
    let trust_domain: TrustDomain = "example.org".parse().unwrap();
    let (own_bundle, now) =
        (&X509Bundle::empty(trust_domain.clone()), Timestamp::from_unix_secs(1_800_000_000));
    let circumstances =
        Circumstances { trust_domain: &trust_domain, own_bundle, client_ip: None, now, nonce };
    let pending = Verifier::new(Settings::new(Mode::ExternalPki(roots))).begin(&payload, &circumstances)?;
    pending.finish(response.to_string().as_bytes())
}

#[test]
fn every_kind_of_key_proves_itself_as_go_signs() {
    let rows = rows();
    assert_eq!(rows.len(), 5);
    for row in &rows {
        let name = row["name"].as_str().unwrap();
        let node =
            attest(row, nonce(row), &row["response"]).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let shown: Vec<_> = node.selectors.iter().map(|one| one.as_str().to_owned()).collect();
        let expected = ["x509pop:serialnumber:0a1b2c".to_owned(), format!("x509pop:subject:cn:{name}")];
        assert_eq!(shown, expected);
    }
}

#[test]
fn the_same_proof_is_worth_nothing_for_another_challenge_or_another_key() {
    let rows = rows();
    for (row, other) in rows.iter().zip(rows.iter().cycle().skip(1)) {
        let mut changed = nonce(row);
        changed[0] ^= 1;
        for refused in [attest(row, changed, &row["response"]), attest(row, nonce(row), &other["response"])] {
            assert!(matches!(refused, Err(NodeFault::Proof(_))), "{}: {refused:?}", row["name"]);
        }
    }
}
