//! One bounded GET: over TLS with the system's roots, or over a local socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// For the whole exchange.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a GET brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not an address of the kind that is needed.
    #[error("the address must be {0}")]
    Address(&'static str),
    /// The system has no roots to trust.
    #[error("the system has no trusted certificates: {0}")]
    NoRoots(String),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The exchange broke.
    #[error("the exchange failed")]
    Http(#[from] hyper::Error),
    /// Another status than 200. Redirects are not followed.
    #[error("the answer has status {0}, not 200")]
    Status(StatusCode),
    /// The answer broke off, or is larger than is taken.
    #[error("the answer cannot be read: {0}")]
    Body(String),
    /// Too slow.
    #[error("there was no whole answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
}

/// Fetches `url` over TLS.
pub(super) async fn get_https(url: &str, bytes_max: usize) -> Result<Vec<u8>, HttpError> {
    let uri: Uri = url.parse().map_err(|_| HttpError::Address("an https URL"))?;
    let host = match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) => host.trim_matches(['[', ']']).to_owned(),
        _ => return Err(HttpError::Address("an https URL")),
    };
    let name = ServerName::try_from(host.clone()).map_err(|_| HttpError::Address("an https URL"))?;
    within(async {
        let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
        let stream = TlsConnector::from(Arc::new(tls()?)).connect(name, stream).await?;
        get(stream, &uri, bytes_max).await
    })
    .await
}

/// Fetches `url` over the socket at `path`, with `facts` added to the query.
pub(super) async fn get_unix(
    path: &Path,
    url: &str,
    facts: &[(&str, String)],
    bytes_max: usize,
) -> Result<Vec<u8>, HttpError> {
    let wrong = HttpError::Address("an http URL when a Unix socket is set");
    let mut joint = if url.contains('?') { '&' } else { '?' };
    let mut full = url.to_owned();
    for (name, value) in facts {
        full.push(joint);
        full.push_str(name);
        full.push('=');
        push_escaped(&mut full, value);
        joint = '&';
    }
    let uri: Uri = match full.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") => uri,
        _ => return Err(wrong),
    };
    within(async { get(UnixStream::connect(path).await?, &uri, bytes_max).await }).await
}

async fn within<T>(exchange: impl Future<Output = Result<T, HttpError>>) -> Result<T, HttpError> {
    timeout(FETCH_TIMEOUT, exchange).await.unwrap_or(Err(HttpError::Timeout))
}

async fn get<S>(stream: S, uri: &Uri, bytes_max: usize) -> Result<Vec<u8>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::get(path)
        .header(header::HOST, uri.authority().map_or("localhost", http::uri::Authority::as_str))
        .body(Empty::<Bytes>::new())
        .map_err(|_| HttpError::Address("a URL"))?;
    let exchange = async move {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(HttpError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), bytes_max).collect().await;
        body.map(|body| body.to_bytes().to_vec()).map_err(|error| HttpError::Body(error.to_string()))
    };
    // The connection only moves while it is polled; it ends early when the server closes first.
    let (_, answer) = tokio::join!(connection, exchange);
    answer
}

fn tls() -> Result<ClientConfig, HttpError> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let faults: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(HttpError::NoRoots(faults.join("; ")));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Everything but unreserved characters becomes a percent escape (RFC 3986 2.3).
fn push_escaped(text: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// Asks a server that answers with `answer`, and returns what it was asked.
    async fn ask(answer: &str) -> (Result<Vec<u8>, HttpError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let bytes = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..bytes]).into_owned()
        };
        let facts = [("spire-server-address", "a b".to_owned()), ("spire-server-port", "1".to_owned())];
        tokio::join!(get_unix(&path, "http://local/bundle?x=y", &facts, 64), server)
    }

    #[tokio::test]
    async fn the_facts_are_added_to_the_query() {
        let (answer, asked) =
            ask("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
        assert_eq!(answer.unwrap(), b"ok");
        let line = "GET /bundle?x=y&spire-server-address=a%20b&spire-server-port=1 HTTP/1.1\r\n";
        assert!(asked.starts_with(line), "{asked}");
    }

    #[tokio::test]
    async fn any_other_status_is_refused() {
        let (answer, _) =
            ask("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        assert!(matches!(answer, Err(HttpError::Status(StatusCode::FOUND))));
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_refused() {
        let body = "x".repeat(65);
        let (answer, _) =
            ask(&format!("HTTP/1.1 200 OK\r\ncontent-length: 65\r\nconnection: close\r\n\r\n{body}")).await;
        assert!(matches!(answer, Err(HttpError::Body(_))));
    }

    #[tokio::test]
    async fn addresses_of_the_wrong_kind_are_refused() {
        for url in ["http://example.org", "example.org", "ftp://x", ""] {
            assert!(matches!(get_https(url, 64).await, Err(HttpError::Address(_))), "{url}");
        }
        let unix = get_unix(Path::new("/nowhere"), "https://example.org", &[], 64).await;
        assert!(matches!(unix, Err(HttpError::Address(_))));
    }
}
