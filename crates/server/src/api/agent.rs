//! The Agent service: attestation for nodes, and the list of agents for operators.

mod attest;

use std::sync::Arc;

use spindle_proto::convert::{selectors_to_proto, spiffe_id_from_proto, spiffe_id_to_proto};
use spindle_proto::refusal::{agent_refusal, refusal};
use spindle_proto::spire::api::server::agent::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::entry::check_workload_id;
use spindle_spiffe_core::{Reason, SpiffeId};
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{error, info};

use super::caller::caller_of;
use super::entry_access::EntryAccess;
use super::filter::{SelectorFilter, bad_page_token, bad_request, page_size};
use super::refused::RefusalLog;
use super::svid::svid_to_proto;
use crate::attestation::{self, AttestFault, NewToken};
use crate::context::Context;
use crate::directory::{AgentRow, View};
use crate::entries::reason_of;
use crate::rate_limit::source_of;

/// The longest version an agent may report, in bytes.
const AGENT_VERSION_BYTES_MAX: usize = 255;

pub(crate) struct AgentService {
    context: Arc<Context>,
    /// Of streams that end with one; those that begin with one are the gate's.
    refusals: Arc<RefusalLog>,
}

impl AgentService {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, refusals: Arc::new(RefusalLog::new()) }
    }
}

/// A list or count filter, checked.
#[derive(Default)]
struct Filter {
    attestation_type: Option<String>,
    selectors: Option<SelectorFilter>,
    banned: Option<bool>,
    can_reattest: Option<bool>,
    expires_before_secs: Option<i64>,
}

impl Filter {
    fn passes(&self, agent: &AgentRow) -> bool {
        self.attestation_type.as_ref().is_none_or(|kind| agent.attestation_type == *kind)
            && self.selectors.as_ref().is_none_or(|filter| filter.passes(&agent.selectors))
            && self.banned.is_none_or(|banned| agent.banned == banned)
            && self.can_reattest.is_none_or(|can| agent.can_reattest == can)
            && self.expires_before_secs.is_none_or(|end| agent.expires_at.unix_secs() < end)
    }
}

impl TryFrom<wire::list_agents_request::Filter> for Filter {
    type Error = Status;

    fn try_from(wire: wire::list_agents_request::Filter) -> Result<Self, Status> {
        Ok(Self {
            attestation_type: Some(wire.by_attestation_type).filter(|kind| !kind.is_empty()),
            selectors: wire.by_selector_match.as_ref().map(SelectorFilter::from_wire).transpose()?,
            banned: wire.by_banned,
            can_reattest: wire.by_can_reattest,
            expires_before_secs: expires_before(&wire.by_expires_before),
        })
    }
}

impl TryFrom<wire::count_agents_request::Filter> for Filter {
    type Error = Status;

    fn try_from(wire: wire::count_agents_request::Filter) -> Result<Self, Status> {
        Ok(Self {
            attestation_type: Some(wire.by_attestation_type).filter(|kind| !kind.is_empty()),
            selectors: wire.by_selector_match.as_ref().map(SelectorFilter::from_wire).transpose()?,
            banned: wire.by_banned,
            can_reattest: wire.by_can_reattest,
            expires_before_secs: expires_before(&wire.by_expires_before),
        })
    }
}

/// `2006-01-02 15:04:05 -0700 -07` in Go's notation; anything else is ignored, as SPIRE does.
fn expires_before(text: &str) -> Option<i64> {
    use time::macros::format_description;
    let layout = format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]"
    );
    let (without_zone, _zone) = text.rsplit_once(' ')?;
    time::OffsetDateTime::parse(without_zone, layout).ok().map(time::OffsetDateTime::unix_timestamp)
}

/// The agent after which a page starts, from its token: the ID of the last agent listed, which stays right when agents
/// come and go between two pages. None for the first page.
fn page_start(token: &str) -> Result<Option<SpiffeId>, Status> {
    match token {
        "" => Ok(None),
        id => id.parse().map(Some).map_err(|_| bad_page_token(token)),
    }
}

fn agent_to_proto(agent: &AgentRow, mask: Option<&types::AgentMask>) -> types::Agent {
    let keep = |wanted: fn(&types::AgentMask) -> bool| mask.is_none_or(wanted);
    let mut wire = types::Agent { id: Some(spiffe_id_to_proto(&agent.spiffe_id)), ..Default::default() };
    if keep(|m| m.attestation_type) {
        wire.attestation_type = agent.attestation_type.clone();
    }
    if keep(|m| m.x509svid_serial_number) {
        wire.x509svid_serial_number = agent.serial.clone();
    }
    if keep(|m| m.x509svid_expires_at) {
        wire.x509svid_expires_at = agent.expires_at.unix_secs();
    }
    if keep(|m| m.selectors) {
        wire.selectors = selectors_to_proto(&agent.selectors);
    }
    if keep(|m| m.banned) {
        wire.banned = agent.banned;
    }
    if keep(|m| m.can_reattest) {
        wire.can_reattest = agent.can_reattest;
    }
    if keep(|m| m.agent_version) {
        wire.agent_version = agent.agent_version.clone();
    }
    wire
}

/// The status of a refused attestation: only what the caller needs, with SPIRE's words.
fn fault_status(fault: &AttestFault, what: &str) -> Status {
    let (code, message) = match fault {
        AttestFault::TokenUnknown => (Code::InvalidArgument, format!("{what}: {fault}")),
        AttestFault::TokenExpired => (Code::InvalidArgument, fault.to_string()),
        AttestFault::TokenMalformed(_) | AttestFault::Entry(_) => {
            (Code::InvalidArgument, format!("{what}: {fault}"))
        }
        AttestFault::TokenTaken => (Code::AlreadyExists, format!("{what}: {fault}")),
        AttestFault::Banned | AttestFault::NotActive | AttestFault::MustReattest => {
            (Code::PermissionDenied, format!("{what}: {fault}"))
        }
        AttestFault::Role(_) => (Code::PermissionDenied, format!("{what}: {fault}")),
        AttestFault::NotFound => (Code::NotFound, "agent not found".into()),
        AttestFault::X509Pop(node) => (code_of_node(node.reason()), fault.to_string()),
        AttestFault::Stopping => (Code::Unavailable, fault.to_string()),
        AttestFault::Issue(error) => return error.status(&format!("{what}: {error}")),
        AttestFault::Store(_) => {
            // The cause names our disk, which is no business of a node's.
            error!(reason = fault.reason().code(), error = %fault, consequence = what, "the store failed");
            (Code::Internal, format!("{what}: the change could not be stored"))
        }
    };
    refusal(code, fault.reason(), &message)
}

/// What a node should have known from what should have been known of it: agents give up at once after the latter.
fn code_of_node(reason: Reason) -> Code {
    match reason {
        Reason::NodeNotTrusted | Reason::NodeProofFailed | Reason::NodeAddressMismatch => {
            Code::PermissionDenied
        }
        _ => Code::InvalidArgument,
    }
}

/// The status of a call that an agent makes for itself: what is wrong with its row is for it to act upon.
fn own_fault_status(fault: &AttestFault, method: &str, what: &str) -> Status {
    match fault {
        AttestFault::Banned => agent_refusal(method, Reason::AgentBanned),
        AttestFault::NotFound => agent_refusal(method, Reason::AgentNotAttested),
        AttestFault::NotActive => agent_refusal(method, Reason::AgentNotActive),
        AttestFault::MustReattest => agent_refusal(method, Reason::AgentMustReattest),
        _ => fault_status(fault, what),
    }
}

/// A token that is made again under the name of an earlier one stands in the ID of that one's agent.
fn is_shown(access: &EntryAccess<'_>, view: &View, agent: &AgentRow) -> bool {
    access.sees_id(view, &agent.spiffe_id)
}

impl AgentService {
    fn agent_id(&self, wire: Option<types::Spiffeid>) -> Result<SpiffeId, Status> {
        let wire = wire.ok_or_else(|| bad_request("missing agent ID"))?;
        let id = spiffe_id_from_proto(&wire)
            .map_err(|error| bad_request(&format!("invalid agent ID: {error}")))?;
        if !id.is_member_of(&self.context.trust_domain) {
            let message = format!(
                "invalid agent ID: {id} is not a member of trust domain {:?}",
                self.context.trust_domain
            );
            return Err(refusal(Code::InvalidArgument, Reason::WrongTrustDomain, &message));
        }
        if !id.is_agent() {
            return Err(bad_request(&format!("invalid agent ID: {id} is not below /spire/agent/")));
        }
        Ok(id)
    }
}

#[tonic::async_trait]
impl wire::agent_server::Agent for AgentService {
    async fn count_agents(
        &self,
        request: Request<wire::CountAgentsRequest>,
    ) -> Result<Response<wire::CountAgentsResponse>, Status> {
        let caller = caller_of(&request)?.clone();
        let access = EntryAccess::of(&caller, &self.context)?;
        let view = self.context.directory.view();
        let count = match request.into_inner().filter {
            None if access.is_everything() => view.agent_count(),
            filter => {
                let filter = filter.map(Filter::try_from).transpose()?.unwrap_or_default();
                let passing =
                    |agent: &&Arc<AgentRow>| filter.passes(agent) && is_shown(&access, &view, agent);
                view.agents().filter(passing).count()
            }
        };
        Ok(Response::new(wire::CountAgentsResponse { count: i32::try_from(count).unwrap_or(i32::MAX) }))
    }

    async fn list_agents(
        &self,
        request: Request<wire::ListAgentsRequest>,
    ) -> Result<Response<wire::ListAgentsResponse>, Status> {
        let caller = caller_of(&request)?.clone();
        let access = EntryAccess::of(&caller, &self.context)?;
        let request = request.into_inner();
        let filter = request.filter.map(Filter::try_from).transpose()?.unwrap_or_default();
        let view = self.context.directory.view();
        let passing = |agent: &&Arc<AgentRow>| filter.passes(agent) && is_shown(&access, &view, agent);
        let size = page_size(request.page_size);
        let agents: Vec<_> = match size {
            None => view.agents().filter(passing).collect(),
            Some(size) => match page_start(&request.page_token)? {
                None => view.agents().filter(passing).take(size).collect(),
                Some(last) => view.agents_after(&last).filter(passing).take(size).collect(),
            },
        };
        // A page with agents always has a token, so that the last one is empty: clients rely on it.
        let next_page_token = match (size, agents.last()) {
            (Some(_), Some(last)) => last.spiffe_id.to_string(),
            _ => String::new(),
        };
        let mask = request.output_mask;
        let agents = agents.iter().map(|agent| agent_to_proto(agent, mask.as_ref())).collect();
        Ok(Response::new(wire::ListAgentsResponse { agents, next_page_token }))
    }

    async fn get_agent(
        &self,
        request: Request<wire::GetAgentRequest>,
    ) -> Result<Response<types::Agent>, Status> {
        let request = request.into_inner();
        let id = self.agent_id(request.id)?;
        let view = self.context.directory.view();
        match view.agent(&id) {
            Some(agent) => Ok(Response::new(agent_to_proto(agent, request.output_mask.as_ref()))),
            None => Err(refusal(Code::NotFound, Reason::AgentNotFound, "agent not found")),
        }
    }

    async fn delete_agent(&self, request: Request<wire::DeleteAgentRequest>) -> Result<Response<()>, Status> {
        let id = self.agent_id(request.into_inner().id)?;
        let evicted = attestation::evict(&self.context, &id).await;
        evicted.map(Response::new).map_err(|fault| fault_status(&fault, "failed to remove agent"))
    }

    async fn ban_agent(&self, request: Request<wire::BanAgentRequest>) -> Result<Response<()>, Status> {
        let id = self.agent_id(request.into_inner().id)?;
        match attestation::ban(&self.context, &id).await {
            // Banning twice is what the caller wanted.
            Ok(()) | Err(AttestFault::Banned) => Ok(Response::new(())),
            Err(fault) => Err(fault_status(&fault, "failed to ban agent")),
        }
    }

    type AttestAgentStream = attest::Answers;

    async fn attest_agent(
        &self,
        request: Request<Streaming<wire::AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        self.context.rate_limits.attestation(source_of(&request)).await?;
        attest::attest(&self.context, &self.refusals, request).await
    }

    async fn renew_agent(
        &self,
        request: Request<wire::RenewAgentRequest>,
    ) -> Result<Response<wire::RenewAgentResponse>, Status> {
        self.context.rate_limits.signing(source_of(&request), 1).await?;
        let caller = caller_of(&request)?.agent()?.clone();
        let params = request.into_inner().params.ok_or_else(|| bad_request("params cannot be nil"))?;
        if params.csr.is_empty() {
            return Err(bad_request("missing CSR"));
        }
        let serial = caller.peer.serial().to_string();
        let issued = attestation::renew(&self.context, caller.id(), &serial, params.csr.to_vec())
            .await
            .map_err(|fault| own_fault_status(&fault, caller.method, "failed to renew agent"))?;
        info!(agent_id = %caller.id(), serial_num = issued.serial, expires_at = %issued.validity.not_after, "agent renewed");
        Ok(Response::new(wire::RenewAgentResponse { svid: Some(svid_to_proto(&issued, "")) }))
    }

    async fn post_status(
        &self,
        request: Request<wire::PostStatusRequest>,
    ) -> Result<Response<wire::PostStatusResponse>, Status> {
        self.context.rate_limits.status(source_of(&request)).await?;
        let caller = caller_of(&request)?.agent()?.clone();
        let version = request.into_inner().agent_version;
        if version.len() > AGENT_VERSION_BYTES_MAX {
            return Err(bad_request(&format!(
                "the agent version has at most {AGENT_VERSION_BYTES_MAX} bytes"
            )));
        }
        if !version.is_empty() {
            attestation::post_version(&self.context, caller.id(), &version).await.map_err(|fault| {
                own_fault_status(&fault, caller.method, "failed to record the agent's version")
            })?;
        }
        Ok(Response::new(wire::PostStatusResponse {}))
    }

    async fn create_join_token(
        &self,
        request: Request<wire::CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        let caller = caller_of(&request)?.clone();
        let access = EntryAccess::of(&caller, &self.context)?;
        let request = request.into_inner();
        if !request.token.is_empty() && !access.is_everything() {
            // It names the agent, and the name may be one that entries or other roles were given to.
            let message = "the caller's role may not choose the join token";
            return Err(refusal(Code::PermissionDenied, Reason::RoleToken, message));
        }
        if request.ttl < 1 {
            return Err(bad_request("ttl is required, you must provide one"));
        }
        let workload_id = match request.agent_id {
            Some(wire) => {
                let id = spiffe_id_from_proto(&wire)
                    .map_err(|error| bad_request(&format!("invalid agent ID: {error}")))?;
                check_workload_id(&id, &self.context.trust_domain).map_err(|error| {
                    refusal(Code::InvalidArgument, reason_of(&error), &format!("invalid agent ID: {error}"))
                })?;
                Some(id)
            }
            None => None,
        };
        let (ttl_secs, permit) = (i64::from(request.ttl), access.permit());
        let made =
            attestation::create_join_token(&self.context, request.token, ttl_secs, workload_id, &permit)
                .await;
        let NewToken { token, expires_at } =
            made.map_err(|fault| fault_status(&fault, "failed to create token"))?;
        info!(expires_at = %expires_at, "join token created");
        Ok(Response::new(types::JoinToken { value: token, expires_at: expires_at.unix_secs() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_filter_reads_spires_layout() {
        assert_eq!(expires_before("2026-11-24 04:15:33 +0000 +00"), Some(1_795_493_733));
        assert_eq!(expires_before("2026-11-24 06:15:33 +0200 +02"), Some(1_795_493_733));
    }

    #[test]
    fn what_is_wrong_with_an_agents_own_row_is_told_by_the_detail_it_acts_on() {
        use types::permission_denied_details::Reason as Standing;
        for (fault, standing) in [
            (AttestFault::Banned, Standing::AgentBanned),
            (AttestFault::NotFound, Standing::AgentNotAttested),
            (AttestFault::NotActive, Standing::AgentNotActive),
            (AttestFault::MustReattest, Standing::AgentMustReattest),
        ] {
            let status = own_fault_status(&fault, "/a/b", "failed to renew agent");
            assert_eq!(spindle_proto::refusal::permission_denied_details_of(&status), Some(standing));
            assert!(status.message().ends_with("method /a/b"), "{status:?}");
        }
    }

    #[test]
    fn an_expiry_filter_in_another_layout_is_off() {
        assert_eq!(expires_before("tomorrow"), None);
    }
}
