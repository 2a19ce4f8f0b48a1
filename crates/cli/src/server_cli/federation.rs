//! `federation create|update|show|list|delete|refresh`.

mod change;
mod data;
mod delete;
mod refresh;
mod show;

use std::io::{Result as IoResult, Write};

use clap::Subcommand;
use spindle_proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use tonic::transport::Channel;

use super::bundle::ANSWER_BYTES_MAX;
use super::dial;
use crate::args::Socket;
use crate::console::Console;
use crate::error::Failure;
use crate::output::line;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Creates relationships with other trust domains.
    Create(change::Args),
    /// Updates relationships with other trust domains.
    Update(change::Args),
    /// Shows the relationship with one trust domain.
    Show(show::Args),
    /// Lists all relationships.
    List(show::ListArgs),
    /// Deletes the relationship with one trust domain.
    Delete(delete::Args),
    /// Has the server fetch the bundle of one trust domain.
    Refresh(refresh::Args),
}

pub(super) fn run(command: Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Create(args) => change::run(&args, console, change::Verb::Create),
        Command::Update(args) => change::run(&args, console, change::Verb::Update),
        Command::Show(args) => show::run(&args, console),
        Command::List(args) => show::run_list(&args, console),
        Command::Delete(args) => delete::run(&args, console),
        Command::Refresh(args) => refresh::run(&args, console),
    }
}

/// A client of the trust domain service that flags and environment name.
async fn client(socket: &Socket, console: &Console<'_>) -> Result<TrustDomainClient<Channel>, Failure> {
    Ok(TrustDomainClient::new(dial(socket, console).await?).max_decoding_message_size(ANSWER_BYTES_MAX))
}

/// What to try when a trust domain is not named.
fn unnamed(what: &str, flag: &str) -> Failure {
    Failure::new(what).try_this(format!("set -{flag}; `federation list` lists the relationships"))
}

/// The lines of one relationship, with SPIRE's labels.
fn write(out: &mut dyn Write, relationship: &types::FederationRelationship) -> IoResult<()> {
    const WIDTH: usize = 26;
    line(out, "Trust domain", WIDTH, &relationship.trust_domain)?;
    line(out, "Bundle endpoint URL", WIDTH, &relationship.bundle_endpoint_url)?;
    match &relationship.bundle_endpoint_profile {
        Some(BundleEndpointProfile::HttpsWeb(_)) => line(out, "Bundle endpoint profile", WIDTH, "https_web"),
        Some(BundleEndpointProfile::HttpsSpiffe(spiffe)) => {
            line(out, "Bundle endpoint profile", WIDTH, "https_spiffe")?;
            line(out, "Endpoint SPIFFE ID", WIDTH, &spiffe.endpoint_spiffe_id)
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
