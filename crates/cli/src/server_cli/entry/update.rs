//! `entry update`: replaces a whole entry; what is not set goes back to its default, as with SPIRE's tool.

use spindle_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use spindle_proto::spire::api::server::entry::v1::{
    BatchUpdateEntryRequest, BatchUpdateEntryResponse, GetEntryRequest,
};
use spindle_proto::spire::api::types;
use tonic::transport::Channel;

use super::{EntryFlags, Item, batch, data, fill_refused, finish, print_results, required};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::input;

#[derive(Debug, Default, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    pub(super) socket: Socket,
    #[command(flatten)]
    pub(super) entry: EntryFlags,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let mut entries = entries(args, console)?;
    let mut response = BatchUpdateEntryResponse::default();
    let outcome = block_on(async {
        let mut client = batch::client(&args.socket, console).await?;
        if set(&args.entry.data).is_none() {
            keep_attributes(&mut entries, &mut client).await?;
        }
        for entries in batch::split(entries) {
            let request =
                BatchUpdateEntryRequest { entries: entries.clone(), ..BatchUpdateEntryRequest::default() };
            let answer = client.batch_update_entry(request).await;
            let mut results =
                answer.map_err(|status| refused("cannot update entries", &status))?.into_inner().results;
            for (at, result) in results.iter_mut().enumerate() {
                fill_refused(&mut result.status, &mut result.entry, entries.get(at));
            }
            response.results.append(&mut results);
        }
        Ok(())
    });
    finish(args.output.form, console, &response, response.results.len(), outcome, pretty)
}

/// The attribute flags can only turn on; an attribute that is on and not named stays on when its neighbour is named.
async fn keep_attributes(
    entries: &mut [types::Entry],
    client: &mut EntryClient<Channel>,
) -> Result<(), Failure> {
    for entry in entries {
        let Some(wanted) = &mut entry.additional_attributes else { continue };
        let request = GetEntryRequest { id: entry.id.clone(), output_mask: None };
        let what = "cannot read the present entry to keep its other attributes";
        let answer = client.get_entry(request).await.map_err(|status| refused(what, &status))?;
        if let Some(present) = answer.into_inner().additional_attributes {
            wanted.disable_x509_svid_prefetch |= present.disable_x509_svid_prefetch;
            wanted.jwt_svid_include_jti |= present.jwt_svid_include_jti;
        }
    }
    Ok(())
}

pub(super) fn pretty(console: &mut Console<'_>, response: &BatchUpdateEntryResponse) -> Result<(), Failure> {
    let items = response.results.iter().filter_map(|result| {
        Some(Item { status: result.status.as_ref()?, entry: result.entry.as_ref()?, existing: None })
    });
    print_results(console, "update", items)
}

pub(super) fn entries(args: &Args, console: &mut Console<'_>) -> Result<Vec<types::Entry>, Failure> {
    if let Some(path) = set(&args.entry.data) {
        return data::read(path, console);
    }
    if set(&args.entry.entry_id).is_none() {
        return Err(Failure::new("entry ID is required").try_this("set -entryID; `entry show` lists the IDs"));
    }
    args.entry.check()?;
    let Some(parent) = set(&args.entry.parent_id) else {
        return Err(required("a parent ID is required", "-parentID spiffe://example.org/node"));
    };
    let (parent, spiffe_id) = (input::spiffe_id("parentID", parent)?, args.entry.spiffe_id()?);
    Ok(vec![args.entry.entry(parent, spiffe_id)?])
}
