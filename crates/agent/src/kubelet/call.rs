//! One bounded GET of a kubelet's `/pods`. Certificates, keys and tokens are read anew each time, for they are renewed on disk.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::config::{KubeletConfig, KubeletCredentials, KubeletPort, KubeletTrust};

/// The largest list taken, in bytes: some hundred KiB are usual, and a node has a few hundred pods at most.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a kubelet is called without a node name.
const THIS_MACHINE: &str = "127.0.0.1";

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallFault {
    #[error("cannot read {}: {why}", .path.display())]
    File { path: PathBuf, why: String },
    #[error("{0:?} is not the name of a host")]
    Name(String),
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("the connection to {target} failed: {source}")]
    Connect { target: String, source: io::Error },
    #[error("the exchange failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer has status {0}, not 200")]
    Status(StatusCode),
    #[error("the answer cannot be read: {0}")]
    Body(String),
}

/// The list of pods in JSON.
pub(super) async fn get(config: &KubeletConfig) -> Result<Bytes, CallFault> {
    let host = config.node_name.as_deref().unwrap_or(THIS_MACHINE);
    match &config.port {
        KubeletPort::ReadOnly(port) => exchange(connect(host, *port).await?, host, None).await,
        KubeletPort::Secure { port, trust, credentials } => {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| CallFault::Name(host.to_owned()))?;
            let token = match credentials {
                KubeletCredentials::Token(path) => Some(bearer(path)?),
                _ => None,
            };
            let tls = tls(trust, credentials, config.node_name.is_some())?;
            let stream = connect(host, *port).await?;
            let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
            let target = || format!("{host}:{port}");
            let stream = stream.map_err(|source| CallFault::Connect { target: target(), source })?;
            exchange(stream, host, token).await
        }
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, CallFault> {
    let target = || format!("{host}:{port}");
    TcpStream::connect((host, port)).await.map_err(|source| CallFault::Connect { target: target(), source })
}

async fn exchange<S>(stream: S, host: &str, token: Option<HeaderValue>) -> Result<Bytes, CallFault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get("/pods").header(header::HOST, host);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| CallFault::Name(host.to_owned()))?;
    let exchange = async move {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(CallFault::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| CallFault::Body(error.to_string()))
    };
    // The connection only moves while it is polled; it ends early when the server closes first.
    let (_, answer) = tokio::join!(connection, exchange);
    answer
}

fn bearer(path: &Path) -> Result<HeaderValue, CallFault> {
    let failed = |why: String| CallFault::File { path: path.to_owned(), why };
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?);
    let line = Zeroizing::new(format!("Bearer {}", text.trim()));
    let mut value = HeaderValue::from_str(&line).map_err(|_| failed("it holds no token".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(
    trust: &KubeletTrust,
    credentials: &KubeletCredentials,
    has_name: bool,
) -> Result<ClientConfig, CallFault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let broken = |error: rustls::Error| CallFault::Tls(error.to_string());
    let judge: Arc<dyn ServerCertVerifier> = match trust {
        KubeletTrust::Anyone => Arc::new(Lenient { provider: provider.clone(), judge: None }),
        KubeletTrust::Authorities(path) => {
            let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(path)?), provider.clone())
                .build()
                .map_err(|error| CallFault::Tls(error.to_string()))?;
            if has_name {
                judge
            } else {
                Arc::new(Lenient { provider: provider.clone(), judge: Some(judge) })
            }
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(broken)?
        .dangerous()
        .with_custom_certificate_verifier(judge);
    match credentials {
        KubeletCredentials::Certificate { certificate, private_key } => {
            let failed = |error: rustls_pki_types::pem::Error| CallFault::File {
                path: private_key.clone(),
                why: error.to_string(),
            };
            let key = PrivateKeyDer::from_pem_file(private_key).map_err(failed)?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(broken)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, CallFault> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path)?);
    if roots.is_empty() {
        return Err(CallFault::File { path: path.to_owned(), why: "it holds no certificate".into() });
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CallFault> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| CallFault::File { path: path.to_owned(), why: error.to_string() })
}

/// Passes over the name in a certificate, or over all of it. The other side has to have the key all the same.
struct Lenient {
    provider: Arc<CryptoProvider>,
    judge: Option<Arc<WebPkiServerVerifier>>,
}

impl fmt::Debug for Lenient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lenient").field("checks_chain", &self.judge.is_some()).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(judge) = &self.judge else { return Ok(ServerCertVerified::assertion()) };
        match judge.verify_server_cert(leaf, intermediates, name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
