//! Facts about one process, read through an open `/proc/PID` directory.
//!
//! The open directory belongs to that one process: once it has ended every read fails, even when its number is taken by
//! another. Nothing here decides anything; see `caller.rs` for what the facts are compared with.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, makedev};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs,
};
use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::grip::Recent;

/// The largest proc file that is read, in bytes: a `status` with all 65536 supplementary groups has about 700 KiB.
const PROC_FILE_BYTES_MAX: u64 = 1 << 20;

/// What a proc file needs but for processes with hundreds of groups, in bytes.
const PROC_FILE_BYTES_USUAL: usize = 4096;

/// The kernel's `PF_EXITING`: set before a thread that ends gives anything back, its executable included.
const FLAG_EXITING: u32 = 0x4;

/// File systems that keep their files on this machine. An overlay is not among them: what lies below it is not told.
const LOCAL_FILE_SYSTEMS: [FsType; 5] =
    [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC, TMPFS_MAGIC];

/// Where the proc file system is mounted: `/proc`, or the host's one inside a container.
/// Clones share the path, and what is remembered of the processes that were looked at last.
#[derive(Clone, Debug)]
pub struct ProcRoot {
    path: Arc<Path>,
    recent: Recent,
}

impl ProcRoot {
    /// The proc file system at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into().into(), recent: Recent::default() }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// The effective user of process `pid`, as the proc file system tells it without looking closer: a process that may not
    /// be inspected counts as root's. `None` when there is no such process.
    pub fn owner_of(&self, pid: i32) -> Option<u32> {
        std::fs::metadata(self.path.join(pid.to_string())).ok().map(|facts| facts.uid())
    }

    /// The number that the process behind `pidfd` has in this proc file system; `None` once it has ended, or when it cannot
    /// be seen from here.
    pub(crate) fn pid_of(&self, pidfd: BorrowedFd<'_>) -> Option<i32> {
        let path = self.path.join("self/fdinfo").join(pidfd.as_raw_fd().to_string());
        let text = read_limited(File::open(path).ok()?).ok()?;
        number(field(&text, b"Pid:")?).filter(|pid| *pid > 0)
    }
}

impl Default for ProcRoot {
    fn default() -> Self {
        Self::new("/proc")
    }
}

/// Device and inode of an executable: what stays equal while the process runs the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExeId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// The `stat` file: whether the process still runs, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// Clock ticks from boot to the start of the process; `exec` leaves it alone.
    pub(crate) start_ticks: u64,
    /// Where the stack began at the last `exec`, a random place; 0 when we may not know.
    pub(crate) stack: u64,
    /// The main thread is ending or has ended. Others may still run, which only a pidfd can tell.
    pub(crate) is_ending: bool,
}

/// The `status` file: effective ids, and supplementary groups in the kernel's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// A handle on the process that has the number `pid` in our own namespace; none when there is none, or the number is a
/// thread's.
pub(crate) fn pidfd_of(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// An open `/proc/PID`.
#[derive(Debug)]
pub(crate) struct ProcDir(OwnedFd);

impl ProcDir {
    pub(crate) fn open(root: &ProcRoot, pid: i32) -> nix::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(&root.path.join(pid.to_string()), flags, Mode::empty()).map(Self)
    }

    /// Whether it is the directory of a whole process: threads have one as well.
    pub(crate) fn is_of_process(&self, pid: i32) -> io::Result<bool> {
        let leader = number(field(&self.read("status")?, b"Tgid:").ok_or_else(|| malformed("status"))?);
        Ok(leader == Some(pid))
    }

    pub(crate) fn life(&self) -> io::Result<Life> {
        parse_stat(&self.read("stat")?).ok_or_else(|| malformed("stat"))
    }

    pub(crate) fn credentials(&self) -> io::Result<Credentials> {
        parse_status(&self.read("status")?).ok_or_else(|| malformed("status"))
    }

    /// `None` when the process has no executable we may see: kernel threads, and other users' processes without the right
    /// to inspect them. What the kernel has in memory is enough, so no file system is asked.
    pub(crate) fn exe_id(&self) -> io::Result<Option<ExeId>> {
        match statx(&self.0, "exe", AtFlags::STATX_DONT_SYNC, StatxFlags::INO) {
            Ok(stat) => {
                let dev = makedev(stat.stx_dev_major.into(), stat.stx_dev_minor.into());
                Ok(Some(ExeId { dev, ino: stat.stx_ino }))
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the executable lies on a file system of this machine, which never keeps anybody waiting for a network or
    /// another program. Unknown ones count as if they did.
    pub(crate) fn exe_is_local(&self) -> bool {
        let opened = openat(&self.0, "exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
        opened.and_then(fstatfs).is_ok_and(|found| LOCAL_FILE_SYSTEMS.contains(&found.filesystem_type()))
    }

    /// The executable's path as the process sees it, with ` (deleted)` behind it once the file is gone.
    pub(crate) fn exe_path(&self) -> nix::Result<OsString> {
        readlinkat(&self.0, "exe")
    }

    /// The executable itself, also when it was deleted or lies in another mount namespace.
    pub(crate) fn open_exe(&self) -> nix::Result<File> {
        openat(&self.0, "exe", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let fd = openat(&self.0, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        read_limited(File::from(fd))
    }
}

/// The kernel hands out these files whole, as far as the buffer reaches: a read that leaves room has seen the end, and the
/// usual second read for it is saved.
fn read_limited(mut file: File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PROC_FILE_BYTES_USUAL];
    let read = file.read(&mut bytes)?;
    bytes.truncate(read);
    if read == PROC_FILE_BYTES_USUAL {
        file.take(PROC_FILE_BYTES_MAX - read as u64).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn malformed(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{name} has an unknown form"))
}

/// proc(5): `pid (name) state ppid ...`; the name may hold blanks and parentheses, so fields count from the last one.
fn parse_stat(text: &[u8]) -> Option<Life> {
    let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = text[after_name..].split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    // Fields 3, 9, 22 and 28.
    let state = fields.next()?;
    let flags: u32 = number(fields.nth(5)?)?;
    let start_ticks = number(fields.nth(12)?)?;
    let stack = number(fields.nth(5)?)?;
    let is_ending = matches!(state, b"Z" | b"X" | b"x") || flags & FLAG_EXITING != 0;
    Some(Life { start_ticks, stack, is_ending })
}

/// `Uid` and `Gid` list real, effective, saved and file system id; SPIRE's selectors carry the effective one.
fn parse_status(text: &[u8]) -> Option<Credentials> {
    let effective = |name: &[u8]| number(words(field(text, name)?).nth(1)?);
    let groups = words(field(text, b"Groups:")?).map(number).collect::<Option<Vec<u32>>>()?;
    Some(Credentials { uid: effective(b"Uid:")?, gid: effective(b"Gid:")?, groups })
}

/// What stands behind `name` on the line that starts with it. The kernel escapes newlines in values.
fn field<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat =
            b"77 (a) Z (b c) S 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 1000 1 2 3 4 5 6\n";
        assert_eq!(parse_stat(stat), Some(Life { start_ticks: 123_456, stack: 5, is_ending: false }));
    }

    #[test]
    fn an_ended_main_thread_is_seen() {
        let stat = b"77 (sh) Z 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 9 0 0 0 0 0 0\n";
        assert_eq!(parse_stat(stat), Some(Life { start_ticks: 9, stack: 0, is_ending: true }));
    }

    #[test]
    fn a_main_thread_about_to_end_is_seen_by_its_flag() {
        let stat = b"77 (sh) R 1 77 77 0 -1 4194564 1 0 0 0 0 0 0 0 20 0 1 0 9 0 0 0 0 0 0\n";
        assert_eq!(parse_stat(stat), Some(Life { start_ticks: 9, stack: 0, is_ending: true }));
    }

    #[test]
    fn broken_stat_files_are_refused() {
        for text in [
            &b""[..],
            b"77 (sh",
            b"77 (sh) S 1 2 3",
            b"77 (sh) S 1 77 77 0 -1 1 1 0 0 0 0 0 0 0 20 0 1 0 x 0 0 0 0 0 0",
            b"77 (sh) S 1 77 77 0 -1 1 1 0 0 0 0 0 0 0 20 0 1 0 9 0 0 0 0 0",
        ] {
            assert_eq!(parse_stat(text), None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn the_effective_ids_are_taken() {
        let status = b"Name:\tUid: 9\nUid:\t10\t11\t12\t13\nGid:\t20\t21\t22\t23\nGroups:\t4 27 \n";
        let expected = Credentials { uid: 11, gid: 21, groups: vec![4, 27] };
        assert_eq!(parse_status(status), Some(expected));
    }

    #[test]
    fn a_status_without_groups_or_with_a_bad_number_is_refused() {
        for text in [
            &b"Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\n"[..],
            b"Uid:\t1\nGid:\t1\t1\t1\t1\nGroups:\t\n",
            b"Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t4 x\n",
            b"Uid:\t1\t-1\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t\n",
        ] {
            assert_eq!(parse_status(text), None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_process_without_supplementary_groups_has_an_empty_list() {
        let status = b"Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t \n";
        assert_eq!(parse_status(status), Some(Credentials { uid: 0, gid: 0, groups: vec![] }));
    }
}
