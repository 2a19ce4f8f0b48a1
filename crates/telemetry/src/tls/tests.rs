use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use spindle_runtime::{Shutdown, TaskSet};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::{PrometheusConfig, TelemetryConfig};
use crate::sinks::Sinks;
use crate::sinks::tests::{quiet, try_ask};

struct Files {
    dir: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Self { dir: tempfile::tempdir().unwrap(), authority };
        let (certificate, key) = files.leaf();
        std::fs::write(files.path("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(files.path("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(files.path("ca.pem"), files.authority.pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn leaf(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.authority).unwrap(), key)
    }

    fn config(&self, clients: ClientTrust) -> PrometheusTls {
        PrometheusTls { certificate: self.path("cert.pem"), private_key: self.path("key.pem"), clients }
    }

    /// A client that trusts the authority, with or without a certificate of it.
    fn client(&self, has_certificate: bool) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = if has_certificate {
            let (certificate, key) = self.leaf();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// What a client reads at a port for those clients; an error when it is not let in.
async fn scraped(files: &Files, clients: ClientTrust, has_certificate: bool) -> io::Result<String> {
    let address = "127.0.0.1:0".parse().unwrap();
    let prometheus = Some(PrometheusConfig { address, tls: Some(files.config(clients)) });
    let (_telemetry, sinks) =
        Sinks::open(&TelemetryConfig { prometheus, ..quiet() }, "spire_agent", "example.org").unwrap();
    let (mut tasks, shutdown) = (TaskSet::new(), Shutdown::new());
    let address = sinks.prometheus_addr().unwrap();
    sinks.spawn(&mut tasks, &shutdown);
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = files.client(has_certificate).connect("localhost".try_into().unwrap(), stream).await?;
    // With TLS 1.3 the client hears only here that it is not let in.
    try_ask(stream, "GET /metrics").await
}

#[tokio::test]
async fn the_port_speaks_tls_to_anyone_or_to_those_with_a_certificate() {
    let files = Files::new();
    let is_let_in = |answer: io::Result<String>| answer.is_ok_and(|text| text.contains("uptime_in_ms"));
    let authorities = || ClientTrust::Authorities(files.path("ca.pem"));
    assert!(is_let_in(scraped(&files, ClientTrust::Anyone, false).await));
    assert!(is_let_in(scraped(&files, authorities(), true).await));
    assert!(scraped(&files, authorities(), false).await.is_err());
    let strangers = Files::new();
    let known_to_others = ClientTrust::Authorities(strangers.path("ca.pem"));
    assert!(scraped(&files, known_to_others, true).await.is_err());
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let files = Files::new();
    let fault = |config: PrometheusTls| acceptor(&config).err().map(|fault| fault.to_string());
    let good = || files.config(ClientTrust::Authorities(files.path("ca.pem")));
    assert_eq!(fault(good()), None);
    let none = files.path("none.pem");
    let missing = fault(PrometheusTls { certificate: none.clone(), ..good() });
    assert_eq!(missing, Some(format!("cannot read {}", none.display())));
    let swapped = fault(PrometheusTls { private_key: files.path("cert.pem"), ..good() });
    assert!(swapped.is_some_and(|text| text.contains("cert.pem holds no usable private key")));
    let empty = fault(files.config(ClientTrust::Authorities(files.path("key.pem"))));
    assert!(empty.is_some_and(|text| text.contains("key.pem holds no usable certificate")));
    std::fs::write(files.path("other.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(fault(PrometheusTls { private_key: files.path("other.pem"), ..good() }).is_some());
}
