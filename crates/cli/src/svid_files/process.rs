//! Which process a signal is for: a number, a file that holds one, or the main process of a program.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::Failure;

/// The kernel cuts names of processes to this many bytes.
const NAME_BYTES_MAX: usize = 15;

/// A pid file begins with a number; PostgreSQL's goes on with paths.
const PID_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A process by its number.
    Pid(i32),
    /// The process whose number stands in a file, which is read each time.
    PidFile(PathBuf),
    /// The process of that name whose parent has another one.
    Name(String),
}

impl Target {
    /// The number it has now.
    ///
    /// # Errors
    /// When there is no such process, or no single one.
    pub(crate) fn pid(&self) -> Result<Pid, Failure> {
        match self {
            Self::Pid(pid) => Ok(Pid::from_raw(*pid)),
            Self::PidFile(path) => pid_in(path),
            Self::Name(name) => main_process(name, &processes()),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When there is no such process, or it may not be told.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = self.pid()?;
        kill(pid, signal).map_err(|error| {
            let failure = Failure::new(format!("cannot send {signal} to process {pid}: {}", error.desc()));
            match error {
                Errno::ESRCH => failure.try_this("start the program, or correct its process number"),
                _ => failure.try_this("run as the program's user"),
            }
        })
    }
}

fn pid_in(path: &Path) -> Result<Pid, Failure> {
    let shown = path.display();
    let size = fs::metadata(path).map(|file| file.len());
    let text = match size {
        Ok(size) if size > PID_FILE_BYTES_MAX => Err(std::io::Error::other("it is too large")),
        Ok(_) => fs::read_to_string(path),
        Err(error) => Err(error),
    };
    let text = text.map_err(|error| {
        Failure::because(format!("cannot read the process number in {shown}"), &error)
            .try_this("start the program, or correct the file's name")
    })?;
    let first = text.lines().next().unwrap_or_default().trim();
    match first.parse() {
        Ok(pid) if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(Failure::new(format!("{shown} holds no process number, but {first:?}"))
            .try_this("name the file that the program writes its process number to")),
    }
}

/// One line of the process table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    name: String,
}

/// Those that can be seen; processes that end meanwhile are passed over.
fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold some itself: the last one closes it.
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let parent = tail.split_whitespace().nth(1)?.parse().ok()?;
    Some(Process { pid, parent, name: name.into() })
}

fn main_process(name: &str, all: &[Process]) -> Result<Pid, Failure> {
    let cut: String = name.chars().take(NAME_BYTES_MAX).collect();
    let is_named = |pid: i32| all.iter().any(|one| one.pid == pid && one.name == cut);
    let mains: Vec<_> =
        all.iter().filter(|one| one.name == cut && !is_named(one.parent)).map(|one| one.pid).collect();
    match mains[..] {
        [pid] => Ok(Pid::from_raw(pid)),
        [] => Err(Failure::new(format!("no process is called {name}"))
            .try_this("start the program, or correct its name")),
        _ => Err(Failure::new(format!("several programs are called {name}: processes {mains:?}"))
            .try_this("name the right one by its pid file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, name: &str) -> Process {
        Process { pid, parent, name: name.into() }
    }

    #[test]
    fn the_main_process_is_the_one_whose_parent_has_another_name() {
        let all = [
            process(1, 0, "init"),
            process(10, 1, "nginx"),
            process(11, 10, "nginx"),
            process(12, 10, "nginx"),
            process(20, 1, "a-very-long-nam"),
        ];
        assert_eq!(main_process("nginx", &all).unwrap(), Pid::from_raw(10));
        assert_eq!(main_process("a-very-long-name-indeed", &all).unwrap(), Pid::from_raw(20));
        assert!(main_process("none", &all).unwrap_err().what().contains("no process is called none"));
        let two = [process(1, 0, "nginx"), process(2, 0, "nginx")];
        assert!(main_process("nginx", &two).unwrap_err().what().contains("[1, 2]"));
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = i32::try_from(std::process::id()).unwrap();
        let found = processes().into_iter().find(|one| one.pid == own).unwrap();
        assert_eq!(found.parent, nix::unistd::getppid().as_raw());
    }

    #[test]
    fn a_pid_file_is_read_up_to_its_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            Target::PidFile(path.clone()).pid()
        };
        let long = format!("17\n{}\n1700000000\n5432\n/run\nlocalhost\n", "/data".repeat(800));
        assert_eq!(read(&long).unwrap(), Pid::from_raw(17), "as PostgreSQL writes it");
        for text in ["", "-1", "0", "x", "99999999999"] {
            assert!(read(text).unwrap_err().what().contains("holds no process number"), "{text}");
        }
        assert!(read(&"1".repeat(16 * 1024 + 1)).unwrap_err().what().contains("too large"));
        assert!(Target::PidFile("/nonexistent/pid".into()).pid().is_err());
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let fault = Target::Pid(i32::MAX).signal(Signal::SIGHUP).unwrap_err();
        assert!(fault.what().contains("cannot send SIGHUP to process 2147483647"), "{fault}");
    }
}
