//! Which requests are answered, and what the discovery document says (OpenID Connect Discovery 1.0, 3 and 4).
//!
//! Pure. The issuer is what tokens carry in `iss`: a configured one is told byte for byte as it was written. Without one it is
//! made of the host that the client asked for, which therefore has to be one of the configured domains. Start at [`Site`].

mod facts;
mod values;

use serde::Serialize;

pub(crate) use facts::Asked;
pub use values::{Domain, DomainError, PathPrefix, PathPrefixError, WebUrl, WebUrlError};

/// The algorithms of the tokens: those that SPIRE signs with.
const ALGORITHMS: [&str; 3] = ["RS256", "ES256", "ES384"];

/// Names, issuer and paths of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The names that clients may ask for.
    pub domains: Vec<Domain>,
    /// `issuer` of the document; none makes it of the request.
    pub jwt_issuer: Option<WebUrl>,
    /// `jwks_uri` of the document; none makes it of the issuer or the request.
    pub jwks_uri: Option<WebUrl>,
    /// Stands before both paths.
    pub path_prefix: PathPrefix,
    /// Whether addresses made of a request over HTTP begin with `http:`.
    pub allow_insecure_scheme: bool,
}

/// The two documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// The discovery document.
    Discovery,
    /// The JWK Set.
    Keys,
}

/// The host asked for is none of the domains.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("domain {0:?} is not allowed")]
pub(crate) struct ForeignDomain(String);

/// The discovery document. What SPIRE's tokens need is in `issuer` and `jwks_uri`; the rest is required by the standard.
#[derive(Serialize)]
struct Document<'a> {
    issuer: &'a str,
    jwks_uri: &'a str,
    authorization_endpoint: &'a str,
    response_types_supported: [&'a str; 1],
    subject_types_supported: [&'a str; 1],
    id_token_signing_alg_values_supported: [&'a str; 3],
}

impl Site {
    /// The document of that path, if there is one.
    pub(crate) fn page(&self, path: &str) -> Option<Page> {
        match path.strip_prefix(self.path_prefix.without_slash())? {
            "/.well-known/openid-configuration" => Some(Page::Discovery),
            "/keys" => Some(Page::Keys),
            _ => None,
        }
    }

    /// The discovery document for one request.
    ///
    /// # Errors
    /// When the host asked for is none of the domains.
    pub(crate) fn document(&self, asked: &Asked) -> Result<String, ForeignDomain> {
        let domain = asked.domain();
        if !self.domains.iter().any(|known| known.as_str() == domain) {
            return Err(ForeignDomain(domain.chars().take(DOMAIN_CHARS_TOLD).collect()));
        }
        let (issuer, jwks_uri) = self.addresses(asked);
        let document = Document {
            issuer: &issuer,
            jwks_uri: &jwks_uri,
            authorization_endpoint: "",
            response_types_supported: ["id_token"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: ALGORITHMS,
        };
        Ok(serde_json::to_string_pretty(&document).expect("texts and lists always serialise"))
    }

    fn addresses(&self, asked: &Asked) -> (String, String) {
        let scheme = if self.allow_insecure_scheme && asked.is_insecure { "http" } else { "https" };
        let base = format!("{scheme}://{}", asked.host);
        let issuer = match &self.jwt_issuer {
            Some(issuer) => issuer.as_str().to_owned(),
            None => format!("{base}{}", self.path_prefix.as_written()),
        };
        let jwks_uri = match (&self.jwks_uri, &self.jwt_issuer) {
            (Some(jwks_uri), _) => jwks_uri.as_str().to_owned(),
            (None, Some(issuer)) => format!("{}/keys", issuer.as_str().trim_end_matches('/')),
            (None, None) => format!("{base}{}/keys", self.path_prefix.without_slash()),
        };
        (issuer, jwks_uri)
    }
}

/// How much of a foreign name a refusal repeats.
const DOMAIN_CHARS_TOLD: usize = 100;

#[cfg(test)]
mod tests;
