//! Messages that the server cannot take: each is refused with a reason, and the next correct call works.

use prost::Message;
use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::Reason;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::support::{TestServer, expect_refusal, in_time};

const CREATE_TOKEN: &str = "/spire.api.server.agent.v1.Agent/CreateJoinToken";
const ATTEST: &str = "/spire.api.server.agent.v1.Agent/AttestAgent";

/// Calls `method` with these messages, whatever it takes.
async fn call<M: Message + Default + 'static>(
    channel: &Channel,
    method: &'static str,
    messages: Vec<M>,
) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<M, ()>::default();
    let messages = Request::new(tokio_stream::iter(messages));
    let answer = in_time(grpc.streaming(messages, method.parse().unwrap(), codec)).await?;
    let mut answers = answer.into_inner();
    while in_time(answers.message()).await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn a_message_over_the_bound_is_refused_as_too_large() {
    let server = TestServer::start().await;
    let channel = server.admin().await;
    let token = || "x".repeat(4 * 1024 * 1024);
    let unary = agent_api::CreateJoinTokenRequest { token: token(), ttl: 60, agent_id: None };
    let answer = call(&channel, CREATE_TOKEN, vec![unary]).await;
    expect_refusal(answer, Code::ResourceExhausted, Reason::MessageTooLarge);
    let data = types::AttestationData { r#type: token(), payload: Default::default() };
    let params = agent_api::attest_agent_request::Params { data: Some(data), params: None };
    let step = Some(agent_api::attest_agent_request::Step::Params(params));
    let answer = call(&channel, ATTEST, vec![agent_api::AttestAgentRequest { step }]).await;
    expect_refusal(answer, Code::ResourceExhausted, Reason::MessageTooLarge);
    server.join_token().await;
}

#[tokio::test]
async fn a_message_of_another_shape_is_refused_as_malformed() {
    let server = TestServer::start().await;
    let channel = server.admin().await;
    // A text where the method's message has a number.
    let other = entry_api::GetEntryRequest { id: "x".into(), output_mask: None };
    let answer = call(&channel, CREATE_TOKEN, vec![other]).await;
    expect_refusal(answer, Code::Internal, Reason::BadRequest);
    server.join_token().await;
}

#[tokio::test]
async fn a_call_without_a_message_is_refused_as_incomplete() {
    let server = TestServer::start().await;
    let nothing = Vec::<agent_api::CreateJoinTokenRequest>::new();
    let answer = call(&server.admin().await, CREATE_TOKEN, nothing).await;
    expect_refusal(answer, Code::InvalidArgument, Reason::BadRequest);
}

#[tokio::test]
async fn a_method_that_is_not_there_is_refused_as_unknown() {
    let server = TestServer::start().await;
    for method in ["/spire.api.server.agent.v1.Agent/Nothing", "/grpc.health.v1.Health/Watch"] {
        let answer = call(&server.admin().await, method, vec![()]).await;
        expect_refusal(answer, Code::Unimplemented, Reason::MethodUnknown);
    }
}
