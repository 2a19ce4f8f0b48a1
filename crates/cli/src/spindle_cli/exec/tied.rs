//! The step between `spindle exec` and its command: this program once more, which asks the kernel for a signal when its parent
//! ends, and then becomes the command.
//!
//! What a process asks for stays over `execve`, but a new child has nobody to ask in its name without unsafe code (ADR 58).

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use crate::error::Failure;

/// As a shell shows a command that is there and cannot be run.
const EXIT_CANNOT_RUN: u8 = 126;

/// As a shell shows a command that is not there.
const EXIT_NOT_FOUND: u8 = 127;

/// The file of the running program, even if another one has taken its place on disk.
const OURSELVES: &str = "/proc/self/exe";

/// The name of the hidden command.
pub(in crate::spindle_cli) const COMMAND: &str = "exec-tied";

#[derive(Debug, clap::Args)]
pub(in crate::spindle_cli) struct Args {
    /// The number of the process with which the command ends.
    #[arg(value_name = "PARENT")]
    parent: i32,
    /// The command with its arguments, behind `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The command line of this step, to which the command's words are added. The parent is the calling process: the kernel means the
/// thread that starts the child, so that has to be one that lives as long as the process.
pub(super) fn command() -> std::io::Result<Command> {
    if !Path::new(OURSELVES).exists() {
        return Err(std::io::Error::new(ErrorKind::NotFound, format!("{OURSELVES} is not there")));
    }
    let mut command = Command::new(OURSELVES);
    command.arg(COMMAND).arg(std::process::id().to_string()).arg("--");
    Ok(command)
}

/// Becomes the command; returns only when that fails.
pub(in crate::spindle_cli) fn run(args: &Args) -> Result<(), Failure> {
    let (program, words) = args.command.split_first().ok_or_else(|| Failure::new("no command is given"))?;
    // SIGTERM, so that a command which has children of its own can end them.
    set_pdeathsig(Signal::SIGTERM)
        .map_err(|errno| Failure::because("cannot tie the command to spindle exec", &errno))?;
    // A parent that ended before that sends nothing any more.
    if getppid() != Pid::from_raw(args.parent) {
        return Err(Failure::new("spindle exec has ended before its command began"));
    }
    let error = Command::new(program).args(words).exec();
    let exit = if error.kind() == ErrorKind::NotFound { EXIT_NOT_FOUND } else { EXIT_CANNOT_RUN };
    Err(Failure::because(format!("cannot run {}", program.display()), &error).with_exit(exit))
}
