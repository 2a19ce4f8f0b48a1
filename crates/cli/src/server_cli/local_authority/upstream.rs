//! `upstreamauthority taint|revoke`.

use clap::Subcommand;
use spindle_proto::spire::api::server::localauthority::v1 as wire;

use super::client;
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(in crate::server_cli) enum Command {
    /// Marks an X.509 upstream authority that does not sign any more: all below it is replaced.
    Taint(Args),
    /// Takes a tainted X.509 upstream authority out of the bundle.
    Revoke(Args),
}

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// The X.509 Subject Key Identifier (or SKID) of the upstream authority's certificate, in hex.
    #[arg(long = "subjectKeyID", value_name = "ID")]
    subject_key_id: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl Args {
    fn id(&self) -> Result<String, Failure> {
        let missing = || {
            Failure::new("the Subject Key ID of the X.509 upstream authority is required")
                .try_this("add -subjectKeyID with an ID that `localauthority x509 show` prints")
        };
        set(&self.subject_key_id).map(str::to_owned).ok_or_else(missing)
    }
}

pub(in crate::server_cli) fn run(command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Taint(args) => taint(args, console),
        Command::Revoke(args) => revoke(args, console),
    }
}

fn taint(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = wire::TaintX509UpstreamAuthorityRequest { subject_key_id: args.id()? };
    let answer = block_on(async {
        let answer = client(&args.socket, console).await?.taint_x509_upstream_authority(request).await;
        Ok(answer
            .map_err(|status| refused("could not taint X.509 upstream authority", &status))?
            .into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        pretty(console, "Tainted", &answer.upstream_authority_subject_key_id)
    })
}

fn revoke(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = wire::RevokeX509UpstreamAuthorityRequest { subject_key_id: args.id()? };
    let answer = block_on(async {
        let answer = client(&args.socket, console).await?.revoke_x509_upstream_authority(request).await;
        Ok(answer
            .map_err(|status| refused("could not revoke X.509 upstream authority", &status))?
            .into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        pretty(console, "Revoked", &answer.upstream_authority_subject_key_id)
    })
}

fn pretty(console: &mut Console<'_>, title: &str, id: &str) -> Result<(), Failure> {
    Ok(writeln!(console.out, "{title} X.509 upstream authority:\n  Subject Key ID: {id}")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json::ToJson;
    use crate::testing::Screen;

    #[test]
    fn the_root_is_shown_in_spires_words() {
        let screen = Screen::show(|console| pretty(console, "Revoked", "ab"));
        assert_eq!(screen.out, "Revoked X.509 upstream authority:\n  Subject Key ID: ab\n");
        let upstream_authority_subject_key_id = "ab".to_owned();
        let answer = wire::TaintX509UpstreamAuthorityResponse { upstream_authority_subject_key_id };
        assert_eq!(answer.to_json().to_string(), "{\"upstream_authority_subject_key_id\":\"ab\"}");
    }
}
