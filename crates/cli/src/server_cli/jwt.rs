//! `jwt mint`: a JWT-SVID outside of any entry.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use spindle_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use spindle_proto::spire::api::server::svid::v1::{MintJwtsvidRequest, MintJwtsvidResponse};
use spindle_proto::spire::api::types;
use spindle_spiffe_core::Timestamp;

use super::dial;
use super::minted::{no_part, ttl_secs, warn_capped};
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::files::{Readable, write};
use crate::{duration, input, output};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Mints a JWT-SVID.
    Mint(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// SPIFFE ID of the JWT-SVID.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    /// How long the JWT-SVID is valid, like 5m; the server's default when 0.
    #[arg(long = "ttl", value_name = "DURATION", default_value = "0", value_parser = duration::parse)]
    ttl: Duration,
    /// A service that the JWT-SVID is for; can be repeated, though a token for one service alone is the safest.
    #[arg(long = "audience", value_name = "SERVICE")]
    audience: Vec<String>,
    /// File to write the token to, instead of printing it.
    #[arg(long = "write", value_name = "FILE")]
    write: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = request(args)?;
    let wanted_secs = request.ttl;
    let (answer, svid) = block_on(async {
        let answer = SvidClient::new(dial(&args.socket, console).await?).mint_jwtsvid(request).await;
        let answer = answer.map_err(|status| refused("cannot mint the JWT-SVID", &status))?.into_inner();
        let svid = answer.svid.clone().filter(|svid| !svid.token.is_empty());
        Ok((answer, svid.ok_or_else(|| no_part("token"))?))
    })?;
    if is_capped(&svid, wanted_secs) {
        warn_capped("JWT-SVID", Timestamp::from_unix_secs(svid.expires_at), console);
    }
    print(args, &answer, &svid.token, console)
}

fn request(args: &Args) -> Result<MintJwtsvidRequest, Failure> {
    let text = set(&args.spiffe_id)
        .ok_or_else(|| Failure::new("a SPIFFE ID is required").try_this("set -spiffeID"))?;
    let audience: Vec<String> = args.audience.iter().filter(|value| !value.is_empty()).cloned().collect();
    if audience.is_empty() {
        return Err(Failure::new("at least one audience is required")
            .try_this("set -audience to the name of the service that is to accept the token"));
    }
    let id = Some(input::spiffe_id("spiffeID", text)?);
    Ok(MintJwtsvidRequest { id, audience, ttl: ttl_secs(args.ttl)? })
}

/// Whether the server gave less than was asked for, by its own clock.
fn is_capped(svid: &types::Jwtsvid, wanted_secs: i32) -> bool {
    svid.expires_at.saturating_sub(svid.issued_at) < i64::from(wanted_secs)
}

fn print(
    args: &Args,
    answer: &MintJwtsvidResponse,
    token: &str,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match args.write.as_deref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => write_file(token, path, console),
        None => {
            output::print(args.output.form, console, answer, |console| Ok(writeln!(console.out, "{token}")?))
        }
    }
}

/// Whoever can read the token can use it, so the file is its owner's alone.
fn write_file(token: &str, path: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
    write(path, token.as_bytes(), Readable::Private)?;
    Ok(writeln!(console.out, "JWT-SVID written to {}", path.display())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::args::OutputForm;
    use crate::testing::Screen;

    fn args(spiffe_id: &str, audience: &[&str], ttl: Duration) -> Args {
        Args {
            socket: Socket::default(),
            spiffe_id: Some(spiffe_id.into()),
            ttl,
            audience: audience.iter().map(|value| (*value).to_owned()).collect(),
            write: None,
            output: Output::default(),
        }
    }

    fn svid() -> types::Jwtsvid {
        let id = Some(types::Spiffeid { trust_domain: "a".into(), path: "/b".into() });
        types::Jwtsvid { token: "x.y.z".into(), id, expires_at: 300, issued_at: 0, hint: String::new() }
    }

    fn printed(args: &Args) -> Screen {
        let answer = MintJwtsvidResponse { svid: Some(svid()) };
        Screen::show(|console| print(args, &answer, "x.y.z", console))
    }

    #[test]
    fn a_request_carries_every_flag() {
        let asked = args("spiffe://a/b", &["db", "", "cache"], Duration::from_millis(1500));
        let id = Some(types::Spiffeid { trust_domain: "a".into(), path: "/b".into() });
        let audience = vec!["db".into(), "cache".into()];
        assert_eq!(request(&asked).unwrap(), MintJwtsvidRequest { id, audience, ttl: 2 });
    }

    #[test]
    fn missing_and_malformed_flags_are_refused_with_what_to_try() {
        let refused = |args: &Args, expected: &str| {
            let failure = request(args).expect_err(expected);
            assert!(failure.what().starts_with(expected) && !failure.remedies().is_empty(), "{failure:?}");
        };
        let none = Duration::ZERO;
        refused(&args("", &["db"], none), "a SPIFFE ID is required");
        refused(&args("a/b", &["db"], none), "-spiffeID \"a/b\": ");
        refused(&args("spiffe://a/b", &[], none), "at least one audience");
        refused(&args("spiffe://a/b", &[""], none), "at least one audience");
        refused(&args("spiffe://a/b", &["db"], Duration::MAX), "-ttl is too long");
    }

    #[test]
    fn the_token_alone_is_printed_and_the_json_form_is_spires() {
        let mut asked = args("spiffe://a/b", &["db"], Duration::ZERO);
        assert_eq!(printed(&asked).out, "x.y.z\n");
        asked.output.form = OutputForm::Json;
        assert_eq!(
            printed(&asked).out,
            "{\"svid\":{\"expires_at\":\"300\",\"hint\":\"\",\"id\":{\"path\":\"/b\",\"trust_domain\":\"a\"},\
             \"issued_at\":\"0\",\"token\":\"x.y.z\"}}\n"
        );
    }

    #[test]
    fn a_written_token_is_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let asked = Args { write: Some(path.clone()), ..args("spiffe://a/b", &["db"], Duration::ZERO) };
        assert_eq!(printed(&asked).out, format!("JWT-SVID written to {}\n", path.display()));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x.y.z");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let nowhere = Args { write: Some(dir.path().join("none/token")), ..asked };
        let screen = printed(&nowhere);
        assert!(screen.result.is_err() && screen.out.is_empty());
    }

    #[test]
    fn only_a_shorter_life_than_asked_for_is_a_cap() {
        assert_eq!([0, 300, 301].map(|secs| is_capped(&svid(), secs)), [false, false, true]);
    }
}
