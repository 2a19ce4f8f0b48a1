//! Our push stream: a snapshot or a delta at the start, then each change as it happens.
//!
//! The agent says which revision it holds and acknowledges what it has applied. Each update is computed from one view and
//! says that view's revision, so an agent never sees half of a change. The agent's standing is looked at before every
//! message; a ban, an eviction or an expired SVID ends the stream, also while it waits for a slow reader.

mod pages;
mod sent;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use spindle_proto::refusal::refusal;
use spindle_proto::sync::v1 as wire;
use spindle_spiffe_core::Reason;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{debug, info};

use super::caller::{AgentCaller, caller_of};
use super::filter::bad_request;
use super::gate::in_time;
use crate::context::Context;
use crate::directory::{Since, View};
use crate::subscriptions::Subscribed;
use pages::Pages;
use sent::{Sent, Update};

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
            sent: Sent::nothing(self.context.trust_domain.clone()),
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
    sent: Sent,
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
        let update = match self.caller.row_or_reason(&view, self.context.clock.now()) {
            Ok(agent) => self.sent.start(&view, agent, self.since(&view, held)),
            Err(reason) => return Ok(reason),
        };
        if let Err(reason) = self.send(update).await? {
            return Ok(reason);
        }
        let subscription = self.subscribed.subscription.clone();
        let expiry_clock = self.context.clock.clone();
        let not_after = self.caller.peer.not_after();
        let shutdown = self.context.shutdown.clone();
        // Every arm is cancel-safe: news is taken only when returned, a message only when complete.
        loop {
            tokio::select! {
                (news, view) = subscription.news() => {
                    if let Err(reason) = self.standing() {
                        return Ok(reason);
                    }
                    let Some(agent) = view.agent(self.caller.id()) else {
                        return Ok(Reason::AgentNotAttested);
                    };
                    if let Some(update) = self.sent.update(&view, agent, &news)
                        && let Err(reason) = self.send(update).await?
                    {
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

    /// Whether the agent may go on at this very moment.
    fn standing(&self) -> Result<(), Reason> {
        let view = self.context.directory.view();
        self.caller.row_or_reason(&view, self.context.clock.now()).map(|_| ())
    }

    /// What has changed since the state that the agent holds, as far as it is remembered.
    fn since(&self, view: &View, held: Option<wire::Revision>) -> Since {
        match held {
            Some(held) if held.history[..] == view.history.0[..] && held.number <= view.revision => {
                self.context.directory.since(held.number, self.caller.id())
            }
            _ => Since::Unknown,
        }
    }

    /// Sends an update page by page, until the reader goes or the agent loses its standing.
    async fn send(&self, update: Update) -> Result<Result<(), Reason>, Gone> {
        let history = self.context.directory.view().history;
        for page in Pages::of(update, &history.0) {
            if let Err(reason) = self.send_page(page).await? {
                return Ok(Err(reason));
            }
        }
        Ok(Ok(()))
    }

    async fn send_page(&self, page: wire::FollowResponse) -> Result<Result<(), Reason>, Gone> {
        let after_end = self.caller.peer.not_after() + 1;
        loop {
            // Every arm only waits for something to look at, so each is cancel-safe.
            let room = tokio::select! {
                room = self.messages.reserve() => Some(room.map_err(|_| Gone)?),
                () = self.subscribed.subscription.own_row_changed() => None,
                () = spindle_runtime::sleep_until(self.context.clock.as_ref(), after_end) => None,
                () = self.context.shutdown.begun() => return Ok(Err(Reason::ServerStopping)),
            };
            if let Err(reason) = self.standing() {
                return Ok(Err(reason));
            }
            if let Some(room) = room {
                room.send(Ok(page));
                return Ok(Ok(()));
            }
        }
    }
}
