//! `api watch`: stays connected and prints each update; waits and connects again when the agent is away.

use std::time::Duration;

use spindle_runtime::{Logs, Shutdown, SystemClock};
use spindle_spiffe_core::Clock;
use tokio::time::Instant;

use super::{api, svids};
use crate::args::Socket;
use crate::client::block_on;
use crate::console::Console;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::service;

#[derive(Debug, clap::Args)]
pub(in crate::agent_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
}

/// The first and the longest wait between two attempts (Workload API 4.3 asks for backoff).
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let endpoint = Endpoint::of(&args.socket, console.vars)?;
    block_on(async {
        let (shutdown, logs) = (Shutdown::new(), Logs::default());
        let mut signals = service::signals()?;
        // Both arms are cancel-safe: one only waits, the other's loss ends the program.
        tokio::select! {
            () = signals.obey(&shutdown, &logs, async || shutdown.begin()) => Ok(()),
            failure = watch(&endpoint, console) => Err(failure),
        }
    })
}

/// Runs until the output is gone.
async fn watch(endpoint: &Endpoint, console: &mut Console<'_>) -> Failure {
    let mut wait = WAIT_MIN;
    loop {
        match follow(endpoint, console, &mut wait).await {
            End::Broken(failure) => failure.print_bare(console.err),
            End::NoOutput(failure) => return failure,
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

enum End {
    Broken(Failure),
    NoOutput(Failure),
}

/// Prints updates until the stream ends; each update makes the next wait short again.
async fn follow(endpoint: &Endpoint, console: &mut Console<'_>, wait: &mut Duration) -> End {
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(failure) => return End::Broken(failure),
    };
    let mut since = Instant::now();
    let mut stream = match api::open(channel).await {
        Ok(stream) => stream,
        Err(status) => return End::Broken(api::not_served(&status)),
    };
    loop {
        let response = match stream.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return End::Broken(Failure::new("the agent ended the stream")),
            Err(status) => return End::Broken(api::not_served(&status)),
        };
        *wait = WAIT_MIN;
        match svids::verify(&response, SystemClock.now()) {
            Ok(fetched) => {
                if let Err(error) = svids::print(console.out, &fetched, since.elapsed()) {
                    return End::NoOutput(error.into());
                }
            }
            Err(failure) => failure.print_bare(console.err),
        }
        since = Instant::now();
    }
}
