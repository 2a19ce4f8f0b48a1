//! `federation delete`: the relationship with one trust domain; its bundle stays.

use spindle_proto::spire::api::server::trustdomain::v1::{
    BatchDeleteFederationRelationshipRequest, BatchDeleteFederationRelationshipResponse,
};

use super::{client, unnamed};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;
use crate::server_cli::bundle::form;
use crate::server_cli::print_deleted;

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// SPIFFE ID of the trust domain.
    #[arg(long = "id", value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let id = set(&args.id).ok_or_else(|| unnamed("id is required", "id"))?;
    let trust_domains = vec![form::trust_domain("id", id)?.to_string()];
    let response = block_on(async {
        let request = BatchDeleteFederationRelationshipRequest { trust_domains };
        let answer = client(&args.socket, console).await?.batch_delete_federation_relationship(request).await;
        Ok(answer
            .map_err(|status| refused("failed to delete federation relationship", &status))?
            .into_inner())
    })?;
    output::print(args.output.form, console, &response, |console| pretty(console, &response))
}

pub(super) fn pretty(
    console: &mut Console<'_>,
    response: &BatchDeleteFederationRelationshipResponse,
) -> Result<(), Failure> {
    let result = response.results.first();
    let result = result.map(|result| (result.trust_domain.as_str(), result.status.as_ref()));
    print_deleted(console, ["federation relationship", "federation relationship", "federation list"], result)
}
