//! Every parser against random bytes, and against good inputs with a few bytes changed. The same checks run without end
//! in `tests/fuzz`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/authority.rs"]
mod authority;
#[path = "support/explore.rs"]
mod explore;
#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/tokens.rs"]
mod tokens;

use authority::{Authority, ca_params, mixed_bundle};
use explore::explore;
use rcgen::{KeyPair, PublicKeyData};
use spindle_spiffe_core::bundle_document::map;
use spindle_spiffe_core::{Bundle, ProofRequest, ProofTarget};
use tokens::{NOW, claims, es256, wit_claims, wit_header};

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn spiffe_ids() {
    let long = format!("spiffe://{}/{}", "t".repeat(255), "a".repeat(1783));
    explore(&texts(&["spiffe://td.example/a/b.c", "spiffe://td", &long]), invariants::spiffe_id);
}

#[test]
fn selectors() {
    explore(&texts(&["unix:uid:1000", "k8s:pod-label:app:web"]), invariants::selector);
}

#[test]
fn dns_names() {
    explore(&texts(&["web.example.org", "*.xn--bcher-kva.example"]), invariants::dns_name);
}

#[test]
fn audiences() {
    explore(
        &texts(&["db", "https://a.example\nhttps://b.example\n\nc", &"a\n".repeat(99)]),
        invariants::audience,
    );
}

#[test]
fn entry_ids_and_hints() {
    explore(&texts(&["6d5a6b2c-0f4e-4d0f", "internal"]), invariants::entry_texts);
}

#[test]
fn rows_of_certificates() {
    let root = Authority::root("td");
    let two = [root.certificate.to_vec(), root.leaf("spiffe://td/a").to_vec()].concat();
    explore(&[two], invariants::split_der);
}

#[test]
fn x509_svids() {
    let root = Authority::root("td");
    let intermediate = root.intermediate(ca_params("td", "intermediate"));
    let chain = [intermediate.leaf("spiffe://td/a").to_vec(), intermediate.certificate.to_vec()].concat();
    explore(&[root.leaf("spiffe://td/a").to_vec(), chain], invariants::x509_svid);
}

#[test]
fn chains_with_the_root_that_is_trusted() {
    let root = Authority::root("td");
    let intermediate = root.intermediate(ca_params("td", "intermediate"));
    let leaf = root.leaf("spiffe://td/a");
    let long =
        [&intermediate.leaf("spiffe://td/a")[..], &intermediate.certificate[..], &root.certificate[..]];
    let seeds = [[&leaf[..], &root.certificate[..]].concat(), long.concat()];
    for seed in &seeds {
        assert!(invariants::verified(seed).is_some(), "path building has something to find");
    }
    explore(&seeds, invariants::verified_chain);
}

#[test]
fn x509_bundles() {
    let (one, two) = (Authority::root("td"), Authority::root("td"));
    explore(&[[one.certificate.to_vec(), two.certificate.to_vec()].concat()], invariants::x509_bundle);
}

#[test]
fn pem_texts() {
    explore(&[Authority::root("td").bundle("td").to_pem().into_bytes()], invariants::pem_text);
}

#[test]
fn bundle_documents() {
    explore(&[mixed_bundle("td").to_json().into_bytes()], invariants::bundle_document);
}

#[test]
fn bundle_maps() {
    let json = map::to_json([&mixed_bundle("a"), &mixed_bundle("b")]).unwrap();
    explore(&[json.into_bytes()], invariants::bundle_map);
}

#[test]
fn public_keys() {
    let algorithms = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P521_SHA512, &rcgen::PKCS_ED25519];
    let mut keys: Vec<_> = algorithms.map(|algorithm| KeyPair::generate_for(algorithm).unwrap()).into();
    keys.push(KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap());
    let seeds: Vec<_> = keys.iter().map(PublicKeyData::subject_public_key_info).collect();
    explore(&seeds, invariants::public_key);
}

#[test]
fn addresses_of_bundle_endpoints() {
    explore(
        &texts(&["https://td.example:8443/bundle?x=1", "https://[::1]/"]),
        invariants::bundle_endpoint_url,
    );
}

/// The keys of a bundle in one line.
fn line(bundle: &Bundle) -> String {
    serde_json::from_str::<serde_json::Value>(&bundle.to_json()).unwrap().to_string()
}

/// The ES256 key alone, so that edits meet the token as often as the bundle.
fn es256_bundle() -> Bundle {
    let mut bundle = Bundle::new("td".parse().unwrap());
    bundle.jwt_authorities = vec![es256().authority("ES256")];
    bundle
}

#[test]
fn jwt_svids() {
    let token = es256().sign(&es256().header(), &claims());
    let seed = format!("{}\n{token}", line(&es256_bundle())).into_bytes();
    assert!(invariants::accepted_jwt_svid(&seed), "there is something to accept");
    explore(&[seed], invariants::jwt_svid);
}

#[test]
fn wit_svids_and_their_proofs() {
    let mut bundle = es256_bundle();
    std::mem::swap(&mut bundle.jwt_authorities, &mut bundle.wit_authorities);
    let token = es256().sign(&wit_header(es256()), &wit_claims(es256()));
    let target = ProofTarget::from_uri(&"https://db/".parse().unwrap()).unwrap();
    let proof = ProofRequest::new(&target, NOW, [7; 16]);
    let proof = proof.sign(&token, es256().algorithm, |message| Ok::<_, ()>(es256().signature(message)));
    let seed = format!("{}\n{token}\n{}", line(&bundle), proof.unwrap()).into_bytes();
    assert!(invariants::accepted_wit_svid(&seed), "there is something to accept");
    explore(&[seed], invariants::wit_svid);
}
