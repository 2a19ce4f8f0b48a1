//! A node whose workloads all start at the same moment: every one is served, and the agent goes on answering.

use std::sync::Arc;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use spindle_e2e::{Domain, Node, PATIENCE, id, ids, next, own_uid};
use spindle_proto::workload::X509svidResponse;
use spindle_server::StoreKind;
use spindle_testkit::left_out;
use tokio::task::JoinSet;
use tonic::Streaming;

/// Streams that open at once, each on a connection of its own.
const WORKLOADS: usize = 2000;
/// Both ends of every connection and the pidfd of each caller are in this one process, and so are server and agent.
const DESCRIPTORS: u64 = 3 * WORKLOADS as u64 + 500;

/// Every workload's stream, with the first answer on it.
async fn all_at_once(node: &Arc<Node>) -> Result<Vec<Streaming<X509svidResponse>>> {
    let mut opening = JoinSet::new();
    for _ in 0..WORKLOADS {
        let node = node.clone();
        opening.spawn(async move {
            let mut stream = node.stream().await?;
            anyhow::ensure!(ids(&next(&mut stream).await?) == [id("/first").to_string()]);
            anyhow::Ok(stream)
        });
    }
    let mut streams = Vec::with_capacity(WORKLOADS);
    while let Some(opened) = tokio::time::timeout(PATIENCE, opening.join_next()).await? {
        streams.push(opened??);
    }
    Ok(streams)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_streams_that_open_at_once_are_all_served_and_followed_up() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < DESCRIPTORS {
        left_out("2000 streams at once", "the limit of open files is too low");
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut domain = Domain::start(StoreKind::Sled, 3600, 600).await?;
    let node = Arc::new(domain.node("node").await?);
    domain.register(&node.id, "/first", &[&own_uid()]).await?;
    drop(node.served_stream().await?);

    let mut streams = all_at_once(&node).await?;
    assert_eq!(streams.len(), WORKLOADS);
    domain.register(&node.id, "/second", &[&own_uid()]).await?;
    for stream in &mut streams {
        assert_eq!(next(stream).await.context("the change does not reach all")?.svids.len(), 2);
    }
    drop(streams);
    assert_eq!(node.served_stream().await?.1.svids.len(), 2, "the agent still answers");
    Arc::into_inner(node).context("nobody else holds the node")?.stop().await?;
    domain.stop().await
}
