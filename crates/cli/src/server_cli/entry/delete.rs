//! `entry delete`: one by its ID, or many from a file.

use serde::Deserialize;
use spindle_proto::spire::api::server::entry::v1::{BatchDeleteEntryRequest, BatchDeleteEntryResponse};
use tonic::Code;

use super::{Refused, batch, finish};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, code_name, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::input;

#[derive(Debug, Default, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    pub(super) socket: Socket,
    /// ID of the entry to delete.
    #[arg(long = "entryID", value_name = "ID")]
    pub(super) entry_id: Option<String>,
    /// File with the IDs to delete in JSON, {"ids": ["…"]}; - for standard input.
    #[arg(long = "file", value_name = "FILE")]
    pub(super) file: Option<String>,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIds {
    ids: Vec<String>,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let ids = ids(args)?;
    let mut response = BatchDeleteEntryResponse::default();
    let outcome = block_on(async {
        let mut client = batch::client(&args.socket, console).await?;
        for ids in batch::split(ids) {
            let answer = client.batch_delete_entry(BatchDeleteEntryRequest { ids }).await;
            let results =
                answer.map_err(|status| refused("cannot delete entries", &status))?.into_inner().results;
            response.results.extend(results);
        }
        Ok(())
    });
    finish(args.output.form, console, &response, response.results.len(), outcome, pretty)
}

pub(super) fn ids(args: &Args) -> Result<Vec<String>, Failure> {
    match (set(&args.file), set(&args.entry_id)) {
        (Some(path), _) => {
            let text = input::read_data(path)?;
            let raw: RawIds = serde_json::from_str(&text).map_err(|error| {
                Failure::because(path, &error).try_this(r#"write {"ids": ["first-id", "second-id"]}"#)
            })?;
            Ok(raw.ids)
        }
        (None, Some(id)) => Ok(vec![id.into()]),
        (None, None) => Err(Failure::new("an entry ID is required")
            .try_this("set -entryID or -file; `entry show` lists the IDs")),
    }
}

pub(super) fn pretty(console: &mut Console<'_>, response: &BatchDeleteEntryResponse) -> Result<(), Failure> {
    let results = response.results.iter().filter_map(|result| Some((result.status.as_ref()?, &result.id)));
    let (deleted, failed): (Vec<_>, Vec<_>) = results.partition(|(status, _)| status.code == 0);
    for (_, id) in &deleted {
        writeln!(console.out, "Deleted entry with ID: {id}")?;
    }
    if !deleted.is_empty() {
        write!(console.out, "\n\n")?;
    }
    let mut refused = Refused::default();
    for (status, id) in &failed {
        let (code, message) = (code_name(Code::from_i32(status.code)), &status.message);
        writeln!(console.err, "Failed to delete entry with ID {id} (code: {code}, msg: {message:?})")?;
        refused.tell(console, status, None)?;
    }
    if failed.is_empty() {
        return Ok(writeln!(console.out, "Deleted {} entries successfully", deleted.len())?);
    }
    let lost = failed.len();
    match deleted.len() {
        0 => writeln!(console.out, "\n\nFailed to delete {lost} entries")?,
        done => writeln!(
            console.out,
            "\n\nDeleted {done} entries successfully, but failed to delete {lost} entries"
        )?,
    }
    refused.outcome("delete")
}
