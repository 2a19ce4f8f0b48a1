//! `restore`: makes the store of a stopped server from a backup, under a new history.

use std::path::PathBuf;

use spindle_runtime::SystemEntropy;
use spindle_server::{StoreSettings, import_store};

use super::run::store_settings;
use super::store::{Place, backup_failure, target_remedy};
use crate::config::read_file;
use crate::config::server::{RawServer, ServerSettings};
use crate::console::Console;
use crate::error::Failure;

const BEFORE: &str = "Stop the server and move its old store directory away first: a store that is there is not written over. The key manager's \
                      file is not in a backup; put it back before the server starts.";

#[derive(Debug, Default, clap::Args)]
#[command(after_help = BEFORE)]
pub(super) struct Args {
    /// A file that `backup` or `store export` wrote.
    #[arg(long = "from", value_name = "FILE")]
    from: Option<PathBuf>,
    /// The store to make, such as `sled:/var/lib/spindle/store`; its directory must be empty or missing.
    #[arg(long = "to", value_name = "KIND:DIR")]
    to: Option<Place>,
    /// The server's configuration file, which names its store, instead of -to; that directory must be empty or missing, too.
    #[arg(long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Puts environment variables ($VAR and ${VAR}) into the file before it is read.
    #[arg(long = "expandEnv")]
    expand_env: bool,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let Some(from) = args.from.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
        return Err(Failure::new("a backup is required").try_this("set -from to a file that `backup` wrote"));
    };
    let to = place(args, console)?;
    let records = import_store(from, &to, &SystemEntropy)
        .map_err(|error| backup_failure("restore the store", &error, &target_remedy(&to)))?;
    let (kind, directory) = (to.kind, to.directory.display());
    writeln!(console.out, "Restored {records} records into the {kind} store in {directory}.")?;
    writeln!(
        console.out,
        "Put the key manager's file back before the server starts; without it new authorities are made."
    )?;
    Ok(())
}

fn place(args: &Args, console: &Console<'_>) -> Result<StoreSettings, Failure> {
    match (&args.to, &args.config) {
        (Some(Place(to)), None) => Ok(to.clone()),
        (None, Some(path)) => {
            let raw = RawServer::read(&read_file(path, args.expand_env, console.vars)?)?;
            Ok(store_settings(ServerSettings::try_from(raw)?.store))
        }
        (None, None) => Err(Failure::new("a place for the store is required")
            .try_this("set -config to the server's file, or -to to a kind and a directory")),
        (Some(_), Some(_)) => {
            Err(Failure::new("there can be one place for the store").try_this("leave out -to or -config"))
        }
    }
}
