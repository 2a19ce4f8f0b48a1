//! How soon a change reaches a workload: from the acknowledgement of `entry create` or `entry delete` to the message on a
//! stream that is already open. Server, agent and workload are three processes.

use std::time::Duration;

use anyhow::Result;
use spindle_e2e::{entry, id, next, own_uid, svid_stream};
use spindle_proto::workload::X509svidResponse;
use tokio::time::Instant;
use tonic::Streaming;

use crate::report::{line, millis};
use crate::trust_domain::{Agent, Server};

/// Entries created and deleted, one after another.
const ENTRIES: usize = 200;

/// Creates, deletes and prints.
pub(crate) async fn measure(server: &Server, agent: &Agent) -> Result<()> {
    let mut stream = svid_stream(agent.connect().await?).await?;
    next(&mut stream).await?;
    let (mut created, mut deleted) = (Vec::new(), Vec::new());
    for number in 0..ENTRIES {
        let path = format!("/journey/{number}");
        let entry_id = server.admin.register(entry(&agent.id, &path, &[&own_uid()])?).await?;
        created.push(until(&mut stream, &path, Shown::Yes).await?);
        server.admin.unregister(&entry_id).await?;
        deleted.push(until(&mut stream, &path, Shown::No).await?);
    }
    print("from `entry create` acknowledged to the SVID on an open stream", created);
    print("from `entry delete` acknowledged to the stream without it", deleted);
    Ok(())
}

/// Whether a path is to be in a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Yes,
    No,
}

/// How long from now until a message has `path` or has it no longer.
async fn until(stream: &mut Streaming<X509svidResponse>, path: &str, wanted: Shown) -> Result<Duration> {
    let (from, spiffe_id) = (Instant::now(), id(path).to_string());
    loop {
        let message = next(stream).await?;
        let is_there = message.svids.iter().any(|svid| svid.spiffe_id == spiffe_id);
        if is_there == (wanted == Shown::Yes) {
            return Ok(from.elapsed());
        }
    }
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| millis(times[(times.len() - 1) * percent / 100]);
    let rest = format!("p99 {}, worst {}, {ENTRIES} entries", at(99), at(100));
    line(what, &format!("p50 {}", at(50)), &rest);
}
