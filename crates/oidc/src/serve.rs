//! Connections: accepting them, TLS, and HTTP/1.1 with bounds on how many, how large and how long.
//!
//! A connection is a task of its own, so that a slow client holds up nobody else. It ends a minute after it began at the
//! latest: clients of this kind come seldom and ask little. Start at [`Front`].

mod crowd;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use spindle_runtime::Shutdown;
use spindle_transport::{LogGate, UnixIncoming};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt;
use tracing::{debug, info, warn};

use crate::answers::Answer;
use crate::tls::ALPN_ACME;
use crowd::Crowd;

/// How long a TLS handshake may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// How long the head of a request may take to arrive, SPIRE's.
const HEAD_WAIT: Duration = Duration::from_secs(10);

/// How old a connection may grow.
const CONNECTION_AGE: Duration = Duration::from_secs(60);

/// How long the answer under way may take once the connection is to end.
const LAST_ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long to wait when no connection can be accepted, for lack of descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a request came from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct From {
    /// The client, or the proxy before it; none over a Unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// Whether it came over TLS that ends here.
    pub(crate) is_tls: bool,
}

/// What listens to one kind of clients.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) answers: Arc<dyn Answer>,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// Connections at once; further clients wait to be accepted.
    pub(crate) connections_max: usize,
    /// Connections at once from one address; a further one is closed.
    pub(crate) per_address_max: usize,
    pub(crate) shutdown: Shutdown,
}

impl Front {
    /// Answers clients over TCP until the shutdown begins, and ends with their last answers.
    pub(crate) async fn tcp(self, listener: TcpListener) {
        let (mut connections, mut crowd) = (JoinSet::new(), Crowd::new(self.per_address_max));
        let mut refused = LogGate::new();
        loop {
            // All arms are cancel-safe: a connection is accepted or not.
            let (stream, address) = tokio::select! {
                () = self.shutdown.begun() => break,
                Some(ended) = connections.join_next() => {
                    crowd.left(ended.unwrap_or_default());
                    continue;
                }
                accepted = listener.accept(), if connections.len() < self.connections_max => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            if crowd.enter(address.ip()) {
                let front = self.clone();
                connections.spawn(async move { front.tcp_connection(stream, address).await });
            } else if let Some(left_out) = refused.pass() {
                let most = self.per_address_max;
                info!(address = %address.ip(), most, left_out, "an address has too many connections, one is closed");
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// Answers clients over a Unix socket until the shutdown begins, and ends with their last answers.
    pub(crate) async fn unix(self, mut incoming: UnixIncoming) {
        let mut connections = JoinSet::new();
        loop {
            // All arms are cancel-safe: a connection is accepted or not.
            tokio::select! {
                () = self.shutdown.begun() => break,
                Some(_) = connections.join_next() => {}
                Some(Ok(io)) = incoming.next(), if connections.len() < self.connections_max => {
                    let front = self.clone();
                    connections.spawn(async move { front.converse(io, From::default()).await });
                }
            }
        }
        drop(incoming);
        while connections.join_next().await.is_some() {}
    }

    /// One connection; returns whose place is free again.
    async fn tcp_connection(self, stream: TcpStream, address: SocketAddr) -> Option<IpAddr> {
        // Without it small answers wait for the peer's acknowledgement.
        let _ = stream.set_nodelay(true);
        let from = From { address: Some(address), is_tls: self.tls.is_some() };
        let Some(tls) = self.tls.clone() else {
            self.converse(stream, from).await;
            return Some(address.ip());
        };
        match timeout(HANDSHAKE_WAIT, TlsAcceptor::from(tls).accept(stream)).await {
            // The handshake was all that an ACME server wanted (RFC 8737 4).
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(ALPN_ACME) => {}
            Ok(Ok(stream)) => self.converse(stream, from).await,
            Ok(Err(error)) => debug!(%address, %error, "a TLS handshake failed"),
            Err(_) => debug!(%address, "a TLS handshake took too long"),
        }
        Some(address.ip())
    }

    async fn converse<S>(self, stream: S, from: From)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answers = self.answers.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let response = answers.answer(&request.into_parts().0, &from);
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT).max_buf_size(HEAD_BYTES_MAX);
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        // The first arm is only borrowed, the others only wait. A client that goes away or talks nonsense harms nobody but
        // itself, so how its connection ended is not asked.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = sleep(CONNECTION_AGE) => {}
            () = self.shutdown.begun() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER_WAIT, connection).await;
    }
}

#[cfg(test)]
mod tests;
