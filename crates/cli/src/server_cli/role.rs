//! `role grant|revoke|show`: roles that are kept in the store. Those of the configuration are shown too.

use clap::Subcommand;
use spindle_proto::admin::v1 as wire;
use spindle_proto::admin::v1::roles_client::RolesClient;
use spindle_proto::convert::spiffe_id_from_proto;
use spindle_server::Verb;

use super::dial;
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::input;
use crate::output::{self, line, plural};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Gives an identity a role.
    Grant(GrantArgs),
    /// Takes roles from an identity.
    Revoke(RevokeArgs),
    /// Shows who has which role.
    Show(ShowArgs),
}

#[derive(Debug, Default, clap::Args)]
pub(super) struct GrantArgs {
    #[command(flatten)]
    socket: Socket,
    /// SPIFFE ID of who gets the role; it may be of another trust domain.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    /// The role: reader, registrar or operator.
    #[arg(long = "role", value_name = "ROLE")]
    role: Option<String>,
    /// For a registrar: the paths of SPIFFE IDs that entries may give, such as /ci/.
    #[arg(long = "pathPrefix", value_name = "PATH")]
    path_prefix: Option<String>,
    /// For a registrar: the paths of parents that entries may have; as -pathPrefix when not set.
    #[arg(long = "parentPathPrefix", value_name = "PATH")]
    parent_path_prefix: Option<String>,
    /// For a registrar: create, update or delete; can be repeated.
    #[arg(long = "verb", value_name = "VERB")]
    verbs: Vec<String>,
    /// For a registrar: the longest lifetime of X509-SVIDs in seconds; no limit when 0.
    #[arg(long = "maxX509SVIDTTL", value_name = "SECONDS", default_value_t = 0)]
    max_x509_svid_ttl: u32,
    /// For a registrar: the longest lifetime of JWT-SVIDs in seconds; no limit when 0.
    #[arg(long = "maxJWTSVIDTTL", value_name = "SECONDS", default_value_t = 0)]
    max_jwt_svid_ttl: u32,
    /// For a registrar: entries may have the admin flag.
    #[arg(long = "allowAdmin")]
    allow_admin: bool,
    /// For a registrar: entries may have the downstream flag.
    #[arg(long = "allowDownstream")]
    allow_downstream: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Default, clap::Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    socket: Socket,
    /// SPIFFE ID of who loses the role.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    /// The role; all of them when not set.
    #[arg(long = "role", value_name = "ROLE")]
    role: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Default, clap::Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    socket: Socket,
    /// Only the roles of this SPIFFE ID, or of unix:uid:N or unix:gid:N.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(command: Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::Grant(args) => grant(&args, console),
        Command::Revoke(args) => revoke(&args, console),
        Command::Show(args) => show(&args, console),
    }
}

fn grant(args: &GrantArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = grant_request(args)?;
    let answer = block_on(async {
        let mut client = RolesClient::new(dial(&args.socket, console).await?);
        let answer = client.grant_role(request).await;
        Ok(answer.map_err(|status| refused("cannot give the role", &status))?.into_inner())
    })?;
    let holder = answer.holder.unwrap_or_default();
    output::print(args.output.form, console, &holder, |console| {
        writeln!(console.out, "Role given. The roles are now:")?;
        print_holder(console, &holder)
    })
}

fn grant_request(args: &GrantArgs) -> Result<wire::GrantRoleRequest, Failure> {
    let spiffe_id = identity(&args.spiffe_id)?;
    let role = set(&args.role).ok_or_else(|| {
        Failure::new("a role is required")
            .try_this("for example -role reader; registrar and operator are the others")
    })?;
    if role == "registrar" {
        let example = "for example -pathPrefix /ci/ -verb create -verb delete";
        if set(&args.path_prefix).is_none() {
            return Err(Failure::new("a registrar needs a path prefix").try_this(example));
        }
        if args.verbs.is_empty() {
            return Err(Failure::new("a registrar needs at least one verb").try_this(example));
        }
    }
    for verb in &args.verbs {
        verb.parse::<Verb>().map_err(|fault| Failure::because("-verb", &fault))?;
    }
    let grant = wire::Grant {
        role: role.to_owned(),
        path_prefix: args.path_prefix.clone().unwrap_or_default(),
        parent_path_prefix: args.parent_path_prefix.clone().unwrap_or_default(),
        verbs: args.verbs.clone(),
        max_x509_svid_ttl: args.max_x509_svid_ttl,
        max_jwt_svid_ttl: args.max_jwt_svid_ttl,
        allow_admin: args.allow_admin,
        allow_downstream: args.allow_downstream,
    };
    Ok(wire::GrantRoleRequest { spiffe_id, grant: Some(grant) })
}

fn revoke(args: &RevokeArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let role = set(&args.role).unwrap_or_default().to_owned();
    let request = wire::RevokeRoleRequest { spiffe_id: identity(&args.spiffe_id)?, role };
    let answer = block_on(async {
        let mut client = RolesClient::new(dial(&args.socket, console).await?);
        let answer = client.revoke_role(request).await;
        Ok(answer.map_err(|status| refused("cannot take the role", &status))?.into_inner())
    })?;
    let holder = answer.holder.unwrap_or_default();
    output::print(args.output.form, console, &holder, |console| {
        writeln!(console.out, "Role taken. The roles are now:")?;
        print_holder(console, &holder)
    })
}

/// Whole roles of foreign identities are given too, so the ID is only checked for its form.
fn identity(text: &Option<String>) -> Result<String, Failure> {
    let text = set(text).ok_or_else(|| {
        Failure::new("a SPIFFE ID is required").try_this("for example -spiffeID spiffe://example.org/ci")
    })?;
    let id = spiffe_id_from_proto(&input::spiffe_id("spiffeID", text)?);
    Ok(id.map_err(|fault| Failure::because("-spiffeID", &fault))?.to_string())
}

fn show(args: &ShowArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let mut answer = block_on(async {
        let mut client = RolesClient::new(dial(&args.socket, console).await?);
        let answer = client.list_roles(wire::ListRolesRequest {}).await;
        Ok(answer.map_err(|status| refused("cannot show roles", &status))?.into_inner())
    })?;
    if let Some(wanted) = set(&args.spiffe_id) {
        answer.holders.retain(|holder| holder.subject == wanted);
    }
    output::print(args.output.form, console, &answer, |console| {
        let count = answer.holders.len();
        writeln!(console.out, "Found {count} {}\n", plural(count, "role holder", "role holders"))?;
        answer.holders.iter().try_for_each(|holder| print_holder(console, holder))
    })
}

const WIDTH: usize = 24;

fn print_holder(console: &mut Console<'_>, holder: &wire::Holder) -> Result<(), Failure> {
    let out = &mut *console.out;
    line(out, "Holder", WIDTH, &holder.subject)?;
    if holder.configured {
        line(out, "Given by", WIDTH, "the configuration")?;
    }
    if holder.grants.is_empty() {
        line(out, "Role", WIDTH, "(none)")?;
    }
    holder.grants.iter().try_for_each(|grant| line(out, "Role", WIDTH, in_words(grant)))?;
    Ok(writeln!(out)?)
}

/// A grant in one line.
pub(super) fn in_words(grant: &wire::Grant) -> String {
    if grant.path_prefix.is_empty() {
        return grant.role.clone();
    }
    let mut parts = vec![format!("may {} {}", grant.verbs.join(", "), grant.path_prefix)];
    parts.push(format!("below {}", grant.parent_path_prefix));
    let ttl = |secs: u32, kind: &str| (secs > 0).then(|| format!("{kind} TTL up to {secs} s"));
    parts.extend(ttl(grant.max_x509_svid_ttl, "X509-SVID"));
    parts.extend(ttl(grant.max_jwt_svid_ttl, "JWT-SVID"));
    parts.extend(grant.allow_admin.then(|| "admin flag allowed".to_owned()));
    parts.extend(grant.allow_downstream.then(|| "downstream flag allowed".to_owned()));
    format!("{}: {}", grant.role, parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json::ToJson;
    use crate::testing::Screen;

    fn registrar() -> wire::Grant {
        wire::Grant {
            role: "registrar".into(),
            path_prefix: "/ci/".into(),
            parent_path_prefix: "/nodes/".into(),
            verbs: vec!["create".into(), "delete".into()],
            max_x509_svid_ttl: 60,
            max_jwt_svid_ttl: 30,
            allow_admin: true,
            allow_downstream: true,
        }
    }

    #[test]
    fn a_holder_is_shown_with_its_limits() {
        let reader = wire::Grant { role: "reader".into(), ..Default::default() };
        let holder = wire::Holder {
            subject: "spiffe://example.org/ci".into(),
            grants: vec![reader, registrar()],
            configured: true,
        };
        let screen = Screen::show(|console| print_holder(console, &holder));
        let expected = "\
Holder                  : spiffe://example.org/ci
Given by                : the configuration
Role                    : reader
Role                    : registrar: may create, delete /ci/; below /nodes/; X509-SVID TTL up to 60 s; JWT-SVID TTL up \
to 30 s; admin flag allowed; downstream flag allowed

";
        assert_eq!(screen.out, expected);
        let bare = Screen::show(|console| print_holder(console, &wire::Holder::default()));
        assert!(bare.out.contains("Role                    : (none)"), "{}", bare.out);
        let json = holder.to_json().to_string();
        assert!(json.starts_with(r#"{"configured":true,"grants":[{"allow_admin":false,"#), "{json}");
    }

    #[test]
    fn what_a_grant_needs_is_asked_for_before_anything_is_called() {
        let args = |change: fn(&mut GrantArgs)| {
            let mut args = GrantArgs {
                spiffe_id: Some("spiffe://example.org/ci".into()),
                role: Some("registrar".into()),
                path_prefix: Some("/ci/".into()),
                verbs: vec!["create".into()],
                ..Default::default()
            };
            change(&mut args);
            grant_request(&args)
        };
        let request = args(|_| ()).expect("complete");
        assert_eq!(request.grant.unwrap().path_prefix, "/ci/");
        assert!(
            args(|args| args.role = Some("reader".into())).is_ok(),
            "the server says what a reader has not"
        );
        for (change, says) in [
            ((|args| args.spiffe_id = None) as fn(&mut GrantArgs), "a SPIFFE ID is required"),
            (|args| args.spiffe_id = Some("spiffe://A/b".into()), "-spiffeID"),
            (|args| args.role = None, "a role is required"),
            (|args| args.path_prefix = None, "a path prefix"),
            (|args| args.verbs.clear(), "at least one verb"),
            (|args| args.verbs.push("ban".into()), "\"ban\" is nothing that is done to entries"),
        ] {
            let fault = args(change).expect_err(says);
            assert!(fault.what().contains(says), "{says:?} is not in {:?}", fault.what());
        }
    }
}
