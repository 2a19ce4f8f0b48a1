//! `entry lint`: looks for entries that do nothing, soon do nothing, or are unusual.

use serde_json::json;
use spindle_proto::convert::bundle_from_proto;
use spindle_proto::spire::api::server::agent::v1::ListAgentsRequest;
use spindle_proto::spire::api::types;
use spindle_runtime::SystemClock;
use spindle_spiffe_core::Timestamp;
use tonic::transport::Channel;

use crate::args::{Output, OutputForm, Socket, set};
use crate::client::block_on;
use crate::console::Console;
use crate::entry_file::{self, EntryFile};
use crate::entry_lint::{AgentFact, Facts, Finding, Severity, Subject, lint};
use crate::error::Failure;
use crate::output::{plural, text};
use crate::server_cli::held::{Held, without_bundle};
use crate::server_cli::{agent, dial};

#[derive(Debug, Default, clap::Args)]
#[command(after_help = "Exit status: 1 when an error was found, 0 for warnings and notes.")]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Looks at the entries of a file (- for standard input) or directory instead of the server's. The server is asked for
    /// its agents, bundles and entries only when -socketPath or -instance is given, too.
    #[arg(long = "file", value_name = "FILE")]
    file: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let file = set(&args.file).map(entry_file::read).transpose()?;
    let asks = file.is_none() || args.socket.path.is_some() || args.socket.instance.is_some();
    let now = SystemClock::shared().now();
    let (subjects, facts) = if asks {
        block_on(async { ask(&dial(&args.socket, console).await?, file, now).await })?
    } else {
        let file = file.unwrap_or_default();
        let facts = Facts { trust_domain: file.trust_domain.clone(), now: Some(now), ..Facts::default() };
        (of_file(file), facts)
    };
    print(&lint(&subjects, &facts), subjects.len(), args.output.form, console)
}

fn of_file(file: EntryFile) -> Vec<Subject> {
    file.entries.into_iter().map(|one| Subject { label: one.place, entry: one.entry }).collect()
}

/// The entries of the file, or else the server's, and what the server knows about them.
async fn ask(
    channel: &Channel,
    file: Option<EntryFile>,
    now: Timestamp,
) -> Result<(Vec<Subject>, Facts), Failure> {
    let held = Held::by(channel).await?;
    let request = ListAgentsRequest { page_size: agent::PAGE_SIZE, ..ListAgentsRequest::default() };
    let agents = agent::all(channel.clone(), request).await?;
    let authority_secs = authority_secs(&held.bundle);
    let (subjects, others) = match file {
        Some(file) => {
            held.expect(file.trust_domain.as_ref(), "the files")?;
            (of_file(file), held.entries)
        }
        None => {
            let subject = |entry: types::Entry| Subject { label: entry.id.clone(), entry };
            (held.entries.into_iter().map(subject).collect(), Vec::new())
        }
    };
    let facts = Facts {
        trust_domain: Some(held.trust_domain),
        agents: Some(agents.iter().map(fact).collect()),
        others,
        without_bundle: without_bundle(channel, subjects.iter().map(|subject| &subject.entry)).await?,
        authority_secs,
        now: Some(now),
    };
    Ok((subjects, facts))
}

fn fact(agent: &types::Agent) -> AgentFact {
    AgentFact {
        id: text::id(&agent.id),
        expires_at: Timestamp::from_unix_secs(agent.x509svid_expires_at),
        banned: agent.banned,
        selectors: agent.selectors.iter().map(|one| format!("{}:{}", one.r#type, one.value)).collect(),
    }
}

/// The lifetime of the youngest authority of the bundle. Below an upstream authority it is that of the root, which
/// promises no less than is true.
fn authority_secs(bundle: &types::Bundle) -> Option<i64> {
    let bundle = bundle_from_proto(bundle).ok()?.x509_bundle();
    let youngest = bundle.authorities().iter().max_by_key(|authority| authority.validity().not_after)?;
    let validity = youngest.validity();
    Some(validity.not_after.secs_since(validity.not_before))
}

fn print(
    findings: &[Finding],
    looked_at: usize,
    form: OutputForm,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let [errors, warnings, notes] = [Severity::Error, Severity::Warning, Severity::Note].map(count);
    match form {
        OutputForm::Json => {
            let findings: Vec<_> = findings.iter().map(Finding::to_json).collect();
            writeln!(console.out, "{}", json!({ "entries": looked_at, "findings": findings }))?;
        }
        OutputForm::Pretty => {
            for finding in findings {
                let Finding { severity, entry, spiffe_id, rule, what, remedy } = finding;
                writeln!(console.out, "{severity:<7} {entry} ({spiffe_id}): {what} [{rule}]")?;
                writeln!(console.out, "        Try: {remedy}")?;
            }
            let entries = plural(looked_at, "entry", "entries");
            writeln!(
                console.out,
                "Looked at {looked_at} {entries}: {errors} {}, {warnings} {}, {notes} {}.",
                plural(errors, "error", "errors"),
                plural(warnings, "warning", "warnings"),
                plural(notes, "note", "notes")
            )?;
        }
    }
    if errors == 0 { Ok(()) } else { Err(Failure::new("")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Screen;

    fn finding(severity: Severity) -> Finding {
        Finding {
            severity,
            entry: "e1".into(),
            rule: "ttl_short",
            spiffe_id: "spiffe://example.org/web".into(),
            what: "it is short".into(),
            remedy: "set more".into(),
        }
    }

    #[test]
    fn findings_are_shown_with_what_to_try_and_errors_fail_the_command() {
        let shown = |found: &[Finding], form| Screen::show(|console| print(found, 3, form, console));
        let warned = shown(&[finding(Severity::Warning)], OutputForm::Pretty);
        assert_eq!(
            warned.out,
            "warning e1 (spiffe://example.org/web): it is short [ttl_short]\n        Try: set more\n\
             Looked at 3 entries: 0 errors, 1 warning, 0 notes.\n"
        );
        assert_eq!(warned.result, Ok(()));
        let failed = shown(&[finding(Severity::Error), finding(Severity::Note)], OutputForm::Json);
        assert_eq!(failed.result.expect_err("an error").exit(), 1);
        let json: serde_json::Value = serde_json::from_str(&failed.out).unwrap();
        assert_eq!((&json["entries"], &json["findings"][0]["severity"]), (&3.into(), &"error".into()));
    }
}
