//! HTTPS with a certificate in files, which is replaced while it is served.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use spindle_oidc::{Listener, ServingFiles};
use spindle_testkit::TestFolder;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::help::{Answer, Running, ask, bundle_file, config, local, start, try_start, wait};

struct Files {
    folder: TestFolder,
    served: ServingFiles,
}

impl Files {
    fn new() -> Self {
        let folder = TestFolder::new();
        let served = ServingFiles {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            sync_interval: Duration::from_secs(3600),
            address: local(),
        };
        Self { folder, served }
    }

    /// A new self-signed certificate in both files.
    fn renew(&self) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["oidc.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(&self.served.key, key.serialize_pem()).unwrap();
        std::fs::write(&self.served.certificate, certificate.pem()).unwrap();
        certificate.der().clone()
    }

    async fn start(&self) -> Running {
        let running =
            start(config(Listener::Files(self.served.clone()), bundle_file(&self.folder, &["k"]))).await;
        wait(async || running.health("/ready").await == 200).await;
        running
    }
}

/// A GET by a client that trusts this one certificate.
async fn get(
    running: &Running,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(running.tcp()).await?;
    let name = ServerName::try_from("oidc.test").unwrap();
    let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    ask(Box::new(stream), "/.well-known/openid-configuration", "oidc.test").await
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

#[tokio::test]
async fn clients_of_tls_1_2_and_1_3_are_served() {
    let files = Files::new();
    let certificate = files.renew();
    let running = files.start().await;
    for version in BOTH {
        assert_eq!(get(&running, &certificate, &[version]).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_replaced_certificate_is_served_without_a_restart() {
    let files = Files::new();
    let old = files.renew();
    let running = files.start().await;
    let new = files.renew();
    wait(async || {
        running.refresh.now();
        get(&running, &new, BOTH).await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    assert!(get(&running, &old, BOTH).await.is_err());
}

#[tokio::test]
async fn files_are_read_again_by_themselves() {
    let mut files = Files::new();
    files.served.sync_interval = Duration::from_millis(20);
    files.renew();
    let running = files.start().await;
    let new = files.renew();
    wait(async || get(&running, &new, BOTH).await.is_ok()).await;
}

#[tokio::test]
async fn the_old_certificate_stays_while_the_files_do_not_fit_together() {
    let files = Files::new();
    let old = files.renew();
    let running = files.start().await;
    for content in ["", "no PEM", &KeyPair::generate().unwrap().serialize_pem()] {
        std::fs::write(&files.served.key, content).unwrap();
        running.refresh.now();
        assert_eq!(get(&running, &old, BOTH).await.unwrap().status, 200);
    }
    std::fs::remove_file(&files.served.certificate).unwrap();
    running.refresh.now();
    assert_eq!(get(&running, &old, BOTH).await.unwrap().status, 200);
    let new = files.renew();
    wait(async || {
        running.refresh.now();
        get(&running, &new, BOTH).await.is_ok()
    })
    .await;
}

async fn refused(certificate: &Path, key: &Path, folder: &TestFolder) -> String {
    let served = ServingFiles {
        certificate: certificate.into(),
        key: key.into(),
        sync_interval: Duration::from_secs(60),
        address: local(),
    };
    match try_start(config(Listener::Files(served), bundle_file(folder, &["k"]))).await {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it started"),
    }
}

#[tokio::test]
async fn files_that_cannot_be_served_are_named_at_the_start() {
    let (files, other) = (Files::new(), Files::new());
    files.renew();
    other.renew();
    let (certificate, key, folder) = (&files.served.certificate, &files.served.key, &files.folder);
    let missing = folder.path().join("missing.pem");
    assert!(refused(&missing, key, folder).await.contains("missing.pem"));
    assert!(refused(certificate, &other.served.key, folder).await.contains("do not belong together"));
    assert!(refused(key, key, folder).await.contains("no certificate"));
    assert!(refused(certificate, certificate, folder).await.contains("private key"));
    let large = folder.file("large.pem", "x".repeat(300_000));
    assert!(refused(&large, key, folder).await.contains("too large"));
}
