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

use super::authorization::{Admitted, Denied, Row, Surroundings, Who, decide};
use crate::attestation::promote;
use crate::directory::{AgentRow, CommitError, Directory, View};
use crate::roles::{Grant, RoleBook};

/// Who calls, as far as the method's row had to find out.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Over the admin socket.
    Local,
    /// An identity that may administer.
    Admin,
    /// Somebody with these roles, which are those that the method asks for.
    Roles(Arc<[Grant]>),
    /// A server below this one.
    Downstream(SpiffeId),
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

    /// The server below that calls; the table lets only those reach methods that ask for it.
    pub(crate) fn downstream(&self) -> Result<&SpiffeId, Status> {
        match self {
            Caller::Downstream(id) => Ok(id),
            _ => {
                let message = "caller is not a downstream workload";
                Err(refusal(Code::PermissionDenied, Reason::MethodNotAllowed, message))
            }
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
        match (standing(row.map(AsRef::as_ref), Some(&self.peer), now), row) {
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
    pub(crate) roles: Arc<RoleBook>,
}

/// Why an agent is refused; each value maps to one SPIRE detail that agents act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// Good, and it used its renewed SVID for the first time.
    Promote,
    Refused(Reason),
}

/// The standing of an agent that shows an SVID, or would show its current one: a pure decision over its row.
pub(crate) fn standing(row: Option<&AgentRow>, shown: Option<&VerifiedPeer>, now: Timestamp) -> Standing {
    let serial = shown.map(|peer| peer.serial().to_string());
    match row {
        _ if shown.is_some_and(|peer| now > peer.not_after()) => Standing::Refused(Reason::AgentExpired),
        None => Standing::Refused(Reason::AgentNotAttested),
        Some(row) if row.banned => Standing::Refused(Reason::AgentBanned),
        Some(row) => match serial {
            None if now > row.expires_at => Standing::Refused(Reason::AgentExpired),
            None => Standing::Good,
            Some(serial) if row.serial == serial => Standing::Good,
            Some(serial) if row.renewed.as_ref().is_some_and(|(renewed, _)| *renewed == serial) => {
                Standing::Promote
            }
            Some(_) => Standing::Refused(Reason::AgentNotActive),
        },
    }
}

/// Who is at the other end of a connection.
pub(crate) fn who(peer: Option<&Peer>) -> Who<'_> {
    match peer {
        Some(Peer::Local(local)) => Who::Local { uid: local.uid, gid: local.gid },
        Some(Peer::Tls { identity: Some(peer), .. }) => Who::Identity(peer.spiffe_id(), Some(peer)),
        // The server speaks no TLS on Unix sockets.
        Some(Peer::Tls { identity: None, .. } | Peer::LocalTls { .. }) | None => Who::Stranger,
    }
}

impl Admission {
    pub(crate) async fn admit(&self, row: &'static Row, peer: Option<&Peer>) -> Result<Caller, Status> {
        let who = who(peer);
        // A conflict means that another call changed the row, as a rule to what this one wants: so it looks again.
        for _ in 0..PROMOTE_TRIES_MAX {
            let view = self.directory.view();
            let at = Surroundings { view: &view, roles: &self.roles, now: self.clock.now() };
            let admitted = decide(row, who, at).map_err(|denied| refused(row.method, denied))?;
            return Ok(match (admitted, who) {
                (Admitted::Agent { renewed: true }, Who::Identity(id, _)) => {
                    self.promote(&view, id).await?;
                    continue;
                }
                (Admitted::Agent { .. }, Who::Identity(_, Some(peer))) => {
                    Caller::Agent(AgentCaller { peer: peer.clone(), method: row.method })
                }
                (Admitted::Downstream, Who::Identity(id, _)) => Caller::Downstream(id.clone()),
                (Admitted::Local, _) => Caller::Local,
                (Admitted::Admin, _) => Caller::Admin,
                (Admitted::Roles(grants), _) => Caller::Roles(grants),
                // Agents always show their SVID here, and only identities are downstream; another would be nobody to the service.
                (Admitted::Anyone | Admitted::Agent { .. } | Admitted::Downstream, _) => Caller::Stranger,
            });
        }
        let message = "the agent is being changed by others";
        Err(refusal(Code::Aborted, Reason::Overloaded, message))
    }

    /// Makes a renewed SVID the agent's current one when it is first used.
    async fn promote(&self, view: &View, id: &SpiffeId) -> Result<(), Status> {
        let Some(row) = view.agent(id) else { return Ok(()) };
        match promote(&self.directory, row).await {
            Ok(()) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(error @ CommitError::Store(_)) => {
                warn!(agent_id = %row.spiffe_id, error = %ErrorChain(&error), "cannot record an agent's renewed SVID");
                let message = "the first use of the renewed SVID could not be stored";
                Err(refusal(Code::Internal, Reason::StoreFailed, message))
            }
        }
    }
}

fn refused(method: &str, denied: Denied) -> Status {
    match denied {
        Denied::Agent(reason) => agent_refusal(method, reason),
        Denied::Class => {
            let message = format!("authorization denied for method {method}");
            refusal(Code::PermissionDenied, Reason::MethodNotAllowed, &message)
        }
    }
}

/// How often the standing of an agent whose row others change is looked at again.
const PROMOTE_TRIES_MAX: usize = 8;

/// The caller that the gate put into a request.
pub(crate) fn caller_of<T>(request: &tonic::Request<T>) -> Result<&Caller, Status> {
    request.extensions().get::<Caller>().ok_or_else(|| Status::internal("the call went around the gate"))
}
