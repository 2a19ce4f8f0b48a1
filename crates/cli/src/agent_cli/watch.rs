//! `api watch [x509|wit]`: stays connected and prints each update; waits and connects again when the agent is away.
//!
//! What is watched is one of the Workload API's profiles. Start at [`run`].

use std::time::Duration;

use clap::Subcommand;
use spindle_proto::workload::X509svidResponse;
use spindle_runtime::{Logs, Shutdown, SystemClock};
use spindle_spiffe_core::{Clock, Timestamp};
use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::Channel;

use super::{api, svids, wit};
use crate::args::Socket;
use crate::client::block_on;
use crate::console::Console;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::{input, service};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::agent_cli) struct Args {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    x509: X509Args,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Prints X509-SVIDs, which is also what watch alone does.
    X509(X509Args),
    /// Prints WIT-SVIDs with the bundles to verify them by.
    Wit(WitArgs),
}

#[derive(Debug, clap::Args)]
struct X509Args {
    #[command(flatten)]
    socket: Socket,
}

#[derive(Debug, clap::Args)]
struct WitArgs {
    #[command(flatten)]
    socket: Socket,
    /// The one identity to watch; all when left out.
    #[arg(long = "spiffeID", value_name = "ID", default_value = "")]
    spiffe_id: String,
}

/// The first and the longest wait between two attempts (Workload API 4.3 asks for backoff).
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The streams of one profile, with what they said last.
pub(super) trait Updates: Sized {
    /// What an update is once it was checked.
    type Checked;

    /// Waits for the next update.
    ///
    /// # Errors
    /// Why there will be none on these streams.
    async fn next(&mut self) -> Result<(), Failure>;

    /// Checks the newest update.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&self, now: Timestamp) -> Result<Self::Checked, Failure>;

    /// Prints it.
    ///
    /// # Errors
    /// When the output is gone.
    fn print(
        &self,
        checked: &Self::Checked,
        took: Duration,
        console: &mut Console<'_>,
    ) -> Result<(), Failure>;
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    match &args.kind {
        None => watch(&args.x509.socket, X509::open, console),
        Some(Kind::X509(args)) => watch(&args.socket, X509::open, console),
        Some(Kind::Wit(args)) => {
            if !args.spiffe_id.is_empty() {
                input::spiffe_id("spiffeID", &args.spiffe_id)?;
            }
            watch(&args.socket, async |channel| wit::Streams::open(channel, &args.spiffe_id).await, console)
        }
    }
}

fn watch<U: Updates>(
    socket: &Socket,
    open: impl AsyncFn(Channel) -> Result<U, Failure>,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let endpoint = Endpoint::of(socket, console.vars)?;
    block_on(async {
        let (shutdown, logs) = (Shutdown::new(), Logs::default());
        let mut signals = service::signals()?;
        // Both arms are cancel-safe: one only waits, the other's loss ends the program.
        tokio::select! {
            () = signals.obey(&shutdown, &logs, async || shutdown.begin()) => Ok(()),
            failure = follow_for_ever(&endpoint, &open, console) => Err(failure),
        }
    })
}

/// Runs until the output is gone.
async fn follow_for_ever<U: Updates>(
    endpoint: &Endpoint,
    open: &impl AsyncFn(Channel) -> Result<U, Failure>,
    console: &mut Console<'_>,
) -> Failure {
    let mut wait = WAIT_MIN;
    loop {
        match follow(endpoint, open, console, &mut wait).await {
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

/// Prints updates until the streams end; each update makes the next wait short again.
async fn follow<U: Updates>(
    endpoint: &Endpoint,
    open: &impl AsyncFn(Channel) -> Result<U, Failure>,
    console: &mut Console<'_>,
    wait: &mut Duration,
) -> End {
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(failure) => return End::Broken(failure),
    };
    let mut since = Instant::now();
    let mut updates = match open(channel).await {
        Ok(updates) => updates,
        Err(failure) => return End::Broken(failure),
    };
    loop {
        if let Err(failure) = updates.next().await {
            return End::Broken(failure);
        }
        *wait = WAIT_MIN;
        match updates.check(SystemClock.now()) {
            Ok(checked) => {
                if let Err(failure) = updates.print(&checked, since.elapsed(), console) {
                    return End::NoOutput(failure);
                }
            }
            Err(failure) => failure.print_bare(console.err),
        }
        since = Instant::now();
    }
}

/// A stream whose end is an error.
///
/// # Errors
/// `refused` for a status; that the stream ended otherwise.
pub(super) async fn message<M>(
    stream: &mut Streaming<M>,
    refused: impl Fn(&tonic::Status) -> Failure,
) -> Result<M, Failure> {
    let message = stream.message().await.map_err(|status| refused(&status))?;
    message.ok_or_else(|| Failure::new("the agent ended the stream"))
}

/// The stream of X509-SVIDs.
struct X509 {
    stream: Streaming<X509svidResponse>,
    last: X509svidResponse,
}

impl X509 {
    async fn open(channel: Channel) -> Result<Self, Failure> {
        let stream = api::open(channel).await.map_err(|status| api::not_served(&status))?;
        Ok(Self { stream, last: X509svidResponse::default() })
    }
}

impl Updates for X509 {
    type Checked = svids::Fetched;

    async fn next(&mut self) -> Result<(), Failure> {
        self.last = message(&mut self.stream, api::not_served).await?;
        Ok(())
    }

    fn check(&self, now: Timestamp) -> Result<svids::Fetched, Failure> {
        svids::verify(&self.last, now)
    }

    fn print(
        &self,
        fetched: &svids::Fetched,
        took: Duration,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        Ok(svids::print(console.out, fetched, took, svids::Foreign::Name)?)
    }
}
