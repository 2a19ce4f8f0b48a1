//! Files of bounded size: reading, and writing for the owner alone, complete or not at all.

use std::io::{self, ErrorKind};
use std::path::Path;

use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the file is too large")]
    TooLarge,
}

/// Reads at most `bytes_max` bytes; a larger file is refused.
pub(crate) async fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a larger file from one that just fits.
    File::open(path).await?.take(bytes_max as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > bytes_max { Err(ReadError::TooLarge) } else { Ok(bytes) }
}

/// Replaces a file by its temporary neighbour, readable for the owner alone.
pub(crate) async fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // One left by an earlier run that was killed must not lend its mode to this one.
    match fs::remove_file(&temporary).await {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).await?;
    file.write_all(content).await?;
    file.sync_all().await?;
    fs::rename(&temporary, path).await
}

/// Makes a directory for the owner alone, with the parents it lacks.
pub(crate) async fn make_private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_file_is_read_up_to_its_bound_and_not_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).await.unwrap(), b"12345");
        assert!(matches!(read(&path, 4).await, Err(ReadError::TooLarge)));
        assert!(matches!(read(&dir.path().join("none"), 4).await, Err(ReadError::Io(_))));
    }

    #[tokio::test]
    async fn a_replaced_file_is_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        make_private_directory(&below).await.unwrap();
        let path = below.join("file");
        std::fs::write(below.join("file.new"), b"left over").unwrap();
        replace(&path, b"one").await.unwrap();
        replace(&path, b"two").await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&below)), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(&below).unwrap().count(), 1);
    }
}
