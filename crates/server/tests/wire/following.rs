//! An agent's end of the push stream, for tests.

use spindle_proto::spire::api::types;
use spindle_proto::sync::v1 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wire::sync_client::SyncClient;

use crate::support::{TestAgent, in_time};

/// An open push stream.
pub(crate) struct Following {
    requests: mpsc::Sender<wire::FollowRequest>,
    messages: Streaming<wire::FollowResponse>,
}

/// One whole update, its pages put together.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) snapshot: bool,
    pub(crate) revision: wire::Revision,
    /// Entries in each page.
    pub(crate) pages: Vec<usize>,
    pub(crate) entries: Vec<types::Entry>,
    pub(crate) removed: Vec<String>,
    pub(crate) bundle: Option<types::Bundle>,
    pub(crate) federated: Vec<types::Bundle>,
    pub(crate) unfederated: Vec<String>,
}

impl Following {
    /// Opens a stream as an agent that holds nothing.
    pub(crate) async fn open(agent: &TestAgent) -> Self {
        Self::open_with(agent, wire::Hello::default()).await.unwrap()
    }

    /// Opens a stream as an agent that holds the state of `held`.
    pub(crate) async fn resume(agent: &TestAgent, held: wire::Revision) -> Self {
        Self::open_with(agent, wire::Hello { held: Some(held), holds_state: true }).await.unwrap()
    }

    pub(crate) async fn open_with(agent: &TestAgent, hello: wire::Hello) -> Result<Self, Status> {
        Self::open_saying(agent, Some(wire::follow_request::Message::Hello(hello))).await
    }

    /// Opens a stream whose first message is `message`.
    pub(crate) async fn open_saying(
        agent: &TestAgent,
        message: Option<wire::follow_request::Message>,
    ) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(8);
        requests.send(wire::FollowRequest { message }).await.unwrap();
        let mut client = SyncClient::new(agent.channel.clone());
        let messages = in_time(client.follow(ReceiverStream::new(outgoing))).await?.into_inner();
        Ok(Self { requests, messages })
    }

    /// The next whole update.
    pub(crate) async fn next(&mut self) -> Update {
        self.try_next().await.unwrap()
    }

    /// The next whole update, or why the stream ends.
    pub(crate) async fn try_next(&mut self) -> Result<Update, Status> {
        let mut update: Option<Update> = None;
        loop {
            let page = in_time(self.messages.message()).await?.expect("the stream goes on");
            let last = page.last;
            match &mut update {
                None => update = Some(Update::first(page)),
                Some(update) => update.add(page),
            }
            if last {
                return Ok(update.unwrap());
            }
        }
    }

    /// Why the stream ends; no update may come before.
    pub(crate) async fn end(&mut self) -> Status {
        self.try_next().await.expect_err("the end of the stream")
    }

    /// Tells the server that the state of `revision` is applied.
    pub(crate) async fn acknowledge(&self, revision: &wire::Revision) {
        let acknowledge = wire::Acknowledge { revision: Some(revision.clone()) };
        let message = Some(wire::follow_request::Message::Acknowledge(acknowledge));
        self.requests.send(wire::FollowRequest { message }).await.unwrap();
    }
}

impl Update {
    fn first(page: wire::FollowResponse) -> Self {
        Self {
            snapshot: page.snapshot,
            revision: page.revision.expect("every message carries its revision"),
            pages: vec![page.entries.len()],
            entries: page.entries,
            removed: page.removed_entry_ids,
            bundle: page.bundle,
            federated: page.federated_bundles,
            unfederated: page.removed_federated_trust_domains,
        }
    }

    fn add(&mut self, page: wire::FollowResponse) {
        assert_eq!(page.revision.as_ref(), Some(&self.revision), "one update leads to one revision");
        assert_eq!(page.snapshot, self.snapshot);
        self.pages.push(page.entries.len());
        self.entries.extend(page.entries);
        self.removed.extend(page.removed_entry_ids);
        assert!(page.bundle.is_none(), "the bundle comes once, with the first page");
    }

    /// Paths of the entries' SPIFFE IDs, in the order sent.
    pub(crate) fn paths(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.spiffe_id.as_ref().unwrap().path.as_str()).collect()
    }
}
