//! Callers that open a call, hold their message back, and send it when they may not call any more.

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use prost::Message;
use spindle_proto::refusal::permission_denied_details_of;
use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::server::svid::v1 as svid_api;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::permission_denied_details::Reason as Standing;
use spindle_spiffe_core::Reason;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::support::{TestAgent, TestServer, csr, entry, expect_refusal, id, in_time};

const BATCH: &str = "/spire.api.server.svid.v1.SVID/BatchNewX509SVID";
const RENEW: &str = "/spire.api.server.agent.v1.Agent/RenewAgent";
const MINT: &str = "/spire.api.server.svid.v1.SVID/MintX509SVID";

/// Calls `method` and sends `message` once `meanwhile` is over, which begins when the call is open.
async fn withheld<M: Message + Default + 'static>(
    channel: &Channel,
    method: &'static str,
    message: M,
    meanwhile: LocalBoxFuture<'_, ()>,
) -> Result<(), Status> {
    let (go, gone) = oneshot::channel::<()>();
    let messages = futures_util::StreamExt::boxed(futures_util::stream::once(async move {
        gone.await.expect("the test goes on");
        message
    }));
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<M, ()>::default();
    let call = Box::pin(grpc.client_streaming(Request::new(messages), method.parse().unwrap(), codec));
    let opened_first = async {
        meanwhile.await;
        go.send(()).expect("the call is open");
    };
    // The call is polled first: its headers are on the way before anything else is.
    let (answer, ()) = in_time(async { tokio::join!(biased; call, opened_first) }).await;
    answer.map(|_| ())
}

async fn batch(server: &TestServer, agent: &TestAgent) -> svid_api::BatchNewX509svidRequest {
    let entry_id = server.create_one(entry(&agent.id, "/web", &["a:1"])).await;
    let param = svid_api::NewX509svidParams { entry_id, csr: csr().into() };
    svid_api::BatchNewX509svidRequest { params: vec![param] }
}

fn renewal() -> agent_api::RenewAgentRequest {
    agent_api::RenewAgentRequest { params: Some(agent_api::AgentX509svidParams { csr: csr().into() }) }
}

#[track_caller]
fn check(answer: Result<(), Status>, standing: Standing, reason: Reason) {
    assert_eq!(permission_denied_details_of(answer.as_ref().expect_err("refused")), Some(standing));
    expect_refusal(answer, Code::PermissionDenied, reason);
}

#[tokio::test]
async fn a_message_held_back_is_answered_while_nothing_has_changed() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let request = batch(&server, &agent).await;
    // The knock comes after the call on the same connection, so the call has been let in when it is answered.
    let knock = || async { drop(agent.knock().await.unwrap()) }.boxed_local();
    withheld(&agent.channel, BATCH, request, knock()).await.unwrap();
    withheld(&agent.channel, RENEW, renewal(), knock()).await.unwrap();
}

#[tokio::test]
async fn a_message_held_back_past_a_ban_gets_nothing() {
    let server = TestServer::start().await;
    for method in [BATCH, RENEW] {
        let agent = server.attest().await;
        let request = batch(&server, &agent).await;
        let ban = async {
            agent.knock().await.unwrap();
            server.ban(&agent.id).await;
        }
        .boxed_local();
        let answer = match method {
            BATCH => withheld(&agent.channel, method, request, ban).await,
            _ => withheld(&agent.channel, method, renewal(), ban).await,
        };
        check(answer, Standing::AgentBanned, Reason::AgentBanned);
    }
}

#[tokio::test]
async fn a_message_held_back_past_the_svids_end_gets_nothing() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let request = batch(&server, &agent).await;
    let expire = async {
        agent.knock().await.unwrap();
        server.clock.set(agent.svid.expires_at() + 1);
    }
    .boxed_local();
    let answer = withheld(&agent.channel, BATCH, request, expire).await;
    check(answer, Standing::AgentExpired, Reason::AgentExpired);
}

#[tokio::test]
async fn a_message_held_back_by_an_administrator_who_is_none_any_more_does_nothing() {
    let server = TestServer::start().await;
    let admin = types::Entry { id: "admin".into(), admin: true, ..entry(&id("/node"), "/admin", &["a:1"]) };
    server.create(vec![admin]).await;
    let channel = server.dial_as("/admin").await;
    let demote = async {
        let mut entries = entry_api::entry_client::EntryClient::new(channel.clone());
        entries.count_entries(entry_api::CountEntriesRequest::default()).await.unwrap();
        server.delete("admin").await;
    }
    .boxed_local();
    let request = svid_api::MintX509svidRequest { csr: csr().into(), ttl: 0 };
    let answer = withheld(&channel, MINT, request, demote).await;
    expect_refusal(answer, Code::PermissionDenied, Reason::MethodNotAllowed);
}
