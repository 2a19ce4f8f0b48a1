//! This program under the names of three workloads, so that each has a path of its own.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Failure;
use crate::spindle_cli::scratch::Dir;

const NAMES: [&str; 3] = ["orders", "billing", "stranger"];

/// Where the programs lie. They go away with this value.
pub(super) struct Programs(Dir);

impl Programs {
    /// Links the program beside itself, which costs nothing, or copies it into `fallback` where links cannot be made.
    ///
    /// # Errors
    /// When neither works.
    pub(super) fn make(fallback: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::because("cannot make the demo's programs", &error).try_this("name a directory with -dir")
        };
        let exe = std::env::current_exe().and_then(fs::canonicalize).map_err(failed)?;
        let beside = exe.parent().and_then(|dir| Dir::new_in(dir).ok());
        if let Some(dir) = beside
            && NAMES.iter().all(|name| fs::hard_link(&exe, dir.path().join(name)).is_ok())
        {
            return Ok(Self(dir));
        }
        let dir = Dir::new_in(fallback).map_err(failed)?;
        for name in NAMES {
            fs::copy(&exe, dir.path().join(name)).map_err(failed)?;
        }
        Ok(Self(dir))
    }

    /// The program of that name, as the kernel names it to the agent.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        path.canonicalize().unwrap_or(path)
    }
}
