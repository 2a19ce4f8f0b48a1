//! `bundle show`: the bundle of the server's own trust domain.

use spindle_proto::spire::api::server::bundle::v1::GetBundleRequest;

use super::client;
use super::form::{self, Format};
use crate::args::{Output, Socket};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Form of the bundle in pretty output: pem or spiffe.
    #[arg(long = "format", default_value = "pem")]
    format: Format,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let bundle = block_on(async {
        let answer = client(&args.socket, console).await?.get_bundle(GetBundleRequest::default()).await;
        Ok(answer.map_err(|status| refused("cannot show the bundle", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &bundle, |console| form::print(console, &bundle, args.format))
}
