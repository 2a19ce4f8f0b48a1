//! HTTPS towards an ACME server: one connection a request, with the system's trusted certificates.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::tls::provider;

/// For one exchange.
const EXCHANGE_WAIT: Duration = Duration::from_secs(30);

/// The largest answer, in bytes: a chain of a few certificates.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// An HTTPS client.
#[derive(Clone)]
pub(super) struct Client(TlsConnector);

impl Client {
    /// Trusts what the system trusts, or what `SSL_CERT_FILE` names.
    pub(super) fn new() -> Result<Self, Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Error::Str("the system's trusted certificates"));
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    async fn exchange(self, mut request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let uri = std::mem::take(request.uri_mut());
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(Error::Str("an https URL"));
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(other)?;
        let stream =
            TcpStream::connect((host.as_str(), authority.port_u16().unwrap_or(443))).await.map_err(other)?;
        let stream = self.0.connect(name, stream).await.map_err(other)?;
        let value = authority.as_str().parse().map_err(|error| Error::Http(http::Error::from(error)))?;
        request.headers_mut().insert(header::HOST, value);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
        let exchange = async move {
            let (parts, body) = sender.send_request(request).await.map_err(other)?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(Error::Other)?.to_bytes();
            Ok(BytesResponse { parts, body: Box::new(body) })
        };
        // The connection only moves while it is polled; it ends early when the server closes first.
        let (_, answer) = tokio::join!(connection, exchange);
        answer
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let late = || other(io::Error::new(io::ErrorKind::TimedOut, "the ACME server does not answer"));
            timeout(EXCHANGE_WAIT, client.exchange(request)).await.unwrap_or_else(|_| Err(late()))
        })
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}
