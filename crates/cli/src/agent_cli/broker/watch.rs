//! `broker watch`: prints each update of a workload's X509-SVIDs, and waits and connects again, until the workload ends.

use spindle_runtime::{Logs, Shutdown, SystemClock};
use spindle_spiffe_core::Clock;
use tokio::time::Instant;

use super::flags::{BrokerFlags, Parts};
use crate::agent_cli::svids;
use crate::args::Socket;
use crate::client::block_on;
use crate::console::Console;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::service;
use crate::svid_files::source::{Event, Source};
use crate::svid_files::wanted::{Choice, Names, Wanted, What};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 when the workload has ended, or after a signal; 1 when asking again cannot help."
)]
pub(in crate::agent_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    broker: BrokerFlags,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let (parts, endpoint) = (args.broker.parts(console)?, Endpoint::of(&args.socket, console.vars)?);
    block_on(async {
        let (shutdown, logs) = (Shutdown::new(), Logs::default());
        let mut signals = service::signals()?;
        // Both arms are cancel-safe: one only waits, the other's loss ends the program.
        tokio::select! {
            () = signals.obey(&shutdown, &logs, async || shutdown.begin()) => Ok(()),
            ended = watch(parts, endpoint, console) => ended,
        }
    })
}

/// Prints until the workload ends.
async fn watch(parts: Parts, endpoint: Endpoint, console: &mut Console<'_>) -> Result<(), Failure> {
    let wanted = Wanted {
        what: What::Identity,
        choice: Choice::First,
        names: Names::of_bundles(None),
        tokens: Vec::new(),
    };
    let mut source = Source::start(&parts.follow(endpoint), &wanted);
    let (mut since, mut is_served) = (Instant::now(), false);
    while let Some(event) = source.next().await {
        match event {
            Event::X509(message) => match svids::verify(&message, SystemClock.now()) {
                Ok(fetched) => {
                    is_served = true;
                    svids::print(console.out, &fetched, since.elapsed(), svids::Foreign::Name)?;
                }
                Err(failure) => failure.print_bare(console.err),
            },
            Event::Denied(_, failure) => failure.print_bare(console.err),
            Event::Gone(failure) if is_served => {
                writeln!(console.out, "The workload is gone: {}", failure.what())?;
                return Ok(());
            }
            Event::Fatal(failure) | Event::Gone(failure) => return Err(failure),
            Event::X509Bundles(_) | Event::JwtBundles(_) | Event::Token(..) => {}
        }
        since = Instant::now();
    }
    Ok(())
}
