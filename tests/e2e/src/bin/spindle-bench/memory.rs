//! Memory of server and agent at rest, and of the agent for each open stream.
//!
//! Resident memory counts the pages of the binary that are in use; anonymous memory, heap and stacks, is what a further
//! process or stream really adds.

use std::time::Duration;

use anyhow::Result;
use spindle_e2e::{next, svid_stream};
use tokio::time::sleep;

use crate::process::{Memory, Process};
use crate::report::{kibibytes, line, mebibytes};
use crate::trust_domain::{Agent, Server};

/// How long processes are left alone before a look: start-up and the ends of connections are over by then.
const REST: Duration = Duration::from_secs(3);

/// Connections with one open stream each.
const STREAMS: u32 = 1000;

/// Prints both processes' memory when nobody calls: one attested agent, one entry, one SVID.
pub(crate) async fn measure_idle(server: &Server, agent: &Agent) -> Result<()> {
    sleep(REST).await;
    print("server: idle memory", server.process.memory()?);
    print("agent: idle memory", agent.process.memory()?);
    Ok(())
}

/// Opens [`STREAMS`] connections and prints what they add to the agent.
pub(crate) async fn measure_streams(agent: &Agent) -> Result<()> {
    let before = agent.process.memory()?;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = svid_stream(agent.connect().await?).await?;
        next(&mut stream).await?;
        streams.push(stream);
    }
    let after = rested(&agent.process).await?;
    print(&format!("agent: memory with {STREAMS} open streams, a connection each"), after);
    let added = |now: u64, then: u64| kibibytes(now.saturating_sub(then) / u64::from(STREAMS));
    let anonymous = added(after.anonymous, before.anonymous);
    let resident = added(after.resident, before.resident);
    line("agent: memory per open stream", &resident, &format!("resident, {anonymous} of it anonymous"));
    drop(streams);
    print("agent: memory after they have gone", rested(&agent.process).await?);
    Ok(())
}

async fn rested(process: &Process) -> Result<Memory> {
    sleep(REST).await;
    process.memory()
}

fn print(what: &str, memory: Memory) {
    let anonymous = format!("resident, {} of it anonymous", mebibytes(memory.anonymous));
    line(what, &mebibytes(memory.resident), &anonymous);
}
