//! `can WHAT`: whether a call would be let through, and why. The server decides, as it would for the call itself.

use spindle_proto::admin::v1 as wire;
use spindle_proto::admin::v1::roles_client::RolesClient;
use spindle_spiffe_core::Reason;

use super::dial;
use super::role::in_words;
use crate::args::{Output, OutputForm, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::input;
use crate::output;

#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Who would call, as a SPIFFE ID; you when not set.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    /// What: a command (entry create), its verb (create), or a method (BatchCreateEntry).
    #[arg(value_name = "WHAT", num_args = 1..=2, required = true)]
    what: Vec<String>,
    /// The entry to be updated or deleted.
    #[arg(long = "entryID", value_name = "ID")]
    entry_id: Option<String>,
    /// SPIFFE ID that the entry would give.
    #[arg(long = "entrySpiffeID", value_name = "ID")]
    entry_spiffe_id: Option<String>,
    /// SPIFFE ID of the entry's parent.
    #[arg(long = "parentID", value_name = "ID")]
    parent_id: Option<String>,
    /// Lifetime of the entry's X509-SVIDs in seconds; the server's default when 0.
    #[arg(long = "x509SVIDTTL", value_name = "SECONDS", default_value_t = 0)]
    x509_svid_ttl: i32,
    /// Lifetime of the entry's JWT-SVIDs in seconds; the server's default when 0.
    #[arg(long = "jwtSVIDTTL", value_name = "SECONDS", default_value_t = 0)]
    jwt_svid_ttl: i32,
    /// The entry would have the admin flag.
    #[arg(long = "admin")]
    admin: bool,
    /// The entry would have the downstream flag.
    #[arg(long = "downstream")]
    downstream: bool,
    #[command(flatten)]
    output: Output,
}

/// Commands and verbs, and the method that each comes down to.
const COMMANDS: &[(&str, &str)] = &[
    ("create", "/spire.api.server.entry.v1.Entry/BatchCreateEntry"),
    ("update", "/spire.api.server.entry.v1.Entry/BatchUpdateEntry"),
    ("delete", "/spire.api.server.entry.v1.Entry/BatchDeleteEntry"),
    ("entry create", "/spire.api.server.entry.v1.Entry/BatchCreateEntry"),
    ("entry update", "/spire.api.server.entry.v1.Entry/BatchUpdateEntry"),
    ("entry delete", "/spire.api.server.entry.v1.Entry/BatchDeleteEntry"),
    ("entry show", "/spire.api.server.entry.v1.Entry/ListEntries"),
    ("entry count", "/spire.api.server.entry.v1.Entry/CountEntries"),
    ("agent list", "/spire.api.server.agent.v1.Agent/ListAgents"),
    ("agent show", "/spire.api.server.agent.v1.Agent/GetAgent"),
    ("agent count", "/spire.api.server.agent.v1.Agent/CountAgents"),
    ("agent ban", "/spire.api.server.agent.v1.Agent/BanAgent"),
    ("agent evict", "/spire.api.server.agent.v1.Agent/DeleteAgent"),
    ("token generate", "/spire.api.server.agent.v1.Agent/CreateJoinToken"),
    ("bundle show", "/spire.api.server.bundle.v1.Bundle/GetBundle"),
    ("bundle count", "/spire.api.server.bundle.v1.Bundle/CountBundles"),
    ("x509 mint", "/spire.api.server.svid.v1.SVID/MintX509SVID"),
    ("role show", "/spindle.admin.v1.Roles/ListRoles"),
    ("role grant", "/spindle.admin.v1.Roles/GrantRole"),
    ("role revoke", "/spindle.admin.v1.Roles/RevokeRole"),
];

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = request(args)?;
    let answer = block_on(async {
        let mut client = RolesClient::new(dial(&args.socket, console).await?);
        let answer = client.can(request).await;
        Ok(answer.map_err(|status| refused("cannot tell", &status))?.into_inner())
    })?;
    show(args.output.form, console, &answer)
}

fn request(args: &Args) -> Result<wire::CanRequest, Failure> {
    let what = args.what.join(" ");
    let known = COMMANDS.iter().find(|(command, _)| *command == what).map(|(_, method)| (*method).to_owned());
    let id = |name, text| set(text).map(|text| input::spiffe_id(name, text)).transpose();
    let question = wire::EntryQuestion {
        entry_id: args.entry_id.clone().unwrap_or_default(),
        spiffe_id: id("entrySpiffeID", &args.entry_spiffe_id)?,
        parent_id: id("parentID", &args.parent_id)?,
        x509_svid_ttl: args.x509_svid_ttl,
        jwt_svid_ttl: args.jwt_svid_ttl,
        admin: args.admin,
        downstream: args.downstream,
    };
    Ok(wire::CanRequest {
        spiffe_id: set(&args.spiffe_id).unwrap_or_default().to_owned(),
        method: known.unwrap_or(what),
        entry: (question != wire::EntryQuestion::default()).then_some(question),
    })
}

/// Exit status 0 for yes and 1 for no, whatever the form, so that scripts can ask.
fn show(form: OutputForm, console: &mut Console<'_>, answer: &wire::CanResponse) -> Result<(), Failure> {
    if form == OutputForm::Json || answer.allowed {
        output::print(form, console, answer, |console| {
            writeln!(console.out, "yes, as {}: {}", answer.r#as, answer.explanation)?;
            print_grants(console, answer)
        })?;
    }
    match (answer.allowed, form) {
        (true, _) => Ok(()),
        (false, OutputForm::Json) => Err(Failure::new("")),
        (false, OutputForm::Pretty) => {
            print_grants(console, answer)?;
            let failure = Failure::new(format!("no: {} (reason: {})", answer.explanation, answer.reason));
            let reason = Reason::ALL.iter().find(|reason| reason.code() == answer.reason);
            Err(reason.map_or(failure.clone(), |reason| failure.try_this(reason.remedy())))
        }
    }
}

fn print_grants(console: &mut Console<'_>, answer: &wire::CanResponse) -> Result<(), Failure> {
    for grant in &answer.grants {
        writeln!(console.out, "Role: {}", in_words(grant))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::testing::Screen;

    fn asked(change: impl FnOnce(&mut Args)) -> Result<wire::CanRequest, Failure> {
        let mut args = Args { what: vec!["entry".into(), "create".into()], ..Default::default() };
        change(&mut args);
        request(&args)
    }

    #[test]
    fn every_command_comes_down_to_a_method_that_there_is() {
        let set = FileDescriptorSet::decode(spindle_proto::SERVER_DESCRIPTOR_SET).unwrap();
        let mut methods = Vec::new();
        for file in &set.file {
            for service in &file.service {
                let of = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| of(method.name())));
            }
        }
        for (command, method) in COMMANDS {
            assert!(methods.iter().any(|known| known == method), "{command}: {method}");
        }
    }

    #[test]
    fn words_and_flags_become_a_question() {
        let bare = asked(|_| ()).unwrap();
        assert_eq!(bare.method, "/spire.api.server.entry.v1.Entry/BatchCreateEntry");
        assert!(bare.spiffe_id.is_empty() && bare.entry.is_none());
        assert_eq!(asked(|args| args.what = vec!["BanAgent".into()]).unwrap().method, "BanAgent");
        let full = asked(|args| {
            args.spiffe_id = Some("spiffe://example.org/ci".into());
            args.entry_spiffe_id = Some("spiffe://example.org/ci/a".into());
            args.admin = true;
        });
        let full = full.unwrap();
        assert_eq!(full.spiffe_id, "spiffe://example.org/ci");
        let entry = full.entry.unwrap();
        assert!(entry.admin && entry.spiffe_id.unwrap().path == "/ci/a" && entry.parent_id.is_none());
        assert!(asked(|args| args.parent_id = Some("a/b".into())).is_err());
    }

    #[test]
    fn yes_and_no_say_why_and_end_differently() {
        let grant = wire::Grant { role: "reader".into(), ..Default::default() };
        let yes = wire::CanResponse {
            allowed: true,
            r#as: "role reader".into(),
            explanation: "the role opens this method".into(),
            grants: vec![grant.clone()],
            ..Default::default()
        };
        let screen = Screen::show(|console| show(OutputForm::Pretty, console, &yes));
        assert_eq!(screen.out, "yes, as role reader: the role opens this method\nRole: reader\n");
        assert!(screen.result.is_ok());
        let no = wire::CanResponse {
            reason: "role_verb".into(),
            explanation: "the caller's role may not create entries".into(),
            grants: vec![grant],
            ..Default::default()
        };
        let screen = Screen::show(|console| show(OutputForm::Pretty, console, &no));
        let failure = screen.result.expect_err("no");
        assert_eq!(failure.what(), "no: the caller's role may not create entries (reason: role_verb)");
        assert_eq!((failure.exit(), failure.remedies()), (1, &[Reason::RoleVerb.remedy().to_owned()][..]));
        let screen = Screen::show(|console| show(OutputForm::Json, console, &no));
        assert!(screen.out.contains(r#""allowed":false"#), "{}", screen.out);
        assert_eq!(screen.result.expect_err("no").exit(), 1);
    }
}
