//! The one connection type that both listeners hand to tonic.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::authority::AuthorityShim;
use crate::peer::{LocalPeer, Peer, VerifiedPeer};

/// An accepted connection. Its [`Peer`] travels with every request on it.
#[derive(Debug)]
pub struct Io {
    stream: Stream,
    peer: Peer,
}

#[derive(Debug)]
enum Stream {
    Local(UnixStream),
    Workload(Box<AuthorityShim<UnixStream>>),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    pub(crate) fn local(stream: UnixStream, peer: LocalPeer) -> Self {
        Self { stream: Stream::Local(stream), peer: Peer::Local(peer) }
    }

    pub(crate) fn workload(stream: UnixStream, peer: LocalPeer) -> Self {
        Self { stream: Stream::Workload(Box::new(AuthorityShim::new(stream))), peer: Peer::Local(peer) }
    }

    pub(crate) fn tls(
        stream: TlsStream<TcpStream>,
        addr: std::net::SocketAddr,
        identity: Option<VerifiedPeer>,
    ) -> Self {
        Self { stream: Stream::Tls(Box::new(stream)), peer: Peer::Tls { addr, identity } }
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
    ($this:ident, $stream:ident => $call:expr) => {
        match &mut $this.get_mut().stream {
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
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Local(stream) => stream.is_write_vectored(),
            Stream::Workload(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_shutdown(cx))
    }
}
