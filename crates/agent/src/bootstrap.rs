//! The bundle by which the server is recognised before the agent has one of its own: from a file or an address.
//!
//! One source, no fallback: when it fails the agent does not start trusting somebody else. Redirects are not followed.
//! Start at [`fetch`].

mod http;

use std::path::{Path, PathBuf};

use spindle_spiffe_core::bundle_document::BundleDocumentError;
use spindle_spiffe_core::x509_bundle::X509BundleError;
use spindle_spiffe_core::{Bundle, TrustDomain, X509Bundle};

use crate::config::{AgentConfig, Bootstrap, BundleFormat};

pub use http::HttpError;

/// The largest bundle taken, in bytes: thousands of certificates.
const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why there is no bundle to start with.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("cannot read the trust bundle {}", .path.display())]
    File {
        /// The file as configured.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bundle cannot be fetched.
    #[error("cannot fetch the trust bundle from {url}")]
    Fetch {
        /// The address as configured.
        url: String,
        /// What went wrong.
        source: HttpError,
    },
    /// The bytes are too many.
    #[error("the trust bundle from {origin} has more than {BUNDLE_BYTES_MAX} bytes")]
    TooLarge {
        /// File or address.
        origin: String,
    },
    /// The bytes are no PEM bundle.
    #[error("the trust bundle from {origin} is not a PEM bundle of authorities")]
    Pem {
        /// File or address.
        origin: String,
        /// What is wrong with it.
        source: X509BundleError,
    },
    /// The bytes are no SPIFFE bundle document.
    #[error("the trust bundle from {origin} is not a SPIFFE bundle document")]
    Spiffe {
        /// File or address.
        origin: String,
        /// What is wrong with it.
        source: BundleDocumentError,
    },
    /// Nothing in it can be trusted.
    #[error("the trust bundle from {origin} has no X.509 authority")]
    Empty {
        /// File or address.
        origin: String,
    },
}

/// The bundle of the configured source; none when the server is to be believed once.
pub(crate) async fn fetch(config: &AgentConfig) -> Result<Option<X509Bundle>, BootstrapError> {
    let (bytes, format, origin) = match &config.bootstrap {
        Bootstrap::Insecure => return Ok(None),
        Bootstrap::File { path, format } => (read(path).await?, *format, path.display().to_string()),
        Bootstrap::Url { url, unix_socket, format } => {
            let fetched = match unix_socket {
                Some(socket) => http::get_unix(socket, url, &facts(config), BUNDLE_BYTES_MAX).await,
                None => http::get_https(url, BUNDLE_BYTES_MAX).await,
            };
            let bytes = fetched.map_err(|source| BootstrapError::Fetch { url: url.clone(), source })?;
            (bytes, *format, url.clone())
        }
    };
    parse(&config.trust_domain, &bytes, format, origin).map(Some)
}

/// What a local bundle service is told about the one who asks, with SPIRE's parameter names.
fn facts(config: &AgentConfig) -> [(&'static str, String); 4] {
    [
        ("spire-attest-mode", "bootstrap".to_owned()),
        ("spire-server-address", config.server_address.clone()),
        ("spire-server-port", config.server_port.to_string()),
        ("spiffe-trust-domain", config.trust_domain.name().to_owned()),
    ]
}

async fn read(path: &Path) -> Result<Vec<u8>, BootstrapError> {
    use tokio::io::AsyncReadExt;
    let fail = |source| BootstrapError::File { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(BUNDLE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await.map_err(fail)?;
    if bytes.len() > BUNDLE_BYTES_MAX {
        return Err(BootstrapError::TooLarge { origin: path.display().to_string() });
    }
    Ok(bytes)
}

fn parse(
    trust_domain: &TrustDomain,
    bytes: &[u8],
    format: BundleFormat,
    origin: String,
) -> Result<X509Bundle, BootstrapError> {
    let bundle = match format {
        BundleFormat::Pem => X509Bundle::from_pem(trust_domain.clone(), bytes)
            .map_err(|source| BootstrapError::Pem { origin: origin.clone(), source })?,
        BundleFormat::Spiffe => Bundle::from_json(trust_domain.clone(), bytes)
            .map_err(|source| BootstrapError::Spiffe { origin: origin.clone(), source })?
            .x509_bundle(),
    };
    if bundle.is_empty() { Err(BootstrapError::Empty { origin }) } else { Ok(bundle) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Authority, config, trust_domain};

    async fn from_file(content: &[u8], format: BundleFormat) -> Result<Option<X509Bundle>, BootstrapError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle");
        std::fs::write(&path, content).unwrap();
        let mut config = config(dir.path());
        config.bootstrap = Bootstrap::File { path, format };
        fetch(&config).await
    }

    #[tokio::test]
    async fn a_pem_file_is_read() {
        let bundle = Authority::new(&trust_domain()).bundle;
        let read = from_file(bundle.to_pem().as_bytes(), BundleFormat::Pem).await.unwrap();
        assert_eq!(read, Some(bundle));
    }

    #[tokio::test]
    async fn a_spiffe_document_is_read() {
        let authority = Authority::new(&trust_domain()).bundle;
        let mut bundle = Bundle::new(trust_domain());
        bundle.x509_authorities = authority.authorities().to_vec();
        let read = from_file(bundle.to_json().as_bytes(), BundleFormat::Spiffe).await.unwrap();
        assert_eq!(read, Some(authority));
    }

    #[tokio::test]
    async fn a_document_of_the_other_format_is_refused() {
        let pem = Authority::new(&trust_domain()).bundle.to_pem();
        assert!(matches!(
            from_file(pem.as_bytes(), BundleFormat::Spiffe).await,
            Err(BootstrapError::Spiffe { .. })
        ));
        assert!(matches!(
            from_file(br#"{"keys":[]}"#, BundleFormat::Pem).await,
            Err(BootstrapError::Pem { .. })
        ));
    }

    #[tokio::test]
    async fn a_bundle_that_trusts_nobody_is_refused() {
        let empty = from_file(br#"{"keys":[]}"#, BundleFormat::Spiffe).await;
        assert!(matches!(empty, Err(BootstrapError::Empty { .. })));
    }

    #[tokio::test]
    async fn a_missing_or_endless_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.bootstrap = Bootstrap::File { path: dir.path().join("missing"), format: BundleFormat::Pem };
        let error = fetch(&config).await.unwrap_err();
        assert!(error.to_string().contains("missing"));
        config.bootstrap = Bootstrap::File { path: "/dev/zero".into(), format: BundleFormat::Pem };
        assert!(matches!(fetch(&config).await, Err(BootstrapError::TooLarge { .. })));
    }
}
