//! Requests into answers: the two documents with SPIRE's statuses and headers, and refusals that say why.

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::Full;
use spindle_spiffe_core::{Reason, Timestamp};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::debug;

use crate::published::{Published, Reader};
use crate::serve::From;
use crate::site::{Asked, Page, Site};

/// An answer, whole in memory.
pub(crate) type Response = http::Response<Full<Bytes>>;

/// Answers requests at once: everything there is to say is in memory.
pub(crate) trait Answer: Send + Sync + 'static {
    /// The answer to one request. Bodies of requests are not read.
    fn answer(&self, request: &Parts, from: &From) -> Response;
}

/// Answers OpenID Connect clients.
pub(crate) struct SiteAnswers {
    pub(crate) site: Site,
    pub(crate) reader: Reader,
    pub(crate) log_requests: bool,
}

impl Answer for SiteAnswers {
    fn answer(&self, request: &Parts, from: &From) -> Response {
        if self.log_requests {
            log(request, from);
        }
        let Some(page) = self.site.page(request.uri.path()) else { return not_found() };
        if request.method != Method::GET {
            return only_get();
        }
        match page {
            Page::Discovery => self.discovery(&Asked::read(request, from.is_tls)),
            Page::Keys => self.keys(&request.headers),
        }
    }
}

impl SiteAnswers {
    fn discovery(&self, asked: &Asked) -> Response {
        match self.site.document(asked) {
            Ok(document) => json(document.into()),
            Err(foreign) => refused(StatusCode::BAD_REQUEST, &foreign.to_string(), Reason::BadRequest),
        }
    }

    fn keys(&self, headers: &HeaderMap) -> Response {
        let state = self.reader.borrow();
        match &state.keys {
            None => {
                refused(StatusCode::INTERNAL_SERVER_ERROR, "document not available", Reason::ServerStarting)
            }
            Some(keys) if keys.is_empty => refused(
                StatusCode::NOT_IMPLEMENTED,
                "jwt not supported/enabled in this service",
                Reason::JwtSvidsDisabled,
            ),
            Some(keys) => document(keys, headers),
        }
    }
}

/// The JWK Set, or that it has not changed since the client saw it. No cache may keep it: a revoked key must go at once.
fn document(keys: &Published, headers: &HeaderMap) -> Response {
    let modified = system_time(keys.modified);
    let is_known = seen(headers).is_some_and(|since| since >= modified);
    let mut response = if is_known { empty(StatusCode::NOT_MODIFIED) } else { json(keys.body.clone()) };
    for (name, value) in NO_CACHE {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let modified = HeaderValue::from_str(&httpdate::fmt_http_date(modified));
    response.headers_mut().insert(header::LAST_MODIFIED, modified.expect("a date is plain text"));
    response
}

const NO_CACHE: [(HeaderName, &str); 3] = [
    (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
    (header::PRAGMA, "no-cache"),
    (header::EXPIRES, "0"),
];

fn seen(headers: &HeaderMap) -> Option<SystemTime> {
    let text = headers.get(header::IF_MODIFIED_SINCE)?.to_str().ok()?;
    httpdate::parse_http_date(text).ok()
}

fn system_time(at: Timestamp) -> SystemTime {
    // A date of HTTP has four digits for its year.
    let secs = u64::try_from(at.unix_secs()).unwrap_or(0).min(253_402_300_799);
    UNIX_EPOCH + Duration::from_secs(secs)
}

fn json(body: Bytes) -> Response {
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    *response.body_mut() = Full::new(body);
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// SPIRE's text, and the code of the rule that refused.
pub(crate) fn refused(status: StatusCode, what: &str, reason: Reason) -> Response {
    let mut response = empty(status);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    *response.body_mut() = Full::new(format!("{what} (reason: {})\n", reason.code()).into());
    response
}

pub(crate) fn not_found() -> Response {
    refused(StatusCode::NOT_FOUND, "404 page not found", Reason::NotSupported)
}

pub(crate) fn only_get() -> Response {
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", Reason::MethodUnknown);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

/// SPIRE's record, with its names.
fn log(request: &Parts, from: &From) {
    let agent =
        request.headers.get(header::USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    debug!(
        "remote-addr" = from.address.map(|address| address.to_string()),
        method = %request.method,
        url = %request.uri,
        "user-agent" = agent.as_deref(),
        "Incoming request"
    );
}

#[cfg(test)]
mod tests;
