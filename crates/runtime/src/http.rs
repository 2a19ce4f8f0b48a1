//! A port for a few small requests, such as health probes and scrapes of metrics: one request a connection, and bounds on how
//! many and how long. What is answered is for who asks for the port to say. Start at [`HttpPort::bind`].

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::shutdown::Shutdown;

/// Connections at once: who asks here asks one question at a time. Others wait to be accepted.
const CONNECTIONS_MAX: usize = 32;

/// How long a request, or what goes before it, may take to arrive.
const HEAD_WAIT: Duration = Duration::from_secs(10);

/// How long a whole exchange may take: a health check has ten seconds.
const EXCHANGE_WAIT: Duration = Duration::from_secs(60);

/// How long to wait when no connection can be accepted, for lack of descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port that is taken. Clients wait until it is served.
#[derive(Debug)]
pub struct HttpPort {
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpPort {
    /// Takes the port; 0 lets the system choose. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When it is taken, or not allowed.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener: TcpListener::from_std(listener)?, address })
    }

    /// The address, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives each request the response of `answer`, until the shutdown begins. A connection is what `greet` makes of it: itself,
    /// or itself under TLS.
    pub async fn serve<S, G, A>(
        self,
        greet: impl Fn(TcpStream) -> G + Clone + Send + 'static,
        answer: impl Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        shutdown: Shutdown,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        G: Future<Output = io::Result<S>> + Send + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        loop {
            // All arms are cancel-safe: a connection is accepted or not.
            tokio::select! {
                () = shutdown.begun() => return,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(exchange(greet(stream), answer.clone()))),
                    Err(error) => {
                        warn!(address = %self.address, %error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// For [`HttpPort::serve`] without TLS.
///
/// # Errors
/// None.
pub async fn plain(stream: TcpStream) -> io::Result<TcpStream> {
    Ok(stream)
}

/// A client that goes away or talks nonsense harms nobody but itself.
async fn exchange<S, A>(
    greeting: impl Future<Output = io::Result<S>>,
    answer: impl Fn(Request<Incoming>) -> A + Clone,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Future<Output = Response<Full<Bytes>>>,
{
    let stream = match timeout(HEAD_WAIT, greeting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "a TLS handshake failed"),
        Err(_) => return debug!("a TLS handshake took too long"),
    };
    let service = service_fn(move |request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answer(request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT).keep_alive(false);
    let _ = timeout(EXCHANGE_WAIT, http.serve_connection(TokioIo::new(stream), service)).await;
}

/// A response of one text.
pub fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
