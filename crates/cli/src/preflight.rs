//! What `validate` looks at beyond the file itself: whether `run` could use the places it names. Nothing is made or changed.
//!
//! Each fault is a line of its own under its key, so that one look shows all of them. Start at [`Preflight`].

use std::fmt::Display;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess};
use spindle_spiffe_core::ErrorChain;

use crate::console::Console;
use crate::error::Failure;

/// The kernel's bound on a socket's path, less the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The largest file that is read, in bytes: what `run` takes of bundles and keys, and more.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Faults found so far, by key.
#[derive(Debug, Default)]
pub(crate) struct Preflight(Vec<(String, String)>);

impl Preflight {
    /// Adds a fault.
    pub(crate) fn fault(&mut self, key: &str, what: impl Display) {
        self.0.push((key.into(), what.to_string()));
    }

    /// A directory that is there and can be used, or can be made.
    pub(crate) fn directory(&mut self, key: &str, path: &Path) {
        if let Err(what) = usable_directory(path) {
            self.fault(key, what);
        }
    }

    /// The place of a file that is made when it is missing, with the directories above it.
    pub(crate) fn file_to_make(&mut self, key: &str, path: &Path) {
        if path.exists() {
            self.file(key, path);
            return;
        }
        match directory_of(path) {
            Some(parent) => self.directory(key, parent),
            None => self.fault(key, format!("{} is no name of a file", path.display())),
        }
    }

    /// A file that must be there: its content, if it can be read.
    pub(crate) fn file(&mut self, key: &str, path: &Path) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        let read = match fs::metadata(path) {
            // A pipe or a device would be waited for.
            Ok(facts) if !facts.is_file() => Err(format!("{} is not a file", path.display())),
            Ok(_) => fs::File::open(path)
                .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut content))
                .map_err(|error| format!("cannot read {}: {error}", path.display())),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        };
        match read {
            Ok(_) => Some(content),
            Err(what) => {
                self.fault(key, what);
                None
            }
        }
    }

    /// A log file that is appended to. Its directory is not made.
    pub(crate) fn log_file(&mut self, key: &str, path: &Path) {
        let name = path.display();
        let parent = directory_of(path).unwrap_or(Path::new("."));
        match fs::metadata(path) {
            Ok(facts) if facts.is_dir() => self.fault(key, format!("{name} is a directory")),
            Ok(_) if eaccess(path, AccessFlags::W_OK).is_err() => {
                self.fault(key, format!("this user may not write {name}"));
            }
            Ok(_) => {}
            Err(_) if !parent.is_dir() => {
                self.fault(key, format!("there is no directory {}", parent.display()));
            }
            Err(_) => self.directory(key, parent),
        }
    }

    /// A path to listen on. A socket that a running process has is none of our business.
    pub(crate) fn socket(&mut self, key: &str, path: &Path) {
        let (name, length) = (path.display(), path.as_os_str().len());
        if length > SOCKET_PATH_BYTES_MAX {
            return self.fault(
                key,
                format!("{name} has {length} bytes, a socket's path at most {SOCKET_PATH_BYTES_MAX}"),
            );
        }
        if fs::symlink_metadata(path).is_ok_and(|facts| !facts.file_type().is_socket()) {
            return self.fault(key, format!("{name} exists and is not a socket"));
        }
        self.directory(key, directory_of(path).unwrap_or(Path::new("/")));
    }

    /// An address of this machine. The port itself is not tried: the process that is to be restarted may have it.
    pub(crate) fn address(&mut self, key: &str, address: IpAddr) {
        if let Err(error) = TcpListener::bind((address, 0)) {
            self.fault(key, format!("cannot listen on {address}: {error}"));
        }
    }

    /// SPIRE's list of faults, if there are any.
    pub(crate) fn into_result(self, who: &str) -> Result<(), Invalid> {
        if self.0.is_empty() { Ok(()) } else { Err(Invalid { who: who.into(), faults: self.0 }) }
    }
}

/// A configuration with which `run` would not go far.
#[derive(Debug)]
pub(crate) struct Invalid {
    who: String,
    faults: Vec<(String, String)>,
}

/// The directory that a path is in; that of a bare name is the working directory. None for a root.
fn directory_of(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent == Path::new("") { Path::new(".") } else { parent })
}

/// A directory that can be used, or the fault with it.
fn usable_directory(path: &Path) -> Result<(), String> {
    let mut there: PathBuf =
        std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let wanted = there.clone();
    while let Err(error) = fs::metadata(&there) {
        if error.kind() != std::io::ErrorKind::NotFound || !there.pop() {
            return Err(format!("cannot use {}: {error}", there.display()));
        }
    }
    let (name, made) = (wanted.display(), if there == wanted { "use" } else { "make" });
    if !there.is_dir() {
        return Err(format!("cannot {made} the directory {name}: {} is not a directory", there.display()));
    }
    eaccess(&there, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| {
        format!("cannot {made} the directory {name}: {}: {}", there.display(), ErrorChain(&error))
    })
}

/// Prints what came of `validate`, in SPIRE's words; the exit status is in the failure.
///
/// # Errors
/// That the configuration is invalid, which has been printed then; or that the output cannot be written.
pub(crate) fn print(
    console: &mut Console<'_>,
    who: &str,
    checked: Result<(Vec<String>, Result<(), Invalid>), Failure>,
) -> Result<(), Failure> {
    let silent = || Failure::new("");
    let (notes, found) = match checked {
        Ok(checked) => checked,
        Err(failure) => {
            let failure = failure.within(&format!("SPIRE {who} configuration file is invalid"));
            failure.print_bare(console.err);
            return Err(silent().with_exit(failure.exit()));
        }
    };
    for note in &notes {
        writeln!(console.out, "Note: {note}")?;
    }
    match found {
        Ok(()) => Ok(writeln!(console.out, "SPIRE {who} configuration file is valid.")?),
        Err(Invalid { who, faults }) => {
            writeln!(console.err, "SPIRE {who} configuration file is invalid.\nValidation errors:")?;
            for (key, what) in faults {
                writeln!(console.err, "\t{key}:\n\t\t{what}")?;
            }
            Err(silent())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(check: impl FnOnce(&mut Preflight)) -> Vec<String> {
        let mut preflight = Preflight::default();
        check(&mut preflight);
        preflight.0.into_iter().map(|(_, what)| what).collect()
    }

    #[track_caller]
    fn check(found: &[String], expected: &[&str]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(found.iter().zip(expected).all(|(found, expected)| found.contains(expected)), "{found:?}");
    }

    #[test]
    fn a_directory_may_be_missing_as_long_as_it_can_be_made_and_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("a/b/c");
        check(&faults(|preflight| preflight.directory("k", &missing)), &[]);
        assert!(!dir.path().join("a").exists());
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        check(&faults(|preflight| preflight.directory("k", &file)), &["is not a directory"]);
        check(&faults(|preflight| preflight.directory("k", &file.join("below"))), &["file"]);
    }

    #[test]
    fn a_file_that_must_be_there_is_read_and_one_that_need_not_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        check(&faults(|preflight| drop(preflight.file("k", &file))), &["cannot read"]);
        check(&faults(|preflight| preflight.file_to_make("k", &file)), &[]);
        check(&faults(|preflight| preflight.log_file("k", &file)), &[]);
        assert!(!file.exists());
        fs::write(&file, "content").unwrap();
        assert_eq!(Preflight::default().file("k", &file).unwrap(), b"content");
        check(&faults(|preflight| drop(preflight.file("k", dir.path()))), &["is not a file"]);
        check(&faults(|preflight| preflight.file_to_make("k", dir.path())), &["is not a file"]);
        check(&faults(|preflight| preflight.log_file("k", dir.path())), &["is a directory"]);
        let nowhere = dir.path().join("none/file");
        check(&faults(|preflight| preflight.log_file("k", &nowhere)), &["there is no directory"]);
    }

    #[test]
    fn a_socket_has_a_short_path_and_nothing_else_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        check(&faults(|preflight| preflight.socket("k", &path)), &[]);
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        check(&faults(|preflight| preflight.socket("k", &path)), &[]);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        check(&faults(|preflight| preflight.socket("k", &file)), &["is not a socket"]);
        let long = dir.path().join("x".repeat(120));
        check(&faults(|preflight| preflight.socket("k", &long)), &["at most 107"]);
    }

    #[test]
    fn a_bare_name_is_in_the_working_directory() {
        for name in ["bare-name", "./bare-name"] {
            let path = Path::new(name);
            assert_eq!(directory_of(path), Some(Path::new(".")));
            check(&faults(|preflight| preflight.socket("k", path)), &[]);
            check(&faults(|preflight| preflight.log_file("k", path)), &[]);
            check(&faults(|preflight| preflight.file_to_make("k", path)), &[]);
        }
    }

    #[test]
    fn an_address_must_be_one_of_this_machine() {
        check(&faults(|preflight| preflight.address("k", [127, 0, 0, 1].into())), &[]);
        // Reserved for documentation: nobody's address.
        check(
            &faults(|preflight| preflight.address("k", [192, 0, 2, 1].into())),
            &["cannot listen on 192.0.2.1"],
        );
    }
}
