//! Temporary folders for stores, key files and sockets.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The longest path a Unix socket can have on Linux, without the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A folder for its owner alone, removed with all it holds when dropped.
#[derive(Debug)]
pub struct TestFolder(TempDir);

impl TestFolder {
    /// A new empty folder in the system's temporary folder.
    #[expect(clippy::new_without_default, reason = "making a folder is no default value")]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("spindle-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        Self(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` in the folder; nothing is made.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path of a new folder `name` in the folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// The path of a new file `name` with that content.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A path for a socket, checked to be short enough for one.
    pub fn socket(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        assert!(
            path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX,
            "{} is too long for a socket",
            path.display()
        );
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_and_goes_with_its_owner() {
        let folder = TestFolder::new();
        assert_eq!(std::fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let file = folder.file("a.txt", "text");
        assert_eq!(std::fs::read(&file).unwrap(), b"text");
        assert!(folder.folder("inner").is_dir());
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    #[should_panic(expected = "is too long for a socket")]
    fn a_path_too_long_for_a_socket_is_refused() {
        TestFolder::new().socket(&"x".repeat(108));
    }
}
