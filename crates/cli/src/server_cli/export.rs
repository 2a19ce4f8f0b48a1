//! `export`: a server's entries as a file that `entry apply`, `import` and SPIRE's `entry create -data` read.

use std::path::PathBuf;

use super::dial;
use super::held::Held;
use crate::args::Socket;
use crate::client::block_on;
use crate::console::Console;
use crate::entry_file;
use crate::error::Failure;
use crate::files::{Readable, write};
use crate::output::plural;

#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// The file to write, readable by its owner only; standard output when it is not set or -.
    #[arg(long = "to", value_name = "FILE")]
    to: Option<PathBuf>,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let held = block_on(async { Held::by(&dial(&args.socket, console).await?).await })?;
    let text = entry_file::write(held.trust_domain.name(), &held.entries);
    let path = args.to.as_ref().filter(|path| !path.as_os_str().is_empty() && path.as_os_str() != "-");
    let Some(path) = path else { return Ok(write!(console.out, "{text}")?) };
    write(path, text.as_bytes(), Readable::Private)?;
    let count = held.entries.len();
    let entries = plural(count, "entry", "entries");
    Ok(writeln!(console.out, "Exported {count} {entries} to {}.", path.display())?)
}
