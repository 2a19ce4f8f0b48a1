//! `localauthority jwt|wit show|prepare|activate|taint|revoke`: authorities that sign tokens.
//!
//! The messages about WIT authorities have the parts of those about JWT authorities, and the latter stand for both here.

use clap::Subcommand;
use spindle_proto::spire::api::server::localauthority::v1 as wire;
use tonic::{Response, Status};

use super::{AllArgs, Family, client};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(in crate::server_cli) enum Command {
    /// Shows the local authorities.
    Show(AllArgs),
    /// Makes the next authority and publishes it in the bundle; it does not sign yet.
    Prepare(AllArgs),
    /// Lets the prepared authority sign from now on.
    Activate(OneArgs),
    /// Marks an authority that signed before.
    Taint(OneArgs),
    /// Takes a tainted authority out of the bundle.
    Revoke(OneArgs),
}

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct OneArgs {
    #[command(flatten)]
    socket: Socket,
    /// The authority ID of the authority.
    #[arg(long = "authorityID", value_name = "ID")]
    authority_id: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl OneArgs {
    fn id(&self, family: Family) -> Result<String, Failure> {
        let missing = || {
            let command = format!("localauthority {} show", family.name().to_lowercase());
            Failure::new("an authority ID is required")
                .try_this(format!("add -authorityID with an ID that `{command}` prints"))
        };
        set(&self.authority_id).map(str::to_owned).ok_or_else(missing)
    }
}

pub(super) fn run(family: Family, command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Show(args) => show(family, args, console),
        Command::Prepare(args) => prepare(family, args, console),
        Command::Activate(args) => activate(family, args, console),
        Command::Taint(args) => taint(family, args, console),
        Command::Revoke(args) => revoke(family, args, console),
    }
}

/// The answer, or what could not be done.
fn done<T>(answer: Result<Response<T>, Status>, family: Family, what: &str) -> Result<T, Failure> {
    let could_not = |status| refused(&format!("could not {what} {} authority", family.name()), &status);
    answer.map(Response::into_inner).map_err(could_not)
}

fn show(family: Family, args: &AllArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let states = block_on(async {
        let mut client = client(&args.socket, console).await?;
        let answer = match family {
            Family::Wit => {
                let answer = client.get_wit_authority_state(wire::GetWitAuthorityStateRequest {}).await;
                answer.map(|answer| {
                    answer.map(|wire::GetWitAuthorityStateResponse { active, prepared, old }| {
                        wire::GetJwtAuthorityStateResponse { active, prepared, old }
                    })
                })
            }
            _ => client.get_jwt_authority_state(wire::GetJwtAuthorityStateRequest {}).await,
        };
        let could_not = format!("could not get {} authorities", family.name());
        Ok(answer.map_err(|status| refused(&could_not, &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &states, |console| pretty(family, console, &states))
}

fn pretty(
    family: Family,
    console: &mut Console<'_>,
    states: &wire::GetJwtAuthorityStateResponse,
) -> Result<(), Failure> {
    Ok(family.print_all(console, [&states.active, &states.prepared, &states.old])?)
}

fn prepare(family: Family, args: &AllArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let answer = block_on(async {
        let mut client = client(&args.socket, console).await?;
        let answer = match family {
            Family::Wit => {
                let answer = client.prepare_wit_authority(wire::PrepareWitAuthorityRequest {}).await;
                answer.map(|answer| {
                    answer.map(|wire::PrepareWitAuthorityResponse { prepared_authority }| {
                        wire::PrepareJwtAuthorityResponse { prepared_authority }
                    })
                })
            }
            _ => client.prepare_jwt_authority(wire::PrepareJwtAuthorityRequest {}).await,
        };
        done(answer, family, "prepare")
    })?;
    output::print(args.output.form, console, &answer, |console| {
        family.print_one(console, "Prepared", &answer.prepared_authority)
    })
}

fn activate(family: Family, args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let authority_id = args.id(family)?;
    let answer = block_on(async {
        let mut client = client(&args.socket, console).await?;
        let answer = match family {
            Family::Wit => {
                let request = wire::ActivateWitAuthorityRequest { authority_id };
                client.activate_wit_authority(request).await.map(|answer| {
                    answer.map(|wire::ActivateWitAuthorityResponse { activated_authority }| {
                        wire::ActivateJwtAuthorityResponse { activated_authority }
                    })
                })
            }
            _ => client.activate_jwt_authority(wire::ActivateJwtAuthorityRequest { authority_id }).await,
        };
        done(answer, family, "activate")
    })?;
    output::print(args.output.form, console, &answer, |console| {
        family.print_one(console, "Activated", &answer.activated_authority)
    })
}

fn taint(family: Family, args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let authority_id = args.id(family)?;
    let answer = block_on(async {
        let mut client = client(&args.socket, console).await?;
        let answer = match family {
            Family::Wit => {
                let request = wire::TaintWitAuthorityRequest { authority_id };
                client.taint_wit_authority(request).await.map(|answer| {
                    answer.map(|wire::TaintWitAuthorityResponse { tainted_authority }| {
                        wire::TaintJwtAuthorityResponse { tainted_authority }
                    })
                })
            }
            _ => client.taint_jwt_authority(wire::TaintJwtAuthorityRequest { authority_id }).await,
        };
        done(answer, family, "taint")
    })?;
    output::print(args.output.form, console, &answer, |console| {
        family.print_one(console, "Tainted", &answer.tainted_authority)
    })
}

fn revoke(family: Family, args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let authority_id = args.id(family)?;
    let answer = block_on(async {
        let mut client = client(&args.socket, console).await?;
        let answer = match family {
            Family::Wit => {
                let request = wire::RevokeWitAuthorityRequest { authority_id };
                client.revoke_wit_authority(request).await.map(|answer| {
                    answer.map(|wire::RevokeWitAuthorityResponse { revoked_authority }| {
                        wire::RevokeJwtAuthorityResponse { revoked_authority }
                    })
                })
            }
            _ => client.revoke_jwt_authority(wire::RevokeJwtAuthorityRequest { authority_id }).await,
        };
        done(answer, family, "revoke")
    })?;
    output::print(args.output.form, console, &answer, |console| {
        family.print_one(console, "Revoked", &answer.revoked_authority)
    })
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
        let screen = Screen::show(|console| pretty(Family::Jwt, console, &states));
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
    fn wit_authorities_are_shown_in_the_same_way_under_their_name() {
        let states = wire::GetJwtAuthorityStateResponse { active: state("aa"), prepared: None, old: None };
        let screen = Screen::show(|console| pretty(Family::Wit, console, &states));
        let expected = "Active WIT authority:\n  Authority ID: aa\n  Expires at: 2026-09-21 14:13:20 +0000 UTC\n\n\
                        Prepared WIT authority:\n  No prepared WIT authority found\n\n\
                        Old WIT authority:\n  No old WIT authority found\n";
        assert_eq!(screen.out, expected);
        let none = OneArgs { socket: Socket::default(), authority_id: None, output: Output::default() };
        let failure = none.id(Family::Wit).expect_err("no ID");
        assert!(
            failure.remedies().iter().any(|text| text.contains("localauthority wit show")),
            "{failure:?}"
        );
    }

    #[test]
    fn each_step_names_the_authority_it_was_done_to() {
        let screen = Screen::show(|console| Family::Jwt.print_one(console, "Revoked", &state("aa")));
        let expected =
            "Revoked JWT authority:\n  Authority ID: aa\n  Expires at: 2026-09-21 14:13:20 +0000 UTC\n";
        assert_eq!(screen.out, expected);
        let nothing = Screen::show(|console| Family::Jwt.print_one(console, "Revoked", &None));
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
