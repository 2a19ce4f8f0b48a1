//! `export`: a server's entries, bundles of other trust domains and relationships with them as one file, which `import`
//! reads; of its entries, `entry apply` and SPIRE's `entry create -data` do, too.

use std::path::PathBuf;

use super::dial;
use super::held::{self, Held};
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
    let (held, federation) = block_on(async {
        let channel = dial(&args.socket, console).await?;
        Ok((Held::by(&channel).await?, held::federation(&channel).await?))
    })?;
    let text = entry_file::write(held.trust_domain.name(), &held.entries, &federation);
    let path = args.to.as_ref().filter(|path| !path.as_os_str().is_empty() && path.as_os_str() != "-");
    let Some(path) = path else { return Ok(write!(console.out, "{text}")?) };
    write(path, text.as_bytes(), Readable::Private)?;
    let count = |count: usize, one, many| format!("{count} {}", plural(count, one, many));
    let (bundles, relationships) = (federation.bundles.len(), federation.relationships.len());
    writeln!(
        console.out,
        "Exported {}, {} and {} to {}.",
        count(held.entries.len(), "entry", "entries"),
        count(bundles, "bundle", "bundles"),
        count(relationships, "relationship", "relationships"),
        path.display()
    )?;
    Ok(())
}
