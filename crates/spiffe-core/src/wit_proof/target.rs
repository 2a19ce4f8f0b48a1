//! What a proof is for: the URI of a request without query and fragment, over https only.

use std::fmt;

use http::Uri;

/// A target that proofs name, such as `https://db.example/query`. Client and server make it in the same way, so that
/// the texts are equal: lower-case host, no default port, a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofTarget(String);

/// Why a URI is no target for a WIT-SVID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofTargetError {
    /// Anything but https: WIT-SVID and proof travel over a secure channel (WIT-SVID 7.3).
    #[error("a WIT-SVID is sent over https only")]
    Insecure,
    /// A URI that names a user, which no request has.
    #[error("the URI of a request names no user")]
    User,
}

impl ProofTarget {
    /// The target of requests to that URI. A server passes the URI it is known by, from its configuration; `Host` is
    /// the caller's word.
    ///
    /// # Errors
    /// When it is not https, or names a user.
    pub fn from_uri(uri: &Uri) -> Result<Self, ProofTargetError> {
        // An absolute URI has an authority; the library parses no other.
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(ProofTargetError::Insecure);
        };
        if authority.as_str().contains('@') {
            return Err(ProofTargetError::User);
        }
        let host = authority.host().to_ascii_lowercase();
        let port = authority.port_u16().filter(|&port| port != 443);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = if uri.path().is_empty() { "/" } else { uri.path() };
        Ok(Self(format!("https://{host}{port}{path}")))
    }

    /// As it stands in `aud`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProofTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Result<String, ProofTargetError> {
        ProofTarget::from_uri(&uri.parse().unwrap()).map(|target| target.to_string())
    }

    #[test]
    fn query_and_default_port_are_left_out_and_the_host_is_lower_case() {
        for (uri, expected) in [
            ("https://db.example/a/B?x=1", "https://db.example/a/B"),
            ("https://DB.Example:443", "https://db.example/"),
            ("https://db.example:8443/", "https://db.example:8443/"),
            ("https://[2001:DB8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
            ("HTTPS://db.example/", "https://db.example/"),
        ] {
            assert_eq!(target(uri), Ok(expected.to_owned()), "{uri}");
        }
    }

    #[test]
    fn wit_53_nothing_but_https_is_a_target() {
        for uri in ["http://db.example/", "ftp://db.example/", "/path", "db.example:443", "*"] {
            assert_eq!(target(uri), Err(ProofTargetError::Insecure), "{uri}");
        }
        assert_eq!(target("https://user@db.example/"), Err(ProofTargetError::User));
    }
}
