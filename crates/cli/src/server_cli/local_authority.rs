//! `localauthority x509|jwt|wit …` and `upstreamauthority …`: the life of the server's authorities, step by step.

mod token;
mod upstream;
mod x509;

use std::io::{Result as IoResult, Write};

use clap::Subcommand;
use spindle_proto::spire::api::server::localauthority::v1 as wire;
use spindle_proto::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use tonic::transport::Channel;

use super::dial;
use crate::args::{Output, Socket};
use crate::console::Console;
use crate::error::Failure;
use crate::output::text::go_time;

pub(super) use upstream::{Command as UpstreamCommand, run as run_upstream};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows, prepares, activates, taints and revokes X.509 authorities.
    #[command(subcommand)]
    X509(x509::Command),
    /// Shows, prepares, activates, taints and revokes JWT authorities.
    #[command(subcommand)]
    Jwt(token::Command),
    /// Shows, prepares, activates, taints and revokes WIT authorities.
    #[command(subcommand)]
    Wit(token::Command),
}

/// What is said of a step that names no authority.
#[derive(Debug, clap::Args)]
pub(super) struct AllArgs {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::X509(command) => x509::run(command, console),
        Command::Jwt(command) => token::run(Family::Jwt, command, console),
        Command::Wit(command) => token::run(Family::Wit, command, console),
    }
}

async fn client(at: &Socket, console: &Console<'_>) -> Result<LocalAuthorityClient<Channel>, Failure> {
    Ok(LocalAuthorityClient::new(dial(at, console).await?))
}

/// Which authorities are shown.
#[derive(Clone, Copy)]
enum Family {
    X509,
    Jwt,
    Wit,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::X509 => "X.509",
            Self::Jwt => "JWT",
            Self::Wit => "WIT",
        }
    }

    /// The active, the prepared and the old authority.
    fn print_all(
        self,
        console: &mut Console<'_>,
        states: [&Option<wire::AuthorityState>; 3],
    ) -> IoResult<()> {
        let (name, titles) = (self.name(), ["Active", "Prepared", "Old"]);
        for (place, (title, state)) in titles.into_iter().zip(states).enumerate() {
            if place > 0 {
                writeln!(console.out)?;
            }
            writeln!(console.out, "{title} {name} authority:")?;
            match state {
                Some(state) => self.print(console.out, state)?,
                None => writeln!(console.out, "  No {} {name} authority found", title.to_lowercase())?,
            }
        }
        Ok(())
    }

    /// The authority that something was done to.
    fn print_one(
        self,
        console: &mut Console<'_>,
        title: &str,
        state: &Option<wire::AuthorityState>,
    ) -> Result<(), Failure> {
        let state = state.as_ref().ok_or_else(|| Failure::new("the server's answer names no authority"))?;
        writeln!(console.out, "{title} {} authority:", self.name())?;
        Ok(self.print(console.out, state)?)
    }

    /// The lines of one authority.
    fn print(self, out: &mut dyn Write, state: &wire::AuthorityState) -> IoResult<()> {
        writeln!(out, "  Authority ID: {}", state.authority_id)?;
        writeln!(out, "  Expires at: {}", go_time(state.expires_at))?;
        match (self, state.upstream_authority_subject_key_id.as_str()) {
            (Self::Jwt | Self::Wit, _) => Ok(()),
            (Self::X509, "") => writeln!(out, "  Upstream authority ID: No upstream authority"),
            (Self::X509, id) => writeln!(out, "  Upstream authority Subject Key ID: {id}"),
        }
    }
}
