//! `localauthority jwt show|prepare|activate|taint|revoke`.

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
    /// Shows the local JWT authorities.
    Show(AllArgs),
    /// Makes the next JWT authority and publishes it in the bundle; it does not sign yet.
    Prepare(AllArgs),
    /// Lets the prepared JWT authority sign from now on.
    Activate(OneArgs),
    /// Marks a JWT authority that signed before.
    Taint(OneArgs),
    /// Takes a tainted JWT authority out of the bundle.
    Revoke(OneArgs),
}

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct OneArgs {
    #[command(flatten)]
    socket: Socket,
    /// The authority ID of the JWT authority.
    #[arg(long = "authorityID", value_name = "ID")]
    authority_id: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl OneArgs {
    fn id(&self) -> Result<String, Failure> {
        let missing = || {
            Failure::new("an authority ID is required")
                .try_this("add -authorityID with an ID that `localauthority jwt show` prints")
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
        let answer = client.get_jwt_authority_state(wire::GetJwtAuthorityStateRequest {}).await;
        Ok(answer.map_err(|status| refused("could not get JWT authorities", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &states, |console| pretty(console, &states))
}

fn pretty(console: &mut Console<'_>, states: &wire::GetJwtAuthorityStateResponse) -> Result<(), Failure> {
    Ok(Family::Jwt.print_all(console, [&states.active, &states.prepared, &states.old])?)
}

fn prepare(args: &AllArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let answer = block_on(async {
        let mut client = client(&args.socket, console).await?;
        let answer = client.prepare_jwt_authority(wire::PrepareJwtAuthorityRequest {}).await;
        Ok(answer.map_err(|status| refused("could not prepare JWT authority", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        one(console, "Prepared", &answer.prepared_authority)
    })
}

fn activate(args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = wire::ActivateJwtAuthorityRequest { authority_id: args.id()? };
    let answer = block_on(async {
        let answer = client(&args.socket, console).await?.activate_jwt_authority(request).await;
        Ok(answer.map_err(|status| refused("could not activate JWT authority", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        one(console, "Activated", &answer.activated_authority)
    })
}

fn taint(args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = wire::TaintJwtAuthorityRequest { authority_id: args.id()? };
    let answer = block_on(async {
        let answer = client(&args.socket, console).await?.taint_jwt_authority(request).await;
        Ok(answer.map_err(|status| refused("could not taint JWT authority", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        one(console, "Tainted", &answer.tainted_authority)
    })
}

fn revoke(args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = wire::RevokeJwtAuthorityRequest { authority_id: args.id()? };
    let answer = block_on(async {
        let answer = client(&args.socket, console).await?.revoke_jwt_authority(request).await;
        Ok(answer.map_err(|status| refused("could not revoke JWT authority", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        one(console, "Revoked", &answer.revoked_authority)
    })
}

fn one(console: &mut Console<'_>, title: &str, state: &Option<wire::AuthorityState>) -> Result<(), Failure> {
    Family::Jwt.print_one(console, title, state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json::ToJson;
    use crate::testing::Screen;

    fn state(id: &str) -> Option<wire::AuthorityState> {
        Some(wire::AuthorityState {
            authority_id: id.into(),
            expires_at: 1_790_000_000,
            upstream_authority_subject_key_id: String::new(),
        })
    }

    #[test]
    fn authorities_are_shown_in_spires_words_without_an_upstream_line() {
        let states =
            wire::GetJwtAuthorityStateResponse { active: state("aa"), prepared: state("bb"), old: None };
        let screen = Screen::show(|console| pretty(console, &states));
        let expected = "Active JWT authority:\n  Authority ID: aa\n  Expires at: 2026-09-21 14:13:20 +0000 UTC\n\n\
                        Prepared JWT authority:\n  Authority ID: bb\n  Expires at: 2026-09-21 14:13:20 +0000 UTC\n\n\
                        Old JWT authority:\n  No old JWT authority found\n";
        assert_eq!(screen.out, expected);
        let json = "{\"active\":{\"authority_id\":\"aa\",\"expires_at\":\"1790000000\",\
                    \"upstream_authority_subject_key_id\":\"\"},\"prepared\":{\"authority_id\":\"bb\",\
                    \"expires_at\":\"1790000000\",\"upstream_authority_subject_key_id\":\"\"}}";
        assert_eq!(states.to_json().to_string(), json);
    }

    #[test]
    fn each_step_names_the_authority_it_was_done_to() {
        let screen = Screen::show(|console| one(console, "Revoked", &state("aa")));
        let expected =
            "Revoked JWT authority:\n  Authority ID: aa\n  Expires at: 2026-09-21 14:13:20 +0000 UTC\n";
        assert_eq!(screen.out, expected);
        let nothing = Screen::show(|console| one(console, "Revoked", &None));
        assert!(nothing.result.is_err() && nothing.out.is_empty());
        let json = |message: &dyn ToJson| message.to_json().to_string();
        for (text, key) in [
            (json(&wire::PrepareJwtAuthorityResponse { prepared_authority: state("aa") }), "prepared"),
            (json(&wire::ActivateJwtAuthorityResponse { activated_authority: state("aa") }), "activated"),
            (json(&wire::TaintJwtAuthorityResponse { tainted_authority: state("aa") }), "tainted"),
            (json(&wire::RevokeJwtAuthorityResponse { revoked_authority: state("aa") }), "revoked"),
        ] {
            assert!(text.starts_with(&format!("{{\"{key}_authority\":{{\"authority_id\":\"aa\"")), "{text}");
        }
    }
}
