//! What a provider is told: plain values, checked by whoever reads them from a file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use spindle_spiffe_core::TrustDomain;

use crate::acme::AcmeConfig;
use crate::site::Site;

/// Everything a provider is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderConfig {
    /// Names, issuer and paths.
    pub site: Site,
    /// Where the keys come from.
    pub source: Source,
    /// Where clients are answered.
    pub listener: Listener,
    /// Where supervisors are answered; none turns it off.
    pub health: Option<Health>,
    /// Whether each key says `"use": "sig"`.
    pub set_key_use: bool,
    /// Whether each request is logged at debug level.
    pub log_requests: bool,
}

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Whom to ask.
    pub kind: SourceKind,
    /// How often to ask; for a stream, the longest pause before it is opened anew.
    pub poll_interval: Duration,
}

/// Whom to ask for the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A server's local socket, asked for its bundle.
    ServerApi(PathBuf),
    /// An agent's socket, which pushes the JWT bundle of this trust domain.
    WorkloadApi(PathBuf, TrustDomain),
    /// A file with a bundle document.
    File(PathBuf),
}

/// Where clients are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// HTTPS with certificates from an ACME server.
    Acme(AcmeConfig),
    /// HTTPS with a certificate in files.
    Files(ServingFiles),
    /// HTTP.
    Insecure(ListenAddress),
    /// HTTP on a Unix socket that everybody may open.
    Unix(PathBuf),
}

/// A certificate in files, which may be replaced while it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingFiles {
    /// PEM: the certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// How often the files are read again.
    pub sync_interval: Duration,
    /// Where to listen.
    pub address: ListenAddress,
}

/// Where and how supervisors are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where to listen.
    pub address: ListenAddress,
    /// Answers 200 while keys are fresh.
    pub ready_path: String,
    /// Answers 200 while keys are fresh, or young enough to be awaited.
    pub live_path: String,
}

/// An address as Go writes it: `host:port`, or `:port` for all addresses of the machine.
#[derive(Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// An IP address or a host name; none for all addresses of the machine.
    pub host: Option<String>,
    /// 0 takes a free one.
    pub port: u16,
}

/// The text is no `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write it as host:port or :port")]
pub struct ListenAddressError;

impl ListenAddress {
    /// All addresses of the machine.
    pub const fn all(port: u16) -> Self {
        Self { host: None, port }
    }
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(ListenAddressError)?;
        let port = port.parse().map_err(|_| ListenAddressError)?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match inner {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            None if host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)) => host,
            _ => return Err(ListenAddressError),
        };
        Ok(Self { host: Some(host.to_owned()).filter(|host| !host.is_empty()), port })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref() {
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
            None => write!(f, ":{}", self.port),
        }
    }
}

impl fmt::Debug for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_go_writes_them() {
        for (text, host, port) in [
            (":443", None, 443),
            ("127.0.0.1:0", Some("127.0.0.1"), 0),
            ("localhost:8080", Some("localhost"), 8080),
            ("[::1]:8443", Some("::1"), 8443),
        ] {
            let address: ListenAddress = text.parse().expect(text);
            assert_eq!((address.host.as_deref(), address.port), (host, port), "{text}");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "443", "host", "host:", "host:http", "host:65536", "::1:80", "[x]:1", "a b:1", "[::1]"]
        {
            assert_eq!(text.parse::<ListenAddress>(), Err(ListenAddressError), "{text}");
        }
    }
}
