//! `store`: copies, exports, imports and restores the embedded store of a stopped server.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;
use spindle_runtime::SystemEntropy;
use spindle_server::{
    BackupError, CopyStoreError, StoreKind, StoreSettings, accept_restored_store, copy_store, export_store,
    import_store,
};

use crate::console::Console;
use crate::error::Failure;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copies every record into an empty store of any kind, reads it back and compares.
    Copy(CopyArgs),
    /// Writes every record into one file, as a backup.
    Export(ExportArgs),
    /// Makes a store of any kind from an exported file.
    Import(ImportArgs),
    /// Goes on from a store folder that was restored from a backup, under a new history.
    AcceptRestored(AcceptArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct CopyArgs {
    /// The store to copy: its kind and directory, such as `sled:/var/lib/spindle/store`. Its server must be stopped.
    #[arg(long = "from", value_name = "KIND:DIR")]
    from: Place,
    /// The store to make; its directory must be empty or missing.
    #[arg(long = "to", value_name = "KIND:DIR")]
    to: Place,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// The store to export: its kind and directory, such as `sled:/var/lib/spindle/store`. Its server must be stopped.
    #[arg(long = "from", value_name = "KIND:DIR")]
    from: Place,
    /// The file to write; it must not exist.
    #[arg(long = "to", value_name = "FILE")]
    to: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// A file that `store export` wrote.
    #[arg(long = "from", value_name = "FILE")]
    from: PathBuf,
    /// The store to make; its directory must be empty or missing.
    #[arg(long = "to", value_name = "KIND:DIR")]
    to: Place,
}

#[derive(Debug, clap::Args)]
pub(super) struct AcceptArgs {
    /// The store whose folder was restored: its kind and directory, such as `sled:/var/lib/spindle/store`.
    #[arg(long = "store", value_name = "KIND:DIR")]
    store: Place,
}

/// A kind and a directory.
#[derive(Clone, Debug)]
pub(super) struct Place(pub(super) StoreSettings);

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

pub(super) fn run(command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Copy(args) => copy(args, console),
        Command::Export(args) => export(args, console),
        Command::Import(args) => import(args, console),
        Command::AcceptRestored(args) => accept(args, console),
    }
}

fn copy(args: &CopyArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let CopyArgs { from: Place(from), to: Place(to) } = args;
    let records = copy_store(from, to, &SystemEntropy).map_err(|error| copy_failure(&error))?;
    writeln!(
        console.out,
        "Copied {records} records to the {} store in {}.",
        to.kind,
        to.directory.display()
    )?;
    writeln!(console.out, "Point the server's DataStore at it, and keep the old one until the server runs.")?;
    Ok(())
}

fn export(args: &ExportArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let ExportArgs { from: Place(from), to } = args;
    let records = export_store(from, to, &SystemEntropy)
        .map_err(|error| backup_failure("export the store", &error, EXPORT_REMEDY))?;
    writeln!(console.out, "Exported {records} records to {}.", to.display())?;
    Ok(())
}

fn import(args: &ImportArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let ImportArgs { from, to: Place(to) } = args;
    let records = import_store(from, to, &SystemEntropy)
        .map_err(|error| backup_failure("import the store", &error, &target_remedy(to)))?;
    let (kind, directory) = (to.kind, to.directory.display());
    writeln!(console.out, "Imported {records} records into the {kind} store in {directory}.")?;
    Ok(())
}

fn accept(args: &AcceptArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let AcceptArgs { store: Place(store) } = args;
    let revision = accept_restored_store(store, &SystemEntropy)
        .map_err(|error| backup_failure("accept the restored store", &error, ACCEPT_REMEDY))?;
    let directory = store.directory.display();
    writeln!(
        console.out,
        "The store in {directory} goes on from revision {revision} under a new history. Start the server."
    )?;
    Ok(())
}

const EXPORT_REMEDY: &str = "stop the server that uses the store first";
const ACCEPT_REMEDY: &str = "stop the server, and restore the whole folder `store` of one backup";

/// What to try when a store cannot be made. A store that is there is somebody's, and a server may use it.
pub(super) fn target_remedy(to: &StoreSettings) -> String {
    format!("once no server uses it, move {} away, or name another place with -to", to.directory.display())
}

pub(super) fn backup_failure(what: &str, error: &BackupError, otherwise: &str) -> Failure {
    let remedy = match error {
        BackupError::NothingThere(_) => NOTHING_THERE,
        BackupError::Memory => "use sled or redb",
        BackupError::File { .. } | BackupError::Export(_) => {
            "give a file that can be used; one to export to must not exist yet"
        }
        BackupError::Import(error) if !matches!(error, spindle_server::ImportError::Target(_)) => {
            "give a file that `backup` or `store export` wrote, whole"
        }
        BackupError::Open(_) | BackupError::Import(_) => otherwise,
    };
    Failure::because(format!("cannot {what}"), error).try_this(remedy)
}

const NOTHING_THERE: &str = "give the directory that the server's data_dir names, with /store at its end";

fn copy_failure(error: &CopyStoreError) -> Failure {
    let remedy = match error {
        CopyStoreError::NothingThere(_) => NOTHING_THERE,
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
