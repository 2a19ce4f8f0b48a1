//! The HTTP side: two paths.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{HealthChecks, Probe};
use crate::http::{HttpPort, plain, response};
use crate::shutdown::Shutdown;

/// Where health probes are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthListener {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Path that answers [`Probe::Live`].
    pub live_path: String,
    /// Path that answers [`Probe::Ready`].
    pub ready_path: String,
}

/// A listener that has its port. Probes wait until it serves.
#[derive(Debug)]
pub struct BoundHealthListener {
    port: HttpPort,
    settings: HealthListener,
}

impl HealthListener {
    /// Takes the port. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When it is taken, or not allowed.
    pub fn bind(self) -> io::Result<BoundHealthListener> {
        Ok(BoundHealthListener { port: HttpPort::bind(self.address)?, settings: self })
    }
}

impl BoundHealthListener {
    /// The address, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Answers probes until the shutdown begins.
    pub async fn serve(self, checks: Arc<HealthChecks>, shutdown: Shutdown) {
        let settings = Arc::new(self.settings);
        let answer = move |request: Request<Incoming>| {
            let (settings, checks) = (settings.clone(), checks.clone());
            async move { answer(&request, &settings, &checks).await }
        };
        self.port.serve(plain, answer, shutdown).await;
    }
}

async fn answer(
    request: &Request<Incoming>,
    settings: &HealthListener,
    checks: &HealthChecks,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let probe = match path {
        path if path == settings.live_path => Probe::Live,
        path if path == settings.ready_path => Probe::Ready,
        _ => return text(StatusCode::NOT_FOUND, "not found\n"),
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
    }
    let report = checks.report().await;
    let status = if report.is_well(probe) { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    response(status, "application/json", report.to_json(probe) + "\n")
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text.to_owned())
}
