//! The push stream: says hello with the revision held, applies each update as one, acknowledges it.

use spindle_proto::sync::v1 as wire;
use spindle_proto::sync::v1::sync_client::SyncClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::{debug, error, info, warn};

use super::collect::{Collected, Collector};
use super::poll::Polled;
use super::revision::{Place, Revision, Verdict, judge};
use super::{Ended, Sync};
use crate::call_error::CallError;
use crate::identities::Update;
use crate::metrics::code_of;
use crate::server::{ANSWER_BYTES_MAX, Connection};

/// Acknowledgements that may wait for the server: it reads them as they come.
const ACKNOWLEDGEMENTS_MAX: usize = 16;

type Requests = mpsc::Sender<wire::FollowRequest>;

impl Sync {
    /// Follows one stream to its end. `progress` is set once an update was applied.
    pub(super) async fn follow(&mut self, progress: &mut bool) -> Ended {
        let mut reopened = self.parts.link.reopened();
        let connection = match self.parts.link.open().await {
            Ok(connection) => connection,
            Err(error) => return Ended::Broken(error),
        };
        let timer = self.parts.metrics.fetch_entries.start();
        // Cancel-safe: what an abandoned stream had sent is sent again, from the revision held.
        let outcome = tokio::select! {
            _ = reopened.changed() => {
                timer.discard();
                return Ended::Reopened;
            }
            outcome = self.stream(&connection, progress) => outcome,
        };
        match &outcome {
            // What comes over the stream is counted by update; beside that only its fault is.
            Ok(Ended::Broken(error)) => timer.done(code_of(error)),
            Err(status) if status.code() != Code::Unimplemented => timer.done(status.code()),
            _ => timer.discard(),
        }
        match outcome {
            Ok(ended) => ended,
            Err(status) if status.code() == Code::Unimplemented => Ended::NotSupported,
            Err(status) => Ended::Broken(self.parts.link.failed(&connection, status)),
        }
    }

    async fn stream(&mut self, connection: &Connection, progress: &mut bool) -> Result<Ended, Status> {
        let (requests, mut answers) = self.say_hello(connection).await?;
        let (mut collector, mut is_first) = (Collector::default(), true);
        while let Some(page) = answers.message().await? {
            let collected = match collector.add(page) {
                Ok(Some(collected)) => collected,
                Ok(None) => continue,
                Err(what) => return Ok(Ended::Broken(CallError::answer(what))),
            };
            let place = if is_first { Place::First } else { Place::Later };
            match judge(self.held.as_ref(), &collected.revision, collected.snapshot, place) {
                Verdict::Apply => {}
                Verdict::StepBack => {
                    error!(server = self.parts.link.target(), revision = %collected.revision,
                        held = self.held.as_ref().map(tracing::field::display),
                        "the server has lost changes that this agent had seen; its older state is taken");
                }
                Verdict::Older => {
                    warn!(revision = %collected.revision, "the server offers an older state, which is not taken");
                    return Ok(Ended::Broken(CallError::answer("older state than is held")));
                }
                Verdict::NoBase => {
                    self.held = None;
                    return Ok(Ended::Broken(CallError::answer("a change to a state that is not held")));
                }
            }
            let (revision, timer) = (collected.revision.clone(), self.parts.metrics.fetch_entries.start());
            let is_taken = self.take(collected, is_first).await;
            timer.done(Code::Ok);
            if !is_taken {
                return Ok(Ended::Stopping);
            }
            is_first = false;
            *progress = true;
            let acknowledge = wire::Acknowledge { revision: Some(to_wire(&revision)) };
            let message = Some(wire::follow_request::Message::Acknowledge(acknowledge));
            if requests.send(wire::FollowRequest { message }).await.is_err() {
                break;
            }
        }
        Ok(Ended::Broken(Status::unavailable("the server ended the sync stream").into()))
    }

    async fn say_hello(
        &self,
        connection: &Connection,
    ) -> Result<(Requests, Streaming<wire::FollowResponse>), Status> {
        let (requests, outgoing) = mpsc::channel(ACKNOWLEDGEMENTS_MAX);
        let hello = wire::Hello { held: self.held.as_ref().map(to_wire), holds_state: self.held.is_some() };
        let message = Some(wire::follow_request::Message::Hello(hello));
        // The channel is empty and its reader is below, so this cannot fail.
        let _ = requests.try_send(wire::FollowRequest { message });
        let mut client =
            SyncClient::new(connection.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answers = client.follow(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok((requests, answers))
    }

    async fn take(&mut self, collected: Collected, is_first: bool) -> bool {
        let Collected {
            revision,
            snapshot,
            entries,
            mut removed,
            own_bundle,
            federated,
            unreadable_federated,
            removed_federated,
        } = collected;
        if snapshot {
            info!(%revision, entries = entries.len(), "the whole state came from the server");
        } else {
            debug!(%revision, changed = entries.len(), removed = removed.len(), "a change came from the server");
        }
        let own_bundle = own_bundle.filter(|bundle| {
            let ours = bundle.trust_domain == self.parts.trust_domain;
            if !ours {
                warn!(trust_domain_id = %bundle.trust_domain, "the server sent another trust domain's bundle as its own");
            }
            ours
        });
        let entries = self.usable(entries, &mut removed);
        // Should the server lose its push stream, polling starts over.
        self.polled = Polled::default();
        let applied = self
            .apply(|applied| Update {
                snapshot,
                entries,
                removed,
                own_bundle,
                federated,
                unreadable_federated,
                removed_federated,
                is_first,
                applied,
            })
            .await;
        if applied {
            self.held = Some(revision);
            self.parts.in_step.follows();
        }
        applied
    }
}

fn to_wire(revision: &Revision) -> wire::Revision {
    wire::Revision { history: revision.history.clone(), number: revision.number }
}
