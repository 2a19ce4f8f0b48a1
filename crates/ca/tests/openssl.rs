//! The OpenSSL command judges our chains with its strict checks. Left out, with a line that says so, where it is missing.

#[path = "support/authority.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which needs a part of it")]
mod authority;
#[path = "../../testkit/src/left_out.rs"]
pub mod left_out;

use std::path::{Path, PathBuf};
use std::process::Command;

use authority::*;
use rustls_pki_types::CertificateDer;
use spindle_ca::SvidRequest;
use spindle_keys::KeyType;
use spindle_spiffe_core::pem::certificates_to_pem;

fn openssl_is_there() -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !there {
        left_out::left_out("OpenSSL on our chains", "there is no openssl command");
    }
    there
}

fn write(directory: &Path, name: &str, certificate: &CertificateDer<'static>) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, certificates_to_pem([certificate])).expect("the directory is ours");
    path
}

/// What `openssl verify` says at the tests' time for one purpose.
fn verify(root: &Path, leaf: &Path, purpose: &str) -> Result<(), String> {
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose, "-attime"])
        .arg(NOW.to_string())
        .arg("-CAfile")
        .args([root, leaf])
        .output()
        .expect("openssl runs");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn openssl_accepts_every_kind_of_authority_and_leaf_with_strict_checks() {
    if !openssl_is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for ca_kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let ca = authority(ca_kind);
        let root = write(directory.path(), "root.pem", ca.certificate());
        for leaf_kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
            let names = ["web.example".parse().unwrap(), "*.web.example".parse().unwrap()];
            let leaf = leaf_for(&ca, &key(leaf_kind), &names);
            let leaf = write(directory.path(), "leaf.pem", &leaf);
            for purpose in ["sslserver", "sslclient"] {
                assert_eq!(
                    verify(&root, &leaf, purpose),
                    Ok(()),
                    "{leaf_kind} signed by {ca_kind} as {purpose}"
                );
            }
        }
    }
}

#[test]
fn openssl_accepts_a_leaf_without_a_subject() {
    if !openssl_is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(KeyType::EcP256);
    let key = key(KeyType::EcP256);
    let bare = SvidRequest { subject: spindle_ca::SvidSubject::empty(), ..request(key.spki_der()) };
    let leaf = sign(&ca, &bare).unwrap().chain.swap_remove(0);
    let root = write(directory.path(), "root.pem", ca.certificate());
    assert_eq!(verify(&root, &write(directory.path(), "leaf.pem", &leaf), "sslserver"), Ok(()));
}

#[test]
fn openssl_refuses_a_leaf_of_another_authority_with_the_same_name() {
    if !openssl_is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(KeyType::EcP256), authority(KeyType::EcP256));
    let root = write(directory.path(), "root.pem", theirs.certificate());
    let leaf = write(directory.path(), "leaf.pem", &leaf(&ours, &[]));
    assert!(verify(&root, &leaf, "sslserver").is_err());
}
