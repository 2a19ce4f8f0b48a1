//! The descriptors that a look at a process takes: its pidfd and its open `/proc/PID`.
//!
//! Ten thousand workloads that wait on their streams would hold twenty thousand of them. So a process that a pidfd can be had
//! for is held only while it is looked at, and some time after: a few are remembered, and the others are opened anew, through
//! the same connection, which names the same process for as long as it is open. Without pidfds the open directory is the
//! only thing that stays with the process, and is kept. Start at [`Grip::hold`].

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::caller::{CallerError, SocketPeer};
use crate::process::{ProcDir, ProcRoot, pidfd_of};

/// Processes that stay held after a look, two descriptors each: those that call again and again.
const RECENT_MAX: usize = 64;

/// Opens a pidfd of one process, always the same one, as often as it is asked.
#[derive(Clone)]
pub struct PidfdSource(Arc<dyn Fn() -> io::Result<OwnedFd> + Send + Sync>);

impl PidfdSource {
    /// A source that calls `open`, which answers `NotConnected` or `ESRCH` when the process cannot be had any more.
    pub fn new(open: impl Fn() -> io::Result<OwnedFd> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    fn open(&self) -> io::Result<OwnedFd> {
        (self.0)()
    }
}

impl fmt::Debug for PidfdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PidfdSource")
    }
}

/// The processes looked at last, of one proc file system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(Arc<Mutex<VecDeque<Arc<Hold>>>>);

impl Recent {
    fn keep(&self, hold: &Arc<Hold>) {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if holds.len() >= RECENT_MAX { holds.pop_front() } else { None };
        holds.push_back(hold.clone());
        // Closing takes system calls, which others need not wait for.
        drop(holds);
        drop(oldest);
    }
}

/// One process, held fast: reads through it fail once it has ended, whatever becomes of its number.
#[derive(Debug)]
pub(crate) struct Hold {
    pid: i32,
    pidfd: Option<OwnedFd>,
    dir: ProcDir,
}

impl Hold {
    fn open(root: &ProcRoot, pid: i32, pidfd: Option<OwnedFd>) -> Result<Self, CallerError> {
        let dir = ProcDir::open(root, pid)
            .map_err(|error| CallerError::from_io(pid, "its directory", error.into()))?;
        let hold = Self { pid, pidfd, dir };
        // Alive after the directory was opened: the directory is that process's own, whatever happens to the number.
        hold.check_alive()?;
        Ok(hold)
    }

    /// The process's number in its proc file system.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &ProcDir {
        &self.dir
    }

    /// The pidfd, where there are such.
    pub(crate) fn pidfd(&self) -> Option<&OwnedFd> {
        self.pidfd.as_ref()
    }

    /// Without a pidfd nothing is known here.
    pub(crate) fn check_alive(&self) -> Result<(), CallerError> {
        self.pidfd.as_ref().map_or(Ok(()), |pidfd| check_alive(self.pid, pidfd))
    }
}

/// How to get at a process again.
#[derive(Debug)]
pub(crate) enum Grip {
    /// There is no pidfd: what was opened first is all there is.
    Kept(Arc<Hold>),
    /// Opened anew once it is no longer among the recent ones.
    Reopened { root: ProcRoot, source: PidfdSource, last: Mutex<Weak<Hold>> },
}

impl Grip {
    /// Takes hold of the process at the other end of a socket for the first time.
    pub(crate) fn take(root: &ProcRoot, peer: &SocketPeer) -> Result<(Self, Arc<Hold>), CallerError> {
        let Some(source) = &peer.pidfd else {
            let pid = told_pid(root, peer)?;
            let hold = Arc::new(Hold::open(root, pid, None)?);
            return Ok((Self::Kept(hold.clone()), hold));
        };
        let pidfd = open_pidfd(peer.pid, source)?;
        let pid = visible_pid(root, peer, &pidfd)?;
        let hold = Arc::new(Hold::open(root, pid, Some(pidfd))?);
        root.recent().keep(&hold);
        let last = Mutex::new(Arc::downgrade(&hold));
        Ok((Self::Reopened { root: root.clone(), source: source.clone(), last }, hold))
    }

    /// Takes hold of the process that has the number `pid` in `root`. Kept: a number is no way back to it.
    pub(crate) fn of_pid(root: &ProcRoot, pid: i32) -> Result<(Self, Arc<Hold>), CallerError> {
        let dir = ProcDir::open(root, pid)
            .map_err(|error| CallerError::from_io(pid, "its directory", error.into()))?;
        // What has this number for us can be another process than in `root`, as when that is the host's.
        let pidfd = pidfd_of(pid).filter(|pidfd| root.pid_of(pidfd.as_fd()) == Some(pid));
        // Read last: while the directory can be read its process still has the number, so the pidfd is of the same one.
        if !dir.is_of_process(pid).map_err(|error| CallerError::from_io(pid, "status", error))? {
            return Err(CallerError::NotAProcess { pid });
        }
        let hold = Arc::new(Hold { pid, pidfd, dir });
        hold.check_alive()?;
        Ok((Self::Kept(hold.clone()), hold))
    }

    /// Whether a pidfd holds the process.
    pub(crate) fn is_pinned(&self) -> bool {
        match self {
            Self::Kept(hold) => hold.pidfd.is_some(),
            Self::Reopened { .. } => true,
        }
    }

    /// The process with the number `pid`, as it was taken.
    ///
    /// # Errors
    /// When it has ended, its connection has gone, or no descriptor is left.
    pub(crate) fn hold(&self, pid: i32) -> Result<Arc<Hold>, CallerError> {
        let (root, source, last) = match self {
            Self::Kept(hold) => return Ok(hold.clone()),
            Self::Reopened { root, source, last } => (root, source, last),
        };
        let known = last.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(hold) = known {
            return Ok(hold);
        }
        let hold = Arc::new(Hold::open(root, pid, Some(open_pidfd(pid, source)?))?);
        root.recent().keep(&hold);
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&hold);
        Ok(hold)
    }
}

impl Clone for Grip {
    fn clone(&self) -> Self {
        match self {
            Self::Kept(hold) => Self::Kept(hold.clone()),
            Self::Reopened { root, source, last } => {
                let last = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Self::Reopened { root: root.clone(), source: source.clone(), last: Mutex::new(last) }
            }
        }
    }
}

fn open_pidfd(pid: i32, source: &PidfdSource) -> Result<OwnedFd, CallerError> {
    source.open().map_err(|error| match error.kind() {
        io::ErrorKind::NotConnected => CallerError::Gone { pid },
        _ => CallerError::from_io(pid, "the pidfd", error),
    })
}

/// The pidfd knows the number in the namespace of `root`, which can differ from ours inside a container.
fn visible_pid(root: &ProcRoot, peer: &SocketPeer, pidfd: &OwnedFd) -> Result<i32, CallerError> {
    if let Some(pid) = root.pid_of(pidfd.as_fd()) {
        return Ok(pid);
    }
    check_alive(peer.pid, pidfd)?;
    told_pid(root, peer)
}

fn told_pid(root: &ProcRoot, peer: &SocketPeer) -> Result<i32, CallerError> {
    if peer.pid > 0 { Ok(peer.pid) } else { Err(CallerError::NotVisible { root: root.clone() }) }
}

/// A pidfd turns readable when the last thread of its process has ended.
fn check_alive(pid: i32, pidfd: &OwnedFd) -> Result<(), CallerError> {
    loop {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) => return Ok(()),
            Ok(_) => return Err(CallerError::Gone { pid }),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(CallerError::Proc { pid, what: "the pidfd", source: error.into() }),
        }
    }
}
