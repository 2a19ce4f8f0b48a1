//! `backup`: the store of a running server as one file, at one revision.
//!
//! The file appears under its name only when it is whole, on the disk, and was read back with all its checksums.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::json;
use spindle_proto::admin::v1::ReadRequest;
use spindle_proto::admin::v1::backup_client::BackupClient;
use spindle_server::{Exported, check_export};

use super::dial;
use crate::args::{Output, OutputForm, Socket};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::files::NewFile;

/// The largest message taken: a piece of 64 KiB, or one record with the longest key and value.
const PIECE_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// The file to write, readable by its owner only; it must not exist.
    #[arg(long = "to", value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let Some(path) = args.to.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
        return Err(
            Failure::new("a file is required").try_this("for example -to /var/backups/spindle-2026-11-25")
        );
    };
    // Before anything is called: a file in the way is found at once. One that comes later is not written over, either.
    let mut file = NewFile::create(path)?;
    block_on(read(args, console, &mut file))?;
    let exported = check(file.synced()?, path)?;
    file.publish()?;
    let (records, revision) = (exported.records, exported.revision);
    match args.output.form {
        OutputForm::Json => {
            let (history, number) = (revision.history.to_string(), revision.number);
            let told = json!({ "file": path, "records": records, "history": history, "revision": number });
            writeln!(console.out, "{told}")?;
        }
        OutputForm::Pretty => {
            writeln!(
                console.out,
                "Wrote {records} records at revision {} to {}.",
                revision.number,
                path.display()
            )?;
            writeln!(console.out, "Keys are not in it: keep a copy of the key manager's file beside it.")?;
        }
    }
    Ok(())
}

async fn read(args: &Args, console: &Console<'_>, file: &mut NewFile) -> Result<(), Failure> {
    let channel = dial(&args.socket, console).await?;
    let mut client = BackupClient::new(channel).max_decoding_message_size(PIECE_BYTES_MAX);
    let failed = |status: tonic::Status| refused("cannot read a backup", &status);
    let mut pieces = client.read(ReadRequest {}).await.map_err(failed)?.into_inner();
    while let Some(message) = pieces.message().await.map_err(failed)? {
        file.write(&message.piece)?;
    }
    Ok(())
}

/// Reads back what is on the disk.
fn check(file: &File, path: &Path) -> Result<Exported, Failure> {
    check_export(file).map_err(|error| {
        Failure::because(format!("the backup for {} did not arrive whole", path.display()), &error)
            .try_this("run it again; look at the server's log")
    })
}
