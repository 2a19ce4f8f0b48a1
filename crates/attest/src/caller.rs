//! A handle on one process: the one that opened a connection, or one that somebody trusted names by its number.
//!
//! With a pidfd (Linux 6.5) the handle cannot be fooled by a reused process number: the pidfd is polled after `/proc/PID`
//! was opened, and the open directory never moves on to another process. Without one, the socket's uid and gid must match
//! and the start time is read twice; a number reused by the same user between connect and the first look goes unseen.
//! A process that is named by its number is held by its open `/proc/PID`, and by a pidfd where our numbers are those of the
//! proc file system. Start at [`Caller::open`] or [`Caller::of_pid`], and call [`Caller::recheck`] before acting on what was
//! learnt earlier. Which descriptors that takes, and for how long they are kept, is told in `grip.rs`.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;

use spindle_spiffe_core::Reason;

use crate::grip::{Grip, Hold, PidfdSource};
use crate::process::{Credentials, ExeId, Life, ProcRoot};

/// What the kernel told about the other end of a Unix socket.
#[derive(Clone, Debug)]
pub struct SocketPeer {
    /// Process number in our namespace; 0 when the process is not visible there.
    pub pid: i32,
    /// Effective user id at the time of connect.
    pub uid: u32,
    /// Effective group id at the time of connect.
    pub gid: u32,
    /// Opens what `SO_PEERPIDFD` gives; `None` below Linux 6.5.
    pub pidfd: Option<PidfdSource>,
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
    grip: Grip,
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
    pub fn open(root: &ProcRoot, peer: &SocketPeer) -> Result<Self, CallerError> {
        let (grip, hold) = Grip::take(root, peer)?;
        let caller = Self::remember(grip, &hold)?;
        if !caller.is_pinned() {
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
        let (grip, hold) = Grip::of_pid(root, pid)?;
        Self::remember(grip, &hold)
    }

    /// The same process with its facts of this moment, for when it has changed.
    ///
    /// # Errors
    /// When the process has ended, or cannot be read.
    pub fn anew(&self) -> Result<Self, CallerError> {
        let hold = self.hold()?;
        hold.check_alive()?;
        Self::remember(self.grip.clone(), &hold)
    }

    fn remember(grip: Grip, hold: &Hold) -> Result<Self, CallerError> {
        let pid = hold.pid();
        let life_then = life(hold)?;
        if !grip.is_pinned() && life_then.is_ending {
            return Err(CallerError::Gone { pid });
        }
        let credentials = credentials(hold)?;
        let exe = exe_id(hold)?;
        let exe_is_local = exe.is_some() && hold.dir().exe_is_local();
        // A process that ends loses its executable before its pidfd tells so.
        if grip.is_pinned() && exe.is_none() && life(hold)?.is_ending {
            return Err(CallerError::Gone { pid });
        }
        Ok(Self { pid, grip, life: life_then, credentials, exe, exe_is_local })
    }

    /// Confirms that the process still runs, and is still what [`Caller::open`] saw: same start time, effective user and
    /// group, supplementary groups, and executable. An executable that may not be seen counts as equal to itself.
    ///
    /// # Errors
    /// [`CallerError::Gone`] or [`CallerError::Changed`], or that the kernel would not tell.
    pub fn recheck(&self) -> Result<(), CallerError> {
        let hold = self.hold()?;
        hold.check_alive()?;
        self.recheck_from(&hold, life(&hold)?)
    }

    fn recheck_from(&self, hold: &Hold, now: Life) -> Result<(), CallerError> {
        if now.is_ending && !self.is_pinned() {
            return Err(CallerError::Gone { pid: self.pid });
        }
        self.expect(now.start_ticks == self.life.start_ticks, Change::StartTime)?;
        let credentials = credentials(hold)?;
        self.expect(credentials.uid == self.credentials.uid, Change::Uid)?;
        self.expect(credentials.gid == self.credentials.gid, Change::Gid)?;
        self.expect(credentials.groups == self.credentials.groups, Change::Groups)?;
        let exe = exe_id(hold)?;
        // A process that ends loses its executable before its pidfd tells so.
        if exe.is_none() && life(hold)?.is_ending {
            return Err(CallerError::Gone { pid: self.pid });
        }
        self.expect(exe == self.exe, Change::Executable)
    }

    /// Whether the process still runs, whatever it may have become. Waits for nothing.
    pub fn is_running(&self) -> bool {
        self.hold().is_ok_and(|hold| {
            let is_alive = hold.check_alive().is_ok();
            is_alive && life(&hold).is_ok_and(|now| self.is_pinned() || !now.is_ending)
        })
    }

    /// Whether it can be said at once, without waiting for anything, that [`Caller::recheck`] would find nothing changed.
    /// Fit for threads that must not block. False says nothing: ask [`Caller::recheck`], where blocking is allowed.
    ///
    /// Looking at an executable can hang when it lies on a drive that does not answer. So this looks only while the process
    /// has a pidfd, still has the stack of the program it was seen with, and that program lies on a local file system.
    pub fn is_plainly_same(&self) -> bool {
        if !self.is_pinned() || !self.exe_is_local {
            return false;
        }
        let Some(hold) = self.hold().ok().filter(|hold| hold.check_alive().is_ok()) else { return false };
        let has_its_stack = |now: &Life| now.stack != 0 && now.stack == self.life.stack;
        let now = life(&hold).ok().filter(has_its_stack);
        now.is_some_and(|now| self.recheck_from(&hold, now).is_ok())
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
        self.grip.is_pinned()
    }

    /// A pidfd of the process: it turns readable when the process ends. None where there are no pidfds, and once it has
    /// ended.
    pub fn pidfd(&self) -> Option<OwnedFd> {
        self.hold().ok()?.pidfd()?.try_clone().ok()
    }

    /// The executable's path as the process sees it, for `caller_path` in logs; bytes that are no UTF-8 are replaced.
    pub fn path_for_log(&self) -> Option<String> {
        self.hold().ok()?.dir().exe_path().ok().map(|path| path.to_string_lossy().into_owned())
    }

    /// The process, held fast for as long as the answer lives.
    pub(crate) fn hold(&self) -> Result<Arc<Hold>, CallerError> {
        self.grip.hold(self.pid)
    }

    fn expect_socket_ids(&self, uid: u32, gid: u32) -> Result<(), CallerError> {
        self.expect(self.credentials.uid == uid, Change::Uid)?;
        self.expect(self.credentials.gid == gid, Change::Gid)
    }

    fn expect(&self, holds: bool, what: Change) -> Result<(), CallerError> {
        if holds { Ok(()) } else { Err(CallerError::Changed { pid: self.pid, what }) }
    }
}

fn life(hold: &Hold) -> Result<Life, CallerError> {
    hold.dir().life().map_err(|error| CallerError::from_io(hold.pid(), "stat", error))
}

fn credentials(hold: &Hold) -> Result<Credentials, CallerError> {
    hold.dir().credentials().map_err(|error| CallerError::from_io(hold.pid(), "status", error))
}

fn exe_id(hold: &Hold) -> Result<Option<ExeId>, CallerError> {
    hold.dir().exe_id().map_err(|error| CallerError::from_io(hold.pid(), "exe", error))
}
