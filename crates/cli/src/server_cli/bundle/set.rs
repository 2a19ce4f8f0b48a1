//! `bundle set`: creates or replaces the bundle of another trust domain.

use spindle_proto::spire::api::server::bundle::v1::{
    BatchSetFederatedBundleRequest, BatchSetFederatedBundleResponse,
};

use super::client;
use super::form::{self, Format};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, item_refused, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::{input, output};

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    pub(super) socket: Socket,
    /// SPIFFE ID of the trust domain.
    #[arg(long = "id", value_name = "ID")]
    pub(super) id: Option<String>,
    /// File with the bundle; standard input when it is not set.
    #[arg(long = "path", value_name = "FILE")]
    pub(super) file: Option<String>,
    /// Form of the bundle: pem or spiffe.
    #[arg(long = "format", default_value = "pem")]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = BatchSetFederatedBundleRequest { bundle: vec![read(args, console)?], output_mask: None };
    let response = block_on(async {
        let answer = client(&args.socket, console).await?.batch_set_federated_bundle(request).await;
        Ok(answer.map_err(|status| refused("failed to set federated bundle", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &response, |console| pretty(console, &response))
}

/// The bundle that is to be set.
pub(super) fn read(
    args: &Args,
    console: &mut Console<'_>,
) -> Result<spindle_proto::spire::api::types::Bundle, Failure> {
    let id = set(&args.id).ok_or_else(|| {
        Failure::new("id flag is required").try_this("name the trust domain, like -id spiffe://other.example")
    })?;
    let trust_domain = form::trust_domain("id", id)?;
    let text = input::read_data(set(&args.file).unwrap_or("-"))
        .map_err(|failure| failure.within("unable to load bundle data"))?;
    let read = form::read(&text, args.format, &trust_domain)?;
    form::warn_of_ignored(&read.ignored, console);
    Ok(read.bundle)
}

pub(super) fn pretty(
    console: &mut Console<'_>,
    response: &BatchSetFederatedBundleResponse,
) -> Result<(), Failure> {
    match response.results.first().and_then(|result| result.status.as_ref()) {
        Some(status) if status.code == 0 => Ok(writeln!(console.out, "bundle set.")?),
        Some(status) => Err(item_refused("failed to set federated bundle", status)),
        None => Err(super::super::no_result()),
    }
}
