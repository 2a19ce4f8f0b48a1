//! What is kept of all metrics, for those who ask: Prometheus at its port, and the log on a signal.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use spindle_runtime::Shutdown;
use spindle_runtime::http::{HttpPort, plain, response};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tracing::info;

use crate::sinks::{SinkError, Uptime};

/// SPIRE's quantiles.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// How old samples may be that quantiles are told of: three parts of this.
const QUANTILES_PART: Duration = Duration::from_secs(20);

/// The text format of version 0.0.4.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A recorder that keeps totals.
pub(crate) fn recorder() -> Result<PrometheusRecorder, SinkError> {
    let builder = PrometheusBuilder::new().set_quantiles(&QUANTILES);
    let builder = builder.and_then(|builder| builder.set_bucket_duration(QUANTILES_PART));
    Ok(builder.map_err(|error| SinkError::Recorder(error.to_string()))?.build_recorder())
}

/// A port that has its certificate.
pub(crate) struct Scraped {
    pub(crate) port: HttpPort,
    pub(crate) tls: Option<TlsAcceptor>,
}

impl Scraped {
    /// Answers any path until the shutdown begins.
    pub(crate) async fn serve(self, values: PrometheusHandle, uptime: Uptime, shutdown: Shutdown) {
        let answer = move |request: Request<Incoming>| {
            let (values, uptime) = (values.clone(), uptime.clone());
            async move { answer(&request, &values, &uptime) }
        };
        match self.tls {
            None => self.port.serve(plain, answer, shutdown).await,
            Some(tls) => {
                let greet = move |stream: TcpStream| {
                    let tls = tls.clone();
                    async move { tls.accept(stream).await }
                };
                self.port.serve(greet, answer, shutdown).await;
            }
        }
    }
}

fn answer(request: &Request<Incoming>, values: &PrometheusHandle, uptime: &Uptime) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let text = "only GET and HEAD are answered\n".to_owned();
        return response(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", text);
    }
    uptime.tell();
    response(StatusCode::OK, TEXT_FORMAT, values.render())
}

/// Writes all values into the log at each SIGUSR1, SPIRE's signal for it.
///
/// # Errors
/// When the signal cannot be watched.
pub(crate) async fn dump_on_signal(
    values: PrometheusHandle,
    uptime: Uptime,
    shutdown: Shutdown,
) -> io::Result<()> {
    let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())?;
    loop {
        // Cancel-safe: both only wait.
        tokio::select! {
            Some(()) = signals.recv() => {
                uptime.tell();
                let text = values.render();
                let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
                lines.for_each(|metric| info!(metric, "metrics"));
            }
            () = shutdown.begun() => return Ok(()),
        }
    }
}
