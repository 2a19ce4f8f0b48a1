//! SHA-256 of executables, remembered by device, inode, size and change time.
//!
//! Hashing runs at memory speed, yet a large program called often would cost more than everything else. A digest is
//! remembered only when the file was last changed a while ago: change times are coarse, and a second write within the same
//! tick would otherwise go unseen. Who may be hashed is decided in `unix.rs`.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use nix::time::{ClockId, clock_gettime};

/// How many digests are remembered: more programs than one node runs as workloads, at about 200 bytes each.
const DIGESTS_MAX: usize = 1024;

/// A file changed less than this ago is hashed each time; ticks of common file systems are 10 ms, of old ones 2 s.
const SETTLED_AFTER_SECS: i64 = 3;

/// Read size, in bytes: large enough that system calls do not show.
const CHUNK_BYTES: usize = 128 * 1024;

/// The longest that one file is read, in seconds: tens of gigabytes from memory. A sparse file of terabytes, or a drive
/// that crawls, must not keep a thread; those who wait for an attestation give up after half a minute.
const HASH_SECS_MAX: i64 = 20;

/// What tells one content of one file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    dev: u64,
    ino: u64,
    pub(crate) bytes: u64,
    changed_secs: i64,
    changed_nanos: i64,
}

impl Version {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            dev: meta.dev(),
            ino: meta.ino(),
            bytes: meta.size(),
            changed_secs: meta.ctime(),
            changed_nanos: meta.ctime_nsec(),
        })
    }

    fn is_settled(&self, now_secs: i64) -> bool {
        self.changed_secs.saturating_add(SETTLED_AFTER_SECS) <= now_secs
    }
}

/// The outcome of hashing a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hashed {
    /// Lower-case hex.
    Digest(String),
    /// The file was changed meanwhile.
    Unsteady,
    /// Reading it would take too long.
    TooSlow,
}

/// Digests in the order they were made; the oldest goes first.
#[derive(Debug, Default)]
pub(crate) struct DigestCache(Mutex<Digests>);

#[derive(Debug, Default)]
struct Digests {
    by_version: HashMap<Version, String>,
    oldest_first: VecDeque<Version>,
}

impl DigestCache {
    /// The digest of all of `file`, whose version `version` was read by the caller; reads at most `version.bytes` and one.
    pub(crate) fn sha256(&self, file: &mut File, version: Version) -> io::Result<Hashed> {
        if let Some(digest) = self.lock().by_version.get(&version) {
            return Ok(Hashed::Digest(digest.clone()));
        }
        let now_secs = clock_gettime(ClockId::CLOCK_REALTIME)?.tv_sec();
        let give_up_at = uptime_secs()?.saturating_add(HASH_SECS_MAX);
        let is_late = || uptime_secs().is_ok_and(|now| now > give_up_at);
        let Some((digest, bytes)) = hash(file, version.bytes.saturating_add(1), is_late)? else {
            return Ok(Hashed::TooSlow);
        };
        if bytes != version.bytes || Version::of(file)? != version {
            return Ok(Hashed::Unsteady);
        }
        if version.is_settled(now_secs) {
            self.lock().remember(version, digest.clone());
        }
        Ok(Hashed::Digest(digest))
    }

    /// A panic elsewhere cannot leave a wrong digest behind: both collections only ever gain or lose whole items.
    fn lock(&self) -> MutexGuard<'_, Digests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Digests {
    fn remember(&mut self, version: Version, digest: String) {
        if self.by_version.insert(version, digest).is_some() {
            return;
        }
        self.oldest_first.push_back(version);
        if self.oldest_first.len() > DIGESTS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_version.remove(&oldest);
        }
    }
}

fn uptime_secs() -> io::Result<i64> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.tv_sec())
}

/// The digest and how much was read; none once it `is_late`.
fn hash(file: &mut File, bytes_max: u64, is_late: impl Fn() -> bool) -> io::Result<Option<(String, u64)>> {
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut limited = file.take(bytes_max);
    let mut bytes = 0;
    loop {
        if is_late() {
            return Ok(None);
        }
        match limited.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                context.update(&chunk[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some((hex(context.finish().as_ref()), bytes)))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn version(ino: u64) -> Version {
        Version { dev: 1, ino, bytes: 3, changed_secs: 0, changed_nanos: 0 }
    }

    fn file_of(content: &[u8]) -> File {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file.reopen().unwrap()
    }

    #[test]
    fn the_digest_is_lower_case_hex_of_the_whole_file() {
        let mut file = file_of(b"abc");
        let read = Version::of(&file).unwrap();
        assert_eq!(DigestCache::default().sha256(&mut file, read).unwrap(), Hashed::Digest(ABC.into()));
    }

    #[test]
    fn a_file_that_grew_since_it_was_looked_at_gives_no_digest() {
        let mut file = file_of(b"abcd");
        let read = Version { bytes: 3, ..Version::of(&file).unwrap() };
        assert_eq!(DigestCache::default().sha256(&mut file, read).unwrap(), Hashed::Unsteady);
    }

    #[test]
    fn a_file_that_shrank_since_it_was_looked_at_gives_no_digest() {
        let mut file = file_of(b"ab");
        let read = Version { bytes: 3, ..Version::of(&file).unwrap() };
        assert_eq!(DigestCache::default().sha256(&mut file, read).unwrap(), Hashed::Unsteady);
    }

    #[test]
    fn a_file_that_takes_too_long_to_read_is_given_up_in_the_middle() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        let looks = std::cell::Cell::new(0);
        let is_late = || looks.replace(looks.get() + 1) == 3;
        assert_eq!(hash(&mut file, u64::MAX, is_late).unwrap(), None);
    }

    #[test]
    fn a_file_changed_a_moment_ago_is_not_remembered() {
        let cache = DigestCache::default();
        let mut file = file_of(b"abc");
        let read = Version::of(&file).unwrap();
        cache.sha256(&mut file, read).unwrap();
        assert!(cache.lock().by_version.is_empty());
        assert!(!read.is_settled(read.changed_secs + SETTLED_AFTER_SECS - 1));
        assert!(read.is_settled(read.changed_secs + SETTLED_AFTER_SECS));
        assert!(!read.is_settled(read.changed_secs - 3600), "a change in the future is not settled");
    }

    #[test]
    fn a_remembered_digest_is_used_without_reading() {
        let cache = DigestCache::default();
        let mut file = file_of(b"abc");
        let read = Version::of(&file).unwrap();
        cache.lock().remember(read, "remembered".into());
        assert_eq!(cache.sha256(&mut file, read).unwrap(), Hashed::Digest("remembered".into()));
    }

    #[test]
    fn the_oldest_digest_leaves_when_the_cache_is_full() {
        let mut digests = Digests::default();
        for ino in 0..=DIGESTS_MAX as u64 {
            digests.remember(version(ino), ABC.into());
            digests.remember(version(ino), ABC.into());
        }
        assert_eq!(digests.by_version.len(), DIGESTS_MAX);
        assert_eq!(digests.oldest_first.len(), DIGESTS_MAX);
        assert!(!digests.by_version.contains_key(&version(0)));
        assert!(digests.by_version.contains_key(&version(DIGESTS_MAX as u64)));
    }
}
