//! Files that can be used, that cannot, and that change.

use std::process::Command;

use spindle_ca::{CaSubject, authority_request};
use spindle_keys::{Key, KeyType};
use spindle_runtime::SystemEntropy;
use spindle_spiffe_core::pem::certificates_to_pem;
use spindle_testkit::{ManualClock, NOW, TestFolder, UpstreamFiles, left_out};

use super::*;
use crate::fixtures::trust_domain;
use crate::live::Reloadable;

fn settings([cert, key, bundle]: [PathBuf; 3]) -> DiskUpstreamSettings {
    DiskUpstreamSettings { cert_file_path: cert, key_file_path: key, bundle_file_path: Some(bundle) }
}

fn live(files: &DiskUpstreamSettings) -> LiveSettings {
    let upstream = Some(UpstreamSettings::Disk(files.clone()));
    LiveSettings::new(Reloadable { upstream, ..Reloadable::default() })
}

async fn open(files: &DiskUpstreamSettings) -> Result<DiskUpstream, UpstreamError> {
    let clock = ManualClock::default();
    DiskUpstream::open(files, live(files), trust_domain(), clock.shared(), Arc::new(SystemEntropy)).await
}

/// The reasons of a refusal, each after the other.
async fn refusal(files: &DiskUpstreamSettings) -> String {
    ErrorChain(&open(files).await.err().expect("a refusal")).to_string()
}

async fn mint(upstream: &DiskUpstream) -> Result<Minted, UpstreamError> {
    let key = Key::generate(KeyType::EcP256).unwrap();
    let csr = authority_request(&trust_domain(), &key, &CaSubject::default(), [3; 16]).unwrap();
    upstream.mint(csr, 60).await
}

#[tokio::test]
async fn replaced_files_sign_the_next_authority_and_broken_ones_change_nothing() {
    let folder = TestFolder::new();
    let (one, two) = (UpstreamFiles::self_signed("one", NOW), UpstreamFiles::self_signed("two", NOW));
    let upstream = open(&settings(one.write(&folder))).await.unwrap();
    assert_eq!(mint(&upstream).await.unwrap().roots[0].der(), one.root());
    let [cert, key, bundle] = two.write(&folder);
    assert_eq!(mint(&upstream).await.unwrap().roots[0].der(), two.root());
    std::fs::write(&cert, certificates_to_pem([one.root()])).unwrap();
    assert_eq!(mint(&upstream).await.unwrap().roots[0].der(), two.root(), "half a replacement");
    for path in [&key, &bundle, &cert] {
        std::fs::remove_file(path).unwrap();
        assert_eq!(mint(&upstream).await.unwrap().roots[0].der(), two.root());
    }
    one.write(&folder);
    assert_eq!(mint(&upstream).await.unwrap().roots[0].der(), one.root());
}

#[tokio::test]
async fn other_files_sign_the_next_authority_when_the_settings_name_them() {
    let (folder, elsewhere) = (TestFolder::new(), TestFolder::new());
    let (one, two) = (UpstreamFiles::self_signed("one", NOW), UpstreamFiles::self_signed("two", NOW));
    let (first, second) = (settings(one.write(&folder)), settings(two.write(&elsewhere)));
    let (live, clock) = (live(&first), ManualClock::default());
    let entropy = Arc::new(SystemEntropy);
    let upstream =
        DiskUpstream::open(&first, live.clone(), trust_domain(), clock.shared(), entropy).await.unwrap();
    assert_eq!(mint(&upstream).await.unwrap().roots[0].der(), one.root());
    let changed = UpstreamSettings::Disk(second.clone());
    assert!(changed.check(&trust_domain(), NOW).is_ok());
    live.replace(Reloadable { upstream: Some(changed), ..Reloadable::default() });
    assert_eq!(mint(&upstream).await.unwrap().roots[0].der(), two.root());
    let absent = DiskUpstreamSettings { cert_file_path: folder.join("absent"), ..second };
    assert!(UpstreamSettings::Disk(absent).check(&trust_domain(), NOW).is_err());
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_the_reason() {
    let folder = TestFolder::new();
    let good = UpstreamFiles::with_intermediate("one", NOW);
    let files = settings(good.write(&folder));
    assert!(open(&files).await.is_ok());
    let absent = folder.join("absent");
    let empty = folder.file("empty", "");
    let text = folder.file("text", "-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n");
    let huge = folder.file("huge", vec![b'\n'; PEM_BYTES_MAX + 1]);
    for (path, why) in [
        (&absent, "cannot read"),
        (&empty, "holds no usable certificates"),
        (&text, "holds no usable certificates"),
        (&huge, "has more than"),
    ] {
        for files in [
            DiskUpstreamSettings { cert_file_path: path.clone(), ..files.clone() },
            DiskUpstreamSettings { bundle_file_path: Some(path.clone()), ..files.clone() },
        ] {
            let refused = refusal(&files).await;
            assert!(refused.contains(why) && refused.contains(&path.display().to_string()), "{refused}");
        }
    }
    for (path, why) in
        [(&absent, "cannot read"), (&empty, "no unencrypted private key"), (&huge, "has more than")]
    {
        let refused = refusal(&DiskUpstreamSettings { key_file_path: path.clone(), ..files.clone() }).await;
        assert!(refused.contains(why) && refused.contains(&path.display().to_string()), "{refused}");
    }
    let no_key = DiskUpstreamSettings { key_file_path: files.cert_file_path.clone(), ..files.clone() };
    assert!(refusal(&no_key).await.contains("no unencrypted private key"));
    let folder_as_file = DiskUpstreamSettings { cert_file_path: folder.path().to_owned(), ..files.clone() };
    assert!(refusal(&folder_as_file).await.contains("cannot read"));
}

#[tokio::test]
async fn without_a_bundle_there_is_one_certificate_which_is_the_root() {
    let folder = TestFolder::new();
    let root = UpstreamFiles::self_signed("one", NOW);
    let files = DiskUpstreamSettings { bundle_file_path: None, ..settings(root.write(&folder)) };
    let minted = mint(&open(&files).await.unwrap()).await.unwrap();
    assert_eq!((minted.chain.len(), minted.roots[0].der()), (1, root.root()));
    let twice = folder.file("twice", certificates_to_pem([root.root(), root.root()]));
    let refused = refusal(&DiskUpstreamSettings { cert_file_path: twice, ..files }).await;
    assert!(refused.contains("only self-signed CAs are supported"), "{refused}");
}

#[tokio::test]
async fn a_root_of_others_or_a_key_of_others_is_refused() {
    let (folder, elsewhere) = (TestFolder::new(), TestFolder::new());
    let files = settings(UpstreamFiles::with_intermediate("one", NOW).write(&folder));
    let others = settings(UpstreamFiles::with_intermediate("two", NOW).write(&elsewhere));
    let key = DiskUpstreamSettings { key_file_path: others.key_file_path.clone(), ..files.clone() };
    assert!(refusal(&key).await.contains("certificate and private key do not match"));
    let bundle = DiskUpstreamSettings { bundle_file_path: others.bundle_file_path, ..files };
    let refused = refusal(&bundle).await;
    assert!(refused.contains("cannot be validated with the provided bundle"), "{refused}");
}

/// Makes a root with the OpenSSL command, as SPIRE's suites do; returns its files.
fn by_openssl(folder: &TestFolder, kind: &[&str], subject: &str) -> DiskUpstreamSettings {
    let (key, cert) = (folder.join("openssl.key"), folder.join("openssl.crt"));
    let run = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let (key_path, cert_path) = (key.to_str().unwrap(), cert.to_str().unwrap());
    run(&[kind, &["-out", key_path]].concat());
    let request =
        ["req", "-new", "-x509", "-days", "10", "-multivalue-rdn", "-subj", subject, "-key", key_path];
    let extensions = ["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", cert_path];
    run(&[&request[..], &extensions[..]].concat());
    DiskUpstreamSettings { cert_file_path: cert, key_file_path: key, bundle_file_path: None }
}

#[tokio::test]
async fn keys_are_read_in_every_form_that_openssl_writes() {
    if Command::new("openssl").arg("version").output().is_err() {
        return left_out("upstream keys by OpenSSL", "there is no openssl command");
    }
    let folder = TestFolder::new();
    // PKCS#8, then SEC1 with and without its parameters, then PKCS#1 where this OpenSSL still writes it.
    for kind in [
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"][..],
        &["ecparam", "-name", "secp384r1", "-genkey", "-noout"],
        &["ecparam", "-name", "prime256v1", "-genkey"],
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["genrsa", "-traditional"],
        &["genpkey", "-algorithm", "ED25519"],
    ] {
        let files = by_openssl(&folder, kind, "/C=US/O=SPIFFE");
        let clock = spindle_runtime::SystemClock::shared();
        let opened =
            DiskUpstream::open(&files, live(&files), trust_domain(), clock, Arc::new(SystemEntropy)).await;
        let upstream = opened.unwrap_or_else(|error| panic!("{kind:?}: {}", ErrorChain(&error)));
        assert!(mint(&upstream).await.is_ok(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_written_again_is_refused_when_the_files_are_read() {
    if Command::new("openssl").arg("version").output().is_err() {
        return left_out("upstream names by OpenSSL", "there is no openssl command");
    }
    let folder = TestFolder::new();
    let kind = ["ecparam", "-name", "prime256v1", "-genkey", "-noout"];
    for (subject, why) in [
        ("/DC=corp/DC=example/CN=CA", "byte for byte: it names an attribute twice"),
        ("/O=one+CN=two", "one attribute in each of its parts"),
    ] {
        let files = by_openssl(&folder, &kind, subject);
        let clock = spindle_runtime::SystemClock::shared();
        let opened =
            DiskUpstream::open(&files, live(&files), trust_domain(), clock, Arc::new(SystemEntropy)).await;
        let refused = ErrorChain(&opened.err().expect("a refusal")).to_string();
        assert!(refused.contains(why), "{subject}: {refused}");
    }
}
