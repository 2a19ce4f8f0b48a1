//! `agent list|show|count|ban|evict|purge`.

mod filter;
mod purge;

use clap::Subcommand;
use spindle_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use spindle_proto::spire::api::server::agent::v1::{
    BanAgentRequest, CountAgentsRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest,
    ListAgentsResponse,
};
use spindle_proto::spire::api::types;
use tonic::transport::Channel;

use super::dial;
use crate::args::{Output, Socket, set};
use crate::client::{block_on, refused};
use crate::console::Console;
use crate::error::Failure;
use crate::output::text;
use crate::{input, output};
use filter::FilterFlags;

/// Agents asked for in one call.
pub(super) const PAGE_SIZE: i32 = 1000;

/// The largest answer taken: a page of 1,000 agents with many selectors each.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists attested agents.
    List(ListArgs),
    /// Counts attested agents.
    Count(ListArgs),
    /// Shows one attested agent.
    Show(OneArgs),
    /// Bans an agent: it is cut off and cannot attest again.
    Ban(OneArgs),
    /// Evicts an agent: it is forgotten and may attest again.
    Evict(OneArgs),
    /// Evicts agents whose SVID ended long ago and that can attest again by themselves.
    Purge(purge::Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    filter: FilterFlags,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct OneArgs {
    #[command(flatten)]
    socket: Socket,
    /// SPIFFE ID of the agent.
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(command: Command, console: &mut Console<'_>) -> Result<(), Failure> {
    match command {
        Command::List(args) => list(&args, console),
        Command::Count(args) => count(&args, console),
        Command::Show(args) => show(&args, console),
        Command::Ban(args) => ban(&args, console),
        Command::Evict(args) => evict(&args, console),
        Command::Purge(args) => purge::run(&args, console),
    }
}

fn list(args: &ListArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = ListAgentsRequest {
        filter: Some(args.filter.list()?),
        page_size: PAGE_SIZE,
        ..ListAgentsRequest::default()
    };
    let agents = block_on(async { all(dial(&args.socket, console).await?, request).await })?;
    let response = ListAgentsResponse { agents, next_page_token: String::new() };
    output::print(args.output.form, console, &response, |console| pretty_list(console, &response.agents))
}

pub(super) async fn all(
    channel: Channel,
    mut request: ListAgentsRequest,
) -> Result<Vec<types::Agent>, Failure> {
    let mut client = AgentClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let mut agents = Vec::new();
    loop {
        let answer = client.list_agents(request.clone()).await;
        let page = answer.map_err(|status| refused("cannot list agents", &status))?.into_inner();
        agents.extend(page.agents);
        if page.next_page_token.is_empty() {
            return Ok(agents);
        }
        request.page_token = page.next_page_token;
    }
}

fn pretty_list(console: &mut Console<'_>, agents: &[types::Agent]) -> Result<(), Failure> {
    let count = agents.len();
    if count == 0 {
        return Ok(writeln!(console.out, "No attested agents found")?);
    }
    writeln!(console.out, "Found {count} attested {}:\n", output::plural(count, "agent", "agents"))?;
    agents.iter().try_for_each(|agent| text::agent(console.out, agent))?;
    Ok(())
}

fn count(args: &ListArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let request = CountAgentsRequest { filter: Some(args.filter.count()?) };
    let answer = block_on(async {
        let mut client = AgentClient::new(dial(&args.socket, console).await?);
        let answer = client.count_agents(request).await;
        Ok(answer.map_err(|status| refused("cannot count agents", &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &answer, |console| {
        let count = usize::try_from(answer.count).unwrap_or_default();
        Ok(writeln!(console.out, "{count} attested {}", output::plural(count, "agent", "agents"))?)
    })
}

fn id(args: &OneArgs) -> Result<(types::Spiffeid, String), Failure> {
    let text = set(&args.spiffe_id).ok_or_else(|| {
        Failure::new("a SPIFFE ID is required").try_this("set -spiffeID; `agent list` shows the IDs")
    })?;
    Ok((input::spiffe_id("spiffeID", text)?, text.to_owned()))
}

fn show(args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let (id, name) = id(args)?;
    let agent = block_on(async {
        let mut client = AgentClient::new(dial(&args.socket, console).await?);
        let answer = client.get_agent(GetAgentRequest { id: Some(id), output_mask: None }).await;
        Ok(answer.map_err(|status| refused(&format!("cannot show agent {name}"), &status))?.into_inner())
    })?;
    output::print(args.output.form, console, &agent, |console| pretty_show(console, &agent))
}

fn pretty_show(console: &mut Console<'_>, agent: &types::Agent) -> Result<(), Failure> {
    writeln!(console.out, "Found an attested agent given its SPIFFE ID\n")?;
    text::agent(console.out, agent)?;
    for selector in &agent.selectors {
        writeln!(console.out, "Selectors         : {}:{}", selector.r#type, selector.value)?;
    }
    Ok(())
}

fn ban(args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let (id, name) = id(args)?;
    block_on(async {
        let mut client = AgentClient::new(dial(&args.socket, console).await?);
        let answer = client.ban_agent(BanAgentRequest { id: Some(id) }).await;
        answer.map(drop).map_err(|status| refused(&format!("cannot ban agent {name}"), &status))
    })?;
    output::print(args.output.form, console, &(), |console| {
        Ok(writeln!(console.out, "Agent banned successfully")?)
    })
}

fn evict(args: &OneArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let (id, name) = id(args)?;
    block_on(async {
        let mut client = AgentClient::new(dial(&args.socket, console).await?);
        let answer = client.delete_agent(DeleteAgentRequest { id: Some(id) }).await;
        answer.map(drop).map_err(|status| refused(&format!("cannot evict agent {name}"), &status))
    })?;
    output::print(args.output.form, console, &(), |console| {
        Ok(writeln!(console.out, "Agent evicted successfully")?)
    })
}

#[cfg(test)]
mod tests;
