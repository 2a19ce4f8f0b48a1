//! `bundle show|list|set|delete|count`.

mod delete;
pub(super) mod form;
mod list;
mod set;
mod show;

use clap::Subcommand;
use spindle_proto::spire::api::server::bundle::v1::CountBundlesRequest;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use tonic::transport::Channel;

use super::dial;
use crate::args::{Output, Socket};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;

/// The largest answer taken: a page of bundles with as many keys as each may have.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Prints the trust bundle of the server.
    Show(show::Args),
    /// Lists the bundles of other trust domains.
    List(list::Args),
    /// Creates or replaces the bundle of another trust domain.
    Set(set::Args),
    /// Deletes the bundle of another trust domain.
    Delete(delete::Args),
    /// Counts bundles.
    Count(CountArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct CountArgs {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(command: Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Show(args) => show::run(&args, console),
        Command::List(args) => list::run(&args, console),
        Command::Set(args) => set::run(&args, console),
        Command::Delete(args) => delete::run(&args, console),
        Command::Count(args) => count(&args, console),
    }
}

/// A client of the bundle service that flags and environment name.
async fn client(socket: &Socket, console: &Console<'_>) -> Result<BundleClient<Channel>, Failure> {
    Ok(BundleClient::new(dial(socket, console).await?).max_decoding_message_size(ANSWER_BYTES_MAX))
}

fn count(args: &CountArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let answer = block_on(async {
        let answer = client(&args.socket, console).await?.count_bundles(CountBundlesRequest::default()).await;
        Ok(answer.map_err(|status| refused("cannot count bundles", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        let count = usize::try_from(answer.count).unwrap_or_default();
        Ok(writeln!(console.out, "{count} {}", output::plural(count, "bundle", "bundles"))?)
    })
}

#[cfg(test)]
mod tests;
