//! The `unix` workload attestor: user, groups and program of a process, with SPIRE's selector names.
//!
//! Ids are the effective ones. A user or group without a name, and a path that is not UTF-8, simply lack that selector.
//! Files on network or user-space file systems can stall a read: callers bound the time of an attestation.

use std::ffi::OsStr;
use std::io;

use nix::unistd::{Gid, Group, Uid, User};
use tracing::debug;

use spindle_spiffe_core::Selector;

use crate::attestor::{AttestorError, WorkloadAttestor};
use crate::caller::{Caller, CallerError};
use crate::digest::{DigestCache, Hashed, Version};

/// The plugin's name and the type of its selectors.
const NAME: &str = "unix";

/// The plugin's settings, with SPIRE's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixConfig {
    /// Whether to tell `path` and `sha256`; needs the right to inspect the processes of other users.
    pub discover_workload_path: bool,
    /// The largest executable to hash, in bytes; 0 is without limit, a negative number never hashes.
    pub workload_size_limit: i64,
}

/// Tells `uid`, `user`, `gid`, `group`, `supplementary_gid`, `supplementary_group` and, if configured, `path` and `sha256`.
#[derive(Debug, Default)]
pub struct UnixAttestor {
    config: UnixConfig,
    digests: DigestCache,
}

impl UnixAttestor {
    /// An attestor with an empty digest cache.
    pub fn new(config: UnixConfig) -> Self {
        Self { config, digests: DigestCache::default() }
    }

    /// As [`WorkloadAttestor::attest`], with other settings than those it was made with.
    ///
    /// # Errors
    /// When a fact that `config` asks for cannot be told.
    pub fn attest_with(&self, config: UnixConfig, caller: &Caller) -> Result<Vec<Selector>, AttestorError> {
        let mut shown = Shown { pid: caller.pid(), selectors: Vec::with_capacity(16) };
        shown.add("uid", caller.uid())?;
        shown.add_name("user", caller.uid(), user_name)?;
        shown.add("gid", caller.gid())?;
        shown.add_name("group", caller.gid(), group_name)?;
        for gid in caller.supplementary_gids() {
            shown.add("supplementary_gid", gid)?;
            shown.add_name("supplementary_group", *gid, group_name)?;
        }
        if config.discover_workload_path {
            self.program(config, caller, &mut shown)?;
        }
        Ok(shown.selectors)
    }

    fn program(&self, config: UnixConfig, caller: &Caller, shown: &mut Shown) -> Result<(), AttestorError> {
        let pid = caller.pid();
        let path = caller.hold()?.dir().exe_path().map_err(|error| executable(pid, error.into()))?;
        match path.into_string() {
            Ok(path) => shown.add("path", path)?,
            Err(path) => debug_no_text(pid, &path),
        }
        match u64::try_from(config.workload_size_limit) {
            Ok(limit) => shown.add("sha256", self.digest(caller, limit)?),
            Err(_) => Ok(()),
        }
    }

    fn digest(&self, caller: &Caller, limit: u64) -> Result<String, AttestorError> {
        let pid = caller.pid();
        let mut file = caller.hold()?.dir().open_exe().map_err(|error| executable(pid, error.into()))?;
        let version = Version::of(&file).map_err(|error| executable(pid, error))?;
        if limit != 0 && version.bytes > limit {
            return Err(AttestorError::TooLarge { pid, bytes: version.bytes, limit });
        }
        match self.digests.sha256(&mut file, version).map_err(|error| executable(pid, error))? {
            Hashed::Digest(digest) => Ok(digest),
            Hashed::Unsteady => Err(AttestorError::Unsteady { pid }),
            Hashed::TooSlow => Err(AttestorError::TooSlow { pid, bytes: version.bytes }),
        }
    }
}

impl WorkloadAttestor for UnixAttestor {
    fn name(&self) -> &str {
        NAME
    }

    fn attest(&self, caller: &Caller) -> Result<Vec<Selector>, AttestorError> {
        self.attest_with(self.config, caller)
    }
}

/// The selectors of one process, as they are collected.
struct Shown {
    pid: i32,
    selectors: Vec<Selector>,
}

impl Shown {
    fn add(&mut self, key: &str, value: impl std::fmt::Display) -> Result<(), AttestorError> {
        let selector = Selector::new(NAME, &format!("{key}:{value}"))
            .map_err(|source| AttestorError::Selector { pid: self.pid, source })?;
        self.selectors.push(selector);
        Ok(())
    }

    /// An id without a name has no such selector; so has one whose name database cannot be asked just now.
    fn add_name(
        &mut self,
        key: &str,
        id: u32,
        lookup: impl Fn(u32) -> nix::Result<Option<String>>,
    ) -> Result<(), AttestorError> {
        match lookup(id) {
            Ok(Some(name)) => self.add(key, name),
            Ok(None) => {
                debug!(pid = self.pid, key, id, "An id of the caller has no name");
                Ok(())
            }
            Err(error) => {
                debug!(pid = self.pid, key, id, %error, "The name of an id of the caller cannot be looked up");
                Ok(())
            }
        }
    }
}

fn user_name(uid: u32) -> nix::Result<Option<String>> {
    Ok(User::from_uid(Uid::from_raw(uid))?.map(|user| user.name))
}

fn group_name(gid: u32) -> nix::Result<Option<String>> {
    Ok(Group::from_gid(Gid::from_raw(gid))?.map(|group| group.name))
}

fn debug_no_text(pid: i32, path: &OsStr) {
    debug!(pid, ?path, "The path of the caller's executable is not UTF-8");
}

/// A process that ends takes its executable away: ESRCH, and ENOENT for one that waits to be reaped.
fn executable(pid: i32, source: io::Error) -> AttestorError {
    match CallerError::from_io(pid, "exe", source) {
        CallerError::Proc { source, .. } => AttestorError::Executable { pid, source },
        gone => AttestorError::Caller(gone),
    }
}
