//! Takes a path and makes it a listening socket.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::os::fd::AsRawFd;
use tokio::net::UnixSocket;

use super::arrival::Arrivals;
use super::crowd::CrowdLimits;
use super::incoming::UnixIncoming;
use super::pace::PaceLimits;

/// Connections the kernel holds until they are accepted: all workloads of a node that come back at once.
const BACKLOG: u32 = 4096;

/// Who connects to a socket, which decides whether `:authority` has to be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixClients {
    /// Any gRPC library: incoming bytes pass the authority filter.
    Workloads,
    /// Our own tools, and others that send a proper authority: incoming bytes are not looked at.
    Tools,
}

/// Where and how to listen.
#[derive(Clone, Debug)]
pub struct UnixSocketConfig {
    /// Path of the socket.
    pub path: PathBuf,
    /// Mode of the socket, such as `0o777`; who may write to it may connect.
    pub mode: u32,
    /// Mode of parent directories that have to be made; those that exist keep theirs.
    pub parent_mode: u32,
    /// Who connects.
    pub clients: UnixClients,
}

/// Why a path could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum UnixBindError {
    /// A live process has the socket.
    #[error("another process answers on {}", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket is in the way, and is left alone.
    #[error("{} exists and is not a socket", .path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// A listening Unix socket. The file goes when this, or what [`UnixListener::incoming`] made of it, is dropped.
#[derive(Debug)]
pub struct UnixListener {
    arrivals: Arrivals,
    socket_file: SocketFile,
    clients: UnixClients,
    limits: CrowdLimits,
    pace: Option<PaceLimits>,
}

impl UnixListener {
    /// Makes missing parent directories, removes a stale socket, and listens. Must run inside a tokio runtime.
    ///
    /// Two processes that start on one path at the same instant are not told apart here; whoever needs that holds a lock
    /// on its data directory first.
    ///
    /// # Errors
    /// When somebody answers on the path, something else is there, or the kernel refuses.
    pub fn bind(config: &UnixSocketConfig) -> Result<Self, UnixBindError> {
        let path = &config.path;
        make_parent(path, config.parent_mode)?;
        remove_stale(path)?;
        let fail = |action| io_error(action, path);
        let socket = UnixSocket::new_stream().map_err(fail("make a socket for"))?;
        socket.bind(path).map_err(fail("bind the socket"))?;
        let socket_file = SocketFile::at(path).map_err(fail("look at the socket"))?;
        // Nobody can connect before `listen`, so the mode is right from the first connection on.
        fs::set_permissions(path, Permissions::from_mode(config.mode)).map_err(fail("set the mode of"))?;
        let arrivals = socket.listen(BACKLOG).and_then(Arrivals::of).map_err(fail("listen on"))?;
        let limits = match config.clients {
            UnixClients::Workloads => CrowdLimits::workload_connections(),
            UnixClients::Tools => CrowdLimits::TOOLS,
        };
        Ok(Self { arrivals, socket_file, clients: config.clients, limits, pace: None })
    }

    /// Takes no more connections than `limits` say.
    #[must_use]
    pub fn limited(self, limits: CrowdLimits) -> Self {
        Self { limits, ..self }
    }

    /// Takes no connections more often than `limits` say.
    #[must_use]
    pub fn paced(self, limits: PaceLimits) -> Self {
        Self { pace: Some(limits), ..self }
    }

    /// The path it listens on.
    pub fn path(&self) -> &Path {
        &self.socket_file.path
    }

    /// The stream of connections for `serve_with_incoming_shutdown`. It never ends and never fails.
    pub fn incoming(self) -> UnixIncoming {
        UnixIncoming::new(self.arrivals, self.socket_file, self.clients, self.limits, self.pace)
    }
}

/// The socket's own file, removed on drop unless somebody has put another one in its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    pub(super) path: PathBuf,
    dev: u64,
    ino: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), dev: meta.dev(), ino: meta.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.dev, self.ino));
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "Cannot remove the socket");
        }
    }
}

/// Directories made here get `mode` whatever the process's umask is.
fn make_parent(path: &Path, mode: u32) -> Result<(), UnixBindError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    let missing: Vec<&Path> =
        parent.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(mode).create(dir) {
            Ok(()) => fs::set_permissions(dir, Permissions::from_mode(mode))
                .map_err(io_error("set the mode of", dir))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("make the directory", dir)(error)),
        }
    }
    Ok(())
}

fn remove_stale(path: &Path) -> Result<(), UnixBindError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("look at", path)(error)),
    };
    if !meta.file_type().is_socket() {
        return Err(UnixBindError::NotASocket { path: path.to_owned() });
    }
    match probe(path) {
        Ok(()) | Err(Errno::EAGAIN) => Err(UnixBindError::InUse { path: path.to_owned() }),
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(io_error("remove the stale socket", path)),
        Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(io_error("ask who answers on", path)(error.into())),
    }
}

/// Connects without waiting: a listener whose queue is full answers EAGAIN and is alive all the same.
fn probe(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> UnixBindError + Copy + 'a {
    move |source| UnixBindError::Io { action, path: path.to_owned(), source }
}
