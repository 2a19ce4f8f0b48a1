//! The TLS listener: accepts, shakes hands in tasks of their own, and hands over what is done.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use spindle_spiffe_core::{Clock, ErrorChain};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tracing::{debug, info, warn};

use super::error::HandshakeError;
use super::live::{LiveBundles, LiveIdentity};
use super::source::{Arrived, From, Source, TcpSource};
use super::verifier::{Anchors, SpiffeVerifier};
use super::{ALPN, provider};
use crate::io::Io;
use crate::log_gate::LogGate;
use crate::peer::{Peer, VerifiedPeer};
use crate::unix::UnixListener;

/// A peer that has not shaken hands by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes at a time, some 30 KiB each: a fleet that comes back at once waits in the kernel's queue for the rest.
const HANDSHAKES_MAX: usize = 512;

/// What a TLS server presents, trusts and tells the time by.
#[derive(Clone)]
pub struct ServerTls {
    /// Presented to clients.
    pub identity: LiveIdentity,
    /// Clients of any trust domain in here are let in; which of them may do what is decided above.
    pub bundles: LiveBundles,
    /// For validity.
    pub clock: Arc<dyn Clock>,
}

/// A listening TCP socket with SPIFFE identities on both sides. Clients may come without a certificate.
pub struct TlsListener {
    listener: TcpListener,
    local_addr: SocketAddr,
    tls: ServerTls,
}

impl TlsListener {
    /// Listens on `addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn bind(addr: SocketAddr, tls: ServerTls) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        Ok(Self { listener, local_addr, tls })
    }

    /// As [`TlsListener::bind`], on a socket that listens already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn from_std(listener: std::net::TcpListener, tls: ServerTls) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        Ok(Self { listener: TcpListener::from_std(listener)?, local_addr, tls })
    }

    /// The address it listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The stream of connections for `serve_with_incoming_shutdown`. It never ends and never fails.
    pub fn incoming(self) -> TlsIncoming {
        TlsIncoming::new(Source::Tcp(TcpSource::new(self.listener)), self.tls)
    }
}

/// What a handshake task ends with.
type Shaken = Result<Io, (From, HandshakeError)>;

/// The connections of a TLS listener, in the order in which their handshakes end. Handshakes under way end with it.
pub struct TlsIncoming {
    source: Source,
    tls: ServerTls,
    clients: Clients,
    handshakes: JoinSet<Shaken>,
    failures: LogGate,
}

/// Whether clients may come without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clients {
    Anyone,
    Identified,
}

impl TlsIncoming {
    fn new(source: Source, tls: ServerTls) -> Self {
        let (handshakes, failures) = (JoinSet::new(), LogGate::new());
        Self { source, tls, clients: Clients::Anyone, handshakes, failures }
    }

    /// The connections of a Unix socket on which TLS is spoken as on a TCP port. Its clients are to be
    /// [`crate::UnixClients::Tools`]: what is mended for other libraries lies inside TLS here.
    pub fn over_unix(listener: UnixListener, tls: ServerTls) -> Self {
        Self::new(Source::Unix(Box::new(listener.incoming())), tls)
    }

    /// Lets no client in that presents no certificate.
    #[must_use]
    pub fn of_identified_clients(self) -> Self {
        Self { clients: Clients::Identified, ..self }
    }

    /// Accepts as long as there is room, then waits for a handshake to end.
    fn poll_accept(&mut self, cx: &mut Context<'_>) {
        while self.handshakes.len() < HANDSHAKES_MAX {
            let Poll::Ready(arrived) = self.source.poll_accept(cx) else { return };
            self.handshakes.spawn(shake_hands(arrived, self.tls.clone(), self.clients));
        }
    }

    fn log_failure(&mut self, addr: From, error: &HandshakeError) {
        if error.is_silent_end() {
            debug!(address = %addr, "A peer left before the TLS handshake");
            return;
        }
        if let Some(left_out) = self.failures.pass() {
            let (reason, cause) = (error.reason(), ErrorChain(error));
            info!(address = %addr, %reason, error = %cause, left_out, "TLS handshake failed");
        }
    }
}

impl Stream for TlsIncoming {
    type Item = Result<Io, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            this.poll_accept(cx);
            match this.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Ok(io)))) => return Poll::Ready(Some(Ok(io))),
                Poll::Ready(Some(Ok(Err((addr, error))))) => this.log_failure(addr, &error),
                Poll::Ready(Some(Err(error))) => warn!(%error, "A TLS handshake task ended badly"),
                // With no handshake under way the listener, or its rest, wakes us.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

async fn shake_hands(arrived: Arrived, tls: ServerTls, clients: Clients) -> Shaken {
    let from = arrived.from();
    match timeout(HANDSHAKE_TIMEOUT, accept(arrived, tls, clients)).await {
        Ok(Ok(io)) => Ok(io),
        Ok(Err(error)) => Err((from, error)),
        Err(_) => Err((from, HandshakeError::Timeout(HANDSHAKE_TIMEOUT))),
    }
}

async fn accept(arrived: Arrived, tls: ServerTls, clients: Clients) -> Result<Io, HandshakeError> {
    match arrived {
        Arrived::Tcp(stream, addr) => {
            // Without it small answers wait for the peer's acknowledgement.
            stream.set_nodelay(true).map_err(HandshakeError::Io)?;
            let (stream, identity) = secured(stream, tls, clients).await?;
            Ok(Io::tls(stream, addr, identity))
        }
        Arrived::Unix(io) => {
            let Peer::Local(process) = io.peer().clone() else { return Err(HandshakeError::NoCertificate) };
            let (stream, identity) = secured(io, tls, clients).await?;
            Ok(Io::local_tls(stream, process, identity))
        }
    }
}

/// The stream under TLS, and who is at its other end.
async fn secured<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    tls: ServerTls,
    clients: Clients,
) -> Result<(TlsStream<S>, Option<VerifiedPeer>), HandshakeError> {
    let verifier = SpiffeVerifier::new(Anchors::Bundles(tls.bundles), None, tls.clock)
        .demanding(clients == Clients::Identified);
    let verifier = Arc::new(verifier);
    let config = server_config(verifier.clone(), tls.identity).map_err(HandshakeError::Tls)?;
    let accepted = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    let stream = accepted.map_err(|error| match verifier.verdict() {
        Some(Err(refused)) => HandshakeError::Refused(refused.clone()),
        _ => HandshakeError::from_io(error),
    })?;
    match verifier.verdict() {
        None => Ok((stream, None)),
        Some(Ok(svid)) => Ok((stream, Some(VerifiedPeer::new(svid.clone())))),
        // rustls does not complete a handshake that the verifier refused.
        Some(Err(refused)) => Err(HandshakeError::Refused(refused.clone())),
    }
}

fn server_config(
    verifier: Arc<SpiffeVerifier>,
    identity: LiveIdentity,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
