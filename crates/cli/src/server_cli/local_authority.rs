//! `localauthority x509|jwt|wit …` and `upstreamauthority …`: the life of the server's authorities, step by step.
//!
//! The three families have messages of the same parts under three names; [`calls`] knows the names. Start at [`run`].

mod calls;
#[cfg(test)]
mod tests;
mod upstream;

use std::io::{Result as IoResult, Write};

use clap::Subcommand;
use serde_json::Value;
use spindle_proto::spire::api::server::localauthority::v1 as wire;
use spindle_proto::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use tonic::transport::Channel;

use super::dial;
use crate::args::{Call, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output;
use crate::output::json::ToJson;
use crate::output::text::go_time;
use calls::Order;

pub(super) use upstream::{Command as UpstreamCommand, run as run_upstream};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows, prepares, activates, taints and revokes X.509 authorities.
    #[command(subcommand)]
    X509(Step),
    /// Shows, prepares, activates, taints and revokes JWT authorities.
    #[command(subcommand)]
    Jwt(Step),
    /// Shows, prepares, activates, taints and revokes WIT authorities.
    #[command(subcommand)]
    Wit(Step),
}

#[derive(Debug, Subcommand)]
pub(super) enum Step {
    /// Shows the local authorities.
    Show(Call),
    /// Makes the next authority and publishes it in the bundle; it does not sign yet.
    Prepare(Call),
    /// Lets the prepared authority sign from now on.
    Activate(OneArgs),
    /// Marks an authority that signed before: all that it signed is replaced.
    Taint(OneArgs),
    /// Takes a tainted authority that signed before out of the bundle.
    Revoke(OneArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct OneArgs {
    #[command(flatten)]
    call: Call,
    /// The authority ID of the authority.
    #[arg(long = "authorityID", value_name = "ID")]
    authority_id: Option<String>,
}

impl OneArgs {
    fn id(&self, family: Family) -> Result<String, Failure> {
        let missing = || {
            Failure::new("an authority ID is required").try_this(format!(
                "add -authorityID with an ID that `localauthority {} show` prints",
                family.command()
            ))
        };
        set(&self.authority_id).map(str::to_owned).ok_or_else(missing)
    }
}

pub(super) fn run(command: &Command, console: &mut Console<'_>) -> Result<(), Failure> {
    let (family, step) = match command {
        Command::X509(step) => (Family::X509, step),
        Command::Jwt(step) => (Family::Jwt, step),
        Command::Wit(step) => (Family::Wit, step),
    };
    match step {
        Step::Show(call) => show(family, call, console),
        Step::Prepare(call) => carry_out(family, Order::Prepare, call, console),
        Step::Activate(args) => carry_out(family, Order::Activate(args.id(family)?), &args.call, console),
        Step::Taint(args) => carry_out(family, Order::Taint(args.id(family)?), &args.call, console),
        Step::Revoke(args) => carry_out(family, Order::Revoke(args.id(family)?), &args.call, console),
    }
}

async fn client(at: &Socket, console: &Console<'_>) -> Result<LocalAuthorityClient<Channel>, Failure> {
    Ok(LocalAuthorityClient::new(dial(at, console).await?))
}

fn show(family: Family, Call { socket, output }: &Call, console: &mut Console<'_>) -> Result<(), Failure> {
    let states = block_on(async {
        let answer = calls::states(family, client(socket, console).await?).await;
        let could_not = format!("could not get {} authorities", family.name());
        answer.map_err(|status| refused(&could_not, &status))
    })?;
    output::print(output.form, console, &states, |console| Ok(family.print_all(console, &states)?))
}

fn carry_out(
    family: Family,
    order: Order,
    Call { socket, output }: &Call,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let (verb, done) = order.names();
    let state = block_on(async {
        let answer = calls::carry_out(family, order, client(socket, console).await?).await;
        let could_not = format!("could not {verb} {} authority", family.name());
        answer.map_err(|status| refused(&could_not, &status))
    })?;
    let changed = Changed { done, state };
    output::print(output.form, console, &changed, |console| family.print_one(console, &changed))
}

/// The active, the prepared and the old authority.
struct States {
    active: Option<wire::AuthorityState>,
    prepared: Option<wire::AuthorityState>,
    old: Option<wire::AuthorityState>,
}

impl ToJson for States {
    fn to_json(&self) -> Value {
        let all = [("active", &self.active), ("old", &self.old), ("prepared", &self.prepared)];
        let there =
            all.into_iter().filter_map(|(name, state)| Some((name.to_owned(), state.as_ref()?.to_json())));
        Value::Object(there.collect())
    }
}

/// The authority that something was done to.
struct Changed {
    /// What: `prepared`, `activated` and so on.
    done: &'static str,
    state: Option<wire::AuthorityState>,
}

impl ToJson for Changed {
    fn to_json(&self) -> Value {
        let there = self.state.iter().map(|state| (format!("{}_authority", self.done), state.to_json()));
        Value::Object(there.collect())
    }
}

/// Which authorities are meant.
#[derive(Clone, Copy, Debug)]
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

    /// The word of the command line.
    fn command(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::Jwt => "jwt",
            Self::Wit => "wit",
        }
    }

    fn print_all(self, console: &mut Console<'_>, states: &States) -> IoResult<()> {
        let name = self.name();
        let all = [("Active", &states.active), ("Prepared", &states.prepared), ("Old", &states.old)];
        for (place, (title, state)) in all.into_iter().enumerate() {
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

    fn print_one(self, console: &mut Console<'_>, changed: &Changed) -> Result<(), Failure> {
        let none = || Failure::new("the server's answer names no authority");
        let state = changed.state.as_ref().ok_or_else(none)?;
        let (first, rest) = changed.done.split_at(1);
        writeln!(console.out, "{}{rest} {} authority:", first.to_uppercase(), self.name())?;
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
