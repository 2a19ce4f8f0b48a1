//! The HTTP side: two paths, one request a connection, and bounds on how many and how long.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::warn;

use super::{HealthChecks, Probe};
use crate::shutdown::Shutdown;

/// Connections at once: supervisors probe one at a time. Others wait to be accepted.
const CONNECTIONS_MAX: usize = 32;

/// How long a request may take to arrive.
const HEAD_WAIT: Duration = Duration::from_secs(10);

/// How long a whole exchange may take: the checks have ten seconds each.
const EXCHANGE_WAIT: Duration = Duration::from_secs(60);

/// How long to wait when no connection can be accepted, for lack of descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    listener: TcpListener,
    address: SocketAddr,
    settings: HealthListener,
}

impl HealthListener {
    /// Takes the port. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When it is taken, or not allowed.
    pub fn bind(self) -> io::Result<BoundHealthListener> {
        let listener = std::net::TcpListener::bind(self.address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(BoundHealthListener { listener: TcpListener::from_std(listener)?, address, settings: self })
    }
}

impl BoundHealthListener {
    /// The address, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers probes until the shutdown begins.
    pub async fn serve(self, checks: Arc<HealthChecks>, shutdown: Shutdown) {
        let settings = Arc::new(self.settings);
        let mut connections = JoinSet::new();
        loop {
            // All arms are cancel-safe: a connection is accepted or not.
            tokio::select! {
                () = shutdown.begun() => return,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(exchange(stream, settings.clone(), checks.clone()))),
                    Err(error) => {
                        warn!(%error, "cannot accept a health probe");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

async fn exchange(stream: TcpStream, settings: Arc<HealthListener>, checks: Arc<HealthChecks>) {
    let service = service_fn(move |request| {
        let (settings, checks) = (settings.clone(), checks.clone());
        async move { Ok::<_, Infallible>(answer(&request, &settings, &checks).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT).keep_alive(false);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    // A probe that goes away or talks nonsense harms nobody but itself.
    let _ = tokio::time::timeout(EXCHANGE_WAIT, connection).await;
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
        _ => return plain(StatusCode::NOT_FOUND, "not found\n"),
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
    }
    let report = checks.report().await;
    let status = if report.is_well(probe) { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    respond(status, "application/json", report.to_json(probe) + "\n")
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text.to_owned())
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
