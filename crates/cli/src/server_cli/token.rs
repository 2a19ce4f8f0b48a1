//! `token generate`: a join token that lets one agent in, once.

use clap::Subcommand;
use spindle_proto::spire::api::server::agent::v1::CreateJoinTokenRequest;
use spindle_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use spindle_proto::spire::api::types;

use super::dial;
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::{input, output};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Generates a join token.
    Generate(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// How long the token can be used, in seconds.
    #[arg(long = "ttl", default_value_t = 600, value_name = "SECONDS")]
    ttl: i32,
    /// An additional SPIFFE ID for the token's owner.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let agent_id = set(&args.spiffe_id).map(|id| input::spiffe_id("spiffeID", id)).transpose()?;
    let has_id = agent_id.is_some();
    let request = CreateJoinTokenRequest { ttl: args.ttl, token: String::new(), agent_id };
    let token = block_on(async {
        let mut client = AgentClient::new(dial(&args.socket, console).await?);
        let answer = client.create_join_token(request).await;
        Ok(answer.map_err(|status| refused("cannot generate a join token", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &token, |console| pretty(console, &token, has_id))
}

fn pretty(console: &mut Console<'_>, token: &types::JoinToken, has_id: bool) -> Result<(), Failure> {
    writeln!(console.out, "Token: {}", token.value)?;
    if !has_id {
        writeln!(console.out, "Warning: Missing SPIFFE ID.")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Screen;

    #[test]
    fn a_token_is_shown_with_a_warning_when_it_names_no_id() {
        let token = types::JoinToken { value: "abc".into(), expires_at: 5 };
        let shown = |has_id| Screen::show(|console| pretty(console, &token, has_id)).out;
        assert_eq!(shown(true), "Token: abc\n");
        assert_eq!(shown(false), "Token: abc\nWarning: Missing SPIFFE ID.\n");
    }
}
