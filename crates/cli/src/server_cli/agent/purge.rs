//! `agent purge`: evicts agents whose SVID ended long ago and that can attest again by themselves.
//!
//! As with SPIRE's tool the work is done from here: one list, then one eviction for each agent that was found.

use serde_json::Value;
use spindle_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use spindle_proto::spire::api::server::agent::v1::{
    DeleteAgentRequest, ListAgentsRequest, list_agents_request,
};
use spindle_proto::spire::api::types;
use spindle_runtime::SystemClock;
use spindle_spiffe_core::Timestamp;
use tonic::transport::Channel;

use super::{PAGE_SIZE, all, dial};
use crate::args::{Output, Socket};
use crate::client::{block_on, code_name};
use crate::console::Console;
use crate::duration;
use crate::error::Failure;
use crate::output;
use crate::output::json::ToJson;
use crate::output::text;

#[derive(Debug, clap::Args)]
pub(in crate::server_cli) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// How long an agent's SVID must have been over.
    #[arg(long = "expiredFor", value_name = "DURATION", default_value = "720h", value_parser = duration::parse)]
    expired_for: std::time::Duration,
    /// Evicts nobody, and shows who would be.
    #[arg(long = "dryRun")]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// One agent that was found, and what became of it.
#[derive(Debug)]
struct Found {
    agent_id: String,
    deleted: bool,
    error: String,
}

/// All of them, in SPIRE's JSON form.
#[derive(Debug)]
struct Report(Vec<Found>);

impl ToJson for Report {
    fn to_json(&self) -> Value {
        let agent = |found: &Found| {
            let mut agent = serde_json::json!({ "agent_id": found.agent_id, "deleted": found.deleted });
            if !found.error.is_empty() {
                agent["error"] = found.error.clone().into();
            }
            agent
        };
        serde_json::json!({ "expired_agents": self.0.iter().map(agent).collect::<Vec<_>>() })
    }
}

pub(super) fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let report = block_on(async { purge(args, dial(&args.socket, console).await?).await })?;
    output::print(args.output.form, console, &report, |console| pretty(console, &report, args.dry_run))
}

async fn purge(args: &Args, channel: Channel) -> Result<Report, Failure> {
    let request = ListAgentsRequest {
        filter: Some(list_agents_request::Filter { by_can_reattest: Some(true), ..Default::default() }),
        output_mask: Some(types::AgentMask { x509svid_expires_at: true, ..Default::default() }),
        page_size: PAGE_SIZE,
        ..Default::default()
    };
    let agents = all(channel.clone(), request).await?;
    let mut client = AgentClient::new(channel);
    let now = SystemClock::shared().now();
    let mut report = Vec::new();
    for agent in agents.into_iter().filter(|agent| is_over(agent, args.expired_for, now)) {
        let mut found = Found { agent_id: text::id(&agent.id), deleted: false, error: String::new() };
        if !args.dry_run {
            match client.delete_agent(DeleteAgentRequest { id: agent.id }).await {
                Ok(_) => found.deleted = true,
                Err(status) => found.error = format!("{}: {}", code_name(status.code()), status.message()),
            }
        }
        report.push(found);
    }
    Ok(Report(report))
}

fn is_over(agent: &types::Agent, expired_for: std::time::Duration, now: Timestamp) -> bool {
    let over_secs = now.unix_secs().saturating_sub(agent.x509svid_expires_at);
    u64::try_from(over_secs).is_ok_and(|secs| std::time::Duration::from_secs(secs) > expired_for)
}

fn pretty(console: &mut Console<'_>, report: &Report, dry_run: bool) -> Result<(), Failure> {
    let count = report.0.len();
    if count == 0 {
        return Ok(writeln!(console.out, "No agents to purge.")?);
    }
    writeln!(console.out, "Found {count} expired {}\n", output::plural(count, "agent", "agents"))?;
    if dry_run {
        writeln!(console.out, "\nAgents that can be purged:")?;
        for found in &report.0 {
            writeln!(console.out, "SPIFFE ID         : {}", found.agent_id)?;
        }
        return Ok(());
    }
    let (purged, kept): (Vec<_>, Vec<_>) = report.0.iter().partition(|found| found.deleted);
    if !purged.is_empty() {
        writeln!(console.out, "Agents purged:")?;
    }
    for found in &purged {
        writeln!(console.out, "SPIFFE ID         : {}", found.agent_id)?;
    }
    if kept.is_empty() {
        return Ok(());
    }
    writeln!(console.out, "Agents not purged:")?;
    for found in &kept {
        writeln!(console.out, "SPIFFE ID         : {}", found.agent_id)?;
        writeln!(console.out, "Error             : {}", found.error)?;
    }
    // SPIRE's tool ends with success here, so that scripts do not notice; ours agrees with what other commands do.
    let count = kept.len();
    Err(Failure::new(format!("{count} {} not purged", output::plural(count, "agent was", "agents were")))
        .try_this("look at the errors above, and try again"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::Screen;

    fn found(name: &str, error: &str) -> Found {
        let agent_id = format!("spiffe://example.org/spire/agent/{name}");
        Found { agent_id, deleted: error.is_empty(), error: error.into() }
    }

    #[test]
    fn only_what_is_over_for_longer_is_purged() {
        let now = Timestamp::from_unix_secs(1000);
        let is_over = |expires_at: i64, secs: u64| {
            let agent = types::Agent { x509svid_expires_at: expires_at, ..Default::default() };
            is_over(&agent, Duration::from_secs(secs), now)
        };
        assert!(is_over(989, 10) && is_over(999, 0) && is_over(i64::MIN, 10));
        assert!(!is_over(990, 10) && !is_over(1000, 0) && !is_over(2000, 10) && !is_over(i64::MAX, 0));
    }

    #[test]
    fn the_report_has_spires_words_and_what_was_kept_is_a_failure() {
        let report = Report(vec![found("a", ""), found("b", "Internal: no")]);
        let screen = Screen::show(|console| pretty(console, &report, false));
        assert_eq!(
            screen.out,
            "Found 2 expired agents\n\nAgents purged:\nSPIFFE ID         : spiffe://example.org/spire/agent/a\n\
             Agents not purged:\nSPIFFE ID         : spiffe://example.org/spire/agent/b\n\
             Error             : Internal: no\n"
        );
        assert_eq!(screen.result.expect_err("one was kept").what(), "1 agent was not purged");
        let none = Screen::show(|console| pretty(console, &Report(vec![]), false));
        assert_eq!((none.out.as_str(), none.result.is_ok()), ("No agents to purge.\n", true));
    }

    #[test]
    fn a_dry_run_shows_who_would_go() {
        let report = Report(vec![Found { deleted: false, ..found("a", "") }]);
        let screen = Screen::show(|console| pretty(console, &report, true));
        assert_eq!(
            screen.out,
            "Found 1 expired agent\n\n\nAgents that can be purged:\n\
             SPIFFE ID         : spiffe://example.org/spire/agent/a\n"
        );
        assert!(screen.result.is_ok());
    }

    #[test]
    fn the_json_form_is_spires() {
        let report = Report(vec![found("a", ""), found("b", "no")]);
        assert_eq!(
            report.to_json().to_string(),
            concat!(
                r#"{"expired_agents":[{"agent_id":"spiffe://example.org/spire/agent/a","deleted":true},"#,
                r#"{"agent_id":"spiffe://example.org/spire/agent/b","deleted":false,"error":"no"}]}"#
            )
        );
        assert_eq!(Report(vec![]).to_json().to_string(), r#"{"expired_agents":[]}"#);
    }
}
