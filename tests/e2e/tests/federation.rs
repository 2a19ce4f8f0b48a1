//! The bundle of another trust domain on its way to workloads: set, replaced and deleted under open streams.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use spindle_e2e::{Domain, Node, PATIENCE, entry, next, own_uid};
use spindle_proto::convert::bundle_to_proto;
use spindle_proto::spire::api::server::bundle::v1 as bundle_api;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::workload;
use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_server::StoreKind;
use spindle_spiffe_core::Bundle;
use spindle_testkit::{NOW, TestAuthority};
use spindle_transport::connect_unix;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Streaming};

const OTHER: &str = "spiffe://other.example";

/// A new bundle of the other trust domain, without a number as one from PEM.
fn other() -> Bundle {
    TestAuthority::new("other.example", NOW).bundle()
}

async fn set(domain: &Domain, bundle: &Bundle) -> Result<()> {
    let bundle = vec![bundle_to_proto(bundle)];
    let request = bundle_api::BatchSetFederatedBundleRequest { bundle, output_mask: None };
    let answer = BundleClient::new(domain.admin().await?).batch_set_federated_bundle(request).await?;
    assert_eq!(answer.into_inner().results[0].status.as_ref().context("a status")?.code, 0);
    Ok(())
}

async fn delete(
    domain: &Domain,
    mode: bundle_api::batch_delete_federated_bundle_request::Mode,
) -> Result<()> {
    let trust_domains = vec!["other.example".to_owned()];
    let request = bundle_api::BatchDeleteFederatedBundleRequest { trust_domains, mode: mode.into() };
    let answer = BundleClient::new(domain.admin().await?).batch_delete_federated_bundle(request).await?;
    assert_eq!(answer.into_inner().results[0].status.as_ref().context("a status")?.code, 0);
    Ok(())
}

/// An open FetchX509Bundles stream.
async fn bundles(node: &Node) -> Result<Streaming<workload::X509BundlesResponse>> {
    let mut request = Request::new(workload::X509BundlesRequest {});
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    let mut client = SpiffeWorkloadApiClient::new(connect_unix(&node.socket_path).await?);
    Ok(client.fetch_x509_bundles(request).await?.into_inner())
}

async fn next_bundles(
    stream: &mut Streaming<workload::X509BundlesResponse>,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await??.context("the stream has ended")?;
    Ok(message.bundles.into_iter().map(|(name, der)| (name, der.to_vec())).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_bundle_comes_to_open_streams_changes_under_them_and_goes() -> Result<()> {
    use bundle_api::batch_delete_federated_bundle_request::Mode;
    let mut domain = Domain::start(StoreKind::Sled, 3600, 600).await?;
    let node = domain.node("node").await?;
    domain.register(&node.id, "/plain", &[&own_uid()]).await?;
    let (mut svids, first) = node.served_stream().await?;
    assert!(first.federated_bundles.is_empty());
    let mut stream = bundles(&node).await?;
    assert_eq!(next_bundles(&mut stream).await?.len(), 1, "the own one");

    let one = other();
    set(&domain, &one).await?;
    let mut federated = entry(&node.id, "/federated", &[&own_uid()])?;
    federated.federates_with = vec!["other.example".into()];
    domain.register_with(federated).await?;
    // The bundle may come a moment before the new identity is signed.
    let mut message = next(&mut svids).await?;
    while message.svids.len() < 2 {
        message = next(&mut svids).await?;
    }
    assert_eq!(message.federated_bundles[OTHER][..], one.x509_bundle().to_der()[..]);
    let shown = next_bundles(&mut stream).await?;
    assert_eq!((shown.len(), &shown[OTHER][..]), (2, &one.x509_bundle().to_der()[..]));

    let two = other();
    set(&domain, &two).await?;
    assert_eq!(next(&mut svids).await?.federated_bundles[OTHER][..], two.x509_bundle().to_der()[..]);
    assert_eq!(next_bundles(&mut stream).await?[OTHER][..], two.x509_bundle().to_der()[..]);

    delete(&domain, Mode::Dissociate).await?;
    let message = next(&mut svids).await?;
    assert_eq!((message.federated_bundles.len(), message.svids.len()), (0, 2), "the identities stay");
    assert_eq!(next_bundles(&mut stream).await?.len(), 1);
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_goes_with_a_bundle_ends_the_stream_it_alone_served() -> Result<()> {
    use bundle_api::batch_delete_federated_bundle_request::Mode;
    let mut domain = Domain::start(StoreKind::Memory, 3600, 600).await?;
    let node = domain.node("node").await?;
    set(&domain, &other()).await?;
    let mut federated = entry(&node.id, "/federated", &[&own_uid()])?;
    federated.federates_with = vec!["other.example".into()];
    domain.register_with(federated).await?;
    let (mut svids, first) = node.served_stream().await?;
    assert_eq!(first.federated_bundles.len(), 1);
    delete(&domain, Mode::Delete).await?;
    let status =
        tokio::time::timeout(PATIENCE, svids.message()).await?.expect_err("nothing is left to serve");
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    node.stop().await?;
    domain.stop().await
}
