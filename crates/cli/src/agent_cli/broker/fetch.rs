//! `broker fetch`: one answer of the Broker API, checked and shown as `api fetch` shows its own.

use clap::Subcommand;
use spindle_proto::workload::JwtsvidResponse;
use tokio::time::Instant;

use super::flags::BrokerFlags;
use crate::agent_cli::api::{X509Form, show as show_x509, within};
use crate::agent_cli::jwt::{Fetched, JwtForm, show as show_jwt};
use crate::agent_cli::x509_bundles;
use crate::args::Socket;
use crate::client::block_on;
use crate::console::Console;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::svid_files::source::{Event, Part};

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
    /// Fetches X509-SVIDs, which is also what fetch alone does.
    X509(X509Args),
    /// Fetches JWT-SVIDs for services, and the keys that they are checked with.
    Jwt(JwtArgs),
    /// Fetches X.509 bundles alone.
    #[command(name = "x509bundles")]
    X509Bundles(X509BundlesArgs),
}

#[derive(Debug, clap::Args)]
struct X509Args {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    form: X509Form,
}

#[derive(Debug, clap::Args)]
struct JwtArgs {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    form: JwtForm,
}

#[derive(Debug, clap::Args)]
struct X509BundlesArgs {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    form: x509_bundles::Form,
}

/// Who asks whom for whom.
#[derive(Debug, clap::Args)]
struct Asked {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    broker: BrokerFlags,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    match &args.kind {
        Some(Kind::X509(args)) => x509(args, console),
        Some(Kind::Jwt(args)) => jwt(args, console),
        Some(Kind::X509Bundles(args)) => bundles(args, console),
        None => x509(&args.x509, console),
    }
}

fn x509(args: &X509Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let (parts, endpoint) = args.asked.parts(console)?;
    let start = Instant::now();
    let answer = block_on(within(args.form.timeout, async {
        match parts.once(&endpoint).await?.first(Part::X509).await? {
            Event::X509(message) => Ok(message),
            _ => Err(something_else()),
        }
    }))?;
    show_x509(&args.form, &answer, start.elapsed(), console)
}

fn jwt(args: &JwtArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = args.form.request()?;
    let (parts, endpoint) = args.asked.parts(console)?;
    let answer = block_on(within(args.form.timeout, async {
        let upstream = parts.once(&endpoint).await?;
        // The bundles come last: with them it is known that the workload was there until then.
        let tokens = upstream.tokens(request.audience, request.spiffe_id).await;
        let svids = tokens.map_err(|refused| refused.failure)?;
        match upstream.first(Part::JwtBundles).await? {
            Event::JwtBundles(bundles) => Ok(Fetched { svids: JwtsvidResponse { svids }, bundles }),
            _ => Err(something_else()),
        }
    }))?;
    show_jwt(&args.form, &answer, console)
}

fn bundles(args: &X509BundlesArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let (parts, endpoint) = args.asked.parts(console)?;
    let answer = block_on(within(args.form.timeout, async {
        x509_bundles::fetch(&parts.once(&endpoint).await?).await
    }))?;
    x509_bundles::show(&args.form, &answer, console)
}

impl Asked {
    fn parts(&self, console: &Console<'_>) -> Result<(super::flags::Parts, Endpoint), Failure> {
        Ok((self.broker.parts(console)?, Endpoint::of(&self.socket, console.vars)?))
    }
}

fn something_else() -> Failure {
    Failure::new("the agent answered something else")
}
