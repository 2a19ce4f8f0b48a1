//! Who is at the other end of a connection.
//!
//! A peer is captured once, when the connection is accepted; whether it is still valid is asked per call, by whoever
//! answers. Start at [`peer_of`].

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

// The option macro expands to another macro by its bare name.
use nix::errno::Errno;
use nix::getsockopt_impl;
use nix::sockopt_impl;
use nix::sys::socket::getsockopt;
use rustls_pki_types::CertificateDer;
use spindle_spiffe_core::{SpiffeId, Timestamp, X509Svid, x509_svid::Serial};
use tokio::net::UnixStream;

sockopt_impl!(
    /// A handle on the process that called `connect`, since Linux 6.5.
    SocketPidfd,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_PEERPIDFD,
    OwnedFd
);

/// The other end of a connection, as a request's extension.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A process on this machine, over a Unix socket.
    Local(LocalPeer),
    /// The far end of a TLS connection.
    Tls {
        /// Its network address.
        addr: SocketAddr,
        /// Who it is; `None` when it presented no certificate. A bad certificate never gets this far.
        identity: Option<VerifiedPeer>,
    },
    /// A process on this machine, over a Unix socket on which TLS is spoken.
    LocalTls {
        /// The process.
        process: LocalPeer,
        /// Who it is; `None` when it presented no certificate, where it need not.
        identity: Option<VerifiedPeer>,
    },
}

/// What the kernel tells about a process at the time it connected.
#[derive(Clone, Debug)]
pub struct LocalPeer {
    /// Process number; 0 when the process is not visible in our namespace.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Opens a handle that stays with this one process; `None` below Linux 6.5.
    pub pidfd: Option<PeerPidfd>,
    /// What the layers above have learnt about the process.
    pub notes: Notes,
}

/// Opens pidfds of the process that connected, for as long as the connection is open. Between two looks at the process
/// nobody needs to hold a descriptor for it: the kernel keeps it with the socket.
#[derive(Clone, Debug)]
pub struct PeerPidfd(Weak<UnixStream>);

impl PeerPidfd {
    /// Looks once, to find out whether the kernel has such handles. Only one that does not know the option makes do
    /// without: some refuse it for a process that has ended, whose number may be another's by the time it is looked at, and
    /// without a handle nobody could tell.
    pub(crate) fn of(stream: &Arc<UnixStream>) -> io::Result<Option<Self>> {
        Ok(known(getsockopt(&**stream, SocketPidfd))?.map(|_| Self(Arc::downgrade(stream))))
    }

    /// A new handle.
    ///
    /// # Errors
    /// `NotConnected` when the connection has gone, what the kernel says when the process has.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let stream = self.0.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        Ok(getsockopt(&*stream, SocketPidfd)?)
    }
}

fn known(answer: nix::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match answer {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOPROTOOPT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Room on a connection for what the layers above have learnt about its peer; it goes with the connection. Clones share
/// it.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>);

impl Notes {
    /// What was noted last, if it is of that type.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.lock().clone()?.downcast().ok()
    }

    /// Notes `what` in place of what was there.
    pub fn set<T: Any + Send + Sync>(&self, what: T) {
        *self.lock() = Some(Arc::new(what));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<dyn Any + Send + Sync>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notes")
    }
}

/// A peer whose certificate chain was verified in the handshake of this very connection. Only the verifier makes one.
#[derive(Clone, Debug)]
pub struct VerifiedPeer(X509Svid);

impl VerifiedPeer {
    pub(crate) fn new(verified: X509Svid) -> Self {
        Self(verified)
    }

    /// The identity.
    pub fn spiffe_id(&self) -> &SpiffeId {
        self.0.spiffe_id()
    }

    /// The leaf's serial number; prints in decimal, as SPIRE keeps it.
    pub fn serial(&self) -> &Serial {
        self.0.serial()
    }

    /// The last second at which the certificate is valid. The connection can outlive it: ask per call.
    pub fn not_after(&self) -> Timestamp {
        self.0.validity().not_after
    }

    /// Whether the certificate has run out since the handshake.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.0.validity().is_over(now)
    }

    /// The chain as presented, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        self.0.chain()
    }

    /// All that is known of the certificate.
    pub fn svid(&self) -> &X509Svid {
        &self.0
    }
}

/// The peer of a request that came through one of this crate's listeners.
pub fn peer_of<T>(request: &tonic::Request<T>) -> Option<&Peer> {
    request.extensions().get::<Peer>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_that_does_not_know_the_option_makes_do_without_a_handle() {
        assert!(matches!(known(Err(Errno::ENOPROTOOPT)), Ok(None)));
        for error in [Errno::ESRCH, Errno::EINVAL, Errno::ENODATA, Errno::EMFILE] {
            assert!(known(Err(error)).is_err(), "{error}");
        }
    }

    #[test]
    fn notes_are_shared_by_clones_and_found_by_their_type() {
        let notes = Notes::default();
        assert!(notes.get::<u32>().is_none());
        notes.clone().set(7u32);
        assert_eq!(notes.get::<u32>().as_deref(), Some(&7));
        assert!(notes.get::<String>().is_none());
    }
}
