//! Agents that prove a certificate: they renew by proving it again, come back when they are evicted, and end when banned.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use spindle_agent::{AgentError, X509PopSource};
use spindle_e2e::{Domain, PATIENCE, id, ids, next, own_uid};
use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::types;
use spindle_runtime::SystemClock;
use spindle_server::StoreKind;
use spindle_server::x509pop::{Mode, PathTemplate, Roots, Settings};
use spindle_spiffe_core::{Clock, Reason, SpiffeId};
use spindle_testkit::NodePki;

/// A domain that trusts an authority for nodes, and names agents by the name in their certificates.
async fn domain(svid_ttl_secs: i64) -> Result<(Domain, NodePki)> {
    let root = NodePki::root("operator's root", SystemClock.now());
    let mut settings = Settings::new(Mode::ExternalPki(Roots::from_pem(root.pem().as_bytes())?));
    settings.path_template = PathTemplate::parse("/x509pop/{{ .Subject.CommonName }}")?;
    let change = |config: &mut spindle_server::ServerConfig| config.node_attestors.x509pop = Some(settings);
    Ok((Domain::start_with(StoreKind::Memory, 3600, svid_ttl_secs, change).await?, root))
}

async fn node(domain: &Domain, root: &NodePki, name: &str) -> Result<spindle_e2e::Node> {
    let (certificate, private_key) = root.node(name).write(domain.folder(), name, &[]);
    let source = X509PopSource::Files { private_key, certificate, intermediates: None };
    let agent_id = id(&format!("/spire/agent/x509pop/{name}"));
    domain.node_with(name, agent_id, |config| config.x509pop = Some(source)).await
}

async fn shown(domain: &Domain, agent: &SpiffeId) -> Result<Option<types::Agent>> {
    let (mut agents, _) = domain.admin_clients().await?;
    let request = agent_api::GetAgentRequest { id: Some(spiffe_id_to_proto(agent)), output_mask: None };
    match agents.get_agent(request).await {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_renews_by_attesting_again_under_its_open_streams() -> Result<()> {
    let (mut domain, root) = domain(6).await?;
    let node = node(&domain, &root, "node").await?;
    domain.register(&node.id, "/web", &[&own_uid()]).await?;
    let (mut stream, _) = node.served_stream().await?;
    let watch = async {
        let mut serials = BTreeSet::new();
        while serials.len() < 4 {
            let agent = shown(&domain, &node.id).await?.context("it is not gone for a moment")?;
            // The server has no renewals for such agents, so each serial is an attestation.
            anyhow::ensure!(agent.can_reattest && agent.attestation_type == "x509pop", "{agent:?}");
            serials.insert(agent.x509svid_serial_number);
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, watch).await.context("it does not renew")??;
    domain.register(&node.id, "/late", &[&own_uid()]).await?;
    while ids(&next(&mut stream).await?).len() < 2 {}
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_agent_comes_back_by_itself_and_a_banned_one_ends() -> Result<()> {
    let (mut domain, root) = domain(3600).await?;
    let node = node(&domain, &root, "node").await?;
    domain.register(&node.id, "/web", &[&own_uid()]).await?;
    let (mut stream, _) = node.served_stream().await?;
    let before = shown(&domain, &node.id).await?.context("attested")?;
    let (mut agents, _) = domain.admin_clients().await?;
    let agent_id = Some(spiffe_id_to_proto(&node.id));
    agents.delete_agent(agent_api::DeleteAgentRequest { id: agent_id.clone() }).await?;
    domain.register(&node.id, "/after", &[&own_uid()]).await?;
    while ids(&next(&mut stream).await?).len() < 2 {}
    let after = shown(&domain, &node.id).await?.context("attested again")?;
    assert_ne!(before.x509svid_serial_number, after.x509svid_serial_number);
    agents.ban_agent(agent_api::BanAgentRequest { id: agent_id }).await?;
    let error = node.end().await?;
    let error = error.downcast_ref::<AgentError>().context("the agent's own error")?;
    assert!(matches!(error, AgentError::StandingLost { reason: Reason::AgentBanned }), "{error}");
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_replaced_is_used_without_a_restart() -> Result<()> {
    let (mut domain, root) = domain(6).await?;
    let node = node(&domain, &root, "node").await?;
    let serial = |agent: &types::Agent| {
        agent.selectors.iter().find(|one| one.value.starts_with("serialnumber:")).map(|one| one.value.clone())
    };
    let before = serial(&shown(&domain, &node.id).await?.context("attested")?);
    let other = root.node("node");
    // The new certificate first: until its key follows, the two do not belong together and nothing is attested.
    other.write(domain.folder(), "node", &[]);
    let watch = async {
        loop {
            let agent = shown(&domain, &node.id).await?.context("it is not gone for a moment")?;
            if serial(&agent) != before {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, watch).await.context("the new certificate is not used")??;
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_from_another_agents_workload_api_is_exchanged_for_an_agents() -> Result<()> {
    let settings = Settings::new(Mode::Spiffe { prefix: "/spire-exchange/".into() });
    let change = |config: &mut spindle_server::ServerConfig| config.node_attestors.x509pop = Some(settings);
    let mut domain = Domain::start_with(StoreKind::Memory, 3600, 600, change).await?;
    let first = domain.node("first").await?;
    domain.register(&first.id, "/spire-exchange/second", &[&own_uid()]).await?;
    first.served_stream().await?;
    let source = X509PopSource::WorkloadApi { socket: first.socket_path.clone() };
    let agent_id = id("/spire/agent/x509pop/second");
    let second = domain.node_with("second", agent_id, |config| config.x509pop = Some(source)).await?;
    assert!(shown(&domain, &second.id).await?.context("attested")?.can_reattest);
    domain.register(&second.id, "/web", &[&own_uid()]).await?;
    let (_, message) = second.served_stream().await?;
    assert_eq!(ids(&message), [id("/web").to_string()]);
    second.stop().await?;
    first.stop().await?;
    domain.stop().await
}
