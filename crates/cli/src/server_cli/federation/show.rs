//! `federation show` and `federation list`.

use spindle_proto::spire::api::server::trustdomain::v1::{
    GetFederationRelationshipRequest, ListFederationRelationshipsResponse,
};
use spindle_proto::spire::api::types;

use super::{client, unnamed, write};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;
use crate::server_cli::bundle::form;
use crate::server_cli::held;

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// The trust domain of the relationship.
    #[arg(long = "trustDomain", value_name = "NAME")]
    trust_domain: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct ListArgs {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let name =
        set(&args.trust_domain).ok_or_else(|| unnamed("a trust domain name is required", "trustDomain"))?;
    let trust_domain = form::trust_domain("trustDomain", name)?.to_string();
    let relationship = block_on(async {
        let request = GetFederationRelationshipRequest { trust_domain, output_mask: None };
        let answer = client(&args.socket, console).await?.get_federation_relationship(request).await;
        Ok(answer.map_err(|status| refused("error showing federation relationship", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &relationship, |console| pretty(console, name, &relationship))
}

pub(super) fn pretty(
    console: &mut Console<'_>,
    name: &str,
    relationship: &types::FederationRelationship,
) -> Result<(), Failure> {
    writeln!(console.out, "Found a federation relationship with trust domain {name}:\n")?;
    Ok(write(console.out, relationship)?)
}

pub(super) fn run_list(args: &ListArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let federation_relationships = block_on(async {
        let relationships = held::relationships(client(&args.socket, console).await?).await;
        relationships.map_err(|status| refused("error listing federation relationship", &status))
    })?;
    let response =
        ListFederationRelationshipsResponse { federation_relationships, next_page_token: String::new() };
    output::print(args.output.form, console, &response, |console| {
        pretty_list(console, &response.federation_relationships)
    })
}

pub(super) fn pretty_list(
    console: &mut Console<'_>,
    relationships: &[types::FederationRelationship],
) -> Result<(), Failure> {
    let count = relationships.len();
    let noun = output::plural(count, "federation relationship", "federation relationships");
    writeln!(console.out, "Found {count} {noun}")?;
    for relationship in relationships {
        writeln!(console.out)?;
        write(console.out, relationship)?;
    }
    Ok(())
}
