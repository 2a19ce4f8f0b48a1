//! How the agent's first connection is trusted, and the token it may show.

use std::fmt;
use std::path::PathBuf;

use spindle_agent::config::{REBOOTSTRAP_DELAY_DEFAULT, Rebootstrap, RebootstrapMode};

use super::plugins::endpoint_path;
use crate::config::ConfigError;
use crate::config::section::Section;
use crate::duration;

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
    /// By the bundle that another agent's Workload API gives out, at this socket.
    WorkloadApi(PathBuf),
    /// Not at all, once.
    InsecureOnce,
}

/// Keys and flags as written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawBootstrap {
    /// `trust_bundle_path`.
    pub trust_bundle_path: Option<PathBuf>,
    /// `trust_bundle_url`.
    pub trust_bundle_url: Option<String>,
    /// `trust_bundle_unix_socket`.
    pub trust_bundle_unix_socket: Option<PathBuf>,
    /// `trust_bundle_spiffe_workload_api`.
    pub trust_bundle_spiffe_workload_api: Option<String>,
    /// `trust_bundle_format`.
    pub trust_bundle_format: Option<String>,
    /// `insecure_bootstrap`.
    pub insecure_bootstrap: Option<bool>,
    /// `rebootstrap_mode`.
    pub rebootstrap_mode: Option<String>,
    /// `rebootstrap_delay`.
    pub rebootstrap_delay: Option<String>,
    /// `join_token`.
    pub join_token: Option<JoinToken>,
    /// `join_token_file`.
    pub join_token_file: Option<PathBuf>,
}

/// The same, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct BootstrapChoice {
    /// How the first connection is trusted.
    pub trust: TrustChoice,
    /// When it is done again.
    pub rebootstrap: Rebootstrap,
    /// A join token; none for an agent that attested before.
    pub join_token: Option<JoinToken>,
    /// The file that holds the join token.
    pub join_token_file: Option<PathBuf>,
}

impl RawBootstrap {
    pub(super) fn read(agent: &Section<'_>) -> Result<Self, ConfigError> {
        let path = |key| Ok::<_, ConfigError>(agent.text(key)?.map(PathBuf::from));
        Ok(Self {
            trust_bundle_path: path("trust_bundle_path")?,
            trust_bundle_url: agent.text("trust_bundle_url")?,
            trust_bundle_unix_socket: path("trust_bundle_unix_socket")?,
            trust_bundle_spiffe_workload_api: agent.text("trust_bundle_spiffe_workload_api")?,
            trust_bundle_format: agent.text("trust_bundle_format")?,
            insecure_bootstrap: agent.switch("insecure_bootstrap")?,
            rebootstrap_mode: agent.text("rebootstrap_mode")?,
            rebootstrap_delay: agent.text("rebootstrap_delay")?,
            join_token: agent.text("join_token")?.map(JoinToken::new),
            join_token_file: path("join_token_file")?,
        })
    }

    /// These settings, with gaps filled from `file`.
    pub(super) fn over(self, file: Self) -> Self {
        Self {
            trust_bundle_path: self.trust_bundle_path.or(file.trust_bundle_path),
            trust_bundle_url: self.trust_bundle_url.or(file.trust_bundle_url),
            trust_bundle_format: self.trust_bundle_format.or(file.trust_bundle_format),
            insecure_bootstrap: self.insecure_bootstrap.or(file.insecure_bootstrap),
            rebootstrap_mode: self.rebootstrap_mode.or(file.rebootstrap_mode),
            rebootstrap_delay: self.rebootstrap_delay.or(file.rebootstrap_delay),
            join_token: self.join_token.or(file.join_token),
            join_token_file: self.join_token_file.or(file.join_token_file),
            ..file
        }
    }

    pub(super) fn ready(self) -> Result<BootstrapChoice, ConfigError> {
        let (trust, rebootstrap) = (trust(&self)?, rebootstrap(&self)?);
        if self.join_token.is_some() && self.join_token_file.is_some() {
            return Err(exclusive("agent.join_token", "agent.join_token_file"));
        }
        let Self { join_token, join_token_file, .. } = self;
        Ok(BootstrapChoice { trust, rebootstrap, join_token, join_token_file })
    }
}

const PATH: &str = "agent.trust_bundle_path";
const URL: &str = "agent.trust_bundle_url";
const SOCKET: &str = "agent.trust_bundle_unix_socket";
const INSECURE: &str = "agent.insecure_bootstrap";

const WORKLOAD_API: &str = "agent.trust_bundle_spiffe_workload_api";
const MODE: &str = "agent.rebootstrap_mode";
const DELAY: &str = "agent.rebootstrap_delay";

/// The one way the file and flags name.
fn trust(raw: &RawBootstrap) -> Result<TrustChoice, ConfigError> {
    let format = format(raw)?;
    let insecure = raw.insecure_bootstrap == Some(true);
    let ways = [
        (INSECURE, insecure),
        (PATH, raw.trust_bundle_path.is_some()),
        (URL, raw.trust_bundle_url.is_some()),
        (WORKLOAD_API, raw.trust_bundle_spiffe_workload_api.is_some()),
    ];
    let mut named = ways.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| *key);
    if let (Some(first), Some(second)) = (named.next(), named.next()) {
        return Err(exclusive(first, second));
    }
    if let Some(address) = &raw.trust_bundle_spiffe_workload_api {
        if raw.trust_bundle_unix_socket.is_some() {
            return Err(exclusive(SOCKET, WORKLOAD_API));
        }
        return Ok(TrustChoice::WorkloadApi(endpoint_path(WORKLOAD_API, address)?));
    }
    if raw.trust_bundle_unix_socket.is_some() && raw.trust_bundle_url.is_none() {
        return Err(ConfigError::Missing { key: format!("{URL} (beside {SOCKET})") });
    }
    match (&raw.trust_bundle_path, &raw.trust_bundle_url) {
        (Some(path), _) => Ok(TrustChoice::File(path.clone(), format)),
        (None, Some(url)) => by_url(url, raw.trust_bundle_unix_socket.clone(), format),
        (None, None) if insecure => Ok(TrustChoice::InsecureOnce),
        (None, None) => {
            Err(ConfigError::Missing { key: format!("{PATH}, {URL}, {WORKLOAD_API} or {INSECURE}") })
        }
    }
}

fn exclusive(first: &str, second: &str) -> ConfigError {
    ConfigError::Exclusive { first: first.into(), second: second.into() }
}

/// Bootstrapping again needs a source that can tell the right server from a wrong one.
fn rebootstrap(raw: &RawBootstrap) -> Result<Rebootstrap, ConfigError> {
    let mode = match raw.rebootstrap_mode.as_deref() {
        None | Some("never") => RebootstrapMode::Never,
        Some("auto") => RebootstrapMode::Auto,
        Some("always") => RebootstrapMode::Always,
        Some(other) => {
            let what = format!("{other:?} is not a mode (known: never, auto, always)");
            return Err(ConfigError::value(MODE, what));
        }
    };
    if mode != RebootstrapMode::Never && raw.insecure_bootstrap == Some(true) {
        let what = format!("a server cannot be recognised again with {INSECURE}; name its trust bundle");
        return Err(ConfigError::value(MODE, what));
    }
    let delay = match &raw.rebootstrap_delay {
        Some(text) => duration::parse(text).map_err(|fault| ConfigError::duration(DELAY, &fault))?,
        None => REBOOTSTRAP_DELAY_DEFAULT,
    };
    Ok(Rebootstrap { mode, delay })
}

/// Only a Unix socket may do without TLS: what comes over the network decides whom the agent believes.
fn by_url(url: &str, unix_socket: Option<PathBuf>, format: BundleFormat) -> Result<TrustChoice, ConfigError> {
    let scheme = if unix_socket.is_some() { "http://" } else { "https://" };
    if !url.starts_with(scheme) {
        return Err(ConfigError::value(URL, format!("{url:?} does not start with {scheme}")));
    }
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let is_ours = |one: &str| one.starts_with("spire-") || one.starts_with("spiffe-");
    if let Some(name) = query.split('&').find(|one| unix_socket.is_some() && is_ours(one)) {
        let what =
            format!("{name:?} is a parameter that the agent sets: none may begin with spire- or spiffe-");
        return Err(ConfigError::value(URL, what));
    }
    Ok(TrustChoice::Url { url: url.into(), unix_socket, format })
}

fn format(raw: &RawBootstrap) -> Result<BundleFormat, ConfigError> {
    match raw.trust_bundle_format.as_deref() {
        None | Some("pem") => Ok(BundleFormat::Pem),
        Some("spiffe") => Ok(BundleFormat::Spiffe),
        Some(other) => {
            let what = format!("{other:?} is not a format (known: pem, spiffe)");
            Err(ConfigError::value("agent.trust_bundle_format", what))
        }
    }
}
