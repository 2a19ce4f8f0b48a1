//! The journey of one identity: registered, pushed, signed, streamed, rotated, withdrawn.

use anyhow::Result;
use spindle_e2e::{Domain, PATIENCE, id, ids, next, own_uid};
use spindle_server::StoreKind;
use spindle_spiffe_core::X509Svid;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_reaches_an_open_stream_and_its_deletion_ends_the_last_one() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Sled, 3600, 600).await?;
    let node = domain.node("node").await?;
    let first = domain.register(&node.id, "/first", &[&own_uid()]).await?;
    let (mut stream, message) = node.served_stream().await?;
    assert_eq!(ids(&message), [id("/first").to_string()]);
    let svid = X509Svid::from_der(&message.svids[0].x509_svid)?;
    assert_eq!(svid.spiffe_id(), &id("/first"));
    assert!(!message.svids[0].bundle.is_empty() && !message.svids[0].x509_svid_key.is_empty());

    let second = domain.register(&node.id, "/second", &[&own_uid()]).await?;
    let mut both = ids(&next(&mut stream).await?);
    both.sort();
    assert_eq!(both, [id("/first").to_string(), id("/second").to_string()]);

    domain.unregister(&first).await?;
    assert_eq!(ids(&next(&mut stream).await?), [id("/second").to_string()]);
    domain.unregister(&second).await?;
    let status =
        tokio::time::timeout(PATIENCE, stream.message()).await?.expect_err("nothing is left to serve");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("no identity issued"), "{status:?}");

    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_an_entry_is_refused_with_a_reason() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Memory, 3600, 600).await?;
    let node = domain.node("node").await?;
    domain.register(&node.id, "/other", &["unix:uid:4294967294"]).await?;
    let status = match node.stream().await {
        Err(status) => status,
        Ok(mut stream) => stream.message().await.expect_err("this process has no entry"),
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(spindle_proto::refusal::reason_of(&status).as_deref(), Some("no_matching_entry"));
    assert!(!status.message().contains("/other"), "a workload learns nothing of others: {status:?}");
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_sees_rotations() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Memory, 3600, 4).await?;
    let node = domain.node("node").await?;
    domain.register(&node.id, "/web", &[&own_uid()]).await?;
    let (mut stream, mut message) = node.served_stream().await?;
    let mut serials = std::collections::BTreeSet::new();
    loop {
        serials.insert(X509Svid::from_der(&message.svids[0].x509_svid)?.serial_decimal());
        if serials.len() == 3 {
            break;
        }
        message = next(&mut stream).await?;
    }
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_goes_on_with_the_same_authority_and_its_agents_come_back() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Sled, 3600, 600).await?;
    let node = domain.node("node").await?;
    domain.register(&node.id, "/web", &[&own_uid()]).await?;
    let (mut stream, _) = node.served_stream().await?;
    let before = domain.bundle_pem().await?;
    domain.restart().await?;
    assert_eq!(domain.bundle_pem().await?, before);
    domain.register(&node.id, "/late", &[&own_uid()]).await?;
    while !ids(&next(&mut stream).await?).contains(&id("/late").to_string()) {}
    node.stop().await?;
    domain.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_trust_domain_is_refused() -> Result<()> {
    let mut domain = Domain::start(StoreKind::Sled, 3600, 600).await?;
    let refused = domain.restart_as("other.test").await.expect_err("the store is example.org's");
    assert!(format!("{refused:#}").contains("belongs to trust domain example.org"), "{refused:#}");
    Ok(())
}
