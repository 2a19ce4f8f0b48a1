//! Process-wide hardening: private keys must not reach a core dump or a debugger of the same user.

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

/// Turns core dumps off, makes the process not dumpable, keeps new files from others (umask 0027 at least) and raises
/// the limit of open files to what the system allows. Failures are logged and do not stop the process.
pub fn harden() {
    forbid_core_dumps();
    if let Err(error) = prctl::set_dumpable(false) {
        tracing::warn!(%error, "cannot make the process not dumpable");
    }
    let before = umask(Mode::from_bits_truncate(0o027));
    umask(before | Mode::from_bits_truncate(0o027));
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Turns core dumps off and nothing else, for a process that must stay readable to itself. A failure is logged.
pub fn forbid_core_dumps() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "cannot turn core dumps off");
    }
}
