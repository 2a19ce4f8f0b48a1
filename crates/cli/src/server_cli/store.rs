//! `store copy`: moves a stopped server from one embedded store to another.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;
use spindle_runtime::SystemEntropy;
use spindle_server::{CopyStoreError, StoreKind, StoreSettings, copy_store};

use crate::console::Console;
use crate::error::Failure;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copies every record into an empty store of any kind, reads it back and compares.
    Copy(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The store to copy: its kind and directory, such as `sled:/var/lib/spindle/store`. Its server must be stopped.
    #[arg(long = "from", value_name = "KIND:DIR")]
    from: Place,
    /// The store to make; its directory must be empty or missing.
    #[arg(long = "to", value_name = "KIND:DIR")]
    to: Place,
}

/// A kind and a directory.
#[derive(Clone, Debug)]
struct Place(StoreSettings);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, directory) = text
            .split_once(':')
            .ok_or_else(|| "give a kind and a directory, such as redb:/srv/store".to_owned())?;
        let kind: StoreKind = kind.parse().map_err(|error| format!("{error}"))?;
        if directory.is_empty() {
            return Err("the directory is missing after the colon".into());
        }
        Ok(Self(StoreSettings { kind, directory: PathBuf::from(directory) }))
    }
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let Args { from: Place(from), to: Place(to) } = args;
    let records = copy_store(from, to, &SystemEntropy).map_err(|error| failure(&error))?;
    writeln!(
        console.out,
        "Copied {records} records to the {} store in {}.",
        to.kind,
        to.directory.display()
    )?;
    writeln!(console.out, "Point the server's DataStore at it, and keep the old one until the server runs.")?;
    Ok(())
}

fn failure(error: &CopyStoreError) -> Failure {
    let remedy = match error {
        CopyStoreError::NothingThere(_) => {
            "give the directory that the server's data_dir names, with /store at its end"
        }
        CopyStoreError::Memory => "use sled or redb on both sides",
        CopyStoreError::Open(_) => "stop the server that uses the store first",
        CopyStoreError::Copy(_) => "give an empty directory for the copy",
    };
    Failure::because("cannot copy the store", error).try_this(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_kind_and_a_directory() {
        let Place(place) = "redb:/srv/a:b".parse().unwrap();
        assert_eq!((place.kind, place.directory.to_str()), (StoreKind::Redb, Some("/srv/a:b")));
    }

    #[test]
    fn a_place_without_kind_or_directory_is_refused() {
        for text in ["/srv/store", "sled", "sled:", "mysql:/srv/store", ":/srv/store"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
