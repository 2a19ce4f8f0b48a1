//! Domains, addresses and path prefixes of a provider as checked values.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// A name by which clients ask for the provider: lower-case letters, digits and hyphens, labels of 1 to 63 bytes, 253 bytes
/// at most. Names of other scripts stand in their `xn--` form.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Domain(Box<str>);

/// Why a text is no domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Empty, or longer than 253 bytes.
    #[error("a domain has 1 to 253 bytes, this one has {0}")]
    Length(usize),
    /// A name outside of ASCII.
    #[error("it must already be punycode encoded (xn--...)")]
    NotAscii,
    /// A label that is empty, too long, or has a byte that none may have.
    #[error("label {0:?} has 1 to 63 lower-case letters, digits and inner hyphens")]
    Label(String),
}

impl Domain {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !(1..=253).contains(&text.len()) {
            return Err(DomainError::Length(text.len()));
        }
        if !text.is_ascii() {
            return Err(DomainError::NotAscii);
        }
        match text.split('.').find(|label| !is_label(label)) {
            Some(label) => Err(DomainError::Label(label.into())),
            None => Ok(Self(text.into())),
        }
    }
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The longest address, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// An http or https URL without query, fragment and user info (OpenID Connect Discovery 1.0, 3), kept as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl(Box<str>);

/// Why a text is no such URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebUrlError {
    /// Empty, or longer than 2048 bytes.
    #[error("it has 1 to {URL_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// Not a URL.
    #[error("it is not a URL: {0}")]
    Malformed(String),
    /// No scheme, or another one.
    #[error("it must contain a scheme: https, or http for tests")]
    Scheme,
    /// No host.
    #[error("it must contain a host")]
    Host,
    /// A user or a password.
    #[error("it must not contain user info")]
    UserInfo,
    /// A query or a fragment.
    #[error("it must not have a query or a fragment")]
    Extra,
}

impl WebUrl {
    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether clients that follow the standard take it.
    pub fn is_https(&self) -> bool {
        self.0.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }
}

impl FromStr for WebUrl {
    type Err = WebUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !(1..=URL_BYTES_MAX).contains(&text.len()) {
            return Err(WebUrlError::Length(text.len()));
        }
        if let Some(at) = text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(WebUrlError::Malformed(format!("byte {at} must be percent-encoded")));
        }
        if text.contains(['?', '#']) {
            return Err(WebUrlError::Extra);
        }
        let (scheme, rest) = text.split_once("://").ok_or(WebUrlError::Scheme)?;
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(WebUrlError::Scheme);
        }
        if rest.is_empty() || rest.starts_with([':', '/']) {
            return Err(WebUrlError::Host);
        }
        let uri: Uri = text.parse().map_err(|error| WebUrlError::Malformed(format!("{error}")))?;
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => Err(WebUrlError::UserInfo),
            Some(_) => Ok(Self(text.into())),
            None => Err(WebUrlError::Host),
        }
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path before both documents. The default is `/`, which adds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix(Box<str>);

/// The text is no path prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path begins with / and has letters, digits and -._~!$&'()*+,;=:@/ only, without . and .. as parts"
)]
pub struct PathPrefixError;

impl PathPrefix {
    /// As it stands in an issuer made of a request: SPIRE keeps a slash at its end.
    pub(crate) fn as_written(&self) -> &str {
        if &*self.0 == "/" { "" } else { &self.0 }
    }

    /// As paths go on after it.
    pub(crate) fn without_slash(&self) -> &str {
        self.0.trim_end_matches('/')
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        Self("/".into())
    }
}

impl FromStr for PathPrefix {
    type Err = PathPrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte);
        let steps = |text: &str| text.split('/').any(|part| part == "." || part == "..");
        if !text.starts_with('/') || text.contains("//") || !text.bytes().all(plain) || steps(text) {
            return Err(PathPrefixError);
        }
        Ok(Self(text.into()))
    }
}
