//! One caller's stream: attested when it opens, looked at again before each later message, woken only by its own view.

use std::sync::Arc;

use bytes::Bytes;
use spindle_attest::AttestedCaller;
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::Reason;
use spindle_transport::LocalPeer;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::Shared;
use super::decide::{Decision, Method, decide};
use super::refusals::Kind;
use crate::cache::{View, near_misses};
use crate::callers::{CallerFault, Look};

const STARTING: &str = "the agent has not reached its server yet";

/// Near misses named in one log line.
const NEAR_MISSES_MAX: usize = 3;

/// An attested caller and the view it is entitled to.
pub(super) struct Session {
    shared: Arc<Shared>,
    method: Method,
    peer: LocalPeer,
    caller: Arc<AttestedCaller>,
    view: watch::Receiver<View>,
    synced: watch::Receiver<bool>,
    sent: Option<Bytes>,
    /// Nothing was waited for since the caller was attested, so there is no need to look again.
    is_fresh: bool,
}

impl Session {
    /// Attests the caller. Before the first sync nobody is: the answer would be a guess.
    pub(super) async fn open(shared: Arc<Shared>, method: Method, peer: LocalPeer) -> Result<Self, Status> {
        let synced = shared.cache.synced();
        if !*synced.borrow() {
            return Err(shared.refuse(&peer, Code::Unavailable, Reason::AgentStarting, STARTING));
        }
        let caller = match shared.callers.attest(&peer).await {
            Ok(caller) => caller,
            Err(fault) => return Err(refuse_fault(&shared, &peer, &fault)),
        };
        let view = shared.cache.subscribe(caller.selectors());
        Ok(Self { shared, method, peer, caller, view, synced, sent: None, is_fresh: true })
    }

    /// The next message, when there is one that differs from the last.
    ///
    /// # Errors
    /// The status that ends the stream.
    pub(super) async fn next(&mut self) -> Result<Bytes, Status> {
        let shutdown = self.shared.shutdown.clone();
        // Cancel-safe: a message is kept as sent only when it is returned.
        tokio::select! {
            biased;
            () = shutdown.begun() => Err(stopping()),
            next = self.wait() => next,
        }
    }

    async fn wait(&mut self) -> Result<Bytes, Status> {
        let mut waiting_since = Instant::now();
        loop {
            let (decision, message) = self.decide(waiting_since);
            match decision {
                Decision::Refuse(reason) => return Err(self.refuse(reason)),
                Decision::WaitUpTo(limit) => {
                    self.is_fresh = false;
                    // Late or changed: the next decision tells which.
                    if let Ok(Err(_)) = timeout_at(waiting_since + limit, self.view.changed()).await {
                        return Err(stopping());
                    }
                }
                Decision::Send if self.sent.as_ref() == Some(&message) => {
                    self.is_fresh = false;
                    self.view.changed().await.map_err(|_| stopping())?;
                    waiting_since = Instant::now();
                }
                Decision::Send => {
                    if self.is_still_entitled().await? {
                        self.is_fresh = false;
                        self.sent = Some(message.clone());
                        return Ok(message);
                    }
                }
            }
        }
    }

    /// Decision and message are made from one and the same view.
    fn decide(&mut self, waiting_since: Instant) -> (Decision, Bytes) {
        let is_synced = *self.synced.borrow();
        let allow = self.shared.allow_unauthenticated_verifiers;
        let view = self.view.borrow_and_update();
        let waited = waiting_since.elapsed();
        let decision = decide(&view, self.method, is_synced, self.sent.is_none(), waited, allow);
        let message = match (decision, self.method) {
            (Decision::Send, Method::X509Svids) => view.content.x509_svids(),
            (Decision::Send, Method::X509Bundles) => view.content.x509_bundles(),
            _ => Bytes::new(),
        };
        (decision, message)
    }

    /// Whether the caller is what it was, and its view too. Otherwise there is a new decision to make; a caller that has
    /// changed gets the view of what it shows now.
    async fn is_still_entitled(&mut self) -> Result<bool, Status> {
        if self.is_fresh {
            return Ok(true);
        }
        match self.shared.callers.look_again(&self.peer, &self.caller).await {
            Ok(Look::Same) => Ok(!self.view.has_changed().unwrap_or(false)),
            Ok(Look::Changed(caller)) => {
                self.view = self.shared.cache.subscribe(caller.selectors());
                self.caller = caller;
                self.is_fresh = true;
                Ok(false)
            }
            Err(fault) => Err(refuse_fault(&self.shared, &self.peer, &fault)),
        }
    }

    /// Tells the caller no more than it must know, and the operator what is needed to put it right.
    fn refuse(&self, reason: Reason) -> Status {
        let caller = self.caller.caller();
        let path = caller.path_for_log();
        let kind = Kind { uid: caller.uid(), path: path.clone(), reason };
        if let Some(line) = self.shared.refusals.count(&kind, || self.detail(reason)) {
            warn!(
                pid = caller.pid(),
                caller_uid = caller.uid(),
                caller_gid = caller.gid(),
                caller_path = path.as_deref().unwrap_or(""),
                reason = reason.code(),
                count = line.count,
                remedy = reason.remedy(),
                detail = line.detail,
                "no identity issued"
            );
        }
        // Selectors can carry what a workload was started with, so they are told only to who asks for detail.
        debug!(pid = caller.pid(), selectors = ?self.caller.selectors(), reason = reason.code(), "caller refused");
        status_of(reason)
    }

    /// The nearest entries, or why those that match have no SVID.
    fn detail(&self, reason: Reason) -> String {
        if reason == Reason::NoMatchingEntry {
            let snapshot = self.shared.cache.snapshot();
            let entries = snapshot.identities().map(|identity| identity.entry.as_ref());
            let near = near_misses(entries, self.caller.selectors(), NEAR_MISSES_MAX);
            let near: Vec<String> = near.iter().map(ToString::to_string).collect();
            return near.join("; ");
        }
        let view = self.view.borrow();
        let unready: Vec<String> =
            view.unready.iter().map(|(id, spiffe_id, why)| format!("{id} ({spiffe_id}): {why}")).collect();
        unready.join("; ")
    }
}

fn refuse_fault(shared: &Shared, peer: &LocalPeer, fault: &CallerFault) -> Status {
    let reason = fault.reason();
    let kind = Kind { uid: peer.uid, path: None, reason };
    if let Some(line) = shared.refusals.count(&kind, || fault.to_string()) {
        warn!(
            pid = peer.pid,
            caller_uid = peer.uid,
            caller_gid = peer.gid,
            reason = reason.code(),
            count = line.count,
            remedy = reason.remedy(),
            error = line.detail,
            "workload attestation failed"
        );
    }
    status_of(reason)
}

pub(super) fn stopping() -> Status {
    refusal(Code::Unavailable, Reason::AgentStopping, "the agent is stopping")
}

/// The standard's status for a refusal. It says nothing of any entry.
fn status_of(reason: Reason) -> Status {
    let (code, message) = match reason {
        Reason::NoMatchingEntry => (Code::PermissionDenied, "no identity issued"),
        Reason::AgentStarting => (Code::Unavailable, STARTING),
        Reason::SvidNotReady => (Code::Unavailable, "the identity is not ready yet"),
        _ => (Code::Unavailable, "workload attestation failed"),
    };
    refusal(code, reason, message)
}
