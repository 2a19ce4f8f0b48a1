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
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tracing::{debug, info, warn};

use super::error::HandshakeError;
use super::live::{LiveBundles, LiveIdentity};
use super::verifier::{Anchors, SpiffeVerifier};
use super::{ALPN, provider};
use crate::io::Io;
use crate::log_gate::LogGate;
use crate::peer::VerifiedPeer;

/// A peer that has not shaken hands by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes at a time, some 30 KiB each: a fleet that comes back at once waits in the kernel's queue for the rest.
const HANDSHAKES_MAX: usize = 512;

/// How long accepting rests after a failure such as too many open files.
const BACK_OFF: Duration = Duration::from_millis(100);

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

    /// The address it listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The stream of connections for `serve_with_incoming_shutdown`. It never ends and never fails.
    pub fn incoming(self) -> TlsIncoming {
        TlsIncoming {
            listener: self.listener,
            tls: self.tls,
            handshakes: JoinSet::new(),
            resting: None,
            is_failing: false,
            failures: LogGate::new(),
        }
    }
}

/// What a handshake task ends with.
type Shaken = Result<Io, (SocketAddr, HandshakeError)>;

/// The connections of a TLS listener, in the order in which their handshakes end. Handshakes under way end with it.
pub struct TlsIncoming {
    listener: TcpListener,
    tls: ServerTls,
    handshakes: JoinSet<Shaken>,
    resting: Option<Pin<Box<Sleep>>>,
    is_failing: bool,
    failures: LogGate,
}

impl TlsIncoming {
    /// Accepts as long as there is room, then waits for a handshake to end.
    fn poll_accept(&mut self, cx: &mut Context<'_>) {
        while self.handshakes.len() < HANDSHAKES_MAX {
            if let Some(resting) = &mut self.resting {
                if resting.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.resting = None;
            }
            match self.listener.poll_accept(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok((stream, addr))) => {
                    self.is_failing = false;
                    self.handshakes.spawn(shake_hands(stream, addr, self.tls.clone()));
                }
                Poll::Ready(Err(error)) => self.rest(&error),
            }
        }
    }

    fn rest(&mut self, error: &io::Error) {
        if !self.is_failing {
            warn!(%error, "Cannot accept TLS connections, will keep trying");
        }
        self.is_failing = true;
        self.resting = Some(Box::pin(sleep(BACK_OFF)));
    }

    fn log_failure(&mut self, addr: SocketAddr, error: &HandshakeError) {
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

async fn shake_hands(stream: TcpStream, addr: SocketAddr, tls: ServerTls) -> Shaken {
    match timeout(HANDSHAKE_TIMEOUT, accept(stream, addr, tls)).await {
        Ok(Ok(io)) => Ok(io),
        Ok(Err(error)) => Err((addr, error)),
        Err(_) => Err((addr, HandshakeError::Timeout(HANDSHAKE_TIMEOUT))),
    }
}

async fn accept(stream: TcpStream, addr: SocketAddr, tls: ServerTls) -> Result<Io, HandshakeError> {
    // Without it small answers wait for the peer's acknowledgement.
    stream.set_nodelay(true).map_err(HandshakeError::Io)?;
    let verifier = Arc::new(SpiffeVerifier::new(Anchors::Bundles(tls.bundles), None, tls.clock));
    let config = server_config(verifier.clone(), tls.identity).map_err(HandshakeError::Tls)?;
    let accepted = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    let stream = accepted.map_err(|error| match verifier.verdict() {
        Some(Err(refused)) => HandshakeError::Refused(refused.clone()),
        _ => HandshakeError::from_io(error),
    })?;
    let identity = match verifier.verdict() {
        None => None,
        Some(Ok(svid)) => Some(VerifiedPeer::new(svid.clone())),
        // rustls does not complete a handshake that the verifier refused.
        Some(Err(refused)) => return Err(HandshakeError::Refused(refused.clone())),
    };
    Ok(Io::tls(stream, addr, identity))
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
