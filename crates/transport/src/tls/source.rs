//! Where connections come from before TLS is spoken on them: a TCP port, or a Unix socket.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tracing::warn;

use crate::io::Io;
use crate::peer::Peer;
use crate::unix::UnixIncoming;

/// How long accepting rests after a failure such as too many open files.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Listening sockets.
pub(super) enum Source {
    Tcp(TcpSource),
    /// It rests by itself.
    Unix(Box<UnixIncoming>),
}

/// A connection on which nothing was said.
pub(super) enum Arrived {
    Tcp(TcpStream, SocketAddr),
    Unix(Io),
}

/// The other end, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Address(SocketAddr),
    Process(i32),
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Process(pid) => write!(f, "process {pid}"),
        }
    }
}

impl Arrived {
    pub(super) fn from(&self) -> From {
        match self {
            Self::Tcp(_, address) => From::Address(*address),
            Self::Unix(io) => match io.peer() {
                Peer::Local(local) => From::Process(local.pid),
                Peer::Tls { addr, .. } => From::Address(*addr),
                Peer::LocalTls { process, .. } => From::Process(process.pid),
            },
        }
    }
}

/// A TCP listener whose failures are logged once and waited out.
pub(super) struct TcpSource {
    listener: TcpListener,
    resting: Option<Pin<Box<Sleep>>>,
    is_failing: bool,
}

impl TcpSource {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, resting: None, is_failing: false }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Arrived> {
        loop {
            if let Some(resting) = &mut self.resting {
                ready!(resting.as_mut().poll(cx));
                self.resting = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, address)) => {
                    self.is_failing = false;
                    return Poll::Ready(Arrived::Tcp(stream, address));
                }
                Err(error) => self.rest(&error),
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
}

impl Source {
    /// The next connection; never ends.
    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Arrived> {
        match self {
            Self::Tcp(tcp) => tcp.poll_accept(cx),
            Self::Unix(unix) => match ready!(Pin::new(&mut **unix).poll_next(cx)) {
                Some(Ok::<_, Infallible>(io)) => Poll::Ready(Arrived::Unix(io)),
                None => Poll::Pending,
            },
        }
    }
}
