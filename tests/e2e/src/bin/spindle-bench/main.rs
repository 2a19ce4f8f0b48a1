//! What Spindle costs: the release binaries as processes of their own, driven over their sockets.
//!
//! Prints figures, with their ratio to a yardstick measured in the same run, and never judges. Takes a few minutes. Run it
//! with `make bench`; it expects `spindle-server` and `spindle-agent` beside itself. Each part is a file of its own, from
//! `issuance.rs` to `size.rs`.

mod caller;
mod crowd;
mod entries;
mod fetch;
mod issuance;
mod journey;
mod memory;
mod process;
mod registry;
mod report;
mod size;
mod trust_domain;
mod yardstick;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use spindle_e2e::own_uid;
use trust_domain::{Agent, Server, Store};
use yardstick::Yardstick;

#[tokio::main]
async fn main() -> Result<()> {
    // A thousand connections are a thousand files on our side, too.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut arguments = std::env::args().skip(1);
    let part = arguments.next();
    if part.as_deref() == Some("caller") {
        let done = caller::main(arguments).await;
        let status = done.inspect_err(report::problem).is_err();
        // At once: the runtime would wait for the thread that reads standard input.
        std::process::exit(i32::from(status));
    }
    report::machine()?;
    size::measure()?;
    let yardstick = Yardstick::new()?;
    yardstick.measure()?;
    match part.as_deref() {
        None => {}
        Some("registry") => return registries(&yardstick).await,
        Some("crowd") => return crowds().await,
        Some(other) => {
            anyhow::bail!("there is no part {other:?}: leave it out for all, or name registry or crowd")
        }
    }
    issuance::measure(&Server::start(Store::Sled).await?, &yardstick).await?;
    for store in Store::DURABLE {
        entries::measure(&Server::start(store).await?, &yardstick).await?;
    }
    registries(&yardstick).await?;
    workloads(&yardstick).await?;
    crowds().await
}

/// The part with 100,000 entries, which takes most of the time; with the argument `registry` it is the only one.
async fn registries(yardstick: &Yardstick) -> Result<()> {
    for store in [Store::Sled, Store::Redb, Store::Memory] {
        registry::measure(&Server::start(store).await?, yardstick).await?;
    }
    Ok(())
}

/// The parts that need an agent and its callers; idle memory comes first, while both processes are fresh.
async fn workloads(yardstick: &Yardstick) -> Result<()> {
    let server = Server::start(Store::Sled).await?;
    let agent = Agent::start(&server, "/base", &own_uid()).await?;
    memory::measure_idle(&server, &agent).await?;
    memory::measure_streams(&agent).await?;
    fetch::measure(&agent, yardstick).await?;
    journey::measure(&server, &agent).await
}

/// Ten thousand workloads, then hostile ones; with the argument `crowd` it is the only part. A fresh agent, for its memory.
async fn crowds() -> Result<()> {
    let server = Server::start(Store::Memory).await?;
    let agent = Agent::start(&server, "/base", &own_uid()).await?;
    memory::measure_idle(&server, &agent).await?;
    crowd::measure(&agent).await?;
    crowd::measure_hostile(&agent).await
}
