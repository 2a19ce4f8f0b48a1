//! The one connection type that both listeners hand to tonic.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::headers::{HeaderShim, PREFACE};
use crate::peer::{LocalPeer, Peer, VerifiedPeer};
use crate::unix::crowd::{Crowded, Place};
use crate::unix::stream::SharedStream;

/// An accepted connection. Its [`Peer`] travels with every request on it.
#[derive(Debug)]
pub struct Io {
    stream: Stream,
    peer: Peer,
    opening: Option<Opening>,
    /// Given back when the connection goes.
    _place: Option<Place>,
    crowded: Option<Crowded>,
    turn: Duration,
}

/// A client that says nothing after it has connected is let go after this long.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which the client has not finished its first words. After them pings find out who is still there.
#[derive(Debug)]
struct Opening {
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
}

#[derive(Debug)]
enum Stream {
    Local(SharedStream),
    Workload(Box<HeaderShim<SharedStream>>),
    Tls(Box<TlsStream<TcpStream>>),
    LocalTls(Box<HeaderShim<TlsStream<Io>>>),
}

impl Io {
    pub(crate) fn local(stream: SharedStream, peer: LocalPeer, place: Place) -> Self {
        Self::new(Stream::Local(stream), Peer::Local(peer), Some(place))
    }

    pub(crate) fn workload(stream: SharedStream, peer: LocalPeer, place: Place) -> Self {
        let stream = Stream::Workload(Box::new(HeaderShim::new(stream)));
        Self::new(stream, Peer::Local(peer), Some(place))
    }

    pub(crate) fn tls(
        stream: TlsStream<TcpStream>,
        addr: std::net::SocketAddr,
        identity: Option<VerifiedPeer>,
    ) -> Self {
        Self::new(Stream::Tls(Box::new(stream)), Peer::Tls { addr, identity }, None)
    }

    /// `stream` keeps its place as long as it is open. What is inside TLS comes from any gRPC library.
    pub(crate) fn local_tls(
        stream: TlsStream<Io>,
        process: LocalPeer,
        identity: Option<VerifiedPeer>,
    ) -> Self {
        let stream = Stream::LocalTls(Box::new(HeaderShim::new(stream)));
        Self::new(stream, Peer::LocalTls { process, identity }, None)
    }

    fn new(stream: Stream, peer: Peer, place: Option<Place>) -> Self {
        let opening = Opening { deadline: Box::pin(sleep(OPENING_TIMEOUT)), bytes_left: PREFACE.len() };
        Self { stream, peer, opening: Some(opening), _place: place, crowded: None, turn: Duration::ZERO }
    }

    /// Fails once the opening takes too long. `read` is what has just come, if anything.
    fn watch_opening(&mut self, cx: &mut Context<'_>, read: Option<usize>) -> io::Result<()> {
        let Some(opening) = &mut self.opening else { return Ok(()) };
        if let Some(bytes) = read {
            opening.bytes_left = opening.bytes_left.saturating_sub(bytes);
            if opening.bytes_left == 0 {
                self.opening = None;
            }
        } else if opening.deadline.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not begin to speak HTTP/2"));
        }
        Ok(())
    }

    /// Says that this connection is one too many: all that its calls get is a refusal.
    pub(crate) fn too_many(self, crowded: Crowded) -> Self {
        Self { crowded: Some(crowded), ..self }
    }

    /// The bound that this connection is beyond.
    pub(crate) fn crowded(&self) -> Option<Crowded> {
        self.crowded
    }

    /// Says how long it is until the connection's turn comes.
    pub(crate) fn wait_for_turn(self, turn: Duration) -> Self {
        Self { turn, ..self }
    }

    /// How long the connection has to wait, after it was accepted, until it is served.
    pub(crate) fn turn(&self) -> Duration {
        self.turn
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Io {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// Runs the same call on whichever stream it is.
macro_rules! delegate {
    ($this:expr, $stream:ident => $call:expr) => {
        match &mut $this.stream {
            Stream::Local(inner) => {
                let $stream = Pin::new(inner);
                $call
            }
            Stream::Workload(inner) => {
                let $stream = Pin::new(&mut **inner);
                $call
            }
            Stream::Tls(inner) => {
                let $stream = Pin::new(&mut **inner);
                $call
            }
            Stream::LocalTls(inner) => {
                let $stream = Pin::new(&mut **inner);
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (this, before) = (self.get_mut(), buf.filled().len());
        let polled = delegate!(this, stream => stream.poll_read(cx, buf));
        let read = polled.is_ready().then(|| buf.filled().len() - before);
        match this.watch_opening(cx, read) {
            Ok(()) => polled,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self.get_mut(), stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.get_mut(), stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Local(stream) => stream.is_write_vectored(),
            Stream::Workload(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::LocalTls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), stream => stream.poll_shutdown(cx))
    }
}
