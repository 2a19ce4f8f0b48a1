//! Federation relationships: where the bundle of a foreign trust domain comes from, and how its endpoint is recognised.
//!
//! The parts are checked values. It leaves out the bundle itself, which is kept on its own ([`crate::Bundle`]), and how
//! an endpoint is asked. Start at [`FederationRelationship`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;

use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// The longest address of a bundle endpoint, in bytes.
pub const URL_BYTES_MAX: usize = 2048;

/// Address of a bundle endpoint (Trust Domain and Bundle 5.2): over https, with a host, without user info. Kept as it was
/// written, so that whoever compares it with what was asked for finds it the same. Clones share their bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BundleEndpointUrl(Arc<str>);

/// Why a text is not the address of a bundle endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Empty, or longer than [`URL_BYTES_MAX`].
    #[error("it has 1 to {URL_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// Not a URL.
    #[error("it is not a URL: {0}")]
    Malformed(String),
    /// Another scheme, or none.
    #[error("it must use the https scheme")]
    Scheme,
    /// No host.
    #[error("it must specify the host")]
    Host,
    /// A port that is none.
    #[error("its port must be a number from 1 to 65535")]
    Port,
    /// A user or a password, which would be shown to everyone who may list relationships.
    #[error("it must not contain user info")]
    UserInfo,
}

impl BundleEndpointUrl {
    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BundleEndpointUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !(1..=URL_BYTES_MAX).contains(&text.len()) {
            return Err(UrlError::Length(text.len()));
        }
        if let Some(at) = text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(UrlError::Malformed(format!("byte {at} must be percent-encoded")));
        }
        let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| {
            // `https:///x` is refused as malformed; that it lacks a host is the better word for it.
            match text.strip_prefix("https://") {
                Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => UrlError::Host,
                _ => UrlError::Malformed(error.to_string()),
            }
        })?;
        if uri.scheme_str() != Some("https") {
            return Err(UrlError::Scheme);
        }
        let authority = uri.authority().ok_or(UrlError::Host)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        if authority.host().is_empty() {
            return Err(UrlError::Host);
        }
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(UrlError::Port);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for BundleEndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BundleEndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a bundle endpoint is recognised (Trust Domain and Bundle 5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointProfile {
    /// `https_web`: by the roots of the system.
    HttpsWeb,
    /// `https_spiffe`: by its SPIFFE ID, which may lie in another trust domain than the bundle it serves.
    HttpsSpiffe {
        /// The endpoint's SPIFFE ID.
        endpoint_id: SpiffeId,
    },
}

/// Where the bundle of a foreign trust domain comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederationRelationship {
    /// The foreign trust domain.
    pub trust_domain: TrustDomain,
    /// Address of its bundle endpoint.
    pub url: BundleEndpointUrl,
    /// How the endpoint is recognised.
    pub profile: EndpointProfile,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str) -> UrlError {
        text.parse::<BundleEndpointUrl>().expect_err(text)
    }

    #[test]
    fn good_addresses_keep_their_text() {
        for text in [
            "https://example.org",
            "https://example.org/",
            "https://example.org/bundle?x=1",
            "https://example.org:8443/a/b",
            "https://127.0.0.1:1",
            "https://[::1]:8443/bundle",
            "https://EXAMPLE.org/Bundle",
            "HTTPS://example.org",
        ] {
            assert_eq!(text.parse::<BundleEndpointUrl>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn only_https_with_a_host_and_nobodys_name_is_taken() {
        for text in
            ["http://example.org", "example.org", "/bundle", "spiffe://example.org", "ftp://example.org/x"]
        {
            assert_eq!(refused(text), UrlError::Scheme, "{text}");
        }
        for text in ["https://", "https:///bundle", "https://?x", "https://:8443"] {
            assert_eq!(refused(text), UrlError::Host, "{text}");
        }
        for text in
            ["https://user@example.org", "https://user:password@example.org/x", "https://@example.org"]
        {
            assert_eq!(refused(text), UrlError::UserInfo, "{text}");
        }
        for text in ["https://example.org:0", "https://example.org:65536", "https://example.org:"] {
            assert_eq!(refused(text), UrlError::Port, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "https://exa mple.org",
            "https://example.org/\n",
            "https://example.org/ä",
            "https://[::1",
            "https://a]b",
            "https:",
            "https:/example.org",
            " https://example.org",
            "https://example.org\0",
        ] {
            assert!(text.parse::<BundleEndpointUrl>().is_err(), "{text:?}");
        }
        assert_eq!(refused(""), UrlError::Length(0));
        let long = format!("https://example.org/{}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(refused(&long), UrlError::Length(long.len()));
    }
}
