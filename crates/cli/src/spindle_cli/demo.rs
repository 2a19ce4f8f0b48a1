//! `demo`: two workloads do mutual TLS while their SVIDs rotate under them, a stranger is refused, and an identity is
//! taken back. Ends by itself; the exit status is 0 only when all of it went as told.
//!
//! The workloads are processes of their own, this program under other names, told apart by `unix:path`.

mod child;
mod event;
mod programs;
mod story;
pub(super) mod workload;

use std::path::PathBuf;

use spindle_proto::spire::api::types;
use spindle_runtime::{LogSettings, LogTarget, Shutdown, forbid_core_dumps, init_logs};
use spindle_server::StoreKind;
use spindle_spiffe_core::{SpiffeId, TrustDomain};

use super::dev::until_stopped;
use super::scratch::Dir;
use super::show;
use crate::console::Console;
use crate::error::Failure;
use crate::local::{LocalDomain, LocalEntry, LocalSettings, Paths};
use crate::service;
use programs::Programs;
use story::Story;

/// Lifetime of the workloads' SVIDs: short, so that a minute sees many rotations.
const TTL_SECS: i32 = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long the two workloads talk, in seconds.
    #[arg(long = "seconds", value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// Directory for sockets and state; a new one below the system's temporary directory when not set.
    #[arg(long = "dir", value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let dir = Dir::of(args.dir.as_deref())?;
    let paths = Paths::make(dir.path())?;
    let programs = Programs::make(dir.path())?;
    let logs = LogSettings { target: LogTarget::File(paths.log.clone()), ..LogSettings::default() };
    let logs = init_logs(&logs).map_err(|error| Failure::because("cannot set up logs", &error))?;
    forbid_core_dumps();
    let shutdown = Shutdown::new();
    service::block_on(async {
        let work = tell(args, &paths, &programs, console, &shutdown);
        // The terminal has gone, and with it the reader: there is nothing to reload here.
        service::until_signal(work, &shutdown, &logs, async || shutdown.begin()).await?
    })
}

async fn tell(
    args: &Args,
    paths: &Paths,
    programs: &Programs,
    console: &mut Console<'_>,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let trust_domain: TrustDomain =
        "example.org".parse().map_err(|error| Failure::because("the demo's trust domain", &error))?;
    let (orders, billing) =
        (entry(&trust_domain, programs, "orders")?, entry(&trust_domain, programs, "billing")?);
    let mut story = Story {
        agent_socket: paths.agent_socket.clone(),
        log: paths.log.clone(),
        seconds: args.seconds,
        orders: orders.spiffe_id.clone(),
        billing: billing.spiffe_id.clone(),
        billing_entry: billing.entry_id.clone(),
        ttl_secs: TTL_SECS,
        out: console.out,
    };
    writeln!(story.out, "Starting the trust domain {trust_domain}")?;
    let settings = LocalSettings {
        trust_domain,
        dir: paths.dir.clone(),
        store: StoreKind::Memory,
        entries: vec![orders, billing],
    };
    let domain = LocalDomain::start(settings, shutdown, &mut |step| {
        let _ = show::progress(story.out, &step);
    })
    .await?;
    let Some(domain) = domain else { return Ok(()) };
    let admin = domain.admin();
    until_stopped(domain, shutdown, story.tell(programs, &admin)).await
}

/// An entry for the program of that name.
fn entry(trust_domain: &TrustDomain, programs: &Programs, name: &str) -> Result<LocalEntry, Failure> {
    let spiffe_id: SpiffeId = format!("spiffe://{trust_domain}/{name}")
        .parse()
        .map_err(|error| Failure::because(format!("the identity of {name}"), &error))?;
    let value = format!("path:{}", programs.path(name).display());
    Ok(LocalEntry {
        entry_id: name.into(),
        spiffe_id,
        selectors: vec![types::Selector { r#type: "unix".into(), value }],
        ttl_secs: TTL_SECS,
    })
}
