//! A log file that can be renamed under the process: [`LogFile::reopen`] goes on in a new one under the old name.
//!
//! Each line is written whole under one lock, so a reopen loses none and splits none.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// The open file. Cloned handles share it.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), file: Arc::new(Mutex::new(open(path)?)) })
    }

    /// Lines that follow go to the file that has the name now. The old file stays in use when that one cannot be opened.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let file = open(&self.path)?;
        *self.lock() = file;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, File> {
        // A panic in the middle of a write leaves the file as usable as before.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not for everyone: a log names identities and who asked for them.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = &'a LogFile;

    fn make_writer(&'a self) -> &'a LogFile {
        self
    }
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.lock().write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_file() -> (tempfile::TempDir, PathBuf, LogFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        let log = LogFile::open(&path).unwrap();
        (dir, path, log)
    }

    #[test]
    fn after_a_rename_and_a_reopen_lines_go_to_a_new_file_under_the_old_name() {
        let (dir, path, log) = log_file();
        let old = dir.path().join("server.log.1");
        (&log).write_all(b"first\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        (&log).write_all(b"second\n").unwrap();
        log.reopen().unwrap();
        (&log).write_all(b"third\n").unwrap();
        assert_eq!(std::fs::read_to_string(old).unwrap(), "first\nsecond\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "third\n");
    }

    #[test]
    fn the_log_is_not_for_everyone() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, path, _log) = log_file();
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o137, 0);
    }

    #[test]
    fn a_reopen_that_fails_keeps_the_old_file() {
        let (dir, path, log) = log_file();
        let old = dir.path().join("old");
        std::fs::rename(&path, &old).unwrap();
        std::fs::create_dir(&path).unwrap();
        log.reopen().expect_err("a directory has the name");
        (&log).write_all(b"line\n").unwrap();
        assert_eq!(std::fs::read_to_string(old).unwrap(), "line\n");
    }

    #[test]
    fn no_line_is_lost_or_split_while_the_file_is_rotated_under_its_writers() {
        let (dir, path, log) = log_file();
        let (writers, lines, rotations) = (4, 500, 50);
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let log = &log;
                scope.spawn(move || {
                    for line in 0..lines {
                        let text = format!("{writer} {line} end\n");
                        (&mut &*log).write_all(text.as_bytes()).unwrap();
                    }
                });
            }
            for rotation in 0..rotations {
                std::fs::rename(&path, dir.path().join(format!("old.{rotation}"))).unwrap();
                log.reopen().unwrap();
            }
        });
        let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
        let text: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
        assert_eq!(text.lines().count(), writers * lines);
        assert!(text.lines().all(|line| line.ends_with(" end") && line.split(' ').count() == 3));
    }
}
