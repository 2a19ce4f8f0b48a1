//! The directory of one run: the user's, or a new one that is removed at the end.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::Failure;

/// The directory of this run; one of our own making is removed at the end.
pub(super) enum Dir {
    /// The user's: it stays.
    Given(PathBuf),
    /// Ours: it goes.
    Own(PathBuf),
}

impl Dir {
    /// The given directory, or a new one for this user alone.
    ///
    /// # Errors
    /// When none can be made.
    pub(super) fn of(given: Option<&Path>) -> Result<Self, Failure> {
        match given.filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => Ok(Self::Given(dir.into())),
            None => Self::new_in(&std::env::temp_dir()).map_err(|error| {
                Failure::because("cannot make a temporary directory", &error).try_this("name one with -dir")
            }),
        }
    }

    /// A new directory below `parent`, for this user alone, which goes away with this value.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new_in(parent: &Path) -> io::Result<Self> {
        Ok(Self::Own(nix::unistd::mkdtemp(&parent.join("spindle-XXXXXX"))?))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Given(path) | Self::Own(path) => path,
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if let Self::Own(path) = self {
            // Nothing can be done about what cannot be removed.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_our_own_is_private_and_goes_away() {
        use std::os::unix::fs::PermissionsExt;
        let dir = Dir::of(None).unwrap();
        let path = dir.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_of_the_users_stays() {
        let temp = tempfile::tempdir().unwrap();
        drop(Dir::of(Some(temp.path())).unwrap());
        assert!(temp.path().exists());
    }
}
