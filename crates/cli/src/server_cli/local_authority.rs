//! `localauthority x509 …` and `upstreamauthority …`: the life of the server's authorities, step by step.

mod upstream;
mod x509;

use std::io::{Result as IoResult, Write};

use clap::Subcommand;
use spindle_proto::spire::api::server::localauthority::v1 as wire;
use spindle_proto::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use tonic::transport::Channel;

use super::dial;
use crate::args::Socket;
use crate::console::Console;
use crate::error::Failure;
use crate::output::text::go_time;

pub(super) use upstream::{Command as UpstreamCommand, run as run_upstream};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows, prepares, activates, taints and revokes X.509 authorities.
    #[command(subcommand)]
    X509(x509::Command),
}

pub(super) fn run(command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::X509(command) => x509::run(command, console),
    }
}

async fn client(at: &Socket, console: &Console<'_>) -> Result<LocalAuthorityClient<Channel>, Failure> {
    Ok(LocalAuthorityClient::new(dial(at, console).await?))
}

/// The lines of one authority.
fn print_state(out: &mut dyn Write, state: &wire::AuthorityState) -> IoResult<()> {
    writeln!(out, "  Authority ID: {}", state.authority_id)?;
    writeln!(out, "  Expires at: {}", go_time(state.expires_at))?;
    match state.upstream_authority_subject_key_id.as_str() {
        "" => writeln!(out, "  Upstream authority ID: No upstream authority"),
        id => writeln!(out, "  Upstream authority Subject Key ID: {id}"),
    }
}
