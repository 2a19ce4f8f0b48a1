//! `entry show` and `entry count`.

use spindle_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use spindle_proto::spire::api::server::entry::v1::{
    CountEntriesRequest, GetEntryRequest, ListEntriesRequest, ListEntriesResponse,
};
use spindle_proto::spire::api::types;
use tonic::transport::Channel;

use super::batch;
use super::filter::FilterFlags;
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;
use crate::output::text;

/// Entries asked for in one call.
pub(in crate::server_cli) const PAGE_SIZE: i32 = 500;

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Only the entry with this ID; cannot be combined with other filters.
    #[arg(long = "entryID", value_name = "ID")]
    entry_id: Option<String>,
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct CountArgs {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let filter = args.filter.list()?;
    let entry_id = set(&args.entry_id);
    let others =
        filter.by_parent_id.is_some() || filter.by_spiffe_id.is_some() || filter.by_selectors.is_some();
    if entry_id.is_some() && others {
        return Err(
            Failure::new("the -entryID flag can't be combined with others").try_this("leave out the filters")
        );
    }
    let mut entries = block_on(async {
        let client = batch::client(&args.socket, console).await?;
        match entry_id {
            Some(id) => one(client, id).await.map(|entry| vec![entry]),
            None => {
                let request =
                    ListEntriesRequest { filter: Some(filter), page_size: PAGE_SIZE, ..Default::default() };
                all(client, request).await
            }
        }
    })?;
    sort(&mut entries);
    let response = ListEntriesResponse { entries, next_page_token: String::new() };
    output::print(args.output.form, console, &response, |console| pretty(console, &response.entries))
}

async fn one(mut client: EntryClient<Channel>, id: &str) -> Result<types::Entry, Failure> {
    let request = GetEntryRequest { id: id.into(), output_mask: None };
    let answer = client.get_entry(request).await;
    Ok(answer.map_err(|status| refused(&format!("cannot show entry {id}"), &status))?.into_inner())
}

pub(in crate::server_cli) async fn all(
    mut client: EntryClient<Channel>,
    mut request: ListEntriesRequest,
) -> Result<Vec<types::Entry>, Failure> {
    let mut entries = Vec::new();
    loop {
        let answer = client.list_entries(request.clone()).await;
        let page = answer.map_err(|status| refused("cannot list entries", &status))?.into_inner();
        entries.extend(page.entries);
        if page.next_page_token.is_empty() {
            return Ok(entries);
        }
        request.page_token = page.next_page_token;
    }
}

/// By SPIFFE ID, then parent, then selectors.
pub(super) fn sort(entries: &mut [types::Entry]) {
    entries.sort_by_cached_key(|entry| {
        let mut selectors: Vec<_> = entry
            .selectors
            .iter()
            .map(|selector| (selector.r#type.clone(), selector.value.clone()))
            .collect();
        selectors.sort();
        (text::id(&entry.spiffe_id), text::id(&entry.parent_id), selectors)
    });
}

pub(super) fn pretty(console: &mut Console<'_>, entries: &[types::Entry]) -> Result<(), Failure> {
    let count = entries.len();
    writeln!(console.out, "Found {count} {}", output::plural(count, "entry", "entries"))?;
    entries.iter().try_for_each(|entry| text::entry(console.out, entry))?;
    Ok(())
}

pub(super) fn run_count(args: &CountArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = CountEntriesRequest { filter: Some(args.filter.count()?) };
    let answer = block_on(async {
        let mut client = batch::client(&args.socket, console).await?;
        let answer = client.count_entries(request).await;
        Ok(answer.map_err(|status| refused("cannot count entries", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        let count = usize::try_from(answer.count).unwrap_or_default();
        Ok(writeln!(console.out, "{count} registration {}", output::plural(count, "entry", "entries"))?)
    })
}
