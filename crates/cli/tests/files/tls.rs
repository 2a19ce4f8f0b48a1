//! TLS clients that believe the bundle's file alone, and a trust domain whose SVIDs turn over within seconds.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use spindle_runtime::SystemClock;
use spindle_spiffe_core::{Clock, X509Bundle, X509Svid, verify_x509_svid};

use crate::program::{Program, files, generation, spindle, wait_for};

/// A trust domain on this machine, and a directory of files that follows it.
pub(crate) struct Served {
    pub(crate) dir: PathBuf,
    domain: Program,
    keeper: Program,
}

impl Served {
    /// SVIDs live for twelve seconds: a new one comes every second or two.
    pub(crate) fn start(work: &Path, more: &[&str]) -> Self {
        let (home, dir) = (work.join("domain"), work.join("svid"));
        let mut command = spindle();
        command.args(["dev", "-ttl", "12", "-dir"]).arg(&home);
        let domain = Program::start(command, &work.join("domain.log"));
        let keeper = Program::start(files(&home.join("agent.sock"), &dir, more), &work.join("files.log"));
        let mut served = Self { dir, domain, keeper };
        wait_for("the first files", || {
            served.check();
            generation(&served.dir)
        });
        served
    }

    /// Fails when one of its programs has ended.
    pub(crate) fn check(&mut self) {
        assert!(!self.domain.has_ended(), "{}", self.domain.log());
        assert!(!self.keeper.has_ended(), "{}", self.keeper.log());
    }

    pub(crate) fn log(&self) -> String {
        self.keeper.log()
    }
}

/// Believes what the bundle vouches for, whatever the server is called: a SPIFFE ID is no host name.
#[derive(Debug)]
struct ByBundle(X509Bundle, Arc<CryptoProvider>);

impl ServerCertVerifier for ByBundle {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<_> =
            [leaf].into_iter().chain(intermediates).map(|one| one.clone().into_owned()).collect();
        match verify_x509_svid(&chain, &self.0.clone().into(), SystemClock.now()) {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(rustls::Error::General(error.to_string())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.1.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.1.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}

/// A whole handshake with a server that is verified by the file `ca.crt` in `dir`; returns the serial number of its SVID.
///
/// # Errors
/// When the connection or the handshake fails.
pub(crate) fn handshake(dir: &Path, mut socket: impl Read + Write) -> std::io::Result<String> {
    let bundle = fs::read(dir.join("ca.crt"))?;
    let bundle = X509Bundle::from_pem("example.org".parse().unwrap(), &bundle).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let verifier = Arc::new(ByBundle(bundle, provider));
    let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut socket)?;
    }
    let chain = client.peer_certificates().unwrap().iter().map(|one| one.clone().into_owned()).collect();
    client.send_close_notify();
    client.complete_io(&mut socket)?;
    Ok(X509Svid::parse(chain).unwrap().serial_decimal())
}
