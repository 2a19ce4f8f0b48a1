//! Every parser against random bytes, and against good inputs with a few bytes changed. The same checks run without end
//! in `tests/fuzz`.

#[path = "support/authority.rs"]
mod authority;
#[path = "support/invariants.rs"]
mod invariants;

use authority::{Authority, ca_params, mixed_bundle};
use rcgen::{KeyPair, PublicKeyData};
use spindle_spiffe_core::bundle_document::map;

/// Enough to visit each branch of the small parsers, few enough for every test run.
const ROUNDS: usize = 2000;

/// Runs a check on random bytes, on each seed, and on seeds with up to eight edits.
fn explore(seeds: &[Vec<u8>], check: fn(&[u8])) {
    bolero::check!().with_iterations(ROUNDS).with_type::<Vec<u8>>().for_each(|bytes| check(bytes));
    for seed in seeds {
        check(seed);
        bolero::check!()
            .with_iterations(ROUNDS)
            .with_type::<[(u8, u16, u8); 8]>()
            .for_each(|edits| check(&edited(seed, edits)));
    }
}

/// Applies edits: nothing, replace, flip a bit, insert, or cut a byte.
fn edited(seed: &[u8], edits: &[(u8, u16, u8)]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for &(kind, at, value) in edits {
        if bytes.is_empty() {
            break;
        }
        let at = usize::from(at) % bytes.len();
        match kind % 16 {
            0 | 1 => bytes[at] = value,
            2 => bytes[at] ^= 1 << (value % 8),
            3 => bytes.insert(at, value),
            4 => drop(bytes.remove(at)),
            _ => {}
        }
    }
    bytes
}

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
