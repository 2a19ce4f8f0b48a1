//! `man [DIR]`: manual pages, one for each command.

use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;

use crate::command_tree::visible;
use crate::console::Console;
use crate::error::Failure;
use crate::files::{Readable, write};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory for the pages of all commands; without one the first page is printed.
    directory: Option<PathBuf>,
}

/// Prints the page of `command`, the whole table of one binary, or writes those of everything below it as well.
pub(crate) fn run(args: &Args, command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    let mut command = visible(command);
    command.build();
    let Some(directory) = &args.directory else {
        return Ok(write!(console.out, "{}", page(&command)?.1)?);
    };
    std::fs::create_dir_all(directory).map_err(|error| {
        Failure::because(format!("cannot make {}", directory.display()), &error)
            .try_this("name a directory that this user may write")
    })?;
    let count = write_all(&command, directory)?;
    Ok(writeln!(console.out, "Wrote {count} pages to {}", directory.display())?)
}

fn write_all(command: &Command, directory: &Path) -> Result<usize, Failure> {
    let (name, text) = page(command)?;
    write(&directory.join(name), text.as_bytes(), Readable::Public)?;
    command.get_subcommands().try_fold(1, |count, one| Ok(count + write_all(one, directory)?))
}

/// Name of the file and text, with flags as they are written here: one dash.
fn page(command: &Command) -> Result<(String, String), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command.clone()).source(format!("Spindle {version}")).manual("Spindle");
    let mut text = Vec::new();
    man.render(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace(r"\-\-", r"\-");
    Ok((man.get_filename(), text))
}
