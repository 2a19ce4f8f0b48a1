//! The Roles service: giving, taking and showing roles, and the answer to "may I".

use std::collections::BTreeMap;
use std::sync::Arc;

use spindle_proto::admin::v1 as wire;
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::{Reason, SpiffeId};
use spindle_transport::Peer;
use tonic::{Code, Request, Response, Status};
use tracing::info;

use super::caller::caller_of;
use super::can;
use super::entry_access::EntryAccess;
use super::filter::bad_request;
use crate::context::Context;
use crate::roles::{self, Grant, GrantFault, Role, RoleSubject, grant_from_wire, grant_to_wire};

pub(crate) struct RolesService {
    pub(crate) context: Arc<Context>,
}

fn holder(subject: String, grants: &[Grant], configured: bool) -> wire::Holder {
    wire::Holder { subject, grants: grants.iter().map(grant_to_wire).collect(), configured }
}

/// A SPIFFE ID of a message.
pub(super) fn identity(text: &str) -> Result<SpiffeId, Status> {
    text.parse().map_err(|error| bad_request(&format!("invalid SPIFFE ID {text:?}: {error}")))
}

fn fault_status(fault: &GrantFault) -> Status {
    let code = match fault {
        GrantFault::TooMany(_) => Code::InvalidArgument,
        GrantFault::NotFound { .. } => Code::NotFound,
        GrantFault::Contended(_) => Code::Aborted,
        GrantFault::Store(_) => Code::Internal,
    };
    refusal(code, fault.reason(), &fault.to_string())
}

#[tonic::async_trait]
impl wire::roles_server::Roles for RolesService {
    async fn list_roles(
        &self,
        request: Request<wire::ListRolesRequest>,
    ) -> Result<Response<wire::ListRolesResponse>, Status> {
        let caller = caller_of(&request)?.clone();
        let access = EntryAccess::of(&caller, &self.context)?;
        let view = self.context.directory.view();
        let is_shown = |subject: &RoleSubject| match subject {
            RoleSubject::Identity(id) => access.sees_id(&view, id),
            RoleSubject::Uid(_) | RoleSubject::Gid(_) => true,
        };
        let mut configured: BTreeMap<String, Vec<Grant>> = BTreeMap::new();
        for assignment in self.context.roles.assignments().iter().filter(|one| is_shown(&one.subject)) {
            configured.entry(assignment.subject.to_string()).or_default().push(assignment.grant.clone());
        }
        let configured = configured.into_iter().map(|(subject, grants)| holder(subject, &grants, true));
        let stored = view.role_holders().filter(|one| access.sees_id(&view, &one.spiffe_id));
        let stored = stored.map(|one| holder(one.spiffe_id.to_string(), &one.grants, false));
        Ok(Response::new(wire::ListRolesResponse { holders: configured.chain(stored).collect() }))
    }

    async fn grant_role(
        &self,
        request: Request<wire::GrantRoleRequest>,
    ) -> Result<Response<wire::GrantRoleResponse>, Status> {
        let request = request.into_inner();
        let id = identity(&request.spiffe_id)?;
        let grant = request.grant.ok_or_else(|| bad_request("missing grant"))?;
        let grant = grant_from_wire(&grant).map_err(|error| bad_request(&format!("bad grant: {error}")))?;
        let role = grant.role();
        let grants = roles::grant(&self.context.directory, &id, grant).await;
        let grants = grants.map_err(|fault| fault_status(&fault))?;
        info!(spiffe_id = %id, role = role.as_str(), "role given");
        let holder = Some(holder(id.to_string(), &grants, false));
        Ok(Response::new(wire::GrantRoleResponse { holder }))
    }

    async fn revoke_role(
        &self,
        request: Request<wire::RevokeRoleRequest>,
    ) -> Result<Response<wire::RevokeRoleResponse>, Status> {
        let request = request.into_inner();
        let id = identity(&request.spiffe_id)?;
        let role = match request.role.as_str() {
            "" => None,
            text => Some(text.parse::<Role>().map_err(|error| bad_request(&error.to_string()))?),
        };
        let grants = roles::revoke(&self.context.directory, &id, role).await.map_err(|fault| {
            let configured = RoleSubject::Identity(id.clone());
            let is_configured = self.context.roles.assignments().iter().any(|one| one.subject == configured);
            match fault {
                GrantFault::NotFound { .. } if is_configured => {
                    let message =
                        format!("{fault}: the roles that the configuration gives it are changed there");
                    refusal(Code::FailedPrecondition, Reason::RoleNotFound, &message)
                }
                fault => fault_status(&fault),
            }
        })?;
        info!(spiffe_id = %id, role = role.map_or("any", Role::as_str), "role taken");
        let holder = Some(holder(id.to_string(), &grants, false));
        Ok(Response::new(wire::RevokeRoleResponse { holder }))
    }

    async fn can(&self, request: Request<wire::CanRequest>) -> Result<Response<wire::CanResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        can::answer(&self.context, peer.as_ref(), &request.into_inner()).map(Response::new)
    }
}
