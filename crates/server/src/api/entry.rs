//! The Entry service: registration entries for operators, and the authorised set for agents.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use spindle_proto::convert::{
    EntryMask, entry_from_proto, entry_to_proto, merge_entry, spiffe_id_from_proto, trust_domain_from_proto,
};
use spindle_proto::refusal::{item_ok, item_refusal, refusal};
use spindle_proto::spire::api::server::entry::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::entry::{check_parent, check_workload_id};
use spindle_spiffe_core::{EntryId, Reason, RegistrationEntry, SpiffeId, TrustDomain};
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::info;

use super::caller::caller_of;
use super::entry_access::EntryAccess;
use super::filter::{
    SelectorFilter, SetMatch, bad_request, check_batch, page_size, page_token, parse_page_token,
};
use super::sync_entries;
use crate::context::Context;
use crate::directory::{EntryRow, View, authorized_entries};
use crate::entries::{self, EntryFault};

pub(crate) struct EntryService {
    pub(crate) context: Arc<Context>,
}

/// A list or count filter, checked.
struct Filter {
    spiffe_id: Option<SpiffeId>,
    parent_id: Option<SpiffeId>,
    selectors: Option<SelectorFilter>,
    federates_with: Option<(BTreeSet<TrustDomain>, SetMatch)>,
    hint: Option<String>,
    downstream: bool,
}

/// The filter fields that list and count requests share.
struct WireFilter {
    by_spiffe_id: Option<types::Spiffeid>,
    by_parent_id: Option<types::Spiffeid>,
    by_selectors: Option<types::SelectorMatch>,
    by_federates_with: Option<types::FederatesWithMatch>,
    by_hint: Option<String>,
    by_downstream: Option<bool>,
}

macro_rules! wire_filter_from {
    ($($filter:ty),+) => {$(
        impl From<$filter> for WireFilter {
            fn from(filter: $filter) -> Self {
                Self {
                    by_spiffe_id: filter.by_spiffe_id,
                    by_parent_id: filter.by_parent_id,
                    by_selectors: filter.by_selectors,
                    by_federates_with: filter.by_federates_with,
                    by_hint: filter.by_hint,
                    by_downstream: filter.by_downstream,
                }
            }
        }
    )+};
}

wire_filter_from!(wire::list_entries_request::Filter, wire::count_entries_request::Filter);

impl Filter {
    fn check(wire: WireFilter, trust_domain: &TrustDomain) -> Result<Self, Status> {
        let id = |wire: Option<types::Spiffeid>, name: &str| {
            wire.map(|id| spiffe_id_from_proto(&id))
                .transpose()
                .map_err(|error| bad_request(&format!("malformed {name} filter: {error}")))
        };
        let spiffe_id = id(wire.by_spiffe_id, "SPIFFE ID")?;
        if let Some(spiffe_id) = &spiffe_id {
            check_workload_id(spiffe_id, trust_domain)
                .map_err(|error| bad_request(&format!("malformed SPIFFE ID filter: {error}")))?;
        }
        let parent_id = id(wire.by_parent_id, "parent ID")?;
        if let Some(parent_id) = &parent_id {
            check_parent(parent_id, trust_domain)
                .map_err(|error| bad_request(&format!("malformed parent ID filter: {error}")))?;
        }
        Ok(Self {
            spiffe_id,
            parent_id,
            selectors: wire.by_selectors.as_ref().map(SelectorFilter::from_wire).transpose()?,
            federates_with: wire.by_federates_with.as_ref().map(federation).transpose()?,
            hint: wire.by_hint.filter(|hint| !hint.is_empty()),
            // False means "off": SPIRE's command line always sends it.
            downstream: wire.by_downstream.unwrap_or(false),
        })
    }

    fn passes(&self, entry: &RegistrationEntry) -> bool {
        self.spiffe_id.as_ref().is_none_or(|id| entry.spiffe_id == *id)
            && self.parent_id.as_ref().is_none_or(|id| entry.parent_id == *id)
            && self.selectors.as_ref().is_none_or(|filter| filter.passes(&entry.selectors))
            && self.hint.as_ref().is_none_or(|hint| entry.hint.as_str() == hint)
            && (!self.downstream || entry.downstream)
            && self.federates_with.as_ref().is_none_or(|(given, how)| {
                let names = &entry.federates_with;
                let shared = names.iter().filter(|name| given.contains(name)).count();
                how.passes(names.len(), given.len(), shared)
            })
    }
}

fn federation(wire: &types::FederatesWithMatch) -> Result<(BTreeSet<TrustDomain>, SetMatch), Status> {
    let how = SetMatch::from_wire(wire.r#match)?;
    let given = wire
        .trust_domains
        .iter()
        .map(|name| trust_domain_from_proto(name))
        .collect::<Result<BTreeSet<TrustDomain>, _>>()
        .map_err(|error| bad_request(&format!("malformed federates with filter: {error}")))?;
    if given.is_empty() {
        return Err(bad_request("malformed federates with filter: empty trust domain set"));
    }
    Ok((given, how))
}

/// Entries that federate with any of the trust domains, each once: whatever the match, no others pass it.
fn federating<'a>(
    view: &'a View,
    given: &'a BTreeSet<TrustDomain>,
) -> impl Iterator<Item = &'a Arc<EntryRow>> {
    given.iter().flat_map(move |name| {
        let first = move |row: &&Arc<EntryRow>| {
            row.entry.federates_with.iter().filter(|one| given.contains(*one)).min() == Some(name)
        };
        view.federating(name).filter(first)
    })
}

fn status_ok() -> Option<types::Status> {
    Some(item_ok())
}

/// The status of one item of a batch.
fn item_status(fault: &EntryFault, verb: &str) -> types::Status {
    let code = match fault {
        EntryFault::Invalid(_) | EntryFault::TooLarge(_) => Code::InvalidArgument,
        EntryFault::Similar(_) | EntryFault::IdTaken(_) => Code::AlreadyExists,
        EntryFault::NotFound => Code::NotFound,
        EntryFault::Role(_) => Code::PermissionDenied,
        EntryFault::Contended(_) => Code::Aborted,
        EntryFault::NoBundle(_) | EntryFault::Store(_) => Code::Internal,
    };
    let message = match fault {
        EntryFault::Similar(_) | EntryFault::NotFound => fault.to_string(),
        _ => format!("failed to {verb} entry: {fault}"),
    };
    info!(reason = fault.reason().code(), error = %fault, verb, "entry refused");
    item_refusal(code, fault.reason(), message)
}

fn bad_item(message: String) -> types::Status {
    info!(reason = Reason::BadRequest.code(), error = %message, "entry refused");
    item_refusal(Code::InvalidArgument, Reason::BadRequest, message)
}

/// The items cut into runs in which no entry comes twice. Those of a run are started together, so that the store makes them
/// durable as one group; a later change of the same entry waits for the earlier one.
fn distinct_runs(items: &[types::Entry]) -> impl Iterator<Item = &[types::Entry]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut seen = HashSet::new();
        let end = rest.iter().position(|item| !seen.insert(item.id.as_str())).unwrap_or(rest.len());
        let (run, later) = rest.split_at(end);
        rest = later;
        (!run.is_empty()).then_some(run)
    })
}

impl EntryService {
    /// A wire entry as a new one: its id is made up when absent, its counters start afresh.
    fn draft(&self, wire: &types::Entry) -> Result<RegistrationEntry, String> {
        let mut entry = entry_from_proto(wire, || {
            // A random UUID is within the alphabet and length of entry ids.
            self.context.entropy.uuid().parse().expect("a UUID is an entry id")
        })
        .map_err(|error| error.to_string())?;
        entry.revision_number = 0;
        entry.created_at = self.context.clock.now();
        Ok(entry)
    }

    async fn create_one(
        &self,
        item: &types::Entry,
        mask: &EntryMask,
        access: &EntryAccess<'_>,
    ) -> wire::batch_create_entry_response::Result {
        use wire::batch_create_entry_response::Result as Item;
        let draft = match self.draft(item) {
            Ok(draft) => draft,
            Err(error) => {
                let message = format!("failed to convert entry: {error}");
                return Item { status: Some(bad_item(message)), entry: None };
            }
        };
        let Context { directory, trust_domain, .. } = self.context.as_ref();
        match entries::create(directory, trust_domain, draft, &access.permit()).await {
            Ok(row) => {
                log_entry(&row, "entry created");
                Item { status: status_ok(), entry: Some(mask.apply(entry_to_proto(&row.entry))) }
            }
            Err(EntryFault::Similar(twin)) => Item {
                status: Some(item_status(&EntryFault::Similar(twin.clone()), "create")),
                // What a role does not show is not shown here either.
                entry: access
                    .sees(&directory.view(), &twin.entry)
                    .then(|| mask.apply(entry_to_proto(&twin.entry))),
            },
            Err(fault) => Item { status: Some(item_status(&fault, "create")), entry: None },
        }
    }

    async fn update_one(
        &self,
        item: &types::Entry,
        input: &EntryMask,
        output: &EntryMask,
        access: &EntryAccess<'_>,
    ) -> wire::batch_update_entry_response::Result {
        use wire::batch_update_entry_response::Result as Item;
        let refused = |status| Item { status: Some(status), entry: None };
        let id: EntryId = match item.id.parse() {
            Ok(id) => id,
            Err(error) => return refused(bad_item(format!("failed to convert entry: {error}"))),
        };
        // Merge once against the current entry for a precise error; the commit merges again if it has to repeat.
        let faulty = {
            let view = self.context.directory.view();
            let seen = view.entry(&id).filter(|row| access.sees(&view, &row.entry));
            seen.and_then(|row| merge_entry(&row.entry, item, input).err())
        };
        if let Some(error) = faulty {
            return refused(bad_item(format!("failed to convert entry: {error}")));
        }
        let change = |old: &RegistrationEntry| merge_entry(old, item, input).unwrap_or_else(|_| old.clone());
        let Context { directory, trust_domain, .. } = self.context.as_ref();
        match entries::update(directory, trust_domain, &id, change, &access.permit()).await {
            Ok(row) => {
                log_entry(&row, "entry updated");
                Item { status: status_ok(), entry: Some(output.apply(entry_to_proto(&row.entry))) }
            }
            Err(fault) => refused(item_status(&fault, "update")),
        }
    }

    /// The row after which a page starts.
    fn page_start(&self, token: &str) -> Result<u64, Status> {
        let Some((row, id)) = parse_page_token(token)? else { return Ok(0) };
        Ok(self.context.directory.view().entry(&id).map_or(row, |last| last.row))
    }

    fn select(
        &self,
        filter: &Filter,
        access: &EntryAccess<'_>,
        after: u64,
        limit: Option<usize>,
    ) -> Vec<Arc<EntryRow>> {
        let view = self.context.directory.view();
        let passing = |row: &&Arc<EntryRow>| {
            row.row > after && filter.passes(&row.entry) && access.sees(&view, &row.entry)
        };
        let mut rows: Vec<_> = match (&filter.spiffe_id, &filter.parent_id, &filter.federates_with) {
            (Some(spiffe_id), _, _) => view.entries_of(spiffe_id).filter(passing).cloned().collect(),
            (None, Some(parent), _) => view.children(parent).filter(passing).cloned().collect(),
            (None, None, Some((given, _))) => federating(&view, given).filter(passing).cloned().collect(),
            (None, None, None) => {
                let rows = view.entries_after(after).filter(passing);
                return match limit {
                    Some(limit) => rows.take(limit).cloned().collect(),
                    None => rows.cloned().collect(),
                };
            }
        };
        rows.sort_unstable_by_key(|row| row.row);
        rows.truncate(limit.unwrap_or(usize::MAX));
        rows
    }
}

fn log_entry(row: &EntryRow, message: &'static str) {
    let entry = &row.entry;
    info!(entry_id = %entry.id, spiffe_id = %entry.spiffe_id, parent_id = %entry.parent_id, revision = row.revision, "{message}");
}

#[tonic::async_trait]
impl wire::entry_server::Entry for EntryService {
    async fn count_entries(
        &self,
        request: Request<wire::CountEntriesRequest>,
    ) -> Result<Response<wire::CountEntriesResponse>, Status> {
        let caller = caller_of(&request)?.clone();
        let access = EntryAccess::of(&caller, &self.context)?;
        let count = match request.into_inner().filter {
            None if access.is_everything() => self.context.directory.view().entry_count(),
            filter => {
                let filter = filter.unwrap_or_default().into();
                self.select(&Filter::check(filter, &self.context.trust_domain)?, &access, 0, None).len()
            }
        };
        Ok(Response::new(wire::CountEntriesResponse { count: i32::try_from(count).unwrap_or(i32::MAX) }))
    }

    async fn list_entries(
        &self,
        request: Request<wire::ListEntriesRequest>,
    ) -> Result<Response<wire::ListEntriesResponse>, Status> {
        let caller = caller_of(&request)?.clone();
        let access = EntryAccess::of(&caller, &self.context)?;
        let request = request.into_inner();
        let mask = EntryMask::output(request.output_mask);
        let filter = request.filter.unwrap_or_default().into();
        let filter = Filter::check(filter, &self.context.trust_domain)?;
        let size = page_size(request.page_size);
        let after = match size {
            Some(_) => self.page_start(&request.page_token)?,
            None => 0,
        };
        let rows = self.select(&filter, &access, after, size);
        // A page with rows always has a token, so that the last one is empty: clients rely on it.
        let next_page_token = match (size, rows.last()) {
            (Some(_), Some(last)) => page_token(last.row, &last.entry.id),
            _ => String::new(),
        };
        let entries = rows.iter().map(|row| mask.apply(entry_to_proto(&row.entry))).collect();
        Ok(Response::new(wire::ListEntriesResponse { entries, next_page_token }))
    }

    async fn get_entry(
        &self,
        request: Request<wire::GetEntryRequest>,
    ) -> Result<Response<types::Entry>, Status> {
        let caller = caller_of(&request)?.clone();
        let access = EntryAccess::of(&caller, &self.context)?;
        let request = request.into_inner();
        if request.id.is_empty() {
            return Err(bad_request("missing ID"));
        }
        let view = self.context.directory.view();
        let row = request.id.parse().ok().and_then(|id: EntryId| view.entry(&id));
        // An entry that the caller's role does not show is not there for it.
        match row.filter(|row| access.sees(&view, &row.entry)) {
            Some(row) => {
                let mask = EntryMask::output(request.output_mask);
                Ok(Response::new(mask.apply(entry_to_proto(&row.entry))))
            }
            None => Err(refusal(Code::NotFound, Reason::EntryNotFound, "entry not found")),
        }
    }

    async fn batch_create_entry(
        &self,
        request: Request<wire::BatchCreateEntryRequest>,
    ) -> Result<Response<wire::BatchCreateEntryResponse>, Status> {
        let caller = caller_of(&request)?.clone();
        let access = EntryAccess::of(&caller, &self.context)?;
        let request = request.into_inner();
        check_batch(request.entries.len())?;
        let mask = EntryMask::output(request.output_mask);
        // Started together, so that the store makes them durable as one group; each is a transaction of its own.
        let items = request.entries.iter().map(|item| self.create_one(item, &mask, &access));
        let results = futures_util::future::join_all(items).await;
        Ok(Response::new(wire::BatchCreateEntryResponse { results }))
    }

    async fn batch_update_entry(
        &self,
        request: Request<wire::BatchUpdateEntryRequest>,
    ) -> Result<Response<wire::BatchUpdateEntryResponse>, Status> {
        let caller = caller_of(&request)?.clone();
        let access = EntryAccess::of(&caller, &self.context)?;
        let request = request.into_inner();
        check_batch(request.entries.len())?;
        let (input, output) = (EntryMask::input(request.input_mask), EntryMask::output(request.output_mask));
        let mut results = Vec::with_capacity(request.entries.len());
        for run in distinct_runs(&request.entries) {
            let items = run.iter().map(|item| self.update_one(item, &input, &output, &access));
            results.extend(futures_util::future::join_all(items).await);
        }
        Ok(Response::new(wire::BatchUpdateEntryResponse { results }))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<wire::BatchDeleteEntryRequest>,
    ) -> Result<Response<wire::BatchDeleteEntryResponse>, Status> {
        use wire::batch_delete_entry_response::Result as Item;
        let caller = caller_of(&request)?.clone();
        let access = EntryAccess::of(&caller, &self.context)?;
        let request = request.into_inner();
        check_batch(request.ids.len())?;
        let access = &access;
        let delete_one = |id: String| async move {
            if id.is_empty() {
                return Item { status: Some(bad_item("missing entry ID".into())), id };
            }
            let outcome = match id.parse::<EntryId>() {
                Ok(id) => entries::delete(&self.context.directory, &id, &access.permit()).await,
                Err(_) => Err(EntryFault::NotFound),
            };
            match outcome {
                Ok(()) => {
                    info!(entry_id = id, "entry deleted");
                    Item { status: status_ok(), id }
                }
                Err(fault) => Item { status: Some(item_status(&fault, "delete")), id },
            }
        };
        let results = futures_util::future::join_all(request.ids.into_iter().map(delete_one)).await;
        Ok(Response::new(wire::BatchDeleteEntryResponse { results }))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<wire::GetAuthorizedEntriesRequest>,
    ) -> Result<Response<wire::GetAuthorizedEntriesResponse>, Status> {
        let caller = caller_of(&request)?.agent()?.clone();
        let mask = EntryMask::output(request.into_inner().output_mask);
        let view = self.context.directory.view();
        let agent = caller.row(&view, self.context.clock.now())?;
        let mut rows: Vec<_> = authorized_entries(&view, agent).into_values().collect();
        rows.sort_unstable_by_key(|row| row.row);
        let entries = rows.iter().map(|row| mask.apply(entry_to_proto(&row.entry))).collect();
        Ok(Response::new(wire::GetAuthorizedEntriesResponse { entries }))
    }

    type SyncAuthorizedEntriesStream = sync_entries::AnswerStream;

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<wire::SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<sync_entries::AnswerStream>, Status> {
        let caller = caller_of(&request)?.agent()?.clone();
        sync_entries::answer(self.context.clone(), caller, request.into_inner()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_before_an_entry_that_comes_again() {
        let check = |ids: &str, expected: &[&str]| {
            let items: Vec<_> =
                ids.chars().map(|id| types::Entry { id: id.into(), ..Default::default() }).collect();
            let runs: Vec<String> =
                distinct_runs(&items).map(|run| run.iter().map(|item| item.id.as_str()).collect()).collect();
            assert_eq!(runs, expected, "{ids}");
        };
        check("", &[]);
        check("abc", &["abc"]);
        check("abacab", &["ab", "ac", "ab"]);
        check("aaa", &["a", "a", "a"]);
    }
}
