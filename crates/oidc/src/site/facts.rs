//! What a request says about the address it was sent to, itself or by way of a proxy.

use http::request::Parts;
use http::{HeaderMap, header};

/// The address that the client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Host, with a port if the client named one; empty when it named none.
    pub(crate) host: String,
    /// Whether the client came over HTTP: here, and to the proxy if one says so.
    pub(crate) is_insecure: bool,
}

impl Asked {
    /// Reads a request that came over TLS or not. As with SPIRE a proxy is believed: the host has to be one of the domains
    /// all the same.
    pub(crate) fn read(request: &Parts, is_tls: bool) -> Self {
        let headers = &request.headers;
        let own = request.uri.authority().map(|authority| authority.as_str());
        let host = text(headers, "x-forwarded-host").or(own).or_else(|| text(headers, header::HOST.as_str()));
        let is_insecure =
            !is_tls && !forwarded_scheme(headers).is_some_and(|it| it.eq_ignore_ascii_case("https"));
        Self { host: host.unwrap_or_default().to_owned(), is_insecure }
    }

    /// The host without its port.
    pub(crate) fn domain(&self) -> &str {
        match self.host.rsplit_once(':') {
            Some((domain, port)) if !port.contains(']') && !domain.contains(':') => domain,
            _ => &self.host,
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

/// The scheme by which the client came to the proxy: two old headers, then RFC 7239's.
fn forwarded_scheme(headers: &HeaderMap) -> Option<&str> {
    text(headers, "x-forwarded-proto").or_else(|| text(headers, "x-forwarded-scheme")).or_else(|| {
        let first = text(headers, "forwarded")?.split(',').next()?;
        let pairs = first.split(';').filter_map(|pair| pair.split_once('='));
        let mut protos = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("proto"));
        protos.next().map(|(_, value)| value.trim().trim_matches('"'))
    })
}
