//! Settings that change under callers that are connected, and the log level over the admin socket.

use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use spindle_proto::spire::api::server::logger::v1 as logger_api;
use spindle_proto::spire::api::server::logger::v1::logger_client::LoggerClient;
use spindle_proto::spire::api::types::LogLevel;
use spindle_server::{RateLimitSettings, Reloadable};
use spindle_spiffe_core::Reason;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::{TestServer, csr, expect_refusal, id, in_time};

async fn count_agents(channel: &Channel) -> Result<(), tonic::Status> {
    let mut client = AgentClient::new(channel.clone());
    in_time(client.count_agents(agent_api::CountAgentsRequest::default())).await.map(drop)
}

#[tokio::test]
async fn an_admin_of_the_configuration_comes_and_goes_on_an_open_connection() {
    let server = TestServer::start().await;
    let channel = server.dial_as("/operator").await;
    let settings = Reloadable::clone(&server.live().load());
    expect_refusal(count_agents(&channel).await, Code::PermissionDenied, Reason::MethodNotAllowed);
    server.live().replace(Reloadable { admin_ids: vec![id("/operator")], ..settings.clone() });
    count_agents(&channel).await.unwrap();
    server.live().replace(settings);
    expect_refusal(count_agents(&channel).await, Code::PermissionDenied, Reason::MethodNotAllowed);
}

#[tokio::test]
async fn lifetimes_hold_from_the_next_svid_on() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let settings = Reloadable::clone(&server.live().load());
    server.live().replace(Reloadable { agent_ttl_secs: 120, ..settings });
    let (_, renewed) = agent.renew().await;
    let now = spindle_spiffe_core::Clock::now(&server.clock);
    assert_eq!(renewed.expires_at, now.unix_secs() + 120);
}

#[tokio::test]
async fn a_limit_that_is_switched_on_refuses_the_next_batch_that_is_too_large() {
    use spindle_proto::spire::api::server::svid::v1::{BatchNewX509svidRequest, NewX509svidParams};
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let params = vec![NewX509svidParams { entry_id: "none".into(), csr: csr().into() }; 501];
    let batch = || async {
        in_time(agent.svids().batch_new_x509svid(BatchNewX509svidRequest { params: params.clone() })).await
    };
    batch().await.unwrap();
    let settings = Reloadable::clone(&server.live().load());
    let rate_limits = RateLimitSettings { attestation: false, signing: true };
    server.live().replace(Reloadable { rate_limits, ..settings });
    expect_refusal(batch().await, Code::ResourceExhausted, Reason::Overloaded);
}

#[tokio::test]
async fn the_log_level_is_for_the_admin_socket_alone() {
    let server = TestServer::start_with(|config| config.admin_ids = vec![id("/operator")]).await;
    for channel in [server.dial(None).await, server.dial_as("/operator").await] {
        let mut client = LoggerClient::new(channel);
        let answer = in_time(client.get_logger(logger_api::GetLoggerRequest {})).await;
        expect_refusal(answer, Code::PermissionDenied, Reason::MethodNotAllowed);
        let answer = in_time(client.reset_log_level(logger_api::ResetLogLevelRequest {})).await;
        expect_refusal(answer, Code::PermissionDenied, Reason::MethodNotAllowed);
    }
    let mut client = LoggerClient::new(server.admin().await);
    let set = logger_api::SetLogLevelRequest { new_level: LogLevel::Trace.into() };
    let levels = in_time(client.set_log_level(set)).await.unwrap().into_inner();
    assert_eq!((levels.current_level(), levels.launch_level()), (LogLevel::Trace, LogLevel::Info));
    for new_level in [0, 8, -1] {
        let answer = in_time(client.set_log_level(logger_api::SetLogLevelRequest { new_level })).await;
        expect_refusal(answer, Code::InvalidArgument, Reason::BadRequest);
    }
    let levels = in_time(client.get_logger(logger_api::GetLoggerRequest {})).await.unwrap().into_inner();
    assert_eq!(levels.current_level(), LogLevel::Trace, "a refused level changes nothing");
    let levels = in_time(client.reset_log_level(logger_api::ResetLogLevelRequest {})).await.unwrap();
    assert_eq!(levels.into_inner().current_level(), LogLevel::Info);
}
