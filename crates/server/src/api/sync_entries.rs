//! SPIRE's delta sync of authorised entries: small sets at once, large ones as revisions and then what is asked for.
//!
//! The set is fixed when the stream starts. Pages are made one at a time, when the reader is ready for the next; the
//! agent's standing is looked at before each. Agents of ours follow the push stream instead (`api/sync.rs`).

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt, stream};
use prost::Message;
use spindle_proto::convert::{EntryMask, entry_to_proto};
use spindle_proto::spire::api::server::entry::v1 as wire;
use spindle_spiffe_core::EntryId;
use tonic::{Response, Status, Streaming};

use super::caller::AgentCaller;
use super::filter::bad_request;
use super::gate::in_time;
use super::refused::reasoned;
use crate::context::Context;
use crate::directory::{EntryRow, authorized_entries};

/// SPIRE's fixed page size.
const PAGE_ENTRIES: usize = 500;

/// A page of entries is closed when it reaches this size: with one more entry it is still within the 4 MiB that SPIRE's
/// agents take.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

type Page = wire::SyncAuthorizedEntriesResponse;
type Requests = Streaming<wire::SyncAuthorizedEntriesRequest>;
pub(crate) type AnswerStream = Pin<Box<dyn Stream<Item = Result<Page, Status>> + Send>>;

/// Answers one sync stream over the set that the agent has when it asks.
pub(crate) async fn answer(
    context: Arc<Context>,
    caller: AgentCaller,
    mut requests: Requests,
) -> Result<Response<AnswerStream>, Status> {
    let first = in_time(requests.message()).await?.ok_or_else(|| bad_request("missing request"))?;
    if !first.ids.is_empty() {
        return Err(bad_request("specifying IDs on initial request is not supported"));
    }
    if first.output_mask.as_ref().is_some_and(|mask| !mask.revision_number) {
        return Err(bad_request("revision number cannot be masked"));
    }
    let view = context.directory.view();
    let authorized = authorized_entries(&view, caller.row(&view, context.clock.now())?);
    let mut rows: Vec<_> = authorized.values().cloned().collect();
    rows.sort_unstable_by(|a, b| a.entry.id.cmp(&b.entry.id));
    let set = Set { authorized, mask: EntryMask::output(first.output_mask) };
    if rows.len() <= PAGE_ENTRIES {
        let only = set.page(&mut Round::Entries(rows.clone().into()));
        // SPIRE's agents take a first answer with entries for the whole set.
        if !only.more {
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(only)))));
        }
    }
    let sync = Sync { context, caller, set, round: Some(Round::Revisions(rows.into())), requests };
    Ok(Response::new(Box::pin(stream::try_unfold(sync, Sync::next).map_err(reasoned))))
}

/// One stream under way.
struct Sync {
    context: Arc<Context>,
    caller: AgentCaller,
    set: Set,
    /// What is left to say before the agent is listened to again.
    round: Option<Round>,
    requests: Requests,
}

/// The set as it was when the stream began.
struct Set {
    authorized: HashMap<EntryId, Arc<EntryRow>>,
    mask: EntryMask,
}

/// One list that goes out in pages, of which there is at least one.
enum Round {
    Revisions(VecDeque<Arc<EntryRow>>),
    Entries(VecDeque<Arc<EntryRow>>),
}

impl Sync {
    async fn next(mut self) -> Result<Option<(Page, Self)>, Status> {
        let mut round = match self.round.take() {
            Some(round) => round,
            None => match self.asked().await? {
                Some(round) => round,
                None => return Ok(None),
            },
        };
        self.caller.row(&self.context.directory.view(), self.context.clock.now())?;
        let page = self.set.page(&mut round);
        self.round = page.more.then_some(round);
        Ok(Some((page, self)))
    }

    /// The next round, of the entries that the agent asks for; none when it asks for no more.
    async fn asked(&mut self) -> Result<Option<Round>, Status> {
        let Some(request) = self.requests.message().await? else { return Ok(None) };
        Ok(Some(Round::Entries(self.set.known(&request.ids))))
    }
}

impl Set {
    /// Those of the ids that are in the set, each once and in the order asked for.
    fn known(&self, ids: &[String]) -> VecDeque<Arc<EntryRow>> {
        let mut seen = HashSet::new();
        let known = ids.iter().filter_map(|id| self.authorized.get_key_value(&id.parse().ok()?));
        known.filter(|(id, _)| seen.insert(*id)).map(|(_, row)| row.clone()).collect()
    }

    /// Takes the next page off the list.
    fn page(&self, round: &mut Round) -> Page {
        let mut page = Page::default();
        match round {
            Round::Revisions(rows) => {
                let taken = rows.drain(..rows.len().min(PAGE_ENTRIES));
                page.entry_revisions = taken.map(|row| revision(&row)).collect();
                page.more = !rows.is_empty();
            }
            Round::Entries(rows) => {
                let mut bytes = 0;
                while page.entries.len() < PAGE_ENTRIES && bytes < PAGE_BYTES {
                    let Some(row) = rows.pop_front() else { break };
                    let entry = self.mask.apply(entry_to_proto(&row.entry));
                    bytes += entry.encoded_len();
                    page.entries.push(entry);
                }
                page.more = !rows.is_empty();
            }
        }
        page
    }
}

fn revision(row: &EntryRow) -> wire::EntryRevision {
    wire::EntryRevision {
        id: row.entry.id.to_string(),
        revision_number: row.entry.revision_number,
        created_at: row.entry.created_at.unix_secs(),
    }
}
