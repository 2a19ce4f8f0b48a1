//! Dials a SPIFFE server over TLS and keeps the cause when it refuses us.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::ServerName;
use spindle_spiffe_core::{Clock, SpiffeId, TrustDomain, VerifyError, X509Svid};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::error::{DialError, HandshakeError, tls_error};
use super::live::{LiveBundles, LiveIdentity};
use super::verifier::{Anchors, SpiffeVerifier};
use super::{ALPN, post_quantum_provider, provider};
use crate::grpc::{PING_EVERY, PING_TIMEOUT};

/// Name lookup and TCP connect together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that has not shaken hands by then is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which server has to answer. There is no "anyone".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedServer {
    /// Exactly this one.
    Id(SpiffeId),
    /// Any member of the trust domain.
    MemberOf(TrustDomain),
    /// Any agent of the trust domain: its ID lies below `/spire/agent/`, where no workload's does.
    AgentOf(TrustDomain),
}

impl ExpectedServer {
    pub(super) fn check(&self, svid: &X509Svid) -> Result<(), VerifyError> {
        match self {
            Self::Id(spiffe_id) => svid.require_id(spiffe_id),
            Self::MemberOf(trust_domain) if svid.spiffe_id().is_member_of(trust_domain) => Ok(()),
            Self::AgentOf(trust_domain)
                if svid.spiffe_id().is_member_of(trust_domain) && svid.spiffe_id().is_agent() =>
            {
                Ok(())
            }
            Self::AgentOf(trust_domain) => {
                let expected = trust_domain.member("/spire/agent").unwrap_or_else(|_| trust_domain.id());
                Err(VerifyError::WrongId { expected, found: svid.spiffe_id().clone() })
            }
            Self::MemberOf(trust_domain) => {
                Err(VerifyError::WrongId { expected: trust_domain.id(), found: svid.spiffe_id().clone() })
            }
        }
    }
}

/// What the server's chain is held against.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The bundles of the moment.
    Bundles(LiveBundles),
    /// Nothing, for one connection: the leaf must be well formed and name the expected server, no signature on it is
    /// checked. For the first contact of an agent that was told to. A lost connection is not made again.
    InsecureOnce,
}

/// How the key of a connection may be agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyExchange {
    /// With X25519MLKEM768 if the server can, else with an elliptic curve.
    #[default]
    PreferPostQuantum,
    /// With X25519MLKEM768 or not at all, so that what is recorded today stays secret from quantum computers.
    RequirePostQuantum,
}

/// Dials one server.
#[derive(Clone)]
pub struct TlsDialer {
    /// Name or address of the server, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Presented to the server; `None`, or one that is not set, presents nothing.
    pub identity: Option<LiveIdentity>,
    /// What the server is held against.
    pub trust: Trust,
    /// Who the server has to be.
    pub expected: ExpectedServer,
    /// How the key may be agreed on.
    pub key_exchange: KeyExchange,
    /// For validity.
    pub clock: Arc<dyn Clock>,
    faults: Faults,
}

impl TlsDialer {
    /// A dialer that presents no identity yet.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        trust: Trust,
        expected: ExpectedServer,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (key_exchange, faults) = (KeyExchange::default(), Faults::default());
        Self { host: host.into(), port, identity: None, trust, expected, key_exchange, clock, faults }
    }

    /// The same dialer, agreeing on keys as `key_exchange` says.
    #[must_use]
    pub fn with_key_exchange(mut self, key_exchange: KeyExchange) -> Self {
        self.key_exchange = key_exchange;
        self
    }

    /// The same dialer, presenting `identity`.
    #[must_use]
    pub fn with_identity(mut self, identity: LiveIdentity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Connects, and again by itself when the connection is lost. Reconnects present and trust what is live then.
    ///
    /// A server that refuses our certificate says so only after this: calls fail, and [`TlsDialer::last_fault`] tells why.
    ///
    /// # Errors
    /// When the server cannot be reached or is not the expected one; [`DialError::reason`] tells them apart.
    pub async fn connect(&self) -> Result<Channel, DialError> {
        self.connect_presented().await.map(|(channel, _)| channel)
    }

    /// As [`TlsDialer::connect`], with the chain that the server presented. Under [`Trust::InsecureOnce`] nobody vouches
    /// for it.
    ///
    /// # Errors
    /// As [`TlsDialer::connect`].
    pub async fn connect_presented(&self) -> Result<(Channel, X509Svid), DialError> {
        let endpoint = self.endpoint()?;
        let (stream, svid) = self.dial().await?;
        let first = Arc::new(Mutex::new(Some(stream)));
        let dialer = self.clone();
        let connector = service_fn(move |_| {
            let (first, dialer) = (first.clone(), dialer.clone());
            async move { dialer.next_stream(&first).await.map(TokioIo::new) }
        });
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|source| DialError::Protocol { target: self.target(), source })?;
        Ok((channel, svid))
    }

    /// Connects over a Unix socket, once: a connection that is lost is not made again. The host and the port are not used.
    ///
    /// # Errors
    /// As [`TlsDialer::connect`].
    pub async fn connect_unix(&self, socket: &Path) -> Result<Channel, DialError> {
        let target = || socket.display().to_string();
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|source| DialError::Connect { target: target(), source })?;
        let name = ServerName::try_from("localhost").map_err(|_| DialError::Address { target: target() })?;
        let (stream, _) = timeout(HANDSHAKE_TIMEOUT, self.shake_hands(stream, name))
            .await
            .unwrap_or(Err(HandshakeError::Timeout(HANDSHAKE_TIMEOUT)))
            .map_err(|source| DialError::Handshake { target: target(), source })?;
        let mut once = Some(TokioIo::new(stream));
        let connector = service_fn(move |_| {
            let stream = once.take().ok_or_else(|| DialError::OnceOnly { target: "the socket".into() });
            std::future::ready(stream)
        });
        Endpoint::from_static("https://localhost")
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .connect_with_connector(connector)
            .await
            .map_err(|source| DialError::Protocol { target: target(), source })
    }

    /// Why the server, or the last attempt to reach it again, failed since the last handshake that worked. Calls on a
    /// channel only say that the connection broke.
    pub fn last_fault(&self) -> Option<Arc<DialError>> {
        self.faults.get()
    }

    /// Host and port, as for logs.
    pub fn target(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn endpoint(&self) -> Result<Endpoint, DialError> {
        let endpoint = Endpoint::from_shared(format!("https://{}", self.target()))
            .map_err(|_| DialError::Address { target: self.target() })?;
        // Pings only while calls are open: go servers cut off clients that ping an idle connection.
        Ok(endpoint.http2_keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_TIMEOUT))
    }

    /// The stream that was dialed up front, and a new one each time after it.
    async fn next_stream(&self, first: &Mutex<Option<ClientIo>>) -> Result<ClientIo, Arc<DialError>> {
        let dialed = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stream) = dialed {
            return Ok(stream);
        }
        let again = match self.trust {
            Trust::Bundles(_) => self.dial().await,
            Trust::InsecureOnce => Err(DialError::OnceOnly { target: self.target() }),
        };
        again.map(|(stream, _)| stream).map_err(|error| self.faults.set(error))
    }

    async fn dial(&self) -> Result<(ClientIo, X509Svid), DialError> {
        let stream =
            self.dial_tcp().await.map_err(|source| DialError::Connect { target: self.target(), source })?;
        let failed = |source| DialError::Handshake { target: self.target(), source };
        // For balancers that route by name; the verifier does not look at it.
        let name = ServerName::try_from(self.host.clone())
            .or_else(|_| stream.peer_addr().map(|addr| ServerName::from(addr.ip())))
            .map_err(|error| failed(HandshakeError::Io(error)))?;
        let handshake = timeout(HANDSHAKE_TIMEOUT, self.shake_hands(stream, name)).await;
        let (stream, svid) =
            handshake.unwrap_or(Err(HandshakeError::Timeout(HANDSHAKE_TIMEOUT))).map_err(failed)?;
        self.faults.clear();
        Ok((ClientIo { stream, target: self.target(), faults: self.faults.clone() }, svid))
    }

    async fn dial_tcp(&self) -> io::Result<TcpStream> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host.as_str(), self.port)))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
        // Without it small requests wait for the server's acknowledgement.
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: ServerName<'static>,
    ) -> Result<(TlsStream<S>, X509Svid), HandshakeError> {
        let anchors = match &self.trust {
            Trust::Bundles(bundles) => Anchors::Bundles(bundles.clone()),
            Trust::InsecureOnce => Anchors::Unchecked,
        };
        let verifier =
            Arc::new(SpiffeVerifier::new(anchors, Some(self.expected.clone()), self.clock.clone()));
        let provider = match self.key_exchange {
            KeyExchange::PreferPostQuantum => provider(),
            KeyExchange::RequirePostQuantum => post_quantum_provider(),
        };
        let config = client_config(provider, verifier.clone(), self.identity.clone().unwrap_or_default())
            .map_err(HandshakeError::Tls)?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        match (connected, verifier.verdict()) {
            (_, Some(Err(refused))) => Err(HandshakeError::Refused(refused.clone())),
            (Err(error), Some(Ok(_))) => Err(HandshakeError::from_io(error)),
            // It gave up before it presented anything: the fault is not in our certificate.
            (Err(error), None) => Err(HandshakeError::before_certificates(error)),
            (Ok(_), None) => Err(HandshakeError::NoCertificate),
            (Ok(stream), Some(Ok(svid))) => Ok((stream, svid.clone())),
        }
    }
}

fn client_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<SpiffeVerifier>,
    identity: LiveIdentity,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The latest fault, shared by a dialer and its connections.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<Option<Arc<DialError>>>>);

impl Faults {
    fn get(&self) -> Option<Arc<DialError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, fault: DialError) -> Arc<DialError> {
        let fault = Arc::new(fault);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.clone());
        fault
    }

    fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A connection that notes the TLS error it ends with: HTTP/2 keeps only its text.
struct ClientIo {
    stream: TlsStream<TcpStream>,
    target: String,
    faults: Faults,
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && let Some(rustls::Error::AlertReceived(alert)) = tls_error(error)
        {
            let source = HandshakeError::RefusedByPeer(*alert);
            this.faults.set(DialError::Handshake { target: this.target.clone(), source });
        }
        read
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
