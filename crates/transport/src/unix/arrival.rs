//! Connections as they come out of the queue of a listener.
//!
//! The runtime's own listener makes each connection known to the runtime before anybody has looked at it. Here that is done
//! with those that are let in only: who opens connections as fast as he can must find that each costs the listener less than
//! him. Start at [`Arrivals::poll_next`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::UnixStream;

/// The queue of a listener.
#[derive(Debug)]
pub(super) struct Arrivals {
    listener: net::UnixListener,
    /// The same socket. The runtime's listener cannot be asked whether there is anything in its queue; its streams can be,
    /// and to the kernel both are sockets.
    readiness: UnixStream,
}

impl Arrivals {
    /// Those of `listener`. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When its descriptor cannot be duplicated, or the runtime cannot wait for it.
    pub(super) fn of(listener: tokio::net::UnixListener) -> io::Result<Self> {
        let listener = listener.into_std()?;
        let same: OwnedFd = listener.as_fd().try_clone_to_owned()?;
        Ok(Self { listener, readiness: UnixStream::from_std(same.into())? })
    }

    /// The next one, as soon as there is one. Takes part in the runtime's budget for tasks, so that others have their turns
    /// however many come.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<io::Result<net::UnixStream>> {
        loop {
            ready!(self.readiness.poll_read_ready(cx))?;
            match self.readiness.try_io(Interest::READABLE, || self.listener.accept()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                accepted => return Poll::Ready(accepted.map(|(stream, _)| stream)),
            }
        }
    }
}

/// Makes a connection known to the runtime.
///
/// # Errors
/// When the runtime cannot wait for one more.
pub(super) fn into_tokio(stream: net::UnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
