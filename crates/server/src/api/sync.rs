//! Our push stream: a snapshot or a delta at the start, then each change as it happens.
//!
//! The agent says which revision it holds and acknowledges what it has applied. Everything sent is computed from one
//! view, so an agent never sees half of a change. The agent's standing is checked before every message; a ban, an
//! eviction or an expired SVID ends the stream.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use spindle_proto::convert::{bundle_to_proto, entry_to_proto};
use spindle_proto::refusal::refusal;
use spindle_proto::sync::v1 as wire;
use spindle_spiffe_core::{EntryId, Reason, TrustDomain};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{debug, info};

use super::caller::{AgentCaller, caller_of};
use super::filter::bad_request;
use super::gate::in_time;
use crate::context::Context;
use crate::directory::{
    AgentRow, EntryRow, Since, View, authorized_entries, formerly_authorized, is_authorized,
};
use crate::subscriptions::{News, Subscribed};

/// Entries in one page: about 200 KiB of ordinary entries, far below the receivers' 4 MiB.
const PAGE_ENTRIES: usize = 500;

/// Messages that may wait for a slow reader; the delta behind them is merged, not queued.
const MESSAGES_WAITING: usize = 4;

pub(crate) struct SyncService {
    pub(crate) context: Arc<Context>,
}

type Messages = mpsc::Sender<Result<wire::FollowResponse, Status>>;

#[tonic::async_trait]
impl wire::sync_server::Sync for SyncService {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<wire::FollowResponse, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<wire::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let caller = caller_of(&request)?.agent()?.clone();
        let mut requests = request.into_inner();
        let hello = match in_time(requests.message()).await?.and_then(|request| request.message) {
            Some(wire::follow_request::Message::Hello(hello)) => hello,
            _ => return Err(bad_request("the first message of a sync stream is a hello")),
        };
        let view = self.context.directory.view();
        let agent = caller.row(&view, self.context.clock.now())?;
        // Subscribed before the view is read again, so that no change falls between snapshot and stream.
        let subscribed = self.context.subscriptions.add(caller.id().clone(), agent.selectors.clone());
        let (messages, outgoing) = mpsc::channel(MESSAGES_WAITING);
        let follower = Follower {
            context: self.context.clone(),
            caller,
            subscribed,
            messages,
            sent_entries: HashMap::new(),
            sent_bundles: HashMap::new(),
        };
        let held = hello.holds_state.then_some(hello.held).flatten();
        let task = tokio_util::task::AbortOnDropHandle::new(spawn(follower.run(held, requests)));
        let stream = ReceiverStream::new(outgoing);
        Ok(Response::new(Box::pin(Attached { stream, _task: task })))
    }
}

/// The stream owns its task: when the agent goes away, the task ends with it.
#[expect(
    clippy::disallowed_methods,
    reason = "the handle is owned by the response stream, which aborts it on drop"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(task)
}

struct Attached {
    stream: ReceiverStream<Result<wire::FollowResponse, Status>>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Stream for Attached {
    type Item = Result<wire::FollowResponse, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        Pin::new(&mut self.stream).poll_next(cx)
    }
}

/// One agent's stream, and what it has been sent.
struct Follower {
    context: Arc<Context>,
    caller: AgentCaller,
    subscribed: Subscribed,
    messages: Messages,
    /// Store revision of each entry as it was sent.
    sent_entries: HashMap<EntryId, u64>,
    /// Sequence number of each bundle as it was sent.
    sent_bundles: HashMap<TrustDomain, u64>,
}

/// The reader has gone; the stream ends without a word.
struct Gone;

impl Follower {
    async fn run(mut self, held: Option<wire::Revision>, mut requests: Streaming<wire::FollowRequest>) {
        let agent_id = self.caller.id().clone();
        info!(agent_id = %agent_id, streams = self.context.subscriptions.len(), "agent follows changes");
        let outcome = self.follow(held, &mut requests).await;
        match outcome {
            Ok(reason) => {
                let status = match reason {
                    Reason::ServerStopping => refusal(Code::Unavailable, reason, "the server is stopping"),
                    _ => self.caller.refused(reason),
                };
                let _ = self.messages.send(Err(status)).await;
                info!(agent_id = %agent_id, reason = reason.code(), "sync stream ended by the server");
            }
            Err(Gone) => debug!(agent_id = %agent_id, "sync stream ended by the agent"),
        }
    }

    /// Runs until the reader goes or the agent loses its standing.
    async fn follow(
        &mut self,
        held: Option<wire::Revision>,
        requests: &mut Streaming<wire::FollowRequest>,
    ) -> Result<Reason, Gone> {
        let view = self.context.directory.view();
        if let Err(reason) = self.start(&view, held).await? {
            return Ok(reason);
        }
        let subscription = self.subscribed.subscription.clone();
        let expiry_clock = self.context.clock.clone();
        let not_after = self.caller.peer.not_after();
        let shutdown = self.context.shutdown.clone();
        // Every arm is cancel-safe: news is taken only when returned, a message only when complete.
        loop {
            tokio::select! {
                news = subscription.news() => {
                    let view = self.context.directory.view();
                    if let Err(reason) = self.tell(&view, news).await? {
                        return Ok(reason);
                    }
                }
                request = requests.message() => match request {
                    Ok(Some(request)) => self.acknowledged(request),
                    Ok(None) | Err(_) => return Err(Gone),
                },
                () = spindle_runtime::sleep_until(expiry_clock.as_ref(), not_after + 1) => {
                    return Ok(Reason::AgentExpired);
                }
                // Without this the listener would wait for the stream, and the stream for news.
                () = shutdown.begun() => return Ok(Reason::ServerStopping),
            }
        }
    }

    fn acknowledged(&self, request: wire::FollowRequest) {
        if let Some(wire::follow_request::Message::Acknowledge(ack)) = request.message
            && let Some(revision) = ack.revision
            && revision.history[..] == self.context.directory.view().history.0[..]
        {
            self.subscribed.subscription.acknowledge(revision.number);
        }
    }

    /// The agent's row, or why it may not go on.
    fn agent<'v>(&self, view: &'v View) -> Result<&'v Arc<AgentRow>, Reason> {
        self.caller.row_or_reason(view, self.context.clock.now())
    }

    /// Sends the first update: a delta when what the agent holds is remembered well enough, else a snapshot.
    async fn start(&mut self, view: &View, held: Option<wire::Revision>) -> Result<Result<(), Reason>, Gone> {
        let agent = match self.agent(view) {
            Ok(agent) => agent,
            Err(reason) => return Ok(Err(reason)),
        };
        let since = match held {
            Some(held) if held.history[..] == view.history.0[..] && held.number <= view.revision => {
                self.context.directory.since(held.number)
            }
            _ => Since::Unknown,
        };
        let authorized = authorized_entries(view, agent);
        self.sent_entries = authorized.iter().map(|(id, row)| (id.clone(), row.revision)).collect();
        let (snapshot, changed, removed) = match since {
            Since::Unknown => (true, authorized.into_values().collect(), Vec::new()),
            Since::Entries { touched, before } => {
                let had = formerly_authorized(view, agent, &before);
                let (here, gone): (Vec<_>, Vec<_>) =
                    touched.into_iter().partition(|id| authorized.contains_key(id));
                let rows = here.iter().filter_map(|id| authorized.get(id).cloned()).collect();
                (false, rows, gone.into_iter().filter(|id| had.contains(id)).collect())
            }
        };
        self.send(view, snapshot, changed, removed, true).await.map(Ok)
    }

    /// Sends what `news` makes of the difference between what was sent and `view`.
    async fn tell(&mut self, view: &View, news: News) -> Result<Result<(), Reason>, Gone> {
        let agent = match self.agent(view) {
            Ok(agent) => agent.clone(),
            Err(reason) => return Ok(Err(reason)),
        };
        let (changed, removed) = if news.everything {
            self.compare_all(view, &agent)
        } else {
            self.compare(view, &agent, &news.entries)
        };
        if changed.is_empty() && removed.is_empty() && !news.bundles {
            return Ok(Ok(()));
        }
        self.send(view, false, changed, removed, news.bundles).await.map(Ok)
    }

    /// The difference among the touched entries only.
    fn compare(
        &mut self,
        view: &View,
        agent: &AgentRow,
        touched: &BTreeSet<EntryId>,
    ) -> (Vec<Arc<EntryRow>>, Vec<EntryId>) {
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for id in touched {
            match view.entry(id).filter(|row| is_authorized(view, agent, &row.entry)) {
                Some(row) => {
                    if self.sent_entries.insert(id.clone(), row.revision) != Some(row.revision) {
                        changed.push(row.clone());
                    }
                }
                None => {
                    if self.sent_entries.remove(id).is_some() {
                        removed.push(id.clone());
                    }
                }
            }
        }
        (changed, removed)
    }

    /// The difference over the whole set.
    fn compare_all(&mut self, view: &View, agent: &AgentRow) -> (Vec<Arc<EntryRow>>, Vec<EntryId>) {
        let authorized = authorized_entries(view, agent);
        let touched =
            authorized.keys().chain(self.sent_entries.keys()).cloned().collect::<BTreeSet<EntryId>>();
        self.compare(view, agent, &touched)
    }

    async fn send(
        &mut self,
        view: &View,
        snapshot: bool,
        mut changed: Vec<Arc<EntryRow>>,
        removed: Vec<EntryId>,
        bundles: bool,
    ) -> Result<(), Gone> {
        changed.sort_unstable_by_key(|row| row.row);
        let revision = wire::Revision { history: view.history.0.to_vec().into(), number: view.revision };
        let mut first = wire::FollowResponse {
            removed_entry_ids: removed.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        // An entry may bring a foreign bundle, or be the last that needed one.
        let foreign = self.sent_bundles.len() > 1;
        if bundles || foreign || changed.iter().any(|row| !row.entry.federates_with.is_empty()) {
            self.add_bundles(view, snapshot, &mut first);
        }
        let mut pages: Vec<_> = changed.chunks(PAGE_ENTRIES).map(|page| page.to_vec()).collect();
        if pages.is_empty() {
            pages.push(Vec::new());
        }
        let last = pages.len() - 1;
        for (index, page) in pages.into_iter().enumerate() {
            let message = wire::FollowResponse {
                revision: Some(revision.clone()),
                snapshot,
                last: index == last,
                entries: page.iter().map(|row| entry_to_proto(&row.entry)).collect(),
                ..std::mem::take(&mut first)
            };
            self.messages.send(Ok(message)).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Adds the bundles the agent lacks: its own trust domain's and those that its entries federate with.
    fn add_bundles(&mut self, view: &View, snapshot: bool, message: &mut wire::FollowResponse) {
        if snapshot {
            self.sent_bundles.clear();
        }
        let wanted: BTreeSet<TrustDomain> = self
            .sent_entries
            .keys()
            .filter_map(|id| view.entry(id))
            .flat_map(|row| row.entry.federates_with.iter().cloned())
            .collect();
        let own = &self.context.trust_domain;
        for name in wanted.iter().chain([own]) {
            let Some(bundle) = view.bundle(name) else { continue };
            if self.sent_bundles.insert(name.clone(), bundle.sequence) == Some(bundle.sequence) {
                continue;
            }
            if name == own {
                message.bundle = Some(bundle_to_proto(bundle));
            } else {
                message.federated_bundles.push(bundle_to_proto(bundle));
            }
        }
        let gone: Vec<TrustDomain> = self
            .sent_bundles
            .keys()
            .filter(|name| *name != own && !(wanted.contains(*name) && view.bundle(name).is_some()))
            .cloned()
            .collect();
        for name in gone {
            self.sent_bundles.remove(&name);
            message.removed_federated_trust_domains.push(name.to_string());
        }
    }
}
