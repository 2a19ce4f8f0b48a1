//! SPIRE's way for servers without the push stream: asks for the entries and bundles every few seconds.
//!
//! Small sets come whole. For large ones the server names revisions first and is asked only for entries that differ.
//! Nothing is applied unless a whole round worked. Start at [`Sync::poll`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::server::bundle::v1::{GetBundleRequest, GetFederatedBundleRequest};
use spindle_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use spindle_proto::spire::api::server::entry::v1::{
    EntryRevision, GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use spindle_proto::spire::api::types;
use spindle_renewal::Jitter;
use spindle_spiffe_core::{Bundle, EntryId, RegistrationEntry, TrustDomain};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::{debug, error};

use super::collect::{entry, read_bundle};
use super::{Ended, Sync};
use crate::call_error::CallError;
use crate::identities::Update;
use crate::node_identity::own_bundle;
use crate::server::{ANSWER_BYTES_MAX, CALL_TIMEOUT, Connection};

/// The most entries taken from one server.
const ENTRIES_MAX: usize = 100_000;

/// SPIRE's page size, asked for at a time.
const PAGE_ENTRIES: usize = 500;

/// How far the pause between rounds is shifted, SPIRE's.
const POLL_JITTER_PERCENT: u32 = 10;

/// What the last round brought.
#[derive(Debug, Default)]
pub(super) struct Polled {
    entries: BTreeMap<EntryId, RegistrationEntry>,
    federated: BTreeSet<TrustDomain>,
    applied_once: bool,
}

type Requests = mpsc::Sender<SyncAuthorizedEntriesRequest>;

impl Sync {
    /// Polls until something breaks or the agent's identity is renewed.
    pub(super) async fn poll(&mut self, progress: &mut bool) -> Ended {
        let (mut reopened, mut is_first) = (self.parts.link.reopened(), true);
        loop {
            let connection = match self.parts.link.open().await {
                Ok(connection) => connection,
                Err(error) => return Ended::Broken(error),
            };
            let timer = self.parts.metrics.fetch_entries.start();
            let round = timeout(CALL_TIMEOUT, self.round(&connection, is_first)).await;
            let late = || Err(Failed::Status(Status::deadline_exceeded("the server did not answer in time")));
            let round = round.unwrap_or_else(|_| late());
            timer.done(match &round {
                Ok(_) => Code::Ok,
                Err(Failed::Status(status)) => status.code(),
                Err(Failed::Answer(_)) => Code::Unknown,
            });
            match round {
                Ok(true) => (*progress, is_first) = (true, false),
                Ok(false) => return Ended::Stopping,
                Err(Failed::Status(status)) => {
                    return Ended::Broken(self.parts.link.failed(&connection, status));
                }
                Err(Failed::Answer(error)) => return Ended::Broken(error),
            }
            // Cancel-safe: both only wait.
            tokio::select! {
                _ = reopened.changed() => return Ended::Reopened,
                () = sleep(self.poll_pause()) => {}
            }
        }
    }

    /// Shifted each time, so that a fleet that started together does not ask together.
    fn poll_pause(&self) -> Duration {
        let interval_us = u64::try_from(self.parts.poll_interval.as_micros()).unwrap_or(u64::MAX);
        let jitter = Jitter::draw(self.parts.entropy.as_ref());
        Duration::from_micros(jitter.spread(interval_us, POLL_JITTER_PERCENT))
    }

    /// One round: entries, then bundles, then all of it applied as one.
    async fn round(&mut self, connection: &Connection, is_first: bool) -> Result<bool, Failed> {
        let entries = self.fetch_entries(connection).await?;
        let mut bundles = BundleClient::new(connection.channel.clone());
        let wire = bundles.get_bundle(GetBundleRequest::default()).await?.into_inner();
        // For the check that it is the own trust domain's; the whole bundle is what is kept.
        own_bundle(&wire, &self.parts.trust_domain)?;
        let own = read_bundle(&wire);
        let names: BTreeSet<TrustDomain> =
            entries.values().flat_map(|entry| entry.federates_with.iter().cloned()).collect();
        let (mut federated, mut unreadable_federated) = (Vec::new(), Vec::new());
        for name in &names {
            let request =
                GetFederatedBundleRequest { trust_domain: name.name().to_owned(), output_mask: None };
            match bundles.get_federated_bundle(request).await {
                Ok(answer) => match bundle_of(name, &answer.into_inner()) {
                    Some(bundle) => federated.push(bundle),
                    None => unreadable_federated.push(name.clone()),
                },
                Err(status) if status.code() == Code::NotFound => {
                    debug!(trust_domain_id = %name, "no bundle");
                }
                Err(status) => return Err(status.into()),
            }
        }
        // One that cannot be understood takes nothing away: what is held of it stays.
        let names = federated.iter().map(|bundle: &Bundle| &bundle.trust_domain).chain(&unreadable_federated);
        let held: BTreeSet<TrustDomain> = names.cloned().collect();
        let changed: Vec<RegistrationEntry> =
            entries.values().filter(|new| self.polled.entries.get(&new.id) != Some(*new)).cloned().collect();
        let mut removed: Vec<EntryId> =
            self.polled.entries.keys().filter(|id| !entries.contains_key(*id)).cloned().collect();
        let removed_federated = self.polled.federated.difference(&held).cloned().collect();
        let snapshot = !self.polled.applied_once;
        let changed = self.usable(changed, &mut removed);
        let applied = self
            .apply(|applied| Update {
                snapshot,
                entries: changed,
                removed,
                own_bundle: own,
                federated,
                unreadable_federated,
                removed_federated,
                is_first,
                applied,
            })
            .await;
        self.polled = Polled { entries, federated: held, applied_once: true };
        Ok(applied)
    }

    async fn fetch_entries(
        &self,
        connection: &Connection,
    ) -> Result<BTreeMap<EntryId, RegistrationEntry>, Failed> {
        let mut client =
            EntryClient::new(connection.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        if !self.parts.poll_differences {
            let answer = client.get_authorized_entries(GetAuthorizedEntriesRequest::default()).await?;
            let entries = answer.into_inner().entries;
            if entries.len() > ENTRIES_MAX {
                return Err(CallError::answer(format!("more than {ENTRIES_MAX} entries")).into());
            }
            return Ok(by_id(&entries));
        }
        let (requests, outgoing) = mpsc::channel(1);
        // The channel is empty and its reader is below, so this cannot fail.
        let _ = requests.try_send(SyncAuthorizedEntriesRequest::default());
        let mut answers = client.sync_authorized_entries(ReceiverStream::new(outgoing)).await?.into_inner();
        let (revisions, whole) = read_round(&mut answers).await?;
        if revisions.is_empty() {
            return Ok(by_id(&whole));
        }
        let (mut kept, stale) = self.compare(&revisions);
        for ids in stale.chunks(PAGE_ENTRIES) {
            kept.extend(ask(&requests, &mut answers, ids).await?);
        }
        Ok(kept)
    }

    /// The entries that are still as the server has them, and the ids of all others, sorted.
    fn compare(&self, revisions: &[EntryRevision]) -> (BTreeMap<EntryId, RegistrationEntry>, Vec<String>) {
        let (mut kept, mut stale) = (BTreeMap::new(), Vec::new());
        for revision in revisions {
            let held = revision.id.parse().ok().and_then(|id: EntryId| self.polled.entries.get(&id));
            match held {
                Some(held) if is_same(held, revision) => {
                    kept.insert(held.id.clone(), held.clone());
                }
                _ => stale.push(revision.id.clone()),
            }
        }
        stale.sort_unstable();
        (kept, stale)
    }
}

/// Those entries that can be understood.
fn by_id(wire: &[types::Entry]) -> BTreeMap<EntryId, RegistrationEntry> {
    wire.iter().filter_map(entry).map(|entry| (entry.id.clone(), entry)).collect()
}

/// The bundle that was asked for.
fn bundle_of(name: &TrustDomain, wire: &types::Bundle) -> Option<Bundle> {
    let bundle = read_bundle(wire)?;
    let is_the_one = bundle.trust_domain == *name;
    if !is_the_one {
        error!(trust_domain_id = %name, answered = %bundle.trust_domain, "the server answered with another bundle");
    }
    is_the_one.then_some(bundle)
}

fn is_same(held: &RegistrationEntry, revision: &EntryRevision) -> bool {
    let made_at = held.created_at.unix_secs();
    held.revision_number == revision.revision_number
        && (revision.created_at == 0 || made_at == 0 || revision.created_at == made_at)
}

async fn ask(
    requests: &Requests,
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
    ids: &[String],
) -> Result<Vec<(EntryId, RegistrationEntry)>, Failed> {
    let request = SyncAuthorizedEntriesRequest { ids: ids.to_vec(), output_mask: None };
    let gone = |_| Status::unavailable("the server ended the sync");
    requests.send(request).await.map_err(gone)?;
    let (_, entries) = read_round(answers).await?;
    Ok(entries.iter().filter_map(entry).map(|entry| (entry.id.clone(), entry)).collect())
}

/// Reads pages up to one that says no more follow.
async fn read_round(
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
) -> Result<(Vec<EntryRevision>, Vec<types::Entry>), Failed> {
    let (mut revisions, mut entries) = (Vec::new(), Vec::new());
    loop {
        let page = answers.message().await?;
        let page = page.ok_or_else(|| CallError::answer("the sync ended in the middle"))?;
        revisions.extend(page.entry_revisions);
        entries.extend(page.entries);
        if revisions.len().max(entries.len()) > ENTRIES_MAX {
            return Err(CallError::answer(format!("more than {ENTRIES_MAX} entries")).into());
        }
        if !page.more {
            return Ok((revisions, entries));
        }
    }
}

/// Why a round brought nothing.
enum Failed {
    Status(Status),
    Answer(CallError),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        Self::Answer(error)
    }
}
