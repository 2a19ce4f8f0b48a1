//! How the agent's first connection is trusted, and the token it may show.

use std::fmt;
use std::path::PathBuf;

use super::RawAgent;
use crate::config::ConfigError;

/// A join token. Prints as its type name: whoever holds it can become an agent.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken(String);

impl JoinToken {
    /// Wraps a token.
    pub fn new(token: String) -> Self {
        Self(token)
    }

    /// The token itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken")
    }
}

/// The form of a trust bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleFormat {
    /// PEM certificates.
    Pem,
    /// A SPIFFE bundle document.
    Spiffe,
}

/// How the first connection to the server is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustChoice {
    /// By a file that came another way.
    File(PathBuf, BundleFormat),
    /// By a bundle fetched over HTTPS from a web server, or over HTTP on a Unix socket.
    Url {
        /// The address.
        url: String,
        /// The socket to fetch over.
        unix_socket: Option<PathBuf>,
        /// What is answered.
        format: BundleFormat,
    },
    /// Not at all, once.
    InsecureOnce,
}

const PATH: &str = "agent.trust_bundle_path";
const URL: &str = "agent.trust_bundle_url";
const SOCKET: &str = "agent.trust_bundle_unix_socket";
const INSECURE: &str = "agent.insecure_bootstrap";

/// The one way the file and flags name.
pub(super) fn trust(raw: &RawAgent) -> Result<TrustChoice, ConfigError> {
    let format = format(raw)?;
    if raw.trust_bundle_unix_socket.is_some() && raw.trust_bundle_url.is_none() {
        return Err(ConfigError::Missing { key: format!("{URL} (beside {SOCKET})") });
    }
    let exclusive =
        |first: &str, second: &str| ConfigError::Exclusive { first: first.into(), second: second.into() };
    match (&raw.trust_bundle_path, &raw.trust_bundle_url, raw.insecure_bootstrap == Some(true)) {
        (Some(_), Some(_), _) => Err(exclusive(PATH, URL)),
        (Some(_), None, true) => Err(exclusive(INSECURE, PATH)),
        (None, Some(_), true) => Err(exclusive(INSECURE, URL)),
        (Some(path), None, false) => Ok(TrustChoice::File(path.clone(), format)),
        (None, Some(url), false) => by_url(url, raw.trust_bundle_unix_socket.clone(), format),
        (None, None, true) => Ok(TrustChoice::InsecureOnce),
        (None, None, false) => Err(ConfigError::Missing { key: format!("{PATH}, {URL} or {INSECURE}") }),
    }
}

/// Only a Unix socket may do without TLS: what comes over the network decides whom the agent believes.
fn by_url(url: &str, unix_socket: Option<PathBuf>, format: BundleFormat) -> Result<TrustChoice, ConfigError> {
    let scheme = if unix_socket.is_some() { "http://" } else { "https://" };
    if !url.starts_with(scheme) {
        return Err(ConfigError::value(URL, format!("{url:?} does not start with {scheme}")));
    }
    Ok(TrustChoice::Url { url: url.into(), unix_socket, format })
}

fn format(raw: &RawAgent) -> Result<BundleFormat, ConfigError> {
    match raw.trust_bundle_format.as_deref() {
        None | Some("pem") => Ok(BundleFormat::Pem),
        Some("spiffe") => Ok(BundleFormat::Spiffe),
        Some(other) => {
            let what = format!("{other:?} is not a format (known: pem, spiffe)");
            Err(ConfigError::value("agent.trust_bundle_format", what))
        }
    }
}
