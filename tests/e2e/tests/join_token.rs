//! A join token admits one agent: of two racing uses exactly one wins.

use anyhow::{Context, Result};
use spindle_e2e::Domain;
use spindle_keys::{Key, KeyType, certificate_request};
use spindle_proto::spire::api::server::agent::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_server::StoreKind;
use tonic::transport::Channel;
use tonic::{Code, Status};

async fn attest(channel: Channel, token: String, csr: Vec<u8>) -> Result<(), Status> {
    let params = wire::attest_agent_request::Params {
        data: Some(types::AttestationData {
            r#type: "join_token".into(),
            payload: token.into_bytes().into(),
        }),
        params: Some(wire::AgentX509svidParams { csr: csr.into() }),
    };
    let request = wire::AttestAgentRequest { step: Some(wire::attest_agent_request::Step::Params(params)) };
    let mut client = wire::agent_client::AgentClient::new(channel);
    let mut answers = client.attest_agent(tokio_stream::iter([request])).await?.into_inner();
    answers.message().await?.ok_or_else(|| Status::internal("no answer")).map(|_| ())
}

fn rounds() -> usize {
    std::env::var("SPINDLE_TOKEN_RACE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(50)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_racing_uses_exactly_one_wins() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Sled, 3600, 600).await?;
    let csr = certificate_request(&Key::generate(KeyType::EcP256)?, None, &[])?;
    let (one, other) = (domain.admin().await?, domain.admin().await?);
    for round in 0..rounds() {
        let token = domain.join_token().await?;
        let (a, b) = tokio::join!(
            attest(one.clone(), token.clone(), csr.clone()),
            attest(other.clone(), token.clone(), csr.clone())
        );
        let lost = match (a, b) {
            (Ok(()), Err(lost)) | (Err(lost), Ok(())) => lost,
            (a, b) => anyhow::bail!("round {round}: {a:?} and {b:?}"),
        };
        assert_eq!(lost.code(), Code::InvalidArgument, "{lost:?}");
        assert_eq!(spindle_proto::refusal::reason_of(&lost).as_deref(), Some("join_token_unknown"));
    }
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_csr_costs_no_token() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Memory, 3600, 600).await?;
    let token = domain.join_token().await?;
    let channel = domain.admin().await?;
    let refused =
        attest(channel.clone(), token.clone(), b"garbage".to_vec()).await.err().context("refused")?;
    assert_eq!(spindle_proto::refusal::reason_of(&refused).as_deref(), Some("bad_csr"));
    let csr = certificate_request(&Key::generate(KeyType::EcP256)?, None, &[])?;
    attest(channel, token, csr).await?;
    domain.stop().await
}
