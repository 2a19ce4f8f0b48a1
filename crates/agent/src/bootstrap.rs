//! The bundle by which the server is recognised before the agent has one of its own: from a file, an address, or another
//! agent.
//!
//! One source, no fallback: when it fails the agent does not start trusting somebody else. Redirects are not followed.
//! Start at [`fetch`].

mod http;

use std::path::{Path, PathBuf};
use std::time::Duration;

use spindle_spiffe_core::bundle_document::BundleDocumentError;
use spindle_spiffe_core::certificate::split_der_certificates;
use spindle_spiffe_core::x509_bundle::X509BundleError;
use spindle_spiffe_core::{Bundle, ErrorChain, Timestamp, TrustDomain, X509Bundle};

use tokio::time::timeout;

use crate::config::{AgentConfig, Bootstrap, BundleFormat};
use crate::other_agent;

pub use http::HttpError;

/// The largest bundle taken, in bytes: thousands of certificates.
const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long another agent may take, SPIRE's: it may be waiting for its own server.
const WORKLOAD_API_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// The other agent gives none.
    #[error("no trust bundle from the Workload API at {}: {why}", .socket.display())]
    WorkloadApi {
        /// The socket as configured.
        socket: PathBuf,
        /// What it said.
        why: String,
    },
    /// The configured address has parameters that are the agent's to set.
    #[error("the address of the trust bundle {url} has a parameter that begins with `spire-` or `spiffe-`")]
    ReservedParameter {
        /// The address as configured.
        url: String,
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

impl BootstrapError {
    /// Whether it may be over by itself: a service that does not answer, or not yet with a good bundle.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Fetch { source: HttpError::Address(_), .. } | Self::ReservedParameter { .. } => false,
            Self::Fetch { .. } | Self::WorkloadApi { .. } => true,
            Self::File { .. }
            | Self::TooLarge { .. }
            | Self::Pem { .. }
            | Self::Spiffe { .. }
            | Self::Empty { .. } => false,
        }
    }
}

/// Which of the tries to attest a bundle is fetched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Counted from 1.
    pub(crate) number: u32,
    /// When the first one began; when bootstrapping again, since when the server is not trusted.
    pub(crate) began_at: Timestamp,
    /// Whether the agent had a bundle before, by which the server is not trusted any more.
    pub(crate) is_again: bool,
}

/// The bundle of the configured source; none when the server is to be believed once.
pub(crate) async fn fetch(
    config: &AgentConfig,
    attempt: Attempt,
) -> Result<Option<X509Bundle>, BootstrapError> {
    let (bytes, format, origin) = match &config.bootstrap {
        Bootstrap::Insecure => return Ok(None),
        Bootstrap::File { path, format } => (read(path).await?, *format, path.display().to_string()),
        Bootstrap::Url { url, unix_socket, format } => {
            let fetched = match unix_socket {
                Some(_) if has_reserved_parameter(url) => {
                    return Err(BootstrapError::ReservedParameter { url: url.clone() });
                }
                Some(socket) => http::get_unix(socket, url, &facts(config, attempt), BUNDLE_BYTES_MAX).await,
                None => http::get_https(url, BUNDLE_BYTES_MAX).await,
            };
            let bytes = fetched.map_err(|source| BootstrapError::Fetch { url: url.clone(), source })?;
            (bytes, *format, url.clone())
        }
        Bootstrap::WorkloadApi { socket } => {
            let asked = timeout(WORKLOAD_API_TIMEOUT, from_other_agent(&config.trust_domain, socket)).await;
            let given = asked.unwrap_or_else(|_| Err("it did not answer in time".into()));
            let fail = |why| BootstrapError::WorkloadApi { socket: socket.clone(), why };
            return given.map(Some).map_err(fail);
        }
    };
    parse(&config.trust_domain, &bytes, format, origin).map(Some)
}

/// What another agent gives out for `trust_domain`, its own or a federated one; an error is for people.
async fn from_other_agent(trust_domain: &TrustDomain, socket: &Path) -> Result<X509Bundle, String> {
    let answer = other_agent::x509_bundles(socket).await?;
    let der = answer.bundles.get(&trust_domain.id().to_string());
    let der = der.ok_or_else(|| format!("it has none of {trust_domain}"))?;
    let certificates = split_der_certificates(der).map_err(|error| ErrorChain(&error).to_string())?;
    let bundle = X509Bundle::from_certificates(trust_domain.clone(), certificates)
        .map_err(|error| ErrorChain(&error).to_string())?;
    if bundle.is_empty() { Err("it has no X.509 authority".into()) } else { Ok(bundle) }
}

/// What a local bundle service is told about the one who asks, with SPIRE's parameter names.
fn facts(config: &AgentConfig, attempt: Attempt) -> [(&'static str, String); 6] {
    [
        ("spire-attest-mode", if attempt.is_again { "rebootstrap" } else { "bootstrap" }.to_owned()),
        ("spire-connection-attempts", attempt.number.to_string()),
        ("spire-attest-start-time", attempt.began_at.to_string()),
        ("spire-server-address", config.server_address.clone()),
        ("spire-server-port", config.server_port.to_string()),
        ("spiffe-trust-domain", config.trust_domain.name().to_owned()),
    ]
}

/// As SPIRE: a configured one could not be told from ours.
fn has_reserved_parameter(url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|one| one.starts_with("spire-") || one.starts_with("spiffe-"))
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
    use crate::fixtures::{Authority, NOW, config, trust_domain};

    const FIRST: Attempt = Attempt { number: 1, began_at: NOW, is_again: false };

    async fn from_file(content: &[u8], format: BundleFormat) -> Result<Option<X509Bundle>, BootstrapError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle");
        std::fs::write(&path, content).unwrap();
        let mut config = config(dir.path());
        config.bootstrap = Bootstrap::File { path, format };
        fetch(&config, FIRST).await
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
        let error = fetch(&config, FIRST).await.unwrap_err();
        assert!(error.to_string().contains("missing"));
        config.bootstrap = Bootstrap::File { path: "/dev/zero".into(), format: BundleFormat::Pem };
        assert!(matches!(fetch(&config, FIRST).await, Err(BootstrapError::TooLarge { .. })));
    }

    #[test]
    fn a_local_service_is_told_who_asks_how_often_and_since_when() {
        let config = config(Path::new("/data"));
        let again = facts(&config, Attempt { is_again: true, ..FIRST });
        assert_eq!(again[0].1, "rebootstrap");
        let told = facts(&config, Attempt { number: 3, ..FIRST });
        let expected = [
            ("spire-attest-mode", "bootstrap"),
            ("spire-connection-attempts", "3"),
            ("spire-attest-start-time", "2027-01-15T08:00:00Z"),
            ("spire-server-address", "127.0.0.1"),
            ("spire-server-port", "1"),
            ("spiffe-trust-domain", "prod.example"),
        ];
        assert_eq!(told.each_ref().map(|(name, value)| (*name, value.as_str())), expected);
    }

    #[tokio::test]
    async fn an_address_with_a_reserved_parameter_is_refused_for_good() {
        let mut config = config(Path::new("/data"));
        for (url, is_reserved) in [
            ("http://local/b?x=1&spire-attest-mode=x", true),
            ("http://local/b?spiffe-x", true),
            ("http://local/spire-b?x=spire-y", false),
        ] {
            let unix_socket = Some("/nowhere".into());
            config.bootstrap = Bootstrap::Url { url: url.into(), unix_socket, format: BundleFormat::Pem };
            let error = fetch(&config, FIRST).await.unwrap_err();
            assert_eq!(matches!(error, BootstrapError::ReservedParameter { .. }), is_reserved, "{error}");
            assert_eq!(error.may_pass(), !is_reserved, "a service that is away may come back");
        }
    }
}
