//! Who calls, and whether it may: the classes of the peer that the listener verified, against the row of the method.
//!
//! The gate (`api/gate.rs`) asks, and puts a [`Caller`] into the request. Services take the caller from there; those for
//! agents look the agent up with [`AgentCaller::row`], in the very view they answer from. Start at [`Admission::admit`].

use std::sync::Arc;

use spindle_proto::refusal::{agent_refusal, refusal};
use spindle_spiffe_core::{Clock, ErrorChain, Reason, SpiffeId, Timestamp};
use spindle_transport::{Peer, VerifiedPeer};
use tonic::{Code, Status};
use tracing::warn;

use super::authorization::{Class, Row};
use crate::attestation::promote;
use crate::directory::{AgentRow, CommitError, Directory, View};
use crate::live::LiveSettings;

/// Who calls, as far as the method's row had to find out.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Over the admin socket.
    Local,
    /// An identity that may administer.
    Admin,
    /// An attested agent in good standing.
    Agent(AgentCaller),
    /// Anyone else; the method allows it.
    Stranger,
}

impl Caller {
    /// The agent that calls; the table lets only agents reach methods that ask for it.
    pub(crate) fn agent(&self) -> Result<&AgentCaller, Status> {
        match self {
            Caller::Agent(agent) => Ok(agent),
            _ => Err(refusal(Code::PermissionDenied, Reason::MethodNotAllowed, "caller is not an agent")),
        }
    }
}

/// An agent, by the SVID it showed, and the method it called.
#[derive(Clone, Debug)]
pub(crate) struct AgentCaller {
    pub(crate) peer: VerifiedPeer,
    pub(crate) method: &'static str,
}

impl AgentCaller {
    pub(crate) fn id(&self) -> &SpiffeId {
        self.peer.spiffe_id()
    }

    /// The agent's row in `view`, unless it has lost its standing since the gate let it in.
    pub(crate) fn row<'v>(&self, view: &'v View, now: Timestamp) -> Result<&'v Arc<AgentRow>, Status> {
        self.row_or_reason(view, now).map_err(|reason| self.refused(reason))
    }

    pub(crate) fn row_or_reason<'v>(
        &self,
        view: &'v View,
        now: Timestamp,
    ) -> Result<&'v Arc<AgentRow>, Reason> {
        let row = view.agent(self.id());
        match (standing(row.map(AsRef::as_ref), &self.peer, now), row) {
            (Standing::Refused(reason), _) => Err(reason),
            (Standing::Good | Standing::Promote, Some(row)) => Ok(row),
            (Standing::Good | Standing::Promote, None) => Err(Reason::AgentNotAttested),
        }
    }

    /// The status by which both kinds of agent know what to do next.
    pub(crate) fn refused(&self, reason: Reason) -> Status {
        agent_refusal(self.method, reason)
    }
}

/// Decides who a peer is and whether it may go on.
pub(crate) struct Admission {
    pub(crate) directory: Directory,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) live: LiveSettings,
}

/// Why an agent is refused; each value maps to one SPIRE detail that agents act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// Good, and it used its renewed SVID for the first time.
    Promote,
    Refused(Reason),
}

/// The standing of an agent that shows `peer`: a pure decision over its row.
pub(crate) fn standing(row: Option<&AgentRow>, peer: &VerifiedPeer, now: Timestamp) -> Standing {
    let serial = peer.serial().to_string();
    match row {
        _ if now > peer.not_after() => Standing::Refused(Reason::AgentExpired),
        None => Standing::Refused(Reason::AgentNotAttested),
        Some(row) if row.banned => Standing::Refused(Reason::AgentBanned),
        Some(row) if row.serial == serial => Standing::Good,
        Some(row) if row.renewed.as_ref().is_some_and(|(renewed, _)| *renewed == serial) => Standing::Promote,
        Some(_) => Standing::Refused(Reason::AgentNotActive),
    }
}

impl Admission {
    pub(crate) async fn admit(&self, row: &'static Row, peer: Option<&Peer>) -> Result<Caller, Status> {
        let Row { method, allowed: classes, .. } = *row;
        let denied = || {
            refusal(
                Code::PermissionDenied,
                Reason::MethodNotAllowed,
                &format!("authorization denied for method {method}"),
            )
        };
        let identity = match peer {
            Some(Peer::Local(_)) if classes.contains(&Class::Local) => return Ok(Caller::Local),
            Some(Peer::Tls { identity, .. }) => identity.as_ref(),
            _ => None,
        };
        if let Some(identity) = identity {
            let view = self.directory.view();
            if classes.contains(&Class::Admin) && self.is_admin(&view, identity) {
                return Ok(Caller::Admin);
            }
            if classes.contains(&Class::Agent) {
                self.agent(method, identity).await?;
                return Ok(Caller::Agent(AgentCaller { peer: identity.clone(), method }));
            }
        }
        if classes.contains(&Class::Anyone) { Ok(Caller::Stranger) } else { Err(denied()) }
    }

    fn is_admin(&self, view: &View, identity: &VerifiedPeer) -> bool {
        let now = self.clock.now();
        now <= identity.not_after()
            && (self.live.load().admin_ids.contains(identity.spiffe_id())
                || view
                    .entries_of(identity.spiffe_id())
                    .any(|row| row.entry.admin && !row.entry.is_expired(now)))
    }

    /// Checks the agent's standing and makes a renewed SVID its current one when it is first used.
    async fn agent(&self, method: &str, identity: &VerifiedPeer) -> Result<(), Status> {
        // A conflict means that another call changed the row, as a rule to what this one wants: so it looks again.
        for _ in 0..PROMOTE_TRIES_MAX {
            let view = self.directory.view();
            let row = view.agent(identity.spiffe_id());
            let row = match (standing(row.map(AsRef::as_ref), identity, self.clock.now()), row) {
                (Standing::Good, _) => return Ok(()),
                (Standing::Refused(reason), _) => return Err(agent_refusal(method, reason)),
                (Standing::Promote, None) => return Err(agent_refusal(method, Reason::AgentNotAttested)),
                (Standing::Promote, Some(row)) => row,
            };
            match promote(&self.directory, row).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(error @ CommitError::Store(_)) => {
                    warn!(agent_id = %row.spiffe_id, error = %ErrorChain(&error), "cannot record an agent's renewed SVID");
                    let message = "the first use of the renewed SVID could not be stored";
                    return Err(refusal(Code::Internal, Reason::StoreFailed, message));
                }
            }
        }
        let message = format!("agent {} is being changed by others", identity.spiffe_id());
        Err(refusal(Code::Aborted, Reason::Overloaded, &message))
    }
}

/// How often the standing of an agent whose row others change is looked at again.
const PROMOTE_TRIES_MAX: usize = 8;

/// The caller that the gate put into a request.
pub(crate) fn caller_of<T>(request: &tonic::Request<T>) -> Result<&Caller, Status> {
    request.extensions().get::<Caller>().ok_or_else(|| Status::internal("the call went around the gate"))
}
