//! The bounds of an attestation, with an attestor that is never content and time that the test moves.

use std::net::IpAddr;

use hyper_util::rt::TokioIo;
use spindle_proto::refusal::reason_of;
use spindle_proto::spire::api::types;
use spindle_testkit::ManualClock;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use wire::attest_agent_request::{Params, Step};

use super::*;
use crate::api::agent::AgentService;
use crate::attestation::node::{NodeAttestor, NodeAttestors};
use crate::fixtures::{context, csr};

/// Asks again after each answer.
struct NeverContent;

impl NodeAttestor for NeverContent {
    fn name(&self) -> &'static str {
        "never_content"
    }

    fn begin(&self, _: &Context, _: &[u8], _: Option<IpAddr>) -> Result<Round, AttestFault> {
        Ok(Round::Challenge { bytes: b"why?".to_vec(), then: Box::new(NeverContent) })
    }
}

impl Conversation for NeverContent {
    fn answer(self: Box<Self>, _: &[u8]) -> Result<Round, AttestFault> {
        Ok(Round::Challenge { bytes: b"but why?".to_vec(), then: self })
    }
}

/// A connection within this process, so that time stands still while a message is on its way.
async fn connect() -> Channel {
    let context = Arc::into_inner(context(&ManualClock::default()).await).unwrap();
    let node_attestors = NodeAttestors::of(vec![Arc::new(NeverContent)]);
    let service = AgentService::new(Arc::new(Context { node_attestors, ..context }));
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let incoming = tokio_stream::iter([Ok::<DuplexStream, std::io::Error>(theirs)]).chain(stream::pending());
    let server = wire::agent_server::AgentServer::new(service);
    let serving = spindle_transport::grpc_server().add_service(server).serve_with_incoming(incoming);
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(serving);
    let mut ours = Some(ours);
    let connector = service_fn(move |_: http::Uri| {
        let connection =
            ours.take().map(TokioIo::new).ok_or_else(|| std::io::Error::other("one connection only"));
        std::future::ready(connection)
    });
    Endpoint::from_static("http://duplex").connect_with_connector(connector).await.unwrap()
}

struct Node {
    sender: mpsc::Sender<wire::AttestAgentRequest>,
    answers: Streaming<wire::AttestAgentResponse>,
}

impl Node {
    async fn open() -> Self {
        Self::try_open(csr()).await.unwrap()
    }

    async fn try_open(csr: Vec<u8>) -> Result<Self, Status> {
        let (sender, requests) = mpsc::channel(1);
        let data = types::AttestationData { r#type: "never_content".into(), payload: b"x".as_slice().into() };
        let params = wire::AgentX509svidParams { csr: csr.into() };
        let step = Some(Step::Params(Params { data: Some(data), params: Some(params) }));
        sender.send(wire::AttestAgentRequest { step }).await.unwrap();
        let mut client = wire::agent_client::AgentClient::new(connect().await);
        let answers = client.attest_agent(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Self { sender, answers })
    }

    async fn answer(&self) {
        let step = Some(Step::ChallengeResponse(b"because".as_slice().into()));
        self.sender.send(wire::AttestAgentRequest { step }).await.unwrap();
    }
}

#[track_caller]
fn check(status: &Status, code: Code, reason: Reason, says: &str) {
    assert_eq!((status.code(), reason_of(status).as_deref()), (code, Some(reason.code())), "{status:?}");
    assert!(status.message().contains(says), "{status:?}");
}

#[tokio::test]
async fn a_csr_that_is_too_large_is_not_kept_for_the_end() {
    Node::try_open(vec![b'x'; CSR_BYTES_MAX]).await.map(|_| ()).expect("looked into after the last round");
    let status = Node::try_open(vec![b'x'; CSR_BYTES_MAX + 1]).await.map(|_| ()).expect_err("too large");
    check(&status, Code::InvalidArgument, Reason::BadCsr, "at most 65536 bytes");
}

#[tokio::test]
async fn an_attestor_that_asks_without_end_is_stopped() {
    let mut node = Node::open().await;
    for _ in 0..ROUNDS_MAX {
        assert!(node.answers.message().await.unwrap().is_some());
        node.answer().await;
    }
    let status = node.answers.message().await.unwrap_err();
    check(&status, Code::InvalidArgument, Reason::BadRequest, "at most 8 challenges");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let mut node = Node::open().await;
    node.answers.message().await.unwrap();
    let status = node.answers.message().await.unwrap_err();
    check(&status, Code::DeadlineExceeded, Reason::MessageLate, "within 30 seconds");
}

#[tokio::test(start_paused = true)]
async fn answers_that_each_come_in_time_may_not_take_too_long_together() {
    let mut node = Node::open().await;
    for _ in 0..2 {
        node.answers.message().await.unwrap();
        sleep(Duration::from_secs(25)).await;
        node.answer().await;
    }
    node.answers.message().await.unwrap();
    let status = node.answers.message().await.unwrap_err();
    check(&status, Code::DeadlineExceeded, Reason::MessageLate, "more than 60 seconds");
}
