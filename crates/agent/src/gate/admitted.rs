//! An attested caller with its live view, for as long as its call is open.

use std::sync::Arc;

use spindle_attest::AttestedCaller;
use spindle_proto::refusal::come_back_to_busy;
use spindle_runtime::Shutdown;
use spindle_spiffe_core::{Reason, Selectors};
use spindle_transport::{LocalPeer, is_ourselves};
use tokio::sync::watch;
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::log_selectors::loggable;
use super::refusals::Kind;
use super::{Gate, Limited, status_of, stopping};
use crate::cache::{View, near_misses};
use crate::callers::Look;

/// Near misses named in one log line.
const NEAR_MISSES_MAX: usize = 3;

/// An attested caller and the view it is entitled to.
pub(crate) struct Admitted {
    gate: Arc<Gate>,
    peer: LocalPeer,
    caller: Arc<AttestedCaller>,
    view: watch::Receiver<View>,
    /// Nothing was waited for since the caller was attested, so there is no need to look again.
    is_fresh: bool,
}

impl Admitted {
    pub(super) fn new(gate: Arc<Gate>, peer: LocalPeer, caller: Arc<AttestedCaller>) -> Self {
        let view = gate.cache.subscribe(caller.selectors());
        Self { gate, peer, caller, view, is_fresh: true }
    }

    /// Counts the call of `method`, or the opening of a stream, against the limit of those who show the same selectors. The
    /// agent's own process has none: a health check must not fail for it.
    ///
    /// # Errors
    /// When there were too many of late; the status says when to come back.
    pub(crate) fn within_limit(self, method: Limited) -> Result<Self, Status> {
        if is_ourselves(self.peer.pid) {
            return Ok(self);
        }
        let now = self.gate.epoch.elapsed();
        if let Err(after) = self.gate.rates.take(method, self.selectors(), now) {
            self.gate.metrics().rate_limited(method.path());
            let message = format!("rate limit exceeded for {}", method.path());
            self.tell_of(Reason::Overloaded, "a call was refused", || message.clone());
            return Err(come_back_to_busy(&message, after));
        }
        Ok(self)
    }

    /// What the caller shows.
    pub(crate) fn selectors(&self) -> &Selectors {
        self.caller.selectors()
    }

    /// Whether the agent has reached its server.
    pub(crate) fn is_synced(&self) -> bool {
        self.gate.cache.is_synced()
    }

    /// The view of this moment. A later [`Self::changed`] waits for another one.
    pub(crate) fn view(&mut self) -> watch::Ref<'_, View> {
        self.view.borrow_and_update()
    }

    /// Waits for a view that [`Self::view`] has not shown yet. Cancel-safe.
    ///
    /// # Errors
    /// When the agent stops.
    pub(crate) async fn changed(&mut self) -> Result<(), Status> {
        self.is_fresh = false;
        self.view.changed().await.map_err(|_| stopping())
    }

    /// Notes that time has passed since the caller was looked at: it is looked at again before the next message.
    pub(crate) fn note_wait(&mut self) {
        self.is_fresh = false;
    }

    /// Whether the caller is what it was, and its view too. Otherwise there is a new decision to make; a caller that has
    /// changed gets the view of what it shows now.
    ///
    /// # Errors
    /// When the caller is gone or cannot be attested any more.
    pub(crate) async fn is_still_entitled(&mut self) -> Result<bool, Status> {
        if self.is_fresh {
            return Ok(true);
        }
        Ok(self.is_same().await? && !self.view.has_changed().unwrap_or(false))
    }

    /// Whether the caller is what it was; one that has changed gets the view of what it shows now.
    ///
    /// # Errors
    /// As [`Self::is_still_entitled`].
    pub(crate) async fn is_same(&mut self) -> Result<bool, Status> {
        if self.is_fresh {
            return Ok(true);
        }
        match self.gate.callers.look_again(&self.peer, &self.caller).await {
            Ok(Look::Same) => Ok(true),
            Ok(Look::Changed(caller)) => {
                self.view = self.gate.cache.subscribe(caller.selectors());
                self.caller = caller;
                self.is_fresh = true;
                Ok(false)
            }
            Err(fault) => Err(self.gate.refuse_fault(&self.peer, &fault)),
        }
    }

    /// The end that open calls must not outlast.
    pub(crate) fn shutdown(&self) -> Shutdown {
        self.gate.shutdown.clone()
    }

    /// Tells the caller no more than it must know, and the operator what is needed to put it right.
    pub(crate) fn refuse(&self, reason: Reason) -> Status {
        self.tell(reason);
        status_of(reason)
    }

    /// Tells the operator that the caller does not get what it asks for, and what is needed to put it right.
    pub(crate) fn tell(&self, reason: Reason) {
        self.tell_with(reason, || self.detail(reason));
    }

    /// As [`Self::tell`], with what there is to know; that is asked for only if it is logged.
    pub(crate) fn tell_with(&self, reason: Reason, detail: impl FnOnce() -> String) {
        self.tell_of(reason, "no identity issued", detail);
    }

    /// As [`Self::tell_with`], about `what` other than an identity.
    pub(crate) fn tell_of(&self, reason: Reason, what: &'static str, detail: impl FnOnce() -> String) {
        let caller = self.caller.caller();
        let path = caller.path_for_log();
        let kind = Kind { uid: caller.uid(), path: path.clone(), reason };
        if let Some(line) = self.gate.count(&self.peer, &kind, detail) {
            warn!(
                pid = caller.pid(),
                caller_uid = caller.uid(),
                caller_gid = caller.gid(),
                caller_path = path.as_deref().unwrap_or(""),
                reason = reason.code(),
                count = line.count,
                remedy = reason.remedy(),
                detail = line.detail,
                selectors = loggable(self.caller.selectors(), &self.gate.log_selectors),
                "{what}"
            );
        }
        // Selectors can carry what a workload was started with, so they are told only to who asks for detail.
        debug!(pid = caller.pid(), selectors = ?self.caller.selectors(), reason = reason.code(), "caller refused");
    }

    /// Refuses something that has nothing to do with what the caller may have.
    pub(crate) fn refuse_call(&self, code: Code, reason: Reason, message: &str) -> Status {
        self.gate.refuse(&self.peer, code, reason, message)
    }

    /// Whether an entry is for this caller, signed or not.
    pub(crate) fn has_entry(&self) -> bool {
        let view = self.view.borrow();
        !view.content.identities.is_empty() || !view.unready.is_empty()
    }

    /// The nearest entries, or why those that match have no SVID.
    fn detail(&self, reason: Reason) -> String {
        if reason == Reason::NoMatchingEntry {
            let snapshot = self.gate.cache.snapshot();
            let entries = snapshot.identities().map(|identity| identity.entry.as_ref());
            let near = near_misses(entries, self.caller.selectors(), NEAR_MISSES_MAX);
            let near: Vec<String> = near.iter().map(ToString::to_string).collect();
            return near.join("; ");
        }
        let view = self.view.borrow();
        if reason == Reason::NotADelegate {
            let ids: Vec<&str> =
                view.content.identities.iter().map(|one| one.entry.spiffe_id.as_str()).collect();
            return ids.join("; ");
        }
        let unready: Vec<String> =
            view.unready.iter().map(|(id, spiffe_id, why)| format!("{id} ({spiffe_id}): {why}")).collect();
        unready.join("; ")
    }
}
