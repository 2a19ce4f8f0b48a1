//! `api fetch [x509]`: one answer of the Workload API, verified as a workload should; the way to the other `api` commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_proto::workload::{X509svidRequest, X509svidResponse};
use spindle_runtime::SystemClock;
use spindle_spiffe_core::Clock;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::{jwt, svids, watch, wit, write, x509_bundles};
use crate::args::{Output, Socket};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::{duration, output};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Fetches SVIDs from the Workload API: X509-SVIDs, unless another kind is named.
    Fetch(FetchArgs),
    /// Has a token validated by the Workload API.
    #[command(subcommand)]
    Validate(jwt::ValidateCommand),
    /// Stays connected and prints each update.
    Watch(watch::Args),
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct FetchArgs {
    #[command(subcommand)]
    kind: Option<FetchKind>,
    #[command(flatten)]
    x509: X509Args,
}

#[derive(Debug, Subcommand)]
enum FetchKind {
    /// Fetches X509-SVIDs, which is also what fetch alone does.
    X509(X509Args),
    /// Fetches JWT-SVIDs for services, and the keys that they are checked with.
    Jwt(jwt::FetchArgs),
    /// Fetches X.509 bundles alone, for those who check others and have no identity themselves.
    #[command(name = "x509bundles")]
    X509Bundles(x509_bundles::Args),
    /// Fetches WIT-SVIDs with the bundles to verify them by.
    Wit(wit::Args),
}

#[derive(Debug, clap::Args)]
struct X509Args {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    form: X509Form,
}

/// How X509-SVIDs are waited for and shown.
#[derive(Debug, clap::Args)]
pub(super) struct X509Form {
    /// How long to wait for the answer, like 5s.
    #[arg(long = "timeout", value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    pub(super) timeout: Duration,
    /// Prints nothing about the SVIDs.
    #[arg(long = "silent")]
    silent: bool,
    /// Directory to write the SVIDs, keys and bundles to; with pretty output only.
    #[arg(long = "write", value_name = "DIR")]
    write: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &FetchArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let args = match &args.kind {
        Some(FetchKind::X509(args)) => args,
        Some(FetchKind::Jwt(args)) => return jwt::fetch(args, console),
        Some(FetchKind::X509Bundles(args)) => return x509_bundles::run(args, console),
        Some(FetchKind::Wit(args)) => return wit::run(args, console),
        None => &args.x509,
    };
    let endpoint = Endpoint::of(&args.socket, console.vars)?;
    let (response, took) = block_on(fetch(&endpoint, args.form.timeout))?;
    show(&args.form, &response, took, console)
}

/// Prints the answer, or writes it.
pub(super) fn show(
    form: &X509Form,
    response: &X509svidResponse,
    took: Duration,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    output::print(form.output.form, console, response, |console| {
        let verified = svids::verify(response, SystemClock.now())?;
        if !form.silent {
            svids::print(console.out, &verified, took, svids::Foreign::Id)?;
        }
        match form.write.as_deref().filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => write::write(console, dir, &verified),
            None => Ok(()),
        }
    })
}

async fn fetch(endpoint: &Endpoint, timeout: Duration) -> Result<(X509svidResponse, Duration), Failure> {
    let start = tokio::time::Instant::now();
    let first = async {
        let mut stream = open(endpoint.connect().await?).await.map_err(|status| not_served(&status))?;
        stream.message().await.map_err(|status| not_served(&status))
    };
    Ok((within(timeout, first).await?.ok_or_else(no_answer)?, start.elapsed()))
}

/// The answer in time. Zero means to wait for ever, as with SPIRE's tool.
pub(super) async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match timeout {
        Duration::ZERO => answer.await,
        timeout => tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| Err(too_late(timeout))),
    }
}

/// A stream that ended before its first message.
pub(super) fn no_answer() -> Failure {
    Failure::new("the agent ended the stream without an answer").try_this("look at the agent's log")
}

/// A request with the header that proves a caller who means it (Workload Endpoint 3).
pub(crate) fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

fn too_late(timeout: Duration) -> Failure {
    Failure::new(format!("the agent did not answer within {}", duration::print(timeout)))
        .try_this("give it more time with -timeout, and look at the agent's log")
}

/// A refused fetch in words.
pub(crate) fn not_served(status: &Status) -> Failure {
    refused("cannot fetch X509-SVIDs", status)
}

/// Opens the stream.
pub(crate) async fn open(channel: Channel) -> Result<Streaming<X509svidResponse>, Status> {
    let request = with_header(X509svidRequest {});
    Ok(SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await?.into_inner())
}
