//! pkilint judges our authorities and leaves by RFC 5280 and those that follow it. Left out, with a line that says so, where
//! it is missing; `tests/lint/requirements.txt` names the version, `tests/run` installs it.

#[path = "support/authority.rs"]
#[allow(dead_code, reason = "shared by several test programs, each of which needs a part of it")]
mod authority;
#[path = "../../testkit/src/left_out.rs"]
pub mod left_out;

use std::path::{Path, PathBuf};
use std::process::Command;

use authority::*;
use rustls_pki_types::CertificateDer;
use spindle_ca::{SvidRequest, SvidSubject};
use spindle_keys::KeyType;
use spindle_spiffe_core::pem::certificates_to_pem;

const KINDS: [KeyType; 3] = [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048];

fn pkilint_is_there() -> bool {
    let there = Command::new("lint_pkix_cert").arg("-h").output().is_ok_and(|output| output.status.success());
    if !there {
        left_out::left_out("pkilint on our certificates", "there is no lint_pkix_cert command");
    }
    there
}

fn write(directory: &Path, name: &str, certificate: &CertificateDer<'static>) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, certificates_to_pem([certificate])).expect("the directory is ours");
    path
}

/// What a linter finds, one finding per line. Below NOTICE it only tells what it recognised, such as the way in which a key
/// identifier was derived.
fn lint(linter: &str, files: &[&Path]) -> Vec<String> {
    let options = ["lint", "-s", "NOTICE", "-f", "CSV"];
    let output = Command::new(linter).args(options).args(files).output().expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(err.is_empty(), "{linter} failed: {err}");
    let is_finding = |line: &&str| !line.is_empty() && !line.starts_with("node_path,");
    out.lines().filter(is_finding).map(str::to_owned).collect()
}

/// What pkilint says of names that have to be as they are. For URIs it asks a library for web addresses, which knows nine
/// schemes, while RFC 5280 4.2.1.6 allows any. A `*` is there because an operator asked for it, and TLS has a meaning for it.
fn is_accepted(finding: &str) -> bool {
    let uris = ["spiffe://prod.example", "spiffe://prod.example/web"].map(|id| ("uri", "URI", id));
    uris.into_iter().chain([("domain_name", "domain name", "*.web.example")]).any(|(code, what, name)| {
        let text = format!(r#",ERROR,pkix.invalid_{code}_syntax,"Invalid {what} syntax: ""{name}""""#);
        finding.ends_with(&text)
    })
}

#[track_caller]
fn has_nothing_to_say(linter: &str, files: &[&Path], about: &str) {
    let mut findings = lint(linter, files);
    findings.retain(|finding| !is_accepted(finding));
    assert!(findings.is_empty(), "{linter} on {about}: {findings:#?}");
}

#[test]
fn pkilint_has_nothing_to_say_of_authorities_and_leaves() {
    if !pkilint_is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for (ca_kind, leaf_kind) in KINDS.into_iter().flat_map(|ca| KINDS.map(|leaf| (ca, leaf))) {
        let ca = authority(ca_kind);
        let root = write(directory.path(), "root.pem", ca.certificate());
        let names = ["web.example".parse().unwrap(), "*.web.example".parse().unwrap()];
        let leaf = write(directory.path(), "leaf.pem", &leaf_for(&ca, &key(leaf_kind), &names));
        let about = format!("{leaf_kind} signed by {ca_kind}");
        has_nothing_to_say("lint_pkix_cert", &[&root], &about);
        has_nothing_to_say("lint_pkix_cert", &[&leaf], &about);
        has_nothing_to_say("lint_pkix_signer_signee_cert_chain", &[&root, &leaf], &about);
    }
}

#[test]
fn pkilint_has_nothing_to_say_of_a_leaf_without_a_subject_or_dns_names() {
    if !pkilint_is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (ca, key) = (authority(KeyType::EcP256), key(KeyType::EcP256));
    let bare = SvidRequest { subject: SvidSubject::empty(), ..request(key.spki_der()) };
    for (request, about) in [(bare, "a bare leaf"), (request(key.spki_der()), "a plain leaf")] {
        let leaf = sign(&ca, &request).unwrap().chain.swap_remove(0);
        has_nothing_to_say("lint_pkix_cert", &[&write(directory.path(), "leaf.pem", &leaf)], about);
    }
}

/// What the others would miss if this linter were silent about everything.
#[test]
fn pkilint_speaks_up_about_a_certificate_that_breaks_the_rules() {
    if !pkilint_is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyEncipherment];
    let bad = write(directory.path(), "bad.pem", params.self_signed(&key).unwrap().der());
    let findings = lint("lint_pkix_cert", &[&bad]);
    assert!(findings.iter().any(|finding| finding.contains(",ERROR,")), "{findings:#?}");
}
