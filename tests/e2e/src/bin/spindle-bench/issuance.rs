//! CPU time of the server process for each X509-SVID and each JWT-SVID it issues to an agent over TLS.
//!
//! The agent is this program: attested with a join token, it sends CSRs made before in batches, one call at a time, then asks
//! for tokens, one a call. Key generation and TLS on the agent's side are not in the figure; TLS, authorisation and log on the server's side are.

use anyhow::{Context, Result, ensure};
use rustls_pki_types::CertificateDer;
use spindle_e2e::{entry, id, trust_domain};
use spindle_keys::{Key, KeyType, certificate_request};
use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::server::svid::v1 as svid_api;
use spindle_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use spindle_proto::spire::api::types;
use spindle_runtime::SystemClock;
use spindle_transport::{ExpectedServer, LiveBundles, LiveIdentity, TlsDialer, Trust};
use tonic::transport::Channel;

use crate::trust_domain::Server;
use crate::yardstick::Yardstick;

/// CSRs in a call.
const BATCH_CSRS: usize = 50;

/// Calls in a turn: each has CSRs of its own.
const BATCHES: usize = 20;

/// Tokens in a turn.
const TOKENS: usize = 500;

type Batch = Vec<svid_api::NewX509svidParams>;

/// Issues and prints.
pub(crate) async fn measure(server: &Server, yardstick: &Yardstick) -> Result<()> {
    let (mut client, batches) = prepare(server).await?;
    let cost = yardstick
        .cost(&server.process, async || {
            let mut issued = 0;
            for batch in &batches {
                issued += issue(&mut client, batch).await?;
            }
            Ok(issued)
        })
        .await?;
    cost.print(&format!("server: CPU per X509-SVID, BatchNewX509SVID, batches of {BATCH_CSRS}"));
    let entry_ids: Vec<String> = batches[0].iter().map(|param| param.entry_id.clone()).collect();
    let cost = yardstick
        .cost(&server.process, async || {
            for entry_id in entry_ids.iter().cycle().take(TOKENS) {
                new_token(&mut client, entry_id).await?;
            }
            Ok(TOKENS.try_into()?)
        })
        .await?;
    cost.print("server: CPU per JWT-SVID, NewJWTSVID");
    Ok(())
}

/// One call for one token.
async fn new_token(client: &mut SvidClient<Channel>, entry_id: &str) -> Result<()> {
    let request =
        svid_api::NewJwtsvidRequest { entry_id: entry_id.to_owned(), audience: vec!["bench".into()] };
    let svid = client.new_jwtsvid(request).await?.into_inner().svid.context("an SVID in the answer")?;
    ensure!(!svid.token.is_empty(), "the token is empty");
    Ok(())
}

/// An attested agent's connection, and CSRs for entries that it is authorised for.
async fn prepare(server: &Server) -> Result<(SvidClient<Channel>, Vec<Batch>)> {
    let token = server.admin.join_token().await?;
    let agent_id = id(&format!("/spire/agent/join_token/{token}"));
    let entries =
        (0..BATCH_CSRS).map(|number| entry(&agent_id, &format!("/issue/{number}"), &["unix:uid:1"]));
    let entry_ids = server.admin.register_all(entries.collect::<Result<_>>()?).await?;
    let batches =
        (0..BATCHES).map(|_| entry_ids.iter().map(|id| params(id)).collect()).collect::<Result<_>>()?;
    let dialer = dialer(server).await?;
    let identity = attest(&dialer, token).await?;
    let channel = dialer.with_identity(identity).connect().await?;
    Ok((SvidClient::new(channel), batches))
}

fn params(entry_id: &str) -> Result<svid_api::NewX509svidParams> {
    let csr = certificate_request(&Key::generate(KeyType::EcP256)?, None, &[])?;
    Ok(svid_api::NewX509svidParams { entry_id: entry_id.to_owned(), csr: csr.into() })
}

async fn dialer(server: &Server) -> Result<TlsDialer> {
    let trust = Trust::Bundles(LiveBundles::new(server.admin.bundle().await?.into()));
    let expected = ExpectedServer::MemberOf(trust_domain());
    Ok(TlsDialer::new("127.0.0.1", server.addr.port(), trust, expected, SystemClock::shared()))
}

/// Becomes an agent.
async fn attest(dialer: &TlsDialer, token: String) -> Result<LiveIdentity> {
    use agent_api::attest_agent_request::{Params, Step};
    let key = Key::generate(KeyType::EcP256)?;
    let csr = certificate_request(&key, None, &[])?.into();
    let data = types::AttestationData { r#type: "join_token".into(), payload: token.into_bytes().into() };
    let params = Params { data: Some(data), params: Some(agent_api::AgentX509svidParams { csr }) };
    let request = agent_api::AttestAgentRequest { step: Some(Step::Params(params)) };
    let mut client = agent_api::agent_client::AgentClient::new(dialer.connect().await?);
    let mut answers = client.attest_agent(tokio_stream::iter([request])).await?.into_inner();
    let step = answers.message().await?.and_then(|answer| answer.step).context("an answer")?;
    let agent_api::attest_agent_response::Step::Result(result) = step else {
        anyhow::bail!("the server challenges a join token");
    };
    let chain = result.svid.context("an SVID in the answer")?.cert_chain;
    let identity = LiveIdentity::new();
    identity.set(chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect(), &key.pkcs8_der())?;
    Ok(identity)
}

/// One call; returns how many SVIDs it brought.
async fn issue(client: &mut SvidClient<Channel>, batch: &Batch) -> Result<u32> {
    let request = svid_api::BatchNewX509svidRequest { params: batch.clone() };
    let results = client.batch_new_x509svid(request).await?.into_inner().results;
    let issued = results.iter().filter(|result| result.svid.is_some()).count();
    ensure!(issued == batch.len(), "{issued} of {} SVIDs issued: {:?}", batch.len(), results.first());
    Ok(issued.try_into()?)
}
