//! Authenticate and authorise every call, before any service sees it.
//!
//! A tower layer: it reads the peer the listener verified, finds the caller's classes in the directory, looks the method
//! up in the table, and puts a [`Caller`] into the request. Services take the caller from there and check nothing again.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use spindle_proto::refusal::{Refusal, agent_refusal, refusal};
use spindle_spiffe_core::{Clock, ErrorChain, Reason, SpiffeId};
use spindle_transport::{Peer, VerifiedPeer};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::warn;

use super::authorization::{Class, allowed};
use crate::attestation::promote;
use crate::directory::{AgentRow, CommitError, Directory, View};

/// Who calls, as far as the method's row had to find out.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Over the admin socket.
    Local,
    /// An identity that may administer.
    Admin,
    /// An attested agent in good standing, by the SVID it showed.
    Agent(VerifiedPeer),
    /// Anyone else; the method allows it.
    Stranger,
}

impl Caller {
    /// The agent that calls; the table lets only agents reach methods that ask for it.
    pub(crate) fn agent(&self) -> Result<&VerifiedPeer, Status> {
        match self {
            Caller::Agent(peer) => Ok(peer),
            _ => Err(refusal(Code::PermissionDenied, Reason::MethodNotAllowed, "caller is not an agent")),
        }
    }
}

/// Decides who a peer is and whether it may go on.
pub(crate) struct Gate {
    pub(crate) directory: Directory,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) admin_ids: Vec<SpiffeId>,
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
pub(crate) fn standing(
    row: Option<&AgentRow>,
    peer: &VerifiedPeer,
    now: spindle_spiffe_core::Timestamp,
) -> Standing {
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

impl Gate {
    pub(crate) async fn admit(&self, method: &str, peer: Option<&Peer>) -> Result<Caller, Status> {
        let denied = || {
            refusal(
                Code::PermissionDenied,
                Reason::MethodNotAllowed,
                &format!("authorization denied for method {method}"),
            )
        };
        let Some(classes) = allowed(method) else {
            return Err(Status::unimplemented(format!("method {method} is not served here")));
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
                return self.agent(method, identity).await.map(|()| Caller::Agent(identity.clone()));
            }
        }
        if classes.contains(&Class::Anyone) { Ok(Caller::Stranger) } else { Err(denied()) }
    }

    fn is_admin(&self, view: &View, identity: &VerifiedPeer) -> bool {
        let now = self.clock.now();
        now <= identity.not_after()
            && (self.admin_ids.contains(identity.spiffe_id())
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

/// Wraps every service in the gate.
#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Arc<Gate>);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated { gate: self.0.clone(), inner }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let gate = self.gate.clone();
        // The ready instance answers this call; its clone waits for the next one.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned();
            match gate.admit(request.uri().path(), peer.as_ref()).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(status) => {
                    log_denial(request.uri().path(), peer.as_ref(), &status);
                    Ok(status.into_http())
                }
            }
        })
    }
}

fn log_denial(method: &str, peer: Option<&Peer>, status: &Status) {
    let reason = Refusal::of(status).map_or_else(String::new, |refusal| refusal.code);
    match peer {
        Some(Peer::Local(local)) => {
            warn!(method, caller_uid = local.uid, pid = local.pid, reason, "call refused");
        }
        Some(Peer::Tls { addr, identity }) => {
            let caller_id = identity.as_ref().map(|peer| peer.spiffe_id().to_string()).unwrap_or_default();
            warn!(method, caller_addr = %addr, caller_id, reason, "call refused");
        }
        None => warn!(method, reason, "call refused: the peer is unknown"),
    }
}

/// The caller that the gate put into a request.
pub(crate) fn caller_of<T>(request: &tonic::Request<T>) -> Result<&Caller, Status> {
    request.extensions().get::<Caller>().ok_or_else(|| Status::internal("the call went around the gate"))
}
