//! `bundle delete`: the bundle of another trust domain, and what becomes of the entries that federate with it.

use std::str::FromStr;

use spindle_proto::spire::api::server::bundle::v1::batch_delete_federated_bundle_request::Mode as Wire;
use spindle_proto::spire::api::server::bundle::v1::{
    BatchDeleteFederatedBundleRequest, BatchDeleteFederatedBundleResponse,
};

use super::{client, form};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;
use crate::server_cli::print_deleted;

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// SPIFFE ID of the trust domain.
    #[arg(long = "id", value_name = "ID")]
    id: Option<String>,
    /// What happens while entries federate with the trust domain: restrict refuses, dissociate takes it out of them, delete
    /// deletes them.
    #[arg(long = "mode", default_value = "restrict")]
    mode: Mode,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode(pub(super) Wire);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" | "restrict" => Ok(Self(Wire::Restrict)),
            "dissociate" => Ok(Self(Wire::Dissociate)),
            "delete" => Ok(Self(Wire::Delete)),
            _ => Err("write restrict, dissociate or delete".into()),
        }
    }
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let id = set(&args.id)
        .ok_or_else(|| Failure::new("id is required").try_this("set -id; `bundle list` lists the bundles"))?;
    form::trust_domain("id", id)?;
    // As it was typed, for so it stands in the answer.
    let trust_domains = vec![id.to_owned()];
    let request = BatchDeleteFederatedBundleRequest { trust_domains, mode: args.mode.0.into() };
    let response = block_on(async {
        let answer = client(&args.socket, console).await?.batch_delete_federated_bundle(request).await;
        Ok(answer.map_err(|status| refused("failed to delete federated bundle", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &response, |console| pretty(console, &response))
}

pub(super) fn pretty(
    console: &mut Console<'_>,
    response: &BatchDeleteFederatedBundleResponse,
) -> Result<(), Failure> {
    let result = response.results.first();
    let result = result.map(|result| (result.trust_domain.as_str(), result.status.as_ref()));
    print_deleted(console, ["bundle", "federated bundle", "bundle list"], result)
}
