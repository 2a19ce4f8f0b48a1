//! A handle on one process: the one that opened a connection, or one that somebody trusted names by its number.
//!
//! With a pidfd (Linux 6.5) the handle cannot be fooled by a reused process number: the pidfd is polled after `/proc/PID`
//! was opened, and the open directory never moves on to another process. Without one, the socket's uid and gid must match
//! and the start time is read twice; a number reused by the same user between connect and the first look goes unseen.
//! A process that is named by its number is held by its open `/proc/PID`, and by a pidfd where our numbers are those of the
//! proc file system. Start at [`Caller::open`] or [`Caller::of_pid`], and call [`Caller::recheck`] before acting on what was
//! learnt earlier.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use spindle_spiffe_core::Reason;

use crate::process::{Credentials, ExeId, Life, ProcDir, ProcRoot, pidfd_of};

/// What the kernel told about the other end of a Unix socket.
#[derive(Clone, Debug)]
pub struct SocketPeer {
    /// Process number in our namespace; 0 when the process is not visible there.
    pub pid: i32,
    /// Effective user id at the time of connect.
    pub uid: u32,
    /// Effective group id at the time of connect.
    pub gid: u32,
    /// From `SO_PEERPIDFD`; `None` below Linux 6.5.
    pub pidfd: Option<Arc<OwnedFd>>,
}

/// Which fact about a caller differs from what was remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The effective user id.
    Uid,
    /// The effective group id.
    Gid,
    /// The supplementary groups.
    Groups,
    /// The start time: the number belongs to another process now.
    StartTime,
    /// The executable's device or inode: the process runs another program.
    Executable,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uid => "user id",
            Self::Gid => "group id",
            Self::Groups => "supplementary groups",
            Self::StartTime => "start time",
            Self::Executable => "executable",
        })
    }
}

/// Why a caller cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// The process has ended, or never was.
    #[error("process {pid} has ended")]
    Gone {
        /// Process number.
        pid: i32,
    },
    /// It is not what it was.
    #[error("the {what} of process {pid} has changed")]
    Changed {
        /// Process number.
        pid: i32,
        /// The first fact that differs.
        what: Change,
    },
    /// The socket tells no process number that can be looked up.
    #[error("the calling process is not visible in {}; is the agent in another process namespace?", .root.path().display())]
    NotVisible {
        /// Where it was looked for.
        root: ProcRoot,
    },
    /// The number is that of a thread, or no number of a process at all.
    #[error("{pid} is not the number of a process")]
    NotAProcess {
        /// What was given for a process number.
        pid: i32,
    },
    /// The kernel would not tell.
    #[error("cannot read {what} of process {pid}")]
    Proc {
        /// Process number.
        pid: i32,
        /// The file or link below the process directory.
        what: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl CallerError {
    /// The code to show.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Gone { .. } | Self::NotAProcess { .. } => Reason::CallerGone,
            Self::Changed { .. } => Reason::CallerChanged,
            Self::NotVisible { .. } | Self::Proc { .. } => Reason::AttestationFailed,
        }
    }

    /// A process that ends while it is read answers ESRCH, or ENOENT when its directory was not open yet.
    pub(crate) fn from_io(pid: i32, what: &'static str, source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ESRCH | Errno::ENOENT) => Self::Gone { pid },
            _ => Self::Proc { pid, what, source },
        }
    }
}

/// A pinned process with the facts remembered at [`Caller::open`].
#[derive(Debug)]
pub struct Caller {
    pid: i32,
    pidfd: Option<Arc<OwnedFd>>,
    dir: ProcDir,
    life: Life,
    credentials: Credentials,
    exe: Option<ExeId>,
    exe_is_local: bool,
}

impl Caller {
    /// Pins the process at the other end of a socket and remembers its facts of this moment.
    ///
    /// # Errors
    /// When the process has ended, cannot be seen in `root`, cannot be read, or, without a pidfd, is not the one that
    /// connected.
    pub fn open(root: &ProcRoot, peer: SocketPeer) -> Result<Self, CallerError> {
        let pid = visible_pid(root, &peer)?;
        let dir = open_dir(root, pid)?;
        let caller = Self::remember(pid, peer.pidfd, dir)?;
        if caller.pidfd.is_none() {
            // Only the facts themselves can tell that the number was not reused; a pidfd has settled that above.
            caller.expect_socket_ids(peer.uid, peer.gid)?;
            caller.recheck()?;
        }
        Ok(caller)
    }

    /// Pins the process that has the number `pid` in `root` at this moment, and remembers its facts. That the number is
    /// still the one that was meant is for those to know who named it.
    ///
    /// # Errors
    /// When there is no such process, when it has ended, or when it cannot be read.
    pub fn of_pid(root: &ProcRoot, pid: i32) -> Result<Self, CallerError> {
        if pid <= 0 {
            return Err(CallerError::NotAProcess { pid });
        }
        let dir = open_dir(root, pid)?;
        // What has this number for us can be another process than in `root`, as when that is the host's.
        let pidfd = pidfd_of(pid).filter(|pidfd| root.pid_of(pidfd.as_fd()) == Some(pid)).map(Arc::new);
        // Read last: while the directory can be read its process still has the number, so the pidfd is of the same one.
        if !dir.is_of_process(pid).map_err(|error| CallerError::from_io(pid, "status", error))? {
            return Err(CallerError::NotAProcess { pid });
        }
        Self::remember(pid, pidfd, dir)
    }

    /// The same process with its facts of this moment, for when it has changed.
    ///
    /// # Errors
    /// When the process has ended, or cannot be read.
    pub fn anew(&self) -> Result<Self, CallerError> {
        let dir =
            self.dir.try_clone().map_err(|error| CallerError::from_io(self.pid, "its directory", error))?;
        Self::remember(self.pid, self.pidfd.clone(), dir)
    }

    fn remember(pid: i32, pidfd: Option<Arc<OwnedFd>>, dir: ProcDir) -> Result<Self, CallerError> {
        // Alive after the directory was opened: the directory is that process's own, whatever happens to the number.
        check_alive(pid, pidfd.as_deref())?;
        let life_then = life(pid, &dir)?;
        if pidfd.is_none() && life_then.is_ending {
            return Err(CallerError::Gone { pid });
        }
        let credentials = credentials(pid, &dir)?;
        let exe = exe_id(pid, &dir)?;
        let exe_is_local = exe.is_some() && dir.exe_is_local();
        // A process that ends loses its executable before its pidfd tells so.
        if pidfd.is_some() && exe.is_none() && life(pid, &dir)?.is_ending {
            return Err(CallerError::Gone { pid });
        }
        Ok(Self { pid, pidfd, dir, life: life_then, credentials, exe, exe_is_local })
    }

    /// Confirms that the process still runs, and is still what [`Caller::open`] saw: same start time, effective user and
    /// group, supplementary groups, and executable. An executable that may not be seen counts as equal to itself.
    ///
    /// # Errors
    /// [`CallerError::Gone`] or [`CallerError::Changed`], or that the kernel would not tell.
    pub fn recheck(&self) -> Result<(), CallerError> {
        check_alive(self.pid, self.pidfd.as_deref())?;
        self.recheck_from(life(self.pid, &self.dir)?)
    }

    fn recheck_from(&self, now: Life) -> Result<(), CallerError> {
        if now.is_ending && self.pidfd.is_none() {
            return Err(CallerError::Gone { pid: self.pid });
        }
        self.expect(now.start_ticks == self.life.start_ticks, Change::StartTime)?;
        let credentials = credentials(self.pid, &self.dir)?;
        self.expect(credentials.uid == self.credentials.uid, Change::Uid)?;
        self.expect(credentials.gid == self.credentials.gid, Change::Gid)?;
        self.expect(credentials.groups == self.credentials.groups, Change::Groups)?;
        let exe = exe_id(self.pid, &self.dir)?;
        // A process that ends loses its executable before its pidfd tells so.
        if exe.is_none() && life(self.pid, &self.dir)?.is_ending {
            return Err(CallerError::Gone { pid: self.pid });
        }
        self.expect(exe == self.exe, Change::Executable)
    }

    /// Whether the process still runs, whatever it may have become. Waits for nothing.
    pub fn is_running(&self) -> bool {
        let is_alive = check_alive(self.pid, self.pidfd.as_deref()).is_ok();
        is_alive && life(self.pid, &self.dir).is_ok_and(|now| self.pidfd.is_some() || !now.is_ending)
    }

    /// Whether it can be said at once, without waiting for anything, that [`Caller::recheck`] would find nothing changed.
    /// Fit for threads that must not block. False says nothing: ask [`Caller::recheck`], where blocking is allowed.
    ///
    /// Looking at an executable can hang when it lies on a drive that does not answer. So this looks only while the process
    /// has a pidfd, still has the stack of the program it was seen with, and that program lies on a local file system.
    pub fn is_plainly_same(&self) -> bool {
        if self.pidfd.is_none() || !self.exe_is_local || check_alive(self.pid, self.pidfd.as_deref()).is_err()
        {
            return false;
        }
        let has_its_stack = |now: &Life| now.stack != 0 && now.stack == self.life.stack;
        let now = life(self.pid, &self.dir).ok().filter(has_its_stack);
        now.is_some_and(|now| self.recheck_from(now).is_ok())
    }

    /// Process number, in the namespace of the proc file system it was opened with.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Effective user id.
    pub fn uid(&self) -> u32 {
        self.credentials.uid
    }

    /// Effective group id.
    pub fn gid(&self) -> u32 {
        self.credentials.gid
    }

    /// Supplementary group ids, in the kernel's order.
    pub fn supplementary_gids(&self) -> &[u32] {
        &self.credentials.groups
    }

    /// Device and inode of the executable; `None` when the agent may not inspect the process.
    pub fn exe(&self) -> Option<ExeId> {
        self.exe
    }

    /// Whether a pidfd holds the process; without one a reused number can in rare cases go unseen.
    pub fn is_pinned(&self) -> bool {
        self.pidfd.is_some()
    }

    /// The pidfd that holds the process: it turns readable when the process ends.
    pub fn pidfd(&self) -> Option<&Arc<OwnedFd>> {
        self.pidfd.as_ref()
    }

    /// The executable's path as the process sees it, for `caller_path` in logs; bytes that are no UTF-8 are replaced.
    pub fn path_for_log(&self) -> Option<String> {
        self.dir.exe_path().ok().map(|path| path.to_string_lossy().into_owned())
    }

    pub(crate) fn dir(&self) -> &ProcDir {
        &self.dir
    }

    fn expect_socket_ids(&self, uid: u32, gid: u32) -> Result<(), CallerError> {
        self.expect(self.credentials.uid == uid, Change::Uid)?;
        self.expect(self.credentials.gid == gid, Change::Gid)
    }

    fn expect(&self, holds: bool, what: Change) -> Result<(), CallerError> {
        if holds { Ok(()) } else { Err(CallerError::Changed { pid: self.pid, what }) }
    }
}

fn open_dir(root: &ProcRoot, pid: i32) -> Result<ProcDir, CallerError> {
    ProcDir::open(root, pid).map_err(|error| CallerError::from_io(pid, "its directory", error.into()))
}

/// The pidfd knows the number in the namespace of `root`, which can differ from ours inside a container.
fn visible_pid(root: &ProcRoot, peer: &SocketPeer) -> Result<i32, CallerError> {
    if let Some(pidfd) = &peer.pidfd {
        if let Some(pid) = root.pid_of(pidfd.as_fd()) {
            return Ok(pid);
        }
        check_alive(peer.pid, Some(pidfd))?;
    }
    if peer.pid > 0 { Ok(peer.pid) } else { Err(CallerError::NotVisible { root: root.clone() }) }
}

/// A pidfd turns readable when the last thread of its process has ended. Without one nothing is known here.
fn check_alive(pid: i32, pidfd: Option<&OwnedFd>) -> Result<(), CallerError> {
    let Some(pidfd) = pidfd else { return Ok(()) };
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

fn life(pid: i32, dir: &ProcDir) -> Result<Life, CallerError> {
    dir.life().map_err(|error| CallerError::from_io(pid, "stat", error))
}

fn credentials(pid: i32, dir: &ProcDir) -> Result<Credentials, CallerError> {
    dir.credentials().map_err(|error| CallerError::from_io(pid, "status", error))
}

fn exe_id(pid: i32, dir: &ProcDir) -> Result<Option<ExeId>, CallerError> {
    dir.exe_id().map_err(|error| CallerError::from_io(pid, "exe", error))
}
