//! Accepts connections and captures who opened them.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

// The option macro expands to another macro by its bare name.
use nix::errno::Errno;
use nix::getsockopt_impl;
use nix::sockopt_impl;
use nix::sys::socket::getsockopt;
use spindle_spiffe_core::Reason;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tracing::{debug, warn};

use super::bind::{SocketFile, UnixClients};
use super::users::{CONNECTIONS_PER_USER_MAX, Users};
use crate::io::Io;
use crate::log_gate::LogGate;
use crate::peer::{LocalPeer, Notes};

/// How long accepting rests after a failure such as too many open files.
const BACK_OFF: Duration = Duration::from_millis(100);

sockopt_impl!(
    /// A handle on the process that called `connect`, since Linux 6.5.
    PeerPidfd,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_PEERPIDFD,
    OwnedFd
);

/// The connections of a Unix listener. Failures to accept are logged once, waited out, and never end the stream.
#[derive(Debug)]
pub struct UnixIncoming {
    listener: UnixListener,
    clients: UnixClients,
    resting: Option<Pin<Box<Sleep>>>,
    is_failing: bool,
    users: Users,
    crowded: LogGate,
    // Declared last, so that the listener is closed before the file goes.
    socket_file: SocketFile,
}

impl UnixIncoming {
    pub(super) fn new(listener: UnixListener, socket_file: SocketFile, clients: UnixClients) -> Self {
        let (users, crowded) = (Users::default(), LogGate::new());
        Self { listener, clients, resting: None, is_failing: false, users, crowded, socket_file }
    }

    fn accepted(&mut self, stream: UnixStream) -> Option<Io> {
        match local_peer(&stream) {
            Ok(peer) => {
                let Some(place) = self.users.take(peer.uid) else {
                    self.refuse(&peer);
                    return None;
                };
                Some(match self.clients {
                    UnixClients::Workloads => Io::workload(stream, peer, place),
                    UnixClients::Tools => Io::local(stream, peer, place),
                })
            }
            Err(error) => {
                debug!(%error, "A local caller left before it was accepted, or cannot be held");
                None
            }
        }
    }

    fn refuse(&mut self, peer: &LocalPeer) {
        if let Some(left_out) = self.crowded.pass() {
            let path = self.socket_file.path.display();
            warn!(path = %path, caller_uid = peer.uid, pid = peer.pid, reason = Reason::Overloaded.code(), left_out,
                most = CONNECTIONS_PER_USER_MAX, "A user has too many connections open, a further one is closed");
        }
    }

    fn rest(&mut self, error: &std::io::Error) {
        if !self.is_failing {
            let path = self.socket_file.path.display();
            warn!(path = %path, %error, "Cannot accept connections, will keep trying");
        }
        self.is_failing = true;
        self.resting = Some(Box::pin(sleep(BACK_OFF)));
    }
}

impl Stream for UnixIncoming {
    type Item = Result<Io, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(resting) = &mut this.resting {
                ready!(resting.as_mut().poll(cx));
                this.resting = None;
            }
            match ready!(this.listener.poll_accept(cx)) {
                Ok((stream, _)) => {
                    this.is_failing = false;
                    if let Some(io) = this.accepted(stream) {
                        return Poll::Ready(Some(Ok(io)));
                    }
                }
                Err(error) => this.rest(&error),
            }
        }
    }
}

fn local_peer(stream: &UnixStream) -> std::io::Result<LocalPeer> {
    let credentials = stream.peer_cred()?;
    Ok(LocalPeer {
        pid: credentials.pid().unwrap_or(0),
        uid: credentials.uid(),
        gid: credentials.gid(),
        pidfd: pidfd(getsockopt(stream, PeerPidfd))?,
        notes: Notes::default(),
    })
}

/// Only a kernel that does not know the option makes do without: some refuse it for a process that has ended, whose number
/// may be another's by the time it is looked at, and without a handle nobody could tell.
fn pidfd(answer: nix::Result<OwnedFd>) -> std::io::Result<Option<Arc<OwnedFd>>> {
    match answer {
        Ok(fd) => Ok(Some(Arc::new(fd))),
        Err(Errno::ENOPROTOOPT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_that_does_not_know_the_option_makes_do_without_a_handle() {
        assert!(matches!(pidfd(Err(Errno::ENOPROTOOPT)), Ok(None)));
        for error in [Errno::ESRCH, Errno::EINVAL, Errno::ENODATA, Errno::EMFILE] {
            assert!(pidfd(Err(error)).is_err(), "{error}");
        }
    }
}
