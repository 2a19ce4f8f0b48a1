//! `can WHAT`: whether a call would be let through, and why. The server decides, as it would for the call itself.
//!
//! A command that makes several calls may be carried out when all of them may be made.

mod commands;

use serde_json::{Value, json};
use spindle_proto::admin::v1 as wire;
use spindle_proto::admin::v1::roles_client::RolesClient;
use spindle_proto::refusal::Refusal;
use spindle_spiffe_core::Reason;
use tonic::Status;

use super::dial;
use super::role::in_words;
use crate::args::{Output, OutputForm, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::input;
use crate::output;
use crate::output::json::ToJson;
use commands::{Named, methods_of};

#[derive(Debug, Default, clap::Args)]
#[command(after_help = "Exit status: 0 for yes, 1 for no and when it cannot be told.")]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Who would call, as a SPIFFE ID; you when not set.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    /// What: a command (entry create), its verb (create), or a method (BatchCreateEntry). Of a command that makes several
    /// calls the answer is yes when all of them are let through.
    #[arg(value_name = "WHAT", num_args = 1..=3, required = true)]
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

/// One answer for each method that is asked about.
#[derive(Debug)]
struct Answers(Vec<wire::CanResponse>);

impl Answers {
    fn denied(&self) -> Option<&wire::CanResponse> {
        self.0.iter().find(|answer| !answer.allowed)
    }
}

impl ToJson for Answers {
    fn to_json(&self) -> Value {
        match &self.0[..] {
            [one] => one.to_json(),
            several => {
                let each: Vec<Value> = several.iter().map(ToJson::to_json).collect();
                json!({ "allowed": self.denied().is_none(), "methods": each })
            }
        }
    }
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let requests = requests(args)?;
    let answers = block_on(async {
        let mut client = RolesClient::new(dial(&args.socket, console).await?);
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let answer = client.can(request).await;
            answers.push(answer.map_err(|status| failure(&args.what.join(" "), &status))?.into_inner());
        }
        Ok(Answers(answers))
    })?;
    show(args.output.form, console, &answers)
}

/// Why there is no answer. A word that is neither a command nor a method is more often mistyped than a method that an older
/// server lacks.
fn failure(what: &str, status: &Status) -> Failure {
    let reason = Refusal::of(status).and_then(|refusal| refusal.reason());
    match (reason, methods_of(what)) {
        (Some(reason @ Reason::MethodUnknown), Named::Other) => {
            Failure::new(format!("there is no command and no method {what:?} (reason: {reason})"))
                .try_this("see `can -h` for what can be named; `-h` lists the commands")
        }
        _ => refused("cannot tell", status),
    }
}

/// The questions that the command line comes down to, one for each method.
fn requests(args: &Args) -> Result<Vec<wire::CanRequest>, Failure> {
    let what = args.what.join(" ");
    let methods = match methods_of(&what) {
        Named::Methods(methods) => methods,
        Named::Other => vec![what.clone()],
        Named::Local => {
            return Err(Failure::new(format!("`{what}` calls no server, so no role opens or closes it"))
                .try_this("look at the owner and mode of the files that it works on"));
        }
    };
    let question = question(args)?;
    if methods.len() > 1 && question.is_some() {
        return Err(Failure::new(format!(
            "`{what}` makes several calls, and one entry cannot be meant by all"
        ))
        .try_this("leave out the flags of the entry, or ask about `entry create`, `update` or `delete`"));
    }
    let spiffe_id = set(&args.spiffe_id).unwrap_or_default();
    let request =
        |method| wire::CanRequest { spiffe_id: spiffe_id.to_owned(), method, entry: question.clone() };
    Ok(methods.into_iter().map(request).collect())
}

/// The entry that is asked about, if any flag describes one.
fn question(args: &Args) -> Result<Option<wire::EntryQuestion>, Failure> {
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
    Ok((question != wire::EntryQuestion::default()).then_some(question))
}

/// Exit status 0 for yes and 1 for no, whatever the form, so that scripts can ask.
fn show(form: OutputForm, console: &mut Console<'_>, answers: &Answers) -> Result<(), Failure> {
    let several = answers.0.len() > 1;
    // Which of several methods it is about.
    let about = |answer: &wire::CanResponse| match answer.method.rsplit('/').next() {
        Some(method) if several => format!("{method}: "),
        _ => String::new(),
    };
    let denied = answers.denied();
    if form == OutputForm::Json || denied.is_none() {
        output::print(form, console, answers, |console| {
            for answer in &answers.0 {
                writeln!(console.out, "{}yes, as {}: {}", about(answer), answer.r#as, answer.explanation)?;
            }
            print_grants(console, &answers.0)
        })?;
    }
    match (denied, form) {
        (None, _) => Ok(()),
        (Some(_), OutputForm::Json) => Err(Failure::new("")),
        (Some(answer), OutputForm::Pretty) => {
            print_grants(console, std::slice::from_ref(answer))?;
            let (about, why, code) = (about(answer), &answer.explanation, &answer.reason);
            let failure = Failure::new(format!("{about}no: {why} (reason: {code})"));
            let reason = Reason::ALL.iter().find(|reason| reason.code() == answer.reason);
            Err(reason.map_or(failure.clone(), |reason| failure.try_this(reason.remedy())))
        }
    }
}

/// The roles by which the calls are opened, each once.
fn print_grants(console: &mut Console<'_>, answers: &[wire::CanResponse]) -> Result<(), Failure> {
    let mut told = Vec::new();
    for words in answers.iter().flat_map(|answer| answer.grants.iter().map(in_words)) {
        if !told.contains(&words) {
            writeln!(console.out, "Role: {words}")?;
            told.push(words);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use spindle_proto::refusal::refusal;
    use tonic::Code;

    use super::*;
    use crate::testing::Screen;

    fn asked_all(what: &[&str], change: impl FnOnce(&mut Args)) -> Result<Vec<wire::CanRequest>, Failure> {
        let mut args = Args { what: what.iter().map(|word| (*word).into()).collect(), ..Default::default() };
        change(&mut args);
        requests(&args)
    }

    fn asked(change: impl FnOnce(&mut Args)) -> Result<wire::CanRequest, Failure> {
        asked_all(&["entry", "create"], change).map(|mut all| all.remove(0))
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
    fn a_command_of_several_calls_becomes_as_many_questions_for_the_same_caller() {
        let purge = asked_all(&["agent", "purge"], |args| args.spiffe_id = Some("spiffe://a/b".into()));
        let purge = purge.unwrap();
        let methods: Vec<_> = purge.iter().map(|one| one.method.rsplit('/').next().unwrap()).collect();
        assert_eq!(methods, ["ListAgents", "DeleteAgent"]);
        assert!(purge.iter().all(|one| one.spiffe_id == "spiffe://a/b"));
        let jwt = asked_all(&["localauthority", "jwt", "taint"], |_| ()).unwrap();
        assert_eq!(jwt[0].method, "/spire.api.server.localauthority.v1.LocalAuthority/TaintJWTAuthority");
        let one_entry =
            asked_all(&["entry", "apply"], |args| args.admin = true).expect_err("of many entries");
        assert!(one_entry.what().contains("several calls") && one_entry.remedies().len() == 1);
        let local = asked_all(&["store", "copy"], |_| ()).expect_err("no call");
        assert!(local.what().contains("calls no server") && local.remedies().len() == 1);
    }

    #[test]
    fn a_word_that_nobody_knows_is_told_from_a_method_that_this_server_lacks() {
        let status = refusal(Code::InvalidArgument, Reason::MethodUnknown, "there is no method");
        let typo = failure("bundle sett", &status);
        assert!(typo.what().contains("\"bundle sett\" (reason: method_unknown)"), "{typo}");
        assert!(typo.remedies()[0].contains("can -h"), "{:?}", typo.remedies());
        assert_eq!(failure("bundle set", &status).remedies(), [Reason::MethodUnknown.remedy()]);
        let other = refusal(Code::PermissionDenied, Reason::MethodNotAllowed, "only administrators");
        assert_eq!(failure("bundle sett", &other).remedies(), [Reason::MethodNotAllowed.remedy()]);
    }

    fn yes(method: &str) -> wire::CanResponse {
        wire::CanResponse {
            allowed: true,
            method: format!("/s.S/{method}"),
            r#as: "role reader".into(),
            explanation: "the role opens this method".into(),
            grants: vec![wire::Grant { role: "reader".into(), ..Default::default() }],
            ..Default::default()
        }
    }

    fn no(method: &str) -> wire::CanResponse {
        wire::CanResponse {
            allowed: false,
            reason: "role_verb".into(),
            explanation: "the caller's role may not create entries".into(),
            ..yes(method)
        }
    }

    fn shown(form: OutputForm, answers: &[wire::CanResponse]) -> Screen {
        Screen::show(|console| show(form, console, &Answers(answers.to_vec())))
    }

    #[test]
    fn yes_and_no_say_why_and_end_differently() {
        let screen = shown(OutputForm::Pretty, &[yes("A")]);
        assert_eq!(screen.out, "yes, as role reader: the role opens this method\nRole: reader\n");
        assert!(screen.result.is_ok());
        let screen = shown(OutputForm::Pretty, &[no("A")]);
        let failure = screen.result.expect_err("no");
        assert_eq!(failure.what(), "no: the caller's role may not create entries (reason: role_verb)");
        assert_eq!((failure.exit(), failure.remedies()), (1, &[Reason::RoleVerb.remedy().to_owned()][..]));
        let screen = shown(OutputForm::Json, &[no("A")]);
        assert!(
            screen.out.starts_with(r#"{"allowed":false"#) && screen.out.contains("role_verb"),
            "{}",
            screen.out
        );
        assert_eq!(screen.result.expect_err("no").exit(), 1);
    }

    #[test]
    fn of_several_calls_one_no_is_a_no_that_names_the_method() {
        let screen = shown(OutputForm::Pretty, &[yes("A"), yes("B")]);
        let line = |method| format!("{method}: yes, as role reader: the role opens this method\n");
        assert_eq!(screen.out, format!("{}{}Role: reader\n", line("A"), line("B")));
        assert!(screen.result.is_ok());
        let screen = shown(OutputForm::Pretty, &[yes("A"), no("B")]);
        assert!(!screen.out.contains("yes"), "{}", screen.out);
        assert!(screen.result.expect_err("no").what().starts_with("B: no: the caller's role"));
        let screen = shown(OutputForm::Json, &[yes("A"), no("B")]);
        let told: Value = serde_json::from_str(&screen.out).unwrap();
        assert_eq!((&told["allowed"], told["methods"].as_array().unwrap().len()), (&Value::from(false), 2));
        assert_eq!(screen.result.expect_err("no").exit(), 1);
        assert!(shown(OutputForm::Json, &[yes("A"), yes("B")]).result.is_ok());
    }
}
