//! One stream for one workload: the full set of what it has, at once and again whenever that changes, until it ends.
//!
//! Before each message the broker and the workload are looked at again. Start at [`Subscription::new`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spindle_spiffe_core::Reason;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tracing::debug;

use super::Parts;
use super::caller::Broker;
use super::decide::{Decision, Kind, decide, is_given, message};
use super::refused;
use super::subject::Subject;
use crate::cache::View;
use crate::frames::Messages;
use crate::gate::{status_of, stopping};

/// The messages of one stream.
pub(super) struct Subscription {
    parts: Arc<Parts>,
    broker: Broker,
    subject: Subject,
    kind: Kind,
    view: watch::Receiver<View>,
    sent: Option<Bytes>,
    since: Instant,
}

impl Subscription {
    pub(super) fn new(parts: Arc<Parts>, broker: Broker, subject: Subject, kind: Kind) -> Self {
        debug!(caller_id = %broker.id(), ?kind, "a broker opens a stream for a workload");
        let view = parts.gate.cache().subscribe(subject.selectors());
        Self { parts, broker, subject, kind, view, sent: None, since: Instant::now() }
    }

    async fn wait(&mut self) -> Result<Bytes, Status> {
        loop {
            self.broker.check_again(&self.parts)?;
            if self.subject.look_again().await? {
                self.view = self.parts.gate.cache().subscribe(self.subject.selectors());
            }
            let (decision, message) = self.decide();
            match decision {
                Decision::Refuse(reason) => return Err(refuse(reason)),
                Decision::WaitUpTo(limit) => {
                    // Late or changed: the next decision tells which.
                    if let Ok(changed) = timeout_at(self.since + limit, self.changed()).await {
                        changed?;
                    }
                }
                Decision::Send if self.sent.as_ref() == Some(&message) => {
                    self.changed().await?;
                }
                Decision::Send => {
                    self.sent = Some(message.clone());
                    return Ok(message);
                }
            }
        }
    }

    /// Waits until the identities, or what the workload shows, have changed. Cancel-safe.
    async fn changed(&mut self) -> Result<(), Status> {
        let stirred = self.subject.stirred();
        tokio::select! {
            changed = self.view.changed() => changed.map_err(|_| stopping()),
            () = stirred => Ok(()),
        }
    }

    /// Decision and message are made from one and the same view.
    fn decide(&mut self) -> (Decision, Bytes) {
        let snapshot = self.parts.gate.cache().snapshot();
        let view = self.view.borrow_and_update();
        let waited: Option<Duration> = self.sent.is_none().then(|| self.since.elapsed());
        let given = |id: &_| snapshot.identity(id).is_some_and(|one| is_given(&one.entry));
        let decision = decide(&view, self.kind, waited, given);
        let message = if decision == Decision::Send { message(&view, self.kind) } else { Bytes::new() };
        (decision, message)
    }
}

fn refuse(reason: Reason) -> Status {
    match reason {
        Reason::NoMatchingEntry => refused::not_entitled(),
        reason => status_of(reason),
    }
}

impl Messages for Subscription {
    async fn next(&mut self) -> Result<Bytes, Status> {
        let (shutdown, ended) = (self.parts.gate.shutdown().clone(), self.subject.ended());
        // Cancel-safe: a message is kept as sent only when it is returned.
        tokio::select! {
            biased;
            () = shutdown.begun() => Err(stopping()),
            status = ended => Err(status),
            next = self.wait() => next,
        }
    }
}
