//! SPIRE's delta sync of authorised entries: small sets at once, large ones as revisions and then what is asked for.
//!
//! The set is fixed when the stream starts. Agents of ours follow the push stream instead (`api/sync.rs`).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use spindle_proto::convert::{EntryMask, entry_to_proto};
use spindle_proto::spire::api::server::entry::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::EntryId;
use tokio_stream::iter;
use tonic::{Response, Status, Streaming};

use super::filter::bad_request;
use crate::directory::EntryRow;

/// SPIRE's fixed page size.
const PAGE_ENTRIES: usize = 500;

type Answer = Result<wire::SyncAuthorizedEntriesResponse, Status>;
pub(crate) type AnswerStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

/// Answers one sync stream over the fixed set `authorized`.
pub(crate) async fn answer(
    mut requests: Streaming<wire::SyncAuthorizedEntriesRequest>,
    authorized: HashMap<EntryId, Arc<EntryRow>>,
) -> Result<Response<AnswerStream>, Status> {
    let first = requests.message().await?.ok_or_else(|| bad_request("missing request"))?;
    if !first.ids.is_empty() {
        return Err(bad_request("specifying IDs on initial request is not supported"));
    }
    if first.output_mask.as_ref().is_some_and(|mask| !mask.revision_number) {
        return Err(bad_request("revision number cannot be masked"));
    }
    let mask = EntryMask::output(first.output_mask);
    let mut rows: Vec<_> = authorized.values().cloned().collect();
    rows.sort_unstable_by(|a, b| a.entry.id.cmp(&b.entry.id));
    if rows.len() <= PAGE_ENTRIES {
        let entries = rows.iter().map(|row| mask.apply(entry_to_proto(&row.entry))).collect();
        let only = wire::SyncAuthorizedEntriesResponse { entries, entry_revisions: Vec::new(), more: false };
        return Ok(Response::new(Box::pin(iter([Ok(only)]))));
    }
    let revisions = iter(revision_pages(&rows)).map(Ok);
    let asked = requests.flat_map(move |request| match request {
        Ok(request) => iter(entry_pages(&authorized, &mask, &request.ids)).map(Ok).left_stream(),
        Err(status) => iter([Err(status)]).right_stream(),
    });
    Ok(Response::new(Box::pin(revisions.chain(asked))))
}

fn revision_pages(rows: &[Arc<EntryRow>]) -> Vec<wire::SyncAuthorizedEntriesResponse> {
    let pages = rows.chunks(PAGE_ENTRIES).map(|page| wire::SyncAuthorizedEntriesResponse {
        entry_revisions: page.iter().map(|row| revision(row)).collect(),
        entries: Vec::new(),
        more: true,
    });
    last_has_no_more(pages.collect())
}

fn revision(row: &EntryRow) -> wire::EntryRevision {
    wire::EntryRevision {
        id: row.entry.id.to_string(),
        revision_number: row.entry.revision_number,
        created_at: row.entry.created_at.unix_secs(),
    }
}

/// The entries of `ids` that are in the set; one page at least, even if it is empty.
fn entry_pages(
    authorized: &HashMap<EntryId, Arc<EntryRow>>,
    mask: &EntryMask,
    ids: &[String],
) -> Vec<wire::SyncAuthorizedEntriesResponse> {
    let entries: Vec<types::Entry> = ids
        .iter()
        .filter_map(|id| authorized.get(&id.parse().ok()?))
        .map(|row| mask.apply(entry_to_proto(&row.entry)))
        .collect();
    let page = |entries: Vec<types::Entry>| wire::SyncAuthorizedEntriesResponse {
        entries,
        entry_revisions: Vec::new(),
        more: true,
    };
    if entries.is_empty() {
        return last_has_no_more(vec![page(Vec::new())]);
    }
    last_has_no_more(entries.chunks(PAGE_ENTRIES).map(|chunk| page(chunk.to_vec())).collect())
}

fn last_has_no_more(
    mut pages: Vec<wire::SyncAuthorizedEntriesResponse>,
) -> Vec<wire::SyncAuthorizedEntriesResponse> {
    if let Some(last) = pages.last_mut() {
        last.more = false;
    }
    pages
}
