//! The directory of a command's files: in memory where the machine has such a place, for this user alone, gone at the end.
//!
//! What a killed run left there is removed by the next one of the same user: its lock is free and its process is gone.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{geteuid, mkdtemp};

use crate::console::Vars;
use crate::error::Failure;
use crate::svid_files::folder::MARKER;

/// What the names begin with; the number of the process and six letters follow.
const PREFIX: &str = "spindle-exec-";

/// Memory that every Linux machine has for its users.
const SHARED_MEMORY: &str = "/dev/shm";

/// Where files are; a place of our own goes when this is dropped.
pub(super) struct PrivateDir {
    path: PathBuf,
    is_ours: bool,
}

impl PrivateDir {
    /// The given directory, or a new one.
    ///
    /// # Errors
    /// When none can be made.
    pub(super) fn of(given: Option<&Path>, vars: Vars<'_>) -> Result<Self, Failure> {
        if let Some(path) = given.filter(|path| !path.as_os_str().is_empty()) {
            let path =
                std::path::absolute(path).map_err(|error| Failure::because("cannot find -dir", &error))?;
            return Ok(Self { path, is_ours: false });
        }
        let parents = [
            vars("XDG_RUNTIME_DIR").map(PathBuf::from),
            Some(SHARED_MEMORY.into()),
            Some(std::env::temp_dir()),
        ];
        let mut last = None;
        for parent in parents.into_iter().flatten().filter(|parent| parent.is_absolute()) {
            match Self::new_in(&parent) {
                Ok(dir) => return Ok(dir),
                Err(error) => last = Some((parent, error)),
            }
        }
        let why = last
            .map_or(String::new(), |(parent, error)| format!(" in {}: {}", parent.display(), error.desc()));
        Err(Failure::new(format!("cannot make a private directory{why}")).try_this("name one with -dir"))
    }

    fn new_in(parent: &Path) -> nix::Result<Self> {
        remove_leftovers(parent);
        let template = parent.join(format!("{PREFIX}{}-XXXXXX", std::process::id()));
        Ok(Self { path: mkdtemp(&template)?, is_ours: true })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if self.is_ours {
            // Nothing can be done about what cannot be removed; the next run tries again.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if is_leftover(&entry.path()) {
            // Another run may be at it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
    let pid = name.and_then(|rest| rest.split_once('-')).and_then(|(pid, _)| pid.parse::<u32>().ok());
    let is_mine = path.symlink_metadata().is_ok_and(|dir| dir.is_dir() && dir.uid() == geteuid().as_raw());
    let Some(pid) = pid.filter(|_| is_mine) else { return false };
    // The number alone says little where several containers share the place; the lock does.
    let is_gone = !Path::new("/proc").join(pid.to_string()).exists();
    let marker = OpenOptions::new().read(true).write(true).open(path.join(MARKER));
    is_gone && marker.map_or(true, |marker| marker.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn in_dir(dir: &Path) -> PrivateDir {
        let dir = dir.to_str().unwrap().to_owned();
        PrivateDir::of(None, &move |name| (name == "XDG_RUNTIME_DIR").then(|| dir.clone())).unwrap()
    }

    #[test]
    fn a_place_of_our_own_is_private_and_goes() {
        let temp = tempfile::tempdir().unwrap();
        let dir = in_dir(temp.path());
        let path = dir.path().to_owned();
        assert!(path.starts_with(temp.path()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn a_given_directory_stays() {
        let temp = tempfile::tempdir().unwrap();
        drop(PrivateDir::of(Some(temp.path()), &|_| None).unwrap());
        assert!(temp.path().exists());
    }

    #[test]
    fn a_place_that_does_not_serve_is_passed_over() {
        let dir = PrivateDir::of(None, &|_| Some("/proc/nope".into())).unwrap();
        assert!(!dir.path().starts_with("/proc"));
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_a_living_ones_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let living = in_dir(temp.path());
        // No process has that number: it is above the kernel's largest.
        let [gone, locked, other] =
            ["spindle-exec-4194999-aaaaaa", "spindle-exec-4194999-bbbbbb", "other"].map(at);
        for dir in [&gone, &locked, &other] {
            fs::create_dir(dir).unwrap();
        }
        let marker = fs::File::create(locked.join(MARKER)).unwrap();
        marker.lock().unwrap();
        let second = in_dir(temp.path());
        assert!(!gone.exists() && locked.exists() && other.exists());
        assert!(living.path().exists() && second.path().exists());
    }
}
