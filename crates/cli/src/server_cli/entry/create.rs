//! `entry create`: from flags, or many from a file.

use spindle_proto::spire::api::server::entry::v1::{BatchCreateEntryRequest, BatchCreateEntryResponse};
use spindle_proto::spire::api::types;

use super::{EntryFlags, Item, batch, data, fill_refused, finish, print_results, required};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::input;
use crate::output::json::ToJson;

/// Path of every server's SPIFFE ID, the parent of node entries.
const SERVER_PATH: &str = "/spire/server";

#[derive(Debug, Default, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    pub(super) socket: Socket,
    #[command(flatten)]
    pub(super) entry: EntryFlags,
    /// The entry is for nodes: its parent is the server itself.
    #[arg(long = "node")]
    pub(super) node: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let calls = batch::split(entries(args, console)?);
    let mut created = Created::default();
    let outcome = block_on(async {
        let mut client = batch::client(&args.socket, console).await?;
        for entries in calls {
            let request = BatchCreateEntryRequest { entries: entries.clone(), output_mask: None };
            let answer = client.batch_create_entry(request).await;
            let mut results =
                answer.map_err(|status| refused("cannot create entries", &status))?.into_inner().results;
            for (at, result) in results.iter_mut().enumerate() {
                created.existing.push(fill_refused(&mut result.status, &mut result.entry, entries.get(at)));
            }
            created.response.results.append(&mut results);
        }
        Ok(())
    });
    finish(args.output.form, console, &created, created.response.results.len(), outcome, pretty)
}

/// What the server answered, with the refused entries filled in as SPIRE's tool does.
#[derive(Debug, Default)]
pub(super) struct Created {
    pub(super) response: BatchCreateEntryResponse,
    /// For each result the ID of the entry that stands in its way, if any.
    pub(super) existing: Vec<Option<String>>,
}

impl ToJson for Created {
    fn to_json(&self) -> serde_json::Value {
        self.response.to_json()
    }
}

pub(super) fn pretty(console: &mut Console<'_>, created: &Created) -> Result<(), Failure> {
    let results = created.response.results.iter().zip(&created.existing);
    let items = results.filter_map(|(result, existing)| {
        let (status, entry) = (result.status.as_ref()?, result.entry.as_ref()?);
        Some(Item { status, entry, existing: existing.as_deref() })
    });
    print_results(console, "create", items)
}

pub(super) fn entries(args: &Args, console: &mut Console<'_>) -> Result<Vec<types::Entry>, Failure> {
    if let Some(path) = set(&args.entry.data) {
        return data::read(path, console);
    }
    if args.node && !args.entry.federates_with.is_empty() {
        return Err(Failure::new("node entries can not federate").try_this("leave out -federatesWith"));
    }
    args.entry.check()?;
    let parent = set(&args.entry.parent_id);
    if parent.is_none() && !args.node {
        return Err(required(
            "a parent ID is required if the node flag is not set",
            "-parentID spiffe://example.org/node",
        ));
    }
    let spiffe_id = args.entry.spiffe_id()?;
    let parent = match parent {
        Some(text) if !args.node => input::spiffe_id("parentID", text)?,
        _ => types::Spiffeid { trust_domain: spiffe_id.trust_domain.clone(), path: SERVER_PATH.into() },
    };
    Ok(vec![args.entry.entry(parent, spiffe_id)?])
}
