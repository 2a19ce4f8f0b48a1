//! Envoy's SDS from a real server and agent: what comes verifies, changes are pushed, settings are obeyed.

use anyhow::{Context, Result, bail};
use prost::Message;
use spindle_agent::{AgentConfig, JoinToken};
use spindle_e2e::{Domain, Node, PATIENCE, id, own_uid, trust_domain};
use spindle_proto::any::Any;
use spindle_proto::envoy::config::core::v3::DataSource;
use spindle_proto::envoy::config::core::v3::data_source::Specifier;
use spindle_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use spindle_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use spindle_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use spindle_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use spindle_runtime::SystemClock;
use spindle_server::StoreKind;
use spindle_spiffe_core::pem::certificates_from_pem;
use spindle_spiffe_core::{X509Bundle, X509Bundles, verify_x509_svid};
use spindle_transport::connect_unix;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

/// An agent with other settings.
async fn node_with(domain: &Domain, change: impl FnOnce(&mut AgentConfig)) -> Result<Node> {
    let token = domain.join_token().await?;
    let agent_id = id(&format!("/spire/agent/join_token/{token}"));
    let join = |config: &mut AgentConfig| {
        config.join_token = Some(JoinToken::new(token));
        change(config);
    };
    domain.node_with("node", agent_id, join).await
}

async fn client(node: &Node) -> Result<SecretDiscoveryServiceClient<Channel>> {
    Ok(SecretDiscoveryServiceClient::new(connect_unix(&node.socket_path).await?))
}

async fn next<T>(answers: &mut Streaming<T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, answers.message()).await??.context("the stream has ended")
}

fn secret(resource: Option<&Any>) -> Result<Type> {
    let resource = resource.context("no resource")?;
    Secret::decode(resource.value.clone())?.r#type.context("an empty secret")
}

fn inline(source: Option<&DataSource>) -> Result<&[u8]> {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        _ => bail!("no inline bytes"),
    }
}

/// Subscribes to names in the incremental variant, and keeps the stream open.
fn subscribe(names: &[&str]) -> impl tokio_stream::Stream<Item = DeltaDiscoveryRequest> + Send + 'static {
    let first = DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    tokio_stream::once(first).chain(tokio_stream::pending())
}

fn fetch(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(ToString::to_string).collect(),
        ..DiscoveryRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_comes_on_an_open_stream_verifies_and_is_told_as_gone() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Memory, 3600, 600).await?;
    let node = node_with(&domain, |config| config.sds.disable_spiffe_cert_validation = true).await?;
    let mut answers =
        client(&node).await?.delta_secrets(subscribe(&["default", "ROOTCA"])).await?.into_inner();
    let first = next(&mut answers).await?;
    assert_eq!(first.removed_resources, ["default"]);
    let Type::ValidationContext(context) = secret(first.resources[0].resource.as_ref())? else {
        bail!("not a validation context")
    };
    let mut bundles = X509Bundles::new();
    bundles.insert(X509Bundle::from_pem(trust_domain(), inline(context.trusted_ca.as_ref())?)?);

    let entry = domain.register(&node.id, "/proxy", &[&own_uid()]).await?;
    let second = next(&mut answers).await?;
    let Type::TlsCertificate(certificate) = secret(second.resources[0].resource.as_ref())? else {
        bail!("not a certificate")
    };
    let chain = certificates_from_pem(inline(certificate.certificate_chain.as_ref())?)?;
    let svid = verify_x509_svid(&chain, &bundles, SystemClock::shared().now())?;
    assert_eq!(svid.spiffe_id(), &id("/proxy"));

    domain.unregister(&entry).await?;
    assert_eq!(next(&mut answers).await?.removed_resources, ["default"]);
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_the_whole_state_sees_rotations() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Memory, 3600, 4).await?;
    let node = domain.node("node").await?;
    domain.register(&node.id, "/proxy", &[&own_uid()]).await?;
    drop(node.served_stream().await?);
    let requests = tokio_stream::once(fetch(&["default"])).chain(tokio_stream::pending());
    let mut answers = client(&node).await?.stream_secrets(requests).await?.into_inner();
    let mut chains = std::collections::BTreeSet::new();
    for version in ["1", "2", "3"] {
        let answer = next(&mut answers).await?;
        assert_eq!(answer.version_info, version);
        let Type::TlsCertificate(certificate) = secret(answer.resources.first())? else {
            bail!("not a certificate")
        };
        chains.insert(inline(certificate.certificate_chain.as_ref())?.to_vec());
    }
    assert_eq!(chains.len(), 3);
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_obeys_its_settings_for_sds() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Memory, 3600, 600).await?;
    let named = node_with(&domain, |config| config.sds.default_bundle_name = "ours".into()).await?;
    let answer = client(&named).await?.fetch_secrets(fetch(&["ours"])).await?.into_inner();
    assert_eq!(answer.resources.len(), 1);
    let status =
        client(&named).await?.fetch_secrets(fetch(&["ROOTCA"])).await.expect_err("it has no such name");
    assert_eq!(status.code(), Code::InvalidArgument);
    named.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_sds_still_serves_the_workload_api() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Memory, 3600, 600).await?;
    let node = node_with(&domain, |config| config.disable_sds_api = true).await?;
    domain.register(&node.id, "/web", &[&own_uid()]).await?;
    drop(node.served_stream().await?);
    let status = client(&node).await?.fetch_secrets(fetch(&[])).await.expect_err("it is switched off");
    assert_eq!(status.code(), Code::Unimplemented);
    node.stop().await?;
    domain.stop().await
}
