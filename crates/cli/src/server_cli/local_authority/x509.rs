//! `localauthority x509 show|prepare|activate|taint|revoke`.

use clap::Subcommand;
use spindle_proto::spire::api::server::localauthority::v1 as wire;

use super::{AllArgs, Family, client};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(in crate::server_cli) enum Command {
    /// Shows the local X.509 authorities.
    Show(AllArgs),
    /// Makes the next X.509 authority and publishes it in the bundle; it does not sign yet.
    Prepare(AllArgs),
    /// Lets the prepared X.509 authority sign from now on.
    Activate(OneArgs),
    /// Marks the X.509 authority that signed before: all that it signed is replaced.
    Taint(OneArgs),
    /// Takes the tainted X.509 authority that signed before out of the bundle.
    Revoke(OneArgs),
}

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct OneArgs {
    #[command(flatten)]
    socket: Socket,
    /// The authority ID of the X.509 authority.
    #[arg(long = "authorityID", value_name = "ID")]
    authority_id: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl OneArgs {
    fn id(&self) -> Result<String, Failure> {
        let missing = || {
            Failure::new("an authority ID is required")
                .try_this("add -authorityID with an ID that `localauthority x509 show` prints")
        };
        set(&self.authority_id).map(str::to_owned).ok_or_else(missing)
    }
}

pub(super) fn run(command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Show(args) => show(args, console),
        Command::Prepare(args) => prepare(args, console),
        Command::Activate(args) => activate(args, console),
        Command::Taint(args) => taint(args, console),
        Command::Revoke(args) => revoke(args, console),
    }
}

fn show(args: &AllArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let states = block_on(async {
        let mut client = client(&args.socket, console).await?;
        let answer = client.get_x509_authority_state(wire::GetX509AuthorityStateRequest {}).await;
        Ok(answer.map_err(|status| refused("could not get X.509 authorities", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &states, |console| pretty(console, &states))
}

fn pretty(console: &mut Console<'_>, states: &wire::GetX509AuthorityStateResponse) -> Result<(), Failure> {
    Ok(Family::X509.print_all(console, [&states.active, &states.prepared, &states.old])?)
}

fn prepare(args: &AllArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let answer = block_on(async {
        let mut client = client(&args.socket, console).await?;
        let answer = client.prepare_x509_authority(wire::PrepareX509AuthorityRequest {}).await;
        Ok(answer.map_err(|status| refused("could not prepare X.509 authority", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        one(console, "Prepared", &answer.prepared_authority)
    })
}

fn activate(args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = wire::ActivateX509AuthorityRequest { authority_id: args.id()? };
    let answer = block_on(async {
        let answer = client(&args.socket, console).await?.activate_x509_authority(request).await;
        Ok(answer.map_err(|status| refused("could not activate X.509 authority", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        one(console, "Activated", &answer.activated_authority)
    })
}

fn taint(args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = wire::TaintX509AuthorityRequest { authority_id: args.id()? };
    let answer = block_on(async {
        let answer = client(&args.socket, console).await?.taint_x509_authority(request).await;
        Ok(answer.map_err(|status| refused("could not taint X.509 authority", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        one(console, "Tainted", &answer.tainted_authority)
    })
}

fn revoke(args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = wire::RevokeX509AuthorityRequest { authority_id: args.id()? };
    let answer = block_on(async {
        let answer = client(&args.socket, console).await?.revoke_x509_authority(request).await;
        Ok(answer.map_err(|status| refused("could not revoke X.509 authority", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        one(console, "Revoked", &answer.revoked_authority)
    })
}

fn one(console: &mut Console<'_>, title: &str, state: &Option<wire::AuthorityState>) -> Result<(), Failure> {
    Family::X509.print_one(console, title, state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json::ToJson;
    use crate::testing::Screen;

    fn state(id: &str, upstream: &str) -> wire::AuthorityState {
        wire::AuthorityState {
            authority_id: id.into(),
            expires_at: 1_790_000_000,
            upstream_authority_subject_key_id: upstream.into(),
        }
    }

    #[test]
    fn authorities_are_shown_in_spires_words() {
        let states = wire::GetX509AuthorityStateResponse {
            active: Some(state("aa", "cc")),
            prepared: None,
            old: Some(state("bb", "")),
        };
        let screen = Screen::show(|console| pretty(console, &states));
        let expected = "Active X.509 authority:\n  Authority ID: aa\n  Expires at: 2026-09-21 14:13:20 +0000 UTC\n  \
                        Upstream authority Subject Key ID: cc\n\nPrepared X.509 authority:\n  \
                        No prepared X.509 authority found\n\nOld X.509 authority:\n  Authority ID: bb\n  \
                        Expires at: 2026-09-21 14:13:20 +0000 UTC\n  Upstream authority ID: No upstream authority\n";
        assert_eq!(screen.out, expected);
        let json = "{\"active\":{\"authority_id\":\"aa\",\"expires_at\":\"1790000000\",\
                    \"upstream_authority_subject_key_id\":\"cc\"},\"old\":{\"authority_id\":\"bb\",\
                    \"expires_at\":\"1790000000\",\"upstream_authority_subject_key_id\":\"\"}}";
        assert_eq!(states.to_json().to_string(), json);
    }

    #[test]
    fn each_step_names_the_authority_it_was_done_to() {
        let screen = Screen::show(|console| one(console, "Tainted", &Some(state("aa", ""))));
        assert!(screen.out.starts_with("Tainted X.509 authority:\n  Authority ID: aa\n"), "{}", screen.out);
        let nothing = Screen::show(|console| one(console, "Tainted", &None));
        assert!(nothing.result.is_err() && nothing.out.is_empty());
        let json = |message: &dyn ToJson| message.to_json().to_string();
        let some = || Some(state("aa", ""));
        for (text, key) in [
            (json(&wire::PrepareX509AuthorityResponse { prepared_authority: some() }), "prepared_authority"),
            (
                json(&wire::ActivateX509AuthorityResponse { activated_authority: some() }),
                "activated_authority",
            ),
            (json(&wire::TaintX509AuthorityResponse { tainted_authority: some() }), "tainted_authority"),
            (json(&wire::RevokeX509AuthorityResponse { revoked_authority: some() }), "revoked_authority"),
        ] {
            assert!(text.starts_with(&format!("{{\"{key}\":{{\"authority_id\":\"aa\"")), "{text}");
        }
    }
}
